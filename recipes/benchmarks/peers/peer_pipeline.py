"""Labels of texts with transformers' text-classification pipeline.

Run as a script; prints one line of JSON, and writes the labels to a file where one is named, one a line.
"""

import argparse
import json
import time
from pathlib import Path

from datasets import Dataset
from transformers import pipeline


def read_options() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a model, or its Hub id")
    parser.add_argument("--data", required=True, help="parquet file with a column text")
    parser.add_argument("--out", type=Path, help="file for the labels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--limit", type=int, help="first texts of the table; all where absent")
    return parser.parse_args()


def main() -> None:
    """Load, warm up, and time the rest."""
    options = read_options()
    texts = Dataset.from_parquet(options.data)["text"][: options.limit or None]
    classify = pipeline("text-classification", model=options.model, batch_size=options.batch_size)
    settings = {"truncation": True, "max_length": options.max_length}
    classify(texts[: options.batch_size], **settings)
    started = time.perf_counter()
    answers = classify(texts, **settings)
    seconds = time.perf_counter() - started
    if options.out is not None:
        options.out.write_text("".join(f"{answer['label']}\n" for answer in answers), encoding="utf-8")
    found = {"peer": "pipeline", "texts": len(texts), "texts_per_second": len(texts) / seconds}
    print(json.dumps({**found, "device": classify.device.type}))


if __name__ == "__main__":
    main()
