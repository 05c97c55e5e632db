"""Explain one prediction of a classifier: which words speak for a label, and which against it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.places import NO_WORD, WordRows, place_words
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.predict.texts import TextScorer
from nlp_transfer.errors import DataError, LabelError
from nlp_transfer.evaluation.attribution import (
    LAST_STEPS,
    STEPS,
    Attribution,
    attribute_gradients,
    attribute_occlusion,
    make_score,
)
from nlp_transfer.models.layers import find_word_embeddings
from nlp_transfer.publishing.explain.result import BASELINES, METHODS, Baseline, Explanation, Method

__all__ = ["explain_text"]


def explain_text(
    scorer: TextScorer,
    text: str,
    text_b: str | None,
    probabilities: np.ndarray,
    predicted: Any,
    *,
    label: str | None = None,
    method: Method = "integrated_gradients",
    baseline: Baseline = "pad",
    steps: int | None = None,
    unit: float = 1.0,
) -> Explanation:
    """Distribute the log-odds of a label among the words of a text.

    The explained quantity is the log-odds that the model computes in float32, before any calibration of its
    probabilities; for a regression, the predicted number. Special tokens are never replaced.

    Args:
        scorer: Reads and runs the texts of a classifier.
        text: The first or only text.
        text_b: The second text of a pair.
        probabilities: The classifier's probabilities, shape (C,).
        predicted: The prediction: a label name, a list of names, or a number.
        label: The label to explain; where absent the predicted label, or else the likeliest.
        method: ``integrated_gradients``, whose values add up to the difference of the scores of text and baseline, or
            ``occlusion``, which replaces one word at a time and works for every classifier.
        baseline: Token that replaces a word: ``pad``, or ``mask``, which by itself shifts the scores of some sentence
            encoders.
        steps: Initial number of points of the integral; doubled until the values add up.
        unit: Standard deviation of a regression's target; 1 for log-odds.

    Returns:
        The explanation, which shows itself in a terminal and in a notebook.

    Raises:
        ArtifactError: Integrated gradients do not work for this classifier.
        DataError: An argument has an invalid value.
        LabelError: The label does not exist.
        MissingExtraError: captum is not installed.
    """
    _check(method, baseline, steps)
    space, reading, tokenizer = scorer.space, scorer.reading, scorer.tokenizer
    column = _choose_column(space, label, probabilities, predicted)
    rows = place_words(
        tokenizer,
        text,
        text_b,
        max_length=reading.max_length,
        long_text=reading.long_text,
        window_overlap=reading.window_overlap,
        max_windows=reading.max_windows,
    )
    inputs = _feed(scorer, text, text_b)
    assert np.array_equal(inputs["input_ids"].cpu().numpy(), rows.ids), "both read the same rows"
    blank = _choose_blank(tokenizer, baseline)
    found, special = _attribute(scorer, inputs, rows, make_score(space, column), blank, method, steps or STEPS, unit)
    return Explanation(
        {
            "text": text,
            **({} if text_b is None else {"text_b": text_b}),
            "kind": space.kind,
            "label": space.names[column],
            "predicted": predicted,
            "probability": None if space.kind == "regression" else float(probabilities[column]),
            "method": method,
            "baseline": baseline,
            "steps": found.steps or None,
            "score": found.score,
            "baseline_score": found.baseline_score,
            "gap": found.gap,
            "is_complete": found.is_complete,
            "special": special,
            "words": _list_words(rows, found.values, {"text": text, "text_b": text_b or ""}),
        }
    )


def _check(method: str, baseline: str, steps: int | None) -> None:
    """Refuse unknown names and invalid steps."""
    if method not in METHODS or baseline not in BASELINES:
        name, got, known = ("method", method, METHODS) if method not in METHODS else ("baseline", baseline, BASELINES)
        raise DataError(f"{name}: expected one of {', '.join(known)}, got {got!r}. Name one.")
    if steps is not None and steps < 1:
        raise DataError(f"steps: expected a whole number from 1, got {steps}. Leave it out to begin with {STEPS}.")


def _attribute(
    scorer: TextScorer,
    inputs: Mapping[str, Tensor],
    rows: WordRows,
    score: Callable[[Tensor], Tensor],
    blank: int,
    method: Method,
    steps: int,
    unit: float,
) -> tuple[Attribution, float]:
    """Compute the values of words, and the total value of all tokens without a word."""
    num_words, is_word = len(rows.words), rows.owners != NO_WORD
    blanks_RL = torch.from_numpy(np.where(is_word, blank, rows.ids)).to(scorer.device)
    if method == "occlusion":
        return attribute_occlusion(scorer.model, inputs, blanks_RL, rows.owners, num_words, score), 0.0
    embeddings, most = find_word_embeddings(scorer.model), max(LAST_STEPS, steps)
    found = attribute_gradients(
        scorer.model, embeddings, inputs, blanks_RL, score, steps=steps, last_steps=most, unit=unit
    )
    values_W = np.bincount(rows.owners[is_word], weights=found.values[is_word], minlength=num_words)
    return replace(found, values=values_W), float(found.values[~is_word].sum())


def _choose_column(space: LabelSpace, label: str | None, probabilities: np.ndarray, predicted: Any) -> int:
    """Choose the column of the probabilities to explain."""
    if label is None:
        is_named = space.is_categorical and predicted is not None
        return space.label2id[predicted] if is_named else int(np.argmax(probabilities))
    if label not in space.label2id:
        shown = ", ".join(space.names[:8]) + (", ..." if space.num_outputs > 8 else "")
        raise LabelError(f"label: expected one of {shown}, came {label!r}. Name one, or leave it out.")
    return space.label2id[label]


def _choose_blank(tokenizer: Any, baseline: Baseline) -> int:
    """Choose the token that replaces a word; for tokenizers without a mask token, the unknown token."""
    known = [tokenizer.mask_token_id, tokenizer.unk_token_id] if baseline == "mask" else []
    return next(int(token) for token in [*known, tokenizer.pad_token_id, 0] if token is not None)


def _feed(scorer: TextScorer, text: str, text_b: str | None) -> Mapping[str, Tensor]:
    """Encode the text as model inputs, each of shape (R, L)."""
    columns = {"text": [text], **({} if text_b is None else {"text_b": [text_b]})}
    feeder = Feeder(scorer.encode(Dataset.from_dict(columns)), "input", scorer.device)
    return feeder.feed(np.array([0])).inputs


def _list_words(rows: WordRows, values: np.ndarray, texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """List every word in order; words that the encoder does not read have no value."""
    return [
        {
            "word": texts[word.part][word.start : word.end],
            "part": word.part,
            "start": word.start,
            "end": word.end,
            "value": float(value) if is_read else None,
        }
        for word, value, is_read in zip(rows.words, values, rows.is_read, strict=True)
    ]
