"""Whether `compare` keeps its budget, and whether what it recommends is as good as the best of its ladder.

Each table is compared in a fresh process, timed from outside, start of the interpreter included. A recommendation holds
where its test score is within one point of the best, or the paired interval of the difference leaves 0 in.

    python recipes/scripts/measure_compare.py ../shared/data/trec ../shared/data/tweet_emotion --budget 10m
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from nlp_transfer.evidence.clock import parse_budget

OVER = 1.1
"""Share of the budget that may be used."""

POINT = 0.01


def measure(table: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Compare on one table; what came of it."""
    out = Path(arguments.out) / Path(table).name
    command = [sys.executable, "-m", "nlp_transfer", "compare", table, "--encoder", arguments.encoder]
    command += ["--budget", arguments.budget, "--seeds", str(arguments.seeds), "--out", str(out)]
    for name in arguments.rung or []:
        command += ["--rung", name]
    started = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - started
    record = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    chosen = next(row for row in record["rows"] if row["is_recommended"])
    best = next(row for row in record["rows"] if row["is_best"])
    gap = chosen["difference"]
    budget = parse_budget(arguments.budget) or float("inf")
    return {
        "table": Path(table).name,
        "seconds": seconds,
        "kept": seconds <= OVER * budget,
        "rungs": ", ".join(f"{row['rung']} {len(row['seeds'])}" for row in record["rows"]),
        "recommended": chosen["rung"],
        "score": chosen["test"][record["select_by"]]["value"],
        "best": best["rung"],
        "difference": gap,
        "holds": abs(gap["value"]) <= POINT or gap["low"] <= 0 <= gap["high"],
    }


def main() -> int:
    """Measure and print; 1 where a budget was overrun or a recommendation does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", help="files or folders of splits")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--encoder", default="minilm-l6")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rung", action="append", help="only this rung; may be given several times")
    parser.add_argument("--out", default="runs/measure-compare", help="empty, or times mean nothing")
    arguments = parser.parse_args()
    found = [measure(table, arguments) for table in arguments.tables]
    print("| table | seconds | in budget | recommended | test | minus best (interval) | holds | seeds of every rung |")
    print("| --- | ---: | --- | --- | ---: | --- | --- | --- |")
    for each in found:
        gap = each["difference"]
        print(
            f"| {each['table']} | {each['seconds']:.0f} | {'yes' if each['kept'] else 'no'} | {each['recommended']} | "
            f"{each['score']:.3f} | {gap['value']:.3f} ({gap['low']:.3f} to {gap['high']:.3f}), {each['best']} | "
            f"{'yes' if each['holds'] else 'no'} | {each['rungs']} |"
        )
    return 0 if all(each["kept"] and each["holds"] for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
