"""What tells one table from another, tokenized or not."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from nlp_transfer.contracts import Encoded, Prepared, Splits

__all__ = ["hash_rows", "hash_tables", "identify_rows"]


def identify_rows(prepared: Prepared) -> str:
    """Hash the tokens and labels of every split in their order, and of the texts without labels.

    A run that goes on must go on with the rows it began with, those it is scored on included.

    Args:
        prepared: Tokenized splits.

    Returns:
        A SHA-256 in hexadecimal; the same for the same rows, however they are stored.
    """
    digest = hashlib.sha256()
    tables = dict(sorted(prepared.splits.items()))
    if prepared.unlabelled is not None:
        tables["unlabelled"] = prepared.unlabelled
    for split, encoded in tables.items():
        digest.update(f"{split} {encoded.num_examples}\n".encode())
        digest.update(encoded.lengths.astype(np.int64).tobytes())
        for values in _list_values(encoded, "input_ids"):
            digest.update(values.astype(np.int64).tobytes())
        if encoded.labels is not None:
            digest.update(np.asarray(encoded.labels).tobytes())
    return digest.hexdigest()


def hash_tables(splits: Splits) -> str:
    """Hash the texts, labels and names of every split in their order, before any encoder reads them.

    Args:
        splits: Loaded tables.

    Returns:
        A SHA-256 in hexadecimal; the same for the same rows, however they are stored.
    """
    digest = hashlib.sha256("\n".join(splits.labels.names).encode())
    for split in sorted(splits.tables):
        table = splits.tables[split]
        for column in sorted(set(table.column_names) & {"id", "text", "text_b", "label"}):
            digest.update(f"\n{split} {column} {len(table)}\n".encode())
            for batch in table.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
                digest.update(json.dumps(batch[column].to_pylist()).encode())
    return digest.hexdigest()


def hash_rows(encoded: Encoded) -> str:
    """Hash what an encoder reads of a split: its tokens and which example they belong to, not its labels.

    Args:
        encoded: A tokenized split.

    Returns:
        A SHA-256 in hexadecimal; another where the same tokens are stored as other integers.
    """
    digest = hashlib.sha256(np.ascontiguousarray(encoded.lengths).tobytes())
    digest.update(np.ascontiguousarray(encoded.examples).tobytes())
    for column in sorted(encoded.rows.column_names):
        digest.update(column.encode())
        for values in _list_values(encoded, column):
            digest.update(values.tobytes())
    return digest.hexdigest()


def _list_values(encoded: Encoded, column: str) -> Iterator[np.ndarray]:
    """The flat values of a list column, some rows at a time."""
    rows = encoded.rows.select_columns([column]).with_format("arrow")
    for batch in rows.iter(batch_size=10_000):
        for chunk in batch[column].chunks:
            yield chunk.flatten().to_numpy(zero_copy_only=False)
