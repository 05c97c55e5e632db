"""Self-training: texts without labels get those that a trained model is sure of, and train the next one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from nlp_transfer.contracts import Encoded, RunLog
from nlp_transfer.engine.predict.forward import Microbatch
from nlp_transfer.engine.train.objectives import Objective, compute_class_weights
from nlp_transfer.evaluation.calibration import fit_calibrator
from nlp_transfer.fitting.fit import Fitted
from nlp_transfer.fitting.series import Fits
from nlp_transfer.methods.base import Method
from nlp_transfer.recipe.methods.self_training import SelfTrainingConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage

__all__ = ["METHOD", "choose_sure", "run_self_training"]

TARGETS, WEIGHTS = "targets", "weights"
"""Columns of train: a distribution over labels, and the weight of a row."""


def choose_sure(
    probabilities: np.ndarray, *, share: float, least: float, class_shares: np.ndarray | None = None
) -> np.ndarray:
    """Choose the texts whose labels a model is surest of.

    Args:
        probabilities: Calibrated, float, shape (N, C).
        share: Of the texts, that is taken at most.
        least: Probability below which none is taken.
        class_shares: Share of each class among those that are taken, shape (C,), so that a class that is easy to tell
            does not crowd out the others; None takes whatever is surest.

    Returns:
        Indices, int64, ascending.

    Source:
        Zou et al. 2018, section 3.3 (class-balanced self-training), https://arxiv.org/abs/1810.07911.

    Example:
        >>> stated = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
        >>> choose_sure(stated, share=0.5, least=0.6).tolist()
        [0, 1]
        >>> choose_sure(stated, share=0.5, least=0.6, class_shares=np.array([0.5, 0.5])).tolist()
        [0, 2]
    """
    predicted, surest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-surest, kind="stable")
    order = order[surest[order] >= least]
    most = round(share * len(probabilities))
    if class_shares is None:
        return np.sort(order[:most])
    taken = [order[predicted[order] == label][: round(most * each)] for label, each in enumerate(class_shares)]
    return np.sort(np.concatenate(taken))


def run_self_training(config: SelfTrainingConfig, fits: Fits, material: Material) -> Fitted:
    """Train on labelled rows, then in rounds on these and on texts that got their labels from the round before.

    Every round starts from the pretrained encoder. Confidence is calibrated on validation, and no label of the texts
    is ever seen. It ends early where a round would change fewer labels than ``config.settled``.

    Args:
        config: Rounds, what is taken, and how it counts.
        fits: Trains each round under a name of its own.
        material: Labelled rows and texts.

    Returns:
        The model of the last round.

    Source:
        Scudder 1965; confidence and rounds as in Zou et al. 2018, https://arxiv.org/abs/1810.07911; calibration as in
        Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    prepared = material.prepared
    texts, train, space = prepared.unlabelled, prepared.splits["train"], prepared.labels
    assert texts is not None, "a recipe without texts is refused"
    assert train.labels is not None
    counts = np.bincount(train.labels, minlength=space.num_outputs)
    fitted = fits.train("round-0")
    logs, rounds = [fitted.log], []
    given: np.ndarray | None = None
    sums: Any = 0.0
    for number in range(1, config.rounds + 1):
        probabilities = _calibrate(fits, fitted, prepared.splits.get("validation"))(fits.predict(fitted, texts))
        sums = sums + probabilities
        if config.teacher == "mean":
            probabilities = sums / number
        labels = probabilities.argmax(axis=1)
        changed = 1.0 if given is None else float((labels != given).mean())
        given = labels
        if changed <= config.settled:
            rounds.append({"taken": 0, "changed": changed})
            break
        share = config.share * number / config.rounds
        class_shares = counts / counts.sum() if config.balance else None
        chosen = choose_sure(probabilities, share=share, least=config.min_confidence, class_shares=class_shares)
        rounds.append({"taken": len(chosen), "changed": changed})
        if not len(chosen):
            break
        joined = _add_texts(config, train, texts.select(chosen), probabilities[chosen])
        following = replace(prepared, splits={**prepared.splits, "train": joined})
        changes = [_read_columns] if TARGETS in joined.columns else []
        fitted = fits.train(f"round-{number}", prepared=following, changes=changes)
        logs.append(fitted.log)
    fitted.log = _join_logs(logs, {"self_training": {"texts": texts.num_examples, "rounds": rounds}})
    return fitted


def _calibrate(fits: Fits, fitted: Fitted, held_out: Encoded | None) -> Callable[[np.ndarray], np.ndarray]:
    """Make the map from stated to honest probabilities; without labelled validation rows they stay as they are."""
    if held_out is None or held_out.labels is None:
        return lambda probabilities: probabilities
    stated = fits.predict(fitted, held_out)
    return fit_calibrator("temperature", stated, held_out.labels, fits.prepared.labels).apply


def _add_texts(config: SelfTrainingConfig, train: Encoded, chosen: Encoded, probabilities: np.ndarray) -> Encoded:
    """Put texts with the labels that they got behind the labelled rows."""
    assert train.labels is not None
    given = replace(chosen, labels=probabilities.argmax(axis=1).astype(train.labels.dtype))
    if config.targets == "hard" and config.weight == 1:
        return train.join(given)
    own = np.eye(probabilities.shape[1], dtype=np.float32)
    said = probabilities.astype(np.float32) if config.targets == "soft" else own[given.labels]
    one = np.ones(train.num_examples, dtype=np.float32)
    other = np.full(given.num_examples, config.weight, dtype=np.float32)
    first = replace(train, columns={**train.columns, TARGETS: own[train.labels], WEIGHTS: one})
    return first.join(replace(given, columns={TARGETS: said, WEIGHTS: other}))


def _read_columns(stage: Stage, adapted: Adapted, material: Material) -> Stage:  # noqa: ARG001
    """Let the loss read distributions and weights in place of labels: a `Change`."""
    training, space = material.recipe.training, material.prepared.labels
    weights = compute_class_weights(space, training, material.splits.facts.label_counts.get("train", {}))
    return replace(stage, objective=_sum_weighted(weights, training.label_smoothing))


def _sum_weighted(class_weights: Tensor | None, smoothing: float) -> Objective:
    """The cross-entropy of distributions, each row with a weight; of one-hot rows it is the task's own loss."""

    def sum_loss(logits: Tensor, batch: Microbatch) -> Tensor:
        targets, weights = batch.columns[TARGETS].to(logits), batch.columns[WEIGHTS].to(logits)
        targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
        if class_weights is not None:
            targets = targets * class_weights.to(logits)[None]
        loss_B = -(targets * logits.log_softmax(dim=-1)).sum(dim=-1)
        return (weights * loss_B).sum()

    return sum_loss


def _join_logs(logs: list[RunLog], said: dict[str, Any]) -> RunLog:
    """The log of the last fit, with the time and the work of all."""
    return replace(
        logs[-1],
        seconds=sum(log.seconds for log in logs),
        examples=sum(log.examples for log in logs),
        tokens=sum(log.tokens for log in logs),
        padded_tokens=sum(log.padded_tokens for log in logs),
        peak_memory_bytes=max(log.peak_memory_bytes for log in logs),
        resumed_at=[step for log in logs for step in log.resumed_at],
        damaged_checkpoints=[each for log in logs for each in log.damaged_checkpoints],
        methods={**logs[-1].methods, **said},
    )


METHOD = Method("self_training", run=run_self_training)
