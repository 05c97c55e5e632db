"""Every strategy on every family keeps the same promises."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from nlp_transfer.contracts import Prepared, Splits
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.errors import RecipeError
from nlp_transfer.fitting.fit import fit_model, predict_split
from nlp_transfer.models.encoder import LoadedEncoder, load_encoder, load_tokenizer
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.artifact import load_artifact, save_artifact
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS, Recipe
from nlp_transfer.strategies import STRATEGIES, Adapted
from tests.contracts.variants import CELLS, CHECKPOINTS, IMPOSSIBLE, VARIANTS, adapt, make_recipe, prepare
from tests.tiny import FAMILIES, make_splits

FOLDED = ("distilbert", "electra", "deberta-v2", "deberta-v3")
"""Families whose own head can hold a linear one on the first token."""

SOLVED = (
    *("features", "features-svm", "features-knn", "features-first", "features-mlp", "few_shot-prototypes"),
    *("zero_shot", "zero_shot-calibrated", "zero_shot-entailment", "zero_shot-reuse"),
)
"""Variants that fit without the loop: nothing of theirs moves by gradients."""

WHOLE = (
    *("full", "full-l2_sp", "full-mixout", "full-probe", "few_shot", "few_shot-cloze", "distill", "distill-shallow"),
    *("layerwise-gradual", "layerwise-decay", "layerwise-reinit"),
)
"""Variants that move every weight."""

UPDATES = (
    *(".lora_", ".vera_lambda_", ".ia3_l.", ".oft_R.", ".fourierft_spectrum.", ".hada_w", ".lokr_w", ".miss_block."),
)
"""Parts of the names that peft gives to what it trains."""


def list_parameters() -> list[Any]:
    """Every cell; by default full meets every family, LoRA four, other strategies two in turn, other variants one."""
    found = []
    for number, name in enumerate(VARIANTS):
        families = [family for variant, family in CELLS if variant == name]
        for place, family in enumerate(families):
            turn = (place - number) % len(families)
            marks = [pytest.mark.xdist_group(f"{name}-{family}")]
            if turn >= {"full": len(FAMILIES), "lora": 4}.get(name, 2 if name in STRATEGIES else 1):
                marks.append(pytest.mark.slow)
            found.append(pytest.param((name, family), marks=marks, id=f"{name}-{family}"))
    return found


PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")


@dataclass
class Cell:
    """One variant of a strategy trained three steps on one family, from a checkpoint that holds no pooler."""

    variant: str
    kind: str
    family: str
    recipe: Recipe
    splits: Splits
    prepared: Prepared
    before: Adapted
    trained: Adapted
    loaded: LoadedEncoder
    num_trainable: int


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


@pytest.fixture(scope="module", params=list_parameters())
def cell(request, tiny_encoder) -> Cell:
    variant, family = request.param
    # Gradual unfreezing opens a layer an epoch: three epochs of one step each open all of them.
    batch_size = 96 if variant == "layerwise-gradual" else 32
    encoder = tiny_encoder(family, CHECKPOINTS.get(variant, "masked_lm"))
    recipe = make_recipe(variant, encoder, tiny_encoder(family, "classifier"), batch_size=batch_size)
    splits = make_splits(96, 3)
    prepared = prepare(recipe, splits)
    _, before = adapt(recipe, prepared)
    if before.to_artifact is not None:
        before.model = before.to_artifact(before.model)
    fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
    kind = recipe.strategy.kind
    assert fitted.log.steps == (0 if variant in SOLVED else 3)
    return Cell(
        variant, kind, family, recipe, splits, prepared, before, fitted.adapted, fitted.loaded, fitted.num_trainable
    )


def test_every_strategy_meets_every_family():
    assert len(CELLS) + len(IMPOSSIBLE) == len(VARIANTS) * len(FAMILIES)
    assert len(set(CELLS)) == len(CELLS) == 485
    assert len(IMPOSSIBLE) == 15
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"against every family, in {len(CELLS)} cells." in readme
    assert len(FAMILIES) >= 9
    assert set(STRATEGIES) == set(STRATEGY_CONFIGS) == {str(section["kind"]) for section in VARIANTS.values()}
    assert set(STRATEGIES) <= set(VARIANTS)
    assert all(strategy.kind == kind for kind, strategy in STRATEGIES.items())
    by_default = [each for each in list_parameters() if not any(mark.name == "slow" for mark in each.marks)]
    assert {each.values[0][0] for each in by_default} == set(VARIANTS)


@pytest.mark.parametrize(("variant", "family"), IMPOSSIBLE)
def test_what_cannot_be_is_refused_with_the_reason(variant, family, tiny_encoder):
    recipe = make_recipe(variant, tiny_encoder(family))
    prepared = prepare(recipe, make_splits(16, 3))
    with pytest.raises(RecipeError, match=IMPOSSIBLE[variant, family]) as caught:
        adapt(recipe, prepared)
    assert "strategy." in str(caught.value)


def is_declared(cell: Cell, name: str) -> bool:
    """Whether a strategy promises to move a parameter; written anew here, apart from the strategies."""
    if cell.variant in SOLVED:
        return cell.kind != "zero_shot" and name.startswith("head.")
    if cell.variant in WHOLE:
        return True
    if cell.kind == "lora":
        return any(part in name for part in (*UPDATES, ".modules_to_save."))
    if cell.kind == "prompts":
        return name.startswith("prompt_encoder.default.") or ".modules_to_save." in name
    if cell.kind == "adapters":
        outside = not name.startswith(f"encoder.{cell.loaded.model.base_model_prefix}.")
        norm = cell.variant == "adapters-norms" and re.search(r"norm", name, re.IGNORECASE) is not None
        return outside or norm or name.removeprefix("encoder.") in cell.loaded.new_parameters
    heads = find_head_modules(cell.loaded.model)
    if name.startswith(tuple(f"{head}." for head in heads)):
        return True
    if cell.kind == "frozen" or "embedding" in name or "encoder.LayerNorm" in name or "relative_attention" in name:
        return False
    if cell.variant == "layerwise-biases":
        return name.endswith(".bias")
    if cell.variant == "layerwise-norms":
        return re.search(r"norm", name, re.IGNORECASE) is not None
    # Of two layers the upper one moves; what runs above it too.
    return re.search(r"\.layers?\.1\.|albert_layers|final_norm", name) is not None


def find_gradients(cell: Cell) -> set[str]:
    """Parameters that a backward pass reaches with anything but zero."""
    model = copy.deepcopy(cell.trained.model).train()
    batch = Feeder(cell.prepared, "train", torch.device("cpu")).feed(torch.arange(32).numpy())
    torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


def test_only_the_declared_weights_move_bit_for_bit(cell):
    if cell.variant in CHECKPOINTS:
        encoder = cell.trained.model.encoder.state_dict()
        held = AutoModelForSequenceClassification.from_pretrained(cell.recipe.encoder.name).state_dict()
        assert len(encoder) > 10
        assert encoder.keys() == held.keys()
        assert all(torch.equal(encoder[name], held[name]) for name in encoder)
        return
    if cell.variant in SOLVED:
        encoder = getattr(cell.loaded.model, cell.loaded.model.base_model_prefix).state_dict()
        plain = load_encoder(cell.recipe.encoder, cell.prepared.labels, seed=0).model
        held = getattr(plain, plain.base_model_prefix).state_dict()
        assert len(encoder) > 10
        assert all(torch.equal(encoder[name], held[name]) for name in encoder)
        assert encoder.keys() == {name for name in held if not name.startswith("pooler.")}
        return
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
    if cell.kind == "adapters":
        encoder = {name for name in before if name.startswith(f"encoder.{cell.loaded.model.base_model_prefix}.")}
        assert len(encoder - moved) > (8 if cell.variant == "adapters-norms" else 10)
        open_too = r"\.pooler\.|norm" if cell.variant == "adapters-norms" else r"\.pooler\."
        assert encoder - moved >= {name for name in encoder if not re.search(open_too, name, re.IGNORECASE)}
    elif cell.kind in ("frozen", "prompts"):
        assert len(before) - len(moved) > len(before) // 2
    elif cell.kind == "lora":
        # Two small matrices stand beside every linear one: most names move, and few weights.
        assert sum(before[name].numel() for name in moved) < sum(p.numel() for p in before.values()) / 2


def test_buffers_do_not_move(cell):
    if cell.variant in SOLVED:
        return  # neighbors are kept in buffers
    before, after = (dict(each.model.named_buffers()) for each in (cell.before, cell.trained))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_count_of_trainable_weights_is_the_count_of_declared_weights(cell):
    if cell.variant == "features-first":
        # In the families whose own head can hold it, the linear head has no names of its own.
        assert cell.num_trainable == 3 * 32 + 3
        assert (cell.trained.format == "transformers") == (cell.family in FOLDED)
        return
    parameters = dict(cell.trained.model.named_parameters())
    declared = sum(p.numel() for name, p in parameters.items() if is_declared(cell, name))
    if cell.variant in ("prompts-p_tuning", "prompts-project", "lora-pissa"):
        # A network makes the vectors while training, and afterwards the vectors are all that is left; the update of
        # matrices that PiSSA took apart is saved at twice the rank.
        plain = adapt(cell.recipe, cell.prepared)[1]
        opened = {n: p.numel() for n, p in plain.model.named_parameters() if is_declared(cell, n)}
        assert cell.num_trainable == plain.num_trainable == sum(opened.values()) != declared
        has_network = any(".mlp_head." in name or ".transform." in name for name in opened)
        assert has_network == (cell.kind == "prompts")
    else:
        assert cell.num_trainable == declared
    assert cell.trained.num_trainable == declared
    learns_nothing = cell.variant == "features-knn" or cell.kind == "zero_shot"
    assert (declared == 0) == learns_nothing
    assert cell.trained.num_parameters == sum(p.numel() for p in parameters.values())
    assert (cell.trained.num_trainable == cell.trained.num_parameters) == (cell.variant in WHOLE)


def test_new_parameters_are_exactly_what_the_checkpoint_did_not_hold(cell):
    if cell.trained.format == "nlp_transfer" or cell.variant in SOLVED:
        return  # their own weights are all written; that they come back is the next promise
    _, info = AutoModelForSequenceClassification.from_pretrained(
        cell.recipe.encoder.name, num_labels=3, output_loading_info=True
    )
    missing = set(info["missing_keys"])
    assert missing
    outer = "base_model." if cell.kind == "prompts" else "base_model.model."
    plain = {name.removeprefix(outer).replace(".modules_to_save.default", "") for name in cell.trained.new_parameters}
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
    if cell.variant not in SOLVED:
        assert not torch.equal(expected, compute(cell.before.model, inputs)), "three steps changed nothing"
    assert expected.std() > 0


def test_a_pooler_that_is_not_saved_is_noticed(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.strategies.wrapping.find_new_modules", lambda *_: [])
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
    files = {
        "peft": "adapter_model.safetensors",
        "transformers": "model.safetensors",
        "nlp_transfer": "own.safetensors",
    }
    weights = files[cell.trained.format]
    assert {weights, "nlp_transfer.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith(PICKLES)]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # A root config.json beside an adapter breaks AutoModel.
    assert (folder / "config.json").exists() == (cell.trained.format == "transformers")
    if cell.trained.format == "nlp_transfer":
        assert (folder / "encoder" / "model.safetensors").exists() == (
            (cell.kind == "few_shot" and cell.variant not in SOLVED) or cell.variant == "zero_shot-reuse"
        ), "only if it moved, or is a classifier itself"


LORA_CELLS = [each for each in list_parameters() if VARIANTS[each.values[0][0]]["kind"] == "lora"]


@pytest.mark.parametrize("pair", LORA_CELLS)
def test_low_rank_updates_start_as_the_encoder_with_the_same_head(pair, tiny_encoder):
    variant, family = pair
    recipe = make_recipe(variant, tiny_encoder(family, "masked_lm"))
    prepared = prepare(recipe, make_splits(16, 3))
    inputs = read_batch(prepared)
    _, adapted = adapt(recipe, prepared)
    plain = load_encoder(recipe.encoder, prepared.labels, seed=recipe.training.seed).model
    assert isinstance(adapted.model, PeftModel)
    assert any(part in name for name, _ in adapted.model.named_parameters() for part in UPDATES)
    # PiSSA takes the matrices apart and puts them together again, to the precision of the figures.
    tolerance = 1e-5 if variant == "lora-pissa" else 0
    assert torch.allclose(compute(adapted.model, inputs), compute(plain, inputs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("cell", LORA_CELLS, indirect=True)
def test_a_merged_update_is_a_plain_model_with_the_same_logits(cell, tmp_path):
    inputs = read_batch(cell.prepared)
    expected = compute(cell.trained.model, inputs)
    folder = save(cell, tmp_path / "model", merge=True)
    assert not (folder / "adapter_config.json").exists()
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.allclose(compute(model, inputs), expected, rtol=0, atol=1e-5)


UNLEARNED = {
    "features-knn": "ten of sixteen neighbors outvote the one that an example is to itself",
    "few_shot-prototypes": "nothing but the mean of a class is kept",
    "zero_shot": "nothing is trained",
    "zero_shot-calibrated": "one number is fitted",
    "zero_shot-entailment": "nothing is trained",
    "zero_shot-reuse": "nothing is trained",
}
"""Variants that cannot learn examples by heart, and why."""

BY_HEART: dict[str, tuple[int, float]] = {
    **dict.fromkeys(("full", "full-l2_sp", "full-probe", "layerwise-decay", "layerwise-reinit"), (60, 3e-3)),
    **dict.fromkeys(("full-mixout", "layerwise", "layerwise-uncached", "layerwise-gradual"), (120, 3e-3)),
    **dict.fromkeys(("layerwise-biases", "layerwise-norms"), (200, 3e-2)),
    **dict.fromkeys(("frozen", "frozen-uncached"), (300, 3e-2)),
    **dict.fromkeys(("features", "features-svm", "features-first", "features-mlp"), (0, 1.0)),
    "few_shot": (60, 3e-3),
    "few_shot-cloze": (120, 3e-3),
    **dict.fromkeys(("distill", "distill-shallow"), (120, 3e-3)),
    **dict.fromkeys(("lora", "lora-dora", "lora-pissa", "lora-rslora"), (200, 3e-3)),
    "lora-plus": (200, 1e-3),  # of the second matrix sixteen times as much
    **dict.fromkeys(("lora-adalora", "lora-vera"), (200, 3e-2)),
    "adapters": (300, 1e-2),
    "prompts": (500, 1e-1),
    **dict.fromkeys(("prompts-p_tuning", "prompts-random"), (1000, 2e-2)),
    **dict.fromkeys(("prompts-prefix", "prompts-project", "lora-ia3"), (200, 3e-2)),
    **dict.fromkeys(("lora-fourierft", "lora-lokr"), (120, 3e-2)),
    **dict.fromkeys(("adapters-houlsby", "adapters-norms", "adapters-input_norm", "adapters-parallel"), (120, 1e-2)),
    **dict.fromkeys(("lora-oft", "lora-loha", "lora-miss"), (120, 1e-2)),
}
"""Updates and rate with which a tiny encoder learns sixteen examples; an encoder that does not move needs more."""

EAGER: dict[str, dict[str, object]] = {
    **{key: {"penalties": [1e6]} for key in ("features", "features-svm", "features-first")},
    # The teacher knows nothing; the labels are what is to be learned.
    **{key: {"alpha": 0.01} for key in ("distill", "distill-shallow")},
}
"""Settings that keep a variant from holding back."""

THREE_CLASSES = ("distill", "distill-shallow", "few_shot-cloze")
"""Variants with a teacher or words for three classes; the others are given two."""

QUICK = [
    *(("full", family) for family in ("bert", "deberta-v3", "modernbert")),
    ("adapters", "bert"),
    ("lora-ia3", "bert"),
]
"""What the default run holds."""

BY_HEART_CELLS = [
    pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow]) for pair in CELLS if pair[0] in BY_HEART
]


def test_every_variant_learns_by_heart_or_says_why_not():
    assert set(BY_HEART) | set(UNLEARNED) == set(VARIANTS)
    assert not set(BY_HEART) & set(UNLEARNED)
    assert len(UNLEARNED) == 6


@pytest.mark.parametrize(("variant", "family"), BY_HEART_CELLS)
def test_sixteen_examples_can_be_learned_by_heart(variant, family, tiny_encoder):
    steps, rate = BY_HEART[variant]
    settings: dict[str, object] = {"max_steps": steps, "learning_rate": rate} if steps else {}
    encoder = tiny_encoder(family, "masked_lm" if variant == "few_shot-cloze" else "base")
    splits = make_splits(16, 3 if variant in THREE_CLASSES else 2)
    teacher = tiny_encoder(family, "classifier")
    recipe = make_recipe(variant, encoder, teacher, batch_size=16, evaluate_every=max(steps, 1), **settings)
    eager = {f"strategy.{key}": value for key, value in EAGER.get(variant, {}).items()}
    recipe = load_recipe(recipe, eager)
    prepared = prepare(recipe, splits)
    accelerator = Accelerator(cpu=True)
    fitted = fit_model(recipe, splits, prepared, accelerator)
    probabilities = predict_split(fitted.adapted.model, prepared, "train", accelerator, batch_size=16)
    labels = prepared.splits["train"].labels
    assert labels is not None
    assert len(labels) == 16
    assert (probabilities.argmax(axis=1) == labels).mean() == 1.0
