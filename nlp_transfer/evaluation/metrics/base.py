"""What the bundled ``evaluate`` modules have in common: no network, no script, no file left behind."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray

__all__ = ["BundledMetric", "to_weights"]

ExampleWeights = list[float] | FloatArray | None


class BundledMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no annotations
    """An ``evaluate`` module that is instantiated directly and keeps its examples in memory.

    Without that, ``evaluate.Metric`` makes a folder in the user's cache, and two processes that compute at once
    compete for one lock file there.

    Args:
        config_name: ``multilabel``, ``multiclass`` or ``multilist`` where the Hub's module has them.

    Attributes:
        module_name: Id of the module; the Hub's where the Hub has it.
        reference_url: Where the metric is defined.
        column_type: Arrow type of both columns.
    """

    module_name = ""
    reference_url = ""
    column_type = "int32"

    def __init__(self, config_name: str | None = None) -> None:
        # The seed is unused; naming one keeps evaluate from reading numpy's global state.
        super().__init__(config_name=config_name, keep_in_memory=True, seed=0)
        self._module_info.module_name = self.module_name

    def _build_data_dir(self) -> str:
        """Name a folder as ``evaluate`` would, without making it."""
        return str(Path(self._data_dir_root) / self.module_name)

    def _info(self) -> Any:
        """What ``evaluate`` shows of the module."""
        description = (type(self).__doc__ or "").strip()
        return evaluate.MetricInfo(
            description=description,
            citation="",
            inputs_description=description,
            features=self._features(),
            reference_urls=[self.reference_url] if self.reference_url else [],
        )

    def _features(self) -> Features | list[Features]:
        """Columns of the module: single values, or rows of them in the configurations that say so."""
        value = Value(self.column_type)
        column = Sequence(value) if self.config_name in ("multilabel", "multilist") else value
        return Features({"predictions": column, "references": column})


def to_weights(sample_weight: ExampleWeights, n: int) -> FloatArray:
    """Turn optional example weights into one weighted sample, shape (N, 1).

    Raises:
        ShapeError: The weights are not one an example.

    Example:
        >>> to_weights(None, 2).tolist()
        [[1.0], [1.0]]
    """
    if sample_weight is None:
        return np.ones((n, 1))
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ShapeError(f"sample_weight: expected {n} weights, one an example, got shape {weights.shape}.")
    return weights[:, None]
