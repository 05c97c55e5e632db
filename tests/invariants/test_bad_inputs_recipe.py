"""Recipes, overrides and output folders that cannot be are refused before anything is loaded or written."""

from pathlib import Path

import pytest
from filelock import FileLock

from tests.bad_inputs import Case, check_counted, check_refused, make_csv, make_rows, make_run, write

GOOD = make_csv(make_rows())
RUN = make_run("d.csv")


def recipe_case(name: str, content: str | bytes, words: tuple[str, ...]) -> Case:
    """A recipe file that is run."""
    return Case(name, write("my.yaml", content), ["run", "my.yaml"], ("my.yaml", *words))


def override_case(name: str, override: str, words: tuple[str, ...], *more: str) -> Case:
    """An override on the command line."""
    return Case(name, leave_as_it_is, [*RUN, override, *more], words)


def leave_as_it_is(folder: Path) -> None:
    """What is wrong is in the arguments."""


def hold_lock(folder: Path) -> None:
    """Another run is at work in the folder; the lock goes with the test."""
    write("runs/try/recipe.yaml", "")(folder)
    (folder / "runs/try/recipe.yaml").unlink()
    lock = FileLock(folder / "runs/try/.lock")
    lock.acquire()
    HELD.append(lock)


HELD: list[FileLock] = []

CASES = [
    # What YAML cannot be.
    recipe_case("broken yaml", "task: {kind: regression\n", ("line 2, column 1", "expected")),
    recipe_case("a tab for indentation", "task:\n\tkind: regression\n", ("line 2, column 1", "got a tab")),
    recipe_case("a tag", "task: !!python/object:os.system {}\n", ("line 1, column 7", "write the plain value")),
    recipe_case("an anchor", "task: &a {kind: regression}\n", ("line 1, column 7", "write the value out")),
    recipe_case("a key twice", "training: {epochs: 1, epochs: 2}\n", ("line 1, column 23", '"epochs"', "twice")),
    recipe_case("an empty recipe", "", ("an empty file", "nlp-transfer copy quickstart")),
    recipe_case("a list at the top", "- task\n", ("a list", "nlp-transfer copy quickstart")),
    recipe_case("bytes that are not utf-8", b"description: caf\xe9\n", ("line 1", "0xe9", "Save the file as UTF-8")),
    recipe_case("a null byte in a recipe", b"description: a\0b\n", ("line 1, column 15", "null byte", "Save the file")),
    # Keys and values.
    recipe_case("a section with a typing error", "trainig: {epochs: 1}\n", ("trainig", 'Did you mean "training"?')),
    recipe_case("a key with a typing error", "training: {epoch: 1}\n", ("training.epoch", 'Did you mean "epochs"?')),
    recipe_case("a key of another section", "training: {path: d.csv}\n", ("training.path", 'It belongs in "data"')),
    recipe_case("a section that is a value", "strategy: lora\n", ("strategy", "Write strategy.kind: lora")),
    recipe_case("a strategy without a kind", "strategy: {rank: 4}\n", ("strategy.kind: missing", "Choose one of")),
    recipe_case("an unknown strategy", "strategy: {kind: lorra}\n", ("strategy.kind", 'Did you mean "lora"?')),
    recipe_case("a key of another strategy", "strategy: {kind: full, rank: 4}\n", ("strategy.rank", 'kind "full"')),
    recipe_case("text for a number", "training: {learning_rate: fast}\n", ("training.learning_rate", '"fast"')),
    recipe_case("a number in quotes", 'training: {learning_rate: "2e-5"}\n', ("learning_rate", "Remove the quotes")),
    recipe_case("yes for true", "training: {restore_best: yes}\n", ("training.restore_best", "Write true")),
    recipe_case("a fraction of a batch", "training: {batch_size: 2.5}\n", ("training.batch_size", "2.5", "whole")),
    recipe_case("a number out of range", "training: {epochs: -1}\n", ("training.epochs", "a number above 0", "-1")),
    recipe_case("no number at all", "training: {learning_rate: .nan}\n", ("training.learning_rate", "number")),
    recipe_case("an unknown word", "training: {schedule: linaer}\n", ("training.schedule", 'Did you mean "linear"?')),
    recipe_case("one value for a list", "training: {seeds: 3}\n", ("training.seeds", "list")),
    recipe_case("an unknown metric", "evaluation: {metrics: [acuracy]}\n", ("evaluation.metrics", '"accuracy"')),
    recipe_case("a metric of another task", "task: {kind: regression}\nevaluation: {metrics: [accuracy]}\n",
                ("evaluation.metrics", "not a metric of task.kind regression", "Known: mse")),
    recipe_case("a method that does not exist", "methods: [{kind: dann}]\n",
                ("methods[0].kind", "expected one of", '"dann"')),
    recipe_case("weights that were never trained, frozen",
                "encoder: {init: random}\nstrategy: {kind: frozen}\n", ("encoder.init", "Use strategy.kind=full")),
    recipe_case("a microbatch above the batch", "training: {batch_size: 8, microbatch_size: 16}\n",
                ("training.microbatch_size", "at most training.batch_size = 8")),
    recipe_case("a label list for one class a row", "data: {label: [a, b]}\n", ("data.label", "multi_label")),
    recipe_case("shares that leave no train", "data: {validation_share: 0.6, test_share: 0.6}\n",
                ("data.test_share", "1.2", "Lower one")),
    recipe_case("a class weight of no class",
                "task: {labels: [bad, good]}\ntraining: {class_weights: {bad: 1, goood: 2}}\n",
                ("training.class_weights.goood", 'Did you mean "good"?')),
    recipe_case("several problems at once", "taks: {}\ntraining: {epochs: two, seed: -1}\ndata: {path: 3}\n",
                ("4 problems", 'taks: unknown key. Did you mean "task"?', "training.epochs", "training.seed",
                 "data.path", 'Put it in quotes: "3"')),
    # Names of recipes.
    Case("an unknown recipe", leave_as_it_is, ["run", "sentiment/lorra"], ('"sentiment/lorra"', '"sentiment/lora"')),
    Case("a recipe file that is not there", leave_as_it_is, ["run", "none.yaml"], ("none.yaml", "Check the path")),
    Case("data for a recipe", leave_as_it_is, ["run", "d.csv"], ("d.csv", "nlp-transfer copy quickstart")),
    Case("a folder for a recipe", lambda folder: (folder / "my.yaml").mkdir(), ["run", "my.yaml"],
         ("my.yaml", "a folder", "Name a .yaml file")),
    Case("a recipe to validate", write("my.yaml", "taks: {}\n"), ["validate", "my.yaml"], ("my.yaml", '"task"')),
    Case("a copy over a file", write("my.yaml", "mine"), ["copy", "quickstart", "my.yaml"],
         ("my.yaml", "left alone", "Name another file")),
    Case("a copy of nothing", leave_as_it_is, ["copy", "quikstart", "a.yaml"], ('"quikstart"', '"quickstart"')),
    # Overrides.
    override_case("an override without a value", "training.epochs", ('"training.epochs"', "expected key=value")),
    override_case("an override of no key", "=2", ('"=2"', "expected key=value")),
    override_case("an override with a typing error", "training.epoch=2", ("training.epoch", '"epochs"')),
    override_case("an override of a section", "training=3", ("training", "training.epochs=VALUE")),
    override_case("an override of the wrong type", "training.batch_size=many", ("training.batch_size", '"many"')),
    override_case("an override below a value", "training.epochs.a=2", ("training.epochs.a", "training.epochs=...")),
    override_case("overrides that are broken yaml", "training.seeds=[0, 1", ("training.seeds", "line 1")),
    override_case("two bad overrides at once", "training.epoch=2", ("2 problems", "training.epoch:", "data.pth:"),
                  "data.pth=x"),
    # What this machine does not have.
    Case("a GPU that is not here", leave_as_it_is, [*RUN, "training.device=cuda"],
         ("training.device", "cuda is not on this machine", "Here: cpu"),
         lambda patch: patch.setattr("torch.cuda.is_available", lambda: False)),
    override_case("fp16 on a cpu", "training.precision=fp16", ("training.precision", "cpu", "fp32")),
    Case("a tracker that is not installed", leave_as_it_is, [*RUN, "training.trackers=[wandb]"],
         ("training.trackers: wandb", "python -m pip install 'nlp_transfer[wandb]'"),
         lambda patch: patch.setattr("nlp_transfer.runs.seed.find_spec", lambda name: None)),
    # Folders that belong to somebody else.
    Case("files that no run left", write("runs/try/notes.txt", "mine"), RUN,
         ("runs/try", "notes.txt", "Name another folder")),
    Case("a file in place of the folder", write("runs/try", "mine"), RUN, ("runs/try is a file", "Name a folder")),
    Case("a file above the folder", write("runs", "mine"), RUN,
         ("runs/try", "a part of its path is a file", "Name another")),
    Case("a folder of another recipe", write("runs/try/recipe.yaml", "task: {kind: regression}\n"), RUN,
         ("runs/try belongs to another recipe", "task.kind: regression -> ", "add: report.output_dir=runs/try-2")),
    Case("a folder with a recipe of tomorrow", write("runs/try/recipe.yaml", "quantum: {}\n"), RUN,
         ("runs/try", "this version cannot read", "Name another folder")),
    Case("a folder in use", hold_lock, RUN, ("runs/try is in use", "Wait for it or name another folder")),
    override_case("a folder with too long a name", f"report.output_dir={'a' * 300}",
                  ("report.output_dir", "too long", "Name another folder")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_recipe_is_refused_with_its_place_and_the_way_out(
    case: Case, work_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("d.csv", GOOD)(work_dir)
    try:
        check_refused(case, work_dir, monkeypatch, capsys)
    finally:
        while HELD:
            HELD.pop().release()


def test_every_case_is_run(request: pytest.FixtureRequest) -> None:
    check_counted(CASES, request, at_least=55)
