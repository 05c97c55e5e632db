"""Push an artefact to the Hub: checked first, sent as one commit, tried again where the way there fails."""

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
"""Pauses before each further try; chosen. The Hub's own client also tries some of its requests again."""

LONGEST_WAIT_SECONDS = 300.0
"""Most that is waited where the Hub names a time; chosen."""

TOO_MANY = 429
SERVER_ERROR = 500
LONGEST_NAME = 96
REPO_PART = re.compile(r"[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?", re.ASCII)
"""What the Hub takes for the name of an owner or of a repository; the length and what follows are its rules too."""

REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}")

# The client's own name for what its transport raises: httpx's, or that of the library that follows it.
TRANSPORT_ERROR: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]

TROUBLES = (TRANSPORT_ERROR, OSError, RuntimeError, ValueError)
"""What the client raises: its own errors, those of the transport, and what it wraps or cannot read."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        plan: What went, file by file.
        url: Of the repository.
        commit: The commit that holds it; None after a dry run.
        is_changed: Whether anything was sent; False where all of it was there already.
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
    """Push an artefact to the Hub as one commit: afterwards the repository is complete, or it is as it was.

    Files of an earlier push that this one does not hold go in the same commit. What is there already is not sent
    again, so a push that broke off goes on when it is started again.

    Args:
        path: The ``model/`` folder of a run, or the run's folder.
        repo_id: OWNER/NAME; made where it is not there.
        private: Whether a repository that is made now can be seen by its owner alone.
        adapter_only: Insist on an adapter, which is pushed as one in any case.
        merged: Fold an adapter into its encoder and push the plain model.
        dry_run: Only check and plan.
        revision: Branch to push to; made where it is not there; the default one where absent.
        say: Told what is waited for.

    Returns:
        What was done.

    Raises:
        ArtifactError: The artefact is unsafe, damaged, or needs an encoder that is not on the Hub.
        HubError: The Hub refuses it.
        HubTroubleError: The Hub could not be reached, however often it was tried.
        StorageError: A file could not be read, or there was no room to merge.
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
        raise HubError(f"{repo_id!r}: expected OWNER/NAME of letters, digits, '-', '_' and '.'. Name a repository so.")
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise HubError(f"--revision: expected a branch such as main or v2, got {revision!r}. Name another.")


def _refuse_offline() -> None:
    """Say at once that nothing can be pushed without a network."""
    if hub_constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or look first: --dry-run.")


def _find_report(folder: Path) -> Mapping[str, Any] | None:
    """The report of the run that an artefact belongs to, where it lies beside it."""
    try:
        report = json.loads((folder.parent / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_its_own = isinstance(report, dict) and report.get("artifact", "model") == folder.name
    return report if is_its_own and isinstance(report.get("scores"), dict) else None


@contextmanager
def _keep(folder: Path) -> Iterator[Path]:
    """The folder as it is."""
    yield folder


@contextmanager
def _merge(folder: Path) -> Iterator[Path]:
    """A copy of an adapter's folder with the update folded into the encoder; gone afterwards."""
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
            raise ArtifactError(f"{folder}: --merged: cannot be folded into its encoder. Push it as it is.") from error
        yield stage / "model"
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _pin_base(api: HfApi, base: Base) -> Base:
    """Find the commit of an adapter's base, and hold the weights there against those that were trained on."""
    info = api.model_info(base.hub_id, revision=base.revision, files_metadata=True)
    if base.weights is not None:
        there = {each.rfilename: each.lfs for each in info.siblings or []}.get("model.safetensors")
        if there is not None and there.sha256 != _hash_file(base.weights):
            raise ArtifactError(
                f"encoder: {base.hub_id} holds other weights on the Hub than those that were trained on, so the "
                "adapter would not fit. Name the revision in encoder.revision, or push the merged model: --merged."
            )
    return replace(base, revision=info.sha)


def _send(api: HfApi, plan: UploadPlan, *, private: bool, revision: str | None) -> tuple[str, bool]:
    """Send what the repository lacks as one commit; give the commit and whether there was anything to send."""
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
        # Whoever else wrote in the meantime is not overwritten: the Hub refuses.
        parent_commit=head,
    ).oid
    found = _list_remote(api, plan.repo_id, commit)
    wrong = sorted(path for path, file in wanted.items() if not _is_same(file, found.get(path)))
    if wrong:
        raise HubError(
            f"{plan.repo_id}: {wrong[0]} is not there as it was sent, after commit {commit}. Look whether the "
            "repository's .gitignore leaves it out, and push again."
        )
    return commit, True


def _give(file: PlannedFile) -> str | bytes:
    """A file's content in a form that the client takes."""
    return file.content if isinstance(file.content, bytes) else str(file.content.resolve())


def _list_remote(api: HfApi, repo_id: str, commit: str | None) -> dict[str, RepoFile]:
    """Files of a commit by their name."""
    tree = api.list_repo_tree(repo_id, recursive=True, revision=commit)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _is_same(file: PlannedFile, there: RepoFile | None) -> bool:
    """Whether the repository holds a file's very bytes, by their hash."""
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
    """Do something with the Hub, again after a pause where the Hub or the way there failed."""
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
    """Turn what the client raised into words, and into the least seconds to wait; None where waiting does not help."""
    # The client wraps what goes wrong in one of its threads.
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, TROUBLES):
        error = error.__cause__
    # It reads some answers before it looks whether they are errors.
    if isinstance(error, json.JSONDecodeError):
        return HubTroubleError(f"{repo_id}: the Hub's answer is no JSON. Run the same command again later."), 0.0
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, repo_id)
    if isinstance(error, TRANSPORT_ERROR | ConnectionError | TimeoutError):
        reason = " ".join(str(error).split()) or type(error).__name__
        return HubTroubleError(
            f"{repo_id}: the connection to the Hub failed ({reason}). Check the network and run the same command "
            "again: what is there already is not sent twice."
        ), 0.0
    if isinstance(error, OSError):
        return StorageError(f"{repo_id}: a file could not be read: {name_cause(error)}. Nothing was published."), None
    return HubError(f"{repo_id}: the Hub refuses the files: {' '.join(str(error).split())}. Nothing was changed."), None


def _explain_status(error: HfHubHTTPError, repo_id: str) -> tuple[TransferError, float | None]:
    """Say what an answer of the Hub means for whoever pushes."""
    status = error.response.status_code
    reason = " ".join((getattr(error, "server_message", None) or str(error)).split())[:300]
    owner = repo_id.partition("/")[0]
    if status == TOO_MANY or status >= SERVER_ERROR:
        after = error.response.headers.get("Retry-After", "")
        trouble = "too many requests" if status == TOO_MANY else "the Hub has trouble"
        told = f"{repo_id}: {trouble} (status {status}). Run the same command again later: it goes on."
        return HubTroubleError(told), float(after) if after.isdecimal() else 0.0
    advice = {
        401: "the Hub does not know who asks. Log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
        403: f"this token may not write to {owner}. Use one that may, or push under your own name.",
        404: f"the Hub has no such repository or branch for this token: {reason}",
        409: "somebody else changed the repository meanwhile. Look at it, and run the same command again.",
        412: "somebody else changed the repository meanwhile. Look at it, and run the same command again.",
    }.get(status, f"the Hub refuses: {reason}")
    return HubError(f"{repo_id}: {advice} Nothing was changed (status {status})."), None
