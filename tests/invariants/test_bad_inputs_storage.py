"""A disk that is full or failing: status 1 with a message, nothing half written, and the same command goes on later."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors import SafetensorError

from nlp_transfer.engine.train.checkpoint import CheckpointStore
from tests.bad_inputs import (
    LEFTOVERS,
    call_cli,
    check_counted,
    hash_tree,
    list_leftovers,
    make_csv,
    make_rows,
    make_run,
    write,
)

RUN = make_run("d.csv", "training.max_steps=2", "training.checkpoint_every=1")

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """One way in which the machine fails while a run writes.

    Attributes:
        name: What fails.
        patch: Makes it fail.
        words: What the message must hold.
        num_checkpoints: How many checkpoints are whole when it happens.
        has_model: Whether ``model/`` is whole by then.
    """

    name: str
    patch: Patch
    words: tuple[str, ...]
    num_checkpoints: int
    has_model: bool

    def __str__(self) -> str:
        return self.name


def fill_disk(path: Any) -> None:
    """Leave half a file and raise what a full disk raises."""
    Path(path).write_bytes(b"half a fi")
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def fail_open(name: str, number: int = errno.ENOSPC) -> Patch:
    """Files of one name fail when they are written to or read from."""

    def patch_open(patch: pytest.MonkeyPatch) -> None:
        original = Path.open

        def open_or_fail(path: Path, *args: Any, **kwargs: Any) -> Any:
            file = original(path, *args, **kwargs)
            if path.name != name:
                return file
            file.close()
            return BrokenFile(number)

        patch.setattr(Path, "open", open_or_fail)

    return patch_open


class BrokenFile(io.RawIOBase):
    """A file on a disk that is full or failing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def writable(self) -> bool:
        return True

    def write(self, _: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def read(self, _: int = -1) -> bytes:
        raise OSError(self.number, os.strerror(self.number))


def fail_save(target: str, *, after: int = 0, error: type[Exception] | None = None) -> Patch:
    """A function ``save_file(tensors, path)`` that fails after so many calls."""

    def patch_save(patch: pytest.MonkeyPatch) -> None:
        module, _, name = target.rpartition(".")
        original = getattr(__import__(module, fromlist=[name]), name)
        calls: list[Any] = []

        def save(tensors: Any, path: Any, *args: Any, **kwargs: Any) -> None:
            calls.append(path)
            if len(calls) <= after:
                original(tensors, path, *args, **kwargs)
                return
            if error is not None:
                Path(path).write_bytes(b"half a fi")
                raise error("Error while serializing: I/O error: No space left on device (os error 28)")
            fill_disk(path)

        patch.setattr(target, save)

    return patch_save


def fail_parquet(patch: pytest.MonkeyPatch) -> None:
    """No table can be written as parquet."""
    patch.setattr(pd.DataFrame, "to_parquet", lambda self, path, **_: fill_disk(path))


CHECKPOINT = "nlp_transfer.engine.train.checkpoint.save_file"
MODEL = "transformers.modeling_utils.safe_save_file"
FULL = "No space left on device"

# A checkpoint calls save_file three times: random state, weights, optimizer.
FAULTS = [
    Fault("the recipe", fail_open(".recipe.yaml.writing"), ("recipe.yaml", FULL, "Free space"), 0, False),
    Fault("the first checkpoint's random state", fail_save(CHECKPOINT), ("checkpoints", FULL, "Free space"), 0, False),
    Fault("the first checkpoint's weights", fail_save(CHECKPOINT, after=1),
          ("checkpoints", FULL, "choose another report.output_dir"), 0, False),
    Fault("the second checkpoint", fail_save(CHECKPOINT, after=4),
          ("checkpoints", FULL, "earlier checkpoints are untouched"), 1, False),
    Fault("the model", fail_save(MODEL), ("runs/try-2/model", FULL, "continues from the last checkpoint"), 2, False),
    Fault("the model, as safetensors says it", fail_save(MODEL, error=SafetensorError),
          ("runs/try-2/model", FULL, "continues from the last checkpoint"), 2, False),
    Fault("the predictions", fail_parquet, ("predictions", FULL, "Free space"), 2, True),
    Fault("the scores of a seed", fail_open("..seed.json.writing"), ("seed.json", FULL, "Free space"), 2, True),
    Fault("the model card", fail_open(".README.md.writing"), ("README.md", FULL, "Free space"), 2, True),
    Fault("the report's page", fail_open(".report.html.writing"), ("report.html", FULL, "Free space"), 2, True),
    Fault("the report", fail_open(".report.json.writing"), ("report.json", FULL, "run the same command"), 2, True),
    Fault("the report, on a failing disk", fail_open(".report.json.writing", errno.EIO),
          ("report.json", "Input/output error", "run the same command"), 2, True),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path]) -> Path:
    """A folder with an encoder, a table and, once the first test made it, a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny_encoder(), folder / "encoder")
    write("d.csv", make_csv(make_rows(24)))(folder)
    return folder


@pytest.fixture
def place(finished: Path, work_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of that folder with the finished run, which is the current one."""
    if not (finished / "runs").exists():
        with monkeypatch.context() as patch:
            patch.chdir(finished)
            assert call_cli(RUN, monkeypatch, capsys).status == 0
    shutil.copytree(finished, work_dir, dirs_exist_ok=True)
    return work_dir


@contextmanager
def check_failure(folder: Path) -> Iterator[None]:
    """Whatever happens leaves all files that were there as they were, and none half written."""
    before = hash_tree(folder)
    yield
    after = hash_tree(folder)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.endswith(LEFTOVERS) or "/.writing" in path]
    assert not list_leftovers()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_full_disk_ends_with_a_message_and_the_same_command_goes_on(
    fault: Fault, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with check_failure(place):
        with monkeypatch.context() as patch:
            fault.patch(patch)
            outcome = call_cli(RUN, monkeypatch, capsys)
        assert outcome.status == 1, outcome
        assert "Traceback" not in outcome.said
        assert not [word for word in fault.words if word not in outcome.said], outcome.stderr
    second = place / "runs/try-2"
    store = CheckpointStore(second / "checkpoints", keep=9)
    assert len(store.list_steps()) == fault.num_checkpoints
    assert (store.load_newest() is not None, store.skipped) == (fault.num_checkpoints > 0, [])
    assert (second / "model").exists() == fault.has_model
    assert not (second / "report.json").exists()
    assert second.exists() == (fault.num_checkpoints > 0), "a run that left nothing leaves no folder"

    again = call_cli(RUN, monkeypatch, capsys)
    assert again.status == 0, again
    weights = hash_tree(place / "runs/try/model")["model.safetensors"]
    assert hash_tree(second / "model")["model.safetensors"] == weights, "it ends where it would have ended"
    assert (second / "report.json").is_file()


def test_disk_that_takes_no_large_files_ends_with_a_message(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's own refusal, with nothing patched."""
    resource = pytest.importorskip("resource", reason="no limit on files on this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with check_failure(place):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            outcome = call_cli(RUN, monkeypatch, capsys)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert outcome.status == 1, outcome
        assert "checkpoints: a checkpoint could not be written" in outcome.said
        assert "Free space" in outcome.said
    assert not (place / "runs/try-2").exists()


@pytest.mark.parametrize("name", ["d.csv", "my.yaml"])
def test_input_that_cannot_be_read_ends_with_status_1_and_its_name(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("my.yaml", "encoder: {name: encoder}\ndata: {path: d.csv}\n")(place)
    before = hash_tree(place)
    with monkeypatch.context() as patch:
        fail_open(name, errno.EIO)(patch)
        outcome = call_cli(["run", "my.yaml"], monkeypatch, capsys)
    assert outcome.status == 1, outcome
    assert name in outcome.said
    assert "Input/output error" in outcome.said
    assert "Traceback" not in outcome.said
    assert hash_tree(place) == before


def test_full_cache_of_tokens_ends_with_a_message_and_no_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("d.csv", make_csv(make_rows(2000)))(place)
    shutil.rmtree(place / "runs")
    before = hash_tree(place)
    with monkeypatch.context() as patch:
        patch.setattr("nlp_transfer.data.encode._write_rows", lambda texts, maker, path, where: fill_disk(path))
        outcome = call_cli(RUN, monkeypatch, capsys)
    assert outcome.status == 1, outcome
    assert "tokens to the cache" in outcome.said
    assert "HF_DATASETS_CACHE" in outcome.said
    assert hash_tree(place) == before
    assert not list_leftovers()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_full_disk_leaves_no_half_predictions(
    suffix: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(f"out.{suffix}", "mine")(place)
    before = hash_tree(place)
    args = ["predict", "runs/try", "d.csv", "-o", f"out.{suffix}", "--overwrite"]
    with monkeypatch.context() as patch:
        fail_open(f".out.{suffix}.writing")(patch)
        outcome = call_cli(args, monkeypatch, capsys)
    assert outcome.status == 1, outcome
    assert f"out.{suffix}: could not be written" in outcome.said
    assert "Free space" in outcome.said
    assert hash_tree(place) == before
    assert call_cli(args, monkeypatch, capsys).status == 0
    assert (place / f"out.{suffix}").read_bytes() != b"mine"


def test_every_fault_is_run(request: pytest.FixtureRequest) -> None:
    check_counted(FAULTS, request, at_least=12)
