"""How far unlabelled texts are from the labelled rows."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from nlp_transfer.data.checks import list_words
from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.runs.seed import Workspace

__all__ = ["compare_words", "measure_transfer"]

SAMPLE = 500
"""Rows of each side that the encoder reads; chosen."""

FEWEST = 4
"""Rows of each side below which no distance is measured."""


def compare_words(source: Iterable[str], target: Iterable[str]) -> dict[str, Any]:
    """Count the words of two domains, in lower case, and the share of target words that the source never shows.

    Args:
        source: Labelled texts.
        target: Texts without labels.

    Returns:
        ``words``, the number of different words of each side, and ``new_words``, the share of the target's words that
        do not occur in the source, in [0, 1].

    Example:
        >>> compare_words(["A good book"], ["a good pan", "Good lid"])
        {'words': {'source': 3, 'target': 4}, 'new_words': 0.5}
    """
    known, found = ({word for text in texts for word in list_words(text.lower())} for texts in (source, target))
    new = len(found - known) / len(found) if found else 0.0
    return {"words": {"source": len(known), "target": len(found)}, "new_words": new}


def measure_transfer(recipe: Recipe, space: Workspace) -> dict[str, Any]:
    """Measure how far unlabelled texts are from train: rows, labels, words, and the encoder's vectors.

    Args:
        recipe: The encoder.
        space: Splits and their tokens.

    Returns:
        ``rows`` and ``words`` of each side, ``labels`` (label counts of train for the source, of test for the target),
        ``new_words``, and ``proxy_a_distance`` in [0, 2], None if a side has fewer than `FEWEST` rows. Empty if there
        are no texts without labels.

    Source:
        Ben-David et al. 2007, "Analysis of representations for domain adaptation", section 4 (the distance).
    """
    texts, prepared = space.splits.unlabelled, space.prepared
    if texts is None or prepared.unlabelled is None:
        return {}
    facts = space.splits.facts
    labels = {"source": facts.label_counts.get("train", {}), "target": facts.label_counts.get("test", {})}
    found: dict[str, Any] = {"rows": {"source": facts.rows["train"], "target": len(texts)}, "labels": labels}
    found |= compare_words(space.splits.tables["train"]["text"][:], texts["text"][:])
    # Scikit-learn takes a second to import, and most runs have no texts without labels.
    from nlp_transfer.evaluation.shift import measure_proxy_distance

    sides = (prepared.splits["train"], prepared.unlabelled)
    if min(side.num_examples for side in sides) < FEWEST:
        return found | {"proxy_a_distance": None}
    loaded = load_encoder(recipe.encoder, prepared.labels, seed=0)
    encoder: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    generator = np.random.default_rng(0)
    clouds = []
    for side in sides:
        some = np.sort(generator.permutation(side.num_examples)[:SAMPLE])
        held = replace(prepared, splits={"some": side.select(some)})
        clouds.append(extract_vectors(encoder, held, "some", layers=[-1]))
    return found | {"proxy_a_distance": measure_proxy_distance(clouds[0], clouds[1], seed=0)}
