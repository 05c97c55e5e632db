import math
import random
import sys

import optuna
import pytest

from nlp_transfer.errors import MissingExtraError, OutputError, TransferError
from nlp_transfer.evidence.clock import parse_seconds
from nlp_transfer.evidence.tune.spaces import build_space
from nlp_transfer.evidence.tune.study import TrialBook, is_below_median
from nlp_transfer.recipe.load import load_recipe

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = build_space(load_recipe({"training": {"learning_rate": 1e-4}}))


def open_book(folder, *, seed=0, lower_is_better=False, identity="{}"):
    folder.mkdir(exist_ok=True)
    return TrialBook(folder, SPACE, seed=seed, lower_is_better=lower_is_better, identity=identity)


def rate(trial):
    """A made-up figure, best at a rate of 3e-4 and four epochs."""
    changes = trial.user_attrs["changes"]
    return -abs(math.log(changes["training.learning_rate"] / 3e-4)) - 0.1 * abs(changes["training.epochs"] - 4)


def work(book, num_trials):
    while (trial := book.ask(num_trials)) is not None:
        book.close(trial, "complete", seconds=1.0, progress=1.0, value=rate(trial))


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_a_trial_is_given_up_when_optuna_s_median_pruner_gives_it_up(lower_is_better):
    generator, decisions = random.Random(0), []
    direction = "minimize" if lower_is_better else "maximize"
    for _ in range(60):
        pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_min_trials=3)
        study = optuna.create_study(direction=direction, pruner=pruner)
        others = []
        for _ in range(generator.randint(1, 6)):
            trial = study.ask()
            others.append([(step / 4, generator.random()) for step in range(1, 5)])
            for share, value in others[-1]:
                trial.report(value, round(4 * share))
            study.tell(trial, others[-1][-1][1])
        trial, evaluations = study.ask(), []
        for step in range(1, generator.randint(2, 5)):
            evaluations.append((step / 4, generator.random()))
            trial.report(evaluations[-1][1], step)
        decisions.append(is_below_median(evaluations, others, lower_is_better=lower_is_better))
        assert decisions[-1] == trial.should_prune()
    assert len(decisions) == 60
    assert 4 < sum(decisions) < 56


def test_trials_of_other_lengths_are_compared_by_the_share_that_is_done():
    others = [[(0.5, 0.9), (1.0, 1.0)], [(0.25, 0.8), (0.5, 0.8), (1.0, 0.9)], [(1.0, 0.2)], [(0.3, 0.7), (0.6, 0.1)]]
    # At half of its training: 0.9, 0.8 and 0.7 of the others, whose median is 0.8; one has not been looked at yet.
    assert is_below_median([(0.5, 0.79)], others, lower_is_better=False)
    assert not is_below_median([(0.5, 0.81)], others, lower_is_better=False)
    assert not is_below_median([(0.2, 0.1)], others, lower_is_better=False)


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(tmp_path):
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        book = open_book(tmp_path / name, seed=seed)
        work(book, 12)
        found[name] = [(each.index, dict(each.changes), each.value) for each in book.read()]
    assert len(found["a"]) == 12
    assert found["a"] == found["b"]
    assert found["a"][:3] == found["c"][:3]  # the recipe, its rates up, its rates down
    assert found["a"][3:] != found["c"][3:]
    assert len({str(changes) for _, changes, _ in found["a"]}) > 9


def test_a_search_that_was_broken_off_chooses_as_one_that_was_not(tmp_path):
    whole = open_book(tmp_path / "whole")
    work(whole, 12)
    for kill_at in (0, 4, 9):
        folder = tmp_path / f"killed-{kill_at}"
        work(open_book(folder), kill_at)
        lost = open_book(folder).ask(12)
        assert lost is not None
        with (folder / "trials.journal").open("ab") as file:
            file.write(b'{"op_code":')  # a line that was being written
        again = open_book(folder)
        assert [each.state for each in again.read()].count("running") == 1
        assert again.release_lost() == 1
        assert again.release_lost() == 0
        assert again.read()[kill_at].state == "interrupted"
        work(again, 12)
        assert [(e.index, e.changes, e.value, e.state) for e in again.read()] == [
            (e.index, e.changes, e.value, e.state) for e in whole.read()
        ]


def test_what_was_skipped_for_want_of_time_is_tried_again_by_the_next_start(tmp_path):
    whole = open_book(tmp_path / "whole")
    work(whole, 8)
    book = open_book(tmp_path / "short")
    work(book, 5)
    for _ in range(2):
        book.close(book.ask(None), "skipped", seconds=0.0, progress=0.0)
    before = book.read()
    assert [each.state for each in before][5:] == ["skipped"] * 2
    # Within one start each gets a place of its own; the next start has more time.
    assert book.ask(7) is None
    again = open_book(tmp_path / "short")
    assert again.release_lost() == 0
    work(again, 8)
    assert [(e.index, e.state) for e in again.read()] == [(e.index, e.state) for e in whole.read()]
    assert [e.changes for e in again.read()[:7]] == [e.changes for e in before]
    assert again.read()[5].changes == whole.read()[5].changes


def test_the_search_learns_from_what_it_saw(tmp_path):
    book = open_book(tmp_path)
    work(book, 30)
    values = [each.value for each in book.read()]
    assert len(values) == 30
    assert book.find_best().value == max(values) > values[0]
    assert sum(values[15:]) / 15 > sum(values[3:9]) / 6
    importance = book.measure_importance()
    assert set(importance) == {each.key for each in SPACE}
    assert sum(importance.values()) == pytest.approx(1.0)
    assert next(iter(importance)) == "training.learning_rate"


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_the_best_is_the_first_of_equals_in_the_metric_s_direction(tmp_path, lower_is_better):
    book = open_book(tmp_path, lower_is_better=lower_is_better)
    assert book.find_best() is None
    for value, state in ((0.5, "complete"), (0.7, "complete"), (0.7, "complete"), (0.9, "pruned"), (0.1, "diverged")):
        book.close(book.ask(None), state, seconds=1.0, progress=1.0, value=value)
    assert book.find_best().index == (0 if lower_is_better else 1)
    assert [each.state for each in book.read()] == ["complete"] * 3 + ["pruned", "diverged"]
    assert book.measure_importance()
    assert book.ask(5) is None


def test_the_recipe_itself_is_never_given_up(tmp_path):
    book = open_book(tmp_path)
    default, *others = [book.ask(None) for _ in range(5)]
    for trial in others[:3]:
        assert not book.should_stop(trial, [(0.5, 0.9)])
        book.close(trial, "complete", seconds=1.0, progress=1.0, value=0.9)
    assert not book.should_stop(default, [(0.5, 0.1)])
    assert book.should_stop(others[3], [(0.5, 0.1)])


def test_a_folder_of_another_search_is_refused(tmp_path):
    open_book(tmp_path, identity='{"seed": 0, "rows": "a"}')
    open_book(tmp_path, identity='{"seed": 0, "rows": "a"}')
    with pytest.raises(OutputError, match="holds a search with another seed"):
        open_book(tmp_path, identity='{"seed": 1, "rows": "a"}')
    with pytest.raises(OutputError, match=r"holds a search of other rows\. "):
        open_book(tmp_path, identity='{"seed": 0, "rows": "b"}')


def test_without_optuna_the_install_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"nlp_transfer\[tune\]"):
        open_book(tmp_path)


@pytest.mark.parametrize("text", ["soon", "", "0m", "-5", "15 minutes", "nan"])
def test_a_budget_that_is_no_time_is_refused(text):
    assert parse_seconds(" 2m ") == 120
    with pytest.raises(TransferError, match="--budget: expected a time such as"):
        parse_seconds(text)
