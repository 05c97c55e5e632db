"""What is added as CONTRIBUTING says is seen wherever its like is listed, after touching those places and no others."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

STRATEGY = '''
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

METHOD = '''
"""A method that leaves a fit as it is."""

from typing import ClassVar, Literal

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob


class PlainConfig(TechniqueSection):
    """Change nothing, for a test."""

    use_when: ClassVar[str] = "a list that must be derived"

    kind: Literal["plain"]
    strength: float = 1.0


FACTS = MethodFacts(
    PlainConfig,
    recipe="sentiment/r_drop",
    phase="change",
    trains=("all", "inside"),
    tasks=("classification",),
    is_off=lambda config: config.strength == 0,
    space=(Knob("methods.plain.strength", reach=2.0),),
    technique="nlp_transfer.recipe.methods.plain",
)


def __getattr__(name):
    """The technique, imported when it is asked for."""
    from nlp_transfer.methods.base import Method

    if name == "METHOD":
        return Method("plain", change=lambda config: lambda stage, adapted, material: stage)
    raise AttributeError(name)
'''

COMMAND = '''
"""A command that says a word."""

from typing import Annotated

import typer

__all__ = ["greet"]


def greet(word: Annotated[str, typer.Argument(help="What is said.")]) -> None:
    """Say a word, for a test."""
    from nlp_transfer.terminal import show

    show(word)
'''

EDITS = {
    "recipe/strategies/table.py": (
        ("    prompts,\n    zero_shot,\n", "    prompts,\n    throwaway,\n    zero_shot,\n"),
        ("    distill,\n)", "    distill,\n    throwaway,\n)"),
    ),
    "recipe/methods/table.py": (
        ("mixed_mlm, r_drop, self_training", "mixed_mlm, plain, r_drop, self_training"),
        ("domain_mlm, mixed_mlm)", "domain_mlm, mixed_mlm, plain)"),
    ),
    "recipe/metrics.py": (
        (
            '        Metric("balanced_accuracy"',
            '        Metric("error_rate", CLASSES, lower_is_better=True),\n        Metric("balanced_accuracy"',
        ),
    ),
    "evaluation/metrics/registry.py": (
        (
            '    "accuracy": _accuracy,\n',
            '    "accuracy": _accuracy,\n    "error_rate": lambda tally: 1 - _accuracy(tally),\n',
        ),
    ),
    "commands/app.py": (
        (
            "from nlp_transfer.commands.out_of_scope",
            "from nlp_transfer.commands.greet import greet\nfrom nlp_transfer.commands.out_of_scope",
        ),
        ('    "doctor": doctor,\n', '    "doctor": doctor,\n    "greet": greet,\n'),
    ),
}
"""Lines that are added to files that are there, as CONTRIBUTING names them."""

ADDED = {
    "recipe/strategies/throwaway.py": STRATEGY,
    "recipe/methods/plain.py": METHOD,
    "commands/greet.py": COMMAND,
}

SEEN = """
import json, sys
import numpy as np
from nlp_transfer.cli import main
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.evaluation.scoring import compute_metrics
from nlp_transfer.evidence.advise.candidates import COSTS, plan_recipe
from nlp_transfer.evidence.compare.rungs import choose_rungs
from nlp_transfer.evidence.tune.spaces import build_space
from nlp_transfer.methods import METHODS
from nlp_transfer.publishing.summary import name_metric
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

wrapped = load_recipe({"methods": ["plain"]}, ["methods.plain.strength=0.5"])
assert wrapped.methods[0].strength == 0.5
assert build_space(wrapped)[-1].key == "methods.plain.strength"
assert METHODS["plain"].change is not None
assert "PlainConfig" in export_json_schema()["$defs"]

scored = load_recipe({"evaluation": {"metrics": ["error_rate"]}, "training": {"select_by": "error_rate"}})
assert scored.evaluation.metrics == ["error_rate"] and name_metric("error_rate") == "Error rate"
space, sure = LabelSpace("classification", ("a", "b")), np.array([[0.9, 0.1], [0.8, 0.2]])
assert compute_metrics(np.array([0, 1]), sure, space, ["error_rate"]) == {"error_rate": 0.5}

for arguments in (["list"], ["greet", "--help"], ["greet", "hello"]):
    sys.argv = ["nlp-transfer", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
"""


def copy_package(place: Path, edits: Mapping[str, tuple[tuple[str, str], ...]], added: Mapping[str, str]) -> None:
    """Copy the package and its recipes, with lines and modules added."""
    for name in ("nlp_transfer", "recipes"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    for name, changes in edits.items():
        path = place / "nlp_transfer" / name
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    for name, content in added.items():
        (place / "nlp_transfer" / name).write_text(content.lstrip(), encoding="utf-8")


def test_what_is_added_is_seen_everywhere_after_touching_the_places_that_contributing_names(tmp_path):
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(name in contributing for name in EDITS)
    copy_package(tmp_path, EDITS, ADDED)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    command = [sys.executable, "-c", SEEN]
    seen = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert seen.returncode == 0, seen.stderr
    for kind, says, use_when in (
        ("throwaway", "Train every weight, for a test.", "a table that must be derived"),
        ("plain", "Change nothing, for a test.", "a list that must be derived"),
    ):
        row = next(line for line in seen.stdout.splitlines() if line.strip().startswith(kind))
        assert says in row
        assert use_when in row
    assert "Say a word, for a test." in seen.stdout
    assert seen.stdout.splitlines()[-1] == "hello"
