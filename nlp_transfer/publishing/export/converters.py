"""Conversion of a PyTorch classifier to an ONNX or OpenVINO graph, in float32 or with weights in eight bits."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer.models.runtimes import RUNTIME_FILES, import_runtime, no_telemetry

__all__ = ["CONVERTERS", "write_onnx", "write_openvino"]

OPSET = 18
"""Version of ONNX's operator set: every release of onnxruntime since 1.14 supports it."""

LARGEST_FILE = 1_900_000_000
"""Most bytes of weights that are stored in the graph's own file; protobuf's limit is 2 GiB."""


BLOCK = 128
"""Adjacent inputs of a layer that share a scale; onnxruntime's default."""

EIGHT_BITS = 4
"""onnxruntime's accuracy level for products computed in eight bits."""


class _Bare(nn.Module):
    """A classifier that returns a logits tensor; exporters read the signature of ``forward`` in its subclasses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def compute(self, **inputs: Tensor) -> Tensor:
        """Logits, float32, shape (B, C)."""
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


class _Logits(_Bare):
    """For families without token type ids."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits, float32, shape (B, C)."""
        return self.compute(input_ids=input_ids, attention_mask=attention_mask)


class _TypedLogits(_Bare):
    """For families with token type ids, which tell the texts of a pair apart."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Logits, float32, shape (B, C)."""
        return self.compute(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


def _wrap(model: nn.Module, inputs: dict[str, Tensor]) -> nn.Module:
    """Wrap the model in a module whose arguments are exactly the inputs."""
    return _TypedLogits(model) if "token_type_ids" in inputs else _Logits(model)


def write_onnx(model: nn.Module, inputs: dict[str, Tensor], folder: Path, *, int8: bool, num_labels: int) -> None:
    """Write ``model.onnx`` with PyTorch's exporter; batch size and length are dynamic.

    In eight bits are the weights and the inputs of the linear layers, in blocks of 128 with one scale each. Embeddings,
    attention scores, norms and the last layer stay in float32.

    Args:
        model: In eval mode, on the CPU, float32.
        inputs: A ragged batch, each tensor of shape (B, L), B and L at least 2 and different.
        folder: Folder for the file.
        int8: Whether weights are rounded to eight bits.
        num_labels: C; identifies the last layer.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_runtime(name, "onnx", purpose="an export to ONNX")
    names = list(inputs)
    with _quiet(), torch.inference_mode(mode=False), torch.no_grad():
        program: Any = torch.onnx.export(
            _wrap(model, inputs),
            (),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in names},
            input_names=names,
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
        path = folder / RUNTIME_FILES["onnx"]
        size = sum(parameter.numel() * 4 for parameter in model.parameters())
        program.save(str(path), external_data=size > LARGEST_FILE)
        if int8:
            _round_onnx(path, num_labels, external=size > LARGEST_FILE)


def _round_onnx(path: Path, num_labels: int, *, external: bool) -> None:
    """Round the weights of an ONNX graph to eight bits, in place.

    The engine rounds the inputs of a layer in blocks within each token. onnxruntime's default is one scale for a whole
    batch, which the few large activations of a transformer make too coarse: with a fine-tuned MiniLM, one scale kept
    98.2 % of the labels of 400 texts of SST-2, and blocks kept 99.5 %. With blocks, a prediction also does not depend
    on the other texts of the batch.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(str(path))
    widths = {each.name: min(each.dims) for each in model.graph.initializer if len(each.dims) == 2}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    last = [node.name for node in products if widths.get(node.input[1], 0) <= num_labels]
    settings = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=EIGHT_BITS, bits=8)
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=last, algo_config=settings)
    quantizer.process()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    quantizer.model.save_model_to_file(str(path), external)


def write_openvino(model: nn.Module, inputs: dict[str, Tensor], folder: Path, *, int8: bool, num_labels: int) -> None:
    """Write ``openvino_model.xml`` and ``.bin``; batch size and length are dynamic.

    In eight bits are the weights of the linear layers and of the embeddings, with one scale per row, except the last
    layer. OpenVINO decides whether the inputs of a layer are rounded too, by what is fastest on the CPU.

    Args:
        model: In eval mode, on the CPU, float32.
        inputs: A ragged batch, each tensor of shape (B, L), B and L at least 2 and different.
        folder: Folder for the files.
        int8: Whether weights are rounded to eight bits.
        num_labels: C; identifies the last layer.

    Raises:
        MissingExtraError: openvino is not installed.
    """
    openvino: Any = import_runtime("openvino", "openvino", purpose="an export to OpenVINO")
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet(), no_telemetry(), torch.inference_mode(mode=False), torch.no_grad():
        shapes: dict[str, Any] = dict.fromkeys(inputs, free)
        program = torch.export.export(_wrap(model, inputs), (), kwargs=inputs, dynamic_shapes=shapes, strict=False)
        graph = openvino.convert_model(program)
        # The graph lacks inputs that the model does not read, and conversion can drop the names of the others.
        if len(graph.inputs) == len(inputs):
            for port, name in zip(graph.inputs, inputs, strict=True):
                port.get_tensor().set_names({name})
        graph.outputs[0].get_tensor().set_names({"logits"})
        if int8:
            _round_openvino(graph, num_labels)
        openvino.save_model(graph, str(folder / RUNTIME_FILES["openvino"]), compress_to_fp16=False)


def _round_openvino(graph: Any, num_labels: int) -> int:
    """Round the weights of an OpenVINO graph to eight bits, in place; return the number of rounded constants.

    The CPU plugin recognizes compressed weights as a constant in eight bits, a conversion and one scale per row.
    """
    from openvino import opset13

    count = 0
    for node in graph.get_ordered_ops():
        if node.get_type_name() not in ("MatMul", "Gather"):
            continue
        is_product = node.get_type_name() == "MatMul"
        place = node.input(1 if is_product else 0)
        constant = place.get_source_output().get_node()
        if constant.get_type_name() != "Constant" or len(constant.shape) != 2 or min(constant.shape) <= num_labels:
            continue
        weights = constant.data
        if weights.dtype != np.float32:
            continue
        # Each row of outputs, or of the embedding table, has its own scale.
        axis = 1 if not is_product or node.get_attributes()["transpose_b"] else 0
        scales = np.maximum(np.abs(weights).max(axis=axis, keepdims=True) / 127.0, np.finfo(np.float32).tiny)
        rounded = np.rint(weights / scales).astype(np.int8)
        small = opset13.convert(opset13.constant(rounded), "f32")
        place.replace_source_output(opset13.multiply(small, opset13.constant(scales.astype(np.float32))).output(0))
        count += 1
    return count


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' log messages and warnings; the check of the logits finds actual problems."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


CONVERTERS = {"onnx": write_onnx, "openvino": write_openvino}
"""Runtime to the function that writes its graph."""
