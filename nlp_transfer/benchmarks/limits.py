"""How fast this machine multiplies matrices: what a suite's contenders could reach at most.

Run as ``python -m nlp_transfer.benchmarks.limits``; prints one line of JSON.
"""

import argparse
import json
import statistics
import sys
import time

import torch

__all__ = ["main", "measure_limit"]

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

SIZES = {"cpu": (256, 1024, 2048), "cuda": (4096, 8192)}
"""Rows and columns of the square matrices that are tried; chosen so that loading them does not bound the time. The
smallest is for processors that lack a format: they work it out number by number, and a large product takes minutes."""

PRODUCT_SECONDS = 2.0
"""Size after size is tried as long as one product is expected to take no longer; chosen."""

BLOCK_SECONDS = 0.3
"""How long one timed block lasts about; chosen."""

BLOCKS = 5
"""Timed blocks a size; their median counts, so that one lucky turbo moment does not."""


def measure_limit(number_format: str, device: str, *, block_seconds: float = BLOCK_SECONDS) -> float:
    """Measure the fastest matrix product of two square matrices.

    Args:
        number_format: ``fp32``, ``bf16`` or ``fp16``, what the factors are in.
        device: ``cpu`` or ``cuda``.
        block_seconds: How long one timed block lasts about.

    Returns:
        Floating-point operations per second, 2 n^3 a product, of the size that does best; above 0.

    Example:
        >>> measure_limit("fp32", "cpu", block_seconds=0.001) > 0
        True
    """
    best = 0.0
    for size in SIZES[device]:
        if best and 2 * size**3 / best > PRODUCT_SECONDS:
            break
        best = max(best, _time_size(size, number_format, device, block_seconds))
    return best


def _time_size(size: int, number_format: str, device: str, block_seconds: float) -> float:
    """Operations per second at one size, median over blocks."""
    left, right = (torch.randn(size, size, device=device).to(FORMATS[number_format]) for _ in range(2))
    product = torch.empty_like(left)

    def multiply(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            torch.mm(left, right, out=product)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    multiply(1)
    times = max(1, round(block_seconds / max(multiply(1), 1e-6)))
    return statistics.median(times * 2 * size**3 / multiply(times) for _ in range(BLOCKS))


def main() -> None:
    """Measure in the format, on the device and with the threads that a run had."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--format", choices=tuple(FORMATS), required=True)
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument("--threads", type=int, help="of a CPU; as many as torch takes where absent")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = {
        "format": options.format,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "flop_per_second": measure_limit(options.format, options.device),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
