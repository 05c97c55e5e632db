"""Push an artefact to the Hub: check it first, send it as one commit, and retry after network and server errors."""

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from nlp_transfer.errors import (
    ArtifactError,
    EncoderError,
    HubError,
    HubTroubleError,
    StorageError,
    TransferError,
    name_cause,
)
from nlp_transfer.models.artifacts import find_artifact, load_artifact
from nlp_transfer.models.resolve import ADAPTER_FILE, ARTIFACT_FILE, EncoderSource
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.publishing.hub.plan import Base, PlannedFile, UploadPlan, find_base, is_ours, plan_upload
from nlp_transfer.publishing.summary import find_section

__all__ = ["Pushed", "push_artifact"]

WAITS_SECONDS = (2.0, 10.0, 30.0)
"""Pauses before each retry; chosen. The Hub's client also retries some of its requests."""

LONGEST_WAIT_SECONDS = 300.0
"""Longest wait if the Hub's answer asks for a wait; chosen."""

TOO_MANY = 429
SERVER_ERROR = 500
LONGEST_NAME = 96
REPO_PART = re.compile(r"[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?", re.ASCII)
"""Valid name of an owner or a repository on the Hub; LONGEST_NAME and the checks in _check_names are its rules too."""

REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}")

# The client's alias for the error class of its HTTP library, httpx at present.
TRANSPORT_ERROR: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]

TROUBLES = (TRANSPORT_ERROR, OSError, RuntimeError, ValueError)
"""Errors that the client raises: its own, those of the HTTP library, and errors that it wraps or fails to parse."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Pushed:
    """The outcome of a push.

    Attributes:
        plan: The plan with every file.
        url: Address of the repository.
        commit: The commit with the files; None after a dry run.
        is_changed: Whether anything was sent; False if the repository had all files already.
    """

    plan: UploadPlan
    url: str
    commit: str | None
    is_changed: bool


def push_artifact(
    path: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    adapter_only: bool = False,
    merged: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Pushed:
    """Push an artefact to the Hub as one commit: afterwards the repository is complete, or unchanged.

    The same commit deletes files of an earlier push that are not in this one. Files that the repository has already
    are not sent again, so an interrupted push continues when it is started again.

    Args:
        path: The ``model/`` folder of a run, or the run's folder.
        repo_id: OWNER/NAME; created if it does not exist.
        private: Whether a new repository is private.
        adapter_only: Refuse an artefact that is not an adapter; an adapter is pushed as an adapter by default too.
        merged: Merge an adapter into its encoder and push the plain model.
        dry_run: Only check and plan.
        revision: Branch to push to, created if it does not exist; the default branch where absent.
        say: Called with a message before each wait.

    Returns:
        The outcome.

    Raises:
        ArtifactError: The artefact is unsafe, damaged, or needs an encoder that is not on the Hub.
        HubError: The Hub refuses the push.
        HubTroubleError: The Hub could not be reached, after all retries.
        StorageError: A file could not be read, or there was no space to merge.
    """
    _check_names(repo_id, revision)
    if not dry_run:
        _refuse_offline()
    folder = find_artifact(path)
    is_adapter = (folder / ADAPTER_FILE).is_file()
    if adapter_only and merged:
        raise HubError("--adapter-only and --merged: expected one of the two. Leave one out.")
    if (adapter_only or merged) and not is_adapter:
        wish = "--merged" if merged else "--adapter-only"
        raise ArtifactError(f"{folder}: {wish}: expected a LoRA or another peft artefact. Push it without {wish}.")
    api = HfApi()
    report = _find_report(folder)
    talk = say or (lambda _: None)
    with _merge(folder) if merged else _keep(folder) as place:
        base = find_base(place)
        if base is not None and not hub_constants.HF_HUB_OFFLINE:
            known = base
            base = _persist(lambda: _pin_base(api, known), known.hub_id, talk)
        plan = plan_upload(place, repo_id, base=base, report=report)
        url = f"{api.endpoint}/{repo_id}"
        if dry_run:
            return Pushed(plan, url, None, is_changed=False)
        commit, is_changed = _persist(lambda: _send(api, plan, private=private, revision=revision), repo_id, talk)
    return Pushed(plan, url, commit, is_changed)


def _check_names(repo_id: str, revision: str | None) -> None:
    """Refuse names that the Hub cannot have."""
    parts = repo_id.split("/")
    is_valid = len(parts) == 2 and all(REPO_PART.fullmatch(part) for part in parts)
    is_valid = is_valid and len(repo_id) <= LONGEST_NAME and not re.search(r"\.\.|--|\.git$", repo_id)
    if not is_valid:
        raise HubError(f"{repo_id!r}: expected OWNER/NAME of letters, digits, '-', '_' and '.'. Use such a name.")
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise HubError(f"--revision: expected a branch such as main or v2, got {revision!r}. Name another.")


def _refuse_offline() -> None:
    """Refuse at once to push in offline mode."""
    if hub_constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or only list the files: --dry-run.")


def _find_report(folder: Path) -> Mapping[str, Any] | None:
    """Read the report of the artefact's run, if it is in the folder above."""
    try:
        report = json.loads((folder.parent / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_its_own = isinstance(report, dict) and report.get("artifact", "model") == folder.name
    return report if is_its_own and isinstance(report.get("scores"), dict) else None


@contextmanager
def _keep(folder: Path) -> Iterator[Path]:
    """Yield the folder unchanged, in the place of `_merge`."""
    yield folder


@contextmanager
def _merge(folder: Path) -> Iterator[Path]:
    """Yield a temporary copy of an adapter's folder with the update merged into the encoder."""
    artifact = load_artifact(folder)
    encoder = find_section(artifact.metadata, "encoder")
    source = EncoderSource(
        name=str(encoder.get("name") or ""),
        location=str(encoder.get("hub_id") or encoder.get("name") or ""),
        revision=encoder.get("revision"),
        hub_id=encoder.get("hub_id"),
        kind="hub",
    )
    own = ("format", "loader", "labels", "encoder")
    rest = {key: value for key, value in artifact.metadata.items() if key not in own}
    stage = Path(tempfile.mkdtemp(prefix="nlp_transfer-merged-"))
    try:
        try:
            save_artifact(
                stage / "model",
                artifact.model,
                artifact.tokenizer,
                labels=artifact.labels,
                source=source,
                merge=True,
                metadata=rest,
            )
        except EncoderError as error:
            raise ArtifactError(
                f"{folder}: --merged: this adapter cannot be merged into its encoder. Push it without --merged."
            ) from error
        yield stage / "model"
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _pin_base(api: HfApi, base: Base) -> Base:
    """Find the commit of an adapter's base, and compare its weights on the Hub with those used in training."""
    info = api.model_info(base.hub_id, revision=base.revision, files_metadata=True)
    if base.weights is not None:
        there = {each.rfilename: each.lfs for each in info.siblings or []}.get("model.safetensors")
        if there is not None and there.sha256 != _hash_file(base.weights):
            raise ArtifactError(
                f"encoder: the weights of {base.hub_id} on the Hub differ from those used in training, so the adapter "
                "would not fit. Name the revision in encoder.revision, or push the merged model: --merged."
            )
    return replace(base, revision=info.sha)


def _send(api: HfApi, plan: UploadPlan, *, private: bool, revision: str | None) -> tuple[str, bool]:
    """Send the files that the repository lacks as one commit; return the commit and whether anything was sent."""
    api.create_repo(plan.repo_id, private=private or None, exist_ok=True)
    if revision is not None and revision != hub_constants.DEFAULT_REVISION:
        api.create_branch(plan.repo_id, branch=revision, exist_ok=True)
    head = api.model_info(plan.repo_id, revision=revision).sha
    there = _list_remote(api, plan.repo_id, head)
    wanted = {file.path: file for file in plan.files}
    foreign = sorted(path for path in there if path not in wanted and is_ours(path))
    if foreign and ARTIFACT_FILE not in there:
        raise HubError(
            f"{plan.repo_id}: holds a model that this program did not push ({foreign[0]}). Nothing there was touched. "
            "Name another repository, or another branch with --revision."
        )
    new = [file for file in plan.files if not _is_same(file, there.get(file.path))]
    if not new and not foreign:
        return str(head), False
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in foreign),
        *(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=_give(file)) for file in new),
    ]
    commit = api.create_commit(
        plan.repo_id,
        operations,
        commit_message=f"Push a text classifier ({plan.loader})",
        revision=revision,
        # The Hub refuses the commit if somebody else has committed in the meantime.
        parent_commit=head,
    ).oid
    found = _list_remote(api, plan.repo_id, commit)
    wrong = sorted(path for path, file in wanted.items() if not _is_same(file, found.get(path)))
    if wrong:
        raise HubError(
            f"{plan.repo_id}: after commit {commit}, {wrong[0]} is missing or differs from the file that was sent. "
            "Check whether the repository's .gitignore excludes this file, and push again."
        )
    return commit, True


def _give(file: PlannedFile) -> str | bytes:
    """Give a file's content in a form that the client accepts."""
    return file.content if isinstance(file.content, bytes) else str(file.content.resolve())


def _list_remote(api: HfApi, repo_id: str, commit: str | None) -> dict[str, RepoFile]:
    """List the files of a commit by name."""
    tree = api.list_repo_tree(repo_id, recursive=True, revision=commit)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _is_same(file: PlannedFile, there: RepoFile | None) -> bool:
    """Whether the file in the repository has the same bytes, by their hash."""
    if there is None or there.size != file.size:
        return False
    if there.lfs is not None:
        if isinstance(file.content, bytes):
            return bool(there.lfs.sha256 == hashlib.sha256(file.content).hexdigest())
        return bool(there.lfs.sha256 == _hash_file(file.content))
    content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _hash_file(path: Path) -> str:
    """Hash a file without reading it into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _persist(work: Callable[[], Result], repo_id: str, say: Callable[[str], None]) -> Result:
    """Run work that uses the Hub; retry after a pause if the Hub or the network failed."""
    for pause in (*WAITS_SECONDS, None):
        try:
            return work()
        except TROUBLES as error:
            told, wait = _explain(error, repo_id)
            if wait is None or pause is None:
                raise told from error
            seconds = min(max(pause, wait), LONGEST_WAIT_SECONDS)
            say(f"{told} Trying again in {seconds:.0f} s.")
            time.sleep(seconds)
    raise AssertionError("unreachable")


def _explain(error: Exception, repo_id: str) -> tuple[TransferError, float | None]:
    """Turn a client's error into a message and the least seconds to wait; None if a retry would not help."""
    # The client wraps errors of its worker threads.
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, TROUBLES):
        error = error.__cause__
    # The client parses some answers before it checks whether they are errors.
    if isinstance(error, json.JSONDecodeError):
        return HubTroubleError(f"{repo_id}: the Hub's answer is not JSON. Run the same command again later."), 0.0
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, repo_id)
    if isinstance(error, TRANSPORT_ERROR | ConnectionError | TimeoutError):
        reason = " ".join(str(error).split()) or type(error).__name__
        return HubTroubleError(
            f"{repo_id}: the connection to the Hub failed ({reason}). Check the network and run the same command "
            "again: files that the Hub has already are not sent twice."
        ), 0.0
    if isinstance(error, OSError):
        return StorageError(f"{repo_id}: a file could not be read: {name_cause(error)}. Nothing was published."), None
    return HubError(f"{repo_id}: the Hub refuses the files: {' '.join(str(error).split())}. Nothing was changed."), None


def _explain_status(error: HfHubHTTPError, repo_id: str) -> tuple[TransferError, float | None]:
    """Explain an error status of the Hub to the user who pushes."""
    status = error.response.status_code
    reason = " ".join((getattr(error, "server_message", None) or str(error)).split())[:300]
    owner = repo_id.partition("/")[0]
    if status == TOO_MANY or status >= SERVER_ERROR:
        after = error.response.headers.get("Retry-After", "")
        trouble = "too many requests" if status == TOO_MANY else "the Hub has trouble"
        told = f"{repo_id}: {trouble} (status {status}). Run the same command again later: the push continues."
        return HubTroubleError(told), float(after) if after.isdecimal() else 0.0
    advice = {
        401: "the Hub needs a login. Log in with `hf auth login`, or set HF_TOKEN to a token with write access.",
        403: f"this token has no write access to {owner}. Use a token that has, or push under your own name.",
        404: f"the Hub has no such repository or branch for this token: {reason}",
        409: "somebody else changed the repository meanwhile. Check the repository, and run the same command again.",
        412: "somebody else changed the repository meanwhile. Check the repository, and run the same command again.",
    }.get(status, f"the Hub refuses: {reason}")
    return HubError(f"{repo_id}: {advice} Nothing was changed (status {status})."), None
