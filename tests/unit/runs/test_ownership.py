import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from nlp_transfer.errors import OutputError
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.runs.ownership import claim_folder, list_differences


def make_recipe(folder: Path, **overrides):
    return load_recipe({}, {"report.output_dir": str(folder), **overrides})


def start(folder: Path, *, finish: bool = False, **overrides) -> Path:
    """A run that left something, and its report where it is finished."""
    with claim_folder(make_recipe(folder, **overrides)) as claimed:
        (claimed.path / "checkpoints").mkdir(exist_ok=True)
        (claimed.path / "checkpoints" / "step").write_text("")
        if finish:
            (claimed.path / "report.json").write_text("{}")
    return claimed.path


def test_a_new_folder_is_made_with_the_resolved_recipe(tmp_path):
    wanted = tmp_path / "a" / "b"
    with claim_folder(make_recipe(wanted)) as claimed:
        assert (claimed.path, claimed.is_resumed, claimed.said) == (wanted, False, "")
        assert load_recipe(wanted / "recipe.yaml") == claimed.recipe == make_recipe(wanted)
    assert not (wanted / ".lock").exists()


def test_an_unfinished_run_of_the_same_recipe_goes_on(tmp_path):
    start(tmp_path / "run")
    with claim_folder(make_recipe(tmp_path / "run")) as claimed:
        assert claimed.is_resumed
        assert claimed.path == tmp_path / "run"
        assert "unfinished" in claimed.said
        assert (claimed.path / "checkpoints" / "step").exists()


def test_a_finished_run_is_left_alone_and_the_new_one_goes_beside_it(tmp_path):
    wanted = tmp_path / "run"
    for number in range(3):
        path = start(wanted, finish=True)
        assert path == (wanted if number == 0 else tmp_path / f"run-{number + 1}")
    start(wanted)
    with claim_folder(make_recipe(wanted)) as claimed:
        assert claimed.path == tmp_path / "run-4"
        assert claimed.is_resumed
        assert claimed.recipe.report.output_dir == str(tmp_path / "run-4")
    assert (wanted / "report.json").read_text() == "{}"


def test_the_new_place_is_said_aloud(tmp_path):
    start(tmp_path / "run", finish=True)
    with claim_folder(make_recipe(tmp_path / "run")) as claimed:
        assert str(tmp_path / "run-2") in claimed.said
        assert "left alone" in claimed.said


@pytest.mark.parametrize("finish", [False, True])
def test_the_folder_of_another_recipe_is_refused_with_what_differs(finish, tmp_path):
    start(tmp_path / "run", finish=finish)
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with (
        pytest.raises(OutputError, match=r"another recipe \(training\.epochs: 3\.0 -> 9\.0, ") as caught,
        claim_folder(make_recipe(tmp_path / "run", **{"training.seed": 1, "training.epochs": 9})),
    ):
        pass
    assert "training.seed: 0 -> 1; its recipe.yaml -> now)" in str(caught.value)
    assert caught.value.exit_status == 2
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def refuse(folder: Path, **overrides) -> str:
    with pytest.raises(OutputError) as caught, claim_folder(make_recipe(folder, **overrides)):
        pass
    return str(caught.value)


def test_at_most_five_differences_are_named_and_the_rest_counted(tmp_path):
    start(tmp_path / "run")
    keys = ["batch_size", "epochs", "log_every", "keep_checkpoints", "seed", "weight_decay", "warmup_share"]
    changed = {f"training.{key}": 0.5 if "_decay" in key or "_share" in key else 77 for key in keys}
    message = refuse(tmp_path / "run", **changed, description="x" * 100)
    named = [key for key in [*keys, "description"] if f"{key}: " in message]
    assert len(named) == 5
    assert "and 3 more" in message
    assert "x" * 61 not in refuse(tmp_path / "run", description="x" * 100)


def test_the_way_out_names_a_folder_that_is_free_and_works(tmp_path):
    folder = tmp_path / "my runs"
    start(folder, finish=True)
    start(tmp_path / "my runs-2", **{"data.limit": 7})
    message = refuse(folder, **{"training.epochs": 9})
    (override,) = [word for word in shlex.split(message) if word.startswith("report.output_dir=")]
    place = override.partition("=")[2]
    assert place == str(tmp_path / "my runs-3")
    with claim_folder(make_recipe(Path(place), **{"training.epochs": 9})) as claimed:
        assert str(claimed.path) == place


def test_the_current_folder_has_siblings_too(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    start(Path("."), finish=True)
    assert f"report.output_dir={tmp_path / 'run-2'}" in refuse(Path("."), **{"training.epochs": 9})
    with claim_folder(make_recipe(Path("."))) as claimed:
        assert claimed.path == tmp_path / "run-2"


def test_a_sibling_of_another_recipe_is_passed_over(tmp_path):
    start(tmp_path / "run", finish=True)
    start(tmp_path / "run-2", finish=True, **{"training.epochs": 9})
    (tmp_path / "run-3").mkdir()
    (tmp_path / "run-3" / "cat.jpg").write_text("cat")
    with claim_folder(make_recipe(tmp_path / "run")) as claimed:
        assert claimed.path == tmp_path / "run-4"
    assert [path.name for path in (tmp_path / "run-3").iterdir()] == ["cat.jpg"]


def test_a_folder_that_no_run_left_is_refused_and_not_touched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(OutputError, match=r"cat\.jpg"), claim_folder(make_recipe(tmp_path / "photos")):
        pass
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "run").mkdir()
    with claim_folder(make_recipe(tmp_path / "run")) as claimed:
        assert not claimed.is_resumed


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="run"), claim_folder(make_recipe(tmp_path / "run")):
        pass
    with pytest.raises(OutputError), claim_folder(make_recipe(tmp_path / "run" / "below")):
        pass


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("colour: blue")
    with pytest.raises(OutputError, match="cannot read"), claim_folder(make_recipe(tmp_path / "run")):
        pass


def test_a_live_lock_is_refused_and_holds(tmp_path):
    with claim_folder(make_recipe(tmp_path / "run")):
        with (
            pytest.raises(OutputError, match="in use"),
            claim_folder(make_recipe(tmp_path / "run")),
        ):
            pass
        assert (tmp_path / "run" / ".lock").exists()
        assert (tmp_path / "run" / "recipe.yaml").exists()


def test_a_lock_of_another_process_counts_and_ends_with_it(tmp_path):
    start(tmp_path / "run")
    code = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); "
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(OutputError, match="in use"), claim_folder(make_recipe(tmp_path / "run")):
            pass
    finally:
        other.kill()
        other.communicate()
    with claim_folder(make_recipe(tmp_path / "run")) as claimed:
        assert claimed.is_resumed


def test_a_stale_lock_file_does_not_hold(tmp_path):
    start(tmp_path / "run")
    (tmp_path / "run" / ".lock").write_text("")
    with claim_folder(make_recipe(tmp_path / "run")) as claimed:
        assert claimed.is_resumed
    with FileLock(tmp_path / "run" / ".lock", timeout=0):
        pass


def test_a_run_that_failed_before_it_left_anything_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), claim_folder(make_recipe(tmp_path / "a" / "run")):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_failed_after_it_left_something_keeps_it(tmp_path):
    claim = claim_folder(make_recipe(tmp_path / "run"))
    claimed = claim.__enter__()
    (claimed.path / ".seed.json").write_text("")
    assert not claim.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert (tmp_path / "run" / "recipe.yaml").is_file()


def test_differences_name_the_dotted_key():
    assert list_differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": None}) == ["a.c: 2 -> 3"]
    assert list_differences({"a": 1}, {"a": 1}) == []


def test_a_recipe_changed_in_the_folder_of_its_finished_run_is_refused(tmp_path):
    start(tmp_path / "run", finish=True)
    ran = make_recipe(tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text(json.dumps({"recipe": ran.model_dump(mode="json")}))
    path = tmp_path / "run" / "recipe.yaml"
    content = path.read_text()
    assert content.count("  epochs: 3.0\n") == 1
    path.write_text(content.replace("  epochs: 3.0\n", "  epochs: 2.0\n"))
    with (
        pytest.raises(OutputError, match=r"run/recipe\.yaml is not the recipe.*training\.epochs: 3\.0 -> 2\.0.*run-2"),
        claim_folder(load_recipe(path)),
    ):
        pass
    path.write_text(content)
    with claim_folder(load_recipe(path)) as found:
        assert found.path == tmp_path / "run-2"


def test_a_run_without_its_recipe_names_it(tmp_path):
    start(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").unlink()
    (tmp_path / "run" / "recipe.yaml").mkdir()
    with pytest.raises(OutputError, match=r"holds no recipe\.yaml"), claim_folder(make_recipe(tmp_path / "run")):
        pass
