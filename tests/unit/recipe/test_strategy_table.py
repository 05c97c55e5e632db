"""A strategy is a module and a row in one table: whatever lists strategies derives from that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from nlp_transfer.recipe.shipped import list_shipped
from nlp_transfer.recipe.strategies.table import MODULES, STRATEGIES
from nlp_transfer.strategies import STRATEGIES as TECHNIQUES

ROOT = Path(__file__).parents[3]

MODULE = '''
"""Full fine-tuning under another name."""

from typing import ClassVar, Literal

from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import SCHEDULE, StrategyFacts


class ThrowawayConfig(TechniqueSection):
    """Train every weight, for a test."""

    use_when: ClassVar[str] = "a table that must be derived"

    kind: Literal["throwaway"]


FACTS = StrategyFacts(
    ThrowawayConfig,
    says="every weight again",
    trains="all",
    loads_with="transformers",
    recipe="sentiment/frozen",
    learning_rate=3e-4,
    space=SCHEDULE,
    step=3.0,
    rung=9,
    work=1.0,
    technique="nlp_transfer.recipe.strategies.throwaway",
)


def __getattr__(name):
    """The technique, imported when it is asked for."""
    from nlp_transfer.strategies.base import Strategy
    from nlp_transfer.strategies.full import PullToStart, adapt_full
    from nlp_transfer.recipe.schema import FullConfig

    if name == "STRATEGY":
        return Strategy("throwaway", lambda loaded, _: adapt_full(loaded, FullConfig(kind="full")))
    raise AttributeError(name)
'''

IMPORTED = "    throwaway,\n    zero_shot,\n"

SEEN = """
import sys
from nlp_transfer.cli import main
from nlp_transfer.evidence.advise.candidates import COSTS, plan_recipe
from nlp_transfer.evidence.compare.rungs import choose_rungs
from nlp_transfer.evidence.tune.spaces import build_space
from nlp_transfer.recipe.load import export_json_schema, load_recipe
from nlp_transfer.strategies import STRATEGIES
from tests.contracts.variants import CELLS, VARIANTS

recipe = load_recipe({"strategy": {"kind": "throwaway"}})
assert recipe.training.learning_rate == 3e-4
assert [each.key for each in build_space(recipe)][0] == "training.learning_rate"
assert [rung.name for rung in choose_rungs(None)][-2:] == ["throwaway", "control"]
assert "throwaway" in COSTS
sized = dict(rows=500, classes=2, max_length=32, data=())
assert plan_recipe("throwaway", **sized)[0] == choose_rungs(["throwaway"])[0].strategy.recipe == "sentiment/frozen"
assert "ThrowawayConfig" in export_json_schema()["$defs"]
assert STRATEGIES["throwaway"].kind == "throwaway" and VARIANTS["throwaway"] == {"kind": "throwaway"}
assert len([cell for cell in CELLS if cell[0] == "throwaway"]) >= 9
sys.argv = ["nlp-transfer", "list"]
main()
"""


def run_with(package: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program with another copy of the package, beside these tests."""
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=package, capture_output=True, text=True, check=False)


def test_a_strategy_is_seen_everywhere_after_touching_two_places(tmp_path, tiny_encoder):
    shutil.copytree(ROOT / "nlp_transfer", tmp_path / "nlp_transfer", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folder = tmp_path / "nlp_transfer" / "recipe" / "strategies"
    (folder / "throwaway.py").write_text(MODULE.lstrip(), encoding="utf-8")
    table = (folder / "table.py").read_text(encoding="utf-8")
    changed = table.replace("prompts, distill)", "prompts, distill, throwaway)").replace("    zero_shot,\n", IMPORTED)
    assert changed.count("throwaway") == 2
    (folder / "table.py").write_text(changed, encoding="utf-8")
    seen = run_with(tmp_path, SEEN)
    assert seen.returncode == 0, seen.stderr
    row = next(line for line in seen.stdout.splitlines() if line.strip().startswith("throwaway"))
    assert "Train every weight, for a test." in row
    assert "a table that must be derived" in row


def test_facts_are_whole_and_shipped_recipes_are_of_their_strategy():
    assert set(STRATEGIES) == set(TECHNIQUES)
    assert len(STRATEGIES) == len(MODULES) >= 10
    shipped, num_recipes = list_shipped(), 0
    for kind, facts in STRATEGIES.items():
        assert facts.section.use_when, kind
        assert (facts.learning_rate is None) == (not facts.space or kind == "features"), kind
        for recipe in filter(None, (facts.recipe, facts.recipe_many)):
            num_recipes += 1
            assert recipe in shipped
            assert recipe.endswith(f"/{kind}")
        assert not facts.reserves or facts.reserves in facts.section.model_fields
    assert num_recipes >= 10


def test_readme_lists_the_strategies_of_the_table():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in readme.splitlines() if line.startswith("| `")]
    found = {row[0].strip("| `"): row[2].split(" (")[0] for row in rows if len(row) == 4 and "kind" not in row[0]}
    assert {kind: facts.section.use_when.split(" (")[0] for kind, facts in STRATEGIES.items()} == found
