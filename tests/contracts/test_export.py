"""Exports answer as torch does, or are refused."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from nlp_transfer.classifier import Classifier
from nlp_transfer.cli import app
from nlp_transfer.errors import ArtifactError, MissingExtraError, OutputError, StorageError
from nlp_transfer.models.artifacts import load_artifact
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.output_layer import rescale_output
from nlp_transfer.models.runtimes import find_runtime, import_runtime, load_exported
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.publishing.export import command as export
from nlp_transfer.publishing.export.check import compare_logits, make_batches
from nlp_transfer.publishing.export.command import export_artifact
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.strategies import STRATEGIES
from tests.contracts.test_reload import fit_and_save
from tests.contracts.variants import CHECKPOINTS, make_recipe
from tests.records import rewrite_record, unseal
from tests.tiny import FAMILIES, make_splits, make_texts

pytestmark = pytest.mark.xdist_group("export")
"""One export serves much of it, and the engines are imported once."""

# Not importorskip: OpenVINO, imported by its bare name, brings its telemetry.
ENGINES = ("onnx", "onnxruntime", "onnxscript", "openvino")
if missing := [name for name in ENGINES if importlib.util.find_spec(name) is None]:
    pytest.skip(f"{missing[0]} is not installed: python -m pip install -e '.[test]'", allow_module_level=True)

LABELS = make_splits(8, 3).labels

TECHNIQUES = {"full": {"kind": "full"}, "lora": {"kind": "lora", "rank": 4}}
PROMPTS = {"prompts": {"kind": "prompts", "tokens": 4}}

OWN = ("features", "features-knn", "few_shot-cloze", "adapters", "zero_shot-entailment")
"""Techniques whose classifiers have a form of their own; the first is exported by default, the others with -m slow."""

SLICE = {("bert", "openvino", "full"), ("distilbert", "onnx", "full")}
"""What the default run exports, beside an adapter on BERT for onnxruntime; everything with -m slow."""

CELLS = [
    pytest.param(family, to, technique, marks=[] if (family, to, technique) in SLICE else pytest.mark.slow)
    for family in FAMILIES
    for to in ("onnx", "openvino")
    for technique in TECHNIQUES
]


def make_artifact(encoder: Path, folder: Path, technique: str = "full", **metadata: object) -> Path:
    """An artefact whose logits have a standard deviation of about 2, its update included where it is an adapter."""
    recipe = load_recipe({"encoder": {"name": str(encoder)}, "strategy": (TECHNIQUES | PROMPTS)[technique]})
    loaded = load_encoder(recipe.encoder, LABELS, seed=0)
    source, tokenizer = loaded.source, AutoTokenizer.from_pretrained(encoder)
    model = STRATEGIES[recipe.strategy.kind].adapt(loaded, recipe.strategy).model.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        batch = tokenizer(make_texts(24, seed=5), padding=True, return_tensors="pt")
        heads = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.shape[0] == 3 and "lora" not in name
        ]
        assert heads
        for parameter in heads:
            parameter.mul_(2.0 / model(**batch).logits.std())
    reading = {"max_length": 96, "long_text": "truncate", "is_pair": False}
    save_artifact(
        folder, model, tokenizer, labels=LABELS, source=source, merge=False, metadata={"reading": reading, **metadata}
    )
    return folder


@pytest.fixture(scope="module")
def bert(tiny_encoder, tmp_path_factory) -> Path:
    return make_artifact(tiny_encoder("bert"), tmp_path_factory.mktemp("bert") / "model", "lora", thresholds=None)


@pytest.fixture(scope="module")
def exported(bert, tmp_path_factory) -> Path:
    """That adapter, folded in and exported for onnxruntime."""
    return export_artifact(bert, to="onnx", output_dir=tmp_path_factory.mktemp("onnx") / "out").folder


@pytest.mark.parametrize(("family", "to", "technique"), CELLS)
def test_every_family_answers_as_torch_does(family, to, technique, tiny_encoder, tmp_path):
    folder = make_artifact(tiny_encoder(family), tmp_path / "model", technique)
    done = export_artifact(folder, to=to, data=pd.DataFrame({"text": make_texts(40, seed=3)}))
    assert done.folder == tmp_path / to
    for check in (done.shapes, done.texts):
        assert check.num_texts >= 10
        assert check.num_batches >= 3
        assert check.largest_difference <= 1e-4
        assert check.agreement == 1.0
    assert done.texts.deviation >= 1.0
    # Held again from outside: by transformers' tokenizer and padding, the graph opened anew.
    artifact, other = load_artifact(folder), load_exported(done.folder, to)
    texts = make_texts(6, seed=9, max_words=60)
    batch = artifact.tokenizer(texts, padding=True, truncation=True, max_length=96, return_tensors="pt")
    assert batch["attention_mask"].min() == 0
    with torch.inference_mode():
        expected, found = artifact.model(**batch).logits, other(**batch).logits
    assert float((expected - found).abs().max()) <= 1e-4


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", [OWN[0], *(pytest.param(name, marks=pytest.mark.slow) for name in OWN[1:])])
def test_classifiers_in_a_form_of_their_own_answer_as_torch_does(variant, to, tiny_encoder, tmp_path):
    encoder = tiny_encoder("bert", CHECKPOINTS.get(variant, "masked_lm"))
    folder = fit_and_save(make_recipe(variant, encoder), make_splits(16, 3), tmp_path / "model")
    reading = {"max_length": 48, "long_text": "truncate", "is_pair": False}
    rewrite_record(folder / "nlp_transfer.json", reading=reading)
    done = export_artifact(folder, to=to)
    assert done.shapes.num_texts == 13
    assert done.shapes.largest_difference <= 1e-4
    # The folder stands by itself, though the artefact's encoder lies elsewhere.
    assert not (done.folder / "encoder").exists()
    texts = make_texts(12, seed=8)
    expected = Classifier.from_pretrained(folder, precision="fp32").predict_proba(texts)
    np.testing.assert_allclose(Classifier.from_pretrained(done.folder).predict_proba(texts), expected, atol=1e-4)


def test_prompts_are_refused_with_the_way_out(tiny_encoder, tmp_path):
    folder = make_artifact(tiny_encoder("bert"), tmp_path / "model", "prompts")
    with pytest.raises(ArtifactError, match=r"came one that cannot, such as prompts. Train with strategy.kind lora"):
        export_artifact(folder, to="onnx", output_dir=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_loads_as_a_classifier_and_gives_what_the_adapter_gave(bert, exported, tmp_path):
    files = {path.name for path in exported.iterdir()}
    assert files >= {"model.onnx", "config.json", "tokenizer.json", "nlp_transfer.json", "README.md"}
    assert not any(name.endswith(".safetensors") for name in files)
    one, other = Classifier.from_pretrained(bert, precision="fp32"), Classifier.from_pretrained(exported)
    texts = make_texts(90, seed=4)
    expected = one.predict_proba(texts)
    np.testing.assert_allclose(other.predict_proba(texts, batch_size=7), expected, atol=1e-5)
    assert other.labels == one.labels
    assert other.predict(texts) == one.predict(texts)
    table = pd.DataFrame({"text": texts, "label": one.predict(texts)})
    assert other.predict_table(table.drop(columns="label")).column_names[-1] == "probability_class 2"
    score = other.evaluate(table, metrics=["accuracy"])["accuracy"]
    assert (score.value, score.n) == (1.0, 90)
    moved = other.save_pretrained(tmp_path / "moved")
    assert Classifier.from_pretrained(moved).predict(texts[:3]) == one.predict(texts[:3])


def test_record_and_readme_say_what_was_checked_and_keep_the_contract(bert, exported):
    before, after = (json.loads((place / "nlp_transfer.json").read_text()) for place in (bert, exported))
    assert after["loader"] == "onnx"
    for key in ("labels", "reading", "encoder", "thresholds"):
        assert after[key] == before[key]
    assert after["export"]["precision"] == "fp32"
    assert after["export"]["from"] == "peft"
    assert after["export"]["checks"]["shapes"]["num_texts"] == 13
    assert after["export"]["checks"]["texts"] is None
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "13 made-up texts of several lengths in 5 batches" in card
    assert "class 0, class 1, class 2" in card
    assert str(exported) not in card


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_an_export_can_be_handed_on(exported):
    """Modes are the umask's, and the tokenizer knows what the model reads."""
    trial = exported.with_name("trial")
    trial.write_text("")
    modes = {path.name: path.stat().st_mode for path in exported.iterdir()}
    assert len(modes) > 4
    assert set(modes.values()) == {trial.stat().st_mode}
    assert AutoTokenizer.from_pretrained(exported).model_max_length == 128


def test_the_command_line_runs_an_export(exported, work_dir):
    pd.DataFrame({"text": ["awful and cold", "superb"], "label": ["class 0", "class 1"]}).to_csv("in.csv", index=False)
    runner = CliRunner()
    done = runner.invoke(app, ["predict", str(exported), "in.csv", "-o", "out.csv"])
    assert done.exit_code == 0, done.output
    assert list(pd.read_csv("out.csv").columns)[2:4] == ["predicted", "probability_class 0"]
    done = runner.invoke(app, ["evaluate", str(exported), "in.csv", "--metric", "accuracy", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["accuracy"]["n"] == 2


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_eight_bits_are_smaller_and_near(to, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"text": make_texts(48, seed=6)}).to_csv("texts.csv", index=False)
    arguments = [
        "export",
        str(bert),
        "--to",
        to,
        "--int8",
        "--out",
        "int8",
        "--data",
        "texts.csv",
        "--agreement",
        "0.9",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "48 given texts in 3 batches" in done.stdout
    record = json.loads((tmp_path / "int8/nlp_transfer.json").read_text())
    check = record["export"]["checks"]["texts"]
    assert record["export"]["precision"] == "int8"
    # Weights were rounded, or there would be no difference beyond that of sums in another order.
    assert 1e-4 < check["largest_difference"] < check["deviation"]
    assert Classifier.from_pretrained("int8").predict(["superb"])


def test_what_answers_otherwise_is_refused_and_nothing_stays(bert, exported, tmp_path, monkeypatch):
    # The graph is that of the same weights, but for a bias of 0.01 that they have now.
    moved = tmp_path / "moved"
    shutil.copytree(bert, moved)
    weights = load_file(moved / "adapter_model.safetensors")
    (name,) = (key for key in weights if key.endswith("classifier.bias"))
    weights[name] += 0.01
    save_file(weights, moved / "adapter_model.safetensors", metadata={"format": "pt"})
    unseal(moved)

    def give_old_graph(model, inputs, folder, *, int8, num_labels):
        for path in exported.glob("model.onnx*"):
            shutil.copy(path, folder)

    monkeypatch.setitem(export.CONVERTERS, "onnx", give_old_graph)
    with pytest.raises(ArtifactError, match=r"within 0.0001 of PyTorch's on 13 texts, came a difference of 0.01"):
        export_artifact(moved, to="onnx", output_dir=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_what_an_exporter_cannot_follow_is_refused_and_nothing_stays(bert, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("unknown operator")

    def fill(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export.CONVERTERS, "onnx", fail)
    with pytest.raises(ArtifactError, match=r"the exporter of onnx cannot convert this model \(unknown operator\)"):
        export_artifact(bert, to="onnx", output_dir=tmp_path / "out")
    monkeypatch.setitem(export.CONVERTERS, "onnx", fill)
    with pytest.raises(StorageError, match="No space left"):
        export_artifact(bert, to="onnx", output_dir=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_cannot_work_are_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for arguments, message in [
        ({"to": "tflite"}, "expected one of onnx, openvino"),
        ({"to": "onnx", "tolerance": 0.0}, "tolerance: expected a number above 0"),
        ({"to": "onnx", "agreement": 98.5}, "agreement: expected a share"),
        ({"to": "onnx", "output_dir": tmp_path / "full"}, "is not empty"),
    ]:
        with pytest.raises(OutputError, match=message):
            export_artifact("no/such/model", **{"output_dir": tmp_path / "out", **arguments})
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_an_export_is_not_exported_again_nor_opened_where_it_is_damaged(exported, tmp_path):
    with pytest.raises(ArtifactError, match="is an export already"):
        export_artifact(exported, to="openvino", output_dir=tmp_path / "out")
    damaged = Classifier.from_pretrained(exported).save_pretrained(tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"model\.onnx: is damaged"):
        Classifier.from_pretrained(damaged)
    unseal(damaged)
    with pytest.raises(ArtifactError, match=r"model\.onnx: cannot be opened, it may be damaged"):
        load_artifact(damaged)
    (damaged / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"holds no model\.onnx"):
        load_artifact(damaged)


def test_a_missing_engine_names_its_install_command(exported, bert, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for action in (
        lambda: load_artifact(exported),
        lambda: export_artifact(bert, to="onnx", output_dir=tmp_path / "out"),
    ):
        with pytest.raises(MissingExtraError, match=r"needs onnxruntime. Install it with: .*nlp_transfer\[onnx\]"):
            action()


def test_openvino_is_imported_without_its_telemetry():
    import_runtime("openvino", "openvino", purpose="this test")
    assert "openvino_telemetry" not in sys.modules
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__.endswith("telemetry_stub")
    # By its bare name it would be there, which in CI sends nothing.
    code = "import openvino, sys; print('openvino_telemetry' in sys.modules)"
    bare = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"CI": "true"}
    )
    assert bare.stdout.strip() == "True"


def test_folders_of_other_tools_run_where_they_hold_no_torch_weights(exported, tmp_path):
    folder = Classifier.from_pretrained(exported).save_pretrained(tmp_path / "foreign")
    (folder / "nlp_transfer.json").unlink()
    assert find_runtime(folder, {}) == "onnx"
    assert Classifier.from_pretrained(folder).predict(["superb"]) == Classifier.from_pretrained(exported).predict(
        ["superb"]
    )
    (folder / "model.safetensors").touch()
    assert find_runtime(folder, {}) is None


def test_made_up_batches_are_ragged_and_reach_the_longest_row(bert):
    batches = make_batches(load_artifact(bert))
    shapes = [tuple(batch.inputs["input_ids"].shape) for batch in batches]
    assert len({width for _, width in shapes}) >= 4
    assert max(width for _, width in shapes) == 96
    assert min(rows for rows, _ in shapes) == 1
    assert sum(int((batch.inputs["attention_mask"] == 0).any()) for batch in batches) >= 3
    first = shapes[0]
    assert min(first) > 1
    assert first[0] != first[1]


def test_numbers_that_are_none_count_as_infinitely_far():
    check = compare_logits([np.array([[0.0, 1.0, 2.0]])], [np.array([[0.0, np.nan, 2.0]])], LABELS)
    assert check.largest_difference == float("inf")
    assert check.agreement == 0.0


def test_a_regression_in_a_large_unit_is_held_to_deviations_of_its_target(tiny_encoder, tmp_path):
    splits = make_splits(12, kind="regression")
    folder = fit_and_save(make_recipe("full", tiny_encoder("bert"), kind="regression"), splits, tmp_path / "model")
    model = load_artifact(folder).model
    rescale_output(model, 3e5, 1e6)
    model.save_pretrained(folder)
    unseal(folder)
    record = json.loads((folder / "nlp_transfer.json").read_text())
    # Of an artefact that does not say its unit, nobody can tell how much a difference is.
    with pytest.raises(ArtifactError, match=r"expected logits within 0\.0001 of PyTorch's"):
        export_artifact(folder, to="onnx", output_dir=tmp_path / "plain")
    target = {"mean": 3e5, "deviation": 1e6}
    (folder / "nlp_transfer.json").write_text(json.dumps(record | {"target": target}))
    done = export_artifact(folder, to="onnx", output_dir=tmp_path / "onnx")
    assert 1e-4 < done.shapes.largest_difference < 1e-4 * 1e6
    texts = make_texts(8, seed=2)
    expected = Classifier.from_pretrained(folder, device="cpu").predict(texts)
    assert Classifier.from_pretrained(done.folder).predict(texts) == pytest.approx(expected, rel=1e-5)
