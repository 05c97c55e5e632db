"""A finished search: what `tune` returns, and what ``tuning.json`` and ``report.html`` hold."""

from typing import TYPE_CHECKING, Any

from nlp_transfer.contracts import Score
from nlp_transfer.evidence.tune.page import render_tuning
from nlp_transfer.evidence.tune.runner import describe_changes
from nlp_transfer.evidence.tune.study import Tried
from nlp_transfer.figures import format_number
from nlp_transfer.publishing.result import Result
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, Recipe

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["BEST_YAML", "TUNING_JSON", "Tuning"]

TUNING_JSON = "tuning.json"
BEST_YAML = "best.yaml"
MOST_SHOWN = 10
"""Trials that a table of the terminal shows, the best first; chosen."""


class Tuning(Result):
    """One search: its trials, the best recipe, and what it is worth on test; shows itself in terminal and notebook.

    Args:
        record: What ``tuning.json`` holds.
        folder: The folder of the search.

    Example:
        >>> trial = {"index": 0, "state": "complete", "value": 0.9, "changes": {}}
        >>> Tuning({"recipe": Recipe().model_dump(), "best": 0, "trials": [trial], "test": {}}, "runs/tuned")
        Tuning('runs/tuned': 1 of 1 trials complete; nothing that was tried did better than the recipe on validation)
    """

    file = TUNING_JSON
    name = "a finished search"
    missing = "Search with: nlp-transfer tune"
    damaged = "Search again."

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stood."""
        return load_recipe(self.record["recipe"])

    @property
    def best_recipe(self) -> Recipe:
        """The recipe with the values of the best trial."""
        return load_recipe(self.place / BEST_YAML)

    @property
    def metric(self) -> str:
        """The validation figure that chose."""
        return str(self.recipe.training.select_by)

    @property
    def trials(self) -> list[Tried]:
        """Every trial, by its place in the search; the first is the recipe as it stood."""
        return [
            Tried(**{**each, "evaluations": tuple(map(tuple, each.get("evaluations", ())))})
            for each in self.record["trials"]
        ]

    @property
    def default(self) -> Tried:
        """The trial of the recipe as it stood."""
        return self.trials[0]

    @property
    def best(self) -> Tried:
        """The trial that validation chose."""
        return next(each for each in self.trials if each.index == self.record["best"])

    @property
    def importance(self) -> dict[str, float]:
        """Share of the differences between trials that each key explains, largest first."""
        return dict(self.record.get("importance", {}))

    @property
    def gain(self) -> Score | None:
        """Best minus default on test, with its paired interval, in the unit and direction of the metric.

        Over fresh training seeds where these were asked for, else of the seed of the search; None where the best is
        the recipe itself, or test has no labels.
        """
        found = self.record.get("confirmed") or self.record.get("test") or {}
        score = found.get("difference", {}).get(self.metric)
        return None if score is None else Score(**{**score, "per_seed": tuple(score.get("per_seed", ()))})

    def say_verdict(self) -> str:
        """Say in one sentence whether the search was worth it."""
        if self.best.index == 0:
            return "nothing that was tried did better than the recipe on validation"
        if self.default.value is None:
            return f"the recipe itself {self.default.state}; the best is what did best on validation"
        gain = self.gain
        if gain is None:
            return "better than the recipe on validation; test says nothing, as it has no labels"
        value, low, high = (format_number(each, signed=True) for each in (gain.value, gain.low, gain.high))
        figure = f"{self.metric} {value} [{low}, {high}] on {gain.n} test examples"
        worst, best = (-gain.high, -gain.low) if self.metric in LOWER_IS_BETTER else (gain.low, gain.high)
        if worst > 0:
            return f"better than the recipe: {figure}"
        if best < 0:
            return f"better on validation, worse on test: {figure}. Keep the recipe"
        return f"better on validation, no clear difference on test: {figure}"

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is no search."""
        if not record["trials"] or "best" not in record:
            raise ValueError("no trials in it")

    def render(self, *, is_page: bool) -> str:
        """Write it as a page, or as a fragment for a notebook, without scripts."""
        return render_tuning(
            self.rank(),
            self.recipe,
            best=self.best,
            best_recipe=self.best_recipe,
            verdict=self.say_verdict(),
            importance=self.importance,
            notes=self.record.get("notes", []),
            is_page=is_page,
        )

    def __repr__(self) -> str:
        done = sum(each.state == "complete" for each in self.trials)
        return f"Tuning({str(self.folder)!r}: {done} of {len(self.trials)} trials complete; {self.say_verdict()})"

    def __rich__(self) -> "Group":
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        title = Text(f"{len(self.trials)} trials, chosen by {self.metric} on validation")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for heading, side in (
            ("trial", "right"),
            ("validation", "right"),
            ("seconds", "right"),
            ("what it is", "left"),
        ):
            table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
        recipe = self.recipe
        for tried in self.rank()[:MOST_SHOWN]:
            value = tried.state if tried.value is None else format_number(tried.value)
            name = str(tried.index) + (" *" if tried.index == self.best.index else "")
            table.add_row(name, value, f"{tried.seconds:.0f}", Text(describe_changes(tried, recipe)))
        verdict = self.say_verdict()
        lines = [f"{verdict[0].upper()}{verdict[1:]}.", *self.record.get("notes", [])]
        lines.append(
            f"Best recipe: {(self.place / BEST_YAML).as_posix()}; pictures: {self.place.as_posix()}/report.html"
        )
        return Group(table, *(Text(line) for line in lines))

    def rank(self) -> list[Tried]:
        """The trials, the best first; those without a figure last."""
        sign = 1.0 if self.metric in LOWER_IS_BETTER else -1.0
        return sorted(
            self.trials,
            key=lambda each: (each.value is None, sign * (each.value or 0.0) if each.value else 0.0, each.index),
        )
