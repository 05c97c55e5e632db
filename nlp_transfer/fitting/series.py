"""The fits of one run or method, each with a name: an interrupted fit is resumed, a finished fit is read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from nlp_transfer.contracts import Encoded, Prepared, Splits, Track, track_nothing
from nlp_transfer.engine.precision import Precision
from nlp_transfer.fitting.fit import PLAIN, Change, Fitted, fit_model, predict_split
from nlp_transfer.fitting.stages import HookMaker
from nlp_transfer.recipe.schema import Recipe

__all__ = ["Fits"]


@dataclass(frozen=True)
class Fits:
    """Trains models for a method, which decides how many to train and on which data.

    Attributes:
        recipe: Encoder, strategy and training of every fit.
        splits: Label contract, texts, and facts.
        prepared: Tokenized splits, and texts without labels.
        accelerator: Places and wraps the models.
        changes: The methods' changes of every fit.
        make_hooks: Called with the number of updates and a label, returns the hooks of a loop.
        checkpoints: Folder of checkpoints, with a subfolder for each fit that has a name; None for no checkpoints.
        rows: Fingerprint of the run's rows.
        label: Label of progress bars.
        track: Shows work other than training.
        precision: Number format of the training.
    """

    recipe: Recipe
    splits: Splits
    prepared: Prepared
    accelerator: Accelerator
    changes: Sequence[Change] = ()
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
        """Train a model; the same call after a kill resumes the fit and ends in bit-identical weights.

        The fit's checkpoints are in a folder of its name. A fit whose last checkpoint is that of the last update is
        not trained again.

        Args:
            name: Name of the fit, valid as a folder name; empty for the only fit.
            start: Weights to start from: ``Fitted.weights`` of an earlier fit; by default the encoder's own.
            prepared: Tokenized splits in place of the run's own; must be the same for the same name.
            changes: Further changes of this fit, applied after the changes of every fit.
            keep_weights: Whether to fill ``Fitted.weights``.

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
            start=start,
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
