"""Digests of files and of the records that hold them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nlp_transfer.errors import ArtifactError, DamageError
from nlp_transfer.models import digests
from nlp_transfer.models.digests import (
    check_artifact,
    check_files,
    check_meanwhile,
    hash_files,
    hash_folder,
    open_record,
    require_record,
    seal_record,
)

RECORD = Path("model/nlp_transfer.json")
CONTENT: dict[str, Any] = {"labels": ["bad", "naïve"], "thresholds": {"bad": 0.35}, "format": 1, "none": None}


def make_files(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder").mkdir(exist_ok=True)
    for name, content in (
        ("config.json", b'{\n  "a": 1\n}\n'),
        ("weights.safetensors", bytes(range(256)) * 40),
        ("encoder/config.json", b"{}"),
        ("README.md", b"# card"),
        ("nlp_transfer.json", b"{}"),
    ):
        (folder / name).write_bytes(content)
    return {name: folder / name for name in ("config.json", "weights.safetensors", "encoder/config.json")}


def test_digests_are_those_of_sha256sum_and_leave_out_card_and_record(tmp_path):
    paths = make_files(tmp_path)
    found = hash_folder(tmp_path)
    assert list(found) == sorted(paths)
    code = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    for name, path in paths.items():
        other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert found[name] == {"size": path.stat().st_size, "sha256": other.stdout.strip()}


def test_a_record_is_the_same_whatever_its_spaces_line_ends_and_order(tmp_path):
    sealed = seal_record(CONTENT, files={"a": {"size": 1, "sha256": "x"}})
    turned = dict(reversed(sealed.items()))
    texts = [json.dumps(sealed), json.dumps(turned, indent=3, ensure_ascii=False).replace("\n", "\r\n")]
    for text in texts:
        content, groups = open_record(json.loads(text), RECORD)
        assert content == CONTENT
        assert groups == {"files": {"a": {"size": 1, "sha256": "x"}}}


def test_every_changed_value_and_key_of_a_record_is_noticed():
    sealed = seal_record(CONTENT, files={"a": {"size": 1, "sha256": "x"}})
    changed = [
        {**sealed, "labels": ["naïve", "bad"]},
        {**sealed, "thresholds": {"bad": 0.36}},
        {**sealed, "more": 1},
        {key: value for key, value in sealed.items() if key != "none"},
        {**sealed, "digests": {**sealed["digests"], "files": {"a": {"size": 2, "sha256": "x"}}}},
        {**sealed, "digests": {"record": sealed["digests"]["record"]}},
        {**sealed, "digests": {"files": {}}},
        {**sealed, "digests": []},
    ]
    for record in changed:
        with pytest.raises(DamageError, match=r"model/nlp_transfer\.json: is damaged.*take the entry \"digests\" out"):
            open_record(record, RECORD)
    assert open_record(sealed, RECORD)[0] == CONTENT


def test_a_record_without_digests_is_taken_as_it_is():
    assert open_record(CONTENT, RECORD) == (CONTENT, {})


def test_sealing_again_keeps_what_is_known_of_files():
    first = seal_record(CONTENT, files={"a": {"size": 1, "sha256": "x"}})
    again = seal_record({**first, "format": 2})
    assert open_record(again, RECORD) == ({**CONTENT, "format": 2}, {"files": {"a": {"size": 1, "sha256": "x"}}})


@pytest.mark.parametrize("name", ["../secret", "/etc/hosts", "a/../../b", "", "a\\b", "a\0b"])
def test_a_record_that_names_files_elsewhere_is_refused(name):
    with pytest.raises(ArtifactError, match="is damaged"):
        open_record(seal_record(CONTENT, files={name: {"size": 1, "sha256": "x"}}), RECORD)


def turn_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "SHA-256 is another": turn_bit,
    r"expected 10,240 bytes, came 10": lambda path: path.write_bytes(path.read_bytes()[:10]),
    "is missing": lambda path: path.unlink(),
    "came a folder": put_folder,
    "came no plain file": put_pipe,
    "git lfs pull": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
}


@pytest.mark.parametrize("words", DAMAGES)
@pytest.mark.parametrize("large", [False, True], ids=["before", "meanwhile"])
def test_every_damage_of_a_file_is_named_with_its_cause(words, large, tmp_path, monkeypatch):
    paths = make_files(tmp_path)
    expected = hash_files(paths)
    if large:
        monkeypatch.setattr(digests, "LARGE_BYTES", 100)
    with check_meanwhile(paths, expected, record=RECORD):
        pass
    DAMAGES[words](paths["weights.safetensors"])
    with (
        pytest.raises(DamageError, match=rf"{paths['weights.safetensors']}: .*{words}.*model/nlp_transfer\.json"),
        check_meanwhile(paths, expected, record=RECORD),
    ):
        raise ValueError("the loader stumbles over the damage")


def test_what_goes_wrong_with_whole_files_is_told_as_it_is(tmp_path, monkeypatch):
    paths = make_files(tmp_path)
    monkeypatch.setattr(digests, "LARGE_BYTES", 100)
    with pytest.raises(ValueError, match="another cause"), check_meanwhile(paths, hash_files(paths), record=RECORD):
        raise ValueError("another cause")


def test_line_ends_of_git_on_windows_do_not_matter_in_json_and_do_elsewhere(tmp_path):
    paths = make_files(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"a\nb\n")
    paths["vocab.txt"] = tmp_path / "vocab.txt"
    expected = hash_files(paths)
    for name in ("config.json", "vocab.txt"):
        paths[name].write_bytes(paths[name].read_bytes().replace(b"\n", b"\r\n"))
    check_files(paths, {"config.json": expected["config.json"]}, record=RECORD)
    with pytest.raises(DamageError, match=r"vocab\.txt"):
        check_files(paths, expected, record=RECORD)


def test_an_artifact_is_hashed_once_until_a_file_changes(tmp_path, monkeypatch):
    paths = make_files(tmp_path)
    record = tmp_path / "nlp_transfer.json"
    record.write_text(json.dumps(seal_record(CONTENT, files=hash_folder(tmp_path))))
    hashed: list[Path] = []
    taken = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: hashed.append(path) or taken(path))
    for _ in range(3):
        check_artifact(tmp_path, record)
    assert sorted(hashed) == sorted(paths.values())
    turn_bit(paths["config.json"])
    for _ in range(2):
        with pytest.raises(DamageError, match=r"config\.json"):
            check_artifact(tmp_path, record)


def test_a_record_that_is_gone_from_a_run_is_missed_and_elsewhere_not(tmp_path):
    make_files(tmp_path / "run" / "model")
    record = tmp_path / "run" / "model" / "nlp_transfer.json"
    record.unlink()
    require_record(record)
    (tmp_path / "run" / "report.json").write_text("{}")
    with pytest.raises(DamageError, match=r"model/nlp_transfer\.json: is missing"):
        require_record(record)
    shutil.copytree(record.parent, tmp_path / "copied")
    require_record(tmp_path / "copied" / "nlp_transfer.json")
