"""What this machine's processor is fast at, measured once and kept."""

import contextlib
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import constants

from nlp_transfer.engine.dropout import cheap_dropout
from nlp_transfer.engine.masters import Masters

__all__ = ["compare_formats"]

PAIRS = 5
"""Steps timed in each format, in turns; chosen."""

PATIENCE = 2.0
"""Times as long as a float32 step after which a first bf16 step settles it; chosen."""


@functools.cache
def compare_formats() -> float:
    """Say how many times as fast a training step on this CPU is in bf16 as in float32.

    A small BERT takes a few steps in each, in turns. The answer is kept in ``nlp_transfer/machine.json`` under
    ``HF_HOME``, by processor, threads and version of torch; where that cannot be written, the next process measures
    again.

    Returns:
        Above 1 where bf16 is the faster.
    """
    place = Path(constants.HF_HOME) / "nlp_transfer" / "machine.json"
    key = f"bf16 training, {_name_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    known = _read(place)
    if key not in known:
        known[key] = round(_measure(), 3)
        _write(place, known)
    return known[key]


def _name_processor() -> str:
    """The processor's own name where torch can tell it, else its kind."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(found.get("cpu_name") or platform.processor() or platform.machine())


def _measure() -> float:
    """Time steps in both formats."""
    with torch.random.fork_rng(devices=[]):
        plain, half = _build_step(half=False), _build_step(half=True)
        plain()
        seconds, first = plain(), half()
        if first > PATIENCE * seconds:
            return seconds / first
        return statistics.median([plain() / half() for _ in range(PAIRS)])


def _build_step(*, half: bool) -> Callable[[], float]:
    """Build a small model; the function takes one training step and gives its seconds."""
    # Whoever only loads a classifier, of whatever family, is spared this.
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=384, num_attention_heads=12, intermediate_size=1536, num_hidden_layers=2, vocab_size=512
    )
    model = BertForSequenceClassification(config).train()
    masters = Masters(model) if half else None
    trained = list(model.parameters()) if masters is None else list(masters.trained.values())
    optimizer = torch.optim.AdamW(trained, fused=True)
    tokens = torch.arange(512).reshape(16, 32)

    def step() -> float:
        started = time.perf_counter()
        with cheap_dropout(model):
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.float().sum().backward()
        if masters is not None:
            masters.take_gradients()
        optimizer.step()
        optimizer.zero_grad()
        if masters is not None:
            masters.hand_down()
        return time.perf_counter() - started

    return step


def _read(place: Path) -> dict[str, float]:
    """What was measured before; nothing where there is no such file, or it does not hold."""
    try:
        held = json.loads(place.read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in held.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(place: Path, known: dict[str, float]) -> None:
    """Keep what was measured, whole or not at all."""
    aside = place.with_suffix(f".{time.time_ns()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(known, indent=1), encoding="utf-8")
        aside.replace(place)
