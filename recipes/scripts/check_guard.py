"""How often the guard against negative transfer is right: planted harm it must find, healthy transfers it must not.

For every seed an encoder is first trained on permuted labels (``sentiment/permuted``) and then on the task. Healthy
are an encoder that was first trained on true labels, and a plain one, in turns. A line a run; what is finished in
OUT is not run again. Exit status 1 where the guard found too little or too much.

    python recipes/scripts/check_guard.py sets/sst2
    python recipes/scripts/check_guard.py sets/sst2 --link-data sets/amazon_domains --seeds 3 --healthy-seeds 4
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_transfer import Report, run

LEAST_FOUND = 0.9
"""Share of planted harm that has to be found."""

MOST_FALSE = 0.05
"""Share of healthy transfers that may be flagged."""


@dataclass
class Case:
    """One transfer to judge."""

    kind: str
    seed: int

    @property
    def is_planted(self) -> bool:
        """Whether harm is what should be found."""
        return self.kind == "planted"


def list_cases(planted: int, healthy: int) -> list[Case]:
    """Planted ones first; then healthy ones, with and without an earlier transfer in turns."""
    cases = [Case("planted", seed) for seed in range(planted)]
    return cases + [Case("linked" if number % 2 == 0 else "plain", number // 2) for number in range(healthy)]


def run_once(recipe: str | dict[str, Any], changes: dict[str, Any], folder: Path) -> Report:
    """Run a recipe, or read what an earlier call left with the same settings."""
    if (folder / "report.json").is_file():
        report = Report.load(folder)
        for key, value in changes.items():
            section, name = key.split(".")
            if report.recipe[section][name] != value:
                sys.exit(
                    f"{folder}: holds a run with {key}={report.recipe[section][name]}, not {value}. Name another --out."
                )
        return report
    return run(recipe, changes, output_dir=folder, progress=False)


def train_link(case: Case, arguments: argparse.Namespace, folder: Path) -> Path:
    """Train the earlier transfer of a case: on permuted labels at a high rate, or as one would."""
    changes: dict[str, Any] = {
        "encoder.name": arguments.encoder,
        "data.path": arguments.link_data or arguments.data,
        "data.limit": arguments.link_limit,
        "data.seed": case.seed,
        "training.seed": case.seed,
    }
    if not case.is_planted:
        changes |= {
            "data.permute_labels": False,
            "training.learning_rate": 1e-4,
            "training.epochs": 3,
            "training.restore_best": True,
        }
    return run_once("sentiment/permuted", changes, folder).folder


def judge(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a case under the guard and say what it found."""
    place = Path(arguments.out) / f"{case.kind}-{case.seed}"
    encoder = arguments.encoder if case.kind == "plain" else str(train_link(case, arguments, place / "link"))
    changes = {
        "encoder.name": encoder,
        "data.path": arguments.data,
        "data.limit": arguments.limit,
        "training.seed": case.seed,
        "training.epochs": arguments.epochs,
        "evaluation.guard": True,
        "evaluation.tfidf": False,
        "evaluation.control_learning_rates": arguments.control_rates,
    }
    started = time.perf_counter()
    record = run_once(arguments.recipe, changes, place / "run").record
    transfer = record["transfer"]
    gains = {found["kind"]: found["gain"][transfer["metric"]] for found in reversed(transfer["comparisons"])}
    return {
        "kind": case.kind,
        "seed": case.seed,
        "flagged": transfer["is_harmful"],
        "kept": transfer["kept"],
        "link": gains.get("link"),
        "control": gains["control"],
        "reasons": transfer["reasons"],
        "seconds": time.perf_counter() - started,
    }


def describe(found: dict[str, Any]) -> str:
    """One line for one case."""
    parts = [f"{found['kind']:<8} seed {found['seed']:<3} {'HARM' if found['flagged'] else 'ok':<5}"]
    for name in ("link", "control"):
        gain = found[name]
        text = "-" if gain is None else f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        parts.append(f"gain over {'no ' + name if name == 'link' else name} {text:<25}")
    return " ".join([*parts, f"kept {found['kept']}, {found['seconds']:.0f} s"])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of splits of the task")
    parser.add_argument("--link-data", help="folder of splits of the earlier transfer; the task's where absent")
    parser.add_argument("--seeds", type=int, default=10, help="planted cases")
    parser.add_argument("--healthy-seeds", type=int, default=20, help="healthy cases")
    parser.add_argument("--limit", type=int, default=300, help="train rows of the task")
    parser.add_argument("--epochs", type=float, default=6.0, help="passes of the task; few rows need several")
    parser.add_argument("--link-limit", type=int, default=1000, help="train rows of the earlier transfer")
    parser.add_argument("--encoder", default="minilm-l6", help="encoder that all start from")
    parser.add_argument("--recipe", default="sentiment/full", help="recipe of the task")
    parser.add_argument(
        "--control-rates", type=float, nargs="+", default=[3e-4], help="rates of the control; one saves time"
    )
    parser.add_argument("--out", default="runs/check-guard", help="folder of the runs")
    return parser.parse_args(arguments)


def main() -> int:
    """Judge every case and hold the rates against what is asked."""
    arguments = parse(sys.argv[1:])
    found = []
    for case in list_cases(arguments.seeds, arguments.healthy_seeds):
        found.append(judge(case, arguments))
        print(describe(found[-1]), flush=True)
    planted = [each["flagged"] for each in found if each["kind"] == "planted"]
    healthy = [each["flagged"] for each in found if each["kind"] != "planted"]
    result = {
        "found": sum(planted),
        "planted": len(planted),
        "false": sum(healthy),
        "healthy": len(healthy),
        "median_seconds": statistics.median(each["seconds"] for each in found) if found else None,
        "cases": found,
    }
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    (Path(arguments.out) / "check_guard.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"planted harm found in {sum(planted)} of {len(planted)} seeds; at least {LEAST_FOUND:.0%} asked")
    print(f"healthy transfers flagged: {sum(healthy)} of {len(healthy)}; at most {MOST_FALSE:.0%} allowed")
    is_right = sum(planted) >= LEAST_FOUND * len(planted) and sum(healthy) <= MOST_FALSE * len(healthy)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
