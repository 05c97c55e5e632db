"""What tells one tokenized table from another."""

import hashlib

import numpy as np

from nlp_transfer.contracts import Prepared

__all__ = ["identify_rows"]


def identify_rows(prepared: Prepared) -> str:
    """Hash the tokens and labels of every split in their order.

    A run that goes on must go on with the rows it began with, those it is scored on included.

    Args:
        prepared: Tokenized splits.

    Returns:
        A SHA-256 in hexadecimal; the same for the same rows, however they are stored.
    """
    digest = hashlib.sha256()
    for split in sorted(prepared.splits):
        encoded = prepared.splits[split]
        digest.update(f"{split} {encoded.num_examples}\n".encode())
        digest.update(encoded.lengths.astype(np.int64).tobytes())
        tokens = encoded.rows.select_columns(["input_ids"]).with_format("arrow")
        for start in range(0, len(tokens), 100_000):
            for chunk in tokens[start : start + 100_000].column("input_ids").chunks:
                digest.update(chunk.flatten().to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
        if encoded.labels is not None:
            digest.update(np.asarray(encoded.labels).tobytes())
    return digest.hexdigest()
