"""Measure what methods bring where labels are of one domain and texts of another.

Each variant is trained with the same settings and seeds: on the source alone, with a method that reads the target's
texts, and, as the line above, on the target's own labels. Test holds target rows, and is scored once.

    python recipes/scripts/check_domains.py ../shared/data/amazon_domains --pair books:kitchen --pair electronics:dvd
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
from nlp_transfer.data.sources import open_source
from nlp_transfer.recipe.schema import DataConfig

VARIANTS: dict[str, list[dict[str, Any]] | None] = {
    "source only": [],
    "self_training": [{"kind": "self_training"}],
    "dann": [{"kind": "domain_alignment"}],
    "domain_mlm": [{"kind": "domain_mlm"}],
    "mixed_mlm": [{"kind": "domain_mlm"}, {"kind": "mixed_mlm"}],
    "target labels": None,
}


def keep_domain(path: str, column: str, domain: str) -> dict[str, Dataset]:
    """The rows of one domain, in every split."""
    tables = open_source(DataConfig(path=path), None).tables
    return {
        split: table.select(np.flatnonzero(np.asarray(table[column][:]) == domain)) for split, table in tables.items()
    }


def score(options: argparse.Namespace, pair: str, methods: list[dict[str, Any]] | None, seed: int) -> dict[str, Any]:
    """Train one variant with one seed; gives its accuracy, its seconds and what its methods found."""
    source, target = pair.split(":")
    changes = {
        "training.seed": seed,
        "evaluation.tfidf": False,
        "evaluation.resamples": 100,
        "methods": methods or [],
        **dict(each.split("=", 1) for each in options.overrides),
    }
    settings = {key: json.loads(value) if isinstance(value, str) else value for key, value in changes.items()}
    with tempfile.TemporaryDirectory() as folder:
        if methods is None:
            data: Any = keep_domain(options.data, options.column, target)
        else:
            data = options.data
            settings |= {"data.domain": options.column, "data.source": source, "data.target": target}
        report = nt.run(options.recipe, settings, data=data, output_dir=Path(folder) / "run", progress=False)
        training = report.record["training"]
        return {
            "accuracy": report.scores["test"]["accuracy"].value,
            "seconds": training["seconds"],
            "methods": training.get("methods"),
        }


def main() -> int:
    """Print a line a variant and pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of splits with a column of domains")
    parser.add_argument("overrides", nargs="*", help="dotted keys with JSON values: training.epochs=2")
    parser.add_argument("--pair", action="append", required=True, help="SOURCE:TARGET; several times")
    parser.add_argument("--column", default="domain")
    parser.add_argument("--recipe", default="sentiment/full")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="all where absent")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for pair in options.pair:
        for name in options.variant or VARIANTS:
            found = [score(options, pair, VARIANTS[name], seed) for seed in range(options.seeds)]
            values = np.array([each["accuracy"] for each in found])
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            seconds = np.mean([each["seconds"] for each in found])
            print(f"{pair:24s} {name:16s} {values.mean():.4f} ± {spread:.4f}  {seconds:6.1f} s  {values.round(4)}")
            print(f"    {[each['methods'] for each in found]}" if found[0]["methods"] else "", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
