"""A finished run: what ``run`` returns, and what ``report.json`` and ``report.html`` hold."""

import errno
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_transfer.contracts import Score, Scores
from nlp_transfer.errors import ArtifactError, find_errno
from nlp_transfer.files import explain_reading
from nlp_transfer.models.digests import check_files, hash_files
from nlp_transfer.publishing.result import Result
from nlp_transfer.publishing.summary import find_section, read_score, write_headline

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from nlp_transfer.publishing.hub.push import Pushed

__all__ = ["Report"]

REPORT_JSON = "report.json"
PREDICTIONS = "predictions.parquet"


class Report(Result):
    """One finished run: scores, facts and predictions; shows itself in a terminal and in a notebook.

    Args:
        record: What ``report.json`` holds. It is copied; figures that are not finite become None.
        folder: The run's folder.

    Example:
        >>> score = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 50}
        >>> report = Report({"scores": {"test": {"accuracy": score}}}, Path("runs/quickstart"))
        >>> report.scores["test"]["accuracy"].value, report.model_path.name
        (0.9, 'model')
        >>> report
        Report('runs/quickstart': Accuracy 0.900 [0.800, 1.000] on 50 test examples)
    """

    file = REPORT_JSON
    name = "the report of a finished run"
    missing = "Name a run's folder, or finish the run."
    damaged = "Run the recipe again."
    width = 80

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is no report."""
        if not isinstance(record["scores"], dict):
            raise ValueError("no scores in it")

    @cached_property
    def scores(self) -> Scores:
        """Split name to metric name to score; a value that is undefined is nan."""
        return {
            split: {metric: _read_score(score) for metric, score in metrics.items()}
            for split, metrics in find_section(self.record, "scores").items()
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe."""
        return find_section(self.record, "recipe")

    @property
    def model_path(self) -> Path:
        """Folder of the artefact."""
        return self.place / str(self.record.get("artifact") or "model")

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """Every prediction on validation and test.

        Raises:
            ArtifactError: The run's folder holds no predictions that can be read, or others than were saved.
        """
        import pandas as pd

        path = self.place / PREDICTIONS
        check_files({PREDICTIONS: path}, self.digests, record=self.place / REPORT_JSON)
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            if find_errno(error) in (errno.EACCES, errno.EPERM):
                raise explain_reading(path, error, ArtifactError, way_out="") from error
            raise ArtifactError(
                f"{path}: expected the run's predictions, got {type(error).__name__}; run the recipe again."
            ) from error

    def save(self, folder: Path | str | None = None) -> None:
        """Write ``report.json`` and ``report.html`` into the run's folder, each whole or not at all.

        Args:
            folder: In place of the run's own.

        Raises:
            StorageError: The machine could not write.
        """
        predictions = self.place / PREDICTIONS
        self.digests = hash_files({PREDICTIONS: predictions} if predictions.is_file() else {})
        super().save(folder)

    def render(self, *, is_page: bool) -> str:
        """Tables and pictures as a page, or as a fragment for a notebook, without scripts."""
        from nlp_transfer.publishing.report.page import render_fragment, render_page

        render = render_page if is_page else render_fragment
        return render(self.record, self._find_predictions(), folder=self.folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        adapter_only: bool = False,
        merged: bool = False,
        dry_run: bool = False,
        revision: str | None = None,
    ) -> "Pushed":
        """Push the run's artefact to the Hub as one commit; see ``nlp_transfer.publishing.hub.push.push_artifact``.

        Args:
            repo_id: OWNER/NAME; made where it is not there.
            private: Whether a repository that is made now can be seen by its owner alone.
            adapter_only: Insist on an adapter.
            merged: Fold an adapter into its encoder and push the plain model.
            dry_run: Only check and plan.
            revision: Branch to push to; made where it is not there.

        Returns:
            What was done: the plan, file by file, the repository's address and the commit.

        Raises:
            ArtifactError: The artefact is unsafe, damaged, or needs an encoder that is not on the Hub.
            HubError: The Hub refuses it.
            HubTroubleError: The Hub could not be reached.
        """
        from nlp_transfer.publishing.hub.push import push_artifact

        return push_artifact(
            self.model_path,
            repo_id,
            private=private,
            adapter_only=adapter_only,
            merged=merged,
            dry_run=dry_run,
            revision=revision,
        )

    def __repr__(self) -> str:
        return f"Report({str(self.folder)!r}: {write_headline(self.record)})"

    def __rich__(self) -> "RenderableType":
        from nlp_transfer.publishing.report.console import result_block

        return result_block(self.record, self.place)

    def _find_predictions(self) -> "pd.DataFrame | None":
        """The predictions, or None where the run left none."""
        return self.predictions if self.folder is not None and (self.folder / PREDICTIONS).is_file() else None


def _read_score(record: object) -> Score:
    """Make a score from what the report holds."""
    score = read_score(record)
    value, low, high = (math.nan if score.get(key) is None else float(score[key]) for key in ("value", "low", "high"))
    per_seed = tuple(math.nan if seed is None else float(seed) for seed in score.get("per_seed") or ())
    return Score(value, low, high, int(score.get("n") or 0), score.get("spread"), per_seed)
