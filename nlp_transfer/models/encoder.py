"""Load a pretrained encoder with its family's own classification head."""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import set_seed  # transformers' own, which does the same, imports peft
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError, name_cause
from nlp_transfer.files import explain_reading
from nlp_transfer.models.digests import check_base
from nlp_transfer.models.heads import list_head_parameters, reinitialize_head
from nlp_transfer.models.merge import merge_adapter
from nlp_transfer.models.resolve import ADAPTER_FILE, ARTIFACT_FILE, EncoderSource, resolve_encoder
from nlp_transfer.models.suitability import check_architecture, check_vocabulary, check_weights, suit_tokenizer
from nlp_transfer.recipe.schema import EncoderConfig

__all__ = [
    "LOADING_ERRORS",
    "PROBLEM_TYPES",
    "LoadedEncoder",
    "OpenedEncoder",
    "check_vocabulary",
    "find_base",
    "load_encoder",
    "load_tokenizer",
    "open_encoder",
    "quiet_loading",
    "read_config",
]

LOADING_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError),
    *(SafetensorError, StrictDataclassError),
)
"""What the libraries raise for files that are missing, damaged or of another kind."""

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "ordinal": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""Task kind to the ``problem_type`` of a ``transformers`` config."""


@dataclass
class LoadedEncoder:
    """A classifier whose head is new, ready to be adapted.

    Attributes:
        model: The family's own sequence-classification class, float32.
        source: Where the encoder came from.
        new_parameters: Names of the parameters that were not in the checkpoint.
        family: ``model_type`` of the config, such as ``bert``.
        labels: The label contract of the head.
        trust_remote_code: Whether code from the encoder's repository may run.
    """

    model: PreTrainedModel
    source: EncoderSource
    new_parameters: tuple[str, ...]
    family: str
    labels: LabelSpace
    trust_remote_code: bool = False


@dataclass(frozen=True)
class OpenedEncoder:
    """An encoder that was found and looked at, its weights not yet loaded.

    Attributes:
        source: Where it is.
        tokenizer: Fit to be used with it.
        settings: Its config as it lies there; of an adapter artefact, that of its base.
        notes: What was decided for the user, a sentence each.
    """

    source: EncoderSource
    tokenizer: PreTrainedTokenizerBase
    settings: PretrainedConfig
    notes: tuple[str, ...]


class quiet_loading:  # noqa: N801 - reads as a verb phrase in `with`
    """Keep the libraries' loading tables, progress bars and notices to each other off the terminal while loading.

    What they say (which weights are new) is checked and reported by this package instead.
    """

    def __enter__(self) -> None:
        # peft asks transformers in words that transformers is about to give up; no user can change that.
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore", FutureWarning)
        self._verbosity = transformers_logging.get_verbosity()
        self._bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self._verbosity)
        if self._bars:
            transformers_logging.enable_progress_bar()
        self._warnings.__exit__(None, None, None)


def load_tokenizer(source: EncoderSource, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to an encoder.

    Args:
        source: A resolved encoder.
        trust_remote_code: Whether code from the repository may run.

    Returns:
        A fast tokenizer.

    Raises:
        EncoderError: There is none, or it cannot be read.
    """
    return _load_tokenizer(source, trust_remote_code=trust_remote_code)[0]


def _load_tokenizer(source: EncoderSource, *, trust_remote_code: bool) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """Load a tokenizer, and mend what can be; say what that was."""
    where = f"encoder.name: {source.name}"
    # Without a config, transformers would guess the tokenizer's class, and may guess wrong.
    settings = read_config(source, trust_remote_code=trust_remote_code)
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(
                source.location, revision=source.revision, trust_remote_code=trust_remote_code, use_fast=True
            )
    except LOADING_ERRORS as error:
        raise EncoderError(f"{where}: its tokenizer cannot be loaded: {_explain_tokenizer(error)}") from error
    if not tokenizer.is_fast:
        raise EncoderError(f"{where}: has no fast tokenizer (tokenizer.json). Convert it first.")
    return tokenizer, suit_tokenizer(tokenizer, settings, where=where)


def open_encoder(config: EncoderConfig) -> OpenedEncoder:
    """Find an encoder, and make sure that it can be used, from its small files alone.

    Args:
        config: The recipe's encoder section.

    Returns:
        Where it is, its tokenizer and its config, and what the user should know.

    Raises:
        EncoderError: It is missing, damaged, unsafe, of no supported kind, or its parts do not go together.
    """
    source = resolve_encoder(config)
    where = f"encoder.name: {source.name}"
    settings = read_config(source, trust_remote_code=config.trust_remote_code)
    tokenizer, notes = _load_tokenizer(source, trust_remote_code=config.trust_remote_code)
    check_vocabulary(tokenizer, settings, where=where)
    if source.kind in ("folder", "artifact") and source.hub_id is None and config.init == "pretrained":
        # What is bundled was held against its hash.
        try:
            check_weights(Path(source.location), settings, where=where)
        except LOADING_ERRORS as error:
            raise EncoderError(f"{where}: {_explain(error)}") from error
    return OpenedEncoder(source, tokenizer, settings, (*source.notes, *notes))


def read_config(source: EncoderSource, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Read an encoder's config; of an adapter artefact, that of its base.

    Args:
        source: A resolved encoder.
        trust_remote_code: Whether code from the repository may run.

    Returns:
        The config as it lies there.

    Raises:
        EncoderError: There is none, or it cannot be read.
    """
    base = find_base(source) if source.kind == "adapter" else source
    where = f"encoder.name: {source.name}"
    if base.kind != "hub":
        _check_model_type(Path(base.location) / "config.json", where)
    try:
        with quiet_loading():
            settings: PretrainedConfig = AutoConfig.from_pretrained(
                base.location, revision=base.revision, trust_remote_code=trust_remote_code
            )
    except LOADING_ERRORS as error:
        raise EncoderError(f"{where}: {_explain(error)}") from error
    check_architecture(settings, where=where)
    return settings


def _check_model_type(path: Path, where: str) -> None:
    """Refuse a config that does not say what it is the config of: transformers would guess from the folder's name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        way_out = "Save or download the encoder again."
        raise explain_reading(f"{where}/config.json", error, EncoderError, way_out=way_out) from error
    if isinstance(content, dict) and isinstance(content.get("model_type"), str):
        return
    came = "one without model_type" if isinstance(content, dict) else f"a {type(content).__name__}"
    raise EncoderError(
        f"{where}/config.json: expected the config of a transformers model, came {came}. Save or download the encoder "
        "again."
    )


def load_encoder(config: EncoderConfig, labels: LabelSpace, *, seed: int) -> LoadedEncoder:
    """Load an encoder and put a new head of the right size on it.

    Args:
        config: The recipe's encoder section.
        labels: The label contract; its names go into the config.
        seed: Seed of the head, and of every weight where ``config.init`` is random.

    Returns:
        The classifier and the names of its new weights.

    Raises:
        EncoderError: The encoder is missing, unsafe, damaged or of no supported family.
    """
    source = resolve_encoder(config)
    base = find_base(source) if source.kind == "adapter" else source
    settings = _configure(base, config, labels)
    set_seed(seed)
    try:
        with quiet_loading():
            if config.init == "random":
                model = AutoModelForSequenceClassification.from_config(
                    settings, trust_remote_code=config.trust_remote_code
                ).float()
                new = [name for name, _ in model.named_parameters()]
            else:
                model, new = _load_pretrained(source, base, settings, config, seed)
    except LOADING_ERRORS as error:
        raise EncoderError(f"encoder.name: {source.name}: cannot be loaded: {_explain(error)}") from error
    trusted = config.trust_remote_code
    return LoadedEncoder(model, source, tuple(new), str(settings.model_type), labels, trust_remote_code=trusted)


def _configure(base: EncoderSource, config: EncoderConfig, labels: LabelSpace) -> PretrainedConfig:
    """Load an encoder's config and write the task into it."""
    settings = read_config(base, trust_remote_code=config.trust_remote_code)
    settings.num_labels = labels.num_outputs
    settings.id2label = labels.id2label
    settings.label2id = labels.label2id
    settings.problem_type = PROBLEM_TYPES[labels.kind]
    if config.dropout is not None:
        for key, value in settings.to_dict().items():
            if "dropout" in key and isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(settings, key, config.dropout)
    return settings


def _load_pretrained(
    source: EncoderSource, base: EncoderSource, settings: PretrainedConfig, config: EncoderConfig, seed: int
) -> tuple[PreTrainedModel, list[str]]:
    """Load weights and tell which are new; an earlier artefact loses its head here."""
    missing: set[str] = set()
    resized: set[str] = set()
    if source.kind == "adapter":
        model = _load_adapter(source, base, settings)
    else:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base.location,
            revision=base.revision,
            config=settings,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            # A head of another size is dropped; one of the encoder's own weights is caught below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        missing, resized = set(info["missing_keys"]), {key[0] for key in info["mismatched_keys"]}
    head = set(list_head_parameters(model))
    for keys, what in ((missing, "lacks"), (resized, "has, in another shape than config.json says,")):
        if outside := sorted(keys - head):
            raise ValueError(
                f"the checkpoint {what} {len(outside)} weights of the encoder itself, such as {outside[0]}: "
                "it is another architecture or it is damaged"
            )
    new = missing | resized
    inner = f"{model.base_model_prefix}."
    if all(name.startswith(inner) for name in head & missing):
        # The checkpoint is a whole classifier: its head belongs to another task, even where the sizes agree.
        set_seed(seed)
        new |= set(reinitialize_head(model))
    return model, [name for name, _ in model.named_parameters() if name in new]


def find_base(source: EncoderSource) -> EncoderSource:
    """Resolve the encoder that an earlier adapter artefact was made for."""
    name = _read_json(source, ADAPTER_FILE).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise EncoderError(f"encoder.name: {source.name}/{ADAPTER_FILE} names no base. Save the adapter again.")
    base = resolve_encoder(EncoderConfig.model_validate({"name": name}))
    if base.kind == "adapter":
        raise EncoderError(f"encoder.name: {source.name}: its base is an adapter too. Merge that one first.")
    check_base(Path(source.location) / ARTIFACT_FILE, base.location, base.revision)
    return base


def _load_adapter(source: EncoderSource, base: EncoderSource, settings: PretrainedConfig) -> PreTrainedModel:
    """Fold an earlier adapter into its encoder and move that encoder under a head of the new size."""
    from peft import PeftModel

    names = _read_json(source, ARTIFACT_FILE)["labels"]["names"]
    earlier = AutoModelForSequenceClassification.from_pretrained(
        base.location,
        revision=base.revision,
        num_labels=len(names),
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
    )
    merged = merge_adapter(PeftModel.from_pretrained(earlier, source.location))
    model = AutoModelForSequenceClassification.from_config(settings).float()
    prefix = f"{model.base_model_prefix}."
    encoder = {name: value for name, value in merged.state_dict().items() if name.startswith(prefix)}
    model.load_state_dict(encoder, strict=False)
    # The config still names the adapter's own base.
    model.name_or_path = source.location
    return model


def _read_json(source: EncoderSource, file: str) -> dict[str, Any]:
    """Read one settings file of an earlier artefact."""
    try:
        content = json.loads((Path(source.location) / file).read_text(encoding="utf-8"))
        return dict(content)
    except (OSError, ValueError, TypeError) as error:
        where = f"encoder.name: {source.name}/{file}"
        raise explain_reading(where, error, EncoderError, way_out="Save the encoder again.") from error


def _explain(error: BaseException) -> str:
    """Say in one line what a loader's error means and what to do about it."""
    text = str(error).strip()
    lowered = text.lower()
    if "safetensors" in lowered and ("does not appear to have a file named" in lowered or "no file named" in lowered):
        return (
            "no safetensors weights there. Pickled weights are refused: convert them where you trust them with "
            "AutoModel.from_pretrained(name).save_pretrained(folder)."
        )
    if "offline" in lowered or "couldn't connect" in lowered or "locate the file" in lowered or "cached" in lowered:
        return (
            "it is not on this machine and the Hub cannot be reached (HF_HUB_OFFLINE, or no network). "
            "Name a local folder, or download it first with: hf download NAME"
        )
    if "trust_remote_code" in lowered:
        return "it needs code from its repository. Set encoder.trust_remote_code=true only if you trust that code."
    if "for this kind of automodel" in lowered:
        return "its architecture has no sequence classifier. Name an encoder such as BERT, RoBERTa or DeBERTa."
    if "does not recognize this architecture" in lowered or "unrecognized model in" in lowered:
        found = re.search(r"type `([^`]+)`", text)
        what = f"the architecture {found.group(1)!r}" if found else "its architecture"
        return f"{what} is not known to transformers {transformers.__version__}. Name another encoder, or upgrade it."
    reason = name_cause(error)
    if isinstance(error, SafetensorError):
        reason = f"model.safetensors is damaged ({reason})"
    return f"{reason}. Save or download the encoder again, or name another."


def _explain_tokenizer(error: BaseException) -> str:
    """Say what a loader's error means for a tokenizer."""
    lowered = str(error).lower()
    for package in ("sentencepiece", "tiktoken", "protobuf"):
        if package in lowered:
            return (
                f"there is no tokenizer.json, and to make one from what is there takes {package}. Install it with: "
                f"python -m pip install {package}"
            )
    return _explain(error)
