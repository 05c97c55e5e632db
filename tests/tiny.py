"""Tiny random encoders of every family, and tables to train them on; all made offline, in a blink."""

import functools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from datasets import ClassLabel, Dataset, Features, List, Value
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from nlp_transfer.contracts import SPLITS, DataFacts, LabelSpace, Splits, TaskKind

__all__ = [
    "FAMILIES",
    "PAIR_TYPE_FAMILIES",
    "build_tokenizer",
    "make_config",
    "make_encoder",
    "make_splits",
    "make_texts",
]

MAX_LENGTH = 128
"""Tokens every tiny encoder reads."""

CUES = (
    ("awful", "boring", "broken", "cold", "rude"),
    ("bright", "charming", "fresh", "lovely", "superb"),
    ("average", "decent", "plain", "usual", "ordinary"),
    ("ancient", "dusty", "faded", "forgotten", "worn"),
    ("electric", "modern", "robotic", "shiny", "wired"),
    ("green", "leafy", "muddy", "rainy", "wild"),
    ("crowded", "loud", "noisy", "rushing", "urban"),
    ("calm", "gentle", "quiet", "sleepy", "still"),
)
"""Words that give a class away, one row a class."""

FILLERS = (
    *("the", "a", "this", "that", "our", "their", "story", "hotel", "phone", "meal", "room", "actor", "waiter"),
    *("battery", "garden", "street", "was", "felt", "seemed", "looked", "and", "but", "very", "rather", "quite"),
    *("today", "again", "there", "with", "without", "for", "everyone", "in", "town", "on", "Monday", "naïve"),
)
"""Words that say nothing about the class."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
"""Characters that every vocabulary has."""

HEADS: dict[str, tuple[str, ...]] = {
    "nli": ("CONTRADICTION", "neutral", "Entailment"),
    "classifier": ("class 2", "class 0", "class 1"),
}
"""Checkpoints with a head, and its labels: one for natural language inference, one for three classes of
``make_splits`` in another order."""

PAIR_TYPE_FAMILIES = ("bert", "electra", "deberta-v2", "deberta-v3")
"""Families whose tokenizers tell the two texts of a pair apart with ``token_type_ids``."""


def make_texts(n: int, seed: int = 0, *, min_words: int = 3, max_words: int = 24) -> list[str]:
    """Make n texts of made-up sentences that differ in length."""
    generator = random.Random(seed)
    words = [*FILLERS, *(cue for cues in CUES for cue in cues)]
    return [
        " ".join(generator.choices(words, k=generator.randint(min_words, max_words))).capitalize() + "."
        for _ in range(n)
    ]


def make_splits(
    n: int = 96,
    num_labels: int = 2,
    seed: int = 0,
    *,
    kind: TaskKind = "classification",
    pairs: bool = False,
    names: Sequence[str] | None = None,
) -> Splits:
    """Make learnable splits: n rows to train on, and half of that for validation and test each.

    The cue words of a class give it away. A pair belongs to the class its second text speaks of; a multi-label row
    holds cues of every label that is true; the number of a regression is the share of "superb" among the cues.
    """
    if kind != "regression" and not 2 <= num_labels <= len(CUES):
        raise ValueError(f"num_labels: expected 2 to {len(CUES)}, got {num_labels}.")
    generator = random.Random(seed)
    labels = LabelSpace(kind, ("score",) if kind == "regression" else _name_classes(num_labels, names))
    tables = {}
    for split in SPLITS:
        rows = [
            _make_row(index, kind, num_labels, pairs, generator)
            for index in range(n if split == "train" else max(n // 2, num_labels))
        ]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns["id"] = [f"{split}-{index}" for index in range(len(rows))]
        tables[split] = Dataset.from_dict(columns, features=_describe_columns(labels, pairs))
    facts = DataFacts(source="tiny", rows={split: len(table) for split, table in tables.items()})
    return Splits(tables=tables, labels=labels, facts=facts)


def _name_classes(num_labels: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes, of which there must be as many as asked for."""
    chosen = tuple(names) if names is not None else tuple(f"class {index}" for index in range(num_labels))
    if len(chosen) != num_labels:
        raise ValueError(f"names: expected {num_labels}, got {len(chosen)}.")
    return chosen


def _describe_columns(labels: LabelSpace, pairs: bool) -> Features:
    """Types of the columns, as ``contracts.Splits`` promises them."""
    label = {
        "classification": ClassLabel(names=list(labels.names)),
        "ordinal": ClassLabel(names=list(labels.names)),
        "multi_label": List(Value("float32")),
        "regression": Value("float32"),
    }[labels.kind]
    texts = {"text": Value("string"), **({"text_b": Value("string")} if pairs else {})}
    return Features({"id": Value("string"), **texts, "label": label})


def _make_row(index: int, kind: TaskKind, num_labels: int, pairs: bool, generator: random.Random) -> dict[str, Any]:
    """One row whose text gives its label away."""
    label: Any
    if kind == "multi_label":
        label = [float(generator.random() < 0.4) for _ in range(num_labels)]
        cues = [generator.choice(CUES[column]) for column, is_true in enumerate(label) if is_true]
    elif kind == "regression":
        num_good = index % 5
        label = num_good / 4
        cues = ["superb"] * num_good + ["awful"] * (4 - num_good)
    else:
        label = index % num_labels
        cues = generator.choices(CUES[label], k=generator.randint(2, 4))
    words = generator.choices(FILLERS, k=generator.randint(2, 16)) + cues
    generator.shuffle(words)
    row = {"id": "", "text": " ".join(words).capitalize() + ".", "label": label}
    if pairs:
        row["text_b"] = row["text"]
        row["text"] = " ".join(generator.choices(FILLERS, k=generator.randint(2, 8)))
    return row


def _count_words(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Words and how often they occur, most frequent first, ties by spelling."""
    words = Counter(word for text in texts for word in re.findall(r"\w+", text))
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))


# The trainers of WordPiece and Unigram number their pieces by the order of a hash table, so another process would get
# another vocabulary: these two are put together by hand.
def _make_wordpiece(texts: Sequence[str], specials: Sequence[str]) -> dict[str, int]:
    """Make a WordPiece vocabulary: special tokens, characters, the characters inside words, the frequent words."""
    words = [word for word, _ in _count_words([text.lower() for text in texts])][:120]
    inside = [f"##{letter}" for letter in ALPHABET if letter.isalnum()]
    return {piece: index for index, piece in enumerate(dict.fromkeys((*specials, *ALPHABET, *inside, *words)))}


def _train_byte_bpe(texts: Sequence[str], specials: Sequence[str]) -> Tokenizer:
    """Train a byte-level BPE tokenizer, whose alphabet covers any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _make_unigram(texts: Sequence[str], specials: Sequence[str]) -> list[tuple[str, float]]:
    """Make a Unigram vocabulary with log probabilities: special tokens, frequent words, characters."""
    words = _count_words(texts)[:120]
    total = sum(count for _, count in words)
    pieces = {f"▁{word}": math.log(count / total) for word, count in words}
    # Characters are the last resort: less likely than any word.
    rest = dict.fromkeys(("▁", *ALPHABET, *ALPHABET.upper()), -12.0)
    return [*((piece, 0.0) for piece in specials), *pieces.items(), *rest.items()]


def _build_wordpiece(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return _construct(class_name, vocab=_make_wordpiece(texts, specials))


def _build_mpnet(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    specials = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
    return _construct(class_name, vocab=_make_wordpiece(texts, specials))


def _build_roberta(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    trained = json.loads(_train_byte_bpe(texts, ("<s>", "<pad>", "</s>", "<unk>", "<mask>")).to_str())["model"]
    return _construct(class_name, vocab=trained["vocab"], merges=[tuple(pair) for pair in trained["merges"]])


def _build_xlm_roberta(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return _construct(class_name, vocab=_make_unigram(texts, specials))


def _build_albert(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    specials = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    return _construct(class_name, vocab=_make_unigram([text.lower() for text in texts], specials))


def _build_deberta(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    specials = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
    return _construct(class_name, vocab=_make_unigram(texts, specials))


def _build_modernbert(class_name: str, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    tokenizer = _train_byte_bpe(texts, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return _construct(
        class_name,
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )


def _construct(class_name: str, **arguments: Any) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = getattr(transformers, class_name)(model_max_length=MAX_LENGTH, **arguments)
    return tokenizer


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
    "pooler_dropout": 0.0,
    "pooler_hidden_act": "gelu",
}

# Family -> model type, tokenizer class, its builder, positions (RoBERTa's start after the padding index), the
# settings that make the family what it is, and the dropout keys.
_RECIPES: dict[str, tuple[str, str, Callable[..., PreTrainedTokenizerBase], int, dict[str, Any], tuple[str, ...]]] = {
    "bert": ("bert", "BertTokenizer", _build_wordpiece, MAX_LENGTH, {}, tuple(_NO_DROPOUT)),
    "roberta": ("roberta", "RobertaTokenizer", _build_roberta, MAX_LENGTH + 2, {}, tuple(_NO_DROPOUT)),
    "xlm-roberta": ("xlm-roberta", "XLMRobertaTokenizer", _build_xlm_roberta, MAX_LENGTH + 2, {}, tuple(_NO_DROPOUT)),
    "distilbert": (
        *("distilbert", "DistilBertTokenizer", _build_wordpiece, MAX_LENGTH, {}),
        ("dropout", "attention_dropout", "seq_classif_dropout"),
    ),
    "albert": (
        *("albert", "AlbertTokenizer", _build_albert, MAX_LENGTH, {"embedding_size": 16}),
        (*_NO_DROPOUT, "classifier_dropout_prob"),
    ),
    "electra": ("electra", "BertTokenizer", _build_wordpiece, MAX_LENGTH, {"embedding_size": 16}, tuple(_NO_DROPOUT)),
    "deberta-v2": (
        *("deberta-v2", "DebertaV2Tokenizer", _build_deberta, MAX_LENGTH, {**_DEBERTA, "conv_kernel_size": 3}),
        (*_NO_DROPOUT, "pooler_dropout"),
    ),
    "deberta-v3": (
        *("deberta-v2", "DebertaV2Tokenizer", _build_deberta, MAX_LENGTH),
        {**_DEBERTA, "share_att_key": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "legacy": False},
        (*_NO_DROPOUT, "pooler_dropout"),
    ),
    "mpnet": ("mpnet", "MPNetTokenizer", _build_mpnet, MAX_LENGTH + 2, {}, tuple(_NO_DROPOUT)),
    "modernbert": (
        *("modernbert", "PreTrainedTokenizerFast", _build_modernbert, MAX_LENGTH),
        {"local_attention": 16, "global_attn_every_n_layers": 2},
        ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    ),
}

FAMILIES: tuple[str, ...] = tuple(_RECIPES)
"""Every family that has a tiny encoder."""


@functools.cache
def _vocabulary_texts() -> tuple[str, ...]:
    return tuple(make_texts(300, seed=0))


def build_tokenizer(family: str, texts: Sequence[str] | None = None) -> PreTrainedTokenizerBase:
    """Train the family's own kind of fast tokenizer on the texts, or on made-up ones."""
    _, class_name, build, *_ = _find(family)
    return build(class_name, tuple(texts) if texts is not None else _vocabulary_texts())


def make_config(
    family: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    dropout: float | None = 0.0,
) -> PreTrainedConfig:
    """Describe a tiny model of a family; ``dropout=None`` keeps the family's own rates."""
    model_type, _, _, positions, settings, dropout_keys = _find(family)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": positions,
        # The usual 0.02 leaves so small a model nothing to tell words apart by; chosen.
        "initializer_range": 0.1,
    }
    if family == "distilbert":
        renamed = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        sizes = {renamed.get(key, key): value for key, value in sizes.items() if key != "intermediate_size"}
        sizes["hidden_dim"] = 2 * hidden
    if settings.get("embedding_size"):
        settings = {**settings, "embedding_size": max(hidden // 2, 8)}
    rates = {} if dropout is None else dict.fromkeys(dropout_keys, dropout)
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id,
        "eos_token_id": tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id,
    }
    if family == "modernbert":
        ids |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return AutoConfig.for_model(model_type, **{**sizes, **settings, **rates, **ids})


def make_encoder(
    family: str,
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    dropout: float | None = 0.0,
    texts: Sequence[str] | None = None,
    checkpoint: Literal["base", "masked_lm", "nli", "classifier"] = "base",
) -> Path:
    """Write a randomly initialised encoder and its tokenizer; without a classification head unless asked for one.

    Args:
        family: One of ``FAMILIES``.
        folder: Where config.json, model.safetensors and the tokenizer go; made where absent.
        seed: Seed of the weights; the caller's random state is left alone.
        hidden: Width of the encoder.
        layers: Count of its layers.
        heads: Count of its attention heads.
        dropout: Every dropout rate; None keeps the family's own.
        texts: What the tokenizer is trained on; made-up texts where absent.
        checkpoint: ``base`` as ``AutoModel`` saves it (with a pooler where the family has one), or ``masked_lm`` as
            the Hub mostly has them (with a language-modelling head and no pooler); or one of ``HEADS``.

    Returns:
        The folder.
    """
    tokenizer = build_tokenizer(family, texts)
    config = make_config(family, tokenizer, hidden=hidden, layers=layers, heads=heads, dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kinds: dict[str, Any] = {"base": AutoModel, "masked_lm": AutoModelForMaskedLM}
        if checkpoint in HEADS:
            config.id2label = dict(enumerate(HEADS[checkpoint]))
            config.label2id = {name: index for index, name in config.id2label.items()}
        model = kinds.get(checkpoint, AutoModelForSequenceClassification).from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _find(family: str) -> Any:
    if family not in _RECIPES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {family!r}.")
    return _RECIPES[family]
