"""Measure time and memory of `load -> encode -> batches` for tables of made-up short texts.

    python recipes/scripts/measure_data_scale.py --rows 10000 100000 1000000

Every size runs in a process of its own, with empty caches, so that the peak is that size's alone. Prints a table, and
one line of JSON for each size.
"""

import argparse
import csv
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "the a this that our their was felt seemed looked and but very rather quite today again with without for in on "
    "story hotel phone meal room actor waiter battery garden street screen soup film night morning price service "
    "awful boring broken cold rude bright charming fresh lovely superb slow loud tiny warm kind odd late early"
)


def write_table(path: Path, num_rows: int) -> None:
    """Write a csv of labelled texts of 4 to 18 words, all different."""
    generator, vocabulary = random.Random(0), WORDS.split()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(num_rows):
            words = generator.choices(vocabulary, k=generator.randint(4, 18))
            writer.writerow([f"{' '.join(words)} {row}", generator.choice(["bad", "good"])])


def measure(path: Path, encoder: str, batch_size: int) -> dict[str, float]:
    """Run the stages in this process; returns their seconds and the peak memory in bytes."""
    import numpy as np

    from nlp_transfer.data.batches import Collator, plan_epoch, split_window
    from nlp_transfer.data.encode import encode_splits
    from nlp_transfer.data.load import load_splits
    from nlp_transfer.models.encoder import load_tokenizer
    from nlp_transfer.models.resolve import resolve_encoder
    from nlp_transfer.recipe.schema import DataConfig, EncoderConfig, TaskConfig

    clock = [time.perf_counter()]
    data = DataConfig(path=str(path))
    splits = load_splits(data, TaskConfig(), seed=0)
    clock.append(time.perf_counter())
    tokenizer = load_tokenizer(resolve_encoder(EncoderConfig(name=encoder)))
    prepared = encode_splits(splits, tokenizer, data)
    clock.append(time.perf_counter())
    train, collate = prepared.splits["train"], Collator(prepared.pad, prepared.padding_side)
    seen, num_real, num_padded = np.zeros(train.num_examples, dtype=np.int64), 0, 0
    for window in plan_epoch(train.lengths, batch_size=batch_size, seed=0, epoch=0):
        for part in split_window(window, train.lengths):
            batch = collate(train, part)
            seen[part] += 1
            num_real += int(batch["attention_mask"].sum())
            num_padded += batch["input_ids"].numel()
    clock.append(time.perf_counter())
    if not (seen == 1).all() or num_real != int(train.lengths.sum()):
        raise SystemExit("batches: expected every training example and token once.")
    load, encode, batches = (round(after - before, 2) for before, after in itertools.pairwise(clock))
    return {
        "load_seconds": load,
        "encode_seconds": encode,
        "batches_seconds": batches,
        "train_tokens": num_real,
        "padding_share": round(1 - num_real / num_padded, 4),
        # Linux counts in KiB, macOS in bytes.
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def main() -> int:
    """Measure every size and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--encoder", default="minilm-l6", help="whose tokenizer is used")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table is not None:
        print(json.dumps(measure(options.table, options.encoder, options.batch_size)))
        return 0
    print(f"{'rows':>10} {'load s':>8} {'encode s':>9} {'batches s':>10} {'total s':>8} {'peak MiB':>9}")
    records = []
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.csv"
            write_table(table, num_rows)
            found = run_alone(table, options.encoder, options.batch_size)
        stages = [found[f"{stage}_seconds"] for stage in ("load", "encode", "batches")]
        records.append({"rows": num_rows, **found})
        print(
            f"{num_rows:>10,} {stages[0]:>8.1f} {stages[1]:>9.1f} {stages[2]:>10.1f} {sum(stages):>8.1f} "
            f"{found['peak_bytes'] / 2**20:>9.0f}",
            flush=True,
        )
    for record in records:
        print(json.dumps(record))
    return 0


def run_alone(table: Path, encoder: str, batch_size: int) -> dict[str, float]:
    """Measure one table in a new process with caches of its own."""
    command = [sys.executable, __file__, "--table", str(table), "--encoder", encoder, "--batch-size", str(batch_size)]
    caches = {"HF_DATASETS_CACHE": str(table.parent / "cache"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(entry for entry in (root, os.environ.get("PYTHONPATH")) if entry)
    done = subprocess.run(
        command, env={**os.environ, **caches, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    raise SystemExit(main())
