import numpy as np
import pytest

from nlp_transfer.evidence.advise.gains import (
    GAINS,
    PRIOR,
    RESIDUALS,
    Situation,
    describe_situation,
    expect_gain,
    fit_gains,
)


def make_situation(rows, classes=2, probe=0.8, tfidf=0.75, distance=1.5):
    return Situation(probe=probe, tfidf=tfidf, rows=rows, classes=classes, distance=distance)


def draw_cells(table, count=200, seed=0):
    generator = np.random.default_rng(seed)
    cells = []
    for _ in range(count):
        situation = make_situation(
            int(2 ** generator.uniform(5, 13)),
            int(generator.integers(2, 80)),
            generator.uniform(0.4, 0.9),
            generator.uniform(0.3, 0.9),
            generator.uniform(0, 2),
        )
        gains = {
            kind: float(describe_situation(situation) @ np.array(values)) * (1 - situation.probe)
            for kind, values in table.items()
        }
        cells.append((situation, gains))
    return cells


def test_the_rule_of_thumb_holds_in_the_prior():
    little, much = make_situation(2 * 2), make_situation(2 * 2000)
    assert expect_gain("full", little, PRIOR) < expect_gain("layerwise", little, PRIOR) < 0
    assert expect_gain("few_shot", little, PRIOR) > 0
    assert expect_gain("full", much, PRIOR) > expect_gain("layerwise", much, PRIOR) > 0
    near, far = make_situation(4000, distance=0.0), make_situation(4000, distance=2.0)
    gaps = [expect_gain("full", each, PRIOR) - expect_gain("layerwise", each, PRIOR) for each in (near, far)]
    assert gaps[0] < gaps[1]
    assert expect_gain("features", much) == 0.0


def test_gains_are_shares_of_the_errors_that_are_left():
    gains = [expect_gain("full", make_situation(4000, probe=probe, tfidf=probe), PRIOR) for probe in (0.6, 0.8, 1.0)]
    assert gains[0] == pytest.approx(2 * gains[1])
    assert gains[2] == 0.0
    assert expect_gain("full", make_situation(4000), {"full": (50.0, 0, 0, 0, 0)}) == pytest.approx(0.6 * 0.2)


def test_the_fit_finds_coefficients_that_were_planted():
    planted = {kind: tuple(np.array(values) + 0.1) for kind, values in PRIOR.items()}
    table, residuals = fit_gains(draw_cells(planted, count=2000))
    for kind, values in planted.items():
        assert table[kind] == pytest.approx(values, abs=0.02)
        assert residuals[kind] == 0.01


def test_few_cells_move_the_prior_little_and_none_do_not():
    cells = draw_cells({kind: tuple(np.array(values) + 0.1) for kind, values in PRIOR.items()}, count=1)
    table, residuals = fit_gains(cells)
    assert residuals == RESIDUALS
    (situation, gains), compared = cells[0], 0
    for kind, gain in gains.items():
        # Between what was thought and what was seen.
        assert expect_gain(kind, situation, PRIOR) < expect_gain(kind, situation, table) < gain + 1e-3
        compared += 1
    assert compared == len(PRIOR)
    assert fit_gains([]) == (PRIOR, RESIDUALS)


def test_a_strategy_that_a_cell_lacks_keeps_its_prior():
    cells = [(situation, {"full": gains["full"] + 0.05}) for situation, gains in draw_cells(PRIOR, count=30)]
    table, residuals = fit_gains(cells)
    assert table["lora"] == PRIOR["lora"]
    assert table["full"] != PRIOR["full"]
    assert residuals["lora"] == RESIDUALS["lora"]


def test_residuals_grow_with_what_the_situation_does_not_explain():
    generator = np.random.default_rng(1)
    cells = [
        (situation, {"full": gains["full"] + generator.normal(scale=0.05)})
        for situation, gains in draw_cells(PRIOR, 60)
    ]
    assert fit_gains(cells)[1]["full"] == pytest.approx(0.05, rel=0.4)


def test_every_table_has_the_same_strategies_and_figures():
    assert GAINS.keys() == PRIOR.keys() == RESIDUALS.keys()
    assert {len(values) for table in (PRIOR, GAINS) for values in table.values()} == {5}
