"""Everything a run needs to go on after it was killed, on disk, without pickles.

A checkpoint is a folder: written aside, synced, hashed in its manifest, then renamed. A folder without a manifest
that holds is not a checkpoint.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nlp_transfer.errors import TransferError, name_cause
from nlp_transfer.files import explain_writing, settle_modes

__all__ = [
    "CheckpointStore",
    "RandomState",
    "Snapshot",
    "capture_random",
    "collect_weights",
    "copy_to_cpu",
    "restore_random",
    "restore_weights",
    "take_random",
]

MANIFEST = "manifest.json"

STAGE = ".writing-step-"
"""Begins the name of a folder that is not a checkpoint yet."""

OPTIONAL = ("guides", "best", "average")
"""Tensors of a checkpoint that not every run has."""


@dataclass
class Snapshot:
    """The contents of one checkpoint.

    Attributes:
        weights: Trainable parameters and buffers by name.
        optimizer: Optimizer tensors, named ``<parameter>/<slot>``.
        random: State of the random generators of this process.
        state: Whatever else, as JSON: step, position, log, best so far.
        best: The best weights so far, or None where the present ones are the best.
        guides: What guides laid down, named ``<number>/<name>``.
        average: The running mean of the trained weights; empty where none is kept.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    state: dict[str, Any]
    best: dict[str, Tensor] | None = None
    guides: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)


def collect_weights(model: nn.Module, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy what training changes: the trained parameters and persistent buffers, on the CPU."""
    persistent = set(model.state_dict().keys())
    tensors = dict(trained)
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return copy_to_cpu(tensors)


def copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors as a file takes them."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def restore_weights(model: nn.Module, weights: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Put collected weights back, in place; what is trained is given as it was when they were collected."""
    own = {**dict(model.named_buffers()), **trained}
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def collect_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copy an optimizer's tensors, named by their parameter."""
    collected = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for slot, value in optimizer.state.get(parameter, {}).items():
                collected[f"{name}/{slot}"] = torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
    return collected


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put an optimizer's tensors back."""
    held: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        held.setdefault(name, {})[slot] = value
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if slots := held.get(name):
                # A fused optimizer keeps its step counter beside the parameter.
                optimizer.state[parameter] = {slot: value.to(parameter.device) for slot, value in slots.items()}


class RandomState(NamedTuple):
    """The state of Python's, numpy's and torch's generators, as they give it."""

    python: tuple[Any, ...]
    numpy: Mapping[str, Any]
    torch: Tensor
    cuda: Tensor | None


def take_random() -> RandomState:
    """Take the state of the generators, in a small part of the time of `capture_random`."""
    return RandomState(
        random.getstate(),
        np.random.get_state(legacy=False),  # noqa: NPY002 - what libraries draw from
        torch.get_rng_state(),
        torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def capture_random(taken: RandomState | None = None) -> dict[str, Tensor]:
    """Copy the state of Python's, numpy's and torch's generators.

    Args:
        taken: The state to copy; that of now where absent.

    Returns:
        Tensors, as a file takes them.
    """
    taken = taken or take_random()
    version, internal, gauss = taken.python
    inner = taken.numpy["state"]
    captured = {
        "torch": taken.torch,
        "python": torch.tensor([version, *internal, int(gauss is not None)], dtype=torch.int64),
        "python_gauss": torch.tensor([gauss or 0.0], dtype=torch.float64),
        "numpy": torch.from_numpy(inner["key"].astype(np.int64)),
        "numpy_position": torch.tensor([inner["pos"], taken.numpy["has_gauss"]], dtype=torch.int64),
        "numpy_gauss": torch.tensor([taken.numpy["gauss"]], dtype=torch.float64),
    }
    return captured if taken.cuda is None else {**captured, "cuda": taken.cuda}


def restore_random(captured: dict[str, Tensor]) -> None:
    """Put the generators back to a captured state."""
    torch.set_rng_state(captured["torch"])
    numbers = captured["python"].tolist()
    gauss = captured["python_gauss"].item() if numbers[-1] else None
    random.setstate((numbers[0], tuple(numbers[1:-1]), gauss))
    position, has_gauss = captured["numpy_position"].tolist()
    np.random.set_state(  # noqa: NPY002
        ("MT19937", captured["numpy"].numpy().astype(np.uint32), position, has_gauss, captured["numpy_gauss"].item())
    )
    if "cuda" in captured and torch.cuda.is_available():
        torch.cuda.set_rng_state(captured["cuda"])


class CheckpointStore:
    """The ``checkpoints/`` folder of one run.

    Args:
        folder: Where checkpoints lie; made when first written to.
        keep: How many stay on disk.
        rank: Number of this process; process 0 writes what all share.

    Example:
        >>> CheckpointStore(Path("nowhere"), keep=2).load_newest() is None
        True
    """

    def __init__(self, folder: Path, *, keep: int, rank: int = 0) -> None:
        self.folder = folder
        self.keep = keep
        self.rank = rank
        self.skipped: list[str] = []

    def list_steps(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def stage(self, step: int) -> Path:
        """Give the folder that a checkpoint is first written to."""
        return self.folder / f"{STAGE}{step:08d}"

    def clear_stages(self) -> None:
        """Remove what a kill left half written. Process 0 only, before any process writes."""
        for path in self.folder.glob(f"{STAGE}*"):
            shutil.rmtree(path, ignore_errors=True)

    def write_random(self, step: int, captured: dict[str, Tensor]) -> None:
        """Write this process's random state into the staged checkpoint."""
        stage = self.stage(step)
        try:
            stage.mkdir(parents=True, exist_ok=True)
            save_file(captured, stage / f"random-{self.rank}.safetensors")
        except (OSError, SafetensorError) as error:
            shutil.rmtree(stage, ignore_errors=True)
            raise _explain_storage(stage, error) from error

    def commit(self, step: int, snapshot: Snapshot) -> Path:
        """Write the shared part, seal the checkpoint and drop the oldest ones. Process 0 only.

        Args:
            step: Updates done.
            snapshot: What to write; its ``random`` was written by every process before.

        Returns:
            The finished checkpoint's folder.

        Raises:
            StorageError: The disk is full or failing; earlier checkpoints are untouched.
        """
        stage, final = self.stage(step), self.folder / f"step-{step:08d}"
        try:
            save_file(snapshot.weights, stage / "weights.safetensors")
            save_file(snapshot.optimizer or {"none": torch.zeros(1)}, stage / "optimizer.safetensors")
            for name in OPTIONAL:
                if tensors := getattr(snapshot, name):
                    save_file(tensors, stage / f"{name}.safetensors")
            (stage / "state.json").write_text(json.dumps(snapshot.state), encoding="utf-8")
            settle_modes(stage)
            hashes = {path.name: _hash_and_sync(path) for path in sorted(stage.iterdir())}
            (stage / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
            _hash_and_sync(stage / MANIFEST)
            if final.exists():
                shutil.rmtree(final)
            stage.rename(final)
        except (OSError, SafetensorError) as error:
            raise _explain_storage(stage, error) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        for path in self.list_steps()[: -self.keep]:
            shutil.rmtree(path, ignore_errors=True)
        return final

    def load_newest(self) -> Snapshot | None:
        """Read the newest checkpoint that is whole; damaged ones are skipped and named in ``skipped``.

        Returns:
            Its contents, or None where there is none.
        """
        for path in reversed(self.list_steps()):
            problem = _find_damage(path)
            if problem:
                self.skipped.append(f"{path.name}: {problem}")
                continue
            own = path / f"random-{self.rank}.safetensors"
            optimizer = load_file(path / "optimizer.safetensors")
            optimizer.pop("none", None)
            held = {name: path / f"{name}.safetensors" for name in OPTIONAL}
            return Snapshot(
                weights=load_file(path / "weights.safetensors"),
                optimizer=optimizer,
                random=load_file(own if own.is_file() else path / "random-0.safetensors"),
                state=json.loads((path / "state.json").read_text(encoding="utf-8")),
                **{name: load_file(file) for name, file in held.items() if file.is_file()},
            )
        return None


def _hash_and_sync(path: Path) -> str:
    """Push a file to the disk and hash what it holds."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint; None where every file has its hash."""
    name = MANIFEST
    try:
        hashes = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            with (path / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return f"{name} is damaged"
    except (OSError, ValueError, AttributeError) as error:
        return f"{name} cannot be read ({name_cause(error)})"
    return None if {"weights.safetensors", "state.json"} <= hashes.keys() else "is incomplete"


def _explain_storage(path: Path, error: BaseException) -> TransferError:
    """Name the folder and what the disk said."""
    kept = "earlier checkpoints are untouched, and the same command goes on from the last one"
    return explain_writing(
        path.parent,
        error,
        what="a checkpoint could not be written",
        way_out=f"Free space or choose another report.output_dir; {kept}.",
        elsewhere=f"choose another report.output_dir; {kept}",
    )
