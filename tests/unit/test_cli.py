import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import openpyxl
import pytest

from nlp_transfer import Classifier, cli
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import StorageError
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.recipe import list_shipped, load_recipe
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.stopping import Stopped
from nlp_transfer.strategies import STRATEGIES
from tests.tiny import make_splits

ROOT = Path(__file__).parents[2]
TEXTS = ["a superb hotel", "awful, rude", "plain"]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command as the shell would; gives exit status, stdout and stderr."""

    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["nlp-transfer", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        monkeypatch.setenv("COLUMNS", "200")
        status = 0
        try:
            cli.main()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 0
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture(scope="module")
def artifact(tiny_encoder, tmp_path_factory):
    labels = LabelSpace("classification", ("negative", "positive"))
    loaded = load_encoder(EncoderConfig(name=str(tiny_encoder("bert"))), labels, seed=0)
    folder = tmp_path_factory.mktemp("artifact") / "model"
    reading = {"is_pair": False, "max_length": 32}
    save_artifact(
        folder,
        loaded.model,
        load_tokenizer(loaded.source),
        labels=labels,
        source=loaded.source,
        merge=False,
        metadata={"reading": reading},
    )
    return folder


def test_list_shows_every_recipe_and_every_strategy(call):
    status, out, _ = call("list")
    assert status == 0
    shown = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert set(list_shipped()) <= shown
    assert set(STRATEGIES) <= shown


def test_copy_writes_a_recipe_once(call, tmp_path):
    status, out, _ = call("copy", "sentiment/lora", tmp_path / "my.yaml")
    assert (status, out.strip()) == (0, f"wrote {tmp_path / 'my.yaml'}")
    assert load_recipe(tmp_path / "my.yaml").strategy.kind == "lora"
    (tmp_path / "my.yaml").write_text("mine")
    status, _, err = call("copy", "sentiment/lora", tmp_path / "my.yaml")
    assert status == 2
    assert "exists already" in err
    assert (tmp_path / "my.yaml").read_text() == "mine"


def test_validate_tells_good_from_bad_and_shows_all_problems(call, tmp_path):
    assert call("validate", "quickstart", "topic/full")[:2] == (0, "quickstart: valid\ntopic/full: valid\n")
    (tmp_path / "bad.yaml").write_text("training:\n  epoch: 2\n  batch_size: no\n")
    (tmp_path / "worse.yaml").write_text("colour: blue\n")
    status, out, err = call("validate", tmp_path / "bad.yaml", "quickstart", tmp_path / "worse.yaml")
    assert status == 2
    assert out == "quickstart: valid\n"
    for said in ("training.epoch", "epochs", "training.batch_size", "colour", "bad.yaml", "worse.yaml"):
        assert said in err
    assert "Traceback" not in err


def test_schema_prints_json_schema(call):
    status, out, _ = call("schema")
    schema = json.loads(out)
    assert status == 0
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"data", "encoder", "training", "strategy"} <= set(schema["properties"])


def test_predict_reads_stdin_and_writes_csv_to_stdout(call, artifact):
    status, out, err = call("predict", artifact, stdin="\n".join(TEXTS))
    assert (status, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["text", "predicted", "probability_negative", "probability_positive"]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["predicted"] for row in rows] == Classifier.from_pretrained(artifact).predict(TEXTS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_predict_writes_the_file_that_is_named_and_overwrites_only_when_asked(suffix, call, artifact, tmp_path):
    (tmp_path / "in.csv").write_text("id,review\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS)))
    out = tmp_path / f"out.{suffix}"
    assert call("predict", artifact, tmp_path / "in.csv", "-o", out)[:2] == (0, "")
    first = out.read_bytes()
    status, _, err = call("predict", artifact, tmp_path / "in.csv", "-o", out)
    assert status == 2
    assert "--overwrite" in err
    assert call("predict", artifact, tmp_path / "in.csv", "-o", out, "--overwrite", "--batch-size", "1")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.csv", out.name])
    assert len(first) > 0


def test_predict_names_its_own_options_in_messages(call, artifact, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\nx,y\n")
    status, out, err = call("predict", artifact, tmp_path / "in.csv")
    assert (status, out) == (2, "")
    assert "--text" in err
    assert "data.text" not in err
    assert call("predict", artifact, tmp_path / "in.csv", "--text", "b")[0] == 0


MARKED = "text~label\n" + "".join(f"{text}~positive\n" for text in TEXTS)


@pytest.mark.parametrize("name", ["in.csv", "in.tsv.gz", "in.txt", "-"])
def test_predict_tells_the_delimiter_and_what_it_left_out(name, call, artifact, tmp_path):
    text = MARKED + "text~label\n"
    if name != "-":
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    where = "stdin" if name == "-" else str(tmp_path / name)
    status, out, err = call("predict", artifact, "-" if name == "-" else tmp_path / name, stdin=text)
    assert status == 0
    assert [row["text"] for row in csv.DictReader(io.StringIO(out))] == TEXTS
    assert err.splitlines() == [
        f'note: {where}: cells are taken to be separated by "~". Name another character with --delimiter.',
        f"note: {where}: 1 row repeats the header, as in files that were joined, and was left out (row 4).",
    ]
    status, out, err = call("predict", artifact, where if name != "-" else "-", "--delimiter", "~", stdin=text)
    assert [row["text"] for row in csv.DictReader(io.StringIO(out))] == TEXTS
    assert len(err.splitlines()) == 1


def test_evaluate_and_out_of_scope_take_a_delimiter_and_a_sheet(call, artifact, tmp_path):
    (tmp_path / "test.csv").write_text(MARKED)
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    second = book.create_sheet("second")
    for row in csv.reader(io.StringIO(MARKED), delimiter="~"):
        second.append(row)
    book.save(tmp_path / "book.xlsx")
    found = []
    for options in ((tmp_path, "--delimiter", "~"), (tmp_path / "book.xlsx", "--sheet", "second")):
        status, out, err = call("evaluate", artifact, *options, "--metric", "accuracy", "--json")
        assert (status, err) == (0, "")
        found.append(json.loads(out))
        assert found[-1]["accuracy"]["n"] == 3
        assert call("out-of-scope", artifact, *options, "--ood-data", options[0])[0] == 0
    assert found[0] == found[1]
    status, _, err = call("evaluate", artifact, tmp_path / "test.csv", "--delimiter", ";")
    assert status == 2
    assert "say so with --delimiter" in err
    status, _, err = call("evaluate", artifact, tmp_path / "book.xlsx", "--sheet", "third")
    assert status == 2
    assert "--sheet: expected a sheet of" in err
    assert call("predict", artifact, tmp_path / "test.csv", "--delimiter", "ab")[0] == 2


@pytest.mark.parametrize("command", ["advise", "compare", "rank"])
def test_a_delimiter_becomes_an_override_where_a_command_takes_those(command, call, monkeypatch):
    seen = []

    def fail(*arguments, **_):
        seen.append(arguments[-1])
        raise StorageError("stopped here")

    monkeypatch.setattr(f"nlp_transfer.evidence.{command}.command.{command}", fail)
    assert call(command, "d.csv", "data.limit=5", "--delimiter", "tab")[0] == 1
    assert seen == [["data.limit=5", "data.delimiter=tab"]]


def test_evaluate_prints_a_table_or_json(call, artifact, tmp_path):
    predicted = Classifier.from_pretrained(artifact).predict(TEXTS)
    (tmp_path / "test.csv").write_text(
        "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in zip(TEXTS, predicted, strict=True))
    )
    status, out, _ = call("evaluate", artifact, tmp_path, "--json", "--metric", "accuracy", "--metric", "f1_micro")
    assert status == 0
    scores = json.loads(out)
    assert list(scores) == ["accuracy", "f1_micro"]
    assert scores["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    status, out, _ = call("evaluate", artifact, tmp_path / "test.csv")
    assert status == 0
    assert "Accuracy" in out
    (tmp_path / "test.csv").write_text("text,label\nfine,mixed\n")
    status, out, err = call("evaluate", artifact, tmp_path)
    assert (status, out) == (2, "")
    assert "mixed" in err


def test_texts_that_the_encoder_does_not_know_are_told_on_stderr(call, artifact, tmp_path):
    (tmp_path / "test.csv").write_text(
        "text,label\n\U0001f375,positive\nplain,negative\n\U0001f377,positive\n", "utf-8"
    )
    told = "nlp-transfer: warning: {}: 2 of 3 texts (66.7%) hold nothing that the encoder knows; "
    for command in ("predict", "evaluate"):
        status, out, err = call(command, artifact, tmp_path / "test.csv")
        assert status == 0
        assert "warning" not in out
        assert err.count("warning") == 1
        assert told.format(tmp_path / "test.csv") in err
        assert "emoji" in err
    assert call("predict", artifact, "-", stdin="plain hotel\n")[2] == ""


def test_doctor_shows_the_machine(call):
    status, out, _ = call("doctor")
    assert status == 0
    for name in ("python", "torch", "device", "precision", "minilm-l6", "cache", "network"):
        assert name in out


def make_run(encoder, folder, *more):
    """Write tiny splits into a folder; gives the arguments of a run over them."""
    for split, table in make_splits(24).tables.items():
        rows = zip(table["text"], table["label"], strict=True)
        content = "text,label\n" + "".join(f'"{text}",{"ab"[label]}\n' for text, label in rows)
        (folder / f"{split}.csv").write_text(content, encoding="utf-8")
    return [
        "run",
        "quickstart",
        f"encoder.name={encoder}",
        f"data.path={folder}",
        "training.device=cpu",
        "evaluation.resamples=100",
        f"report.output_dir={folder / 'run'}",
        *more,
    ]


def test_run_trains_and_ends_with_a_table(call, tiny_encoder, tmp_path):
    command = make_run(tiny_encoder("bert"), tmp_path, "training.max_steps=2")
    status, out, err = call(*command)
    assert status == 0, err
    assert "Accuracy" in out
    assert "data:" in err
    assert "Traceback" not in err
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["steps"] == 2
    # A finished run is left alone, and that is said.
    status, _, err = call(*command)
    assert status == 0
    assert "run-2" in err
    assert (tmp_path / "run-2" / "report.json").is_file()


def test_run_says_what_an_override_takes_along(call, monkeypatch, tmp_path):
    (tmp_path / "my.yaml").write_text("data: {path: old.csv, text: body, label: topic}")
    monkeypatch.chdir(tmp_path)
    note = (
        "note: data.path=new.csv: dropped data.text=body, data.label=topic of the recipe, which were written for other "
        "data; name them again to keep them.\n"
    )
    monkeypatch.setattr("nlp_transfer.runs.pipeline.run", lambda recipe, console: recipe.data.path)
    assert call("run", "my.yaml", "data.path=new.csv") == (0, "new.csv\n", note)
    assert call("run", "my.yaml") == (0, "old.csv\n", "")
    assert call("run", "my.yaml", "data.path=new.csv", "data.text=body", "data.label=topic") == (0, "new.csv\n", "")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert call("run", "my.yaml", "data.path=new.csv") == (0, "", "")


@pytest.mark.parametrize(
    ("options", "label"),
    [((), None), (("--label", "mood"), "mood"), (("--label", "sad", "--label", "glad"), ["sad", "glad"])],
)
def test_evaluate_takes_one_label_column_or_several(options, label, call, artifact, monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(Classifier, "evaluate", lambda self, rows, **given: taken.append(given["label"]) or {})
    (tmp_path / "d.csv").write_text("text,mood,sad,glad\nfine,negative,0,1\n")
    assert call("evaluate", artifact, tmp_path / "d.csv", "--json", *options)[:2] == (0, "{}\n")
    assert taken == [label]


# Below a shell that keeps Ctrl-C from its background jobs, Python would not hear of it.
START = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("nlp_transfer", run_name="__main__")
"""


def start(arguments, stdout=subprocess.PIPE):
    """Start the command line in a process of its own."""
    command = [sys.executable, "-c", START, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_run_hands_the_guard_on(call, monkeypatch):
    seen = []

    def watch(recipe, console):
        seen.append((recipe.evaluation.guard, recipe.evaluation.control, recipe.training.epochs))
        return "done"

    monkeypatch.setattr("nlp_transfer.runs.pipeline.run", watch)
    assert call("run", "sentiment/full", "--guard", "training.epochs=2")[0] == 0
    assert call("run", "sentiment/full", "training.epochs=2", "--guard")[0] == 0
    assert call("run", "sentiment/full")[0] == 0
    assert seen == [(True, True, 2.0), (True, True, 2.0), (False, False, 3.0)]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupted_run_says_how_to_go_on(tiny_encoder, tmp_path):
    steps = ("training.max_steps=100000", "training.checkpoint_every=2", "evaluation.tfidf=false")
    process = start(make_run(tiny_encoder("bert"), tmp_path, *steps))
    until = time.monotonic() + 300
    while not list(tmp_path.glob("run/checkpoints/step-*/manifest.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert out == ""
    said = r"nlp-transfer: stopped at step [\d,]+, which is saved\. The same command goes on from there\.\n$"
    assert re.search(said, err)
    assert "Traceback" not in err
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("command", [["schema"], ["list"], ["validate", "quickstart"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_failure(command):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(command, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")


def test_another_broken_pipe_is_a_failure(call, monkeypatch):
    def break_pipe():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("nlp_transfer.commands.machine.examine", break_pipe)
    status, _, err = call("doctor")
    assert status == 1
    assert "Broken pipe" in err


def test_an_interrupt_of_a_command_without_checkpoints_only_says_so(call, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("nlp_transfer.commands.machine.examine", interrupt)
    assert call("doctor") == (130, "", "nlp-transfer: stopped.\n")
    status, _, err = call("doctor", "-v")
    assert status == 130
    assert "Traceback" in err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_predictions_are_utf_8_on_stdout_and_stdin_whatever_the_terminal_speaks(encoding, artifact):
    texts = ["ein schönes 旅館", "a room \U0001f600"]
    command = [sys.executable, "-m", "nlp_transfer", "predict", str(artifact)]
    done = subprocess.run(
        command,
        input="\n".join(texts).encode(),
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert [row["text"] for row in csv.DictReader(io.StringIO(done.stdout.decode("utf-8")))] == texts


def test_an_encoding_of_stdin_that_is_none_is_named(call, artifact):
    status, _, err = call("predict", artifact, "--encoding", "utf-99", stdin=io.TextIOWrapper(io.BytesIO(b"fine")))
    assert status == 2
    assert "--encoding: expected the name of a text encoding, came 'utf-99'" in err


def test_a_mistake_is_a_message_and_v_adds_the_traceback(call):
    status, out, err = call("run", "quickstart", "training.epoch=2")
    assert (status, out) == (2, "")
    assert "epochs" in err
    assert "Traceback" not in err
    for flag in ("-v", "--verbose"):
        status, _, err = call("run", "quickstart", "training.epoch=2", flag)
        assert status == 2
        assert "Traceback" in err
        assert "epochs" in err


def test_an_unknown_recipe_gets_the_nearest(call):
    status, _, err = call("run", "sentiment/lroa")
    assert status == 2
    assert "sentiment/lora" in err


def test_a_missing_argument_and_an_unknown_command_exit_with_two(call):
    assert call("run")[0] == 2
    assert call("no-such-command")[0] == 2
    assert call("predict", "x", "--batch-size", "0")[0] == 2


def test_trouble_of_the_machine_exits_with_one(call, monkeypatch):
    def fail(_):
        raise StorageError("x: No space left on device.")

    monkeypatch.setattr("nlp_transfer.commands.machine.examine", lambda: fail(0))
    status, _, err = call("doctor")
    assert status == 1
    assert "No space left" in err

    def break_disk():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("nlp_transfer.commands.machine.examine", break_disk)
    status, _, err = call("doctor")
    assert status == 1
    assert "Input/output error" in err
    assert "Traceback" not in err
    status, _, err = call("doctor", "-v")
    assert status == 1
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("command", "step", "is_done", "status", "said"),
    [
        ("run", None, False, 143, "stopped. The same command goes on from the last checkpoint."),
        ("run", 1234, False, 143, "stopped at step 1,234, which is saved. The same command goes on from there."),
        ("run", None, True, 0, "the run was already finished when it was asked to stop."),
        ("compare", 7, False, 143, "stopped at step 7, which is saved. The same command goes on with what is missing."),
    ],
)
def test_a_stopped_command_says_how_it_goes_on(command, step, is_done, status, said, call, monkeypatch):
    def stop(*_, **__):
        error = Stopped(signal.SIGTERM, is_done=is_done)
        error.step = step
        raise error

    monkeypatch.setattr("nlp_transfer.runs.pipeline.run", stop)
    monkeypatch.setattr("nlp_transfer.evidence.compare.command.compare", stop)
    assert call(command, "quickstart") == (status, "", f"nlp-transfer: {said}\n")


def test_what_nobody_foresaw_is_one_line(capsys):
    code = (
        "import sys; from nlp_transfer.cli import main; from nlp_transfer.commands import machine;"
        "sys.argv = ['nlp-transfer', 'doctor']; machine.examine = lambda: 1 / 0; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    message = "nlp-transfer: ZeroDivisionError: division by zero. Run it again with -v for the traceback.\n"
    assert (done.returncode, done.stderr) == (1, message)
    cli._explain_crash(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "nlp-transfer: stopped.\n"


def test_without_a_command_the_help_is_shown(call):
    status, out, err = call()
    assert status == 2
    assert "Usage:" in out + err
    assert " predict " in out + err
    assert call("run", "--help")[0] == 0


def test_help_names_every_command(call):
    status, out, _ = call("--help")
    assert status == 0
    for command in ("run", "list", "copy", "validate", "schema", "predict", "evaluate", "doctor"):
        assert f" {command} " in out
