"""A handful of examples: contrastive pairs and a head, cloze questions, or nearest class means."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.encode import resolve_max_length
from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.engine.train.objectives import read_labels
from nlp_transfer.engine.train.window import run_joint_window
from nlp_transfer.errors import RecipeError
from nlp_transfer.evaluation.predictions import to_probabilities
from nlp_transfer.evaluation.scoring import compute_metrics
from nlp_transfer.models.cloze import ClozeClassifier, read_pattern
from nlp_transfer.models.custom import load_pretrained
from nlp_transfer.models.encoder import LoadedEncoder, load_tokenizer
from nlp_transfer.models.vector_classifier import VectorClassifier, find_layers
from nlp_transfer.recipe.schema import FewShotConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage, Strategy
from nlp_transfer.strategies.fitted_heads import FittedHead, fit_head

__all__ = ["STRATEGY", "adapt_few_shot", "fit_classes", "plan_classes", "sum_contrast"]

SCALES = (2.0, 5.0, 10.0, 20.0, 40.0)
"""Factors on the cosine to a class mean that train chooses from, each example left out in turn; chosen."""


def adapt_few_shot(loaded: LoadedEncoder, config: FewShotConfig) -> Adapted:
    """Make an encoder ready to learn from a few examples a class.

    Args:
        loaded: The encoder; its family's own head is not used.
        config: The method and its settings.

    Returns:
        A custom classifier.

    Raises:
        RecipeError: The task has no classes, or the encoder cannot fill gaps.

    Source:
        Tunstall et al. 2022 (SetFit), https://arxiv.org/abs/2209.11055, with the pairs of a whole window in place of
        pairs drawn beforehand, and the loss of Khosla et al. 2020, https://arxiv.org/abs/2004.11362, whose gradient
        grows with how hard a pair is; Schick and Schutze 2021 (PET), https://arxiv.org/abs/2001.07676, one pattern and
        no distillation; Snell et al. 2017 (prototypes), https://arxiv.org/abs/1703.05175, cosine in place of distance.
    """
    if not loaded.labels.is_categorical:
        raise RecipeError(
            [
                f"strategy.kind: few_shot needs classes of which one holds, got task.kind {loaded.labels.kind}. "
                "Use features or full."
            ]
        )
    if config.method == "cloze":
        return _adapt_cloze(loaded, config)
    encoder: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    model = VectorClassifier(
        encoder, loaded.labels, layers=find_layers(encoder, [-1]), pooling=config.pooling, normalize=True
    )
    is_contrastive = config.method == "contrastive"
    model.requires_grad_(False)
    encoder.requires_grad_(is_contrastive)
    model.gives_vectors = model.saves_encoder = is_contrastive

    def fit_vectors(material: Material) -> None:
        """Fit the head on train."""
        model.gives_vectors = False
        model.set_head(*_fit(model, config, material))

    return Adapted(
        model,
        "nlp_transfer",
        plan_stage=(lambda material: _plan_stage(model, config, material)) if is_contrastive else None,
        fit_head=fit_vectors,
    )


def _fit(model: VectorClassifier, config: FewShotConfig, material: Material) -> FittedHead:
    """Fit a head on the vectors that the encoder gives now."""
    vectors_ND = extract_vectors(model.encoder, material.prepared, "train", **model.how)
    targets = material.prepared.splits["train"].labels
    assert targets is not None
    if config.method == "prototypes":
        return fit_means(vectors_ND, targets, model.labels.num_outputs)
    return fit_classes(vectors_ND, targets, model.labels, penalty=config.penalty, seed=material.recipe.training.seed)


def _plan_stage(model: VectorClassifier, config: FewShotConfig, material: Material) -> Stage:
    """Say how the loop pulls classes together."""
    training = material.recipe.training
    targets = material.prepared.splits["train"].labels
    assert targets is not None

    def plan(epoch: int) -> list[np.ndarray]:
        return plan_classes(targets, training.batch_size, config.examples_per_class, seed=training.seed, epoch=epoch)

    def evaluate(_: nn.Module) -> dict[str, float]:
        """Score validation with a head fitted for the moment."""
        model.gives_vectors = False
        head, (weight_CD, bias_C) = model.head, (t.numpy() for t in _fit(model, config, material)[1].values())
        vectors_ND = extract_vectors(model.encoder, material.prepared, "validation", **model.how)
        model.head, model.gives_vectors = head, True
        truth = material.prepared.splits["validation"].labels
        assert truth is not None
        probabilities = to_probabilities(vectors_ND @ weight_CD.T + bias_C, model.labels)
        return compute_metrics(truth, probabilities, model.labels, [str(training.select_by)])

    # Encoding validation after each epoch may cost more than the epoch: only where something is decided by it.
    is_looking = training.early_stopping is not None and "validation" in material.prepared.splits
    return Stage(
        objective=lambda vectors_BD, batch: sum_contrast(vectors_BD, read_labels(batch), config.temperature),
        window=run_joint_window,
        plan=plan,
        evaluates=is_looking,
        evaluate=evaluate,
    )


def sum_contrast(vectors_BD: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Sum, over the examples, how far those of its class are from standing out among all others.

    Args:
        vectors_BD: Vectors of length 1, shape (B, D).
        labels: Class ids, shape (B,).
        temperature: Divides the cosines.

    Returns:
        A scalar. An example without another of its class adds nothing.

    Source:
        Khosla et al. 2020, equation 2.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(sum_contrast(vectors, torch.tensor([0, 0, 1]), 1.0).item(), 4)
        0.6265
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similar_BB = (vectors_BD @ vectors_BD.T / temperature).masked_fill(itself, float("-inf"))
    log_share_BB = similar_BB - torch.logsumexp(similar_BB, dim=1, keepdim=True)
    is_same_BB = (labels[:, None] == labels[None]) & ~itself
    count_B = is_same_BB.sum(dim=1)
    summed_B = log_share_BB.masked_fill(~is_same_BB, 0.0).sum(dim=1)
    return -(summed_B / count_B.clamp(min=1)).sum()


def plan_classes(
    labels: np.ndarray, batch_size: int, examples_per_class: int, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """Plan one pass in windows that hold several examples of each of their classes.

    Every example is in exactly one window, so the pairs of an epoch grow with the examples, not with their square.

    Args:
        labels: Class ids, shape (N,).
        batch_size: Examples in a window.
        examples_per_class: Examples of a class that stand together.
        seed: Of the order.
        epoch: Number of the pass.

    Returns:
        Example indices, int64; the last window may be shorter.

    Example:
        >>> windows = plan_classes(np.array([0, 1, 0, 1]), 2, 2, seed=0, epoch=0)
        >>> sorted(sorted(int(i) for i in window) for window in windows)
        [[0, 2], [1, 3]]
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(labels)).astype(np.int64)
    groups = []
    for label in np.unique(labels):
        own = order[labels[order] == label]
        groups += [own[start : start + examples_per_class] for start in range(0, len(own), examples_per_class)]
    flat = np.concatenate([groups[number] for number in generator.permutation(len(groups))])
    return [flat[start : start + batch_size] for start in range(0, len(flat), batch_size)]


def fit_classes(
    vectors_ND: np.ndarray, targets: np.ndarray, space: LabelSpace, *, penalty: float, seed: int
) -> FittedHead:
    """Fit a logistic head whose penalty gets weaker the more classes there are.

    With one strength for any count of classes, each of many has too few examples to be told by anything but how many
    they are: of 77 classes with 2 to 17 examples, 0.60 of the test rows were right, 0.76 this way.

    Args:
        vectors_ND: Vectors of length 1, shape (N, D).
        targets: Class ids, shape (N,).
        space: The label contract.
        penalty: Inverse strength for two classes.
        seed: Of the solver.

    Returns:
        A linear head.
    """
    return fit_head("logistic", vectors_ND, targets, space, seed=seed, penalties=[penalty * space.num_outputs / 2])


def fit_means(vectors_ND: np.ndarray, targets: np.ndarray, num_classes: int) -> FittedHead:
    """Give each class the direction of its mean; the scale is the one that does best on examples left out in turn.

    Args:
        vectors_ND: Vectors of length 1, shape (N, D).
        targets: Class ids, shape (N,).
        num_classes: C.

    Returns:
        A linear head without bias.
    """
    votes_NC = np.eye(num_classes)[targets]
    sums_CD = votes_NC.T @ vectors_ND
    means_CD = _scale_rows(sums_CD)
    # Only the example's own class changes when it is left out; a class of one example has no direction left.
    without_ND = _scale_rows(sums_CD[targets] - vectors_ND)
    cosines_NC = vectors_ND @ means_CD.T
    cosines_NC[np.arange(len(targets)), targets] = (vectors_ND * without_ND).sum(axis=1)
    losses = []
    for scale in SCALES:
        logits_NC = torch.from_numpy(scale * cosines_NC)
        losses.append(float(nn.functional.cross_entropy(logits_NC, torch.from_numpy(targets.astype(np.int64)))))
    scale = SCALES[int(np.argmin(losses))]
    weight = torch.from_numpy((scale * means_CD).astype(np.float32))
    return {"kind": "linear"}, {"weight": weight, "bias": torch.zeros(num_classes)}


def _scale_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; one of zeros stays."""
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled


def _adapt_cloze(loaded: LoadedEncoder, config: FewShotConfig) -> Adapted:
    """Load the encoder with its masked-language head and ask it to fill a gap."""
    source = loaded.source
    encoder, missing = load_pretrained(
        AutoModelForMaskedLM,
        source.location,
        revision=source.revision,
        trust_remote_code=loaded.trust_remote_code,
    )
    if missing:
        raise RecipeError(
            [
                f"strategy.method: cloze needs an encoder with a masked-language head; the checkpoint of {source.name} "
                "holds none. Use method=contrastive, or name another encoder."
            ]
        )
    tokenizer = load_tokenizer(source, trust_remote_code=loaded.trust_remote_code)
    words = _read_words(loaded, config)
    front, back, tokens = read_pattern(config.pattern, words, tokenizer)
    settings: dict[str, Any] = {"front": front, "back": back, "gap": back.index(tokenizer.mask_token_id)}
    model = ClozeClassifier(encoder, loaded.labels, **settings, words=tokens)
    model.saves_encoder = True
    longest = resolve_max_length(tokenizer, encoder.config, 10**6) - len(front) - len(back)

    def plan_stage(material: Material) -> Stage:
        """Refuse texts that leave no room for the pattern."""
        if material.recipe.data.max_length > longest:
            raise RecipeError(
                [
                    f"data.max_length: expected at most {longest}, so that strategy.pattern finds room in what the "
                    f"encoder reads, got {material.recipe.data.max_length}."
                ]
            )
        return Stage()

    return Adapted(model, "nlp_transfer", plan_stage=plan_stage)


def _read_words(loaded: LoadedEncoder, config: FewShotConfig) -> Sequence[str]:
    """The word of each label."""
    names = loaded.labels.names
    if config.verbalizers is None:
        return names
    if set(config.verbalizers) != set(names):
        wrong = sorted(set(config.verbalizers) ^ set(names))[0]
        raise RecipeError(
            [f"strategy.verbalizers: expected a word for each of {', '.join(names)}, and no other; see {wrong!r}."]
        )
    return [config.verbalizers[name] for name in names]


STRATEGY = Strategy(kind="few_shot", adapt=adapt_few_shot)
