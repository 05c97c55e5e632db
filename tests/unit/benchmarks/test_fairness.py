"""Both sides of a suite are given the same: rows, examples a batch, passes, tokens a text, encoder."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from nlp_transfer.benchmarks.suite import list_suites, load_suite, narrow_suite
from nlp_transfer.recipe.load import load_recipe

ROOT = Path(__file__).parents[3]
PEERS = ROOT / "recipes" / "benchmarks" / "peers"
FIXED = ROOT.parent / "shared" / "bench"
"""The peers' scripts that lie beside the checkout and are nobody's to change."""


def list_options(script):
    """Options of a script, as it writes them."""
    return set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', script.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def read_trainer_options():
    """Reads the options of the Trainer's script as it would."""
    script = runpy.run_path(str(PEERS / "peer_trainer.py"))

    def read(arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["peer_trainer.py", "--data", "x", "--encoder", "y", *arguments])
            return script["read_options"]()

    return read


@pytest.mark.parametrize("name", ["train_cpu", "frozen_cpu"])
def test_trainer_and_recipe_read_the_same_rows_as_often_in_the_same_batches(name, read_trainer_options):
    suite = load_suite(name)
    for job in suite.jobs:
        ours, peer = (suite.find(job, contender) for contender in ("ours", "trainer"))
        recipe, options = load_recipe(ours.recipe, ours.overrides), read_trainer_options(peer.arguments)
        assert recipe.training.batch_size == options.batch_size == 32
        # The regression on fixed vectors has no passes; the peer's head has.
        assert recipe.training.epochs == options.epochs or recipe.strategy.kind == "features"
        assert recipe.training.max_steps is None
        assert recipe.data.limit == options.limit is not None
        assert recipe.data.max_length == options.max_length
        assert getattr(recipe.strategy, "freeze_layers", None) == (options.freeze_layers or None)
        kinds = {"full": ("full", "layerwise"), "lora": ("lora",), "frozen": ("features",)}
        assert recipe.strategy.kind in kinds[options.strategy]
    lora = load_suite("train_cpu").find("lora", "ours")
    strategy = load_recipe(lora.recipe, lora.overrides).strategy
    # As the script's own LoraConfig has it, and peft's targets of a BERT.
    assert (strategy.rank, strategy.alpha, strategy.dropout) == (8, 16, 0.1)
    assert strategy.targets == ["query", "value"]


def test_pipeline_and_classifier_read_as_much_of_a_text():
    suite = load_suite("predict_cpu")
    for job in suite.jobs.values():
        recipe = load_recipe(job.model.recipe, job.model.overrides)
        # The pipeline cuts at 512, the classifier where its model was trained; phrases are shorter than either.
        assert recipe.data.max_length == 512 or job.data == "sst2"
    assert suite.contenders["pipeline"].arguments == ["--batch-size", "32"]


def test_few_shot_can_be_narrowed_to_one_set_and_draws_as_many_rows_on_both_sides():
    suite = narrow_suite(load_suite("few_shot_cpu"), jobs=["ag_news"])
    assert list(suite.jobs) == ["ag_news"]
    ours, peer = (suite.find("ag_news", name) for name in ("few_shot", "setfit"))
    assert load_recipe(ours.recipe, ours.overrides).data.shots == 8
    assert re.search(r'"--shots", type=int, default=8\b', (PEERS / "peer_setfit.py").read_text(encoding="utf-8"))
    assert "--shots" not in peer.arguments
    # The fixed script scores 2,000 rows at most, so no job may have more.
    assert suite.jobs["ag_news"].rows["test"] == 2000


def test_every_suite_gives_peers_options_they_have():
    seen = set()
    for name in list_suites():
        suite = load_suite(name)
        for job in suite.jobs:
            for contender in suite.contenders:
                held = suite.find(job, contender)
                if held.peer is not None:
                    given = {argument for argument in held.arguments if argument.startswith("--")}
                    assert given <= list_options(PEERS / f"peer_{held.peer}.py"), (name, job, contender)
                    seen.add(held.peer)
    assert {"trainer", "pipeline", "setfit"} <= seen


@pytest.mark.real
@pytest.mark.skipif(not FIXED.is_dir(), reason="no scripts of peers beside the checkout")
def test_the_fixed_scripts_take_the_options_that_ours_take():
    scripts = sorted(path.name for path in FIXED.glob("peer_*.py"))
    assert len(scripts) >= 3
    for name in scripts:
        fixed, shipped = list_options(FIXED / name), list_options(PEERS / name)
        assert len(fixed) >= 5
        assert fixed == shipped
