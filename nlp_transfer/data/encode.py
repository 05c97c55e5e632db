"""From tables of text to memory-mapped tables of tokens, cached by what they hold."""

import contextlib
import copy
import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from datasets import Dataset, Features, List, Value

from nlp_transfer.contracts import DataFacts, Encoded, Prepared, Splits, TokenCounts
from nlp_transfer.data.tokens import LongText, RowMaker
from nlp_transfer.data.unseen import TokenCounter, UnseenTally, describe_unseen, find_unseen
from nlp_transfer.errors import DataError, EncoderError
from nlp_transfer.files import explain_writing
from nlp_transfer.recipe.schema import DataConfig

__all__ = [
    "MOST_CUT",
    "encode_splits",
    "encode_table",
    "limit_length",
    "read_labels",
    "read_padding",
    "resolve_max_length",
]

CACHE_FORMAT = 3
"""Raise it whenever the same texts and settings would give other rows, or other counts beside them."""

EXAMPLES_PER_CALL = 1000
"""Examples tokenized and written at once, as `datasets` does it. A table of no more is not worth a file: naming its
cache entry takes as long as tokenizing it, and texts that are only to be predicted leave no trace."""

LARGEST_MODEL_LENGTH = 10**6
"""`transformers` says 10**30 where a tokenizer has no limit; anything above this means none. Chosen."""

COUNTED = ["example", "is_cut", "known", "unknown", "is_unseen", "key"]
"""Columns of a cache entry that are no tokens: to which example a row belongs, and in the first row of each example
what was counted in it."""

MOST_CUT = 0.2
"""Share of train texts that may be read in part only before the user is told; chosen."""

OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "ibert"}
    | {"roberta-prelayernorm", "xmod", "luke", "esm", "lilt", "markuplm"}
)
"""Families that count positions from after the padding index, so that they read that many tokens fewer."""


def resolve_max_length(tokenizer: Any, model_config: Any, wanted: int, *, reserved: int = 0) -> int:
    """Cap the wanted length at what tokenizer and encoder can read.

    Args:
        tokenizer: A `transformers` tokenizer.
        model_config: The encoder's configuration, or None.
        wanted: ``data.max_length``, special tokens included.
        reserved: Places that prompts take in front of the text.

    Returns:
        At most ``wanted`` tokens.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(model_type="roberta", max_position_embeddings=514, pad_token_id=1)
        >>> resolve_max_length(SimpleNamespace(model_max_length=10**30), config, 600)
        512
    """
    limits = [wanted]
    if tokenizer.model_max_length <= LARGEST_MODEL_LENGTH:
        limits.append(int(tokenizer.model_max_length) - reserved)
    positions = getattr(model_config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        if model_config.model_type in OFFSET_POSITIONS:
            padding = getattr(model_config, "pad_token_id", None)
            positions -= (padding if padding is not None else 1) + 1
        limits.append(positions - reserved)
    return min(limits)


def limit_length(tokenizer: Any, model_config: Any, *, reserved: int = 0) -> Any:
    """Let a tokenizer know how much its encoder reads, so that one who says no more than "truncate" gets no error.

    Args:
        tokenizer: A `transformers` tokenizer; it is not changed.
        model_config: The encoder's configuration, or None.
        reserved: Places that prompts take in front of the text.

    Returns:
        A copy to save beside the model; where neither of the two has a limit, it has none.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(model_type="bert", max_position_embeddings=512)
        >>> limit_length(SimpleNamespace(model_max_length=10**30), config).model_max_length
        512
    """
    limited = copy.copy(tokenizer)
    found = resolve_max_length(tokenizer, model_config, LARGEST_MODEL_LENGTH, reserved=reserved)
    if found < LARGEST_MODEL_LENGTH:
        limited.model_max_length = found
    return limited


def read_padding(tokenizer: Any) -> tuple[dict[str, int], str]:
    """Read how a tokenizer pads.

    Args:
        tokenizer: A `transformers` tokenizer.

    Returns:
        The value that pads ``input_ids`` and, where the encoder reads them, ``token_type_ids``; and the side.

    Raises:
        EncoderError: The tokenizer cannot pad.

    Example:
        >>> from types import SimpleNamespace
        >>> names = ["input_ids", "attention_mask"]
        >>> read_padding(SimpleNamespace(pad_token_id=1, model_input_names=names, padding_side="right"))
        ({'input_ids': 1}, 'right')
    """
    if tokenizer.pad_token_id is None:
        raise EncoderError(
            f"encoder: expected a tokenizer with a padding token, got {type(tokenizer).__name__} without one. "
            "Choose a BERT-like encoder."
        )
    pad = {"input_ids": int(tokenizer.pad_token_id)}
    if "token_type_ids" in tokenizer.model_input_names:
        pad["token_type_ids"] = int(tokenizer.pad_token_type_id)
    return pad, str(tokenizer.padding_side)


def encode_splits(
    splits: Splits, tokenizer: Any, config: DataConfig, *, splits_to_encode: Sequence[str] | None = None
) -> Prepared:
    """Tokenize splits, or fetch their tokens from the cache, and fill in what the facts say of tokens.

    Where many train texts are longer than what is read of them, ``splits.facts.warnings`` says so; likewise where there
    are texts of which the encoder knows no token, or where labels hang on what it does not know.

    Args:
        splits: Loaded tables.
        tokenizer: The encoder's tokenizer.
        config: Length, which `resolve_max_length` has capped, and treatment of long texts.
        splits_to_encode: Names of the splits; all where absent.

    Returns:
        Tokenized splits and how to pad them.

    Raises:
        DataError: A text is missing, or ``data.max_length`` leaves no room.
        EncoderError: The tokenizer cannot pad.
        StorageError: The cache cannot be written.

    Example:
        >>> from nlp_transfer.contracts import DataFacts, LabelSpace
        >>> from transformers import BertTokenizer
        >>> tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4})
        >>> table = Dataset.from_dict({"text": ["good good good", "good"], "label": [0, 1]})
        >>> splits = Splits({"train": table}, LabelSpace("classification", ("a", "b")), DataFacts())
        >>> encode_splits(splits, tokenizer, DataConfig(max_length=4)).splits["train"].lengths.tolist()
        [4, 3]
        >>> splits.facts.truncated, splits.facts.unseen
        ({'train': 1}, {'train': 0})
    """
    pad, padding_side = read_padding(tokenizer)

    def encode(name: str, table: Dataset) -> Encoded:
        return encode_table(
            table,
            tokenizer,
            is_pair=splits.is_pair,
            max_length=config.max_length,
            long_text=config.long_text,
            window_overlap=config.window_overlap,
            max_windows=config.max_windows,
            where=name,
        )

    encoded = {}
    for name in splits_to_encode if splits_to_encode is not None else splits.tables:
        encoded[name] = encode(name, splits.tables[name])
        splits.facts.truncated[name] = encoded[name].truncated
    _count_unseen(splits, encoded, tokenizer)
    if "train" in encoded:
        _warn_of_cuts(splits.facts, encoded["train"], config)
    further = None if splits.unlabelled is None else encode("unlabelled", splits.unlabelled)
    return Prepared(encoded, splits.labels, pad, padding_side, further)


def _count_unseen(splits: Splits, encoded: Mapping[str, Encoded], tokenizer: Any) -> None:
    """Count what the encoder does not see, and say where that matters; what train says is not said again of others."""
    facts, is_said = splits.facts, False
    for name in sorted(encoded, key=lambda name: name != "train"):
        if name == "train":
            found = find_unseen(splits.tables[name], encoded[name], tokenizer)
            facts.alike = found.alike
        else:
            # The labels of the others are not looked at, so that no choice can come of them.
            tally = UnseenTally(tokenizer)
            tally.add(splits.tables[name], encoded[name])
            found = tally.find()
        facts.unseen[name], facts.unknown_share[name] = found.unseen, found.unknown_share
        if found.unseen or not is_said:
            for warning in describe_unseen(found, tokenizer, where=name, suggests=not is_said):
                facts.warn_once(warning)
        is_said |= found.is_notable


def _warn_of_cuts(facts: DataFacts, train: Encoded, config: DataConfig) -> None:
    """Say how many texts of train are read in part only, where they are many."""
    share = train.truncated / max(1, train.num_examples)
    if share <= MOST_CUT:
        return
    read = f"data.max_length={config.max_length} tokens"
    way_out = "Raise it, as far as the encoder reads, or set data.long_text=windows."
    if config.long_text == "windows":
        read, way_out = f"data.max_windows={config.max_windows} windows of {read}", "Raise either."
    facts.warn_once(
        f"train: {train.truncated:,} of {train.num_examples:,} texts ({share:.0%}) are longer than {read}; the rest of "
        f"them is not read. {way_out}"
    )


def encode_table(
    table: Dataset,
    tokenizer: Any,
    *,
    is_pair: bool,
    max_length: int,
    long_text: LongText = "truncate",
    window_overlap: float = 0.0,
    max_windows: int | None = None,
    where: str = "data",
    in_memory: bool = False,
) -> Encoded:
    """Tokenize one table, or fetch its tokens from the cache.

    The cache lies beside that of `datasets` (``HF_DATASETS_CACHE``) and is found by texts, tokenizer and settings, not
    by file names or labels. Processes that make the same entry at once do not disturb each other. Small tables are
    tokenized in memory.

    Args:
        table: Columns ``text``, for pairs ``text_b``, and ``label`` where there are labels.
        tokenizer: The encoder's tokenizer.
        is_pair: Whether every example holds two texts.
        max_length: Tokens in a row, special ones included.
        long_text: What happens to texts that do not fit; see `RowMaker`.
        window_overlap: Least share of a window that repeats the one before, in [0, 1).
        max_windows: Most windows of one text; no limit where absent.
        where: What to call the table in messages.
        in_memory: Whether a larger table, too, is tokenized in memory, as for texts that are read once.

    Returns:
        Tokens with what was counted.

    Raises:
        DataError: A text is missing, or ``max_length`` leaves no room.
        StorageError: The cache cannot be written.

    Example:
        >>> from transformers import BertTokenizer
        >>> tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4})
        >>> table = Dataset.from_dict({"text": ["good good"], "text_b": ["good"]})
        >>> encode_table(table, tokenizer, is_pair=True, max_length=8).rows["input_ids"][0]
        [2, 4, 4, 3, 4, 3]
    """
    maker = RowMaker(
        tokenizer,
        is_pair=is_pair,
        max_length=max_length,
        long_text=long_text,
        window_overlap=window_overlap,
        max_windows=max_windows,
    )
    texts = table.select_columns(["text", "text_b"] if is_pair else ["text"])
    _check_texts(texts, where)
    if in_memory or len(table) <= EXAMPLES_PER_CALL:
        stored = _hold_rows(texts, maker)
    else:
        settings = {
            "format": CACHE_FORMAT,
            "tokenizers": tokenizers.__version__,
            "tokenizer": _hash_tokenizer(tokenizer),
            "texts": _hash_texts(texts),
            "template": asdict(maker.template),
            "max_length": max_length,
            "long_text": long_text,
            "windows": (window_overlap, max_windows) if long_text == "windows" else None,
        }
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        stored = _fetch(Path(datasets.config.HF_DATASETS_CACHE) / "nlp_transfer" / f"{key}.arrow", texts, maker, where)
    counts = stored.select_columns(COUNTED).with_format("arrow")[:]
    rows = stored.remove_columns(COUNTED)
    examples = counts["example"].to_numpy()
    firsts = np.flatnonzero(np.diff(examples, prepend=-1))
    return Encoded(
        rows=rows,
        lengths=_measure_lists(rows, "input_ids"),
        examples=examples,
        labels=read_labels(table) if "label" in table.column_names else None,
        num_examples=len(table),
        truncated=int(pc.sum(counts["is_cut"]).as_py() or 0),
        counts=TokenCounts(*(counts[name].to_numpy()[firsts] for name in ("known", "unknown", "is_unseen", "key"))),
    )


def read_labels(table: Dataset) -> np.ndarray:
    """Read the label column as one array.

    Args:
        table: Has a column ``label`` without gaps.

    Returns:
        Shape (N,) int64 for class ids and float64 for numbers, which may differ by little around a large one; shape
        (N, C) float32 for lists.

    Raises:
        DataError: Lists differ in length.

    Example:
        >>> read_labels(Dataset.from_dict({"label": [[0.0, 1.0], [1.0, 1.0]]})).shape
        (2, 2)
    """
    column: pa.ChunkedArray = table.select_columns(["label"]).with_format("arrow")[:]["label"]
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        counts = np.unique(pc.list_value_length(column).to_numpy())
        if len(counts) > 1:
            raise DataError(f"label: expected lists of one length, got lengths {counts.tolist()}.")
        return np.asarray(pc.list_flatten(column).to_numpy(), dtype=np.float32).reshape(len(column), -1)
    return np.asarray(column.to_numpy(), dtype=np.float64 if pa.types.is_floating(column.type) else np.int64)


def _hash_tokenizer(tokenizer: Any) -> str:
    """Hash all that decides which tokens come out; not the limits that earlier calls left behind."""
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        backend["truncation"] = backend["padding"] = None
    else:
        backend = [sorted(tokenizer.get_vocab().items()), repr(sorted(tokenizer.init_kwargs.items(), key=str))]
    kind = [type(tokenizer).__name__, tokenizer.truncation_side, list(tokenizer.model_input_names)]
    return hashlib.sha256(json.dumps([kind, backend], sort_keys=True).encode()).hexdigest()


def _check_texts(texts: Dataset, where: str) -> None:
    """Refuse missing texts."""
    table: pa.Table = texts.with_format("arrow")[:]
    for name in table.column_names:
        if table[name].null_count:
            row = table[name].is_null().index(True).as_py() + 1
            raise DataError(f"{where}: expected a text in every row, got none in row {row} of {name}. Remove the row.")


def _hash_texts(texts: Dataset) -> str:
    """Hash text columns, however they are cut into chunks."""
    digest = hashlib.sha256()
    table: pa.Table = texts.with_format("arrow")[:]
    for name in table.column_names:
        column = table[name]
        lengths, content = hashlib.sha256(), hashlib.sha256()
        for chunk in column.chunks:
            binary = chunk.cast(pa.large_binary())
            lengths.update(pc.binary_length(binary).to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
            _, offsets, values = binary.buffers()
            bounds = np.frombuffer(offsets, dtype=np.int64)[binary.offset : binary.offset + len(binary) + 1]
            if values is not None:
                content.update(memoryview(values)[int(bounds[0]) : int(bounds[-1])])
        digest.update(f"{name}:{len(column)}:{lengths.hexdigest()}:{content.hexdigest()};".encode())
    return digest.hexdigest()


def _measure_lists(rows: Dataset, column: str) -> np.ndarray:
    """Lengths of all lists of a column, int32, shape (W,)."""
    lists: pa.ChunkedArray = rows.with_format("arrow")[:][column]
    return np.asarray(pc.list_value_length(lists).to_numpy()).astype(np.int32, copy=False)


def _fetch(path: Path, texts: Dataset, maker: RowMaker, where: str) -> Dataset:
    """Open the cache entry; make it first where it is missing or cannot be read."""
    if path.is_file():
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            return Dataset.from_file(str(path))
    # A process writes beside the entry and then renames: others see all of it or nothing.
    partial = path.with_name(f".{path.stem}-{os.getpid()}-{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_rows(texts, maker, partial, where)
        os.replace(partial, path)
        return Dataset.from_file(str(path))
    except OSError as error:
        raise explain_writing(
            path.parent,
            error,
            what="could not write tokens to the cache",
            way_out="Free some space, or set HF_DATASETS_CACHE to another folder.",
            elsewhere="set HF_DATASETS_CACHE to another folder",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _describe_rows(tokenizer: Any) -> Features:
    """Columns of a cache entry."""
    columns = {"input_ids": List(Value("int32"))}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = List(Value("int8"))
    counted = {"is_cut": "bool", "known": "int32", "unknown": "int32", "is_unseen": "bool", "key": "uint64"}
    return Features({**columns, "example": Value("int64"), **{name: Value(kind) for name, kind in counted.items()}})


def _make_rows(maker: RowMaker, counter: TokenCounter, batch: pa.Table, indices: Sequence[int]) -> pa.Table:
    """Tokenize some examples and count what their tokens are."""
    texts_b = batch["text_b"].to_pylist() if maker.is_pair else None
    rows, counts, is_cut = maker.make_rows(batch["text"].to_pylist(), texts_b)
    features, template = _describe_rows(maker.tokenizer), maker.template
    made: dict[str, Any] = {"input_ids": [template.wrap(first, second) for first, second in rows]}
    if "token_type_ids" in features:
        made["token_type_ids"] = [template.wrap_types(len(first), len(second)) for first, second in rows]
    made["example"] = np.repeat(np.asarray(indices, dtype=np.int64), counts)
    ids = pa.array(made["input_ids"], features.arrow_schema.field("input_ids").type)
    sizes_W = np.fromiter((len(first) for first, _ in rows), np.int64, len(rows)) if maker.is_pair else None
    bounds = template.find_texts(ids.offsets.to_numpy(), sizes_W)
    counted = counter.count(ids.values.to_numpy(), bounds, np.asarray(counts, dtype=np.int64))
    # Of an example's rows only the first is marked, so that the columns add up to examples.
    firsts = np.cumsum([0, *counts])[: len(counts)]
    keys = np.where(is_cut, np.uint64(0), counted.keys)
    marked = (is_cut, counted.known, counted.unknown, counted.is_unseen, keys)
    for name, marks in zip(COUNTED[1:], marked, strict=True):
        column = np.zeros(len(rows), dtype=np.asarray(marks).dtype)
        column[firsts] = marks
        made[name] = column
    return pa.table({**made, "input_ids": ids}, schema=features.arrow_schema)


def _hold_rows(texts: Dataset, maker: RowMaker) -> Dataset:
    """Tokenize a table in memory, a part at a time, as token ids that are Python objects take much room."""
    whole: pa.Table = texts.with_format("arrow")[:]
    starts = range(0, max(whole.num_rows, 1), EXAMPLES_PER_CALL)
    parts = [whole.slice(start, EXAMPLES_PER_CALL) for start in starts]
    counter = TokenCounter(maker.tokenizer)
    made = [
        _make_rows(maker, counter, part, range(start, start + part.num_rows))
        for start, part in zip(starts, parts, strict=True)
    ]
    return Dataset(pa.concat_tables(made))


def _write_rows(texts: Dataset, maker: RowMaker, path: Path, where: str) -> None:
    """Tokenize a table into an Arrow file."""
    counter = TokenCounter(maker.tokenizer)
    texts.with_format("arrow").map(
        lambda batch, indices: _make_rows(maker, counter, batch, indices),
        with_indices=True,
        batched=True,
        batch_size=EXAMPLES_PER_CALL,
        remove_columns=texts.column_names,
        features=_describe_rows(maker.tokenizer),
        cache_file_name=str(path),
        load_from_cache_file=False,
        # Without it `datasets` would pickle the tokenizer to name a cache entry that is named already.
        new_fingerprint=uuid.uuid4().hex,
        desc=f"Tokenizing {where}",
    )
