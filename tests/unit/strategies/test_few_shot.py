"""Few examples: the loss against a plain reading of it, the plan, the means, and what is refused."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.fitting.fit import fit_model, predict_split
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import EncoderConfig, FewShotConfig
from nlp_transfer.strategies.few_shot import SCALES, adapt_few_shot, fit_classes, fit_means, plan_classes, sum_contrast
from tests.training import copy_weights, find_largest_gap, make_recipe, prepare


def test_the_loss_is_its_formula_pair_by_pair():
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(7, 4), dim=1)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])
    total = 0.0
    for i in range(7):
        others = [j for j in range(7) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        below = math.log(sum(math.exp(float(vectors[i] @ vectors[j]) / 0.2) for j in others))
        total -= sum(float(vectors[i] @ vectors[j]) / 0.2 - below for j in same) / max(len(same), 1)
    assert sum_contrast(vectors, labels, 0.2).item() == pytest.approx(total, rel=1e-5)


def test_harder_pairs_get_larger_gradients_the_lower_the_temperature():
    angles = torch.tensor([0.0, 0.3, 0.6, 2.0])
    labels = torch.tensor([0, 0, 1, 1])
    shares = []
    for temperature in (1.0, 0.1):
        vectors = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_(True)
        sum_contrast(vectors, labels, temperature).backward()
        pull = vectors.grad.norm(dim=1)
        shares.append(float(pull[2] / pull.sum()))
    # The third lies among the other class: it counts for more.
    assert shares[1] > shares[0]


def test_every_example_is_once_in_a_pass_beside_others_of_its_class():
    labels = np.array([0] * 9 + [1] * 4 + [2] * 2 + [3])
    windows = plan_classes(labels, 8, 4, seed=0, epoch=0)
    flat = np.concatenate(windows)
    assert sorted(flat.tolist()) == list(range(16))
    assert [len(window) for window in windows] == [8, 8]
    again, later = plan_classes(labels, 8, 4, seed=0, epoch=0), plan_classes(labels, 8, 4, seed=0, epoch=1)
    assert all(np.array_equal(a, b) for a, b in zip(windows, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(windows, later, strict=True))
    num_pairs = sum(
        len(window) * (len(window) - 1) // 2 for window in plan_classes(np.arange(4000) % 5, 32, 4, seed=0, epoch=0)
    )
    assert num_pairs == 125 * 32 * 31 // 2, "grows with the examples, not with their square"


def test_class_means_point_where_their_class_is():
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]], dtype=np.float32)
    head, tensors = fit_means(vectors, np.array([0, 0, 1, 1]), 3)
    assert head == {"kind": "linear"}
    scale = float(tensors["weight"][0].norm())
    assert min(abs(scale - each) for each in SCALES) < 1e-4
    assert torch.allclose(tensors["weight"][0] / scale, torch.tensor([1.8, 0.6]) / math.hypot(1.8, 0.6), atol=1e-6)
    assert tensors["weight"][2].abs().max() == 0, "a class without examples has no direction"


def test_many_classes_of_uneven_size_are_not_told_by_their_frequency():
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(40, 64))

    def draw(counts):
        targets = np.repeat(np.arange(40), counts)
        rows = centers[targets] + 1.2 * generator.normal(size=(len(targets), 64))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), targets

    train, test = draw(generator.permutation(np.resize([2, 3, 4, 8, 16], 40))), draw(np.full(40, 20))
    space = LabelSpace("classification", tuple(f"c{number}" for number in range(40)))
    right = {}
    # A penalty of 1/20 is what one of 1 was before it grew with the classes.
    for penalty in (1 / 20, 1.0):
        weight, bias = (tensor.numpy() for tensor in fit_classes(*train, space, penalty=penalty, seed=0)[1].values())
        right[penalty] = ((test[0] @ weight.T + bias).argmax(axis=1) == test[1]).mean()
    assert right[1.0] > right[1 / 20] + 0.1


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_a_task_without_classes_is_refused(kind, tiny_encoder):
    names = ("score",) if kind == "regression" else ("a", "b")
    loaded = load_encoder(EncoderConfig(name=str(tiny_encoder("bert"))), LabelSpace(kind, names), seed=0)
    with pytest.raises(RecipeError, match=f"few_shot needs classes.*{kind}"):
        adapt_few_shot(loaded, FewShotConfig(kind="few_shot"))


def test_cloze_without_a_language_head_is_refused(tiny_encoder):
    loaded = load_encoder(
        EncoderConfig(name=str(tiny_encoder("bert"))), LabelSpace("classification", ("a", "in")), seed=0
    )
    with pytest.raises(RecipeError, match="masked-language head"):
        adapt_few_shot(loaded, FewShotConfig(kind="few_shot", method="cloze"))


def test_cloze_wants_a_word_for_each_label_and_room_for_the_pattern(tiny_encoder):
    place = tiny_encoder("bert", "masked_lm")
    loaded = load_encoder(EncoderConfig(name=str(place)), LabelSpace("classification", ("a", "in")), seed=0)
    with pytest.raises(RecipeError, match=r"strategy.verbalizers.*'on'"):
        adapt_few_shot(
            loaded, FewShotConfig(kind="few_shot", method="cloze", verbalizers={"a": "a", "in": "in", "on": "on"})
        )
    words = {"class 0": "the", "class 1": "everyone"}
    recipe = make_recipe(place, strategy__kind="few_shot", strategy__method="cloze", strategy__verbalizers=words)
    splits, prepared = prepare(recipe, n=8)
    with pytest.raises(RecipeError, match=r"data.max_length: expected at most 12\d"):
        fit_model(recipe, splits, prepared, Accelerator(cpu=True))


def test_contrast_parts_classes_that_a_head_alone_cannot(tiny_encoder):
    scores = {}
    for method in ("prototypes", "contrastive"):
        recipe = make_recipe(
            tiny_encoder("bert"),
            strategy__kind="few_shot",
            strategy__method=method,
            training__learning_rate=1e-3,
            training__epochs=15.0,
            data__max_length=48,
        )
        splits, prepared = prepare(recipe, n=48, num_labels=4)
        accelerator = Accelerator(cpu=True)
        fitted = fit_model(recipe, splits, prepared, accelerator)
        found = predict_split(fitted.adapted.model, prepared, "train", accelerator, batch_size=16)
        scores[method] = float((found.argmax(axis=1) == prepared.splits["train"].labels).mean())
    assert scores["contrastive"] > scores["prototypes"] + 0.1
    assert scores["contrastive"] > 0.85


def test_looks_at_validation_only_where_something_is_decided_by_them(tiny_encoder):
    for patience, num_looks in ((None, 0), (1, 2)):
        recipe = make_recipe(
            tiny_encoder("bert"),
            strategy__kind="few_shot",
            training__early_stopping=patience,
            training__epochs=2.0,
            data__max_length=48,
        )
        splits, prepared = prepare(recipe, n=24)
        log = fit_model(recipe, splits, prepared, Accelerator(cpu=True)).log
        assert len(log.evaluations) <= num_looks
        assert bool(log.evaluations) == bool(num_looks)


def test_pairs_of_a_window_do_not_depend_on_how_it_is_split(tiny_encoder):
    found = []
    for size in (None, 5, 1):
        recipe = make_recipe(
            tiny_encoder("bert"),
            strategy__kind="few_shot",
            training__optimizer="sgd",
            training__learning_rate=0.1,
            training__max_grad_norm=None,
            training__microbatch_size=size,
            training__batch_size=14,
            data__max_length=48,
        )
        splits, prepared = prepare(recipe, n=36)
        fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
        weights = copy_weights(fitted.adapted.model)
        found.append({name: value for name, value in weights.items() if name.startswith("encoder.")})
    start = load_encoder(recipe.encoder, prepared.labels, seed=0).model.bert.state_dict()
    moved = max(float((value - start[name.removeprefix("encoder.")]).abs().max()) for name, value in found[0].items())
    assert moved > 1e-3
    assert find_largest_gap(found[0], found[1]) <= 1e-6
    assert find_largest_gap(found[0], found[2]) <= 1e-6
