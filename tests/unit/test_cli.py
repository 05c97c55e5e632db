import csv
import io
import json
import sys

import pytest

from nlp_transfer import Classifier, cli
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import StorageError
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.recipe import list_shipped, load_recipe
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.strategies import STRATEGIES
from tests.tiny import make_splits

TEXTS = ["a superb hotel", "awful, rude", "plain"]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command as the shell would; gives exit status, stdout and stderr."""

    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["nlp-transfer", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
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


def test_doctor_shows_the_machine(call):
    status, out, _ = call("doctor")
    assert status == 0
    for name in ("python", "torch", "device", "precision", "minilm-l6", "cache", "network"):
        assert name in out


def test_run_trains_and_ends_with_a_table(call, tiny_encoder, tmp_path):
    for split, table in make_splits(24).tables.items():
        rows = zip(table["text"], table["label"], strict=True)
        content = "text,label\n" + "".join(f'"{text}",{"ab"[label]}\n' for text, label in rows)
        (tmp_path / f"{split}.csv").write_text(content, encoding="utf-8")
    command = [
        "run",
        "quickstart",
        f"encoder.name={tiny_encoder('bert')}",
        f"data.path={tmp_path}",
        "training.max_steps=2",
        "training.device=cpu",
        "evaluation.resamples=100",
        f"report.output_dir={tmp_path / 'run'}",
    ]
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

    monkeypatch.setattr("nlp_transfer.doctor.examine", lambda: fail(0))
    status, _, err = call("doctor")
    assert status == 1
    assert "No space left" in err

    def break_disk():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("nlp_transfer.doctor.examine", break_disk)
    status, _, err = call("doctor")
    assert status == 1
    assert "Input/output error" in err
    assert "Traceback" not in err
    status, _, err = call("doctor", "-v")
    assert status == 1
    assert "Traceback" in err


def test_what_nobody_foresaw_is_one_line_and_an_interrupt_says_how_to_go_on(capsys):
    cli._explain_crash(ValueError, ValueError("odd"), None)
    assert capsys.readouterr().err == "nlp-transfer: ValueError: odd. Run it again with -v for the traceback.\n"
    cli._explain_crash(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_help_names_every_command(call):
    status, out, _ = call("--help")
    assert status == 0
    for command in ("run", "list", "copy", "validate", "schema", "predict", "evaluate", "doctor"):
        assert f" {command} " in out
