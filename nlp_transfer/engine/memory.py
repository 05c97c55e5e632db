"""How much memory a run took."""

import psutil
import torch

__all__ = ["measure_peak_memory"]


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
