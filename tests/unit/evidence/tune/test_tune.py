import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import nlp_transfer as nt
from nlp_transfer import cli
from nlp_transfer.errors import ArtifactError, DataError, EncoderError, OutputError, RecipeError, TransferError
from nlp_transfer.evidence.compare import trials
from nlp_transfer.evidence.tune import runner as tune_trials
from nlp_transfer.evidence.tune import study
from nlp_transfer.evidence.tune.result import Tuning
from nlp_transfer.evidence.tune.runner import Runner, open_book
from nlp_transfer.recipe.load import load_recipe, recipe_to_yaml
from nlp_transfer.runs.pipeline import prepare
from tests.tiny import make_splits

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    for split, rows in make_splits(32).tables.items():
        rows.to_pandas()[["text", "label"]].to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.fixture
def recipe(table, tiny_encoder):
    """A rate at which a tiny encoder learns nothing, far from the strategy's own."""
    training = {"learning_rate": 1e-6, "epochs": 2.0, "batch_size": 8, "precision": "fp32"}
    return {
        "encoder": {"name": str(tiny_encoder("bert"))},
        "data": {"path": str(table)},
        "strategy": {"kind": "frozen"},
        "training": {**training, "seed": 3, "select_by": "log_loss"},
        "evaluation": {"resamples": 100, "tfidf": False},
    }


def tune(recipe, out, *, heard=None, **arguments):
    console = Console(file=heard or io.StringIO(), width=500)
    return nt.tune(recipe, output_dir=out, console=console, **arguments)


def open_search(recipe, folder):
    return open_book(recipe, folder, 0, prepare(recipe, [3], None, Console(quiet=True))[3])


def list_facts(tuning):
    return [(each.index, each.state, dict(each.changes), each.value, each.evaluations) for each in tuning.trials]


@pytest.mark.parametrize("kind", ["r_drop", "self_training"])
def test_a_search_goes_through_methods_and_its_best_recipe_runs_to_the_same_figure(kind, recipe, table, tmp_path):
    methods = {"r_drop": {"alpha": 0.5}, "self_training": {"rounds": 1, "min_confidence": 0.0, "share": 0.5}}
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"a plain text, number {number}" for number in range(12)), encoding="utf-8")
    data = {"path": str(table), "unlabelled": str(texts)} if kind == "self_training" else {"path": str(table)}
    recipe = {**recipe, "data": data, "methods": [{"kind": kind, **methods[kind]}]}
    found = tune(recipe, tmp_path / "out", trials=4)
    assert [each.state for each in found.trials].count("pruned") == 0 or kind == "r_drop"
    assert any(key.startswith(f"methods.{kind}.") for key in found.trials[1].changes)
    assert len({str(each.changes) for each in found.trials}) == 4
    ran = nt.run(tmp_path / "out" / "best.yaml", progress=False)
    assert ran.scores["validation"]["log_loss"].value == pytest.approx(found.best.value, abs=1e-6)
    assert [each["kind"] for each in ran.record["recipe"]["methods"]] == [kind]


def test_a_search_mends_a_bad_rate_and_its_best_recipe_runs_to_the_same_figure(recipe, tmp_path, capfd):
    heard = io.StringIO()
    found = tune(recipe, tmp_path / "out", heard=heard, trials=5, confirm=1)
    assert len(found.trials) == 5
    assert found.default.value is not None
    assert found.best.index > 0
    assert found.best.value < found.default.value
    assert found.best.value == min(each.value for each in found.trials if each.value is not None)
    ran = nt.run(tmp_path / "out" / "best.yaml", progress=False)
    assert ran.scores["validation"]["log_loss"].value == pytest.approx(found.best.value, abs=1e-6)
    assert ran.scores["test"]["log_loss"].value == pytest.approx(
        found.record["test"]["best"]["log_loss"]["value"], abs=1e-6
    )
    plain = nt.run(recipe, output_dir=tmp_path / "plain", progress=False)
    assert plain.scores["validation"]["log_loss"].value == pytest.approx(found.default.value, abs=1e-6)
    test = found.record["test"]
    gap = test["best"]["log_loss"]["value"] - test["default"]["log_loss"]["value"]
    assert test["difference"]["log_loss"]["value"] == pytest.approx(gap)
    assert test["difference"]["log_loss"]["n"] == 16
    assert found.record["confirmed"]["seeds"] == [4]
    assert found.gain.value == found.record["confirmed"]["difference"]["log_loss"]["value"] != gap
    lines = heard.getvalue().splitlines()
    assert sum(line.startswith("trial ") for line in lines) == 5
    # Nothing of Optuna's own on the terminal.
    assert capfd.readouterr().err == ""
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "best.yaml" in str(found)
    assert "<main" not in found._repr_html_()
    assert Tuning.load(tmp_path / "out").record == found.record

    again = tune(recipe, tmp_path / "out", trials=5, confirm=1)
    assert list_facts(again) == list_facts(found)
    more = tune(recipe, tmp_path / "out", trials=6)
    assert list_facts(more)[:5] == list_facts(found)
    assert len(more.trials) == 6


@pytest.mark.slow
def test_a_trial_that_lags_behind_the_median_is_given_up(recipe, tmp_path):
    recipe = {**recipe, "training": {**recipe["training"], "select_by": "accuracy"}}
    first = tune(recipe, tmp_path / "out", trials=1)
    book = open_search(load_recipe(recipe), tmp_path / "out")
    for _ in range(3):  # trials that did perfectly from the start
        trial = book.ask(None)
        assert not book.should_stop(trial, [(0.1, 1.0)])
        book.close(trial, "complete", seconds=1.0, progress=1.0, value=1.0)
    found = tune(recipe, tmp_path / "out", trials=7)
    assert list_facts(found)[0] == list_facts(first)[0]
    later = found.trials[4:]
    assert len(later) == 3
    assert {each.state for each in later if each.changes["training.epochs"] > 1} == {"pruned"}
    given_up = [each for each in later if each.state == "pruned"]
    assert given_up
    assert all(each.value is None and 0 < each.progress < 1 and len(each.evaluations) == 1 for each in given_up)
    assert found.best.index == 1


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_trials(recipe, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_to_yaml(load_recipe(recipe)))
    whole = tune(file, tmp_path / "whole", trials=4)
    command = [sys.executable, "-m", "nlp_transfer", "tune", str(file), "--trials", "4", "-o", str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, end = tmp_path / "killed" / "trials.journal", time.time() + 300
    while process.poll() is None and time.time() < end:
        if journal.is_file() and journal.read_text().count('"index"') >= 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    heard = io.StringIO()
    found = tune(file, tmp_path / "killed", trials=4, heard=heard)
    assert "going on with it" in heard.getvalue()
    assert list_facts(found) == list_facts(whole)
    assert len(found.trials) == 4
    # One was lost and done again.
    book = open_search(load_recipe(file), tmp_path / "killed")
    assert len(book.study.get_trials()) == 5


@pytest.mark.slow
def test_processes_share_the_trials_of_a_search(recipe, tmp_path):
    file, heard = tmp_path / "recipe.yaml", io.StringIO()
    file.write_text(recipe_to_yaml(load_recipe(recipe)))
    found = tune(file, tmp_path / "out", trials=4, jobs=2, heard=heard)
    assert [each.index for each in found.trials] == [0, 1, 2, 3]
    assert {each.state for each in found.trials} <= {"complete", "pruned"}
    assert sum(line.startswith("trial ") for line in heard.getvalue().splitlines()) == 4
    assert not list((tmp_path / "out").glob(".worker*"))
    alone = tune(file, tmp_path / "alone", trials=3)
    # The first tries are settled, whoever runs them.
    assert list_facts(found)[:3] == list_facts(alone)


def make_runner(recipe, folder, **settings):
    folder.mkdir(exist_ok=True)
    loaded, quiet = load_recipe(recipe), Console(quiet=True)
    spaces = prepare(loaded, [3], None, quiet)
    return Runner(loaded, spaces, open_book(loaded, folder, 0, spaces[3]), quiet, **settings)


def test_a_trial_is_stopped_at_the_deadline_and_run_again_later(recipe, tmp_path, monkeypatch):
    runner = make_runner(recipe, tmp_path, deadline=6.0)
    ticks = itertools.count()
    monkeypatch.setattr(trials.time, "time", lambda: float(next(ticks)))
    runner.run_all()
    (stopped,) = runner.book.read()
    assert stopped.state == "interrupted"
    assert 0 < stopped.progress < 1
    runner.deadline, runner.num_trials = float("inf"), 1
    runner.run_all()
    (done,) = runner.book.read()
    assert done.state == "complete"


def test_no_trial_is_started_that_cannot_end(recipe, tmp_path, monkeypatch):
    runner = make_runner(recipe, tmp_path, num_trials=1)
    runner.run_all()
    (default,) = runner.book.read()
    assert default.seconds > 0
    fits = []
    monkeypatch.setattr(Runner, "fit", lambda *arguments, **_: fits.append(arguments))
    # Time for less than the shortest trial, half the epochs of the recipe.
    runner.num_trials, runner.deadline = None, time.time() + 0.4 * default.seconds
    runner.run_all()
    states = [each.state for each in runner.book.read()]
    assert fits == []
    assert set(states[1:]) <= {"skipped"}
    # What is to be fitted after the search keeps its time.
    runner.num_after, runner.deadline = 2, time.time() + 1.9 * default.seconds
    assert runner.find_end() < time.time()


def test_a_search_does_not_go_on_with_other_rows_of_the_same_path(recipe, table, tmp_path):
    own = tmp_path / "table"
    shutil.copytree(table, own)
    recipe["data"]["path"] = str(own)
    tune(recipe, tmp_path / "out", trials=1)
    journal = (tmp_path / "out" / "trials.journal").read_bytes()
    train = (own / "train.csv").read_text()
    (own / "train.csv").write_text(train + train.splitlines()[1] + "\n")
    with pytest.raises(OutputError, match="holds a search of other rows"):
        tune(recipe, tmp_path / "out", trials=2)
    assert (tmp_path / "out" / "trials.journal").read_bytes() == journal


def test_values_that_do_not_fit_are_a_refused_trial_and_a_recipe_that_does_not_is_told(recipe, tmp_path, monkeypatch):
    runner, heard = make_runner(recipe, tmp_path, num_trials=3), io.StringIO()
    runner.console = Console(file=heard, width=500)
    asked, fit = [], Runner.fit

    def refuse_second(self, *arguments, **options):
        asked.append(arguments)
        if len(asked) == 2:
            raise EncoderError("strategy.reinit_layers: expected one group of layers.")
        return fit(self, *arguments, **options)

    monkeypatch.setattr(Runner, "fit", refuse_second)
    runner.run_all()
    assert [each.state for each in runner.book.read()][:2] == ["complete", "refused"]
    assert len(runner.book.read()) == 3
    assert "trial 1: strategy.reinit_layers: expected one group" in heard.getvalue()
    # A search whose every value is refused ends.
    runner.num_trials = None
    monkeypatch.setattr(Runner, "fit", lambda *_, **__: refuse_all())
    runner.run_all()
    assert [each.state for each in runner.book.read()][3:] == ["refused"] * tune_trials.MOST_SKIPPED
    with pytest.raises(EncoderError, match="not here"):
        tune(recipe, tmp_path / "other", trials=1)


def refuse_all():
    raise EncoderError("not here.")


def test_a_budget_counts_the_seconds_that_went_by_not_those_of_every_process(recipe, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(study.time, "time", lambda: now[0])
    runner = make_runner(recipe, tmp_path / "out", num_trials=1, started=now[0])
    for started in (960.0, 970.0):
        # Two processes of one start note the same, whoever comes last.
        for _ in range(2):
            runner.book.note_seconds(started)
    assert runner.book.sum_seconds() == pytest.approx(70)
    now[0] = 1005.0
    runner.run_all()
    assert runner.book.sum_seconds() == pytest.approx(75)


def test_a_search_without_time_says_so_and_can_go_on(recipe, tmp_path):
    with pytest.raises(TransferError, match="no trial ended"):
        tune(recipe, tmp_path / "out", budget=0.01)
    assert len(tune(recipe, tmp_path / "out", budget="10m", trials=1).trials) == 1


def test_weights_that_diverge_are_a_trial_that_failed(recipe, tmp_path):
    broken = {**recipe, "training": {**recipe["training"], "learning_rate": 1e30, "max_grad_norm": None}}
    with pytest.raises(TransferError, match="0 diverged"):
        tune(broken, tmp_path / "out", trials=1)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"trials": 0}, TransferError, "--trials: expected at least 1, got 0"),
        ({"jobs": 0}, TransferError, "--jobs: expected at least 1"),
        ({"budget": "soon"}, TransferError, "--budget: expected a time"),
        ({"confirm": -1}, TransferError, "--confirm: expected at least 0"),
        ({"jobs": 2, "data": {"train": None}}, TransferError, "cannot share data in memory"),
        ({"overrides": {"strategy.kind": "zero_shot"}}, RecipeError, "nothing to search"),
        ({"overrides": {"training.epoch": 2}}, RecipeError, "epochs"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(recipe, tmp_path, arguments, kind, message):
    with pytest.raises(kind, match=message):
        tune(recipe, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_search_or_of_somebody_else_is_left_alone(recipe, tmp_path):
    tune(recipe, tmp_path / "out", trials=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    with pytest.raises(OutputError, match="another seed"):
        tune(recipe, tmp_path / "out", trials=1, seed=1)
    with pytest.raises(OutputError, match=r"--out: .*belongs to another recipe"):
        tune(recipe, tmp_path / "out", overrides={"training.epochs": 7}, trials=1)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert {name: before[name] for name in after} == after
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="files that are not of a run"):
        tune(recipe, tmp_path / "mine", trials=1)
    with pytest.raises(ArtifactError, match="expected a finished search, found none"):
        Tuning.load(tmp_path / "mine")


def test_validation_without_labels_is_refused(recipe, tmp_path, table):
    folder = tmp_path / "table"
    folder.mkdir()
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text((table / name).read_text())
    (folder / "validation.csv").write_text("text\nplain\nfine\n")
    with pytest.raises(DataError):
        tune(recipe, tmp_path / "out", overrides={"data.path": str(folder)}, trials=1)


def test_the_command_prints_json_and_keeps_the_rest_off_stdout(recipe, tmp_path, monkeypatch, capsys):
    file = tmp_path / "recipe.yaml"
    features = {**recipe, "strategy": {"kind": "features"}, "training": {}}
    file.write_text(recipe_to_yaml(load_recipe(features)))
    arguments = ["tune", str(file), "evaluation.resamples=200", "--trials", "3", "-o", str(tmp_path / "out"), "--json"]
    monkeypatch.setattr(sys, "argv", ["nlp-transfer", *arguments])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert len(record["trials"]) == 3
    assert record["recipe"]["evaluation"]["resamples"] == 200
    assert err.count("trial ") == 3
    assert "A new study" not in err
