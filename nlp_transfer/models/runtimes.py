"""Engines other than torch that run an exported classifier: onnxruntime and OpenVINO."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from nlp_transfer.errors import ArtifactError, MissingExtraError, name_cause

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "PACKAGES",
    "RUNTIME_FILES",
    "ExportedModel",
    "Runtime",
    "find_runtime",
    "import_runtime",
    "list_errors",
    "load_exported",
    "no_telemetry",
]

Runtime = Literal["onnx", "openvino"]

RUNTIME_FILES: dict[Runtime, str] = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
"""The file that tells each kind of exported folder, named as the ecosystem's own exports are."""

PACKAGES: dict[Runtime, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
"""What runs each."""

Run = Callable[[dict[str, np.ndarray]], np.ndarray]


class ExportedModel(nn.Module):
    """A classifier that another engine runs, in the form that torch's own have. It stays on the CPU.

    Args:
        run: From inputs by name, int64, shape (B, L), to logits, float32, shape (B, C).
        names: The inputs that the graph reads.
        config: The configuration of the model that was exported.
    """

    def __init__(self, run: Run, names: tuple[str, ...], config: Any) -> None:
        super().__init__()
        self._run, self.names, self.config = run, names, config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Give the logits, on the device that the texts came from."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs = {}
        for name in self.names:
            value = given[name]
            if value is None:
                value = torch.zeros_like(input_ids)
            inputs[name] = value.to("cpu", torch.int64).contiguous().numpy()
        # The engine may write its next answer over this one.
        logits = torch.from_numpy(np.array(self._run(inputs), dtype=np.float32))
        return SequenceClassifierOutput(logits=logits.to(input_ids.device))


@contextmanager
def no_telemetry() -> "Iterator[None]":
    """Keep OpenVINO from reporting to its makers: its import and its converter send usage data unless told otherwise.

    Without the package ``openvino_telemetry`` it puts a stub in its place, so for a while there is none.
    """
    missing = object()
    name = "openvino_telemetry"
    before = sys.modules.get(name, missing)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[name]
        else:
            sys.modules[name] = before  # type: ignore[assignment]


def import_runtime(name: str, extra: Runtime, *, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        name: The module.
        extra: The extra that brings it.
        purpose: What it is needed for.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed.

    Example:
        >>> import_runtime("no_such_engine", "onnx", purpose="this export")
        Traceback (most recent call last):
        nlp_transfer.errors.MissingExtraError: this export needs no_such_engine. Install it with: ...
    """
    try:
        with no_telemetry():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        raise MissingExtraError(name, extra=extra, purpose=purpose) from error


def find_runtime(folder: Path, metadata: Mapping[str, Any]) -> Runtime | None:
    """Tell what runs an artefact.

    Args:
        folder: The artefact.
        metadata: What ``nlp_transfer.json`` holds; empty where there is none.

    Returns:
        The engine; None where it is torch, which also comes first in a folder of another tool that has both.
    """
    if metadata:
        return next((runtime for runtime in RUNTIME_FILES if metadata.get("loader") == runtime), None)
    if any(folder.glob("model*.safetensors")):
        return None
    return next((runtime for runtime, name in RUNTIME_FILES.items() if (folder / name).is_file()), None)


def load_exported(folder: Path, runtime: Runtime, *, trust_remote_code: bool = False) -> ExportedModel:
    """Open an exported classifier.

    Args:
        folder: Holds the graph and ``config.json``.
        runtime: What runs it.
        trust_remote_code: Whether code that a configuration names may run.

    Returns:
        The model, which computes in float32.

    Raises:
        ArtifactError: The graph is missing, damaged, or no text classifier.
        MissingExtraError: The engine is not installed.
    """
    path = folder / RUNTIME_FILES[runtime]
    if not path.is_file():
        raise ArtifactError(f"{folder}: holds no {path.name}. Copy the folder again, or export the model again.")
    module = import_runtime(PACKAGES[runtime], runtime, purpose=f"{path}")
    open_graph = {"onnx": _open_onnx, "openvino": _open_openvino}[runtime]
    try:
        run, names, num_outputs = open_graph(module, path)
    except list_errors(module) as error:
        raise ArtifactError(
            f"{path}: cannot be opened, it may be damaged: {name_cause(error)}. Export the model again."
        ) from error
    known = ("input_ids", "attention_mask", "token_type_ids")
    if num_outputs != 1 or "input_ids" not in names or not set(names) <= set(known):
        raise ArtifactError(
            f"{path}: expected one output, and inputs among {', '.join(known)}, came {num_outputs} and "
            f"{', '.join(names)}. Name the export of a text classifier."
        )
    # AutoConfig must not look for the weights that are not there.
    json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return ExportedModel(run, names, config).eval()


def _open_onnx(onnxruntime: Any, path: Path) -> tuple[Run, tuple[str, ...], int]:
    """Open a graph with onnxruntime on the CPU, on as many threads as torch may use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # 3: errors. What it warns of, nobody who uses a model can change.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = tuple(each.name for each in session.get_inputs())
    outputs = [each.name for each in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = session.run(outputs, inputs)[0]
        return found

    return run, names, len(outputs)


def _open_openvino(openvino: Any, path: Path) -> tuple[Run, tuple[str, ...], int]:
    """Compile a graph with OpenVINO for the CPU, in float32: left to itself it takes bf16 where the CPU has it."""
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    names = tuple(each.any_name for each in compiled.inputs)

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = compiled(inputs)[0]
        return found

    return run, names, len(compiled.outputs)


def list_errors(module: Any) -> tuple[type[Exception], ...]:
    """List what an engine raises; not all of it is a kind of RuntimeError.

    Args:
        module: onnxruntime or openvino.

    Returns:
        Classes to catch.
    """
    places = (
        getattr(getattr(module, "capi", None), "onnxruntime_pybind11_state", None),
        getattr(module, "frontend", None),
    )
    own = [
        each
        for place in places
        if place is not None
        for each in vars(place).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ]
    return (RuntimeError, OSError, ValueError, *own)
