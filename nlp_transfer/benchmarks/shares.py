"""How much work a job needs, and what share of the machine's matrix limit every contender reached."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_transfer.benchmarks.rounds import prepare_rows
from nlp_transfer.benchmarks.runners import Bench, call_script
from nlp_transfer.benchmarks.suite import Suite
from nlp_transfer.data.encode import encode_splits, resolve_max_length
from nlp_transfer.data.load import load_splits
from nlp_transfer.errors import OutputError, name_cause
from nlp_transfer.models.encoder import open_encoder
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import EncoderConfig, LayerwiseConfig, Recipe
from nlp_transfer.recipe.strategies.table import find_facts

__all__ = ["Sizes", "add_matrix_shares", "count_forward", "count_job", "count_training", "read_sizes"]

DENSE = {
    "albert": "intermediate_size",
    "bert": "intermediate_size",
    "camembert": "intermediate_size",
    "distilbert": "hidden_dim",
    "electra": "intermediate_size",
    "mpnet": "intermediate_size",
    "roberta": "intermediate_size",
    "xlm-roberta": "intermediate_size",
}
"""Families whose layers are those of BERT, by what their configuration calls the inner size."""


@dataclass(frozen=True)
class Sizes:
    """What the count depends on.

    Attributes:
        hidden: D, size of a token's state.
        inner: F, size inside the feed-forward part.
        layers: Count of layers.
    """

    hidden: int
    inner: int
    layers: int


def read_sizes(config: Any) -> Sizes | None:
    """Read the sizes of an encoder.

    Args:
        config: A `PretrainedConfig`.

    Returns:
        None for a family whose layers are not those of BERT.

    Example:
        >>> from transformers import BertConfig
        >>> read_sizes(BertConfig())
        Sizes(hidden=768, inner=3072, layers=12)
    """
    if config.model_type not in DENSE:
        return None
    return Sizes(config.hidden_size, getattr(config, DENSE[config.model_type]), config.num_hidden_layers)


def count_forward(sizes: Sizes, lengths: np.ndarray) -> float:
    """Count the operations of one layer over texts.

    A token goes through four matrices of D x D (query, key, value, output) and two of D x F, two operations a weight;
    a text of L tokens takes 2 L^2 D for its scores and as many for the mean of the values. Not counted: padding, what
    is done element by element (norms, softmax, GELU, dropout), looking words up, and the head, which reads one state
    a text. Every layer counts in full, as in a dense encoder: leaving work out is a way to be fast, not less work.

    Args:
        sizes: Of the encoder.
        lengths: Real tokens a text, int, shape (N,), special tokens included.

    Returns:
        Floating-point operations, multiplications and additions alike.

    Example:
        >>> count_forward(Sizes(hidden=2, inner=8, layers=1), np.array([1, 3]))
        464.0
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    matrices = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.inner
    return float(2 * matrices * tokens.sum() + 4 * sizes.hidden * (tokens**2).sum())


def count_training(recipe: Recipe, sizes: Sizes, lengths: np.ndarray) -> float | None:
    """Count the operations of the forward and backward passes that training on texts needs.

    A backward pass takes as many for the gradients of states, and as many for those of weights. What no gradient has
    to reach is run once however many epochs there are: a frozen encoder, and the layers below the lowest that learns.
    Inside a frozen encoder (LoRA, adapters, prompts) the gradients of its weights are not needed, and what little is
    added there is not counted. Scoring, saving and updating are no part of it.

    Args:
        recipe: Strategy and epochs.
        sizes: Of the encoder.
        lengths: Real tokens a text of train, int, shape (N,).

    Returns:
        Floating-point operations; None where the strategy has no such count, or the number of steps is set apart.

    Example:
        >>> sizes, recipe = Sizes(hidden=2, inner=8, layers=1), Recipe.model_validate({"training": {"epochs": 2.0}})
        >>> count_training(recipe, sizes, np.array([1, 3])) == 2 * 3 * 464
        True
    """
    strategy, training = recipe.strategy, recipe.training
    if training.max_steps is not None:
        return None
    layer = count_forward(sizes, lengths)
    trains = find_facts(strategy).trains
    if trains == "head":
        return layer * sizes.layers
    if trains == "inside":
        return 2 * layer * sizes.layers * training.epochs
    if isinstance(strategy, LayerwiseConfig):
        if strategy.freeze_layers is None or strategy.unfreeze != "at_once" or strategy.only != "all":
            return None
        return layer * (strategy.freeze_layers + 3 * (sizes.layers - strategy.freeze_layers) * training.epochs)
    return 3 * layer * sizes.layers * training.epochs if trains == "all" else None


LIMITS = "limits.json"


def add_matrix_shares(
    records: Sequence[Mapping[str, Any]], suite: Suite, bench: Bench, *, say: Callable[[str], None] = lambda _: None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Say what share of the machine's matrix limit each contender's time stands for.

    The share is what the job needs (see `count_training` and `count_forward`: real tokens through a dense encoder),
    over the seconds, over the operations per second that a matrix product reaches on this machine in the number
    format, on the device and with the threads of the run. A peer that does not say its format computed in fp32; its
    work is that of the suite's own contender on the job, whose rows it was given.

    Args:
        records: What ``run_suite`` gives.
        suite: What was run.
        bench: Where and how; limits are kept in ``limits.json`` under its ``out``, measured once each.
        say: Told what is measured.

    Returns:
        The records, each with ``matrix_share`` where the work can be counted; and the limits that were used, each with
        ``format``, ``device``, ``threads``, ``flop_per_second`` and ``asked``, the threads that were asked for.

    Raises:
        DataError: A set is missing.
        TransferError: The limit could not be measured.
        StorageError: The disk failed.
    """
    limits = _Limits(bench, say)
    works: dict[tuple[str, str], float | None] = {}
    threads = next((found for found in map(_count_threads, records) if found is not None), None)
    shared = []
    for record in records:
        job, name = record["job"], record["contender"]
        if (job, name) not in works:
            works[job, name] = count_job(suite, bench, job, name)
        work, share = works[job, name], None
        if work is not None and record["seconds"] > 0:
            environment = record.get("environment") or {}
            number_format = environment.get("precision") or record.get("precision") or "fp32"
            device = "cpu" if environment.get("device", record.get("device", "cpu")) == "cpu" else "cuda"
            own = threads if device == "cpu" and _count_threads(record) is None else _count_threads(record)
            limit = limits.find(number_format, device, own if device == "cpu" else None)
            share = work / record["seconds"] / limit["flop_per_second"]
        shared.append({**record, "matrix_share": share})
    return shared, limits.used


def count_job(suite: Suite, bench: Bench, job: str, contender: str) -> float | None:
    """Count the operations that a contender's job needs.

    Args:
        suite: Jobs and contenders.
        bench: Where the rows are, and the encoder.
        job: Which.
        contender: Who; a peer's work is that of the first contender that is a recipe.

    Returns:
        Floating-point operations; None where they have no such count.

    Raises:
        DataError: The set is missing.
    """
    held = suite.jobs[job]
    own = suite.find(job, contender)
    source = prepare_rows(bench.data / held.data, bench.out / "data", held.rows)
    if own.predicts:
        assert held.model is not None
        # Which rows it was trained on is no matter, only how long a text may be.
        recipe = _load(held.model.recipe, held.model.overrides, source, bench)
        return _count(recipe, "test")
    recipes = [suite.find(job, name) for name in suite.contenders if name not in held.skip]
    doer = own if own.recipe is not None else next((other for other in recipes if other.recipe is not None), None)
    if doer is None or doer.after is not None:
        return None
    return _count(_load(doer.recipe, doer.overrides, source, bench), "train")


def _load(name: str | None, overrides: Sequence[str], source: object, bench: Bench) -> Recipe:
    """The recipe as it is run."""
    changes = [f"data.path={source}", f"encoder.name={bench.encoder}", *overrides, "training.seeds=null"]
    return load_recipe(str(name), changes)


def _count(recipe: Recipe, split: str) -> float | None:
    """Count the work on a split: training on train, one pass over any other."""
    opened = open_encoder(EncoderConfig(name=recipe.encoder.name))
    config, tokenizer = opened.settings, opened.tokenizer
    sizes = read_sizes(config)
    # What cannot be counted is not worth tokenizing; one text stands for all.
    if sizes is None or (split == "train" and count_training(recipe, sizes, np.ones(1)) is None):
        return None
    length = resolve_max_length(tokenizer, config, recipe.data.max_length)
    splits = load_splits(recipe.data, recipe.task, seed=recipe.training.seed)
    data = recipe.data.model_copy(update={"max_length": length})
    lengths = encode_splits(splits, tokenizer, data, splits_to_encode=[split]).splits[split].lengths
    return count_training(recipe, sizes, lengths) if split == "train" else _count_pass(sizes, lengths)


def _count_pass(sizes: Sizes, lengths: np.ndarray) -> float:
    """One forward pass through all layers."""
    return sizes.layers * count_forward(sizes, lengths)


def _count_threads(record: Mapping[str, Any]) -> int | None:
    """Threads of all processes of a run together, where it says them."""
    environment = record.get("environment") or {}
    return environment["threads"] * environment.get("processes", 1) if environment.get("threads") else None


class _Limits:
    """Matrix limits of this machine, each measured once a suite."""

    def __init__(self, bench: Bench, say: Callable[[str], None]) -> None:
        self._bench, self._say = bench, say
        self._place = bench.out / LIMITS
        self._known: list[dict[str, Any]] = self._read()
        self.used: list[dict[str, Any]] = []

    def find(self, number_format: str, device: str, threads: int | None) -> dict[str, Any]:
        """The limit in a format on a device, measured in a process of its own if it is not known yet."""
        wanted = (number_format, device, threads)
        found = next((limit for limit in self._known if _name(limit) == wanted), None)
        if found is None:
            self._say(f"matrix limit of {device} in {number_format}")
            command = [sys.executable, "-m", "nlp_transfer.benchmarks.limits", "--format", number_format]
            command += ["--device", device, *([] if threads is None else ["--threads", str(threads)])]
            measured = call_script(command)
            found = {key: measured[key] for key in ("format", "device", "threads", "flop_per_second")}
            found["asked"] = threads
            self._known.append(found)
            write_atomically(self._place, json.dumps(self._known, indent=2) + "\n")
        if found not in self.used:
            self.used.append(found)
        return found

    def _read(self) -> list[dict[str, Any]]:
        """What was measured before."""
        if not self._place.is_file():
            return []
        try:
            known: list[dict[str, Any]] = json.loads(self._place.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(
                f"{self._place}: cannot be read: {name_cause(error)}. Remove it; it is measured again."
            ) from error
        return known


def _name(limit: Mapping[str, Any]) -> tuple[str, str, int | None]:
    """What a limit was asked for."""
    return limit["format"], limit["device"], limit["asked"]
