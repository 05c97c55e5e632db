"""The table of metrics, one row for each, and the lists that recipes and reports derive from it.

The function that computes a metric is registered under its key in `nlp_transfer.evaluation.metrics.registry`, which
is too heavy to import where a recipe is only read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nlp_transfer.contracts import TaskKind

__all__ = [
    "DEFAULT_METRICS",
    "LOWER_IS_BETTER",
    "METRICS",
    "SELECTION_METRICS",
    "TABLE",
    "Metric",
]

CLASSES: tuple[TaskKind, ...] = ("classification", "ordinal", "multi_label")
EXCLUSIVE: tuple[TaskKind, ...] = ("classification", "ordinal")
SETS: tuple[TaskKind, ...] = ("classification", "multi_label")
NUMBERS: tuple[TaskKind, ...] = ("ordinal", "regression")


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    Attributes:
        key: Its name in reports.
        tasks: Kinds of tasks that it suits.
        heading: Column heading in tables; made from the key where empty.
        lower_is_better: Whether the smallest value is the best.
        is_share: Whether its values lie in [0, 1] or [-1, 1], so that a bar can show them.
        hub: Hub id of the ``evaluate`` module that computes the same value from class ids; empty where there is none.
        arguments: Further arguments of that module, beside predictions and references.
    """

    key: str
    tasks: tuple[TaskKind, ...]
    heading: str = ""
    lower_is_better: bool = False
    is_share: bool = True
    hub: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


def _average(name: str, tasks: tuple[TaskKind, ...]) -> tuple[Metric, ...]:
    """The averages of a per-class score, and the per-class score itself."""
    means = [
        Metric(f"{name}_{average}", tasks, hub=name, arguments={"average": average})
        for average in ("macro", "micro", "weighted")
    ]
    return (*means, Metric(f"{name}_per_class", tasks))


TABLE: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("accuracy", CLASSES, hub="accuracy"),
        Metric("balanced_accuracy", EXCLUSIVE),
        *_average("f1", CLASSES),
        *_average("precision", SETS),
        *_average("recall", SETS),
        Metric("mcc", EXCLUSIVE, "MCC", hub="matthews_correlation"),
        Metric("cohen_kappa", EXCLUSIVE, "Cohen's kappa", hub="cohen_kappa"),
        Metric("quadratic_kappa", EXCLUSIVE),
        Metric("roc_auc", SETS, "ROC-AUC"),
        Metric("average_precision", SETS),
        Metric("log_loss", EXCLUSIVE, "Log-loss", lower_is_better=True, is_share=False),
        Metric("ece", EXCLUSIVE, "ECE", lower_is_better=True),
        Metric("brier", EXCLUSIVE, "Brier score", lower_is_better=True),
        Metric("mse", NUMBERS, "MSE", lower_is_better=True, is_share=False),
        Metric("rmse", ("regression",), "RMSE", lower_is_better=True, is_share=False),
        Metric("mae", NUMBERS, "MAE", lower_is_better=True, is_share=False),
        Metric("r2", ("regression",), "R2", is_share=False),
        Metric("pearson", NUMBERS, "Pearson's r"),
        Metric("spearman", NUMBERS, "Spearman's rho"),
    )
}
"""Every metric by its report key, in the order in which lists show them."""

METRICS: dict[str, tuple[str, ...]] = {
    kind: tuple(metric.key for metric in TABLE.values() if kind in metric.tasks)
    for kind in ("classification", "ordinal", "multi_label", "regression")
}
"""Metrics that suit each task, by their report key."""

LOWER_IS_BETTER = frozenset(metric.key for metric in TABLE.values() if metric.lower_is_better)
"""Metrics whose smallest value is the best."""

DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1_macro", "mcc", "log_loss", "ece"),
    "ordinal": ("accuracy", "f1_macro", "quadratic_kappa", "mae"),
    "multi_label": ("f1_micro", "f1_macro", "accuracy", "average_precision"),
    "regression": ("mse", "mae", "r2", "pearson", "spearman"),
}
"""Metrics that are reported where a recipe names none."""

SELECTION_METRICS: dict[str, str] = {
    "classification": "accuracy",
    "ordinal": "quadratic_kappa",
    "multi_label": "f1_micro",
    "regression": "mse",
}
"""Metric that selects the best weights where a recipe names none."""
