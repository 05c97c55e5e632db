import numpy as np
import pytest
from scipy import stats

from nlp_transfer.contracts import Score
from nlp_transfer.evaluation.harm import judge_gain
from nlp_transfer.evaluation.intervals import paired_bootstrap


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
