"""Losses beside torch's own and hand-worked cases; each adds up over any split of a batch."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.train.objectives import (
    build_objective,
    compute_class_weights,
    sum_cross_entropy,
    sum_ordinal_loss,
)
from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.schema import TrainingConfig
from tests.training import make_batch

THREE = LabelSpace("classification", ("a", "b", "c"))
COUNTS = {"a": 5, "b": 3, "c": 2}


def draw(num: int = 10, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, classes, generator=generator), torch.arange(num) % classes


SETTINGS = {
    "plain": TrainingConfig(),
    "balanced": TrainingConfig(class_weights="balanced"),
    "given": TrainingConfig(class_weights={"a": 1.0, "b": 2.0, "c": 0.5}),
    "smoothed": TrainingConfig(label_smoothing=0.1),
    "focal": TrainingConfig(focal_gamma=2.0),
    "focal and balanced": TrainingConfig(focal_gamma=2.0, class_weights="balanced"),
}


@pytest.mark.parametrize("kind", ["classification", "ordinal"])
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_adds_up_over_any_split(kind, name):
    if kind == "ordinal" and "focal" in name:
        pytest.skip("focal loss is for classification")
    objective = build_objective(LabelSpace(kind, THREE.names), SETTINGS[name], COUNTS)
    logits, labels = draw()
    whole = objective(logits, make_batch(labels))
    parts = sum(objective(logits[s], make_batch(labels[s])) for s in (slice(0, 3), slice(3, 4), slice(4, 10)))
    torch.testing.assert_close(whole, parts)
    assert whole.ndim == 0
    assert whole > 0


def test_cross_entropy_is_torchs():
    logits, labels = draw()
    torch.testing.assert_close(sum_cross_entropy(logits, labels) / 10, functional.cross_entropy(logits, labels))
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = functional.cross_entropy(logits, labels, weight=weights, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(sum_cross_entropy(logits, labels, weights=weights, smoothing=0.1), expected)


def test_focal_loss_with_exponent_zero_is_cross_entropy_and_a_hand_worked_case():
    logits, labels = draw()
    torch.testing.assert_close(sum_cross_entropy(logits, labels, gamma=1e-9), sum_cross_entropy(logits, labels))
    even = torch.zeros(1, 2)
    expected = 0.5**2 * math.log(2)
    assert sum_cross_entropy(even, torch.tensor([0]), gamma=2.0).item() == pytest.approx(expected)


def test_ordinal_loss_grows_with_distance_and_a_hand_worked_case():
    sure = torch.tensor([[20.0, 0.0, 0.0, 0.0]])
    losses = [sum_ordinal_loss(sure, torch.tensor([rank])).item() for rank in range(4)]
    assert losses == sorted(losses)
    assert len(set(losses)) == 4
    even = torch.zeros(1, 2)
    assert sum_ordinal_loss(even, torch.tensor([0])).item() == pytest.approx(math.log(2) + 0.25)


def test_multi_label_and_regression_losses_are_torchs_means_times_the_examples():
    logits, _ = draw()
    labels = (torch.arange(30).reshape(10, 3) % 2).float()
    objective = build_objective(LabelSpace("multi_label", THREE.names), TrainingConfig(), {})
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(objective(logits, make_batch(labels)) / 10, expected)
    numbers = torch.linspace(0, 1, 10)
    objective = build_objective(LabelSpace("regression", ("stars",)), TrainingConfig(), {})
    expected = functional.mse_loss(logits[:, 0], numbers)
    torch.testing.assert_close(objective(logits[:, :1], make_batch(numbers)) / 10, expected)


def test_balanced_weights_are_scikit_learns():
    labels = [0] * 5 + [1] * 3 + [2] * 2
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = compute_class_weights(THREE, TrainingConfig(class_weights="balanced"), COUNTS)
    assert found is not None
    torch.testing.assert_close(found.double(), torch.tensor(expected))


@pytest.mark.parametrize(
    ("weights", "word"), [({"a": 1.0, "b": 1.0, "x": 1.0}, "unknown: x"), ({"a": 1.0}, "left out")]
)
def test_weights_that_do_not_fit_the_labels_are_refused(weights, word):
    with pytest.raises(RecipeError, match=word):
        compute_class_weights(THREE, TrainingConfig(class_weights=weights), COUNTS)
