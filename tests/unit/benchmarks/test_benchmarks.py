"""Suites: what they hold, that everyone gets the same rows, that nothing is run twice, and what is compared."""

import contextlib
import io
import json
import sys

import pytest
from rich.console import Console

from nlp_transfer.benchmarks.picture import write_comparison
from nlp_transfer.benchmarks.prediction import main as time_prediction
from nlp_transfer.benchmarks.rounds import Bench, prepare_rows, run_suite
from nlp_transfer.benchmarks.runners import _call
from nlp_transfer.benchmarks.suite import Suite, list_suites, load_suite, narrow_suite
from nlp_transfer.benchmarks.summary import ALL_JOBS, compare_contenders, comparison_table
from nlp_transfer.data.tables import read_table
from nlp_transfer.errors import DataError, OutputError, RecipeError, TransferError
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.shipped import list_shipped_names
from nlp_transfer.runs.pipeline import run
from tests.tiny import make_splits

PEER = """
import argparse, json
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ("data", "encoder", "seed"):
    parser.add_argument(f"--{name}")
options = parser.parse_args()
with (Path(__file__).parent / "calls").open("a") as file:
    file.write(f"{options.data} {options.seed}\\n")
print("progress of some kind")
print(json.dumps({"peer": "setfit", "train_seconds": 100.0, "test_accuracy": 0.25}))
"""

PIPELINE = """
import argparse, json
from pathlib import Path
import pandas as pd
parser = argparse.ArgumentParser()
for name in ("model", "data", "out", "batch-size"):
    parser.add_argument(f"--{name}")
options = parser.parse_args()
texts = pd.read_parquet(options.data).text.tolist()
Path(options.out).write_text("x\\n" * len(texts))
print(json.dumps({"peer": "pipeline", "texts": len(texts), "texts_per_second": 2.0}))
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a data set, and one with a peer that writes down its calls."""
    splits = make_splits(20, 3, names=("x", "y", "z"))
    (tmp_path / "data" / "made_up").mkdir(parents=True)
    for name, table in splits.tables.items():
        table.to_parquet(tmp_path / "data" / "made_up" / f"{name}.parquet")
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "peer_setfit.py").write_text(PEER)
    return tmp_path


def make_suite(**changes):
    recipe = {"recipe": "topic/few_shot", "overrides": ["strategy.method=prototypes", "data.shots=2"]}
    content = {
        "description": "A try.",
        "contenders": {"ours": recipe, "peer": {"peer": "setfit"}},
        "jobs": {"made_up": {"data": "made_up", "rows": {"test": 8}, "overrides": ["evaluation.tfidf=false"]}},
    }
    return Suite.model_validate(content | changes)


@pytest.mark.parametrize("name", list_suites())
def test_shipped_suites_name_recipes_that_load_as_every_job_changes_them(name):
    suite = load_suite(name)
    assert f"benchmarks/{name}" not in list_shipped_names()
    for job in suite.jobs:
        for contender in suite.contenders:
            held = suite.find(job, contender)
            if suite.jobs[job].model is not None:
                assert load_recipe(suite.jobs[job].model.recipe, suite.jobs[job].model.overrides)
            if held.recipe is not None:
                overrides = [each.replace("{after}", "runs/earlier") for each in held.overrides]
                assert load_recipe(held.recipe, [*overrides, "training.seed=1", "training.seeds=null"])


def test_rounds_alternate_share_their_rows_and_are_not_run_twice(place, tiny_encoder):
    said = []
    bench = Bench(
        data=place / "data",
        out=place / "out",
        encoder=str(tiny_encoder("bert")),
        peers=place / "peers",
        python=sys.executable,
        rounds=(0, 1),
    )
    suite = make_suite(contenders={"one": {"peer": "setfit"}, "two": {"peer": "setfit"}})
    records = run_suite(suite, bench, say=said.append)
    assert all(record["peak_memory_bytes"] > 1e6 for record in records)
    assert [line for line in said if line.startswith("made_up")] == [
        f"made_up, round {number}: {name}" for number, name in ((0, "one"), (0, "two"), (1, "two"), (1, "one"))
    ]
    calls = (place / "peers" / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["0", "0", "1", "1"]
    (given,) = {call.split()[0] for call in calls}
    assert read_table(f"{given}/test.parquet").num_rows == 8
    assert read_table(f"{given}/train.parquet").num_rows == 20
    found = [(record["contender"], record["round"]) for record in records]
    assert found == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    assert run_suite(suite, bench, say=said.append) == records
    assert len((place / "peers" / "calls").read_text().splitlines()) == 4
    other = make_suite(contenders={"one": {"recipe": "quickstart"}, "two": {"peer": "setfit"}})
    with pytest.raises(OutputError, match=r"one-0\.json: was found with other settings"):
        run_suite(other, bench)
    (place / "out" / "made_up" / "two-1.json").write_text("{")
    with pytest.raises(OutputError, match=r"two-1\.json: cannot be read"):
        run_suite(suite, bench)


def test_orders_flip_from_round_to_round_whatever_their_seeds(place, tiny_encoder):
    said = []
    bench = Bench(place / "data", place / "out", str(tiny_encoder("bert")), place / "peers", rounds=(1, 3))
    suite = make_suite(contenders={"one": {"peer": "setfit"}, "two": {"peer": "setfit"}})
    run_suite(suite, bench, say=said.append)
    order = [line.split()[-1] for line in said if line.startswith("made_up")]
    assert order == ["two", "one", "one", "two"]


def test_an_artifact_that_another_contender_starts_from_is_kept_for_it(place, tiny_encoder, monkeypatch):
    student = {
        "recipe": "sentiment/distill",
        "overrides": ["strategy.teacher={after}", "strategy.keep_layers=1", "training.max_steps=1"],
        "after": "teacher",
    }
    full = {"recipe": "sentiment/full", "overrides": ["training.max_steps=1"]}
    suite = make_suite(contenders={"teacher": full, "student": student})
    # A process each takes longer to start than to train.
    monkeypatch.setattr(
        "nlp_transfer.benchmarks.runners._call", lambda command, *_: str(run(command[4], command[5:]).model_path)
    )
    found = run_suite(suite, Bench(place / "data", place / "out", str(tiny_encoder("bert")), rounds=(1,)))
    assert [record["contender"] for record in found] == ["teacher", "student"]  # though round 1 is odd
    assert (place / "out" / "made_up" / "artifacts" / "teacher-1" / "model").is_dir()
    for record in found:
        assert record["round"] == 1
        assert 0 <= record["accuracy"] <= 1
        assert record["trainable_share"] == 1
        assert record["seconds"] > 0
        assert record["saved_bytes"] > 0
        assert record["environment"]["versions"]["python"]


def test_predictors_share_a_model_that_is_trained_once(place, tiny_encoder, monkeypatch):
    (place / "peers" / "peer_pipeline.py").write_text(PIPELINE)
    suite = make_suite(
        contenders={
            "ours": {"predictor": "classifier"},
            "peer": {"peer": "pipeline", "arguments": ["--batch-size", "4"]},
        },
        jobs={
            "made_up": {
                "data": "made_up",
                "rows": {"test": 8},
                "model": {"recipe": "sentiment/full", "overrides": ["training.max_steps=1", "evaluation.tfidf=false"]},
            }
        },
    )
    commands = []

    def call(command, name, *_):
        commands.append(name)
        if command[3] == "run":
            run(command[4], command[5:])
            return ""
        if command[1] == "-m":
            monkeypatch.setattr(sys, "argv", command[2:])
            kept = io.StringIO()
            with contextlib.redirect_stdout(kept):
                time_prediction()
            return kept.getvalue()
        return _call(command, name)

    monkeypatch.setattr("nlp_transfer.benchmarks.runners._call", call)
    bench = Bench(place / "data", place / "out", str(tiny_encoder("bert")), place / "peers", rounds=(0, 1))
    records = run_suite(suite, bench)
    assert commands.count("sentiment/full") == 1
    assert len(commands) == 5
    assert (place / "out" / "made_up" / "artifacts" / "model-0" / "model").is_dir()
    for record in records:
        assert len(record["predicted"]) == 8
        assert set(record["predicted"]) <= {"x", "y", "z"}
        assert record["settings"]["model"]["recipe"] == "sentiment/full"
        assert record["examples_per_second"] > 0
    rows = compare_contenders(records)
    expected = sum(a == "x" for a in records[0]["predicted"]) / 8
    assert rows[1]["agreement"] == pytest.approx(expected)
    assert rows[0]["agreement"] == 1
    console = Console(width=80, record=True)
    console.print(comparison_table(rows, "A try."))
    assert "same" in console.export_text()
    assert run_suite(suite, bench) == records
    assert len(commands) == 5


def test_shortened_splits_are_the_first_rows_that_datasets_shuffles(place):
    source = place / "data" / "made_up"
    assert prepare_rows(source, place / "out", {}) == source
    folder = prepare_rows(source, place / "out", {"test": 5})
    whole = read_table(source / "test.parquet")
    assert read_table(folder / "test.parquet")["text"] == whole.shuffle(seed=0)["text"][:5]
    assert prepare_rows(source, place / "out", {"test": 5}) == folder
    (source / "validation.parquet").unlink()
    assert not (prepare_rows(source, place / "out", {"test": 4}) / "validation.parquet").exists()
    with pytest.raises(DataError, match="--data"):
        prepare_rows(place / "nothing", place / "out", {})


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit('no room')", "peer_setfit: ended with status 1: no room"),
        ("print('nothing of use')", "expected a line of JSON"),
        (None, "no such script"),
    ],
)
def test_a_peer_that_fails_is_named_with_its_last_words(script, said, place, tiny_encoder):
    file = place / "peers" / "peer_setfit.py"
    file.unlink() if script is None else file.write_text(script)
    suite = narrow_suite(make_suite(), contenders=["peer"])
    bench = Bench(place / "data", place / "out", str(tiny_encoder("bert")), place / "peers", sys.executable)
    with pytest.raises(TransferError, match=said):
        run_suite(suite, bench)
    bench = Bench(place / "data", place / "out", str(tiny_encoder("bert")), place, str(place / "no_python"))
    (place / "peer_setfit.py").touch()
    with pytest.raises(TransferError, match="--python"):
        run_suite(suite, bench)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"description": "x"}, "contenders: Field required"),
        (
            {"description": "x", "contenders": {"a": {}}, "jobs": {"b": {"data": "c"}}},
            "expected one of recipe, predictor and peer",
        ),
        (
            {"description": "x", "contenders": {"a": {"peer": "setfit"}}, "jobs": {"b": {"data": "c", "skip": ["d"]}}},
            "job b names it",
        ),
        (
            {"description": "x", "contenders": {"a": {"peer": "pipeline"}}, "jobs": {"b": {"data": "c"}}},
            "a: predicts, but job b has no model",
        ),
        (
            {
                "description": "x",
                "contenders": {"a": {"recipe": "quickstart", "after": "a"}},
                "jobs": {"b": {"data": "c"}},
            },
            "stands before it",
        ),
        ([], "expected description, contenders and jobs"),
    ],
)
def test_a_suite_that_does_not_fit_is_refused_with_the_place(content, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps(content))
    with pytest.raises(RecipeError, match=said):
        load_suite(str(tmp_path / "mine.yaml"))


def test_unknown_names_get_the_nearest():
    with pytest.raises(RecipeError, match='Did you mean "few_shot_cpu"'):
        load_suite("few_shot_gpu")
    with pytest.raises(RecipeError, match="--job agnews: the suite has ag_news"):
        narrow_suite(load_suite("few_shot_cpu"), jobs=["agnews"])


def test_comparisons_are_paired_by_round_and_averaged_over_jobs(tmp_path):
    def record(job, contender, number, accuracy, seconds):
        return {"job": job, "contender": contender, "round": number, "accuracy": accuracy, "seconds": seconds}

    records = [
        record("a", "ours", 0, 0.8, 1.0),
        record("a", "peer", 0, 0.7, 4.0),
        record("a", "ours", 1, 0.6, 2.0),
        record("a", "peer", 1, 0.6, 4.0),
        record("b", "ours", 0, 0.4, 1.0),
        record("b", "peer", 0, 0.5, 8.0),
        record("b", "ours", 1, 0.4, 1.0),
    ]
    rows = {(row["job"], row["contender"]): row for row in compare_contenders(records)}
    peer = rows["a", "peer"]
    assert peer["accuracy"] == pytest.approx(0.65)
    assert peer["difference"] == pytest.approx(-0.05)
    assert peer["error"] == pytest.approx(0.05)  # differences -0.1 and 0: spread 0.0707, over the root of two
    assert (peer["time_low"], peer["time_ratio"], peer["time_high"]) == (2.0, 3.0, 4.0)
    assert rows["b", "peer"]["error"] is None
    over_all = rows[ALL_JOBS, "peer"]  # round 1 of the peer on b is missing
    assert over_all["rounds"] == 1
    assert over_all["accuracy"] == pytest.approx(0.6)
    assert over_all["seconds"] == 12.0
    assert rows[ALL_JOBS, "ours"]["accuracy"] == pytest.approx(0.6)
    write_comparison(list(rows.values()), tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text()) == {"limits": [], "rows": list(rows.values())}
    picture = (tmp_path / "comparison.svg").read_text()
    for text in ("a, peer<", "3 x<", "8 x<", "all jobs, peer<", "accuracy: ours 0.700, peer 0.650", "over 2 rounds"):
        assert text in picture
    assert picture.index("</title><rect") < picture.index("a, peer<")  # legible on a dark page
    console = Console(width=80, record=True)
    console.print(comparison_table(list(rows.values()), "A try."))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "peer" in line and "-0.050" in line]
