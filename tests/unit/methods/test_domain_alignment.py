"""Alignment of domains: losses against independent formulas, gradients against one graph, and the report."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nlp_transfer.contracts import RunLog
from nlp_transfer.engine.predict.forward import Microbatch, join_windows
from nlp_transfer.engine.train.window import Rows, WindowStep
from nlp_transfer.errors import RecipeError
from nlp_transfer.fitting.series import join_logs
from nlp_transfer.methods.domain_alignment import (
    FACTORS,
    STREAM,
    ConditionalHead,
    DistanceWindow,
    History,
    align_by_head,
    compare_covariances,
    compare_kernels,
    schedule_strength,
    weigh_by_entropy,
)
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.methods.domain_alignment import DomainAlignmentConfig

NUM_STEPS, STEP = 10, 4
EXACT = 1e-6
"""Logits and features are compared in float32."""

LOSSES = ("dann", "cdan", "coral", "mmd")


def draw(*shape: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)) + shift


SIDES = [
    (draw(12, 5), draw(9, 5, seed=1, shift=0.7)),
    (draw(7, 40), 3 * draw(16, 40, seed=2)),
    (0.1 * draw(32, 3), 0.1 * draw(32, 3, seed=3)),
]


def make_config(loss: str, **settings: Any) -> DomainAlignmentConfig:
    """Settings of the method."""
    return DomainAlignmentConfig.model_validate({"kind": "domain_alignment", "loss": loss, **settings})


@pytest.mark.parametrize("side", range(len(SIDES)))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_covariances_differ_as_numpy_says(side: int, dtype: torch.dtype) -> None:
    source, target = SIDES[side]
    one, other = np.cov(source.numpy(), rowvar=False), np.cov(target.numpy(), rowvar=False)
    expected = np.linalg.norm(one - other, "fro") ** 2 / (4 * source.shape[1] ** 2)
    assert expected > 1e-6
    found = compare_covariances(source.to(dtype), target.to(dtype)).item()
    assert found == pytest.approx(expected, abs=1e-6, rel=1e-5)
    unit = (np.trace(one) + np.trace(other)) / (2 * source.shape[1])
    for scale in (1.0, 50.0):
        relative = compare_covariances(scale * source.to(dtype), scale * target.to(dtype), relative=True).item()
        assert relative == pytest.approx(expected / unit**2, rel=1e-5)


def count_kernels(source: np.ndarray, target: np.ndarray, kernel: str) -> float:
    """The biased estimate, pair by pair."""
    joined = [*source, *target]
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(joined) for b in joined[i + 1 :]]
    unit = sorted(pairs)[(len(pairs) - 1) // 2]

    def measure(one: np.ndarray, other: np.ndarray) -> float:
        gap = np.linalg.norm(one - other)
        power = gap**2 / unit**2 if kernel == "gaussian" else gap / unit
        return float(np.mean([np.exp(-power / factor) for factor in FACTORS]))

    def mean(ones: np.ndarray, others: np.ndarray) -> float:
        return float(np.mean([measure(a, b) for a in ones for b in others]))

    return mean(source, source) + mean(target, target) - 2 * mean(source, target)


@pytest.mark.parametrize("side", range(len(SIDES)))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kernel", ["gaussian", "laplace"])
def test_kernels_differ_as_pair_by_pair(side: int, dtype: torch.dtype, kernel: Any) -> None:
    source, target = SIDES[side]
    found = compare_kernels(source.to(dtype), target.to(dtype), kernel=kernel).item()
    expected = count_kernels(source.numpy(), target.numpy(), kernel)
    assert expected > 0.01
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", range(len(SIDES)))
def test_distances_and_the_conditional_loss_are_those_of_skada(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = pytest.importorskip("skada.deep.losses")
    adversarial = pytest.importorskip("skada.deep._adversarial")
    source, target = SIDES[side]
    assert compare_covariances(source, target).item() == pytest.approx(
        losses.deepcoral_loss(source, target).item(), abs=1e-6
    )
    # Its kernels fall with the distance and are summed; its bandwidths are multiples of the median within source.
    unit = torch.pdist(torch.cat([source, target])).median().item()
    bandwidths = [2 ** (number / 2 - 8) * (torch.cdist(source, source).median().item() + 1e-7) for number in range(33)]
    monkeypatch.setattr(torch, "tensor", partial(torch.tensor, dtype=torch.float64))
    theirs = losses.dan_loss(source, target).item()
    monkeypatch.undo()
    ours = compare_kernels(source, target, kernel="laplace", factors=[each / unit for each in bandwidths]).item()
    assert len(bandwidths) * ours == pytest.approx(theirs, abs=1e-6)
    logits, others = draw(len(source), 1, seed=5), draw(len(target), 1, seed=6)
    theirs = adversarial.CDANLoss()(logits.sigmoid().float()[:, 0], others.sigmoid().float()[:, 0], source, target)
    plain = nn.functional.binary_cross_entropy_with_logits
    ours = plain(logits, torch.zeros_like(logits)) + plain(others, torch.ones_like(others))
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("distance", [compare_covariances, compare_kernels])
def test_equal_sides_are_no_distance_apart_and_too_few_examples_none(distance: Callable[..., Tensor]) -> None:
    source, _ = SIDES[0]
    assert distance(source, source).item() == pytest.approx(0, abs=1e-12)
    few = source[: 1 if distance is compare_covariances else 0].clone().requires_grad_(True)
    found = distance(few, source)
    found.backward()
    assert found.item() == 0
    assert few.grad is not None
    assert not few.grad.any()
    same = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    for settings in ({}, {"relative": True} if distance is compare_covariances else {"kernel": "laplace"}):
        (gradient,) = torch.autograd.grad(distance(same, same.detach(), **settings), same)
        assert torch.isfinite(gradient).all()


def test_a_conditional_head_reads_products_or_their_random_map() -> None:
    features, probabilities = draw(6, 8).float(), draw(6, 3, seed=1).float().softmax(dim=-1)
    exact = ConditionalHead(8, 3, 4, seed=0).combine(features, probabilities)
    assert exact.tolist() == [
        [pytest.approx(float(g * f)) for g in row for f in vector]
        for row, vector in zip(probabilities, features, strict=True)
    ]
    wide, many = draw(40, 64, seed=2).float(), (3 * draw(40, 70, seed=3)).float().softmax(dim=-1)
    torch.manual_seed(0)
    head = ConditionalHead(64, 70, 4, seed=0)
    torch.manual_seed(1)
    again, other = ConditionalHead(64, 70, 4, seed=0), ConditionalHead(64, 70, 4, seed=1)
    mapped = head.combine(wide, many)
    assert mapped.shape == (40, 1024)
    assert torch.equal(mapped, again.combine(wide, many))
    assert not torch.equal(mapped, other.combine(wide, many))
    assert {name for name in head.state_dict() if "layers" not in name} == set()
    held = dict(head.named_buffers())
    of_features, of_classes = held["of_features"].double().numpy(), held["of_classes"].double().numpy()
    expected = (wide.double().numpy() @ of_features) * (many.double().numpy() @ of_classes) / np.sqrt(1024)
    assert np.abs(mapped.numpy() - expected).max() < 1e-5
    half = head.to(torch.bfloat16)(wide.bfloat16(), many)
    assert half.dtype == torch.bfloat16
    # The map keeps inner products in expectation (Long et al. 2018, theorem 1).
    kept, products = mapped @ mapped.T, (wide @ wide.T) * (many @ many.T)
    assert np.corrcoef(kept.flatten().numpy(), products.flatten().numpy())[0, 1] > 0.95


class Toy(nn.Module):
    """A classifier with dropout: its last layer reads the mean of embeddings."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(20, 6), nn.Dropout(dropout)
        self.layer = nn.Linear(6, 3)

    def pool(self, input_ids: Tensor) -> Tensor:
        return torch.tanh(self.drop(self.embed(input_ids)).mean(dim=1))

    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(logits=self.layer(self.pool(input_ids)))


def make_parts(sizes: list[int], seed: int) -> list[Microbatch]:
    """Parts of some examples; the first of each part is a text of two windows."""
    drawn = np.random.default_rng(seed)
    return [
        Microbatch(
            inputs={"input_ids": torch.from_numpy(drawn.integers(0, 20, size=(size + 1, 4)))},
            labels=torch.from_numpy(drawn.integers(0, 3, size=size)),
            owners=torch.tensor([0, *range(size)]),
            num_examples=size,
            num_tokens=4,
            num_padded=4,
        )
        for size in sizes
    ]


def join(parts: list[Microbatch]) -> Microbatch:
    """Several parts as one."""
    starts = np.cumsum([0, *(part.num_examples for part in parts)])
    return replace(
        parts[0],
        inputs={"input_ids": torch.cat([part.inputs["input_ids"] for part in parts])},
        labels=torch.cat([part.labels for part in parts if part.labels is not None]),
        owners=torch.cat([p.owners + int(s) for p, s in zip(parts, starts, strict=False) if p.owners is not None]),
        num_examples=int(starts[-1]),
    )


def sum_task(logits: Tensor, batch: Microbatch) -> Tensor:
    assert batch.labels is not None
    return nn.functional.cross_entropy(logits, batch.labels, reduction="sum")


class Case:
    """One update of a toy, by the method's window or by a plain graph over all examples."""

    def __init__(self, loss: str, dropout: float, **settings: Any) -> None:
        torch.manual_seed(0)
        self.config = make_config(loss, weight=2.0, **settings)
        self.model = Toy(dropout).double()
        self.head = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)).double()
        if loss == "cdan":
            self.head = ConditionalHead(6, 3, 4, seed=0).double()
        self.history = History(loss, 4 if loss in ("dann", "cdan") else 2)
        self.history.start(NUM_STEPS)
        self.strength = schedule_strength(STEP, NUM_STEPS, weight=2.0, steepness=10.0)

    def read(self) -> list[Tensor]:
        """Gradients of all weights."""
        weights = [*self.model.parameters(), *self.head.parameters()]
        found = [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in weights]
        for weight in weights:
            weight.grad = None
        return found

    def run(self, source: list[Microbatch], target: list[Microbatch]) -> tuple[float, list[Tensor]]:
        """By the window."""
        accelerator = Accelerator(cpu=True)
        rows = [Rows(iter(side), len(side), 1 / sum(p.num_examples for p in side)) for side in (source, target)]
        counted: list[Microbatch] = []
        step = WindowStep(
            *(self.model, rows[0], sum_task, accelerator, lambda batch, _: counted.append(batch)),
            *(STEP, NUM_STEPS, {STREAM: rows[1]}),
        )
        if self.config.loss in ("dann", "cdan"):
            total = align_by_head(self.model.layer, self.head, self.config, self.history)(step)
        else:
            distance = compare_covariances if self.config.loss == "coral" else compare_kernels
            total = DistanceWindow(self.model.layer, distance, self.config, self.history, 0)(step)
        assert counted == [*source, *target]
        return total.item(), self.read()

    def pool(self, parts: list[Microbatch]) -> tuple[Tensor, Tensor]:
        """Features and logits of all examples, in one graph."""
        features = []
        for part in parts:
            assert part.owners is not None
            features.append(self.model.pool(part.inputs["input_ids"]))
        whole = torch.cat(features)
        owners = join(parts).owners
        assert owners is not None
        num = sum(part.num_examples for part in parts)
        return join_windows(whole, owners, num), join_windows(self.model.layer(whole), owners, num)

    def run_plainly(self, source: list[Microbatch], target: list[Microbatch]) -> tuple[float, list[Tensor]]:
        """By one graph."""
        (features, logits), (others, other_logits) = self.pool(source), self.pool(target)
        task = sum_task(logits, join(source)) / len(logits)
        if self.config.loss in ("coral", "mmd"):
            distance = compare_covariances if self.config.loss == "coral" else compare_kernels
            loss = task + self.strength * distance(features, others)
            loss.backward()
            return loss.item(), self.read()
        assert self.config.loss == "cdan"
        probabilities, other_probabilities = (each.detach().softmax(dim=-1) for each in (logits, other_logits))

        def tell(one: Tensor, other: Tensor) -> Tensor:
            first = self.head(one, probabilities).sigmoid()[:, 0]
            second = self.head(other, other_probabilities).sigmoid()[:, 0]
            weights = [torch.ones(len(p)) for p in (probabilities, other_probabilities)]
            if self.config.entropy:
                weights = [1 + (p * p.log()).sum(dim=-1).exp() for p in (probabilities, other_probabilities)]
            return -(weights[0] * (1 - first).log()).mean() / 2 - (weights[1] * second.log()).mean() / 2

        # The head descends its loss, the encoder climbs it.
        told = tell(features.detach(), others.detach())
        weights = list(self.head.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(told, weights), strict=True):
            weight.grad = gradient
        encoder = list(self.model.parameters())
        objective = task - self.strength * tell(features, others)
        for weight, gradient in zip(encoder, torch.autograd.grad(objective, encoder), strict=True):
            weight.grad = gradient
        return (task + told).item(), self.read()


def find_gap(one: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> float:
    """The largest difference in loss and gradients."""
    assert sum(float(gradient.abs().sum()) for gradient in one[1]) > 0.1
    gaps = [float((a - b).abs().max()) for a, b in zip(one[1], other[1], strict=True)]
    return max(abs(one[0] - other[0]), *gaps)


CASES = [("coral", {}), ("mmd", {}), ("cdan", {}), ("cdan", {"entropy": True})]


@pytest.mark.parametrize(("loss", "settings"), CASES)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradient_is_that_of_one_plain_graph(loss: str, settings: dict[str, Any], dropout: float) -> None:
    case = Case(loss, dropout, **settings)
    source, target = make_parts([3, 2, 2], 1), make_parts([4, 1], 2)
    torch.manual_seed(3)
    expected = case.run_plainly(source, target)
    torch.manual_seed(3)
    found = case.run(source, target)
    assert find_gap(found, expected) < EXACT
    # The generator stands where it stood behind the first pass, and an unweighted alignment would be told from this.
    after = torch.get_rng_state()
    torch.manual_seed(3)
    case.run_plainly(source, target)
    assert torch.equal(after, torch.get_rng_state())
    case.strength = 0.0
    torch.manual_seed(3)
    assert find_gap(found, case.run_plainly(source, target)) > 1e-4


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_does_not_hang_on_the_parts(loss: str) -> None:
    case = Case(loss, 0.0)
    source, target = make_parts([3, 2, 2], 1), make_parts([4, 1], 2)
    whole = case.run([join(source)], [join(target)])
    figures = case.history.values[STEP].clone()
    assert find_gap(case.run(source, target), whole) < EXACT
    assert torch.allclose(case.history.values[STEP], figures, atol=1e-6)
    assert find_gap(case.run([join(source)], target), whole) < EXACT
    assert find_gap(case.run(source[:2], target), whole) > 1e-4


def test_a_head_is_counted_right_by_example_and_side() -> None:
    case = Case("dann", 0.0)
    source, target = make_parts([3, 2], 1), make_parts([4], 2)
    for parameter in case.head.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(case.head[2].bias)
    case.run(source, target)
    assert case.history.values[STEP].tolist() == [0, 4, 5, 4]


def test_a_history_tells_tenths_and_goes_on_after_a_kill() -> None:
    whole, broken, again = (History("dann", 4) for _ in range(3))
    for history in (whole, broken, again):
        history.start(40)
    figures = torch.tensor([[step % 4, 4, 4, 8] for step in range(40)])
    for step in range(40):
        whole.write(step, figures[step])
        whole.after_step(step + 1)
        if step < 17:
            broken.write(step, figures[step])
            broken.after_step(step + 1)
    # An update that was broken off behind its window is done again.
    broken.write(17, torch.full((4,), 99.0))
    again.restore(broken.collect())
    for step in range(17, 40):
        again.write(step, figures[step])
        again.after_step(step + 1)
    told = whole.report()["domain_alignment"]
    assert told == again.report()["domain_alignment"]
    assert told == {"loss": "dann", "accuracy": [pytest.approx((6 / 16 + 16 / 32) / 2)] * 10}
    short = History("mmd", 2)
    short.start(40)
    for step, pair in enumerate(([0.5, 0.25], [0.25, 0.125])):
        short.write(step, torch.tensor(pair))
        short.after_step(step + 1)
    assert short.report() == {"domain_alignment": {"loss": "mmd", "distance": [0.5, 0.25], "chance": [0.25, 0.125]}}


def test_halves_drawn_at_random_are_a_function_of_seed_and_step_and_leave_the_generator() -> None:
    case = Case("mmd", 0.0)
    window = DistanceWindow(case.model.layer, compare_kernels, case.config, case.history, 0)
    before = torch.get_rng_state()
    sides = (SIDES[0][0], SIDES[0][1] + 2)
    near = window.compare_halves(3, sides)
    assert near.item() == window.compare_halves(3, sides).item() != window.compare_halves(4, sides).item()
    assert near < 0.5 * compare_kernels(*sides)
    assert torch.equal(before, torch.get_rng_state())


def test_self_training_keeps_what_an_alignment_within_it_found() -> None:
    last = {"domain_alignment": {"loss": "mmd"}, "self_training": {"texts": 3}}
    log = join_logs([RunLog(methods=each) for each in ({"domain_alignment": {"loss": "dann"}}, last)])
    assert log.methods == last


def test_sure_examples_count_up_to_twice() -> None:
    probabilities = draw(6, 4).softmax(dim=-1)
    expected = [1 + np.exp(sum(p * np.log(p) for p in row)) for row in probabilities.tolist()]
    assert weigh_by_entropy(probabilities).tolist() == pytest.approx(expected, abs=1e-12)


def test_every_loss_has_a_weight_of_its_own_where_none_is_given() -> None:
    assert {loss: make_config(loss).weight for loss in LOSSES} == {"dann": 0.1, "cdan": 0.1, "coral": 10, "mmd": 1}
    assert make_config("coral", weight=0.5).weight == 0.5


@pytest.mark.parametrize(
    ("method", "task", "said"),
    [
        ({"entropy": True}, "classification", "methods.domain_alignment.entropy: does not apply to loss dann"),
        ({"loss": "coral", "hidden": 8}, "classification", "hidden: does not apply to loss coral"),
        ({"loss": "coral", "kernel": "laplace"}, "regression", "kernel: does not apply to loss coral"),
        ({"loss": "mmd", "relative": False}, "classification", "relative: does not apply to loss mmd"),
        ({"loss": "cdan"}, "multi_label", "which task.kind multi_label has not. Use dann, coral or mmd."),
        ({"loss": "dan"}, "classification", 'expected one of "dann", "cdan", "coral", "mmd"'),
    ],
)
def test_settings_of_another_loss_are_refused(method: dict[str, Any], task: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {
                "methods": [{"kind": "domain_alignment", **method}],
                "task": {"kind": task},
                "data": {"unlabelled": "x.txt"},
            }
        )
    assert said in str(caught.value)
