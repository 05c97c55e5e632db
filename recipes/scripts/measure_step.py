"""What one training step on a CPU costs, and what each way to make it cheaper saves.

The same encoder takes a step in every way, in turns; the table says milliseconds, as medians.

    python recipes/scripts/measure_step.py --length 16 --threads 1
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch
from transformers import PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.fast.attention import attend_in_parts
from nlp_transfer.engine.fast.dropout import cheap_dropout
from nlp_transfer.engine.fast.vocabulary import ReachedVocabulary
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.trim import read_first_token
from nlp_transfer.recipe.schema import EncoderConfig

CLASSES = 77
"""Classes of the head."""

WAYS = ("plain", "last layer trimmed", "reached embeddings", "cheap masks", "attention in parts")
"""Each way has what those before it have."""


def build_step(model: PreTrainedModel, ways: int, rows: int, length: int) -> Callable[[], float]:
    """Give a function that takes one step on made-up tokens with the first ways, and says its seconds."""
    model = copy.deepcopy(model).train()
    embedding = model.get_input_embeddings()
    # As large a part of the vocabulary as a small set of questions holds.
    words = (embedding.num_embeddings // 30, embedding.num_embeddings // 9)
    if ways >= 2:
        kept = torch.tensor(sorted({embedding.padding_idx, *range(*words)}))
        ReachedVocabulary(embedding, kept, "word embeddings")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    tokens, mask = torch.randint(*words, (rows, length)), torch.ones(rows, length, dtype=torch.int64)
    mask[0, -1] = 0
    labels = torch.randint(CLASSES, (rows,))

    def step() -> float:
        started = time.perf_counter()
        with ExitStack() as stack:
            for number, way in enumerate((read_first_token, None, cheap_dropout, attend_in_parts), start=1):
                if way is not None and ways >= number:
                    stack.enter_context(way(model))
            logits = model(input_ids=tokens, attention_mask=mask).logits
            torch.nn.functional.cross_entropy(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return step


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm-l6")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=16, help="tokens a row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    labels = LabelSpace("classification", tuple(map(str, range(CLASSES))))
    model = load_encoder(EncoderConfig(name=options.encoder), labels, seed=0).model
    steps = [build_step(model, number, options.rows, options.length) for number in range(len(WAYS))]
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(options.repeats + 2):
        for kept, step in zip(times, steps, strict=True):
            kept.append(step())
    medians = [1000 * statistics.median(kept[2:]) for kept in times]
    print(f"{options.rows} rows of {options.length} tokens, {options.threads} threads")
    for way, median, kept in zip(WAYS, medians, times, strict=True):
        low, high = 1000 * min(kept[2:]), 1000 * max(kept[2:])
        print(f"{way:20} {median:8.1f} ms ({low:.1f} to {high:.1f})  {medians[0] / median:.2f} times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
