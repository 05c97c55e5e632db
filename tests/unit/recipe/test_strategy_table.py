"""A strategy is a module and a row in one table: whatever lists strategies derives from that."""

from pathlib import Path

from nlp_transfer.recipe.shipped import list_shipped
from nlp_transfer.recipe.strategies.table import MODULES, STRATEGIES
from nlp_transfer.strategies import STRATEGIES as TECHNIQUES

ROOT = Path(__file__).parents[3]


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
