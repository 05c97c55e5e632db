"""Whether an encoder can be used for texts here: told from its files, before anything is read or trained."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from nlp_transfer.errors import EncoderError, name_cause
from nlp_transfer.files import explain_reading

__all__ = ["check_architecture", "check_vocabulary", "check_weights", "suit_tokenizer"]

WHAT_WOULD_DO = (
    "Name an encoder of texts, such as the bundled minilm-l6, or BERT, RoBERTa, DeBERTa, ELECTRA, MPNet or ModernBERT "
    "from the Hub"
)

BIDIRECTIONAL = frozenset({"xlnet"})
"""Families that transformers lists as decoders, although each token reads the whole text."""

FURTHER_INPUTS = {
    "tapas": "tables beside the text",
    "canine": "characters in place of tokens",
    "perceiver": "bytes in place of tokens",
    **dict.fromkeys(("lilt", "layoutlmv2", "layoutlmv3"), "places of words on a page"),
}
"""Families that need more than the tokens of a text."""

PADDING_NAMES = ("[PAD]", "<pad>", "<PAD>", "<|pad|>", "<|padding|>")

LARGEST_HEADER = 100_000_000
"""Bytes; what the safetensors format allows."""


def check_architecture(settings: PretrainedConfig, *, where: str) -> None:
    """Refuse an architecture that gives no vector of a whole text, or needs more than a text.

    Args:
        settings: The encoder's config. One whose code comes from its repository is taken at its word.
        where: What messages name.

    Raises:
        EncoderError: It is a decoder, an encoder-decoder, or made for something else than texts.
    """
    family = str(settings.model_type)
    if getattr(settings, "auto_map", None):
        return
    if family not in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise EncoderError(
            f"{where}: expected an encoder of texts, came {family}, {_name_purpose(family)}. {WHAT_WOULD_DO}."
        )
    if family in FURTHER_INPUTS:
        raise EncoderError(
            f"{where}: expected an encoder of texts, came {family}, which reads {FURTHER_INPUTS[family]}. "
            f"{WHAT_WOULD_DO}."
        )
    is_masked = family in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if settings.is_encoder_decoder:
        raise EncoderError(
            f"{where}: expected an encoder, came {family}, an encoder with a decoder that writes text. {WHAT_WOULD_DO}."
        )
    is_causal = family in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and family not in BIDIRECTIONAL
    if (is_causal and not is_masked) or getattr(settings, "is_decoder", False):
        raise EncoderError(
            f"{where}: expected an encoder, which reads a text in both directions, came {family} as a decoder, in "
            f"which a token sees only those before it. {WHAT_WOULD_DO}."
        )


def _name_purpose(family: str) -> str:
    """What a family that classifies no texts is for."""
    purposes = {
        "which reads pictures and texts": ("ZERO_SHOT_IMAGE_CLASSIFICATION", "VISUAL_QUESTION_ANSWERING"),
        "which reads pictures": ("IMAGE_CLASSIFICATION", "MASKED_IMAGE_MODELING", "OBJECT_DETECTION"),
        "which reads sound": ("AUDIO_CLASSIFICATION", "CTC", "SPEECH_SEQ_2_SEQ"),
    }
    for purpose, tasks in purposes.items():
        for task in tasks:
            if family in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}):
                return purpose
    return "for which transformers has no classifier of texts"


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, settings: PretrainedConfig, *, where: str) -> None:
    """Refuse a tokenizer that does not go with its encoder.

    Where a folder holds no tokenizer, `transformers` makes one that knows nothing but its special tokens.

    Args:
        tokenizer: As it was loaded.
        settings: The encoder's config.
        where: What messages name.

    Raises:
        EncoderError: It knows no words, or numbers that the encoder has no embedding for.
    """
    vocabulary = tokenizer.get_vocab()
    # Not the length, which some families count with gaps between their special tokens.
    if set(vocabulary.values()) <= set(tokenizer.all_special_ids):
        raise EncoderError(
            f"{where}: expected a tokenizer, came none: there is no tokenizer.json or vocabulary. "
            "Save the tokenizer into the same folder with save_pretrained."
        )
    num_known = getattr(settings, "vocab_size", None)
    if not isinstance(num_known, int):
        return
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= num_known)
    if not beyond:
        return
    came = f"{where}: expected a tokenizer of at most {num_known:,} tokens, as the encoder has, came one of "
    number, token = beyond[0]
    if {number for number, _ in beyond} <= set(tokenizer.added_tokens_decoder):
        raise EncoderError(
            f"{came}{max(vocabulary.values()) + 1:,}: {len(beyond)} tokens were added, such as {token!r} with the "
            f"number {number}, and the embeddings were not resized. Where they were made: "
            "model.resize_token_embeddings(len(tokenizer)), then save both."
        )
    raise EncoderError(
        f"{came}{max(vocabulary.values()) + 1:,}. It belongs to another encoder: save the right one there."
    )


def suit_tokenizer(tokenizer: PreTrainedTokenizerBase, settings: PretrainedConfig, *, where: str) -> list[str]:
    """Mend in a tokenizer what is known to be safe; what is mended is saved with it.

    Type ids that the encoder has no embedding for are left out, which it reads as zeros, as encoders with one type
    are meant to be read. A padding token that nobody named is chosen among tokens that are there.

    Args:
        tokenizer: As it was loaded; it is changed.
        settings: The encoder's config.
        where: What messages name.

    Returns:
        What was decided, a sentence each.

    Raises:
        EncoderError: There is no padding token, and none to choose.
    """
    notes = []
    if "token_type_ids" in tokenizer.model_input_names:
        emitted = tokenizer("a", "b")
        highest = max(emitted.get("token_type_ids") or [0])
        num_types = getattr(settings, "type_vocab_size", None)
        if (isinstance(num_types, int) and 0 < num_types <= highest) or not _takes_types(settings):
            names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
            tokenizer.model_input_names = names
            # What is saved is what a tokenizer was made with.
            tokenizer.init_kwargs["model_input_names"] = names
            if num_types:
                notes.append(f"{where}: the encoder has one type of token, so the texts of a pair get no type ids.")
    if tokenizer.pad_token_id is None:
        token = _choose_padding(tokenizer, settings)
        if token is None:
            raise EncoderError(
                f"{where}: expected a tokenizer with a padding token, came one without, and none that could serve. "
                "Add one where the encoder was made: tokenizer.add_special_tokens({'pad_token': '[PAD]'}), "
                "model.resize_token_embeddings(len(tokenizer)), then save both."
            )
        tokenizer.pad_token = token
        notes.append(f"{where}: the tokenizer names no padding token; {token} was taken, and is saved with it.")
    return notes


def _takes_types(settings: PretrainedConfig) -> bool:
    """Whether the family's classifier takes type ids; yes where that cannot be told."""
    name = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(str(settings.model_type))
    if name is None or getattr(settings, "auto_map", None):
        return True
    model = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(settings)]
    return "token_type_ids" in model.forward.__code__.co_varnames or _wraps(model.forward)


def _wraps(function: Any) -> bool:
    """Whether a decorated function's own one takes type ids."""
    inner = getattr(function, "__wrapped__", None)
    return inner is not None and ("token_type_ids" in inner.__code__.co_varnames or _wraps(inner))


def _choose_padding(tokenizer: PreTrainedTokenizerBase, settings: PretrainedConfig) -> str | None:
    """A token to pad with: the one of the config, else one that is called so; never a word of the language."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    wanted = getattr(settings, "pad_token_id", None)
    known = {*PADDING_NAMES, *tokenizer.all_special_tokens}
    for token, number in vocabulary.items():
        if number == wanted and token in known:
            return token
    return next((token for token in PADDING_NAMES if token in vocabulary), None)


def check_weights(folder: Path, settings: PretrainedConfig, *, where: str) -> None:
    """Hold the shapes in a folder's safetensors against its config, without reading the weights.

    Args:
        folder: A plain encoder.
        settings: Its config.
        where: What messages name.

    Raises:
        EncoderError: A file is missing, cut or no safetensors, or holds weights of another architecture or size.
    """
    if getattr(settings, "auto_map", None):
        return
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _list_files(folder, where):
        shapes |= _read_shapes(file, f"{where}: {file.name}")
    with torch.device("meta"):
        model = AutoModel.from_config(settings)
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
    prefix = f"{model.base_model_prefix}."
    found = {name: shapes.get(name, shapes.get(f"{prefix}{name}")) for name in expected}
    if expected and not any(shape is not None for shape in found.values()):
        # Older files name layer norms in another way; other names than these tell nothing.
        raise EncoderError(
            f"{where}: expected the weights of {settings.model_type}, as config.json says, such as "
            f"{next(iter(expected))}, came others, such as {next(iter(shapes), 'none')}. Save or download the encoder "
            "again."
        )
    for name, shape in found.items():
        if shape is not None and shape != expected[name]:
            raise EncoderError(
                f"{where}: expected {name} of {list(expected[name])} numbers, came {list(shape)}, which is another "
                "shape than config.json says: the two belong to different encoders. Save or download the encoder again."
            )


def _list_files(folder: Path, where: str) -> list[Path]:
    """The files that hold the weights."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise explain_reading(
            f"{where}/{index.name}", error, EncoderError, way_out="Save or download the encoder again."
        ) from error
    missing = [name for name in names if not (folder / str(name)).is_file()]
    if missing:
        raise EncoderError(
            f"{where}: expected {len(names)} files of weights, as {index.name} says, came without {missing[0]}. "
            "Download the encoder again."
        )
    return [folder / str(name) for name in names]


def _read_shapes(file: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Read the header of a safetensors file: name to shape.

    Source:
        https://huggingface.co/docs/safetensors, "Format": eight bytes of length, JSON, then the weights.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, LARGEST_HEADER):
                raise ValueError("the file is cut, or no safetensors")
            header = json.loads(stream.read(length))
        tensors: Mapping[str, Any] = {name: value for name, value in header.items() if name != "__metadata__"}
        end = 8 + length + max((value["data_offsets"][1] for value in tensors.values()), default=0)
        shapes = {name: tuple(value["shape"]) for name, value in tensors.items()}
    except OSError as error:
        raise explain_reading(where, error, EncoderError, way_out="Save or download the encoder again.") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        cause = "the file is cut, or no safetensors" if isinstance(error, struct.error) else name_cause(error)
        raise EncoderError(f"{where} is damaged ({cause}). Save or download the encoder again.") from error
    if size != end:
        raise EncoderError(
            f"{where} is damaged: expected {end:,} bytes, came {size:,}. Save or download the encoder again."
        )
    return shapes
