"""Time a classifier on the texts of a file: what a suite holds against a pipeline.

Run as ``python -m nlp_transfer.benchmarks.prediction``; prints one line of JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from nlp_transfer.classifier import Classifier
from nlp_transfer.data.tables import read_table
from nlp_transfer.engine.machine import measure_peak_memory

__all__ = ["main"]


def main() -> None:
    """Load a model, name the label of every text, and say how long it took, loading left out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True, help="folder of a model")
    parser.add_argument("--data", required=True, help="file with a column text")
    parser.add_argument("--out", required=True, help="file for the labels, one a line")
    # A pass without padding is bounded by its tokens: more texts only fill it.
    parser.add_argument("--batch-size", type=int, default=256, help="most texts in one forward pass")
    options = parser.parse_args()
    texts = read_table(options.data)["text"][:]
    classifier = Classifier.from_pretrained(options.model)
    # What is made at the first call is not what is measured.
    classifier.predict(texts[: options.batch_size], batch_size=options.batch_size)
    started = time.perf_counter()
    labels = classifier.predict(texts, batch_size=options.batch_size)
    seconds = time.perf_counter() - started
    Path(options.out).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    peak = measure_peak_memory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    found = {"texts": len(texts), "texts_per_second": len(texts) / seconds, "peak_memory_bytes": peak}
    sys.stdout.write(json.dumps({"peer": "nlp_transfer", **found}) + "\n")


if __name__ == "__main__":
    main()
