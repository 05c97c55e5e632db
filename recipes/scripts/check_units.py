"""Train the same regression in several units of its target and show that the unit does not matter.

The targets of a table are brought to 0 to 1, and from there to each unit; texts, splits, seeds and settings stay. The
table says the correlation on test over the seeds, and the squared error over that of train's mean, so that both can be
compared between units; the error in the unit itself stands beside them.

    python recipes/scripts/check_units.py ../shared/cases/D22/unit.csv training.epochs=2 data.max_length=32
    python recipes/scripts/check_units.py reviews.csv --unit 0:5 --unit 0:1000000 --recipe sentiment/full --seeds 1
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

import nlp_transfer as nt
from nlp_transfer.data.load import load_splits
from nlp_transfer.figures import format_number
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

RECIPES = ("sentiment/full", "sentiment/lora", "sentiment/features")
UNITS = ((0.0, 1.0), (0.0, 100.0), (100_000.0, 300_000.0))
"""Smallest and largest target of each unit: shares, percent, money."""


def read_unit(text: str) -> tuple[float, float]:
    """Read the two ends of a unit from ``LOW:HIGH``."""
    low, _, high = text.partition(":")
    return float(low), float(high)


def make_tables(path: str, limit: int | None) -> dict[str, Dataset]:
    """Load a table of texts and numbers once, so that every run has the same splits; targets go from 0 to 1.

    Args:
        path: As ``data.path``.
        limit: Rows of train; all where absent.

    Returns:
        Split name to a table of ``text`` and ``label``.
    """
    splits = load_splits(DataConfig(path=path, limit=limit), TaskConfig(kind="regression"), seed=0)
    numbers = {split: np.asarray(table["label"][:]) for split, table in splits.tables.items()}
    low, high = float(numbers["train"].min()), float(numbers["train"].max())
    return {
        split: Dataset.from_dict({"text": table["text"][:], "label": (numbers[split] - low) / (high - low)})
        for split, table in splits.tables.items()
    }


def convert(tables: dict[str, Dataset], low: float, high: float) -> dict[str, Dataset]:
    """Bring targets from 0 to 1 into a unit."""
    return {
        split: Dataset.from_dict(
            {"text": table["text"][:], "label": low + (high - low) * np.asarray(table["label"][:])}
        )
        for split, table in tables.items()
    }


def check_unit(
    tables: dict[str, Dataset], recipe: str, unit: tuple[float, float], seed: int, overrides: list[str], folder: Path
) -> dict[str, Any]:
    """Run one recipe in one unit with one seed: a row of figures on test."""
    settings = ["task.kind=regression", "evaluation.tfidf=false", "evaluation.resamples=100", f"training.seed={seed}"]
    report = nt.run(recipe, [*settings, *overrides], data=convert(tables, *unit), output_dir=folder, progress=False)
    mean = report.record["baselines"]["majority"]["test"]["mse"]["value"]
    scores = {metric: score.value for metric, score in report.scores["test"].items()}
    return {
        "recipe": recipe,
        "unit": list(unit),
        "seed": seed,
        "rows": report.scores["test"]["mse"].n,
        "seconds": report.record["training"]["seconds"],
        **scores,
        "mse_over_mean": scores["mse"] / mean,
    }


def main() -> int:
    """Run every recipe in every unit with every seed and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="table of texts and numbers")
    parser.add_argument("overrides", nargs="*", help="key=value pairs for every run")
    parser.add_argument("--recipe", action="append", help=f"shipped name or file; {', '.join(RECIPES)} where absent")
    parser.add_argument("--unit", action="append", type=read_unit, help="LOW:HIGH of the target, several times")
    parser.add_argument("--limit", type=int, default=None, help="rows of train")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--out", type=Path, default=None, help="JSON with every figure")
    options = parser.parse_args()
    tables, found = make_tables(options.data, options.limit), []
    print(f"{'recipe':<20}{'unit':<22}{'Pearson':>16}{'MSE / mean':>18}{'MSE':>12}", flush=True)
    for recipe in options.recipe or RECIPES:
        for low, high in options.unit or UNITS:
            with tempfile.TemporaryDirectory() as folder:
                own = [
                    check_unit(tables, recipe, (low, high), seed, options.overrides, Path(folder) / str(seed))
                    for seed in range(options.seeds)
                ]
            found += own
            cells = []
            for key in ("pearson", "mse_over_mean"):
                values = [row[key] for row in own]
                spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.4f}{spread}")
            error = format_number(float(np.mean([row["mse"] for row in own])))
            print(f"{recipe:<20}{f'{low:g} to {high:g}':<22}{cells[0]:>16}{cells[1]:>18}{error:>12}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
