import ast
import errno
import json
import shutil
from pathlib import Path

import pytest

import nlp_transfer
from nlp_transfer.errors import find_errno, name_cause

PACKAGE = Path(nlp_transfer.__file__).parent


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("No padding token is defined.."), "No padding token is defined"),
        (ValueError("one\n  two:"), "one two"),
        (KeyError(), "KeyError"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "No space left on device"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), "[Errno 28] No space left on device"),
        ("I/O error: Permission denied (os error 13)", "permission denied"),
        ("x" * 400, "x" * 300 + " (and more)"),
    ],
    ids=str,
)
def test_a_cause_fits_into_a_sentence(error, words):
    assert name_cause(error) == words


def test_broken_json_and_broken_text_are_told_in_our_words():
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads('{"a"\n: 1,}')
    assert name_cause(caught.value) == "it is not valid JSON from line 2, column 5 on"
    with pytest.raises(UnicodeDecodeError) as caught:
        b"ab\xff".decode()
    assert name_cause(caught.value) == "it is not valid utf-8 text from byte 2 on"


def test_the_number_of_a_failure_is_found_in_words_too():
    assert find_errno(OSError(errno.EIO, "x")) == errno.EIO
    assert find_errno("full (os error 28)") == errno.ENOSPC
    assert find_errno(ValueError("28")) is None


def find_bare_causes(source):
    """Lines where a caught error stands in a sentence with a stop behind it."""
    found = []
    for handler in ast.walk(ast.parse(source)):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        for text in (node for node in ast.walk(handler) if isinstance(node, ast.JoinedStr)):
            for value, after in zip(text.values, text.values[1:], strict=False):
                is_bare = isinstance(value, ast.FormattedValue) and ast.unparse(value.value) in (
                    handler.name,
                    f"{handler.name}.strerror",
                    f"str({handler.name})",
                )
                if is_bare and isinstance(after, ast.Constant) and str(after.value).lstrip(")").startswith((".", ";")):
                    found.append(text.lineno)
    return found


def test_no_message_ends_a_library_sentence_with_a_second_stop():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 200
    assert {str(path): found for path in files if (found := find_bare_causes(path.read_text(encoding="utf-8")))} == {}
    planted = "try:\n    f()\nexcept OSError as error:\n    raise T(f'{a}: {error}. Do this.') from error\n"
    assert find_bare_causes(planted) == [4]
    assert find_bare_causes(planted.replace("{error}", "{name_cause(error)}")) == []
