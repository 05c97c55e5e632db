"""Export an artefact for onnxruntime or OpenVINO, and refuse an export whose outputs differ from PyTorch's."""

import importlib.metadata
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCardData
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.data.encode import limit_length
from nlp_transfer.data.tables import read_table
from nlp_transfer.data.target_scale import TargetScale
from nlp_transfer.errors import ArtifactError, EncoderError, OutputError, name_cause
from nlp_transfer.files import check_new_folder, explain_writing, settle_modes
from nlp_transfer.models.artifacts import ARTIFACT_VERSION, LoadedArtifact, load_artifact
from nlp_transfer.models.digests import hash_folder, seal_record
from nlp_transfer.models.merge import is_adapter, merge_adapter
from nlp_transfer.models.resolve import ARTIFACT_FILE
from nlp_transfer.models.runtimes import PACKAGES, RUNTIME_FILES, Runtime, import_runtime, list_errors
from nlp_transfer.publishing.card import escape_markdown
from nlp_transfer.publishing.export.check import Check, compare_logits, compute_batches, make_batches, read_batches
from nlp_transfer.publishing.export.converters import CONVERTERS
from nlp_transfer.publishing.summary import find_section, name_place

__all__ = [
    "LEAST_AGREEMENT",
    "TOLERANCE",
    "Exported",
    "choose_export_folder",
    "export_artifact",
]

TOLERANCE = 1e-4
"""Largest difference of logits in float32; chosen: about a hundred times the effect of another order of summation."""

LEAST_AGREEMENT = 0.985
"""Share of the given texts that must keep their label in eight bits; chosen."""

GRAPH_STEMS = ("model.onnx", "openvino_model")
"""Stems of the names of files with a graph or its weights."""

CONVERSION_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)
"""Errors that exporters raise for a model that they cannot convert; a full disk is an OSError."""


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: The exported folder; `Classifier.from_pretrained` loads it.
        to: ``onnx`` or ``openvino``.
        int8: Whether weights are rounded to eight bits.
        shapes: The check on made-up texts of several lengths.
        texts: The check on given texts; None without given texts.
        num_bytes: Size of the graph with its weights.
    """

    folder: Path
    to: Runtime
    int8: bool
    shapes: Check
    texts: Check | None
    num_bytes: int


def choose_export_folder(path: str | Path, to: Runtime, *, int8: bool) -> Path:
    """Choose the default folder of an export: in the run's folder, or beside the model's folder.

    Args:
        path: The artefact, as in `export_artifact`.
        to: ``onnx`` or ``openvino``.
        int8: Whether weights are rounded.

    Returns:
        A folder, which need not exist.

    Example:
        >>> choose_export_folder("owner/reviews", "onnx", int8=True).as_posix()
        'reviews-onnx-int8'
    """
    name = f"{to}-int8" if int8 else to
    folder = Path(path).expanduser()
    # "." and ".." have no name of their own.
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if (folder / "model" / ARTIFACT_FILE).is_file():
        return folder / name
    if folder.is_dir():
        return folder.parent / (name if folder.name == "model" else f"{folder.name}-{name}")
    return Path(f"{folder.name}-{name}")


def export_artifact(
    path: str | Path,
    *,
    to: Runtime,
    output_dir: str | Path | None = None,
    int8: bool = False,
    tolerance: float | None = None,
    agreement: float | None = None,
    data: object = None,
    text: str | None = None,
    text_b: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Exported:
    """Export a classifier to a folder for onnxruntime or OpenVINO, checked against PyTorch.

    An adapter is merged into its encoder first; the check compares the result with the unmerged adapter. The folder
    is complete: graph, configuration, tokenizer, label contract and the results of the check.

    Args:
        path: The ``model/`` folder of a run, the run's folder, or a Hub id.
        to: ``onnx`` or ``openvino``.
        output_dir: Folder to create; from `choose_export_folder` where absent.
        int8: Round weights to eight bits.
        tolerance: Largest allowed difference of logits in float32, in standard deviations of the target for a
            regression; ``TOLERANCE`` where absent.
        agreement: Least share of ``data`` that must keep its label in eight bits, in [0, 1]; ``LEAST_AGREEMENT`` where
            absent.
        data: A table of texts like those to predict; up to 512 of its rows are checked as well.
        text: Column of the texts; found by the usual names where absent.
        text_b: Column of the second texts.
        revision: Revision of a Hub id.
        trust_remote_code: Whether code from the encoder's repository may run.

    Returns:
        The folder and the results of the check.

    Raises:
        ArtifactError: The model cannot be exported, or the export differs from PyTorch; no files are left behind.
        OutputError: The folder is not empty, or an argument is out of range.
        MissingExtraError: The exporter is not installed.
        StorageError: The disk is full or failing.
    """
    folder = Path(output_dir).expanduser() if output_dir is not None else choose_export_folder(path, to, int8=int8)
    tolerance = TOLERANCE if tolerance is None else tolerance
    agreement = LEAST_AGREEMENT if agreement is None else agreement
    _refuse_arguments(to, folder, tolerance, agreement)
    import_runtime(PACKAGES[to], to, purpose=f"an export to {to}")
    artifact = load_artifact(path, revision=revision, trust_remote_code=trust_remote_code)
    _refuse_exported(artifact, path)
    batches = make_batches(artifact)
    num_made = len(batches)
    if data is not None:
        batches += read_batches(artifact, read_table(data), text=text, text_b=text_b)
    expected = compute_batches(artifact.model, batches)
    stage = folder.with_name(f".{folder.name}.writing")
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        _convert(artifact, dict(batches[0].inputs), stage, to, int8=int8)
        record = _describe(artifact, to, int8=int8)
        _write_record(stage, record)
        found = compute_batches(load_artifact(stage, trust_remote_code=trust_remote_code).model, batches)
        checks = [
            compare_logits(expected[part], found[part], artifact.labels) if expected[part] else None
            for part in (slice(num_made), slice(num_made, None))
        ]
        assert checks[0] is not None, "some texts are always made up"
        exported = Exported(folder, to, int8, checks[0], checks[1], _measure_graph(stage))
        _refuse_difference(exported, tolerance, agreement, TargetScale.read(artifact.metadata), str(path))
        _write_papers(stage, record, exported)
        settle_modes(stage)
        if folder.exists():
            folder.rmdir()
        stage.rename(folder)
    except OSError as error:
        raise explain_writing(folder, error, way_out="Free space and try again.") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return exported


def _refuse_exported(artifact: LoadedArtifact, path: str | Path) -> None:
    """Refuse an artefact that is itself an export."""
    if artifact.metadata.get("loader") in RUNTIME_FILES or not any(True for _ in artifact.model.parameters()):
        raise ArtifactError(f"{path}: is an export already. Name the model/ folder of the run that was exported.")


def _measure_graph(folder: Path) -> int:
    """Measure the bytes of a graph with its weights."""
    return sum(each.stat().st_size for each in folder.iterdir() if each.name.startswith(GRAPH_STEMS))


def _refuse_arguments(to: str, folder: Path, tolerance: float, agreement: float) -> None:
    """Refuse invalid arguments before anything is loaded."""
    if to not in RUNTIME_FILES:
        raise OutputError(f"to: expected one of {', '.join(RUNTIME_FILES)}, came {to!r}.")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise OutputError(f"tolerance: expected a number above 0, came {tolerance}. 1e-4 is usual.")
    if not 0 <= agreement <= 1:
        raise OutputError(f"agreement: expected a share from 0 to 1, came {agreement}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is not empty. Name a new folder; nothing there was touched.")
    check_new_folder(folder, where=str(folder))


def _convert(artifact: LoadedArtifact, inputs: dict[str, Any], stage: Path, to: Runtime, *, int8: bool) -> None:
    """Write graph, configuration and tokenizer."""
    model: nn.Module = artifact.model
    if is_adapter(model):
        try:
            model = merge_adapter(model)
        except EncoderError as error:
            raise ArtifactError(
                f"{artifact.folder}: expected an adapter that can be merged into its encoder, came one that cannot, "
                "such as prompts. Train with strategy.kind lora or full to export."
            ) from error
    model = model.float().eval()
    errors: tuple[type[Exception], ...] = (
        *CONVERSION_ERRORS,
        *list_errors(import_runtime(PACKAGES[to], to, purpose=f"an export to {to}")),
    )
    try:
        CONVERTERS[to](model, inputs, stage, int8=int8, num_labels=artifact.labels.num_outputs)
    except errors as error:
        if isinstance(error, OSError):
            raise
        raise ArtifactError(
            f"{artifact.folder}: the exporter of {to} cannot convert this model ({name_cause(error)}). "
            "Export a full, frozen or lora model, or use this model without an export."
        ) from error
    config: Any = model.config
    if isinstance(model, PreTrainedModel):
        config.architectures = [type(model).__name__]
    config.save_pretrained(stage)
    limit_length(artifact.tokenizer, config).save_pretrained(stage)


def _describe(artifact: LoadedArtifact, to: Runtime, *, int8: bool) -> dict[str, Any]:
    """Build ``nlp_transfer.json``: the artefact's entries, temperature and thresholds included, with a new loader."""
    kept = {key: value for key, value in artifact.metadata.items() if key not in ("architecture", "loader")}
    packages = [PACKAGES[to], "torch", "transformers"]
    return {
        "format": ARTIFACT_VERSION,
        "labels": {"kind": artifact.labels.kind, "names": list(artifact.labels.names)},
        **kept,
        "loader": to,
        "export": {
            "precision": "int8" if int8 else "fp32",
            "from": str(artifact.metadata.get("loader", "transformers")),
            "versions": {name: importlib.metadata.version(name) for name in packages},
        },
    }


def _write_record(stage: Path, record: Mapping[str, Any]) -> None:
    """Write ``nlp_transfer.json`` with the digests of all other files of the folder."""
    sealed = seal_record(record, files=hash_folder(stage))
    (stage / ARTIFACT_FILE).write_text(json.dumps(sealed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_papers(stage: Path, record: Mapping[str, Any], exported: Exported) -> None:
    """Write the results of the check into the record and the card."""
    checks = {"shapes": asdict(exported.shapes), "texts": exported.texts and asdict(exported.texts)}
    _write_record(stage, {**record, "export": {**record["export"], "checks": checks}})
    card = _render_export_card(record, checks, to=exported.to, int8=exported.int8, num_bytes=exported.num_bytes)
    (stage / "README.md").write_text(card, encoding="utf-8")


def _refuse_difference(exported: Exported, tolerance: float, agreement: float, target: TargetScale, where: str) -> None:
    """Refuse an export whose outputs differ from PyTorch's."""
    checks = [check for check in (exported.shapes, exported.texts) if check is not None]
    largest = float(np.max([check.largest_difference for check in checks]))
    total = sum(check.num_texts for check in checks)
    if not math.isfinite(largest):
        raise ArtifactError(
            f"{where}: expected finite logits of {total} texts, came infinite or nan. Nothing was exported."
        )
    allowed = tolerance * target.deviation + target.measure_rounding()
    if not exported.int8 and largest > allowed:
        raise ArtifactError(
            f"{where}: expected logits within {allowed:g} of PyTorch's on {total} texts, came a difference of "
            f"{largest:.2g}. Nothing was exported; if this difference does not matter, allow it with --tolerance."
        )
    if exported.int8 and exported.texts is not None and exported.texts.agreement < agreement:
        raise ArtifactError(
            f"{where}: expected at least {agreement:.1%} of {exported.texts.num_texts} texts to keep their label in "
            f"eight bits, came {exported.texts.agreement:.1%}. Nothing was exported; leave out --int8, try the other "
            "engine, or allow this share with --agreement."
        )


MOST_LABELS = 50
"""Most labels that the card lists; chosen."""


def _render_export_card(
    record: Mapping[str, Any], checks: Mapping[str, Any], *, to: Runtime, int8: bool, num_bytes: int
) -> str:
    """Write the card of an exported folder.

    Args:
        record: Content of ``nlp_transfer.json``.
        checks: ``shapes`` and ``texts``: `Check` as a dictionary, or None.
        to: ``onnx`` or ``openvino``.
        int8: Whether weights are rounded to eight bits.
        num_bytes: Size of the graph with its weights.

    Returns:
        Markdown with YAML metadata in front, ending in a newline.
    """
    labels, report = record["labels"], find_section(record, "recipe", "report")
    encoder = find_section(record, "encoder")
    precision = "int8" if int8 else "fp32"
    metadata = ModelCardData(
        base_model=encoder.get("hub_id"),
        language=report.get("language"),
        license=report.get("license"),
        library_name=to,
        pipeline_tag="text-classification",
        tags=["nlp_transfer", "text-classification", to, precision],
    ).to_yaml(line_break="\n")
    names = ", ".join(escape_markdown(name, 100) for name in labels["names"][:MOST_LABELS])
    more = len(labels["names"]) - MOST_LABELS
    lines = [
        f"# Text classifier for {PACKAGES[to]}, {precision}",
        "",
        f"Task: {labels['kind'].replace('_', ' ')}. Labels, in the order of the logits: {names}"
        + (f", and {more} more." if more > 0 else "."),
    ]
    if encoder.get("name"):
        lines += ["", f"Encoder: {escape_markdown(name_place(str(encoder['name'])))}."]
    lines += [
        "",
        f"`{RUNTIME_FILES[to]}` ({num_bytes / 1e6:.1f} MB) takes `input_ids`, `attention_mask` and, where it lists "
        "them, `token_type_ids`, int64, of any batch size and length, and gives `logits`, before softmax or sigmoid. "
        "`nlp_transfer.json` holds the label contract, the settings for reading texts, temperature and thresholds.",
        "",
        "```python",
        "import nlp_transfer as nt",
        "",
        'nt.Classifier.from_pretrained("path/to/this/folder").predict(["a text to read"])',
        "```",
        "",
        "## Checked against PyTorch at export",
        "",
    ]
    for key, what in (("shapes", "made-up texts of several lengths"), ("texts", "texts of the data")):
        check = checks.get(key)
        if check:
            lines.append(
                f"- {check['num_texts']} {what} in {check['num_batches']} batches: largest difference of logits "
                f"{check['largest_difference']:.2g} (their standard deviation: {check['deviation']:.2g}), same label "
                f"for {check['agreement']:.1%}."
            )
    if int8 and not checks.get("texts"):
        lines.append("- Agreement in eight bits was not measured on real texts: export with `--data` to measure it.")
    return f"---\n{metadata.strip()}\n---\n\n" + "\n".join(lines) + "\n"
