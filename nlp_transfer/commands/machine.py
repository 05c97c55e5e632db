"""What this machine has: versions, device, bundled encoder, caches, space."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from huggingface_hub import constants as hub_constants

from nlp_transfer.engine.precision import choose_device, choose_precision
from nlp_transfer.errors import EncoderError, TransferError
from nlp_transfer.files import check_new_folder
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig

__all__ = ["examine"]

PACKAGES = ("nlp_transfer", "torch", "transformers", "datasets", "peft", "accelerate", "evaluate", "huggingface_hub")
GIB = 2**30


def examine() -> dict[str, str]:
    """Collect facts of this machine.

    Returns:
        What was looked at to what was found, in the order to show it.

    Example:
        >>> "python" in examine()
        True
    """
    device = choose_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores"
    precision = choose_precision("auto", device)
    memory = psutil.virtual_memory()
    found = {"python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    found |= {package: _find_version(package) for package in PACKAGES}
    found |= {
        "device": f"{device}: {name}, {torch.get_num_threads()} threads",
        "precision": f"{precision.format} (training.precision=auto): {precision.reason}",
        "memory": f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free",
        "minilm-l6": _examine_embedded(),
        "cache": _examine_cache(Path(hub_constants.HF_HOME)),
        "network": "off (HF_HUB_OFFLINE)" if hub_constants.HF_HUB_OFFLINE else "allowed; HF_HUB_OFFLINE=1 forbids it",
    }
    return found


def _find_version(package: str) -> str:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _examine_embedded() -> str:
    """Whether the bundled encoder is here and whole."""
    try:
        source = resolve_encoder(EncoderConfig.model_validate({"name": "minilm-l6"}))
    except EncoderError as error:
        return str(error)
    if source.notes:
        return source.notes[0]
    if source.kind == "hub":
        return "not bundled, comes from the Hub. Bundle it: python -m pip install 'nlp_transfer[embedded]'"
    return "bundled, hash correct"


def _examine_cache(home: Path) -> str:
    """Where downloads and tokens go, and how much room is left."""
    existing = next(path for path in (home, *home.parents) if path.exists())
    try:
        check_new_folder(home, where=str(home))
    except TransferError as error:
        return str(error)
    return f"{home}, {shutil.disk_usage(existing).free / GIB:.1f} GiB free"
