"""A finished run: what ``run`` returns, and what ``report.json`` and ``report.html`` hold."""

import errno
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_transfer.contracts import Score, Scores
from nlp_transfer.errors import ArtifactError, find_errno, name_cause
from nlp_transfer.files import explain_reading
from nlp_transfer.models.digests import FileDigests, check_files, hash_files, open_record, seal_record
from nlp_transfer.publishing.summary import find_section, read_score, write_headline
from nlp_transfer.publishing.views import show_plain, to_json_value, write_view

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from nlp_transfer.publishing.hub.push import Pushed

__all__ = ["Report"]

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
PREDICTIONS = "predictions.parquet"


class Report:
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

    def __init__(self, record: Mapping[str, Any], folder: Path | str) -> None:
        self.record: dict[str, Any] = to_json_value(record)
        self.folder = Path(folder)
        self._files: FileDigests = {}

    @classmethod
    def load(cls, folder: Path | str) -> "Report":
        """Read the report of a finished run.

        Args:
            folder: The run's folder.

        Returns:
            The report.

        Raises:
            ArtifactError: There is no report in the folder, it is not one, or it is not the one that was saved.
            StorageError: The machine could not read it.
        """
        path = Path(folder) / REPORT_JSON
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ArtifactError(
                f"{path}: expected the report of a finished run, found none; name a run's folder, or finish the run."
            ) from error
        except OSError as error:
            raise explain_reading(path, error, ArtifactError, way_out="Run the recipe again.") from error
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: expected JSON, got {name_cause(error)}; run the recipe again.") from error
        if not isinstance(record, dict) or not isinstance(record.get("scores"), dict):
            raise ArtifactError(f'{path}: expected an object with "scores", found none; name the folder of a run.')
        content, digests = open_record(record, path)
        report = cls(content, folder)
        report._files = digests.get("files", {})
        return report

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
        return self.folder / str(self.record.get("artifact") or "model")

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """Every prediction on validation and test.

        Raises:
            ArtifactError: The run's folder holds no predictions that can be read, or others than were saved.
        """
        import pandas as pd

        path = self.folder / PREDICTIONS
        check_files({PREDICTIONS: path}, self._files, record=self.folder / REPORT_JSON)
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            if find_errno(error) in (errno.EACCES, errno.EPERM):
                raise explain_reading(path, error, ArtifactError, way_out="") from error
            raise ArtifactError(
                f"{path}: expected the run's predictions, got {type(error).__name__}; run the recipe again."
            ) from error

    def save(self) -> None:
        """Write ``report.json`` and ``report.html`` into the run's folder, each whole or not at all.

        Raises:
            StorageError: The machine could not write.
        """
        from nlp_transfer.publishing.report.page import render_page

        place = self.folder / PREDICTIONS
        self._files = hash_files({PREDICTIONS: place} if place.is_file() else {})
        sealed = seal_record(self.record, files=self._files)
        text = json.dumps(sealed, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
        page = render_page(self.record, self._find_predictions(), folder=self.folder)
        # A lone surrogate of a damaged text cannot be written as UTF-8. The report that marks a run as finished
        # comes last.
        write_view(self.folder, {REPORT_HTML: page}, {REPORT_JSON: text})

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

    def __str__(self) -> str:
        return show_plain(self.__rich__(), width=80)

    def __rich__(self) -> "RenderableType":
        from nlp_transfer.publishing.report.tables import result_block

        return result_block(self.record, self.folder)

    def _repr_html_(self) -> str:
        """Tables and pictures for a notebook, as one fragment of HTML without scripts."""
        from nlp_transfer.publishing.report.page import render_fragment

        return render_fragment(self.record, self._find_predictions(), folder=self.folder)

    def _find_predictions(self) -> "pd.DataFrame | None":
        """The predictions, or None where the run left none."""
        return self.predictions if (self.folder / PREDICTIONS).is_file() else None


def _read_score(record: object) -> Score:
    """Make a score from what the report holds."""
    score = read_score(record)
    value, low, high = (math.nan if score.get(key) is None else float(score[key]) for key in ("value", "low", "high"))
    per_seed = tuple(math.nan if seed is None else float(seed) for seed in score.get("per_seed") or ())
    return Score(value, low, high, int(score.get("n") or 0), score.get("spread"), per_seed)
