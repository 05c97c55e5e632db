import ctypes
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nlp_transfer.data.sources import open_source
from nlp_transfer.errors import ArtifactError, DataError, EncoderError, OutputError, StorageError, TransferError
from nlp_transfer.files import (
    check_new_file,
    check_new_folder,
    copy_folder,
    explain_reading,
    explain_writing,
    find_obstacle,
    find_unreadable,
    settle_modes,
    write_atomically,
)
from nlp_transfer.models.artifacts import load_artifact
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig
from nlp_transfer.runs.ownership import claim_folder

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="modes and capabilities of Linux")


class _Capabilities:
    """What root may beyond others, of this thread; see capget(2)."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        self.data = (ctypes.c_uint32 * 6)()
        self.libc.capget(self.header, self.data)

    def set(self, effective):
        self.data[0] = effective
        if self.libc.capset(self.header, self.data):
            pytest.skip("root cannot be held to modes here")


@pytest.fixture
def place(tmp_path):
    """A folder in which modes count, for root too."""
    held = _Capabilities() if os.geteuid() == 0 else None
    before = held.data[0] if held else 0
    if held:
        held.set(before & ~0b110)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    yield tmp_path
    if held:
        held.set(before)
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o777)


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def list_modes(folder):
    """Modes of files and of folders below one."""
    paths = list(folder.rglob("*"))
    files = {path.stat().st_mode & 0o7777 for path in paths if path.is_file()}
    return files, {path.stat().st_mode & 0o7777 for path in paths if path.is_dir()}


def test_what_a_library_wrote_for_its_owner_alone_gets_the_modes_of_anything_new(tmp_path, umask):
    inner = tmp_path / "stage" / "inner"
    inner.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, inner / "a.safetensors")
    handle, name = tempfile.mkstemp(dir=tmp_path / "stage")
    os.close(handle)
    assert Path(name).stat().st_mode & 0o7777 == 0o600
    settle_modes(tmp_path / "stage")
    write_atomically(tmp_path / "stage" / "b.json", "{}")
    assert list_modes(tmp_path) == ({0o666 & ~umask}, {0o777 & ~umask})
    Path(name).chmod(0o600)
    settle_modes(Path(name))
    assert Path(name).stat().st_mode & 0o7777 == 0o666 & ~umask
    assert len(list((tmp_path / "stage").iterdir())) == 3


def test_a_copy_has_the_modes_of_anything_new(tmp_path, umask):
    (tmp_path / "source" / "inner").mkdir(parents=True, mode=0o700)
    (tmp_path / "source" / "inner" / "a").write_text("a")
    (tmp_path / "source" / "inner" / "a").chmod(0o400)
    copy_folder(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "inner" / "a").read_text() == "a"
    assert list_modes(tmp_path / "target") == ({0o666 & ~umask}, {0o777 & ~umask})


def test_a_place_that_may_not_be_written_to_is_told_from_a_full_disk():
    full = explain_writing("runs/a", OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(full, StorageError)
    assert str(full).endswith(
        "could not be written: No space left on device. Free space and run the same command again."
    )
    denied = explain_writing("runs/a", PermissionError(errno.EACCES, "Permission denied", "/x"))
    assert isinstance(denied, OutputError)
    assert "permission denied. Change the permissions there, or name another folder." in str(denied)
    frozen = explain_writing("runs/a", OSError(errno.EROFS, "Read-only file system"))
    assert str(frozen).endswith("the file system is read-only. Name another folder.")
    rust = explain_writing("runs/a", RuntimeError("I/O error: Permission denied (os error 13)"))
    assert isinstance(rust, OutputError)


def test_a_file_that_may_not_be_read_is_told_from_a_failing_disk_and_from_damage():
    def explain(error):
        return explain_reading("a", error, ArtifactError, way_out="Copy it again.")

    assert "permission denied. Change its permissions" in str(explain(PermissionError(13, "x")))
    assert isinstance(explain(OSError(errno.EIO, "Input/output error")), StorageError)
    damaged = explain(ValueError("bad magic."))
    assert isinstance(damaged, ArtifactError)
    assert str(damaged) == "a cannot be read: bad magic. Copy it again."


def test_what_stands_in_the_way_of_a_path_is_named(place):
    (place / "gone").symlink_to(place / "nothing")
    (place / "circle").symlink_to(place / "circle")
    (place / "shut").mkdir(mode=0o000)
    (place / "file").write_text("")
    assert find_obstacle(place / "gone") == "it is a link that leads to nothing"
    assert find_obstacle(place / "circle") == "its links lead in a circle"
    assert find_obstacle(place / "shut" / "a") == "permission denied"
    assert find_obstacle(place / ("x" * 300)) == "the name is too long for the file system"
    assert {find_obstacle(path) for path in (place, place / "file", place / "none", place / "file" / "a")} == {""}


def test_a_file_to_come_is_tried_without_a_trace(place):
    check_new_file(place / "a.csv", where="--out")
    assert list(place.iterdir()) == []
    (place / "shut").mkdir(mode=0o555)
    with pytest.raises(OutputError, match=r"--out: cannot be written: permission denied\. Change the permissions"):
        check_new_file(place / "shut" / "a.csv", where="--out")
    with pytest.raises(OutputError, match="there is no folder"):
        check_new_file(place / "none" / "a.csv", where="--out")
    with pytest.raises(OutputError, match="is a folder"):
        check_new_file(place / "shut", where="--out")


def test_a_folder_to_come_is_tried_without_a_trace(place):
    check_new_folder(place / "a" / "b", where="--out")
    assert list(place.iterdir()) == []
    (place / "file").write_text("")
    (place / "gone").symlink_to(place / "nothing")
    (place / "shut").mkdir(mode=0o555)
    for path, reason in (
        (place / "file", "--out: is a file"),
        (place / "file" / "b", r"--out: .*/file is a file\. Name a folder"),
        (place / "gone", "is a link that leads to nothing"),
        (place / "shut", "permission denied"),
        (place / "shut" / "a" / "b", "permission denied"),
        (place / ("x" * 300), "too long"),
    ):
        with pytest.raises(OutputError, match=reason):
            check_new_folder(path, where="--out")
    assert sorted(path.name for path in place.iterdir()) == ["file", "gone", "shut"]


@pytest.mark.parametrize("name", ["shut", "shut/run", "file", "file/run", "gone", "x" * 300])
def test_an_output_folder_that_cannot_be_is_refused_with_its_cause(name, place):
    (place / "file").write_text("")
    (place / "gone").symlink_to(place / "nothing")
    (place / "shut").mkdir(mode=0o555)
    recipe = load_recipe({"report": {"output_dir": str(place / name)}})
    with pytest.raises(OutputError) as caught, claim_folder(recipe):
        pass
    said = str(caught.value)
    reasons = ("permission denied", "is a file", "leads to nothing", "too long")
    assert sum(reason in said for reason in reasons) == 1
    assert sorted(path.name for path in place.iterdir()) == ["file", "gone", "shut"]


def forbid(path, mode=0o000):
    path.chmod(mode)


@pytest.fixture
def encoder(place, tiny_encoder):
    return shutil.copytree(tiny_encoder("bert"), place / "encoder")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_of_an_encoder_or_artefact_that_may_not_be_read_is_named_so(file, encoder):
    forbid(encoder / file)
    assert find_unreadable(encoder)[0] == encoder / file
    for read, kind in ((lambda: resolve_encoder(EncoderConfig(name=str(encoder))), EncoderError),
                       (lambda: load_artifact(encoder), ArtifactError)):  # fmt: skip
        with pytest.raises(kind, match=rf"{file} cannot be read: permission denied\. Change its permissions"):
            read()


def test_a_folder_that_may_not_be_entered_is_named_so(encoder, place):
    forbid(encoder)
    for name in (encoder, encoder / "inner"):
        for read in (
            lambda name=name: resolve_encoder(EncoderConfig(name=str(name))),
            lambda name=name: load_artifact(name),
            lambda name=name: open_source(DataConfig(path=str(name))),
        ):
            with pytest.raises(TransferError, match="permission denied") as caught:
                read()
            assert "damaged" not in str(caught.value)


def test_a_recipe_and_a_table_that_may_not_be_read_are_named_so(place):
    for name in ("my.yaml", "d.csv"):
        (place / name).write_text("a,b\n")
        forbid(place / name)
    with pytest.raises(TransferError, match="may not be read"):
        load_recipe(place / "my.yaml")
    with pytest.raises(DataError, match="permission denied"):
        open_source(DataConfig(path=str(place / "d.csv")))


def test_data_that_shadows_a_bundled_name_is_named_either_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / "notes.txt").write_text("notes")
    with pytest.raises(DataError, match=rf"the folder {tmp_path / 'reviews'} was taken.*rename it or run elsewhere"):
        open_source(DataConfig(path="reviews"))
    (tmp_path / "reviews" / "train.csv").write_text("text,label\na,b\nc,d\n")
    (note,) = [each for each in open_source(DataConfig(path="reviews")).findings.notes if "bundled" in each]
    assert "write ./reviews" in note
    assert not any("bundled" in each for each in open_source(DataConfig(path="./reviews")).findings.notes)
