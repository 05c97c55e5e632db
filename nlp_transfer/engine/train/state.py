"""Where a run stands, beside its tensors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nlp_transfer.contracts import Evaluation, RunLog

__all__ = ["LoopState"]


@dataclass
class LoopState:
    """Where the loop stands: what a checkpoint must hold beside tensors.

    Attributes:
        rows: Names the rows of the run.
        epoch: Number of the pass over train, from 0.
        position: Windows of it that are behind.
        best_value: The selecting metric at its best, larger is better.
        looks_without_gain: Looks at validation since then.
        kept: What weight decay has left of embeddings that no example reaches, as a share.
        mean_kept: The same, of the running mean of the weights.
        best_kept: The same, of the weights that did best on validation.
        log: What happened so far.
    """

    rows: str = ""
    epoch: int = 0
    position: int = 0
    best_value: float | None = None
    looks_without_gain: int = 0
    kept: float = 1.0
    mean_kept: float = 1.0
    best_kept: float = 1.0
    log: RunLog = field(default_factory=RunLog)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "LoopState":
        """Read a state back."""
        log = dict(record["log"])
        log["evaluations"] = [Evaluation(**entry) for entry in log["evaluations"]]
        return cls(**{**record, "log": RunLog(**log)})
