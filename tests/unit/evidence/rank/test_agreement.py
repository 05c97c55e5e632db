import numpy as np
import pytest
from scipy import stats

from nlp_transfer.errors import ShapeError
from nlp_transfer.evidence.rank.agreement import measure_agreement


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_ties_included(seed):
    generator = np.random.default_rng(seed)
    guessed, measured = generator.integers(0, 6, 12), generator.normal(size=12).round(1)
    found = measure_agreement(guessed, measured)
    assert found.n == 12
    assert found.pearson == pytest.approx(stats.pearsonr(guessed, measured).statistic)
    assert found.kendall_tau == pytest.approx(stats.kendalltau(guessed, measured).statistic)


def test_regret_is_what_the_first_choice_loses():
    found = measure_agreement([0.1, 0.9, 0.5], [0.7, 0.8, 0.95])
    assert found.regret == pytest.approx(0.15)
    assert measure_agreement([1.0, 2.0], [0.1, 0.2]).regret == 0.0


def test_what_cannot_be_correlated_has_no_figure():
    assert measure_agreement([1.0], [0.5]).to_json() == {"pearson": None, "kendall_tau": None, "regret": 0.0, "n": 1}
    assert measure_agreement([1.0, 2.0], [0.5, 0.6]).pearson is None
    assert measure_agreement([1.0, 1.0, 1.0], [0.5, 0.6, 0.7]).kendall_tau is None


@pytest.mark.parametrize(("left", "right"), [([1.0], [1.0, 2.0]), ([], []), ([float("nan")], [1.0])])
def test_figures_that_are_no_pairs_are_refused(left, right):
    with pytest.raises(ShapeError, match="agreement: expected"):
        measure_agreement(left, right)
