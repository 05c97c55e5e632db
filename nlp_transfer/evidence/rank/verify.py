"""Whether a ranking holds: the best of it are fine-tuned for a short while."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nlp_transfer.errors import RecipeError, ShapeError
from nlp_transfer.evidence.rank.agreement import measure_agreement
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, Recipe
from nlp_transfer.runs.pipeline import run

__all__ = ["VERIFY_ROWS", "VerifyingRuns", "choose_goal", "verify_encoders"]

VERIFY_ROWS = 2000
"""Train rows of a verifying fine-tune where the recipe names no ``data.limit``; chosen."""


@dataclass(frozen=True)
class VerifyingRuns:
    """How and where encoders are fine-tuned to verify a ranking.

    Attributes:
        recipe: How they are trained; ``data.limit`` is `VERIFY_ROWS` where it names none.
        source: Tables in memory, or None.
        folder: Where runs go.
        rows: Names the rows of the table.
        console: Shows how they go.
    """

    recipe: Recipe
    source: object | None
    folder: Path
    rows: str
    console: Console

    def fine_tune(self, name: str, limit: int) -> Report:
        """Run one encoder's recipe on the first rows of train, or read the run that is there of the same rows."""
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.")
        # A path may hold other rows by now, so a run is found by what it was run on.
        place = self.folder / f"{safe}-{self.rows[:8]}"
        sections = {
            "data": self.recipe.data.model_copy(update={"limit": limit}),
            "encoder": self.recipe.encoder.model_copy(update={"name": name}),
            "report": self.recipe.report.model_copy(update={"output_dir": str(place)}),
        }
        wanted = self.recipe.model_copy(update=sections)
        if (place / "report.json").is_file():
            report = Report.load(place)
            if report.recipe == wanted.model_dump(mode="json"):
                return report
        self.console.print(f"verifying {name}", highlight=False, markup=False, soft_wrap=True)
        return run(wanted, data=self.source, progress=not self.console.quiet, console=self.console)


def choose_goal(recipe: Recipe) -> str:
    """Choose what verification measures: accuracy where the recipe reports it, else its first metric to be raised.

    Args:
        recipe: Its ``evaluation.metrics``.

    Returns:
        A report key.

    Raises:
        RecipeError: There is none.
    """
    metrics = [metric for metric in recipe.evaluation.metrics or [] if metric not in LOWER_IS_BETTER]
    metrics = [metric for metric in metrics if not metric.endswith("_per_class")]
    if not metrics:
        raise RecipeError(
            "evaluation.metrics: expected one that is better the higher it is, to verify by. Add accuracy."
        )
    return "accuracy" if "accuracy" in metrics else metrics[0]


def verify_encoders(rows: Sequence[dict[str, Any]], count: int, runs: VerifyingRuns, goal: str) -> dict[str, Any]:
    """Fine-tune the best of a ranking, note in their rows what came of it, and hold it against the estimators.

    Validation decides which one is named; test is only written down. A run that is finished is not run again, and one
    that was broken off goes on.

    Args:
        rows: Rows of the record, best first; those that are verified get a key ``verified``.
        count: How many.
        runs: How and where.
        goal: Metric.

    Returns:
        Section ``verification`` of the record.
    """
    start = time.perf_counter()
    limit = runs.recipe.data.limit or VERIFY_ROWS
    verified = list(rows[:count])
    for row in verified:
        began = time.perf_counter()
        report = runs.fine_tune(row["name"], limit)
        row["verified"] = {
            split: report.scores[split][goal].value for split in ("validation", "test") if split in report.scores
        } | {"seconds": time.perf_counter() - began}
    best = max(verified, key=lambda row: float(row["verified"]["validation"]))
    return {
        "metric": goal,
        "count": len(verified),
        "limit": limit,
        "epochs": runs.recipe.training.epochs,
        "best": best["name"],
        "agreement": _compare(verified),
        "seconds": time.perf_counter() - start,
    }


def _compare(verified: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Agreement of every estimator that has a figure for all, with validation."""
    measured = [row["verified"]["validation"] for row in verified]
    found = {}
    for estimator in verified[0]["scores"]:
        guessed = [row["scores"][estimator] for row in verified]
        if None in guessed:
            continue
        try:
            found[estimator] = measure_agreement(guessed, measured).to_json()
        except ShapeError:  # A score that is undefined, as of a metric that the split does not allow.
            continue
    return found
