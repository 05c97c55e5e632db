import io
import json
import os
import subprocess
import sys

import pytest

from nlp_transfer.terminal import ReaderGone, leave_reader, open_data, prepare_streams, say, say_json, show

TEXT = "± 旅館 → é \U0001f600"

WRITER = """
import sys
from nlp_transfer import terminal
terminal.prepare_streams()
{}
"""


def run_writer(code, encoding, **streams):
    command = [sys.executable, "-c", WRITER.format(code)]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "60"}
    return subprocess.run(command, env=environment, check=False, timeout=300, **(streams or {"capture_output": True}))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16", "utf-8:strict"])
def test_messages_tables_and_data_go_out_in_any_encoding(encoding):
    code = (
        "from rich.table import Table; from rich.console import Console\n"
        f"text = {TEXT!r}\n"
        "terminal.say(text); terminal.complain(text)\n"
        "table = Table(); table.add_column(text); table.add_row(text); terminal.show(table)\n"
        "Console(stderr=True).print(text)\n"
        "with terminal.open_data() as data: data.write(text + '\\n')\n"
    )
    done = run_writer(code, encoding)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    # Data is UTF-8, whatever stands around it.
    assert done.stdout.endswith(f"{TEXT}\n".encode())
    if encoding == "ascii":
        assert done.stdout.startswith(rb"+/- \u65c5\u9928 -> \xe9 \U0001f600")
        assert done.stderr.startswith(rb"nlp-transfer: +/- \u65c5\u9928 -> \xe9 \U0001f600")
        assert b"+----" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_stays_json_in_any_encoding(encoding):
    done = run_writer(f"terminal.say_json({{'a': {TEXT!r}}})", encoding)
    assert json.loads(done.stdout.decode(encoding)) == {"a": TEXT}
    assert (TEXT.encode() in done.stdout) == (encoding == "utf-8")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(("stream", "status"), [("stdout", 0), ("stderr", 141)])
@pytest.mark.parametrize("writing", ["print", "rich", "library"])
def test_a_reader_that_goes_away_ends_the_program_quietly(stream, status, writing, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    lines = {
        "print": f"print('x' * 99, file=sys.{stream}, flush=True)",
        "rich": f"Console(file=sys.{stream}).print('x' * 9); sys.{stream}.flush()",
        "library": f"sys.{stream}.writelines(['x' * 99999, '\\n']); sys.{stream}.flush()",
    }
    leave = "except terminal.ReaderGone as gone:\n    sys.exit(terminal.leave_reader(gone))"
    code = f"from rich.console import Console\ntry:\n    {lines[writing]}\n{leave}"
    reading, writing_end = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    done = run_writer(code, "utf-8", **{stream: writing_end, other: subprocess.PIPE})
    os.close(writing_end)
    assert (done.returncode, getattr(done, other)) == (status, b"")


def test_another_pipe_that_breaks_stays_what_it_is():
    code = (
        "import os\nreading, writing = os.pipe(); os.close(reading)\n"
        "try:\n    os.write(writing, b'x')\nexcept BrokenPipeError: print('broken')\n"
    )
    assert run_writer(code, "utf-8").stdout == b"broken\n"


def test_streams_of_a_test_or_a_notebook_are_left_in_place(capsys, monkeypatch):
    before = sys.stdout
    prepare_streams()
    assert sys.stdout is before
    say(TEXT)
    show(TEXT)
    say_json({"a": TEXT})
    with open_data() as data:
        data.write("1\n")
    out = capsys.readouterr().out
    assert out.startswith(f"{TEXT}\n{TEXT}\n")
    assert out.endswith("1\n")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    prepare_streams()
    with open_data() as data:
        assert data is sys.stdout


def test_which_reader_is_gone_decides_the_status(monkeypatch):
    moved = []
    monkeypatch.setattr(os, "dup2", lambda source, target: moved.append(target))
    assert [leave_reader(ReaderGone(number)) for number in (1, 2)] == [0, 141]
    assert moved == [1, 2]
