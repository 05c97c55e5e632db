import dataclasses
import json
import shlex
from itertools import pairwise

import pytest

from nlp_transfer.evidence.advise.candidates import (
    COSTS,
    LEVEL,
    Outlook,
    estimate_seconds,
    plan_recipe,
    rank_candidates,
    read_outlook,
    write_outlook,
)
from nlp_transfer.evidence.advise.gains import PRIOR, Situation
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS


def make_outlook(rows=5000, classes=2, probe=0.8, **more):
    given = {
        "situation": Situation(probe, probe, rows, classes, 1.5),
        "probe_error": 0.01,
        "zero_shot": (0.6, 0.02),
        "rows": {"train": rows, "validation": 200, "test": 400},
        "max_length": 64,
        "slope": 0.01,
        "word_ratio": 1.0,
        "loss_ratio": None,
        "forward_seconds": 0.01,
        "layers": None,
        "data": ("data.path=my reviews.csv",),
    }
    return Outlook(**{**given, **more})


@pytest.mark.parametrize("kind", list(COSTS))
@pytest.mark.parametrize("classes", [3, 77])
@pytest.mark.parametrize("rows", [64, 500, 5000])
def test_every_command_is_a_valid_recipe_of_its_strategy(kind, classes, rows):
    outlook = make_outlook(rows, classes, layers=(3, -1))
    recipe, overrides, epochs = plan_recipe(
        kind, rows=rows, classes=classes, max_length=64, data=outlook.data, layers=outlook.layers
    )
    loaded = load_recipe(recipe, overrides)
    assert loaded.strategy.kind == kind
    assert loaded.data.path == "my reviews.csv"
    assert loaded.data.max_length == 64
    assert loaded.data.shots is None
    if epochs:
        assert loaded.training.epochs == epochs
        assert loaded.training.learning_rate > 0
    if kind == "features":
        assert loaded.strategy.layers == [3, -1]
    if kind == "zero_shot":
        assert loaded.strategy.descriptions == {}


def test_the_command_line_is_what_a_shell_reads_as_the_overrides():
    found = rank_candidates(make_outlook())
    for candidate in found:
        words = shlex.split(candidate.command)
        assert words[:3] == ["nlp-transfer", "run", candidate.recipe]
        assert tuple(words[3:]) == candidate.overrides
        assert load_recipe(words[2], words[3:]).report.output_dir == f"runs/advised-{candidate.kind}"
    assert len(found) == 4


def test_shots_that_were_asked_for_stay():
    shots = plan_recipe("few_shot", rows=64, classes=8, max_length=64, data=["data.path=a.csv", "data.shots=8"])[1]
    assert load_recipe("topic/few_shot", shots).data.shots == 8


def test_much_data_is_fine_tuned_and_a_handful_is_not(monkeypatch):
    # Whatever was measured since: the rule of thumb itself.
    monkeypatch.setattr("nlp_transfer.evidence.advise.gains.GAINS", PRIOR)
    assert rank_candidates(make_outlook(20_000))[0].kind in ("full", "lora", "layerwise")
    few = rank_candidates(make_outlook(4))
    assert few[0].kind == "few_shot"
    assert {candidate.kind for candidate in few} == set(COSTS)
    kinds = [candidate.kind for candidate in few]
    assert kinds.index("features") < kinds.index("full")
    assert {"few_shot", "zero_shot"}.isdisjoint(c.kind for c in rank_candidates(make_outlook(20_000)))


def test_zero_shot_is_ranked_by_what_was_measured():
    assert rank_candidates(make_outlook(16, zero_shot=(0.99, 0.01)))[0].kind == "zero_shot"
    zero = next(c for c in rank_candidates(make_outlook(16)) if c.kind == "zero_shot")
    assert (zero.expected, zero.low, zero.high) == (0.6, pytest.approx(0.5608), pytest.approx(0.6392))
    assert zero.gain == pytest.approx(-0.2)
    assert all(c.kind != "zero_shot" for c in rank_candidates(make_outlook(16, zero_shot=None)))


def test_candidates_fall_in_score_and_the_cheaper_leads_where_level():
    for rows in (16, 100, 500, 5000, 50_000):
        found = rank_candidates(make_outlook(rows))
        for first, second in pairwise(found):
            assert first.expected >= second.expected - LEVEL
            assert first.expected > second.expected or first.seconds <= second.seconds
        assert all(0 <= c.low <= c.expected <= c.high <= 1 for c in found)
    # No errors are left: all strategies are level, and the cheapest comes first.
    perfect = rank_candidates(make_outlook(5000, probe=1.0))
    assert perfect[0].kind == "features"


def test_an_outlook_ranks_alike_after_json():
    for outlook in (make_outlook(16, layers=(3, -1)), make_outlook(zero_shot=None, loss_ratio=1.5)):
        again = read_outlook(json.loads(json.dumps(write_outlook(outlook))))
        assert again == outlook
        assert rank_candidates(again) == rank_candidates(outlook)


def test_seconds_count_passes_over_every_split():
    rows = {"train": 100, "validation": 10, "test": 20}
    # full: 100 * 3 * 2 steps, validation after both passes and in the end, test once.
    assert estimate_seconds("full", forward_seconds=0.01, rows=rows, epochs=2) == pytest.approx(6.0 + 0.3 + 0.2)
    assert estimate_seconds("features", forward_seconds=0.01, rows=rows, epochs=0) == pytest.approx(1.3)
    assert estimate_seconds("layerwise", forward_seconds=0.01, rows=rows, epochs=2) == pytest.approx(0.5 + 3 + 0.5)
    order = ["zero_shot", "features", "layerwise", "lora", "full"]
    seconds = [estimate_seconds(kind, forward_seconds=0.01, rows=rows, epochs=3) for kind in order[2:]]
    assert seconds == sorted(seconds)


def test_the_rule_of_thumb_is_said_in_words():
    def say(outlook, kind):
        return " ".join(next(c for c in rank_candidates(outlook) if c.kind == kind).reasons)

    assert "examples a class are much, and the texts are like" in say(make_outlook(), "layerwise")
    assert "training the top is enough" in say(make_outlook(), "layerwise")
    assert "all layers should move" in say(make_outlook(word_ratio=2.0), "full")
    assert "all layers should move" in say(make_outlook(loss_ratio=2.0), "full")
    assert "Pretraining further" in say(make_outlook(64, word_ratio=2.0), "full")
    assert "middle and the last layer" in say(make_outlook(layers=(3, -1)), "features")
    assert "easily spoiled" in say(make_outlook(64), "full")


def test_every_candidate_is_a_strategy_and_has_a_cost():
    assert set(COSTS) <= set(STRATEGY_CONFIGS)
    assert all(dataclasses.astuple(cost) >= (0.0, 0.0) for cost in COSTS.values())


def test_nothing_is_promised_of_what_the_encoder_cannot_see():
    seen = rank_candidates(make_outlook(64, probe=0.5))
    blind = make_outlook(64, probe=0.5, blind=1.0, is_carried=True, reader="owner/reads-it")
    half = {c.kind: c for c in rank_candidates(dataclasses.replace(blind, blind=0.5))}
    found = {c.kind: c for c in rank_candidates(blind)}
    num_gains = 0
    for candidate in seen:
        if candidate.gain > 0 and candidate.kind not in ("zero_shot", "features"):
            num_gains += 1
            assert half[candidate.kind].gain == pytest.approx(candidate.gain / 2)
            assert found[candidate.kind].gain == 0.0
            assert "No training brings back what the tokenizer does not know." in found[candidate.kind].reasons
        elif candidate.gain < 0 and candidate.kind != "zero_shot":
            assert found[candidate.kind].gain == candidate.gain
    assert num_gains >= 2
    assert found["zero_shot"].expected == 0.6
    lead = found["full"].reasons[0]
    assert "the encoder does not know what tells the classes apart in 100% of the texts" in lead
    assert "owner/reads-it would read them" in lead
    unseen = rank_candidates(dataclasses.replace(blind, is_carried=False))[0].reasons[0]
    assert "does not know any token of 100% of the texts" in unseen


def test_no_candidate_passes_the_ceiling():
    found = rank_candidates(make_outlook(20_000, probe=0.5, ceiling=0.52))
    assert max(c.expected for c in found) <= 0.52 + 1e-9
    assert max(c.expected for c in rank_candidates(make_outlook(20_000, probe=0.5))) > 0.55
    # A probe that is above it by chance stays as it is.
    assert max(c.expected for c in rank_candidates(make_outlook(20_000, probe=0.5, ceiling=0.4))) == 0.5


def test_advice_of_before_is_ranked_as_it_was():
    written = write_outlook(make_outlook())
    for key in ("blind", "is_carried", "reader", "ceiling"):
        del written["outlook"][key]
    assert read_outlook(json.loads(json.dumps(written))) == make_outlook()
