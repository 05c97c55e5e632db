"""Alignment of domains: features that serve the labels and do not tell where a text comes from."""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from nlp_transfer.contracts import Guide
from nlp_transfer.engine.predict.forward import Microbatch, compute_logits, join_windows
from nlp_transfer.engine.train.checkpoint import capture_random, restore_random
from nlp_transfer.engine.train.window import Rows, Window, WindowStep
from nlp_transfer.fitting.fit import Change
from nlp_transfer.methods.base import Method
from nlp_transfer.models.output_layer import find_classifier, find_output_layer
from nlp_transfer.recipe.methods.domain_alignment import DomainAlignmentConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage

__all__ = [
    "METHOD",
    "ConditionalHead",
    "DistanceWindow",
    "History",
    "ReverseGradient",
    "align_by_head",
    "compare_covariances",
    "compare_kernels",
    "schedule_strength",
    "weigh_by_entropy",
]

STREAM, HEAD = "target_domain", "domain_head"

MOST_PRODUCTS, RANDOM_WIDTH = 4096, 1024
"""Widest product of features and probabilities that a head reads as it is (Long et al. 2018, section 3.2), and the
width of the random map in its place, as in the code of the authors."""

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the kernels as multiples of the median heuristic: five, each twice the one before it, as in the code of
Long et al. 2015."""

NUM_SHARES = 10
"""Stretches of a training of which each is reported: tenths."""


class ReverseGradient(torch.autograd.Function):
    """Gives its input as it is, and hands its gradient back reversed and scaled."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        """Keep the strength for the way back."""
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Reverse what comes from the domain head."""
        return -ctx.strength * gradients[0], None


class ConditionalHead(nn.Module):
    """Tells domains apart by features together with what the classifier says of them.

    It reads the products of every feature with every probability. Where there are more than 4,096 of these, it reads
    their random map: features and probabilities, each through a fixed matrix of standard normal numbers, multiplied
    with each other and divided by the square root of the width.

    Args:
        num_features: D.
        num_classes: C.
        hidden: Width of the hidden layer.
        seed: Decides the matrices; checkpoints do not hold them.

    Source:
        Long et al. 2018, equations 5 and 6, https://arxiv.org/abs/1705.10667. Probabilities take no gradient, as in the
        code of the authors.
    """

    def __init__(self, num_features: int, num_classes: int, hidden: int, *, seed: int) -> None:
        super().__init__()
        self.is_random = num_features * num_classes > MOST_PRODUCTS
        width = RANDOM_WIDTH if self.is_random else num_features * num_classes
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        if self.is_random:
            state = np.random.SeedSequence([seed, zlib.crc32(HEAD.encode())]).generate_state(1)
            generator = torch.Generator().manual_seed(int(state[0]))
            for name, size in (("of_features", num_features), ("of_classes", num_classes)):
                self.register_buffer(name, torch.randn(size, width, generator=generator), persistent=False)

    def combine(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """Make what the head reads.

        Args:
            features: Float, shape (B, D).
            probabilities: Float, shape (B, C).

        Returns:
            Float, shape (B, C * D), classes outermost, or (B, 1024) of the random map.

        Example:
            >>> head = ConditionalHead(2, 2, 4, seed=0)
            >>> head.combine(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]])).tolist()
            [[0.25, 0.5, 0.75, 1.5]]
        """
        if not self.is_random:
            return (probabilities[:, :, None] * features[:, None, :]).flatten(1)
        # They stay in float32 where what is trained computes in bf16.
        of_features, of_classes = self.get_buffer("of_features"), self.get_buffer("of_classes")
        mapped = (features.to(of_features) @ of_features) * (probabilities.to(of_classes) @ of_classes)
        return mapped / math.sqrt(RANDOM_WIDTH)

    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """Give one logit an example, shape (B, 1): positive for the target domain."""
        found: Tensor = self.layers(self.combine(features, probabilities).to(next(self.layers.parameters()).dtype))
        return found


def weigh_by_entropy(probabilities: Tensor) -> Tensor:
    """Weigh examples by how sure the classifier is of them.

    Args:
        probabilities: Float, shape (B, C); rows sum to 1.

    Returns:
        ``1 + exp(-entropy)``, shape (B,), in (1, 2]; the entropy is in nats.

    Source:
        Long et al. 2018, equation 8, https://arxiv.org/abs/1705.10667. No departures; the code of the authors divides
        the weights of a batch by their sum besides, which would hang on how a batch is split.

    Example:
        >>> weigh_by_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
        [2.0, 1.5]
    """
    return 1 + torch.exp(-torch.special.entr(probabilities).sum(dim=-1))


def compare_covariances(source: Tensor, target: Tensor, *, relative: bool = False) -> Tensor:
    """Measure how far the covariances of two sides lie apart.

    Args:
        source: Float, shape (N, D).
        target: Float, shape (M, D).
        relative: Whether to divide by the square of the features' mean variance, the mean of both sides'. The distance
            then does not hang on the scale of the features, and smaller features make it no smaller.

    Returns:
        The squared Frobenius norm of the difference over ``4 * D**2``; 0 is none. A side of fewer than two examples has
        no covariance, and the result is 0 without gradient then.

    Source:
        Sun and Saenko 2016, equations 1 to 3, https://arxiv.org/abs/1607.01719. ``relative`` is a departure.

    Example:
        >>> source, target = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
        >>> compare_covariances(source, target).item()  # variances 2 and 0 on one side, 0 and 8 on the other
        4.25
    """
    if min(len(source), len(target)) < 2:
        return 0 * (source.sum() + target.sum())
    size = source.shape[1]
    one_DD, other_DD = (torch.cov(side.T).reshape(size, size) for side in (source, target))
    distance = (one_DD - other_DD).square().sum() / (4 * size**2)
    if not relative:
        return distance
    variance = (one_DD + other_DD).diagonal().mean() / 2
    return distance / variance.square().clamp_min(torch.finfo(variance.dtype).tiny)


def compare_kernels(
    source: Tensor,
    target: Tensor,
    *,
    kernel: Literal["gaussian", "laplace"] = "gaussian",
    factors: Sequence[float] = FACTORS,
) -> Tensor:
    """Measure the squared maximum mean discrepancy of two sides, by the mean of several kernels.

    The bandwidths are multiples of the median distance between any two examples of both sides, or of its square for
    Gaussian kernels; they take no gradient.

    Args:
        source: Float, shape (N, D).
        target: Float, shape (M, D).
        kernel: ``gaussian``: ``exp(-distance**2 / bandwidth)``; ``laplace``: ``exp(-distance / bandwidth)``.
        factors: Multiples, a kernel for each.

    Returns:
        The biased estimate (V-statistic: pairs of an example with itself count), in [0, 2]; 0 where the two sides are
        the same. A side without examples gives 0 without gradient.

    Source:
        Gretton et al. 2012, equation 5, https://jmlr.org/papers/v13/gretton12a.html, and its median heuristic; several
        kernels as in Long et al. 2015, section 3, https://arxiv.org/abs/1502.02791. Departures: all kernels weigh
        alike, and the biased estimate over all pairs takes the place of their unbiased one in linear time.

    Example:
        >>> near, far = torch.tensor([[0.0], [1.0]]), torch.tensor([[9.0], [10.0]])
        >>> compare_kernels(near, near).item(), 1 < compare_kernels(near, far).item() <= 2
        (0.0, True)
    """
    num_source = len(source)
    joined = torch.cat([source, target])
    if not 0 < num_source < len(joined):
        return 0 * joined.sum()
    # Not by products, whose rounding would outweigh small distances.
    distances = torch.cdist(joined, joined, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = torch.triu_indices(len(joined), len(joined), offset=1, device=joined.device)
    unit = distances.detach()[pairs[0], pairs[1]].median()
    if kernel == "gaussian":
        distances, unit = distances.square(), unit.square()
    unit = unit.clamp_min(torch.finfo(unit.dtype).tiny)
    held = torch.stack([torch.exp(-distances / (factor * unit)) for factor in factors]).mean(dim=0)
    own, other = held[:num_source, :num_source].mean(), held[num_source:, num_source:].mean()
    return own + other - 2 * held[:num_source, num_source:].mean()


def schedule_strength(step: int, num_steps: int, *, weight: float, steepness: float) -> float:
    """Say how much the alignment counts: from 0 at the start to ``weight`` at the end.

    Args:
        step: Updates done.
        num_steps: Updates of the whole training.
        weight: Most that it counts.
        steepness: The larger, the earlier it has grown.

    Returns:
        A number in [0, weight).

    Source:
        Ganin et al. 2016, section 5.2.2, https://arxiv.org/abs/1505.07818.

    Example:
        >>> [round(schedule_strength(step, 100, weight=1.0, steepness=10.0), 2) for step in (0, 10, 50, 100)]
        [0.0, 0.46, 0.99, 1.0]
    """
    return weight * (2 / (1 + math.exp(-steepness * step / max(1, num_steps))) - 1)


class History(Guide):
    """Keeps a few figures of every update, and gives them by tenths of the training.

    Updates write to rows of their own, so that one that is done again after a kill is not counted twice; on a GPU
    nothing waits for them.

    Args:
        loss: The alignment.
        width: Figures an update: with a head, of each side how many examples it placed right, and how many there were;
            else the distance, and that of two random halves.
    """

    holds_weights = False

    def __init__(self, loss: str, width: int) -> None:
        self.loss, self.width = loss, width
        self.values, self.num_done = torch.zeros(0, width), 0

    def start(self, num_steps: int) -> None:
        """Make room for all updates."""
        self.values = torch.zeros(num_steps, self.width)

    def write(self, step: int, figures: Tensor) -> None:
        """Keep the figures of the update behind ``step`` others, shape (width,)."""
        self.values = self.values.to(figures.device)
        self.values[step] = figures

    def after_step(self, step: int) -> None:
        """Count the update."""
        self.num_done = step

    def collect(self) -> dict[str, Tensor]:
        """Give the figures so far."""
        return {"figures": self.values[: self.num_done].to("cpu", copy=True)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        self.num_done = len(tensors["figures"])
        self.values[: self.num_done] = tensors["figures"]

    def report(self) -> dict[str, Any]:
        """Sum the updates up by tenths.

        Returns:
            For ``domain_alignment``: ``loss``, and either ``accuracy``, the mean over both sides of the share that the
            head placed right, or ``distance``, and with it ``chance``, the distance between halves of the same examples
            that were drawn at random. Each is a list of at most ten numbers.
        """
        parts = np.array_split(self.values[: self.num_done].cpu().double().numpy(), min(NUM_SHARES, self.num_done) or 1)
        if self.width == 2:
            means = [part.mean(axis=0) if len(part) else np.zeros(2) for part in parts]
            told = {"distance": [float(mean[0]) for mean in means], "chance": [float(mean[1]) for mean in means]}
        else:
            sums = [part.sum(axis=0) for part in parts]
            told = {"accuracy": [float(np.mean(each[:2] / each[2:].clip(min=1))) for each in sums]}
        return {"domain_alignment": {"loss": self.loss, **told}}


def align_by_head(layer: nn.Module, head: nn.Module, config: DomainAlignmentConfig, history: History) -> Window:
    """Make the window of domain-adversarial training.

    Args:
        layer: What turns features into logits; its input is what the domain head reads.
        head: Gives one logit an example: positive for the target domain.
        config: Weight and schedule.
        history: Is told how many examples of each side the head placed right.

    Returns:
        A window whose loss is the task's on source rows, and half of the domain head's on either side.
    """

    def run_window(step: WindowStep) -> Tensor:
        strength = schedule_strength(step.step, step.num_steps, weight=config.weight, steepness=config.steepness)
        total = torch.zeros((), device=step.accelerator.device)
        placed = torch.zeros(4, device=step.accelerator.device)

        def sum_loss(features: Tensor, logits: Tensor, batch: Microbatch, rows: Rows, side: int) -> Tensor:
            loss, rights = _sum_domain_loss(head, features, logits, batch, side, strength, entropy=config.entropy)
            if rows.scale:
                placed[side] += rights
                placed[2 + side] += batch.num_examples
            return loss

        with _catching(layer) as caught:
            for batch in step.iterate(step.rows, is_last=False):
                logits = compute_logits(step.model, batch)
                task = step.objective(logits, batch)
                loss = (task + sum_loss(caught.pop(), logits, batch, step.rows, 0)) * step.rows.scale
                step.accelerator.backward(loss)
                total += loss.detach()
            target = step.streams[STREAM]
            for batch in step.iterate(target):
                logits = compute_logits(step.model, batch)
                # Every parameter takes part in the pass behind which processes exchange gradients.
                loss = (sum_loss(caught.pop(), logits, batch, target, 1) + 0 * logits.sum()) * target.scale
                step.accelerator.backward(loss)
                total += loss.detach()
        history.write(step.step, step.accelerator.reduce(placed, reduction="sum"))
        return total

    return run_window


def _sum_domain_loss(
    head: nn.Module,
    features: Tensor,
    logits: Tensor,
    batch: Microbatch,
    side: int,
    strength: float,
    *,
    entropy: bool,
) -> tuple[Tensor, Tensor]:
    """Half of the domain head's loss, summed over examples, and how many of these it placed right.

    Without conditioning, windows of one text share its weight; with it, they share their features and probabilities.
    """
    owners, num = batch.owners, batch.num_examples
    probabilities_BC = logits.detach().softmax(dim=-1)
    if isinstance(head, ConditionalHead):
        reversed_BD: Any = ReverseGradient.apply(_pool(features, batch), strength)
        logits_R1, owners = head(reversed_BD, probabilities_BC).float(), None
    else:
        reversed_RD: Any = ReverseGradient.apply(features.to(next(head.parameters()).dtype), strength)
        logits_R1 = head(reversed_RD).float()
    truth_R1 = torch.full_like(logits_R1, float(side))
    losses_R1 = functional.binary_cross_entropy_with_logits(logits_R1, truth_R1, reduction="none")
    if owners is not None:
        losses_R1, logits_R1 = (join_windows(each, owners, num) for each in (losses_R1, logits_R1))
    if entropy:
        losses_R1 = losses_R1 * weigh_by_entropy(probabilities_BC)[:, None]
    return 0.5 * losses_R1.sum(), ((logits_R1.detach() > 0) == bool(side)).sum()


@dataclass(frozen=True)
class DistanceWindow:
    """The window of a training that brings two sides together by a distance between them.

    Its loss is the task's on source rows, and the weighted distance. That relates all examples of an update, whatever
    parts it is split into and over whichever processes: the features of all are gathered, and each part gets the
    distance's gradient by its own. Where either side is one part, each runs once, and memory is that of both. Several
    run twice, first without gradients and then with the same dropout, so that memory is that of one part.

    Attributes:
        layer: What turns features into logits; its input is compared, windows of one text by their mean.
        distance: Of the features of two sides, shapes (N, D) and (M, D): a scalar.
        config: Weight and schedule.
        history: Is told the distance, and that of halves drawn at random.
        seed: Decides these halves.

    Source:
        Gao et al. 2021, gradient caching, https://arxiv.org/abs/2101.06983.
    """

    layer: nn.Module
    distance: Callable[[Tensor, Tensor], Tensor]
    config: DomainAlignmentConfig
    history: History
    seed: int

    def __call__(self, step: WindowStep) -> Tensor:
        """Add the gradients of an update; gives its loss, a scalar without gradient."""
        sides = [replace(rows, batches=list(rows.batches)) for rows in (step.rows, step.streams[STREAM])]
        with _catching(self.layer) as caught:
            if all(rows.num_batches == 1 for rows in sides):
                return self.run_at_once(step, sides, caught)
            return self.run_in_parts(step, sides, caught)

    def run_at_once(self, step: WindowStep, sides: Sequence[Rows], caught: list[Tensor]) -> Tensor:
        """Run either side once, and go back through both together."""
        source, target = sides
        for batch in step.iterate(source, is_last=False):
            task = step.objective(compute_logits(step.model, batch), batch) * source.scale
            first = _pool(caught.pop(), batch)
        for batch in step.iterate(target):
            unread = 0 * compute_logits(step.model, batch).sum()
            second = _pool(caught.pop(), batch)
            value, ((one,), (other,)) = self.relate(step, sides, [[first], [second]])
            step.accelerator.backward(task + (first * one).sum() + (second * other).sum() + unread)
        return task.detach() + value

    def run_in_parts(self, step: WindowStep, sides: Sequence[Rows], caught: list[Tensor]) -> Tensor:
        """Run all parts without gradients, then each again to go back through it."""
        states = []
        parts: list[list[Tensor]] = [[], []]
        with torch.no_grad():
            for rows, features in zip(sides, parts, strict=True):
                for batch in rows.batches:
                    states.append(capture_random())
                    compute_logits(step.model, batch)
                    features.append(_pool(caught.pop(), batch))
        after, again = capture_random(), iter(states)
        total, divided = self.relate(step, sides, parts)
        for side, (rows, gradients) in enumerate(zip(sides, divided, strict=True)):
            for batch, gradient in zip(step.iterate(rows, is_last=side == 1), gradients, strict=True):
                restore_random(next(again))
                logits = compute_logits(step.model, batch)
                # Every parameter takes part in the pass behind which processes exchange gradients.
                task = 0 * logits.sum() if side else step.objective(logits, batch) * rows.scale
                step.accelerator.backward(task + (_pool(caught.pop(), batch) * gradient).sum())
                total = total + task.detach()
        restore_random(after)
        return total

    def relate(
        self, step: WindowStep, sides: Sequence[Rows], parts: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, list[Sequence[Tensor]]]:
        """Compare the features of all processes.

        Args:
            step: The update.
            sides: Its source and target rows.
            parts: Of each side, the features of this process's parts.

        Returns:
            The weighted distance, and its gradient by each part; times the number of processes, over which gradients
            are averaged.
        """
        own = [torch.cat(list(features)).detach() for features in parts]
        # What a process without examples runs for company is not compared.
        gathered = [
            _gather(step.accelerator, features if rows.scale else features[:0])
            for features, rows in zip(own, sides, strict=True)
        ]
        joined = [features.requires_grad_(True) for features, _ in gathered]
        found = self.distance(*joined)
        self.history.write(step.step, torch.stack([found.detach(), self.compare_halves(step.step, joined)]))
        weight = schedule_strength(
            step.step, step.num_steps, weight=self.config.weight, steepness=self.config.steepness
        )
        gradients = torch.autograd.grad(weight * step.accelerator.num_processes * found, joined)
        divided: list[Sequence[Tensor]] = []
        for features, held, (_, start), rows, gradient in zip(own, parts, gathered, sides, gradients, strict=True):
            kept = gradient[start : start + len(features)] if rows.scale else torch.zeros_like(features)
            divided.append(kept.split([len(part) for part in held]))
        return weight * found.detach(), divided

    @torch.no_grad()
    def compare_halves(self, step: int, sides: Sequence[Tensor]) -> Tensor:
        """The distance of two sides of the same examples and sizes, drawn at random: what chance alone makes of it."""
        joined = torch.cat(list(sides))
        order = np.random.default_rng([self.seed, zlib.crc32(STREAM.encode()), step]).permutation(len(joined))
        drawn = joined[torch.from_numpy(order).to(joined.device)]
        return self.distance(drawn[: len(sides[0])], drawn[len(sides[0]) :])


def _pool(features: Tensor, batch: Microbatch) -> Tensor:
    """Features of examples in float32, shape (B, D): of several windows their mean."""
    features = features.float()
    return features if batch.owners is None else join_windows(features, batch.owners, batch.num_examples)


def _gather(accelerator: Accelerator, features: Tensor) -> tuple[Tensor, int]:
    """The features of all processes in their order, and where this one's begin; processes may have any number."""
    if accelerator.num_processes == 1:
        return features.clone(), 0
    counts = accelerator.gather(torch.tensor([len(features)], device=features.device)).tolist()
    padded = features.new_zeros(1, max(counts), features.shape[1])
    padded[0, : len(features)] = features
    held = accelerator.gather(padded)
    joined = torch.cat([each[:count] for each, count in zip(held, counts, strict=True)])
    return joined, sum(counts[: accelerator.process_index])


@contextmanager
def _catching(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer reads."""
    caught: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        handle.remove()


def change_fit(config: DomainAlignmentConfig) -> Change:
    """What alignment makes of a fit: a stream of the other domain, another window, and with some losses a head.

    The head tells domains apart; it is trained with the model and dropped behind the training.

    Args:
        config: Loss, weight, schedule and what else the loss reads.

    Source:
        ``dann``: Ganin et al. 2016, algorithm 1. ``cdan``: Long et al. 2018, equations 5 to 8. ``coral``: Sun and
        Saenko 2016. ``mmd``: Long et al. 2015. Departures: all of them read what the last linear layer reads; a head
        has one hidden layer whatever the encoder; both sides count alike; every weight grows over the training as
        that of ``dann`` does.
    """

    def change(stage: Stage, adapted: Adapted, material: Material) -> Stage:
        texts, training = material.prepared.unlabelled, material.recipe.training
        assert texts is not None, "a recipe without texts is refused"
        layer = find_output_layer(find_classifier(adapted.model))
        modules: dict[str, nn.Module] = {}
        if config.loss in ("dann", "cdan"):
            history = History(config.loss, 4)
            modules[HEAD] = _make_head(layer.in_features, config, material)
            window = align_by_head(layer, modules[HEAD], config, history)
        else:
            history = History(config.loss, 2)
            by_covariances = partial(compare_covariances, relative=config.relative)
            by_kernels = partial(compare_kernels, kernel=config.kernel)
            distance = by_covariances if config.loss == "coral" else by_kernels
            window = DistanceWindow(layer, distance, config, history, training.seed)
        return replace(
            stage,
            window=window,
            streams={**stage.streams, STREAM: (texts, training.batch_size)},
            modules={**stage.modules, **modules},
            guides=(*stage.guides, history),
        )

    return change


def _make_head(num_features: int, config: DomainAlignmentConfig, material: Material) -> nn.Module:
    """Make what tells domains apart."""
    if config.loss == "cdan":
        num_classes, seed = material.prepared.labels.num_outputs, material.recipe.training.seed
        return ConditionalHead(num_features, num_classes, config.hidden, seed=seed)
    return nn.Sequential(nn.Linear(num_features, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1))


METHOD = Method("domain_alignment", change=change_fit)
