"""Every method keeps the same promises around every strategy that it goes with, on four families."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file

import nlp_transfer as nt
from nlp_transfer.contracts import Prepared, RunLog, Splits
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.data.fingerprints import identify_rows
from nlp_transfer.errors import RecipeError
from nlp_transfer.fitting.fit import Fitted
from nlp_transfer.fitting.series import Fits
from nlp_transfer.methods import METHODS, train_with_methods
from nlp_transfer.models.encoder import load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.artifact import load_artifact, save_artifact
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.methods.table import METHODS as TABLE
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.shipped import list_shipped
from nlp_transfer.recipe.strategies.table import STRATEGIES
from tests.invariants.launched import launch
from tests.tiny import make_splits
from tests.training import Watcher

FAMILIES = ("bert", "roberta", "distilbert", "modernbert")

SETTINGS: dict[str, dict[str, object]] = {
    "r_drop": {"alpha": 0.5},
    "self_training": {"rounds": 2, "min_confidence": 0.0, "share": 1.0, "settled": 0.0},
    "self_training-soft": {
        "rounds": 2,
        "min_confidence": 0.0,
        "share": 0.6,
        "settled": 0.0,
        "balance": False,
        "targets": "soft",
        "weight": 0.5,
        "teacher": "mean",
    },
    "domain_alignment": {"weight": 0.3, "hidden": 8},
    "domain_alignment-cdan": {"loss": "cdan", "weight": 0.3, "hidden": 8, "entropy": True},
    "domain_alignment-coral": {"loss": "coral", "weight": 3.0},
    "domain_alignment-mmd": {"loss": "mmd", "weight": 3.0},
    "domain_mlm": {"epochs": 1.0, "learning_rate": 1e-3, "masked_share": 0.3},
    "mixed_mlm": {"weight": 0.4, "masked_share": 0.3},
}
"""What each method is tried with: every kind by its name, and further settings of some."""

OFF: dict[str, dict[str, object]] = {
    "r_drop": {"alpha": 0.0},
    "self_training": {"rounds": 0},
    "domain_alignment": {"weight": 0.0},
    "domain_mlm": {"epochs": 0.0},
    "mixed_mlm": {"weight": 0.0},
}
"""The settings that leave a method out."""

STRATEGY_KINDS = ("full", "lora", "adapters", "features")
NUM_TEXTS = 40


def goes_with(name: str, strategy: str) -> bool:
    """Whether a method goes with a strategy, by the tables."""
    facts, other = TABLE[name.partition("-")[0]], STRATEGIES[strategy]
    needs_loss = facts.phase != "around" or name.endswith("-soft")
    return other.trains in facts.trains and not (needs_loss and other.learning_rate is None)


CELLS = [
    (name, strategy, family)
    for name in SETTINGS
    for strategy in STRATEGY_KINDS
    for family in FAMILIES
    if goes_with(name, strategy)
]


def list_parameters() -> list[Any]:
    """Every cell; by default each method meets each strategy on one family in turn."""
    found = []
    for number, cell in enumerate(CELLS):
        name, strategy, family = cell
        turn = FAMILIES[(list(SETTINGS).index(name) + STRATEGY_KINDS.index(strategy)) % len(FAMILIES)]
        marks = [] if family == turn else [pytest.mark.slow]
        found.append(pytest.param(*cell, marks=marks, id="-".join(cell)))
        assert number < len(CELLS)
    return found


def make_case(encoder: Path, name: str, strategy: str, **settings: object) -> tuple[Recipe, Splits, Prepared]:
    """A recipe with a method, and splits with further texts."""
    kind = name.partition("-")[0]
    recipe = load_recipe(
        {
            "encoder": {"name": str(encoder), "dropout": 0.1},
            "strategy": {"kind": strategy},
            "methods": [{"kind": kind, **SETTINGS[name], **settings}],
            "data": {"max_length": 48, "unlabelled": "texts.txt"},
            "training": {
                "device": "cpu",
                "max_steps": 5,
                "batch_size": 8,
                "checkpoint_every": 1,
                "evaluate_every": 2,
                "learning_rate": 1e-3,
                "precision": "fp32",
            },
        }
    )
    splits = make_splits(32, 3)
    more = make_splits(NUM_TEXTS, 3, seed=7).tables["train"].remove_columns(["label"])
    splits = replace(splits, unlabelled=more)
    tokenizer = load_tokenizer(resolve_encoder(recipe.encoder))
    return recipe, splits, encode_splits(splits, tokenizer, recipe.data)


class Breaker(Watcher):
    """Breaks a training off after some updates."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        if log.steps == self.steps:
            raise KeyboardInterrupt


def train(case: tuple[Recipe, Splits, Prepared], folder: Path, breaks: dict[int, int] | None = None) -> Fitted:
    """Train with the methods of a recipe; ``breaks`` says at which step of which fit the training is broken off."""
    recipe, splits, prepared = case
    started = iter(range(100))

    def make_hooks(num_steps: int, label: str) -> tuple[Any, ...]:
        steps = (breaks or {}).get(next(started))
        return () if steps is None else (Breaker(steps),)

    fits = Fits(
        *(recipe, splits, prepared, Accelerator(cpu=True)),
        make_hooks=make_hooks,
        checkpoints=folder,
        rows=identify_rows(prepared),
    )
    return train_with_methods(fits)


def read_weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    """Every tensor of a model, copied."""
    return {name: tensor.detach().clone() for name, tensor in fitted.adapted.model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """The same tensors, bit for bit."""
    assert one.keys() == other.keys()
    assert len(one) > 4
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_method_is_tried_and_has_a_recipe() -> None:
    assert {name.partition("-")[0] for name in SETTINGS} == set(TABLE) == set(METHODS) == set(OFF)
    assert len(CELLS) == 112
    shipped = list_shipped()
    for kind, facts in TABLE.items():
        assert facts.recipe in shipped, kind
        assert load_recipe(facts.recipe).methods[-1].kind == kind
        assert facts.section.use_when
        assert METHODS[kind].kind == kind
        given = {"before": METHODS[kind].before, "change": METHODS[kind].change, "around": METHODS[kind].run}
        assert [phase for phase, work in given.items() if work is not None] == [facts.phase]
        assert facts.is_off(facts.section.model_validate({"kind": kind, **OFF[kind]}))
        assert not facts.is_off(facts.section.model_validate({"kind": kind}))


@pytest.mark.parametrize(("name", "strategy", "family"), list_parameters())
def test_a_method_goes_on_after_a_kill_reloads_and_leaves_nothing_of_its_own(
    name: str, strategy: str, family: str, tiny_encoder: Any, tmp_path: Path
) -> None:
    case = make_case(tiny_encoder(family), name, strategy)
    recipe, _, prepared = case
    whole = train(case, tmp_path / "whole")
    expected = read_weights(whole)
    # In the first fit, then in the one after it where there is one.
    for breaks in ({0: 3},) if TABLE[name.partition("-")[0]].phase == "change" else ({0: 3}, {1: 2}):
        if strategy == "features":
            continue
        place = tmp_path / f"broken-{next(iter(breaks))}"
        with pytest.raises(KeyboardInterrupt):
            train(case, place, breaks)
        again = train(case, place)
        assert again.log.resumed_at
        assert_same(read_weights(again), expected)
        assert again.log.methods == whole.log.methods
    plain = train(make_case(tiny_encoder(family), name, strategy, **OFF[name.partition("-")[0]]), tmp_path / "plain")
    assert read_weights(plain).keys() == expected.keys(), "what a method adds stays behind"
    assert any(not torch.equal(tensor, expected[key]) for key, tensor in read_weights(plain).items())
    inputs = {"input_ids": torch.arange(5, 21).reshape(2, 8), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    with torch.no_grad():
        logits = whole.adapted.model.eval()(**inputs).logits
    tokenizer = load_tokenizer(whole.loaded.source)
    save_artifact(
        tmp_path / "model", whole.adapted.model, tokenizer, labels=prepared.labels, source=whole.loaded.source,
        merge=False, metadata={"recipe": recipe.model_dump(mode="json")},
    )  # fmt: skip
    with torch.no_grad():
        found = load_artifact(tmp_path / "model").model.eval()(**inputs).logits
    assert torch.allclose(found, logits, atol=1e-6)
    held = {key for path in (tmp_path / "model").rglob("*.safetensors") for key in load_file(path)}
    assert held
    assert not [key for key in held if "domain" in key or "teacher" in key or "masked" in key]


@pytest.mark.parametrize("name", list(OFF))
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_method_of_no_strength_is_the_plain_training_bit_for_bit(
    name: str, strategy: str, tiny_encoder: Any, tmp_path: Path
) -> None:
    recipe, splits, prepared = make_case(tiny_encoder("bert"), name, strategy, **OFF[name])
    off = train((recipe, splits, prepared), tmp_path / "off")
    bare = recipe.model_copy(update={"methods": []})
    without = replace(prepared, unlabelled=None)
    plain = train((bare, replace(splits, unlabelled=None), without), tmp_path / "plain")
    assert_same(read_weights(off), read_weights(plain))
    assert off.log.losses == plain.log.losses


def test_two_passes_without_dropout_are_one(tiny_encoder: Any, tmp_path: Path) -> None:
    recipe, splits, prepared = make_case(tiny_encoder("bert"), "r_drop", "full", alpha=3.0)
    still = recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"dropout": 0.0})})
    twice = train((still, splits, prepared), tmp_path / "twice")
    once = train((still.model_copy(update={"methods": []}), splits, prepared), tmp_path / "once")
    assert_same(read_weights(twice), read_weights(once))


def train_plainly(encoder: Path, name: str) -> dict[str, torch.Tensor]:
    """Weights of a method without dropout, by SGD and without clipping, which would hide a wrong factor."""
    torch.set_num_threads(1)
    recipe, splits, prepared = make_case(encoder, name, "full")
    plain = {
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "head_learning_rate": None,
        "max_grad_norm": None,
        "schedule": "constant",
        "warmup_share": 0.0,
        "microbatch_size": 3,
        "batch_size": 10,
    }
    recipe = recipe.model_copy(
        update={
            "encoder": recipe.encoder.model_copy(update={"dropout": 0.0}),
            "training": recipe.training.model_copy(update=plain),
        }
    )
    fits = Fits(recipe, splits, prepared, Accelerator(cpu=True), rows=identify_rows(prepared))
    return read_weights(train_with_methods(fits))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_give_the_weights_of_one(name: str, tiny_encoder: Any, tmp_path: Path) -> None:
    encoder, out = tiny_encoder("bert"), tmp_path / "weights.safetensors"
    launch(tmp_path, {"encoder": str(encoder), "method": name, "out": str(out)})
    with safe_open(out, "pt") as file:
        assert file.metadata()["processes"] == "2"
    one, two = train_plainly(encoder, name), load_file(out)
    start = read_weights(train(make_case(encoder, name, "full", **OFF[name.partition("-")[0]]), tmp_path / "off"))
    assert one.keys() == two.keys() == start.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-5
    assert max(float((one[key] - start[key]).abs().max()) for key in one) > 1e-3


def make_domains(*, permuted: bool) -> pd.DataFrame:
    """Rows of two domains; the labels of the target may be permuted."""
    table = make_splits(120, 3, seed=1).tables["train"].to_pandas()
    table["label"] = [("low", "middle", "high")[label] for label in table["label"]]
    table["domain"] = np.array(["new", "a", "b"])[np.arange(len(table)) // 3 % 3]
    if permuted:
        is_new = table["domain"] == "new"
        order = np.random.default_rng(0).permutation(int(is_new.sum()))
        table.loc[is_new, "label"] = table.loc[is_new, "label"].to_numpy()[order]
    return table.drop(columns=["id"])


@pytest.mark.parametrize("name", [name for name in SETTINGS if TABLE[name.partition("-")[0]].needs_texts])
def test_no_label_of_the_target_is_ever_seen(name: str, tiny_encoder: Any, tmp_path: Path) -> None:
    kind = name.partition("-")[0]
    settings = {
        "encoder": {"name": str(tiny_encoder("bert"))},
        "data": {"domain": "domain", "target": "new", "max_length": 48},
        "methods": [{"kind": kind, **SETTINGS[name]}],
        "training": {"device": "cpu", "max_steps": 4, "batch_size": 8, "evaluate_every": 2, "early_stopping": 1},
        "evaluation": {"tfidf": False, "resamples": 100},
    }
    found = {}
    for permuted in (False, True):
        place = tmp_path / f"permuted-{permuted}"
        report = nt.run(settings, data=make_domains(permuted=permuted), output_dir=place, progress=False)
        training = {
            key: value
            for key, value in report.record["training"].items()
            if not key.endswith(("second", "seconds", "bytes"))
        }
        predicted = report.predictions[["split", "text", "predicted"]]
        scores = json.dumps(report.record["scores"]["validation"])
        found[permuted] = (load_file(place / "model" / "model.safetensors"), training, predicted, scores)
        assert report.record["data"]["rows"]["test"] > 4
        test_texts = set(predicted[predicted["split"] == "test"]["text"])
        assert len(predicted) == report.record["data"]["rows"]["validation"] + report.record["data"]["rows"]["test"]
        truth = make_domains(permuted=permuted)
        assert test_texts <= set(truth[truth["domain"] == "new"]["text"])
    assert_same(found[False][0], found[True][0])
    assert found[False][1] == found[True][1]
    pd.testing.assert_frame_equal(found[False][2], found[True][2])
    assert found[False][3] == found[True][3]
    assert not make_domains(permuted=False)["label"].equals(make_domains(permuted=True)["label"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"methods": ["self_training"]}, "reads texts without labels, and there are none"),
        ({"methods": ["r_drop"], "strategy": {"kind": "features"}}, "which strategy.kind features does not do"),
        ({"methods": ["r_drop"], "strategy": {"kind": "zero_shot"}}, "which trains nothing"),
        ({"methods": ["r_drop", "r_drop"]}, '"r_drop" is listed more than once'),
        (
            {"methods": ["r_drop", "domain_alignment"], "data": {"unlabelled": "x.txt"}},
            '"r_drop", "domain_alignment" all decide how examples become gradients',
        ),
        (
            {"methods": ["self_training"], "task": {"kind": "regression"}, "data": {"unlabelled": "x.txt"}},
            "does not go with task.kind regression",
        ),
        ({"data": {"target": "kitchen"}}, "data.domain names no column of domains"),
        ({"data": {"domain": "shop"}}, "data.target: missing"),
        ({"data": {"domain": "shop", "source": "a", "target": "a"}}, '"a" is also in data.target'),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(settings)
    assert said in str(caught.value)
