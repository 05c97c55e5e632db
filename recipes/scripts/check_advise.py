"""Measure what `nlp-transfer advise` is worth: regret of its first choice, and the table of gains behind it.

Every cell is a data set, a count of train rows and a seed, which draws the rows. In each the advice is asked for and
the whole ladder is run; both stay on disk, so the same command goes on after being broken off. A set that has more
classes than there are pairs of rows keeps the first ones by name.

    python recipes/scripts/check_advise.py --data sets/ --set imdb:64:5 --set ag_news:64:5 --set ag_news:500:1 --fit
    python recipes/scripts/check_advise.py --data sets/ --set sst2 --set trec --rows 64 --seeds 0 1 2 3 4 --report

`--fit` prints GAINS and RESIDUALS for nlp_transfer/evidence/advise/gains.py, and what several pulls towards the
prior lose on sets that are left out in turn; `--report` prints the regret. Do not fit on the sets that are reported.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nlp_transfer as nt
from nlp_transfer.evidence.advise.candidates import COSTS, estimate_seconds, plan_recipe, rank_candidates, read_outlook
from nlp_transfer.evidence.advise.gains import Situation, fit_gains
from nlp_transfer.publishing.artifact import write_atomically

RESAMPLES = 1000
"""Of the paired interval of a regret."""

SPREADS = (0.02, 0.05, 0.1, 0.15, 0.3)
"""Of the coefficients around the prior; `--fit` tries each."""

Cell = tuple[str, int, int]
"""Data set, rows of train, seed."""

Measured = tuple[Cell, dict[str, Any], dict[str, dict[str, Any]]]
"""A cell, its advice, and its ladder by kind of strategy."""


@dataclass(frozen=True)
class Regret:
    """What the first choices of a set and size lose.

    Attributes:
        choices: Kind of strategy that was advised, a seed.
        chosen: Accuracy that they reach on average.
        best: Kind of strategy that does best.
        reached: Its accuracy.
    """

    choices: list[str]
    chosen: float
    best: str
    reached: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.reached - self.chosen


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


def measure(options: argparse.Namespace) -> Iterator[Measured]:
    """Every cell with its advice and its ladder."""
    for cell in list_cells(options.set, options.rows, options.seeds):
        tables = load_cell(options, cell)
        advice = find_advice(options, cell, tables)
        ladder = {kind: run_strategy(options, cell, kind, tables, advice) for kind in options.strategy}
        scores = ", ".join(f"{kind} {record['accuracy']:.3f}" for kind, record in ladder.items())
        print(f"{cell[0]} {cell[1]} rows, seed {cell[2]}: {scores}", flush=True)
        yield cell, advice, ladder


def list_cells(sets: Sequence[str], rows: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """Every set with every size and seed, or with its own: ``imdb:64:3`` is 64 rows with three seeds."""
    cells = []
    for text in sets:
        name, _, own = text.partition(":")
        size, _, count = own.partition(":")
        own_seeds = range(int(count)) if count else seeds
        cells += [(name, most, seed) for most in ([int(size)] if size else rows) for seed in own_seeds]
    return cells


def read_gains(cells: Sequence[Measured]) -> list[tuple[Situation, dict[str, float]]]:
    """What every strategy brought over features, beside the situation."""
    known = []
    for _, advice, ladder in cells:
        if "features" in ladder:
            base = ladder["features"]["accuracy"]
            gains = {kind: record["accuracy"] - base for kind, record in ladder.items() if kind != "features"}
            known.append((Situation(**advice["situation"]), gains))
    return known


def measure_regret(group: Sequence[Measured], table: Mapping[str, Sequence[float]] | None = None) -> Regret:
    """What the first choices of one set and size lose against the strategy that does best there, over seeds."""
    ladders = [ladder for _, _, ladder in group]
    kinds = [kind for kind in ladders[0] if all(kind in ladder for ladder in ladders)]
    means = {kind: float(np.mean([ladder[kind]["accuracy"] for ladder in ladders])) for kind in kinds}
    best = max(means, key=lambda kind: means[kind])
    choices = [choose(advice, ladder, table) for _, advice, ladder in group]
    chosen = float(np.mean([ladder[choice]["accuracy"] for ladder, choice in zip(ladders, choices, strict=True)]))
    return Regret(choices, chosen, best, means[best])


def group_cells(cells: Sequence[Measured]) -> dict[tuple[str, int], list[Measured]]:
    """Cells by set and size."""
    groups: dict[tuple[str, int], list[Measured]] = {}
    for measured in cells:
        groups.setdefault(measured[0][:2], []).append(measured)
    return groups


def name_family(cell: Cell) -> str:
    """The first word of a set's name: sets of the same texts begin alike, and are left out together."""
    return cell[0].split("_")[0]


def fit(cells: Sequence[Measured]) -> None:
    """Print the tables that outcomes make of the prior, and how far each pull towards it is trusted."""
    print("\nspread of the coefficients, and mean and largest regret of sets that were left out:")
    for spread in SPREADS:
        regrets = []
        for family in sorted({name_family(cell) for cell, _, _ in cells}):
            kept = [measured for measured in cells if name_family(measured[0]) != family]
            table = fit_gains(read_gains(kept), spread=spread)[0]
            held = [measured for measured in cells if name_family(measured[0]) == family]
            regrets += [measure_regret(group, table).value for group in group_cells(held).values()]
        print(f"{spread:g}: {np.mean(regrets):.4f}, {max(regrets):.3f} ({len(regrets)} sets and sizes)")
    known = read_gains(cells)
    table, residuals = fit_gains(known)
    print(f"\nfitted to {len(known)} cells")
    print("GAINS: dict[str, tuple[float, ...]] = {")
    for kind, coefficients in table.items():
        print(f'    "{kind}": {coefficients},')
    print(f"}}\nRESIDUALS: dict[str, float] = {residuals}")


def choose(
    advice: dict[str, Any], ladder: dict[str, dict[str, Any]], table: Mapping[str, Sequence[float]] | None = None
) -> str:
    """The first strategy that was measured, by a table of gains; by the one as it is now where absent."""
    return next(row.kind for row in rank_candidates(read_outlook(advice), table) if row.kind in ladder)


def read_hits(record: dict[str, Any]) -> np.ndarray:
    """Which test rows were right, 0 or 1, shape (N,)."""
    return np.array([hit == "1" for hit in record["hits"]], dtype=np.float64)


def report(cells: Sequence[Measured]) -> None:
    """Print the regret of every set and size, over seeds together, and the mean."""
    print("\n| set | rows | seeds | first choice | accuracy | best | accuracy | regret | paired 95 % | advice, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    regrets, is_bad = [], 0
    for (name, rows), group in group_cells(cells).items():
        found = measure_regret(group)
        gaps_N = np.mean(
            [
                read_hits(ladder[found.best]) - read_hits(ladder[choice])
                for (_, _, ladder), choice in zip(group, found.choices, strict=True)
            ],
            axis=0,
        )
        draws = np.random.default_rng(0).integers(0, len(gaps_N), (RESAMPLES, len(gaps_N)))
        low, high = np.percentile(gaps_N[draws].mean(axis=1), [2.5, 97.5])
        regrets.append(found.value)
        is_bad += found.value > 0.04 and low > 0
        seconds = max(float(advice["seconds"]) for _, advice, _ in group)
        named = "/".join(f"{kind} {found.choices.count(kind)}" for kind in dict.fromkeys(found.choices))
        print(
            f"| {name} | {rows} | {len(group)} | {named} | {found.chosen:.3f} | {found.best} | {found.reached:.3f} | "
            f"{found.value:.3f} | [{low:.3f}, {high:.3f}] | {seconds:.0f} |"
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
    parser.add_argument("--set", action="append", required=True, help="NAME, NAME:ROWS or NAME:ROWS:SEEDS")
    parser.add_argument("--rows", type=int, action="append", default=[], help="train rows; all where there are fewer")
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
