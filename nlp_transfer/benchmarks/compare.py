"""From a suite to its comparison: run what is missing, hold it against each other, write it down."""

from collections.abc import Callable
from typing import Any

from nlp_transfer.benchmarks.picture import write_comparison
from nlp_transfer.benchmarks.rounds import run_suite
from nlp_transfer.benchmarks.runners import Bench
from nlp_transfer.benchmarks.shares import add_matrix_shares
from nlp_transfer.benchmarks.suite import Suite
from nlp_transfer.benchmarks.summary import compare_contenders
from nlp_transfer.files import check_new_folder

__all__ = ["compare_suite"]


def compare_suite(suite: Suite, bench: Bench, *, say: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Run a suite and write ``comparison.json`` and ``comparison.svg`` into ``bench.out``.

    Args:
        suite: Jobs and contenders.
        bench: Where and how.
        say: Told what is run and what it gave.

    Returns:
        The rows that ``comparison.json`` holds, see ``compare_contenders``.

    Raises:
        DataError: A set is missing.
        TransferError: A contender failed.
        OutputError: What is there was found with other settings.
        StorageError: The disk failed.
    """
    check_new_folder(bench.out, where=f"--out: {bench.out}")
    records, limits = add_matrix_shares(run_suite(suite, bench, say=say), suite, bench, say=say)
    rows = compare_contenders(records)
    write_comparison(rows, bench.out, limits=limits)
    return rows
