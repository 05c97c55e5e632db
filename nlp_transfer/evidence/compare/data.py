"""The user's table as every rung gets it: loaded once, tokenized once, and refused where it cannot be compared on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nlp_transfer.contracts import Prepared, Splits
from nlp_transfer.data.encode import encode_splits, resolve_max_length
from nlp_transfer.data.fingerprints import identify_rows
from nlp_transfer.data.load import load_splits
from nlp_transfer.errors import DataError
from nlp_transfer.evidence.compare.trials import Reference
from nlp_transfer.models.encoder import open_encoder
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

__all__ = ["Table", "build_reference", "load_table", "read_sections"]


@dataclass(frozen=True)
class Table:
    """What is compared on.

    Attributes:
        reference: Rows and labels.
        prepared: The same, tokenized; runs find it in the cache.
        rows: Names the rows of all splits.
        width: Hidden size of the encoder.
        encoder: Its name, Hub id and revision.
    """

    reference: Reference
    prepared: Prepared
    rows: str
    width: int
    encoder: Mapping[str, Any]


def read_sections(changes: Mapping[str, Any]) -> tuple[DataConfig, TaskConfig]:
    """Read the data and task sections that dotted keys describe."""
    recipe = load_recipe({"strategy": {"kind": "full"}}, dict(changes))
    return recipe.data, recipe.task


def build_reference(splits: Splits) -> Reference:
    """Read labels and row names.

    Args:
        splits: Loaded tables.

    Returns:
        What every rung is scored on.

    Raises:
        DataError: Validation or test has no labels.
    """
    labels, ids = {}, {}
    for split in ("train", "validation", "test"):
        if not splits.is_labelled(split):
            raise DataError(
                f"{splits.facts.source}: expected labels in {split}, found none: what has no labels cannot be "
                "compared on. Give a split with labels, or leave its file out and one is drawn from train."
            )
        table = splits.tables[split]
        labels[split] = splits.read_labels(split)
        if split != "train":
            ids[split] = [str(value) for value in table["id"][:]]
    return Reference(splits, labels, ids)


def load_table(changes: Mapping[str, Any], source: object | None) -> Table:
    """Load and tokenize the table.

    Args:
        changes: Dotted keys of data, encoder and task.
        source: Data in memory, in place of ``data.path``.

    Returns:
        The table.

    Raises:
        DataError: It cannot be used as it stands, or validation or test has no labels.
        EncoderError: The encoder cannot be found.
    """
    recipe = load_recipe({"strategy": {"kind": "full"}}, dict(changes))
    opened = open_encoder(recipe.encoder)
    origin, tokenizer, config = opened.source, opened.tokenizer, opened.settings
    splits = load_splits(recipe.data, recipe.task, seed=0, source=source)
    reference = build_reference(splits)
    max_length = resolve_max_length(tokenizer, config, recipe.data.max_length)
    prepared = encode_splits(splits, tokenizer, recipe.data.model_copy(update={"max_length": max_length}))
    return Table(
        reference,
        prepared,
        identify_rows(prepared),
        int(getattr(config, "hidden_size", None) or getattr(config, "dim", 0) or 0),
        {"name": origin.name, "hub_id": origin.hub_id, "revision": origin.revision},
    )
