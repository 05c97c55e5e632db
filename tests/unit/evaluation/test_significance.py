from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nlp_transfer.contracts import Score
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.intervals import paired_bootstrap
from nlp_transfer.evaluation.significance import (
    adjust_holm,
    compare_aso,
    compare_bootstrap,
    compare_mcnemar,
    compare_permutation,
    judge_gain,
    summarize_seeds,
)


def draw_pair(seed: int, n: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two classifiers that share most of what is hard."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    return tuple((hard + 0.5 * rng.normal(size=n) < 1 + shift).astype(float) for shift in (gain, 0.0))  # type: ignore[return-value]


def tabulate(first: np.ndarray, second: np.ndarray) -> list[list[int]]:
    return [[int(((first == a) & (second == b)).sum()) for b in (1, 0)] for a in (1, 0)]


def test_exact_mcnemar_equals_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    compared = 0
    for seed in range(30):
        first, second = draw_pair(seed, 40 + 13 * seed, gain=0.1 * (seed % 4))
        theirs = tables.mcnemar(tabulate(first, second), exact=True).pvalue
        found = compare_mcnemar(first, second, method="exact")
        assert found.p_value == pytest.approx(theirs, abs=1e-12)
        assert found.difference == pytest.approx(first.mean() - second.mean())
        compared += 1
    assert compared == 30


def test_mid_p_equals_statsmodels_and_the_sources_figure() -> None:
    proportions = pytest.importorskip("statsmodels.stats.proportion")
    # Fagerland et al. 2013, table 1: 1 and 7 discordant pairs, exact 0.070, mid-p 0.039.
    first, second = np.array([1] * 8 + [0] * 13), np.array([0] * 7 + [1] + [1] + [0] * 12)
    assert round(compare_mcnemar(first, second, method="mid_p").p_value, 3) == 0.039
    compared = 0
    for only_first, only_second in ((1, 7), (3, 4), (0, 5), (10, 30), (20, 2)):
        right = [np.array([1] * only_first + [0] * only_second), np.array([0] * only_first + [1] * only_second)]
        count = only_first + only_second
        theirs = proportions.binom_test(only_first, count, 0.5) - stats.binom.pmf(only_first, count, 0.5)
        assert compare_mcnemar(*right).p_value == pytest.approx(theirs, abs=1e-12)
        compared += 1
    assert compared == 5


def test_mcnemar_where_neither_has_more_right() -> None:
    same = np.array([1, 0, 1])
    assert compare_mcnemar(same, same).p_value == compare_mcnemar(same, same, method="exact").p_value == 1.0
    # One disagreement each way: the exact value is 1, the mid-p 1 - P(1 of 2) / 2.
    first, second = np.array([1, 0, 1]), np.array([0, 1, 1])
    assert compare_mcnemar(first, second, method="exact").p_value == 1.0
    assert compare_mcnemar(first, second).p_value == pytest.approx(0.75)


def test_all_swaps_equal_scipys_exact_permutation_test() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for alternative in ("two-sided", "greater", "less"):
        for trial in range(5):
            first, second = rng.normal(0.3, size=9), rng.normal(size=9)
            if trial == 4:
                first, second = np.round(first), np.round(second)
            theirs = stats.permutation_test(
                (first, second),
                lambda a, b, axis: (a - b).mean(axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=np.inf,
                alternative=alternative,
            ).pvalue
            found = compare_permutation(first, second, resamples=1000, alternative=alternative)  # type: ignore[arg-type]
            assert found.p_value == pytest.approx(theirs, abs=1e-12)
            compared += 1
    assert compared == 15


def test_random_swaps_come_near_all_swaps() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.2, size=14), rng.normal(size=14)
    exact = compare_permutation(first, second, resamples=2**14).p_value
    drawn = compare_permutation(first, second, resamples=2**14 - 1).p_value
    assert 0.02 < exact < 0.6
    assert drawn != exact
    # Four standard errors of a share over 16,383 draws.
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 16383))
    assert compare_permutation(np.ones(300), np.zeros(300), resamples=99).p_value == 0.01


def test_swaps_of_right_and_wrong_are_mcnemars_exact_test() -> None:
    first, second = np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 30), np.array([0.0] * 9 + [1.0] * 2 + [1.0] * 30)
    exact = compare_mcnemar(first, second, method="exact")
    swapped = compare_permutation(first, second, resamples=2**11)
    assert swapped.p_value == pytest.approx(exact.p_value, abs=1e-12)
    assert swapped.n == exact.n == 41


def test_bootstrap_test_and_interval_agree_about_zero() -> None:
    verdicts = []
    for seed in range(40):
        first, second = draw_pair(seed, 200, gain=0.15 * (seed % 3))
        found = compare_bootstrap(first, second, resamples=999, confidence=0.9)
        interval = paired_bootstrap(first, second, resamples=999, confidence=0.9)
        assert (found.difference, found.low, found.high) == (interval.value, interval.low, interval.high)
        assert found.low is not None
        assert found.high is not None
        leaves_out = found.low > 0 or found.high < 0
        # Where the interval's end touches 0 itself, neither side is right.
        if found.low != 0 and found.high != 0:
            assert leaves_out == (found.p_value < 0.1)
            verdicts.append(leaves_out)
    assert len(verdicts) >= 30
    assert 3 < sum(verdicts) < len(verdicts) - 3


def test_bootstrap_sides_add_up() -> None:
    first, second = draw_pair(3, 300, gain=0.1)
    run: Callable[..., Any] = lambda **more: compare_bootstrap(first, second, resamples=999, confidence=0.95, **more)  # noqa: E731
    greater, less, both = run(alternative="greater"), run(alternative="less"), run()
    assert greater.p_value < 0.5 < less.p_value
    assert both.p_value == pytest.approx(2 * greater.p_value)
    same = compare_bootstrap(first, first, resamples=99, confidence=0.95)
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_tests_reject_at_about_their_level_where_there_is_no_difference() -> None:
    rejected = dict.fromkeys(("mid_p", "exact", "permutation", "bootstrap"), 0)
    for seed in range(400):
        first, second = draw_pair(seed, 150)
        rejected["mid_p"] += compare_mcnemar(first, second).p_value < 0.1
        rejected["exact"] += compare_mcnemar(first, second, method="exact").p_value < 0.1
        rejected["permutation"] += compare_permutation(first, second, resamples=199, seed=seed).p_value < 0.1
        found = compare_bootstrap(first, second, resamples=199, confidence=0.9, seed=seed)
        rejected["bootstrap"] += found.p_value < 0.1
    assert rejected["exact"] <= rejected["mid_p"]
    # 0.1 with four standard errors of a share over 400 trials above; discrete tests may reject more rarely.
    assert all(0.02 < count / 400 < 0.16 for count in rejected.values()), rejected


def test_aso_of_hand_worked_cases() -> None:
    # Above at every quantile, below at every quantile, the same.
    assert compare_aso([3.0, 4.0], [1.0, 2.0]).epsilon == 0.0
    assert compare_aso([1.0, 2.0], [3.0, 4.0]).epsilon == 1.0
    assert compare_aso([1.0, 2.0], [2.0, 1.0]).epsilon == 0.5
    # Lower half: 0 against 1, upper half: 4 against 2. Squared distances 1 and 4: 1 of 5 speaks against.
    assert compare_aso([0.0, 4.0], [1.0, 2.0]).epsilon == pytest.approx(0.2)
    # Steps of 1/2 against 1/3: [0, 1/3] 0-1, [1/3, 1/2] 0-2, [1/2, 2/3] 6-2, [2/3, 1] 6-3.
    against, whole = 1 / 3 + 4 / 6, 1 / 3 + 4 / 6 + 16 / 6 + 9 / 3
    found = compare_aso([0.0, 6.0], [1.0, 2.0, 3.0])
    assert found.epsilon == pytest.approx(against / whole)
    assert (found.num_first, found.num_second) == (2, 3)


def test_aso_bound_is_epsilon_and_a_normal_tail_of_its_bootstrap() -> None:
    first, second = [0.0, 4.0], [1.0, 2.0]
    # The four equally likely resamples of each side by hand, and epsilon of each pair by the definition.
    violations = []
    for a in ((0.0, 0.0), (0.0, 4.0), (0.0, 4.0), (4.0, 4.0)):
        for b in ((1.0, 1.0), (1.0, 2.0), (1.0, 2.0), (2.0, 2.0)):
            gaps = [x - y for x, y in zip(a, b, strict=True)]
            violations.append(sum(g**2 for g in gaps if g < 0) / sum(g**2 for g in gaps))
    assert len(violations) == 16
    found = compare_aso(first, second, resamples=20_000)
    assert found.bound == pytest.approx(min(1.0, 0.2 + 1.645 * float(np.std(violations))), abs=0.01)
    rng = np.random.default_rng(0)
    above, below = rng.normal(1.0, 1.0, size=40), rng.normal(0.0, 1.0, size=40)
    clear, turned, same = compare_aso(above, below), compare_aso(below, above), compare_aso(below, below[::-1])
    assert clear.epsilon <= clear.bound < 0.5 < same.bound <= turned.bound
    assert clear.epsilon + turned.epsilon == pytest.approx(1.0)
    assert same.epsilon == 0.5
    looser = compare_aso(first, second, resamples=2000, confidence=0.6)
    assert looser.bound < found.bound


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    compared = 0
    for size in (1, 2, 5, 12):
        values = np.round(rng.random(size) ** 3, 2)
        theirs = multitest.multipletests(values, method="holm")[1]
        assert adjust_holm(list(values)) == pytest.approx(list(theirs), abs=1e-12)
        compared += size
    assert compared == 20
    assert adjust_holm([]) == []


def test_seed_interval_equals_scipys() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 10):
        values = rng.normal(0.8, 0.02, size=count)
        found = summarize_seeds(values, confidence=0.9)
        theirs = stats.t.interval(0.9, count - 1, loc=values.mean(), scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx(theirs, abs=1e-12)
        assert (found.mean, found.spread) == pytest.approx((values.mean(), values.std(ddof=1)))
        assert found.num_seeds == count


def test_what_cannot_be_compared_is_refused() -> None:
    pairs: list[tuple[np.ndarray, np.ndarray]] = [
        (np.ones(3), np.ones(4)),
        (np.ones(0), np.ones(0)),
        (np.ones((2, 2)), np.ones((2, 2))),
    ]
    compares: list[Callable[..., Any]] = [
        compare_mcnemar,
        lambda a, b: compare_permutation(a, b, resamples=9),
        lambda a, b: compare_bootstrap(a, b, resamples=9, confidence=0.95),
    ]
    refused = 0
    for compare in compares:
        for first, second in pairs:
            with pytest.raises(ShapeError, match="same examples twice"):
                compare(first, second)
            refused += 1
        with pytest.raises(ShapeError, match="expected finite values, got 1 examples without"):
            compare(np.array([1.0, 0.0, 1.0]), np.array([1.0, float("nan"), 1.0]))
    assert refused == 9
    with pytest.raises(ShapeError, match="0 or 1"):
        compare_mcnemar(np.array([0.5, 1.0]), np.array([1.0, 1.0]))
    with pytest.raises(ShapeError, match="at least 2 scores"):
        compare_aso([0.5], [0.5, 0.6])
    with pytest.raises(ShapeError, match="at least 2 seeds"):
        summarize_seeds([0.5])
    for wrong in ([1.5], [-0.1], [float("nan")]):
        with pytest.raises(ShapeError, match=r"\[0, 1\]"):
            adjust_holm(wrong)


def judge(score: Score, comparisons: int = 1, *, lower: bool = False) -> tuple[str, float]:
    found = judge_gain(score, confidence=0.95, num_comparisons=comparisons, lower_is_better=lower)
    return found.verdict, found.bound


def test_the_bound_of_one_seed_by_hand() -> None:
    # Reach of 0.03 each way; one seed doubles the variance, so the reach grows by the root of 2.
    verdict, bound = judge(Score(-0.10, -0.13, -0.07, 500))
    assert verdict == "harm"
    assert bound == pytest.approx(-0.10 + 0.03 * np.sqrt(2))
    # Two comparisons: 1.25 % in each tail in place of 2.5 %.
    wider = stats.norm.ppf(0.9875) / stats.norm.ppf(0.975)
    assert judge(Score(-0.10, -0.13, -0.07, 500), 2)[1] == pytest.approx(-0.10 + 0.03 * np.sqrt(2) * wider)


def test_the_bound_of_several_seeds_by_hand() -> None:
    # Examples' variance is (0.02 / 1.96) ** 2; the seeds' squares add up to 2 * 0.01 ** 2 around their mean.
    score = Score(-0.05, -0.07, -0.03, 500, 0.01, (-0.04, -0.05, -0.06))
    examples = (0.02 / stats.norm.ppf(0.975)) ** 2
    spread = (examples + 2 * 0.01**2) / 3
    assert judge(score)[1] == pytest.approx(-0.05 + 0.02 * np.sqrt(1 + spread / 3 / examples))
    restless = Score(-0.05, -0.07, -0.03, 500, 0.15, (-0.20, 0.10, -0.05))
    assert (judge(score)[0], judge(restless)[0]) == ("harm", "unclear")


def test_direction_of_the_metric_decides_what_harm_is() -> None:
    higher, lower = Score(0.10, 0.07, 0.13, 500), Score(-0.10, -0.13, -0.07, 500)
    assert (judge(higher)[0], judge(lower)[0]) == ("gain", "harm")
    assert (judge(higher, lower=True)[0], judge(lower, lower=True)[0]) == ("harm", "gain")
    assert judge(higher, lower=True)[1] == pytest.approx(-judge(lower)[1])


def test_what_cannot_be_known_is_not_called_harm() -> None:
    assert judge(Score(-0.5, -0.6, -0.4, 29))[0] == "unclear"
    assert judge(Score(-0.5, -0.6, -0.4, 30))[0] == "harm"
    assert judge(Score(float("nan"), -0.6, -0.4, 500))[0] == "unclear"
    assert judge(Score(0.0, 0.0, 0.0, 500))[0] == "unclear"


def simulate(harm: float, seed_deviation: float, trials: int, seeds: int) -> float:
    """Share of trials flagged: two systems on 400 examples, each trained seed off its method by a draw of its own."""
    rng = np.random.default_rng(0)
    flagged = 0
    for trial in range(trials):
        hard = rng.normal(size=400)
        sides = []
        for level in (0.8 - harm, 0.8):
            each = [
                hard + 0.5 * rng.normal(size=400) < stats.norm.ppf(level + seed_deviation * rng.normal()) * 1.118
                for _ in range(seeds)
            ]
            sides.append(np.asarray(each, dtype=float))
        gain = paired_bootstrap(*[side.mean(axis=0) for side in sides], resamples=200, confidence=0.95, seed=trial)
        per_seed = tuple((sides[0] - sides[1]).mean(axis=1)) if seeds > 1 else ()
        score = Score(gain.value, gain.low, gain.high, gain.n, 0.0 if per_seed else None, per_seed)
        flagged += judge(score, 2)[0] == "harm"
    return flagged / trials


@pytest.mark.parametrize("seeds", [1, 3])
def test_false_alarms_are_rarer_than_1_in_20_although_seeds_differ_and_clear_harm_is_found(seeds) -> None:
    # A point of accuracy between two seeds of one method, which is much for 400 examples.
    assert simulate(0.0, 0.01, 300, seeds) <= 0.03
    assert simulate(0.12, 0.01, 100, seeds) >= 0.95
