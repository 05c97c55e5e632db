"""The typed objects that the stages of a run hand to each other.

Data flows one way: ``Recipe -> Splits -> Prepared -> RunLog -> Scores -> Report``. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

__all__ = [
    "SPLITS",
    "DataFacts",
    "Encoded",
    "Evaluation",
    "Guide",
    "Hook",
    "LabelSpace",
    "Loader",
    "Prepared",
    "RunLog",
    "Score",
    "Scores",
    "Splits",
    "TaskKind",
    "TokenCounts",
    "Track",
    "track_nothing",
]

TaskKind = Literal["classification", "multi_label", "regression", "ordinal"]

Loader = Literal["transformers", "peft", "nlp_transfer"]
"""The library that loads an artefact."""

SPLITS = ("train", "validation", "test")
"""Names of the splits, in their order everywhere."""


@dataclass(frozen=True)
class LabelSpace:
    """The label contract: what the columns of the logits mean.

    Args:
        kind: The task; decides loss, probabilities and metrics.
        names: One name a logit column, in column order. A regression has one, the name of its target.

    Example:
        >>> space = LabelSpace("classification", ("negative", "positive"))
        >>> space.num_outputs, space.label2id["positive"]
        (2, 1)
    """

    kind: TaskKind
    names: tuple[str, ...]

    @property
    def num_outputs(self) -> int:
        """Count of logit columns."""
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Column number to name, as ``transformers`` configs hold it."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name to column number."""
        return {name: index for index, name in enumerate(self.names)}

    @property
    def is_categorical(self) -> bool:
        """Whether exactly one class is true of each example."""
        return self.kind in ("classification", "ordinal")


@dataclass
class DataFacts:
    """What was found, counted and changed while the data was loaded.

    Attributes:
        source: Where the rows came from, as the user would name it.
        rows: Rows per split, after everything was dropped and drawn.
        label_counts: Per labelled split, examples per label name (for regression empty).
        dropped: Count of rows dropped, by reason.
        leaked: Per pair of splits (``"train/test"``), rows of the second split whose text is also in the first split,
            by kind (``exact``, or ``near``: equal but for case, punctuation and spacing).
        conflicting: Rows whose text also occurs with another label inside the training split.
        truncated: Texts per split that were longer than the encoder reads (filled by the encoding stage).
        unseen: Texts per split of which the encoder knows no token (filled by the encoding stage).
        unknown_share: Share of the tokens per split that the encoder does not know, in [0, 1] (likewise).
        alike: Train rows that become the same tokens as a different text with another label (likewise).
        transfer: Counts of the labelled rows and of the unlabelled texts, and the distance between the two; empty if
            there are no unlabelled texts.
        drawn: Splits that the source lacks and that were drawn from train.
        notes: Decisions made for the user, one sentence each.
        warnings: Things that the user may want to change, one sentence each.
    """

    source: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    label_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    leaked: dict[str, dict[str, int]] = field(default_factory=dict)
    conflicting: int = 0
    truncated: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    unknown_share: dict[str, float] = field(default_factory=dict)
    alike: int = 0
    transfer: dict[str, Any] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn_once(self, warning: str) -> None:
        """Add a warning unless it is there already: a check may run over the same data several times."""
        if warning not in self.warnings:
            self.warnings.append(warning)


@dataclass(frozen=True)
class Splits:
    """Loaded, cleaned and label-mapped tables.

    Attributes:
        tables: Split name to table. Columns: ``id`` (string), ``text`` (string), ``text_b`` (string, pairs only),
            ``label`` (absent if a split has no labels), then the source's further columns. ``label`` is an int64
            class id (classification, ordinal), a list of C floats that are 0 or 1 (multi_label) or a float
            (regression).
        labels: The label contract.
        facts: What was found and counted while loading.
        unlabelled: Texts without labels, a separate table with ``id`` and ``text``; they are never scored and never
            in the report's predictions. None if there are none.
    """

    tables: Mapping[str, Dataset]
    labels: LabelSpace
    facts: DataFacts
    unlabelled: Dataset | None = None

    @property
    def is_pair(self) -> bool:
        """Whether every example holds two texts."""
        return "text_b" in next(iter(self.tables.values())).column_names

    def is_labelled(self, split: str) -> bool:
        """Whether a split has labels to score against."""
        return "label" in self.tables[split].column_names

    def read_labels(self, split: str) -> np.ndarray:
        """The labels of a split, shape (N,), or (N, C) for multi_label."""
        import numpy as np

        return np.asarray(self.tables[split].select_columns(["label"]).with_format("numpy")["label"][:])


@dataclass(frozen=True)
class TokenCounts:
    """Known and unknown tokens of N examples; special tokens and white space are not counted.

    Attributes:
        known: Tokens that the vocabulary has, int32, shape (N,).
        unknown: Unknown tokens, int32, shape (N,).
        is_unseen: Whether the text, or either text of a pair, has no known token, bool, shape (N,).
        keys: Hash of all token ids of an example, uint64, shape (N,): equal for equal ids; 0 if the example was cut.
    """

    known: np.ndarray
    unknown: np.ndarray
    is_unseen: np.ndarray
    keys: np.ndarray

    def select(self, chosen: np.ndarray) -> TokenCounts:
        """The counts of some examples, in the order given."""
        return TokenCounts(self.known[chosen], self.unknown[chosen], self.is_unseen[chosen], self.keys[chosen])

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown, in [0, 1]."""
        unknown = int(self.unknown.sum())
        return unknown / max(1, unknown + int(self.known.sum()))


@dataclass(frozen=True)
class Encoded:
    """One tokenized split; a long text may be several rows (windows).

    Attributes:
        rows: Memory-mapped table with ``input_ids`` and, where the encoder reads them, ``token_type_ids``.
        lengths: Tokens per row, int32, shape (W,).
        examples: Index of the example each row belongs to, int64, shape (W,), ascending.
        labels: Labels of the examples, shape (N,) int64 or float64, or (N, C) float32; None where unlabelled.
        num_examples: N, count of examples.
        truncated: Count of examples of which the encoder does not see every token.
        counts: Known and unknown tokens of the examples; None if they were not counted.
        columns: Further columns by name, each of shape (N, ...), which a loss reads beside labels.
    """

    rows: Dataset
    lengths: np.ndarray
    examples: np.ndarray
    labels: np.ndarray | None
    num_examples: int
    truncated: int
    counts: TokenCounts | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def select(self, chosen: np.ndarray) -> Encoded:
        """Take some of the examples, with all of their rows.

        Args:
            chosen: Indices of examples, int64, shape (M,), in the order wanted; an index may be repeated.

        Returns:
            M examples.
        """
        import numpy as np

        starts = np.searchsorted(self.examples, np.arange(self.num_examples + 1))
        sizes = starts[chosen + 1] - starts[chosen]
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = np.repeat(starts[chosen], sizes) + within
        counts = None if self.counts is None else self.counts.select(chosen)
        return Encoded(
            rows=self.rows.select(rows),
            lengths=self.lengths[rows],
            examples=np.repeat(np.arange(len(chosen)), sizes),
            labels=None if self.labels is None else self.labels[chosen],
            num_examples=len(chosen),
            # The key of a truncated example is 0.
            truncated=0 if counts is None else int((counts.keys == 0).sum()),
            counts=counts,
            columns={name: values[chosen] for name, values in self.columns.items()},
        )

    def join(self, other: Encoded) -> Encoded:
        """Append the examples of another split; both must have labels or neither, and both the same columns.

        Args:
            other: A split that was tokenized in the same way.

        Returns:
            N + M examples, without their token counts.
        """
        import numpy as np
        from datasets import concatenate_datasets

        assert (self.labels is None) == (other.labels is None)
        assert self.columns.keys() == other.columns.keys()
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = np.concatenate([self.labels, other.labels])
        return Encoded(
            rows=concatenate_datasets([self.rows, other.rows]),
            lengths=np.concatenate([self.lengths, other.lengths]),
            examples=np.concatenate([self.examples, other.examples + self.num_examples]),
            labels=labels,
            num_examples=self.num_examples + other.num_examples,
            truncated=self.truncated + other.truncated,
            columns={name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()},
        )


@dataclass(frozen=True)
class Prepared:
    """Everything the engine reads: tokenized splits and how to pad them.

    Attributes:
        splits: Split name to tokenized split.
        labels: The label contract.
        pad: Column name (``input_ids``, ``token_type_ids``) to its padding value.
        padding_side: ``"right"`` or ``"left"``, as the tokenizer pads.
        unlabelled: The texts without labels, tokenized; None if there are none.
    """

    splits: Mapping[str, Encoded]
    labels: LabelSpace
    pad: Mapping[str, int]
    padding_side: str = "right"
    unlabelled: Encoded | None = None


@dataclass(frozen=True)
class Score:
    """One figure with its interval.

    Attributes:
        value: The metric on the whole split.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Count of examples scored.
        spread: Sample standard deviation over seeds; None for a single seed.
        per_seed: The value of each seed, in the order of ``training.seeds``; empty for a single seed.
    """

    value: float
    low: float
    high: float
    n: int
    spread: float | None = None
    per_seed: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The score as the report writes it; the seed fields only if there are several seeds."""
        record = asdict(self)
        if self.spread is None:
            del record["spread"], record["per_seed"]
        else:
            record["per_seed"] = list(self.per_seed)
        return record


Scores = dict[str, dict[str, Score]]
"""Split name to metric name to score."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation split during training.

    Attributes:
        step: Optimizer updates done so far.
        epoch: Passes over the training split done so far, fractions included.
        metrics: Metric name to value.
    """

    step: int
    epoch: float
    metrics: dict[str, float]


@dataclass
class RunLog:
    """What happened while training.

    Attributes:
        steps: Optimizer updates of the run, those before a resume included.
        epochs: Passes over the training split.
        seconds: Wall time inside the loop, resumed parts added up, without evaluation and saving.
        examples: Examples trained on, repeats counted.
        tokens: Real tokens trained on, repeats counted.
        padded_tokens: Tokens processed, padding included.
        losses: Mean loss of every step.
        evaluations: Every evaluation on the validation split.
        best_step: Step of the weights that were kept.
        stopped_early: Whether patience ran out before the last step.
        resumed_at: Steps at which the run was resumed.
        damaged_checkpoints: Checkpoints that were damaged when resuming, and why; an older one was used.
        precision: Number format that was used.
        precision_reason: Why this number format was used.
        packing: Whether rows ran without padding, and why.
        compiled: Whether layers were compiled, and why.
        device: Kind of device, ``cpu`` or ``cuda`` for instance.
        num_processes: Count of processes that trained together.
        peak_memory_bytes: Peak resident size of the process; on a GPU the peak of its allocator.
        collapsed: Whether the model gives one class to every validation example.
        methods: What each method recorded while training, by its kind.
    """

    steps: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    losses: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    best_step: int = 0
    stopped_early: bool = False
    resumed_at: list[int] = field(default_factory=list)
    damaged_checkpoints: list[str] = field(default_factory=list)
    precision: str = "fp32"
    precision_reason: str = ""
    packing: str = ""
    compiled: str = ""
    device: str = "cpu"
    num_processes: int = 1
    peak_memory_bytes: int = 0
    collapsed: bool = False
    methods: dict[str, Any] = field(default_factory=dict)

    @property
    def padding_share(self) -> float:
        """Share of processed tokens that were padding, in [0, 1]."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows the progress of work other than training: called with a label and the total count, it returns a context manager
that yields a callable, which takes the count done since its last call."""


@contextmanager
def track_nothing(label: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    """A `Track` that shows nothing."""
    yield lambda _: None


class Guide(Protocol):
    """Something that steers the loop: it decides which weights train, adds to gradients, or acts after an update.

    A hook only watches; a guide changes weights or gradients. Every call is made on every process. Whatever a guide
    does must be a function of the step, the weights and the tensors that `collect` returns, so that a resumed run
    continues identically.

    Attributes:
        holds_weights: Whether the guide reads or changes the model's weights in place. The model then trains in
            float32 and with its whole vocabulary; a guide that only changes gradients requires neither.
    """

    holds_weights: bool = True

    def start(self, num_steps: int) -> None:  # noqa: ARG002
        """Called once before the first update, with the total number of updates."""
        return

    def before_step(self, epoch: int, step: int) -> None:  # noqa: ARG002
        """Called before the forward passes of an update; ``step`` counts the updates done."""
        return

    def after_backward(self, trained: Mapping[str, torch.Tensor]) -> None:  # noqa: ARG002
        """Called once per update, after the gradients of the whole window are computed and before they are clipped.

        Args:
            trained: Name to parameter that the optimizer updates, with its gradient.
        """
        return

    def after_step(self, step: int) -> None:  # noqa: ARG002
        """Called after the optimizer; ``step`` counts this update too."""
        return

    def collect(self) -> dict[str, torch.Tensor]:
        """Return the tensors, on the CPU, that a resumed run needs."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:  # noqa: ARG002
        """Restore the tensors that `collect` returned."""
        return

    def report(self) -> dict[str, Any]:
        """Give what the log keeps of it, by the kind of the method; called once, behind the last update."""
        return {}


class Hook(Protocol):
    """Something that watches the loop; every call is made on every process."""

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Called after each optimizer update; ``loss`` is None for updates whose loss was not read from the device."""
        ...

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Called after each evaluation on the validation split."""
        ...

    def close(self) -> None:
        """Called once when the loop ends, also when it fails."""
        ...
