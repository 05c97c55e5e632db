"""What this machine's processor is fast at, measured once and kept, and how much memory a run took."""

import contextlib
import functools
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from huggingface_hub import constants
from torch import nn

from nlp_transfer.engine.fast.dropout import cheap_dropout
from nlp_transfer.engine.predict.packed import PackedModel, PackedRows
from nlp_transfer.engine.train.masters import HalfAdamW, Masters
from nlp_transfer.models.blocks import find_stack

__all__ = ["compare_formats", "compare_predictions", "measure_peak_memory", "read_measured", "write_measured"]

PAIRS = 5
"""Steps timed in each format, in turns; chosen."""

BUSY_LOAD = 1.2
"""Mean count of running threads over the last minute, for each processor, above which a machine is busy; chosen."""

PATIENCE = 2.0
"""Times as long as a float32 step after which a first bf16 step settles it; chosen."""


@functools.cache
def compare_formats() -> float:
    """Say how many times as fast a training step on this CPU is in bf16 as in float32.

    A small BERT takes a few steps in each, in turns. The answer is kept in ``nlp_transfer/machine.json`` under
    ``HF_HOME``, by processor, threads and version of torch; where that cannot be written, the next process measures
    again; so it does where others kept the machine busy.

    Returns:
        Above 1 where bf16 is the faster.
    """
    # Looked up when it is called, so that a test may put another in its place.
    return _recall("training", lambda: _measure())


@functools.cache
def compare_predictions() -> float:
    """Say how many times as fast this CPU predicts in bf16 as in float32, second passes left out.

    A small BERT reads some rows in each, in turns. The answer is kept as that of `compare_formats`.

    Returns:
        Above 1 where bf16 is the faster.
    """
    return _recall("prediction", lambda: _measure(_build_reader))


def _recall(work: str, measure: Callable[[], float]) -> float:
    """Look up what was measured on this machine; measure and keep it where nothing is there."""
    place, key = _find_place(), _name_key(work)
    known = read_measured(place)
    if key not in known:
        known[key] = round(measure(), 3)
        if not _is_busy():
            write_measured(place, known)
    return known[key]


def _find_place() -> Path:
    """Where it is kept; looked up anew, as tests have places of their own."""
    return Path(constants.HF_HOME) / "nlp_transfer" / "machine.json"


def _name_key(work: str) -> str:
    """What the answer depends on."""
    return f"bf16 {work}, {_name_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _is_busy() -> bool:
    """Whether others compute beside this process, so that what was measured is not to be kept for good."""
    try:
        return os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False


def _name_processor() -> str:
    """The processor's own name where torch can tell it, else its kind."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(found.get("cpu_name") or platform.processor() or platform.machine())


def _measure(build: Callable[..., Callable[[], float]] | None = None) -> float:
    """Time steps, or whatever is built, in both formats."""
    build = build or _build_step
    with torch.random.fork_rng(devices=[]):
        plain, half = build(half=False), build(half=True)
        plain()
        seconds, first = plain(), half()
        if first > PATIENCE * seconds:
            return seconds / first
        pairs = [(plain(), half()) for _ in range(PAIRS)]
        # Whatever else the machine does makes a pass longer, never shorter.
        return min(seconds for seconds, _ in pairs) / min(seconds for _, seconds in pairs)


def _build_model() -> nn.Module:
    """A small BERT of common width."""
    # Whoever only loads a classifier, of whatever family, is spared this.
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=384, num_attention_heads=12, intermediate_size=1536, num_hidden_layers=2, vocab_size=512
    )
    model: nn.Module = BertForSequenceClassification(config)
    return model


def _build_reader(*, half: bool) -> Callable[[], float]:
    """Build a small model; the function reads some rows and gives its seconds."""
    stack = find_stack(_build_model().eval())
    assert stack is not None, "a plain BERT can be laid open"
    packed = PackedModel(stack, torch.bfloat16 if half else torch.float32)
    rows = PackedRows(np.arange(1024) % 512, np.zeros(1024, dtype=np.int64), np.full(32, 32))

    def read() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            packed(rows)
        return time.perf_counter() - started

    return read


def _build_step(*, half: bool) -> Callable[[], float]:
    """Build a small model; the function takes one training step and gives its seconds."""
    model = _build_model().train()
    masters = Masters(model) if half else None
    if masters is None:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    else:
        optimizer = HalfAdamW([{"params": list(masters.trained.values())}], masters.lower)
    tokens = torch.arange(512).reshape(16, 32)

    def step() -> float:
        started = time.perf_counter()
        with cheap_dropout(model):
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return step


def read_measured(place: Path) -> dict[str, float]:
    """What was measured before; nothing where there is no such file, or it does not hold."""
    try:
        held = json.loads(place.read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in held.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_measured(place: Path, known: dict[str, float]) -> None:
    """Keep what was measured, whole or not at all."""
    aside = place.with_suffix(f".{time.time_ns()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(known, indent=1), encoding="utf-8")
        aside.replace(place)
    except OSError:
        return
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def measure_peak_memory(device: torch.device) -> int:
    """Largest resident size of this process so far, or of the GPU's allocator, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows keeps the peak elsewhere
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
