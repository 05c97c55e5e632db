"""Every strategy on every family keeps the same promises."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from nlp_transfer.contracts import Prepared, Splits
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.engine.forward import Feeder
from nlp_transfer.methods.fit import fit_model, predict_split
from nlp_transfer.models.encoder import LoadedEncoder, load_encoder, load_tokenizer
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.sources import resolve_encoder
from nlp_transfer.publishing.artifact import load_artifact, save_artifact
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS, Recipe
from nlp_transfer.strategies import STRATEGIES, Adapted
from tests.tiny import FAMILIES, make_splits

CELLS = [(kind, family) for kind in STRATEGIES for family in FAMILIES]
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")


@dataclass
class Cell:
    """One strategy trained three steps on one family, from a checkpoint that holds no pooler."""

    kind: str
    family: str
    recipe: Recipe
    splits: Splits
    prepared: Prepared
    before: Adapted
    trained: Adapted
    loaded: LoadedEncoder


def make_recipe(kind: str, encoder: Path, **training: object) -> Recipe:
    settings = {"max_steps": 3, "batch_size": 32, "learning_rate": 1e-2, "device": "cpu", "restore_best": False}
    return load_recipe(
        {
            "encoder": {"name": str(encoder)},
            "strategy": {"kind": kind},
            "training": settings | training,
            "data": {"max_length": 48},
        }
    )


def prepare(recipe: Recipe, splits: Splits) -> Prepared:
    tokenizer = load_tokenizer(resolve_encoder(recipe.encoder))
    return encode_splits(splits, tokenizer, recipe.data)


def adapt(recipe: Recipe, prepared: Prepared) -> tuple[LoadedEncoder, Adapted]:
    loaded = load_encoder(recipe.encoder, prepared.labels, seed=recipe.training.seed)
    return loaded, STRATEGIES[recipe.strategy.kind].adapt(loaded, recipe.strategy)


def read_batch(prepared: Prepared, split: str = "test") -> dict[str, torch.Tensor]:
    """The first rows of a split, padded to one length."""
    feeder = Feeder(prepared, split, torch.device("cpu"))
    inputs = feeder.feed(torch.arange(min(8, feeder.encoded.num_examples)).numpy()).inputs
    assert inputs["attention_mask"].min() == 0, "a batch without padding would prove less"
    return inputs


def compute(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**inputs).logits
    return logits


@pytest.fixture(
    scope="module",
    params=[pytest.param(cell, marks=pytest.mark.xdist_group("-".join(cell)), id="-".join(cell)) for cell in CELLS],
)
def cell(request, tiny_encoder) -> Cell:
    kind, family = request.param
    recipe = make_recipe(kind, tiny_encoder(family, "masked_lm"))
    splits = make_splits(96, 3)
    prepared = prepare(recipe, splits)
    _, before = adapt(recipe, prepared)
    fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
    assert fitted.log.steps == 3
    return Cell(kind, family, recipe, splits, prepared, before, fitted.adapted, fitted.loaded)


def test_every_strategy_meets_every_family():
    assert len(CELLS) == len(STRATEGIES) * len(FAMILIES) == len(set(CELLS))
    assert len(STRATEGIES) >= 3
    assert len(FAMILIES) >= 9
    assert set(STRATEGIES) == set(STRATEGY_CONFIGS)
    assert all(strategy.kind == kind for kind, strategy in STRATEGIES.items())


def is_declared(cell: Cell, name: str) -> bool:
    """Whether a strategy promises to move a parameter; written anew here, apart from the strategies."""
    if cell.kind == "full":
        return True
    if cell.kind == "lora":
        return ".lora_" in name or ".modules_to_save." in name
    heads = find_head_modules(cell.loaded.model)
    return name.startswith(tuple(f"{head}." for head in heads))


def find_gradients(cell: Cell) -> set[str]:
    """Parameters that a backward pass reaches with anything but zero."""
    model = copy.deepcopy(cell.trained.model).train()
    batch = Feeder(cell.prepared, "train", torch.device("cpu")).feed(torch.arange(32).numpy())
    torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


def test_only_the_declared_weights_move_bit_for_bit(cell):
    before = dict(cell.before.model.named_parameters())
    after = dict(cell.trained.model.named_parameters())
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    declared = {name for name in before if is_declared(cell, name)}
    assert moved <= declared
    assert moved >= find_gradients(cell) & declared
    # What no gradient reaches may stay: no more than a few vectors, never a head.
    still = declared - moved
    assert len(still) <= len(declared) // 4, still
    assert not still & cell.trained.new_parameters
    if cell.kind != "full":
        assert len(before) - len(moved) > len(before) // 2


def test_buffers_do_not_move(cell):
    before, after = (dict(each.model.named_buffers()) for each in (cell.before, cell.trained))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_count_of_trainable_weights_is_the_count_of_declared_weights(cell):
    parameters = dict(cell.trained.model.named_parameters())
    declared = sum(p.numel() for name, p in parameters.items() if is_declared(cell, name))
    assert cell.trained.num_trainable == declared > 0
    assert cell.trained.num_parameters == sum(p.numel() for p in parameters.values())
    assert (cell.trained.num_trainable == cell.trained.num_parameters) == (cell.kind == "full")


def test_new_parameters_are_exactly_what_the_checkpoint_did_not_hold(cell):
    _, info = AutoModelForSequenceClassification.from_pretrained(
        cell.recipe.encoder.name, num_labels=3, output_loading_info=True
    )
    missing = set(info["missing_keys"])
    assert missing
    plain = {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
        for name in cell.trained.new_parameters
    }
    assert plain == missing == set(cell.loaded.new_parameters)
    assert cell.trained.new_parameters <= {n for n, p in cell.trained.model.named_parameters() if p.requires_grad}


def save(cell: Cell, folder: Path, *, merge: bool = False) -> Path:
    tokenizer = load_tokenizer(resolve_encoder(cell.recipe.encoder))
    save_artifact(
        folder,
        copy.deepcopy(cell.trained.model),
        tokenizer,
        labels=cell.prepared.labels,
        source=cell.loaded.source,
        merge=merge,
        metadata={},
    )
    return folder


def test_what_was_newly_initialised_comes_back_from_the_saved_folder_bit_for_bit(cell, tmp_path):
    inputs = read_batch(cell.prepared)
    expected = compute(cell.trained.model, inputs)
    folder = save(cell, tmp_path / "model")
    torch.manual_seed(12345)  # whatever would be drawn anew is drawn otherwise
    artifact = load_artifact(folder)
    assert artifact.labels == cell.prepared.labels
    assert torch.equal(compute(artifact.model, inputs), expected)
    assert not torch.equal(expected, compute(cell.before.model, inputs)), "three steps changed nothing"


def test_a_pooler_that_is_not_saved_is_noticed(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.strategies.lora.find_new_modules", lambda *_: [])
    recipe = make_recipe("lora", tiny_encoder("bert", "masked_lm"))
    prepared = prepare(recipe, make_splits(16, 3))
    loaded, adapted = adapt(recipe, prepared)
    inputs = read_batch(prepared)
    expected = compute(adapted.model, inputs)
    tokenizer = load_tokenizer(loaded.source)
    save_artifact(
        tmp_path / "model",
        adapted.model,
        tokenizer,
        labels=prepared.labels,
        source=loaded.source,
        merge=False,
        metadata={},
    )
    assert not torch.equal(compute(load_artifact(tmp_path / "model").model, inputs), expected)


def test_an_artifact_holds_no_pickle_and_nothing_but_its_files(cell, tmp_path):
    folder = save(cell, tmp_path / "model")
    names = {path.name for path in folder.rglob("*")}
    weights = "adapter_model.safetensors" if cell.trained.format == "peft" else "model.safetensors"
    assert {weights, "nlp_transfer.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith(PICKLES)]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # A root config.json beside an adapter breaks AutoModel.
    assert ("config.json" in names) == (cell.trained.format == "transformers")


LORA_FAMILIES = [pytest.param(family, marks=pytest.mark.xdist_group(f"lora-{family}")) for family in FAMILIES]


@pytest.mark.parametrize("family", LORA_FAMILIES)
def test_lora_starts_as_the_encoder_with_the_same_head(family, tiny_encoder):
    recipe = make_recipe("lora", tiny_encoder(family, "masked_lm"))
    prepared = prepare(recipe, make_splits(16, 3))
    inputs = read_batch(prepared)
    _, adapted = adapt(recipe, prepared)
    plain = load_encoder(recipe.encoder, prepared.labels, seed=recipe.training.seed).model
    assert isinstance(adapted.model, PeftModel)
    assert any(".lora_A." in name for name, _ in adapted.model.named_parameters())
    assert torch.equal(compute(adapted.model, inputs), compute(plain, inputs))


@pytest.mark.parametrize("cell", [("lora", family) for family in FAMILIES], indirect=True, ids=FAMILIES)
def test_merged_lora_is_a_plain_model_with_the_same_logits(cell, tmp_path):
    inputs = read_batch(cell.prepared)
    expected = compute(cell.trained.model, inputs)
    folder = save(cell, tmp_path / "model", merge=True)
    assert not (folder / "adapter_config.json").exists()
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.allclose(compute(model, inputs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_sixteen_examples_can_be_learned_by_heart(family, tiny_encoder):
    recipe = make_recipe(
        "full", tiny_encoder(family), max_steps=60, batch_size=16, learning_rate=3e-3, evaluate_every=60
    )
    splits = make_splits(16, 2)
    prepared = prepare(recipe, splits)
    accelerator = Accelerator(cpu=True)
    fitted = fit_model(recipe, splits, prepared, accelerator)
    probabilities = predict_split(fitted.adapted.model, prepared, "train", accelerator, batch_size=16)
    labels = prepared.splits["train"].labels
    assert labels is not None
    assert len(labels) == 16
    assert (probabilities.argmax(axis=1) == labels).mean() == 1.0
