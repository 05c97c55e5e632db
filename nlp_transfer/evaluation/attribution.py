"""Which tokens of a text a model's answer rests on: integrated gradients, and occlusion, by captum."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, MissingExtraError

__all__ = [
    "LAST_STEPS",
    "STEPS",
    "TOLERANCE",
    "Attribution",
    "attribute_gradients",
    "attribute_occlusion",
    "make_score",
]

STEPS = 32
"""Steps that integrated gradients begin with; chosen."""

LAST_STEPS = 1024
"""Most steps that they are doubled to; chosen."""

TOLERANCE = 0.01
"""Share of the score's difference by which the attributions may miss it, as the source's section 5 advises (5 %), but
stricter."""

LEAST_GAP = 0.005
"""A miss of less is small whatever the difference: 0.5 % of a ratio of odds. Chosen."""

TOKENS_PER_PASS = 4_096
"""Tokens that go through the model at once; chosen."""

Score = Callable[[Tensor], Tensor]
"""From logits (B, C) to what is explained, (B,)."""


@dataclass(frozen=True)
class Attribution:
    """What each token, or word, adds to the score.

    Attributes:
        values: Float64, shape (R, L) of tokens, or (W,) of words.
        score: Of the text.
        baseline_score: Of the text with every word replaced.
        steps: Of the integral; 0 for occlusion.
        gap: By how much the values' sum misses the difference of the two scores.
        is_complete: Whether that is within the tolerance; always for occlusion, whose values need not add up.
    """

    values: np.ndarray
    score: float
    baseline_score: float
    steps: int
    gap: float
    is_complete: bool


def make_score(space: LabelSpace, column: int) -> Score:
    """Say what is explained: the log-odds of a label, or a regression's number.

    Log-odds are what a probability is made of: of exclusive classes the logit less that of all others together
    (log-sum-exp), of a label that holds or not its own logit. They add up where probabilities do not.

    Args:
        space: The label contract.
        column: The label's place in the logits.

    Returns:
        From logits, float, shape (B, C), to scores, shape (B,).

    Example:
        >>> score = make_score(LabelSpace("classification", ("no", "yes")), 1)
        >>> score(torch.tensor([[1.0, 3.5]])).tolist()
        [2.5]
    """
    if not space.is_categorical or space.num_outputs == 1:
        return lambda logits_BC: logits_BC[:, column]
    others = [place for place in range(space.num_outputs) if place != column]
    return lambda logits_BC: logits_BC[:, column] - logits_BC[:, others].logsumexp(dim=1)


def attribute_gradients(
    model: nn.Module,
    embeddings: nn.Module | None,
    inputs: Mapping[str, Tensor],
    baseline_ids: Tensor,
    score: Score,
    *,
    steps: int = STEPS,
    last_steps: int = LAST_STEPS,
    unit: float = 1.0,
) -> Attribution:
    """Share the score out among the tokens by integrated gradients along the word embeddings.

    The path leads from the embeddings of the baseline to those of the text; positions, types and mask stay as they
    are. Gauss-Legendre points are doubled in number until the values add up to the difference of the two scores.

    Args:
        model: Float32, in evaluation mode.
        embeddings: Its module that turns token ids into vectors.
        inputs: ``input_ids`` and the rest, each of shape (R, L): one text, whose windows share the mean of their
            logits.
        baseline_ids: What stands in place of the words, int64, shape (R, L).
        score: What is explained.
        steps: Points of the integral to begin with.
        last_steps: Most points.
        unit: What a miss is small against, in the unit of the score: a standard deviation of a regression's target.

    Returns:
        Values of tokens, (R, L), in the unit of the score; they add up to the difference of the scores, or
        ``is_complete`` is False.

    Raises:
        ArtifactError: The score does not depend smoothly on the embeddings.
        MissingExtraError: captum is not installed.

    Source:
        Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365, section 3, by `captum.attr.IntegratedGradients`.
        No departures.
    """
    captum = _import_captum()
    ids_RL = inputs["input_ids"]
    vectors_1RLD = _read_vectors(model, embeddings, inputs)
    assert embeddings is not None, "refused above"
    with torch.no_grad():
        baseline_1RLD = embeddings(baseline_ids)[None].float()

    def run(vectors_SRLD: Tensor) -> Tensor:
        with _replace_output(embeddings, vectors_SRLD.flatten(0, 1)):
            return _run(model, _repeat(inputs, len(vectors_SRLD)), len(ids_RL), score)

    with torch.enable_grad():
        if not run(vectors_1RLD.detach().requires_grad_()).requires_grad:
            raise _refuse("a head that jumps from answer to answer, such as nearest neighbors")
    with torch.no_grad():
        whole, least = (float(run(each).double()) for each in (vectors_1RLD, baseline_1RLD))
    method, num_steps = captum.IntegratedGradients(run), steps
    while True:
        values_1RLD = method.attribute(
            vectors_1RLD,
            baselines=baseline_1RLD,
            n_steps=num_steps,
            internal_batch_size=max(1, TOKENS_PER_PASS // ids_RL.numel()),
        )
        values_RL = values_1RLD[0].detach().double().sum(dim=2).cpu().numpy()
        gap = abs(float(values_RL.sum()) - (whole - least))
        is_complete = gap <= max(TOLERANCE * abs(whole - least), LEAST_GAP * unit)
        if is_complete or num_steps * 2 > last_steps:
            return Attribution(values_RL, whole, least, num_steps, gap, is_complete)
        num_steps *= 2


def attribute_occlusion(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    baseline_ids: Tensor,
    owners: np.ndarray,
    num_words: int,
    score: Score,
) -> Attribution:
    """Measure by how much the score falls when a word is replaced, one word at a time, wherever its tokens stand.

    Args:
        model: In evaluation mode; any, as nothing is differentiated.
        inputs: ``input_ids`` and the rest, each of shape (R, L): one text.
        baseline_ids: What stands in place of the words, int64, shape (R, L); equal to the text's elsewhere.
        owners: Number of each token's word, negative where it has none, int64, shape (R, L).
        num_words: W.
        score: What is explained.

    Returns:
        Values of words, (W,), in the unit of the score; 0 for those that no token belongs to. They need not add up.

    Raises:
        MissingExtraError: captum is not installed.

    Source:
        Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901, section 3, with a word in place of a patch, by
        `captum.attr.FeatureAblation`.
    """
    captum = _import_captum()
    ids_RL = inputs["input_ids"]
    # What belongs to no word is one more feature, whose baseline is itself.
    mask_RL = torch.from_numpy(np.where(owners < 0, num_words, owners)).to(ids_RL.device)

    def run(ids_SRL: Tensor) -> Tensor:
        repeated = _repeat(inputs, len(ids_SRL))
        return _run(model, {**repeated, "input_ids": ids_SRL.flatten(0, 1)}, len(ids_RL), score).double()

    with torch.no_grad():
        whole, least = float(run(ids_RL[None])), float(run(baseline_ids[None]))
        values_1RL = captum.FeatureAblation(run).attribute(
            ids_RL[None],
            baselines=baseline_ids[None],
            feature_mask=mask_RL[None],
            perturbations_per_eval=max(1, TOKENS_PER_PASS // ids_RL.numel()),
        )
    tokens_RL = values_1RL[0].cpu().numpy().astype(np.float64)
    values_W = np.zeros(num_words)
    # Every token of a word holds the word's value.
    values_W[owners[owners >= 0]] = tokens_RL[owners >= 0]
    return Attribution(values_W, whole, least, 0, abs(float(values_W.sum()) - (whole - least)), True)


def _import_captum() -> Any:
    """Captum's methods, imported when they are needed: it brings matplotlib."""
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "captum":
            raise
        raise MissingExtraError("captum", extra="explain", purpose="explaining an answer") from error
    return captum.attr


def _repeat(inputs: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Rows of the same text several times over, (S * R, L)."""
    return {name: tensor.repeat(times, 1) for name, tensor in inputs.items()}


def _run(model: nn.Module, inputs: Mapping[str, Tensor], num_rows: int, score: Score) -> Tensor:
    """Scores (S,) of S variants of a text, each of R rows."""
    logits_SC = model(**inputs).logits.float().unflatten(0, (-1, num_rows)).mean(dim=1)
    return score(logits_SC)


@contextmanager
def _replace_output(module: nn.Module, value: Tensor | None) -> Iterator[list[Tensor]]:
    """Let a module give something else for a while, or as ever where that is None; what it would give is listed."""
    seen: list[Tensor] = []

    def replace(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        seen.append(output)
        return value

    handle = module.register_forward_hook(replace)
    try:
        yield seen
    finally:
        handle.remove()


def _read_vectors(model: nn.Module, embeddings: nn.Module | None, inputs: Mapping[str, Tensor]) -> Tensor:
    """The embeddings of a text, (1, R, L, D), where the model reads exactly those, and once."""
    if embeddings is None:
        raise _refuse("an export, through which no gradient flows")
    with torch.no_grad(), _replace_output(embeddings, None) as seen:
        model(**inputs)
    if len(seen) != 1 or seen[0].shape[:2] != inputs["input_ids"].shape:
        raise _refuse("a classifier that puts words of its own beside the text")
    return seen[0][None].detach().float()


def _refuse(what: str) -> ArtifactError:
    """Why integrated gradients do not go here, with the way out."""
    return ArtifactError(
        f"method: integrated_gradients needs a model that answers smoothly to its word embeddings, came {what}. "
        "Use --method occlusion, in Python method='occlusion'."
    )
