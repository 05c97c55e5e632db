"""Every metric is one row: what is listed, computed and shown derives from it."""

from nlp_transfer.evaluation.metrics.modules import BUNDLED
from nlp_transfer.evaluation.metrics.registry import STATISTICS
from nlp_transfer.publishing.summary import name_metric
from nlp_transfer.recipe.metrics import DEFAULT_METRICS, LOWER_IS_BETTER, METRICS, SELECTION_METRICS, TABLE


def test_every_metric_is_computed_suits_a_task_and_has_a_heading():
    assert set(TABLE) == set(STATISTICS)
    assert len(TABLE) >= 27
    assert set(TABLE) == {key for keys in METRICS.values() for key in keys}
    assert all(name_metric(key)[0].isupper() for key in TABLE)
    assert {key for key, metric in TABLE.items() if metric.hub} >= {"accuracy", "f1_macro", "mcc", "cohen_kappa"}
    assert all(metric.hub in BUNDLED for metric in TABLE.values() if metric.hub)


def test_what_a_task_reports_and_selects_by_suits_it():
    for kind, keys in METRICS.items():
        assert set(DEFAULT_METRICS[kind]) <= set(keys)
        assert SELECTION_METRICS[kind] in keys
    assert {"log_loss", "ece", "brier", "mse", "rmse", "mae"} == LOWER_IS_BETTER
