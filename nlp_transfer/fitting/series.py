"""The fits of one run or method, each by its name: an interrupted fit resumes, a finished one is read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from nlp_transfer.contracts import Encoded, Prepared, RunLog, Splits, Track, track_nothing
from nlp_transfer.engine.precision import Precision
from nlp_transfer.fitting.fit import PLAIN, Change, Fitted, fit_model, predict_split
from nlp_transfer.fitting.stages import HookMaker
from nlp_transfer.recipe.schema import Recipe

__all__ = ["Fits", "join_logs"]


@dataclass(frozen=True)
class Fits:
    """Trains models for a method, which decides how many to train and on which data.

    Attributes:
        recipe: Encoder, strategy and training of every fit.
        splits: Label contract, texts, and facts.
        prepared: Tokenized splits, and texts without labels.
        accelerator: Places and wraps the models.
        changes: What methods make of every fit.
        start: Weights that every fit starts from, by name; what is not there starts as pretrained.
        make_hooks: Given the number of updates and a label, the watchers of a loop.
        checkpoints: Folder of checkpoints, a folder in it for each fit that has a name; None for none.
        rows: Names the rows of the run.
        label: What progress bars say.
        track: Shows work other than training.
        precision: Number format of the training.
    """

    recipe: Recipe
    splits: Splits
    prepared: Prepared
    accelerator: Accelerator
    changes: Sequence[Change] = ()
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)
    make_hooks: HookMaker | None = None
    checkpoints: Path | None = None
    rows: str = ""
    label: str = "training"
    track: Track = track_nothing
    precision: Precision = PLAIN

    def train(
        self,
        name: str = "",
        *,
        start: Mapping[str, torch.Tensor] | None = None,
        prepared: Prepared | None = None,
        changes: Sequence[Change] = (),
        keep_weights: bool = False,
    ) -> Fitted:
        """Train a model; the same call after a kill resumes, and ends in the same weights bit for bit.

        The fit's checkpoints are in a folder of its name. A fit whose last checkpoint is that of the last update is
        not trained again.

        Args:
            name: Of the fit, as a folder is called; empty for the only one.
            start: Weights to start from, as ``Fitted.weights`` of an earlier fit holds them; those of all fits where
                absent.
            prepared: Tokenized splits in place of the run's own; the same for the same name.
            changes: What else is made of this fit, behind the changes of all.
            keep_weights: Whether ``Fitted.weights`` is filled.

        Returns:
            The trained model.
        """
        return fit_model(
            self.recipe,
            self.splits,
            prepared or self.prepared,
            self.accelerator,
            make_hooks=self.make_hooks,
            checkpoints=self.checkpoints if self.checkpoints is None or not name else self.checkpoints / name,
            rows=f"{self.rows}/{name}" if name else self.rows,
            label=f"{self.label}, {name}" if name else self.label,
            track=self.track,
            precision=self.precision,
            start=self.start if start is None else start,
            changes=(*self.changes, *changes),
            keep_weights=keep_weights,
        )

    def predict(self, fitted: Fitted, encoded: Encoded) -> np.ndarray:
        """Give a trained model's probabilities for further rows.

        Args:
            fitted: The model, in the form that is saved.
            encoded: Rows that were tokenized like train.

        Returns:
            Float64, shape (N, C).
        """
        settings = self.recipe.evaluation
        held = replace(self.prepared, splits={"further": encoded})
        return predict_split(
            fitted.adapted.model,
            held,
            "further",
            self.accelerator,
            batch_size=settings.batch_size,
            max_tokens=settings.max_tokens,
        )


def join_logs(logs: Sequence[RunLog]) -> RunLog:
    """Give the log of the last of several fits, with the time and the work of all.

    Args:
        logs: At least one, in order.
    """
    return replace(
        logs[-1],
        seconds=sum(log.seconds for log in logs),
        examples=sum(log.examples for log in logs),
        tokens=sum(log.tokens for log in logs),
        padded_tokens=sum(log.padded_tokens for log in logs),
        peak_memory_bytes=max(log.peak_memory_bytes for log in logs),
        resumed_at=[step for log in logs for step in log.resumed_at],
        damaged_checkpoints=[each for log in logs for each in log.damaged_checkpoints],
        methods={kind: said for log in logs for kind, said in log.methods.items()},
    )
