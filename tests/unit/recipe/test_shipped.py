"""Shipped recipes by name: listed, read, copied; nothing outside their folder is reached."""

import errno
import os
from pathlib import Path

import pytest

from nlp_transfer.errors import OutputError, RecipeError, StorageError
from nlp_transfer.recipe import shipped
from nlp_transfer.recipe.shipped import (
    copy_shipped,
    find_shipped,
    find_shipped_name,
    list_shipped,
    list_shipped_names,
    locate_shipped,
    read_recipe_file,
    read_shipped,
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as a wheel leaves it, with two recipes and traps beside them."""
    package = tmp_path / "site" / "nlp_transfer"
    (package / "recipe").mkdir(parents=True)
    inside = package / "_recipes"
    (inside / "task").mkdir(parents=True)
    (inside / "quickstart.yaml").write_text("description: First.\n")
    (inside / "task" / "lora.yaml").write_text("description: Second.\n")
    (inside / "RESULTS.md").write_text("no recipe")
    (package.parent / "secret.yaml").write_text("description: Outside.\n")
    (inside / "link.yaml").symlink_to(package.parent / "secret.yaml")
    monkeypatch.setattr(shipped, "__file__", str(package / "recipe" / "shipped.py"))
    return inside


def test_in_a_checkout_the_recipes_beside_the_package_are_used():
    root = Path(shipped.__file__).parents[2]
    assert locate_shipped() == root / "recipes"


def test_in_a_wheel_the_recipes_inside_the_package_are_used(installed):
    assert locate_shipped() == installed
    assert list_shipped() == {"quickstart": "First.", "task/lora": "Second."}


def test_a_folder_named_recipes_beside_an_installed_package_is_not_taken_for_them(installed):
    other = installed.parents[1] / "recipes"
    other.mkdir()
    (other / "quickstart.yaml").write_text("description: Foreign.\n")
    assert locate_shipped() == installed


def test_missing_recipes_are_told(installed):
    (installed / "quickstart.yaml").unlink()
    with pytest.raises(RecipeError, match="Reinstall nlp_transfer"):
        locate_shipped()


def test_no_name_leads_out_of_the_folder(installed):
    names = ["../secret", "link", "../../secret.yaml", str(installed.parents[1] / "secret"), "task/../../secret", "."]
    names += ["task/../quickstart", "/quickstart", "task", "", "RESULTS.md", "QUICKSTART/../quickstart"]
    assert [find_shipped(name) for name in names] == [None] * 12
    assert find_shipped("task/lora") is not None
    with pytest.raises(RecipeError, match="no shipped recipe"):
        read_shipped("../secret")


def test_names_are_found_with_and_without_suffix_and_back_from_files():
    names = list_shipped_names()
    assert len(names) >= 28
    for name in names:
        path = find_shipped(name)
        assert path is not None
        assert path == find_shipped(f"{name}.yaml")
        assert find_shipped_name(path) == name
    assert find_shipped_name(Path("elsewhere.yaml")) is None


def test_an_unknown_name_is_told_with_the_nearest():
    for wrong, part in [
        ("sentimnt/lora", 'Did you mean "sentiment/lora"?'),
        ("quikstart", 'Did you mean "quickstart"?'),
        ("lora", "There are emotion/lora, intent/lora"),
        ("pair", "There are pair/frozen, pair/full, pair/lora, pair/rte."),
        ("zzz", "of that name. See nlp-transfer list."),
    ]:
        with pytest.raises(RecipeError) as caught:
            read_shipped(wrong)
        assert part in str(caught.value)


def test_copy_writes_the_very_text_and_refuses_to_overwrite(tmp_path):
    target = copy_shipped("sentiment/lora", tmp_path / "new" / "mine.yaml")
    assert target.read_text(encoding="utf-8") == read_shipped("sentiment/lora")
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        copy_shipped("sentiment/lora", target)
    assert target.read_text() == "mine"


def test_copy_into_a_folder_names_the_file_after_the_recipe(tmp_path):
    assert copy_shipped("sentiment/lora.yaml", tmp_path) == tmp_path / "sentiment-lora.yaml"
    with pytest.raises(OutputError):
        copy_shipped("sentiment/lora", tmp_path)


def test_copy_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        copy_shipped("quickstart", tmp_path / "file" / "a.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_copy_and_is_no_fault_of_the_user(tmp_path, monkeypatch):
    real_open = Path.open

    def open_full(self, mode="r", *args, **options):
        file = real_open(self, mode, *args, **options)
        if "x" in mode:

            def write(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(file, "write", write, raising=False)
        return file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StorageError, match="No space left") as caught:
        copy_shipped("quickstart", tmp_path / "a.yaml")
    assert caught.value.exit_status == 1
    assert list(tmp_path.iterdir()) == []


def test_a_read_error_of_the_disk_is_no_fault_of_the_user(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")

    def fail(self, *args, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageError, match="could not be read") as caught:
        read_recipe_file(path)
    assert caught.value.exit_status == 1


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")

    def refuse(self, *args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no permission stops
    with pytest.raises(RecipeError, match="may not be read"):
        read_recipe_file(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_recipe_file(path) == "a: 1"
