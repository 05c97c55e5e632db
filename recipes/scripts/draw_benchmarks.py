"""Draw what several benchmark suites found as one picture, for a README.

python recipes/scripts/draw_benchmarks.py runs/benchmark-train_cpu runs/benchmark-frozen_cpu -o benchmarks.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nlp_transfer.benchmarks.picture import draw_alone
from nlp_transfer.benchmarks.summary import ALL_JOBS, find_leaders

OURS = "ours"
"""What the first contender of every suite is called here."""


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Read a suite's rows, its jobs named after it, what averages over them left out."""
    rows = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["rows"]
    leaders, suite = find_leaders(rows), folder.name.removeprefix("benchmark-")
    found = []
    for row in rows:
        if row["job"] != ALL_JOBS:
            name = OURS if row["contender"] == leaders[row["job"]] else row["contender"]
            found.append({**row, "job": f"{suite} {row['job']}", "contender": name})
    return found


def main() -> int:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="what benchmark was given as --out")
    parser.add_argument("--out", "-o", type=Path, default=Path("benchmarks.svg"))
    options = parser.parse_args()
    rows = [row for folder in options.folders for row in read_rows(folder)]
    options.out.write_text(draw_alone(rows) + "\n", encoding="utf-8")
    print(f"wrote {options.out}, {len({row['job'] for row in rows})} jobs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
