"""A byte turned or a file cut anywhere in what a run left: the file is named, or the answers are the very same."""

import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from markupsafe import Markup

from nlp_transfer import Classifier, cli
from nlp_transfer.contracts import TaskKind
from nlp_transfer.engine.train.checkpoint import CheckpointStore
from nlp_transfer.errors import DamageError, TransferError
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.hub.push import push_artifact
from nlp_transfer.publishing.report import page
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import EncoderConfig, Recipe
from nlp_transfer.runs import pipeline
from nlp_transfer.runs import seed as seeds
from nlp_transfer.runs.chain import trace_chain
from nlp_transfer.runs.ownership import claim_folder
from nlp_transfer.runs.pipeline import run
from tests.tiny import make_splits

TEXTS = ["a superb hotel", "awful and rude and cold", "plain", "the room was rather quiet today"]
TRAINING = {"max_steps": 2, "batch_size": 8, "device": "cpu", "learning_rate": 1e-2, "checkpoint_every": 1}

Damage = Literal["bit", "byte", "cut", "append", "remove", "folder", "swap", "number"]
DAMAGES: tuple[Damage, ...] = (*["bit"] * 3, "byte", *["cut"] * 2, "append", "remove", "folder", "swap", "number")
"""Ways to damage a file; a single bit and a cut are what happens most."""

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Trained:
    """What a run left.

    Attributes:
        folder: Of the run, or of an export.
        reads: What reads the folder, by name.
        expected: What each of them gives before anything is damaged.
    """

    folder: Path
    reads: dict[str, Read]
    expected: dict[str, Any]

    def list_files(self) -> list[Path]:
        """Every file, by name."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock")


def call(*args: object) -> str:
    """Call the command line in this process; what it refuses is raised, as a test sees it."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["nlp-transfer", *map(str, args)])
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setenv("COLUMNS", "500")
        try:
            cli.main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    assert "Traceback" not in err.getvalue()
    if status:
        assert status == 2, err.getvalue()
        raise DamageError(err.getvalue())
    return out.getvalue()


def answer(folder: Path) -> Any:
    """Labels and probabilities of some texts."""
    classifier = Classifier.from_pretrained(folder, device="cpu", precision="fp32")
    return classifier.labels, classifier.predict(TEXTS), classifier.predict_proba(TEXTS).tolist()


def read_report(folder: Path) -> Any:
    """Everything that the report and its predictions say."""
    report = Report.load(folder)
    return report.record, report.predictions.to_dict("list"), repr(report)


def start_from(folder: Path) -> Any:
    """What a further run would start from: the encoder, its tokenizer and the links behind it."""
    config = EncoderConfig(name=str(folder))
    loaded = load_encoder(config, make_splits(8, 2).labels, seed=0)
    state = {name: value.double().sum().item() for name, value in loaded.model.state_dict().items()}
    tokenizer = load_tokenizer(resolve_encoder(config))
    return state, tokenizer(TEXTS)["input_ids"], repr(trace_chain(config))


def plan_push(folder: Path) -> Any:
    """What a push would send: names, and the bytes of what is rewritten."""
    plan = push_artifact(folder, "owner/name", dry_run=True).plan
    return [(file.path, file.size) for file in plan.files if file.path != "README.md"]


def go_on(folder: Path) -> Any:
    """Whether the same command goes on here."""
    with claim_folder(RECIPES[folder]) as found:
        return found.path, found.is_resumed, found.recipe


RECIPES: dict[Path, Recipe] = {}
"""The recipe of a folder as the user has it."""


def read_seed(folder: Path) -> Any:
    """What a finished seed of an unfinished run gives."""
    rows = ROWS[folder]
    space: Any = SimpleNamespace(rows=rows, splits=make_splits(24, 2))
    found = seeds._read_seed(folder, 0, space)
    return found.probabilities["test"].tolist(), found.calibrator, found.model, found.log.losses, found.choices


ROWS: dict[Path, str] = {}
"""What names the rows of a folder's run."""


def read_checkpoint(folder: Path) -> Any:
    """The weights of the newest checkpoint that holds; where one does not, it is named and the one before is taken."""
    store = CheckpointStore(folder / "checkpoints", keep=2)
    found = store.load_newest()
    weights = {name: value.tolist() for name, value in found.weights.items()} if found is not None else {}
    if store.skipped:
        steps = [path.name for path in store.list_steps()]
        assert all(said.partition(":")[0] in steps for said in store.skipped)
        assert found is None or f"step-{found.state['log']['steps']:08d}" not in store.skipped[0]
        raise DamageError(" ".join(store.skipped))
    assert found is not None
    return weights, found.state["log"]["losses"]


def train(
    encoder: Path, folder: Path, kind: str, *, task: TaskKind = "classification", num_labels: int = 2, **more: Any
) -> Path:
    """A run of two steps."""
    splits = make_splits(24, num_labels, kind=task)
    recipe = {
        "task": {"kind": task, "labels": list(splits.labels.names)},
        "encoder": {"name": str(encoder)},
        "strategy": {"kind": kind},
        "training": {} if kind == "features" else TRAINING,
        "evaluation": {"resamples": 100, "tfidf": False, **more},
        "data": {"max_length": 48},
    }
    run(recipe, data=splits.tables, output_dir=folder, progress=False)
    return folder


def settle(folder: Path, **reads: Read) -> Trained:
    """Read everything once."""
    return Trained(folder, reads, {name: read(folder) for name, read in reads.items()})


@pytest.fixture(scope="module")
def trained(tiny_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Runs of several kinds with what reads them."""
    home = tmp_path_factory.mktemp("damaged")
    one, several = home / "one.jsonl", home / "several.jsonl"
    for place, labels in ((one, ["class 0", "class 1"] * 2), (several, ["class 0", "class 1,class 2"] * 2)):
        rows = [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)]
        place.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def evaluate(rows: Path) -> Read:
        return lambda folder: call("evaluate", folder, rows, "--json")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_draw_pictures", lambda *_: dict.fromkeys(page.PICTURES, Markup("")))
        with pytest.MonkeyPatch.context() as unfinished_too:
            unfinished_too.setattr(pipeline, "clear_progress", lambda _: None)
            full = train(tiny_encoder("bert"), home / "full", "full", calibration="temperature")
        lora = train(full, home / "lora", "lora")
        features = train(tiny_encoder("bert"), home / "features", "features")
        few_shot = train(tiny_encoder("bert"), home / "few_shot", "few_shot")
        many = train(tiny_encoder("bert"), home / "many", "full", task="multi_label", num_labels=3, threshold_goal="f1")
    # What an unfinished run still holds, beside what a finished one does.
    unfinished = home / "unfinished"
    shutil.copytree(full, unfinished)
    (unfinished / "report.json").unlink()
    for name in (".seed.json", ".probabilities.npz"):
        (full / name).unlink()
    for folder in (full, lora, few_shot, many):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    recipe = (full / "recipe.yaml").read_text().replace(str(full), str(unfinished))
    (unfinished / "recipe.yaml").write_text(recipe)
    RECIPES[unfinished] = load_recipe(unfinished / "recipe.yaml")
    ROWS[unfinished] = json.loads((unfinished / ".seed.json").read_text())["rows"]
    return {
        "full": settle(
            full, answer=answer, report=read_report, start=start_from, push=plan_push, evaluate=evaluate(one)
        ),
        "lora": settle(lora, answer=answer, report=read_report, start=start_from),
        "features": settle(features, answer=answer),
        "few_shot": settle(few_shot, answer=answer, predict=lambda folder: call("predict", folder, one)),
        "many": settle(many, answer=answer, evaluate=evaluate(several)),
        "unfinished": settle(unfinished, go_on=go_on, seed=read_seed, checkpoint=read_checkpoint),
    }


@dataclass(frozen=True)
class Example:
    """One damage.

    Attributes:
        kind: Of the run.
        file: Which of its files, as a number.
        other: Another one, to swap it with.
        damage: What is done to it.
        place: Where in the file, as a share of its bytes.
        bit: Which bit, or by how much a byte changes.
        read: What reads the folder afterwards, as a number.
    """

    kind: str
    file: int
    other: int
    damage: Damage
    place: float
    bit: int
    read: int


def draw_example(trained: dict[str, Trained], seed: int) -> Example:
    """A damage by its number, every file as likely as any other: hypothesis alone comes back to what it tried."""
    random = Random(seed)
    places = [(kind, number) for kind, each in trained.items() for number in range(len(each.list_files()))]
    return Example(
        *random.choice(places),
        other=random.randrange(100),
        damage=random.choice(DAMAGES),
        place=random.random(),
        bit=random.randrange(8),
        read=random.randrange(60),
    )


def spoil(path: Path, example: Example) -> bytes | None:
    """What a file holds once it is damaged; None where there is nothing to damage in that way."""
    content = path.read_bytes()
    place = int(example.place * len(content))
    match example.damage:
        case "bit" if content:
            return content[:place] + bytes([content[place] ^ 1 << example.bit]) + content[place + 1 :]
        case "byte" if content:
            return content[:place] + bytes([(content[place] + 1 + 31 * example.bit) % 256]) + content[place + 1 :]
        case "cut" if content:
            return content[:place] if example.bit else b""
        case "append":
            return content + bytes([example.bit] * (1 + example.bit))
        case "number":
            digits = [at for at, byte in enumerate(content) if chr(byte).isdecimal()]
            if path.suffix not in (".json", ".yaml") or not digits:
                return None
            at = digits[int(example.place * len(digits))]
            return content[:at] + b"1000000000" + content[at + 1 :]
    return None


def read_folder(read: Read, folder: Path) -> tuple[Any, TransferError | None]:
    """What reads a folder gives, or why it does not."""
    try:
        return read(folder), None
    except TransferError as error:
        return None, error


def read_damaged(trained: Trained, example: Example) -> tuple[str, str]:
    """Damage a file, read the folder, and mend the file; give what came of it, and which file it was."""
    files = trained.list_files()
    path = files[example.file % len(files)]
    names = list(trained.reads)
    name = names[example.read % len(names)]
    other = files[example.other % len(files)]
    before, beside = path.read_bytes(), other.read_bytes()
    where = path.relative_to(trained.folder).as_posix()
    try:
        if example.damage in ("remove", "folder"):
            path.unlink()
            if example.damage == "folder":
                path.mkdir()
        elif example.damage == "swap":
            path.write_bytes(beside)
            other.write_bytes(before)
        else:
            content = spoil(path, example)
            if content is None or content == before:
                return "nothing to damage", where
            path.write_bytes(content)
        found, refused = read_folder(trained.reads[name], trained.folder)
        if refused is not None:
            assert refused.exit_status == 2, refused
            said = str(refused)
            named = {path.name, other.name if example.damage == "swap" else path.name}
            if path.parent.parent.name == "checkpoints":
                named.add(path.parent.name)
            assert any(each in said for each in named), f"{name} of {where} ({example.damage}): {said}"
            return "named", where
        assert found == trained.expected[name], f"{name} of {where} ({example.damage})"
        return "same answers", where
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(before)
        other.write_bytes(beside)
        (trained.folder / ".lock").unlink(missing_ok=True)


def hold(trained: dict[str, Trained], number: int) -> None:
    """Hold the promise over many examples, and prove that they were looked at."""
    came: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()

    @settings(max_examples=number, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def look(seed: int) -> None:
        example = draw_example(trained, seed)
        note(str(example))
        what, where = read_damaged(trained[example.kind], example)
        came[what] += 1
        seen.add((example.kind, where))

    look()
    every = {
        (kind, path.relative_to(each.folder).as_posix()) for kind, each in trained.items() for path in each.list_files()
    }
    assert seen <= every
    assert len(seen) > 0.5 * len(every) >= 30
    assert came["named"] > number / 4
    assert came["same answers"] > number / 20


def test_a_damaged_file_of_a_run_is_named_or_the_answers_are_the_very_same(trained: dict[str, Trained]) -> None:
    hold(trained, 150)


@pytest.mark.slow
def test_a_damaged_file_of_a_run_is_named_or_the_answers_are_the_very_same_2000_times(
    trained: dict[str, Trained],
) -> None:
    hold(trained, 2000)
