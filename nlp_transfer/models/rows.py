"""Put tokens into rows that are tokenized already."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["find_ends", "splice_tokens"]


def find_ends(mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Find where each row's tokens begin and end, padding on either side.

    Args:
        mask_BL: 1 for tokens and 0 for padding, shape (B, L).

    Returns:
        Places of the first and of the last token, int64, shape (B,) each.

    Example:
        >>> [ends.tolist() for ends in find_ends(torch.tensor([[1, 1, 0], [0, 1, 1]]))]
        [[0, 1], [1, 2]]
    """
    first_B = mask_BL.argmax(dim=1)
    return first_B, first_B + mask_BL.sum(dim=1) - 1


def splice_tokens(
    inputs: Mapping[str, Tensor], places_B: Tensor, tokens: Sequence[int], types: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Put the same tokens into every row, each at a place of its own; what stands there and behind it moves back.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and maybe ``token_type_ids``, each of shape (B, L).
        places_B: Where the first of them goes, int64, shape (B,), each in [0, L].
        tokens: K ids.
        types: Their type ids; 0 where absent.

    Returns:
        The inputs, each of shape (B, L + K).

    Example:
        >>> rows = {"input_ids": torch.tensor([[5, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> longer = splice_tokens(rows, torch.tensor([1]), [8, 9])
        >>> longer["input_ids"].tolist(), longer["attention_mask"].tolist()
        ([[5, 8, 9, 7, 0]], [[1, 1, 1, 1, 0]])
    """
    num_rows, width = inputs["input_ids"].shape
    count, device = len(tokens), places_B.device
    here_BL = torch.arange(width, device=device).expand(num_rows, width)
    moved_BL = here_BL + count * (here_BL >= places_B[:, None])
    own_BK = places_B[:, None] + torch.arange(count, device=device)
    added = {"input_ids": tokens, "attention_mask": [1] * count, "token_type_ids": types or [0] * count}
    longer = {}
    for name, rows_BL in inputs.items():
        own = torch.tensor(added[name], dtype=rows_BL.dtype, device=device).expand(num_rows, count)
        # Old places and new ones together are every place.
        wide = rows_BL.new_empty(num_rows, width + count)
        longer[name] = wide.scatter_(1, moved_BL, rows_BL).scatter_(1, own_BK, own)
    return longer
