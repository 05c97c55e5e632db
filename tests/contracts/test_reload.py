"""What a run leaves loads in a process that has never heard of this package, to the same logits."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from nlp_transfer.classifier import Classifier
from nlp_transfer.contracts import LabelSpace, Splits
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.fitting.fit import fit_model
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.artifact import load_artifact, save_artifact
from nlp_transfer.publishing.card import write_loading_code
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import EncoderConfig, Recipe
from nlp_transfer.runs.pipeline import run
from tests.contracts.variants import CELLS, CHECKPOINTS, IMPOSSIBLE, VARIANTS, make_recipe
from tests.strangers import Strangers
from tests.tiny import FAMILIES, make_splits

ROOT = Path(__file__).parents[2]

RUN_FAMILIES = ("bert", "deberta-v3", "modernbert", "roberta", "distilbert")
"""Families that go through a whole run, the first two by default; the others are saved from a fit."""

RUNS = [RUN_FAMILIES[:2], pytest.param(RUN_FAMILIES, marks=pytest.mark.slow)]

NAMES = {2: ["bad", "good"], 3: ["it's", "naïve \\ way", "10"], 5: ["a", "b", "c", "d", 'e"f']}
"""Label names by count, with what a literal call must quote."""

OWN = "nlp_transfer"
"""Loader of artefacts in a form of this package's own."""

TEXTS = ["A superb and lovely hotel.", "awful, cold, rude", "the room", "Monday again, rather plain and usual today"]

SCRIPT = r"""
import json, sys, torch
from safetensors.torch import load_file
torch.set_num_threads(1)
jobs = json.load(open(sys.argv[1]))
answers = []
for job in jobs:
    if job["loader"] == "nlp_transfer":
        from nlp_transfer import Classifier
        classifier = Classifier.from_pretrained(job["folder"], device="cpu")
        found = classifier.predict_proba(job["texts"]).tolist()
        answers.append({"probabilities": found, "labels": classifier.labels})
        continue
    assert "nlp_transfer" not in sys.modules
    found = {}
    exec(job["code"], found)
    model, tokenizer = found["model"], found["tokenizer"]
    model.eval()
    inputs = load_file(job["inputs"])
    with torch.no_grad():
        logits = model(**inputs).logits
    answer = {"logits": logits.tolist(), "labels": [model.config.id2label[i] for i in range(logits.shape[1])]}
    answer["attention"] = model.config._attn_implementation
    if job["loader"] == "transformers":
        from transformers import pipeline
        classify = pipeline("text-classification", model=job["folder"])
        answer["pipeline"] = [each["label"] for each in classify(job["texts"], padding=True, truncation=True)]
    answers.append(answer)
json.dump(answers, open(sys.argv[2], "w"))
"""


def encode(folder: Path, texts: list[str]) -> dict[str, torch.Tensor]:
    tokenizer = load_artifact(folder).tokenizer
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    assert inputs["attention_mask"].min() == 0
    return inputs


def read_code(folder: Path) -> str:
    """The Python of the card that ends in a model, to the letter."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    return "\n".join(block for block in blocks if not block.startswith("from transformers import pipeline"))


def reload_elsewhere(folders: list[Path], place: Path, strangers: Strangers) -> None:
    """Load artefacts in one fresh process, each as its card says, and hold every figure and label against this one."""
    jobs: list[dict[str, Any]] = []
    expected = []
    # Those of a form of our own come last: up to them the process has never heard of this package.
    for number, folder in enumerate(sorted(folders, key=lambda each: load_artifact(each).metadata["loader"] == OWN)):
        artifact = load_artifact(folder)
        loader, inputs = artifact.metadata["loader"], encode(folder, TEXTS)
        with torch.no_grad():
            logits = artifact.model(**inputs).logits
        save_file(inputs, place / f"{number}.safetensors")
        expected.append((artifact, logits))
        blocks = write_loading_code(str(folder), loader, artifact.labels.names, artifact.labels.kind)
        plain = "\n".join(block for block in blocks if "import pipeline" not in block)
        code = plain if loader == OWN or not (folder / "README.md").exists() else read_code(folder)
        assert ("AutoPeftModelForSequenceClassification" in code) == (loader == "peft")
        job = {"code": code, "folder": str(folder), "inputs": str(place / f"{number}.safetensors")}
        jobs.append({**job, "loader": loader, "texts": TEXTS})
    (place / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    (place / "empty").mkdir()
    path = [str(ROOT)] if any(job["loader"] == OWN for job in jobs) else []
    strangers.run(SCRIPT, [str(place / "jobs.json"), str(place / "answers.json")], place / "empty", path)
    answers = json.loads((place / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == len(folders) > 0
    for job, (artifact, logits), answer in zip(jobs, expected, answers, strict=True):
        assert answer["labels"] == list(artifact.labels.names)
        if job["loader"] == OWN:
            classifier = Classifier.from_pretrained(job["folder"], device="cpu")
            assert answer["probabilities"] == classifier.predict_proba(TEXTS).tolist(), job["folder"]
            continue
        assert torch.equal(torch.tensor(answer["logits"]), logits), job["folder"]
        assert answer["attention"] == artifact.model.config._attn_implementation
        if job["loader"] == "transformers":
            named = [artifact.labels.names[index] for index in logits.argmax(dim=1).tolist()]
            assert answer["pipeline"] == named
        else:
            assert Classifier.from_pretrained(job["folder"]).labels == list(artifact.labels.names)


@pytest.fixture
def reload_all(strangers: Strangers, tmp_path: Path) -> Callable[[list[Path]], None]:
    """Loads artefacts in one fresh process and holds them against this one."""
    return lambda folders: reload_elsewhere(folders, tmp_path, strangers)


def run_tiny(encoder: Path, out: Path, num_labels: int, **strategy: object) -> Path:
    """Run two steps and give the artefact's folder."""
    tables = make_splits(24, num_labels, names=NAMES[num_labels]).tables
    report = run(
        {
            "encoder": {"name": str(encoder)},
            "strategy": strategy,
            "training": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"},
            "evaluation": {"resamples": 100, "tfidf": False},
            "data": {"max_length": 48},
        },
        data=tables,
        output_dir=out,
    )
    return report.model_path


def fit_tiny(encoder: Path, folder: Path, **strategy: object) -> Path:
    """Train two steps without a run and save."""
    recipe = load_recipe(
        {
            "encoder": {"name": str(encoder)},
            "strategy": strategy,
            "training": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"},
            "data": {"max_length": 48},
        }
    )
    return fit_and_save(recipe, make_splits(16, 3, names=NAMES[3]), folder)


def fit_and_save(recipe: Recipe, splits: Splits, folder: Path) -> Path:
    """Train as a recipe says and save the artefact alone."""
    tokenizer = load_tokenizer(resolve_encoder(recipe.encoder))
    fitted = fit_model(recipe, splits, encode_splits(splits, tokenizer, recipe.data), Accelerator(cpu=True))
    save_artifact(
        folder,
        fitted.adapted.model,
        tokenizer,
        labels=splits.labels,
        source=fitted.loaded.source,
        merge=fitted.adapted.merge,
        metadata={},
    )
    return folder


def make_all(tiny_encoder, place: Path, whole_runs: Sequence[str], **strategy: object) -> list[Path]:
    """One artefact a family; those of whole runs hold two, three and five classes by turns."""
    folders = []
    for family in FAMILIES:
        encoder = tiny_encoder(family, "masked_lm")
        if family in whole_runs:
            num_labels = (2, 3, 5)[whole_runs.index(family) % 3]
            folders.append(run_tiny(encoder, place / family, num_labels, **strategy))
        else:
            folders.append(fit_tiny(encoder, place / family, **strategy))
    assert len(folders) == len(FAMILIES) >= 9
    counts = {len(load_artifact(folder).labels.names) for folder in folders}
    assert counts == {2, 3, 5} or len(whole_runs) < 3
    return folders


@pytest.mark.parametrize("whole_runs", RUNS, ids=len)
def test_full_loads_with_plain_transformers_to_the_same_logits(whole_runs, tiny_encoder, reload_all, tmp_path):
    reload_all(make_all(tiny_encoder, tmp_path, whole_runs, kind="full"))


@pytest.mark.slow
def test_merged_lora_loads_with_plain_transformers_to_the_same_logits(tiny_encoder, reload_all, tmp_path):
    folders = make_all(tiny_encoder, tmp_path, ["bert"], kind="lora", merge=True)
    reload_all(folders)


@pytest.mark.parametrize("whole_runs", RUNS, ids=len)
def test_lora_loads_with_the_call_its_card_prints_to_the_same_logits(whole_runs, tiny_encoder, reload_all, tmp_path):
    folders = make_all(tiny_encoder, tmp_path, whole_runs, kind="lora")
    reload_all(folders)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["p_tuning", "prompt"])
def test_prompts_load_with_the_call_their_card_prints_to_the_same_logits(variant, tiny_encoder, reload_all, tmp_path):
    folders = make_all(tiny_encoder, tmp_path, ["bert"], kind="prompts", variant=variant)
    reload_all(folders)


@pytest.mark.parametrize(
    "strategy",
    [
        {"kind": "prompts", "variant": "prefix"},
        pytest.param({"kind": "lora", "variant": "ia3"}, marks=pytest.mark.slow),
    ],
)
def test_what_peft_adds_to_an_earlier_artifact_reloads_by_its_literal_call(
    strategy, tiny_encoder, reload_all, tmp_path
):
    earlier = fit_tiny(tiny_encoder("bert", "masked_lm"), tmp_path / "first" / "model", kind="full")
    folder = run_tiny(earlier, tmp_path / "second", 5, **strategy)
    names = set(load_file(folder.parent / "base" / "model.safetensors"))
    assert names == {name.removeprefix("bert.") for name in load_file(earlier / "model.safetensors") if "bert." in name}
    reload_all([folder])


def test_a_student_of_fewer_layers_loads_with_plain_transformers_to_the_same_logits(tiny_encoder, reload_all, tmp_path):
    folders = []
    for family in ("bert", "albert", "modernbert"):
        encoder = tiny_encoder(family, "masked_lm")
        teacher = fit_tiny(encoder, tmp_path / family / "teacher" / "model", kind="full")
        kept = {} if family == "albert" else {"keep_layers": 1}
        student = {"kind": "distill", "teacher": str(teacher.parent), **kept}
        folders.append(fit_tiny(encoder, tmp_path / family / "student" / "model", **student))
        layers = load_artifact(folders[-1]).model.config.num_hidden_layers
        assert layers == (2 if family == "albert" else 1)
    reload_all(folders)


@pytest.mark.parametrize(
    "family",
    ["deberta-v3", *(pytest.param(each, marks=pytest.mark.slow) for each in ("bert", "roberta", "modernbert"))],
)
def test_own_forms_load_in_a_fresh_process_to_the_same_probabilities(family, tiny_encoder, reload_all, tmp_path):
    folders = []
    for method, checkpoint in (("label_embedding", "masked_lm"), ("entailment", "nli"), ("reuse", "classifier")):
        mapping = {"class 0": "it's", "class 1": "10", "class 2": "naïve \\ way"} if method == "reuse" else {}
        settings = {"method": method, "mapping": mapping, "calibrate": "temperature"}
        folders.append(fit_tiny(tiny_encoder(family, checkpoint), tmp_path / method, kind="zero_shot", **settings))
    folders.append(fit_tiny(tiny_encoder(family, "masked_lm"), tmp_path / "features", kind="features"))
    assert len(folders) == 4
    reload_all(folders)
    for folder in folders:
        found = Classifier.from_pretrained(folder, device="cpu").predict_proba(TEXTS)
        assert len({tuple(row) for row in found.tolist()}) == len(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_variant_of_a_family_comes_back_in_one_fresh_process(family, tiny_encoder, reload_all, tmp_path):
    variants = [variant for variant, own in CELLS if own == family]
    assert len(variants) == len(VARIANTS) - sum(own == family for _, own in IMPOSSIBLE)
    splits, folders = make_splits(16, 3), []
    for variant in variants:
        encoder = tiny_encoder(family, CHECKPOINTS.get(variant, "masked_lm"))
        recipe = make_recipe(variant, encoder, tiny_encoder(family, "classifier"), max_steps=1, batch_size=16)
        folders.append(fit_and_save(recipe, splits, tmp_path / variant))
    assert {load_artifact(folder).metadata["loader"] for folder in folders} == {"transformers", "peft", "nlp_transfer"}
    reload_all(folders)


def list_encoder(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the encoder in a plain classifier."""
    prefix = f"{model.base_model_prefix}."
    return {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}


CHAINS = ("bert", "distilbert", "roberta", "deberta-v3", "modernbert")


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("family", CHAINS)
def test_an_earlier_artifact_gives_its_encoder_and_loses_its_head(family, kind, tiny_encoder, tmp_path):
    earlier = fit_tiny(tiny_encoder(family, "masked_lm"), tmp_path / "earlier" / "model", kind=kind)
    reference = load_artifact(earlier).model
    if kind == "lora":
        reference = reference.merge_and_unload()
    kept = list_encoder(reference)
    seen = 0
    for names in (("x", "y", "z"), ("x", "y")):
        # The run's folder is as good as the artefact's.
        source = EncoderConfig(name=str(earlier.parent))
        loaded = load_encoder(source, LabelSpace("classification", names), seed=1)
        assert loaded.source.is_artifact
        fresh = list_encoder(loaded.model)
        assert fresh.keys() == kept.keys()
        assert all(torch.equal(fresh[name], kept[name]) for name in kept)
        assert loaded.model.config.id2label == dict(enumerate(names))
        old = dict(reference.named_parameters())
        assert loaded.new_parameters
        for name, parameter in loaded.model.named_parameters():
            if name in kept:
                assert name not in loaded.new_parameters
                continue
            seen += 1
            assert name in loaded.new_parameters
            # Biases and the scales of norms start at the same value in every head.
            if parameter.ndim > 1 and parameter.shape == old[name].shape:
                assert not torch.equal(parameter, old[name]), name
                assert parameter.std() > 0
            elif parameter.ndim == 1:
                assert parameter.unique().numel() == 1, name
        again = load_encoder(source, LabelSpace("classification", names), seed=1).model
        other = load_encoder(source, LabelSpace("classification", names), seed=2).model
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), loaded.model.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(other.parameters(), loaded.model.parameters(), strict=True))
    assert seen >= 4


@pytest.mark.parametrize(
    ("earlier_kind", "families"),
    [
        ("lora", ("distilbert", "modernbert")),
        pytest.param("lora", ("bert",), marks=pytest.mark.slow),
        pytest.param("full", ("bert", "distilbert", "modernbert"), marks=pytest.mark.slow),
    ],
)
def test_lora_on_an_earlier_artifact_reloads_by_its_literal_call(
    earlier_kind, families, tiny_encoder, reload_all, tmp_path
):
    folders = []
    for family in families:
        earlier = fit_tiny(tiny_encoder(family, "masked_lm"), tmp_path / family / "first" / "model", kind=earlier_kind)
        folders.append(run_tiny(earlier, tmp_path / family / "second", 5, kind="lora"))
        base = folders[-1].parent / "base"
        assert (base / "model.safetensors").is_file()
        assert not [name for name in load_file(base / "model.safetensors") if "lora" in name or "classifier" in name]
        assert json.loads((folders[-1] / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    reload_all(folders)


def test_full_on_an_adapter_artifact_trains_and_reloads_plain(tiny_encoder, reload_all, tmp_path):
    earlier = fit_tiny(tiny_encoder("bert", "masked_lm"), tmp_path / "first" / "model", kind="lora")
    second = run_tiny(earlier, tmp_path / "second", 2, kind="full")
    assert not (second.parent / "base").exists()
    reload_all([second])


def test_predictions_of_a_run_are_those_of_its_reloaded_artifact(tiny_encoder, tmp_path):
    folder = run_tiny(tiny_encoder("bert"), tmp_path / "run", 3, kind="lora")
    table = pd.read_parquet(folder.parent / "predictions.parquet")
    assert len(table) == 24
    classifier = Classifier.from_pretrained(folder.parent)
    assert classifier.predict(table["text"].tolist()) == table["predicted"].tolist()
    found = classifier.predict_proba(table["text"].tolist())
    stated = table[[f"probability_{name}" for name in classifier.labels]].to_numpy()
    assert abs(found - stated).max() < 1e-6


def test_a_changed_head_is_noticed(tiny_encoder, tmp_path):
    folder = fit_tiny(tiny_encoder("bert"), tmp_path / "model", kind="full")
    weights = load_file(folder / "model.safetensors")
    inputs = encode(folder, TEXTS)
    with torch.no_grad():
        before = load_artifact(folder).model(**inputs).logits
        weights["classifier.bias"][0] += 1e-6
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        after = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**inputs).logits
    assert not torch.equal(before, after)
