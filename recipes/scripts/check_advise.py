"""Measure what `nlp-transfer advise` is worth: regret of its first choice, and the table of gains behind it.

Every cell is a data set, a count of train rows and a seed, which draws the rows. In each the advice is asked for and
the whole ladder is run; both stay on disk, so the same command goes on after being broken off. A set that has more
classes than there are pairs of rows keeps the first ones by name.

    python recipes/scripts/check_advise.py --data sets/ --set imdb --set ag_news --rows 64 --rows 500 --fit
    python recipes/scripts/check_advise.py --data sets/ --set sst2 --set trec --rows 64 --seeds 0 1 2 3 4 --report

`--fit` prints GAINS and RESIDUALS for nlp_transfer/evidence/gains.py; `--report` prints the regret. Do not fit on the
sets that are reported.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nlp_transfer as nt
from nlp_transfer.evidence.candidates import COSTS, estimate_seconds, plan_recipe
from nlp_transfer.evidence.gains import Situation, fit_gains
from nlp_transfer.publishing.artifact import write_atomically

RESAMPLES = 1000
"""Of the paired interval of a regret."""

Cell = tuple[str, int, int]
"""Data set, rows of train, seed."""


def draw_rows(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """Draw rows at random, with two of every class before any third where there is room."""
    order = np.random.default_rng(seed).permutation(len(frame))
    labels = frame["label"].to_numpy()[order]
    rank = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    first = np.argsort(rank >= 2, kind="stable") if 2 * len(set(labels)) <= rows else np.arange(len(frame))
    return frame.iloc[np.sort(order[first[:rows]])].reset_index(drop=True)


def load_cell(options: argparse.Namespace, cell: Cell) -> dict[str, pd.DataFrame]:
    """The splits of a cell: validation and test are the same for all seeds, and cut to what time allows."""
    name, rows, seed = cell
    wanted = {"train": (rows, seed), "validation": (options.validation_rows, 0), "test": (options.test_rows, 0)}
    tables: dict[str, pd.DataFrame] = {}
    classes: list[str] = []
    for split, (most, draw) in wanted.items():
        frame = pd.read_parquet(options.data / name / f"{split}.parquet").dropna(subset=["label"])
        # Every class must be in train, and in the same test for every seed.
        classes = classes or sorted(frame["label"].unique())[: rows // 2]
        columns = [column for column in ("text", "text_b", "label") if column in frame]
        tables[split] = draw_rows(frame.loc[frame["label"].isin(classes), columns], most, draw)
    return tables


def keep(place: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write a record, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, json.dumps(record) + "\n")
    return record


def find_advice(options: argparse.Namespace, cell: Cell, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """The advice of a cell, from disk where it is there."""
    place = options.out / "advice" / f"{'-'.join(map(str, cell))}.json"
    if place.is_file():
        return json.loads(place.read_text(encoding="utf-8"))
    return keep(place, nt.advise(tables, encoder=options.encoder, seed=cell[2]).to_json())


def run_strategy(
    options: argparse.Namespace, cell: Cell, kind: str, tables: dict[str, pd.DataFrame], advice: dict[str, Any]
) -> dict[str, Any]:
    """One rung of the ladder, from disk where it is there."""
    place = options.out / "records" / f"{'-'.join(map(str, cell))}-{kind}.json"
    if place.is_file():
        return json.loads(place.read_text(encoding="utf-8"))
    rows = {split: len(table) for split, table in tables.items()}
    layers = next((c["overrides"] for c in advice["candidates"] if c["kind"] == "features"), [])
    recipe, overrides, epochs = plan_recipe(
        kind,
        rows=rows["train"],
        classes=int(advice["situation"]["classes"]),
        max_length=int(advice["encoder"]["max_length"]),
        data=[f"encoder.name={options.encoder}", f"training.seed={cell[2]}"],
    )
    named = [override for override in layers if override.startswith("strategy.layers=")] if kind == "features" else []
    quick = ["evaluation.tfidf=false", "evaluation.resamples=100", "evaluation.worst_errors=0"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        report = nt.run(recipe, [*overrides, *named, *quick], data=tables, output_dir=f"{folder}/run", progress=False)
        found = report.predictions.query("split == 'test'")
    hits = (found["predicted"] == found["label"]).to_numpy()
    expected = estimate_seconds(
        kind, forward_seconds=float(advice["encoder"]["forward_seconds"]), rows=rows, epochs=epochs
    )
    return keep(
        place,
        {
            "accuracy": float(hits.mean()),
            "hits": "".join("1" if hit else "0" for hit in hits),
            "seconds": time.perf_counter() - started,
            "expected_seconds": expected,
        },
    )


def measure(options: argparse.Namespace) -> Iterator[tuple[Cell, dict[str, Any], dict[str, dict[str, Any]]]]:
    """Every cell with its advice and its ladder."""
    for name in options.set:
        for rows in options.rows:
            for seed in options.seeds:
                cell = (name, rows, seed)
                tables = load_cell(options, cell)
                advice = find_advice(options, cell, tables)
                ladder = {kind: run_strategy(options, cell, kind, tables, advice) for kind in options.strategy}
                scores = ", ".join(f"{kind} {record['accuracy']:.3f}" for kind, record in ladder.items())
                print(f"{name} {rows} rows, seed {seed}: {scores}", flush=True)
                yield cell, advice, ladder


def fit(cells: Sequence[tuple[Cell, dict[str, Any], dict[str, dict[str, Any]]]]) -> None:
    """Print the tables that outcomes make of the prior."""
    known = []
    for _, advice, ladder in cells:
        if "features" in ladder:
            base = ladder["features"]["accuracy"]
            gains = {kind: record["accuracy"] - base for kind, record in ladder.items() if kind != "features"}
            known.append((Situation(**advice["situation"]), gains))
    table, residuals = fit_gains(known)
    print(f"\nfitted to {len(known)} cells")
    print("GAINS: dict[str, tuple[float, ...]] = {")
    for kind, coefficients in table.items():
        print(f'    "{kind}": {coefficients},')
    print(f"}}\nRESIDUALS: dict[str, float] = {residuals}")


def choose(advice: dict[str, Any], ladder: dict[str, dict[str, Any]]) -> str:
    """The first strategy of the advice that was measured."""
    return next(row["kind"] for row in advice["candidates"] if row["kind"] in ladder)


def read_hits(record: dict[str, Any]) -> np.ndarray:
    """Which test rows were right, 0 or 1, shape (N,)."""
    return np.array([hit == "1" for hit in record["hits"]], dtype=np.float64)


def report(cells: Sequence[tuple[Cell, dict[str, Any], dict[str, dict[str, Any]]]]) -> None:
    """Print the regret of every set and size, over seeds together, and the mean."""
    print("\n| set | rows | seeds | first choice | accuracy | best | accuracy | regret | paired 95 % | advice, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    regrets, is_bad = [], 0
    for name, rows in dict.fromkeys((cell[0], cell[1]) for cell, _, _ in cells):
        group = [(advice, ladder) for cell, advice, ladder in cells if cell[:2] == (name, rows)]
        kinds = [kind for kind in group[0][1] if all(kind in ladder for _, ladder in group)]
        means = {kind: float(np.mean([ladder[kind]["accuracy"] for _, ladder in group])) for kind in kinds}
        best = max(means, key=lambda kind: means[kind])
        choices = [choose(advice, ladder) for advice, ladder in group]
        gaps_N = np.mean(
            [
                read_hits(ladder[best]) - read_hits(ladder[choice])
                for (_, ladder), choice in zip(group, choices, strict=True)
            ],
            axis=0,
        )
        draws = np.random.default_rng(0).integers(0, len(gaps_N), (RESAMPLES, len(gaps_N)))
        low, high = np.percentile(gaps_N[draws].mean(axis=1), [2.5, 97.5])
        regret = float(gaps_N.mean())
        regrets.append(regret)
        is_bad += regret > 0.04 and low > 0
        chosen = float(
            np.mean([ladder[choice]["accuracy"] for (_, ladder), choice in zip(group, choices, strict=True)])
        )
        seconds = max(float(advice["seconds"]) for advice, _ in group)
        named = "/".join(f"{kind} {choices.count(kind)}" for kind in dict.fromkeys(choices))
        print(
            f"| {name} | {rows} | {len(group)} | {named} | {chosen:.3f} | {best} | {means[best]:.3f} | {regret:.3f} | "
            f"[{low:.3f}, {high:.3f}] | {seconds:.0f} |"
        )
    print(
        f"\n{len(regrets)} cells over {len(cells)} draws: mean regret {np.mean(regrets):.4f}, "
        f"largest {max(regrets):.4f}, above 0.04 with an interval above 0: {is_bad}"
    )
    times = [
        r["seconds"] / r["expected_seconds"] for _, _, ladder in cells for r in ladder.values() if r["expected_seconds"]
    ]
    print(f"seconds over those expected, over {len(times)} runs: median {np.median(times):.2f}")


def main() -> int:
    """Measure what is missing, then print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets, a folder of splits each")
    parser.add_argument("--set", action="append", required=True)
    parser.add_argument(
        "--rows", type=int, action="append", required=True, help="train rows; all where there are fewer"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--strategy", action="append", choices=list(COSTS), help="all where absent")
    parser.add_argument("--validation-rows", type=int, default=200)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--encoder", default="minilm-l6")
    parser.add_argument("--out", type=Path, default=Path("runs/check-advise"))
    parser.add_argument("--fit", action="store_true", help="print the tables of gains")
    parser.add_argument("--report", action="store_true", help="print the regret")
    options = parser.parse_args()
    options.strategy = options.strategy or list(COSTS)
    options.out.mkdir(parents=True, exist_ok=True)
    cells = list(measure(options))
    if options.fit:
        fit(cells)
    if options.report:
        report(cells)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
