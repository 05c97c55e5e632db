import pytest
import torch
from peft import PeftModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS, EncoderConfig, LoraConfig
from nlp_transfer.strategies import STRATEGIES
from tests.training import fit, make_recipe, prepare

LABELS = LabelSpace("classification", ("a", "b"))


def adapt(kind, folder, **settings):
    loaded = load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0)
    section = STRATEGY_CONFIGS[kind].model_validate({"kind": kind, **settings})
    return loaded, STRATEGIES[kind].adapt(loaded, section)


def test_full_opens_every_weight(tiny_encoder):
    loaded, adapted = adapt("full", tiny_encoder("bert"))
    assert adapted.model is loaded.model
    assert adapted.num_trainable == adapted.num_parameters
    assert (adapted.format, adapted.eval_modules, adapted.merge) == ("transformers", (), False)


def test_frozen_opens_head_and_pooler_and_keeps_the_encoder_in_evaluation(tiny_encoder):
    _, adapted = adapt("frozen", tiny_encoder("bert"))
    opened = {name for name, parameter in adapted.model.named_parameters() if parameter.requires_grad}
    assert opened == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert adapted.eval_modules == ("bert",)
    # A text has the same features at every step: dropout of the encoder is off.
    adapted.model.train()
    for name in adapted.eval_modules:
        adapted.model.get_submodule(name).eval()
    assert not any(module.training for module in adapted.model.bert.modules())


def test_lora_has_the_rank_scale_and_dropout_of_the_recipe(tiny_encoder):
    _, adapted = adapt("lora", tiny_encoder("bert"), rank=3, alpha=12, dropout=0.2, targets=["query", "value"])
    assert isinstance(adapted.model, PeftModel)
    layer = adapted.model.get_base_model().bert.encoder.layer[0].attention.self.query
    assert layer.r["default"] == 3
    assert layer.scaling["default"] == 4.0
    assert layer.lora_dropout["default"].p == 0.2
    assert layer.lora_A["default"].weight.shape == (3, 32)
    assert torch.equal(layer.lora_B["default"].weight, torch.zeros(32, 3))
    # 2 layers x 2 projections x 2 matrices of 3 x 32, and the head of 32 x 2 + 2.
    assert adapted.num_trainable == 2 * 2 * 2 * 3 * 32 + 66


def test_lora_saves_the_pooler_only_where_the_checkpoint_did_not_hold_it(tiny_encoder):
    saved = {
        checkpoint: set(adapt("lora", tiny_encoder("bert", checkpoint))[1].model.peft_config["default"].modules_to_save)
        for checkpoint in ("base", "masked_lm")
    }
    assert "bert.pooler" not in saved["base"]
    assert "bert.pooler" in saved["masked_lm"]
    assert all("classifier" in names for names in saved.values())


def test_lora_is_on_all_linear_layers_but_those_of_the_head(tiny_encoder):
    _, few = adapt("lora", tiny_encoder("bert"), targets=["query", "value"])
    _, named = adapt("lora", tiny_encoder("bert"), targets=["all-linear"])
    _, many = adapt("lora", tiny_encoder("bert"))
    assert many.num_trainable == named.num_trainable > few.num_trainable
    _, others = adapt("lora", tiny_encoder("bert"), variant="loha")
    adapted = {name.rpartition(".hada_w")[0] for name, _ in others.model.named_parameters() if ".hada_w" in name}
    assert {name.rpartition(".")[2] for name in adapted} == {"query", "value"}
    assert not [n for n, _ in many.model.named_parameters() if ".lora_" in n and ("classifier" in n or "pooler" in n)]


def test_lora_refuses_a_layer_that_is_not_there(tiny_encoder):
    with pytest.raises(RecipeError, match=r"strategy\.targets: 'q_lin'"):
        adapt("lora", tiny_encoder("bert"), targets=["q_lin"])


def test_merge_is_passed_on(tiny_encoder):
    assert adapt("lora", tiny_encoder("bert"), merge=True)[1].merge
    assert not LoraConfig(kind="lora").merge


def test_adalora_keeps_all_its_ranks_in_a_run_too_short_to_judge_them(tiny_encoder):
    settings = {"strategy__kind": "lora", "strategy__variant": "adalora", "training__max_steps": 1}
    recipe = make_recipe(tiny_encoder("bert"), **settings)
    splits, prepared = prepare(recipe, n=32)
    model, log = fit(recipe, splits, prepared)
    assert log.steps == 1
    assert not [name for name, p in model.named_parameters() if ".lora_" in name and not torch.isfinite(p).all()]
