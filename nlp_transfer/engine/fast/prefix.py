"""The frozen bottom of an encoder, run once over the data and then left out."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer.errors import ShapeError, StorageError, name_cause

__all__ = ["Prefix", "PrefixCache", "PrefixStates", "allocate_states"]


class _Stop(Exception):  # noqa: N818 - no error: ends a forward pass that has given what was wanted
    """The prefix has run; what lies above is not wanted."""


MOST_IN_MEMORY = 1 << 30
"""Bytes of states that are kept in memory; more go to a file that is mapped. Chosen."""


@dataclass
class PrefixStates:
    """What the prefix gives for every row of a split.

    Attributes:
        values: Float32, shape (T, D): the states of all tokens that are kept, row after row.
        starts: Where each row begins, int64, shape (R + 1,).
    """

    values: np.ndarray
    starts: np.ndarray

    def gather(self, rows: Sequence[int] | np.ndarray, width: int, *, left: bool = False) -> Tensor:
        """Collect the states of some rows, padded with zeros.

        Args:
            rows: Which rows, shape (B,).
            width: Tokens a row, at least as many as the longest has.
            left: Whether padding stands in front.

        Returns:
            Float32, shape (B, width, D).
        """
        hidden_BLD = np.zeros((len(rows), width, self.values.shape[1]), dtype=np.float32)
        for place, row in enumerate(np.asarray(rows).tolist()):
            own = self.values[self.starts[row] : self.starts[row + 1]]
            start = width - len(own) if left else 0
            hidden_BLD[place, start : start + len(own)] = own
        return torch.from_numpy(hidden_BLD)


@dataclass
class PrefixCache:
    """A prefix with the states that it gave.

    Attributes:
        prefix: The frozen bottom.
        states: Split name to the states of its rows.
    """

    prefix: "Prefix"
    states: dict[str, PrefixStates]


class Prefix:
    """Embeddings and first layers of an encoder that do not move, and a way around them.

    Inside ``skip`` the modules of the prefix hand on the states they are given, whatever they are fed; everywhere else
    they work as ever. Nothing of the model's weights or names changes.

    Args:
        model: The classifier.
        carriers: Modules between token ids and the first layer, in the order they run.
        layers: The layers of the prefix, and modules between them.
        last: The module whose output the prefix ends with.
        first_only: Whether only the first token's state is read above the prefix.
        is_shared: Whether the last layer runs several times.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        carriers: Sequence[str],
        layers: Sequence[str],
        last: str,
        first_only: bool = False,
        is_shared: bool = False,
    ) -> None:
        self.model = model
        self._stops = not is_shared
        self._is_encoding = False
        self.first_only = first_only
        self._given: Tensor | None = None
        self._caught: Tensor | None = None
        self._modules = [model.get_submodule(name) for name in (*carriers, *layers)]
        self._last = model.get_submodule(last)
        for module in self._modules:
            self._divert(module)

    def _divert(self, module: nn.Module) -> None:
        """Let a module hand on given states where there are some."""
        original = module.forward
        is_last = module is self._last

        def forward(*args: Any, **rest: Any) -> Any:
            if self._given is None:
                out = original(*args, **rest)
                if is_last and self._is_encoding:
                    self._caught = out[0] if isinstance(out, tuple) else out
                module.__dict__["_gives_tuple"] = len(out) if isinstance(out, tuple) else 0
                if is_last and self._is_encoding and self._stops:
                    raise _Stop
                return out
            size = module.__dict__.get("_gives_tuple", 0)
            return (self._given, *([None] * (size - 1))) if size else self._given

        module.__dict__["forward"] = forward

    def remove(self) -> None:
        """Give the modules their own way back."""
        for module in self._modules:
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_gives_tuple", None)

    @contextmanager
    def skip(self, hidden_BLD: Tensor) -> Iterator[None]:
        """Run the model on states of the prefix.

        Args:
            hidden_BLD: What ``PrefixStates.gather`` gave, on the model's device.
        """
        self._given = hidden_BLD.to(next(self.model.parameters()).dtype)
        try:
            yield
        finally:
            self._given = None

    @torch.no_grad()
    def encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Run the prefix, in evaluation mode.

        Args:
            inputs: Model inputs, each of shape (R, L).

        Returns:
            Float32, shape (R, L, D), or (R, 1, D) where only the first token counts.
        """
        was_training = [module.training for module in self._modules]
        for module in self._modules:
            module.eval()
        self._caught, self._is_encoding = None, True
        try:
            self.model(**inputs)
        except _Stop:
            pass
        finally:
            self._is_encoding = False
            for module, mode in zip(self._modules, was_training, strict=True):
                module.train(mode)
        caught: Tensor | None = self._caught
        if caught is None:
            raise ShapeError("prefix: the last layer of the prefix was not run.")
        self._caught = None
        return (caught[:, :1] if self.first_only else caught).float()


def allocate_states(num_tokens: int, width: int) -> np.ndarray:
    """Make room for states: in memory, or in a mapped file where they are many.

    Args:
        num_tokens: T.
        width: D.

    Returns:
        Float32, shape (T, D).

    Raises:
        StorageError: There is no room on the disk.
    """
    num_bytes = num_tokens * width * 4
    if num_bytes <= MOST_IN_MEMORY:
        return np.empty((num_tokens, width), dtype=np.float32)
    try:
        with tempfile.NamedTemporaryFile(prefix="nlp_transfer-states-") as file:
            if hasattr(os, "posix_fallocate"):
                # Writing to a map whose file finds no room on the disk would kill the process without a word.
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return np.memmap(file, dtype=np.float32, mode="w+", shape=(num_tokens, width))
    except OSError as error:
        raise StorageError(
            f"strategy.cache_prefix: {num_bytes / 1e9:.1f} GB of states found no room: {name_cause(error)}. "
            "Free space, or set strategy.cache_prefix=false."
        ) from error
