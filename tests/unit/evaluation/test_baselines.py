import warnings

import numpy as np
import pytest

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation import baselines
from nlp_transfer.evaluation.baselines import predict_majority, score_tfidf
from nlp_transfer.evaluation.scoring import compute_metrics
from nlp_transfer.recipe.schema import METRICS, SELECTION_METRICS

WORDS = [["fine", "glad", "joy"], ["poor", "sad", "grim"], ["odd", "plain", "so"]]


def draw_texts(kind: str, n: int, seed: int):
    """Texts of which the words tell the label, among words that tell nothing."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(3, size=n)
    texts = [" ".join([*rng.choice(WORDS[c], 2), *rng.choice(["x", "yy", "zz", "w"], 3)]) for c in classes]
    if kind == "multi_label":
        return texts, np.stack([classes == 0, classes != 2], axis=1).astype(np.float32)
    return texts, classes.astype(np.float32) if kind == "regression" else classes


def draw_task(kind: str, n: int = 60):
    outputs = {"regression": 1, "multi_label": 2}.get(kind, 3)
    space = LabelSpace(kind, tuple(f"label{c}" for c in range(outputs)))
    drawn = {split: draw_texts(kind, n, seed) for seed, split in enumerate(("train", "validation", "test"))}
    return {split: texts for split, (texts, _) in drawn.items()}, {s: labels for s, (_, labels) in drawn.items()}, space


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_tfidf_learns_every_task_and_beats_the_majority(kind: str) -> None:
    texts, labels, space = draw_task(kind)
    found = score_tfidf(texts, labels, space)
    assert sorted(found) == ["test", "validation"]
    metric = SELECTION_METRICS[kind]
    ours = compute_metrics(labels["test"], found["test"], space, [metric])[metric]
    majority = predict_majority(labels["train"], 60, space)
    theirs = compute_metrics(labels["test"], majority, space, [metric])[metric]
    assert abs(ours - theirs) > 0.3
    assert (ours < theirs) == (metric == "mse")


@pytest.mark.parametrize(("factor", "shift"), [(100.0, 0.0), (2e5, 1e5), (1e-6, 0.0), (1e-2, 1e6)])
def test_tfidf_of_numbers_does_not_depend_on_their_unit(factor: float, shift: float) -> None:
    texts, labels, space = draw_task("regression")
    expected = score_tfidf(texts, labels, space)["test"]
    found = score_tfidf(texts, {s: own.astype(float) * factor + shift for s, own in labels.items()}, space)["test"]
    assert expected.std() > 0.1
    # The solver stops at a ten-thousandth, a step earlier or later by the rounding of a number.
    assert np.abs((found - shift) / factor - expected).max() < 1e-3 * expected.std()


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_tfidf_is_deterministic_and_mutates_nothing(kind: str) -> None:
    texts, labels, space = draw_task(kind, 30)
    before = {split: column.copy() for split, column in labels.items()}
    first, second = score_tfidf(texts, labels, space), score_tfidf(texts, labels, space)
    assert all((first[split] == second[split]).all() for split in ("validation", "test"))
    assert all((labels[split] == before[split]).all() for split in labels)


def test_the_test_split_changes_nothing_but_its_own_predictions() -> None:
    texts, labels, space = draw_task("classification")
    alone = score_tfidf({s: texts[s] for s in ("train", "validation")}, labels, space)
    both = score_tfidf(texts, labels | {"test": 2 - labels["test"]}, space)
    assert (alone["validation"] == both["validation"]).all()


def test_validation_chooses_the_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels, space = draw_task("classification")
    labels = labels | {"validation": np.roll(labels["validation"], 1)}
    chosen = score_tfidf(texts, labels, space, select_by="log_loss")["validation"]
    losses = []
    for strength in baselines.STRENGTHS:
        with monkeypatch.context() as patch:
            patch.setattr(baselines, "STRENGTHS", (strength,))
            given = score_tfidf(texts, labels, space)["validation"]
        losses.append(compute_metrics(labels["validation"], given, space, ["log_loss"])["log_loss"])
    assert len(set(losses)) == 4
    best = compute_metrics(labels["validation"], chosen, space, ["log_loss"])["log_loss"]
    assert best == min(losses)
    assert best < max(losses)


def test_pairs_have_a_vocabulary_for_each_text() -> None:
    rng = np.random.default_rng(0)
    first = {s: rng.choice(["fine", "poor"], 40).tolist() for s in ("train", "validation")}
    second = {s: rng.choice(["fine", "poor"], 40).tolist() for s in ("train", "validation")}
    labels = {s: np.array([int(text == "fine") for text in second[s]]) for s in second}
    space = LabelSpace("classification", ("no", "yes"))
    found = score_tfidf(first, labels, space, texts_b=second)
    assert (found["validation"].argmax(axis=1) == labels["validation"]).all()


def test_a_class_absent_from_train_keeps_probability_zero() -> None:
    texts, labels, _ = draw_task("classification")
    space = LabelSpace("classification", ("a", "b", "c", "never"))
    found = score_tfidf(texts, labels, space)["test"]
    assert found.shape == (60, 4)
    assert (found[:, 3] == 0).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(60))


def test_constant_labels_and_texts_without_words_are_answered() -> None:
    space = LabelSpace("classification", ("no", "yes"))
    texts = {"train": ["good", "bad"], "validation": ["good"]}
    labels = {"train": np.array([1, 1]), "validation": np.array([1])}
    assert score_tfidf(texts, labels, space)["validation"].tolist() == [[0.0, 1.0]]
    silent = {"train": ["!!", "?"], "validation": [":)"]}
    assert score_tfidf(silent, labels | {"train": np.array([0, 1])}, space)["validation"].tolist() == [[0.5, 0.5]]
    columns = LabelSpace("multi_label", ("a", "b"))
    labels = {"train": np.array([[1, 0], [1, 1]]), "validation": np.array([[1, 0]])}
    assert score_tfidf(texts, labels, columns)["validation"][0, 0] == 1.0


def test_a_fit_that_does_not_converge_raises_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_ITERATIONS", 1)
    texts, labels, space = draw_task("classification")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score_tfidf(texts, labels, space)["test"].shape == (60, 3)


def test_what_cannot_be_trained_on_is_refused() -> None:
    texts, labels, space = draw_task("classification", 5)
    with pytest.raises(ShapeError, match="labelled examples in validation"):
        score_tfidf({"train": texts["train"]}, labels, space)
    with pytest.raises(ShapeError, match="labelled examples in train"):
        score_tfidf(texts | {"train": []}, labels, space)
    with pytest.raises(ShapeError, match="as many labels"):
        score_tfidf(texts, labels | {"test": labels["test"][:2]}, space)
    with pytest.raises(ShapeError, match="second texts"):
        score_tfidf(texts, labels, space, texts_b={"train": texts["train"]})
    with pytest.raises(ShapeError, match="majority"):
        predict_majority(np.array([]), 3, space)


def test_majority_gives_shares_and_means() -> None:
    assert predict_majority(np.array([[1, 0], [1, 1]]), 1, LabelSpace("multi_label", ("a", "b"))).tolist() == [
        [1.0, 0.5]
    ]
    assert predict_majority(np.array([1.0, 4.0]), 2, LabelSpace("regression", ("y",))).tolist() == [[2.5], [2.5]]
