"""The table that is ``predictions.parquet``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlp_transfer.contracts import Splits
from nlp_transfer.evaluation.predictions import predict_labels

__all__ = ["build_predictions"]


def build_predictions(
    splits: Splits,
    probabilities: dict[str, np.ndarray],
    *,
    with_text: bool = True,
    thresholds: Sequence[float | None] | None = None,
) -> pd.DataFrame:
    """Lay out predictions as a table.

    Args:
        splits: Texts, ids and labels.
        probabilities: Split name to float64 (N, C).
        with_text: Whether texts go in.
        thresholds: As ``predict_labels`` takes them.

    Returns:
        Columns ``split``, ``id``, ``text``, ``text_b`` (pairs), ``label``, ``predicted`` and, but for regressions,
        ``probability_<label>``; labels as names, lists of names (multi_label) or numbers (regression).
    """
    space = splits.labels
    frames = []
    for split, found in probabilities.items():
        table = splits.tables[split]
        texts = [name for name in ("text", "text_b") if name in table.column_names] if with_text else []
        frame = table.select_columns(["id", *texts]).to_pandas()
        frame.insert(0, "split", split)
        labels = np.asarray(table.with_format("numpy")["label"]) if splits.is_labelled(split) else None
        frame["label"] = None if labels is None else _name_values(labels, splits)
        frame["predicted"] = _name_values(predict_labels(found, space, thresholds), splits)
        if space.kind != "regression":
            for column, name in enumerate(space.names):
                frame[f"probability_{name}"] = found[:, column]
        frames.append(frame)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return joined


def _name_values(values: np.ndarray, splits: Splits) -> list[Any]:
    """Turn class ids or multi-hot rows into names; numbers stay numbers."""
    space = splits.labels
    if space.kind == "regression":
        return [float(value) for value in values]
    names = np.asarray(space.names, dtype=object)
    if space.kind == "multi_label":
        return [names[row.astype(bool)].tolist() for row in values]
    return list(names[values])
