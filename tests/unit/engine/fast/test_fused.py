"""Layers run in one piece give the outputs and gradients of the family's own modules."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.fast import fused as block
from nlp_transfer.engine.fast.fused import block_layers, find_slot, is_block
from nlp_transfer.fitting.fit import use_fast_path
from nlp_transfer.models.bottleneck import AdapterClassifier
from nlp_transfer.models.encoder import quiet_loading
from nlp_transfer.models.layers import find_parts
from tests.tiny import FAMILIES

BLOCKS = ("bert", "roberta", "xlm-roberta", "electra")
"""Families whose layers are built as BERT's are."""


def load(path, dtype=torch.float64, dropout=0.0):
    model = AutoModelForSequenceClassification.from_pretrained(path).to(dtype)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model.train()


def add_update(model, dropout=0.0, **settings):
    torch.manual_seed(5)
    with quiet_loading():
        wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, lora_dropout=dropout, **settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return wrapped.train()


def make_inputs():
    inputs = {"input_ids": torch.arange(5, 35).reshape(3, 10), "attention_mask": torch.ones(3, 10, dtype=torch.int64)}
    inputs["attention_mask"][1, 4:] = 0
    inputs["attention_mask"][2, 1:] = 0
    return inputs


def run(model, inputs):
    logits = model(**inputs).logits
    model.zero_grad()
    (logits * torch.arange(1, 1 + logits.numel()).reshape(logits.shape)).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def compare(model, inputs, first_only=None, tolerance=1e-9):
    (expected, plain), num_calls = run(model, inputs), []
    original = block._Block.apply
    with pytest.MonkeyPatch.context() as patch, block_layers(model, first_only):
        patch.setattr(block._Block, "apply", lambda *a: num_calls.append(0) or original(*a))
        found, ours = run(model, inputs)
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
    for name, gradient in plain.items():
        assert (gradient is None) == (ours[name] is None), name
        assert gradient is None or torch.allclose(ours[name], gradient, rtol=tolerance, atol=tolerance), name
    return len(num_calls)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_padded", [True, False])
def test_outputs_and_gradients_are_those_of_the_modules(family, is_padded, tiny_encoder):
    model, inputs = load(tiny_encoder(family)), make_inputs()
    if not is_padded:
        inputs["attention_mask"][:] = 1
    count = compare(model, inputs)
    assert count == (model.config.num_hidden_layers if family in BLOCKS else 0)
    assert not [module for module in model.modules() if "forward" in vars(module)]


@pytest.mark.parametrize("family", BLOCKS)
def test_the_last_layer_is_right_for_the_first_token_alone(family, tiny_encoder):
    model = load(tiny_encoder(family))
    last = model.get_submodule(find_parts(model).layers[-1])
    assert compare(model, make_inputs(), last) == model.config.num_hidden_layers
    with block_layers(model, last):
        hidden = getattr(model, model.base_model_prefix)(**make_inputs()).last_hidden_state
    assert hidden.shape[:2] == (3, 1)


@pytest.mark.parametrize("targets", ["all-linear", ["query", "value"], ["query"], ["output.dense"]])
@pytest.mark.parametrize("is_trimmed", [True, False])
def test_low_rank_updates_are_part_of_it(targets, is_trimmed, tiny_encoder):
    model = load(tiny_encoder("bert"))
    last = model.get_submodule(find_parts(model).layers[-1]) if is_trimmed else None
    wrapped = add_update(model, target_modules=targets, modules_to_save=["classifier"])
    assert compare(wrapped, make_inputs(), last) == model.config.num_hidden_layers
    assert all(p.grad is None for name, p in wrapped.named_parameters() if not p.requires_grad)


@pytest.mark.parametrize(("variant", "num_blocks"), [("houlsby", 2), ("pfeiffer", 2), ("parallel", 0)])
@pytest.mark.parametrize("is_trimmed", [True, False])
@pytest.mark.parametrize("input_norm", [True, False])
def test_adapters_after_a_layer_are_part_of_it(variant, num_blocks, is_trimmed, input_norm, tiny_encoder):
    model = load(tiny_encoder("bert"))
    model.requires_grad_(False)
    labels = LabelSpace("classification", ("a", "b"))
    shape = {"variant": variant, "reduction": 4, "activation": "gelu", "dropout": 0.0, "scale": 2.0}
    shape |= {"input_norm": input_norm}
    wrapped = AdapterClassifier(model, labels, trained=["classifier.weight"], **shape).double().train()
    for name, parameter in wrapped.named_parameters():
        if name.endswith("up.weight"):
            nn.init.normal_(parameter, std=0.3)
    wrapped.adapters["feed_forward_out_0"].down.bias.requires_grad_(False)
    last = model.get_submodule(find_parts(model).layers[-1]) if is_trimmed else None
    assert compare(wrapped, make_inputs(), last) == num_blocks
    assert wrapped.adapters["feed_forward_out_0"].up.weight.grad.any()


@pytest.mark.parametrize("open_names", [["bias"], ["LayerNorm"], ["layer.1."], ["key.weight", "value.bias"]])
def test_only_what_is_trained_gets_gradients(open_names, tiny_encoder):
    model = load(tiny_encoder("bert"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(each in name for each in open_names))
    assert compare(model, make_inputs()) == model.config.num_hidden_layers
    assert 0 < sum(p.grad is not None for p in model.parameters()) < len(list(model.parameters())) // 2


@pytest.mark.parametrize("is_trimmed", [True, False])
@pytest.mark.parametrize("has_update", [True, False])
def test_gradients_go_through_the_masks_that_were_drawn(is_trimmed, has_update, tiny_encoder):
    model = load(tiny_encoder("bert"), dropout=0.3)
    name = find_parts(model).layers[-1]
    layer = model.get_submodule(name)
    if has_update:
        add_update(model, dropout=0.4, target_modules="all-linear")
    torch.manual_seed(2)
    hidden = torch.randn(2, 3, model.config.hidden_size, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    mask[1, ..., 2] = False
    wanted = [hidden, *(p for p in layer.parameters() if p.requires_grad)]

    def forward():
        torch.manual_seed(3)
        return layer(hidden, mask)

    def look(steps, size):
        """The sum of the outputs, weighted, some way along a direction."""
        with torch.no_grad():
            for tensor, step in zip(wanted, steps, strict=True):
                tensor.add_(step, alpha=size)
        value = (forward() * weights).sum()
        with torch.no_grad():
            for tensor, step in zip(wanted, steps, strict=True):
                tensor.sub_(step, alpha=size)
        return float(value.detach())

    with block_layers(model, layer if is_trimmed else None):
        first = forward()
        assert torch.equal(first, forward())
        assert not torch.equal(first, layer(hidden, mask))
        weights = torch.randn_like(first)
        gradients = torch.autograd.grad((first * weights).sum(), wanted)
        for number in range(len(wanted)):
            steps = [torch.randn_like(each) * (place == number) for place, each in enumerate(wanted)]
            expected = (look(steps, 1e-6) - look(steps, -1e-6)) / 2e-6
            assert float((gradients[number] * steps[number]).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_bf16_is_as_close_as_the_modules_are(tiny_encoder):
    exact = load(tiny_encoder("bert"))
    half, inputs = load(tiny_encoder("bert"), torch.bfloat16), make_inputs()
    _, expected = run(exact, inputs)
    _, plain = run(half, inputs)
    with block_layers(half):
        _, ours = run(half, inputs)
    pairs = [(name, gradient.norm()) for name, gradient in expected.items() if gradient.norm() > 1e-3]
    assert len(pairs) > 20
    for name, size in pairs:
        gap, other = ((found[name].double() - expected[name]).norm() / size for found in (ours, plain))
        assert gap < max(2 * other, 0.03), name


def test_layers_with_hooks_or_other_modules_are_left_alone(tiny_encoder):
    model = load(tiny_encoder("bert"))
    layers = [model.get_submodule(name) for name in find_parts(model).layers]
    assert all(is_block(layer) for layer in layers)
    handle = layers[0].output.dense.register_forward_hook(lambda *_: None)
    assert not is_block(layers[0])
    handle.remove()
    layers[0].output.dense = nn.Sequential(layers[0].output.dense)
    assert compare(model, make_inputs()) == len(layers) - 1


def test_evaluation_and_passes_without_gradients_are_left_to_torch(tiny_encoder):
    model, inputs = load(tiny_encoder("bert")), make_inputs()
    expected = model.eval()(**inputs).logits
    with block_layers(model, model.get_submodule(find_parts(model).layers[-1])), pytest.MonkeyPatch.context() as patch:
        patch.setattr(block._Block, "apply", lambda *_: pytest.fail("was run in one piece"))
        assert torch.equal(model(**inputs).logits, expected)
        with torch.no_grad():
            assert torch.equal(model.train()(**inputs).logits, expected)


def test_updates_that_compute_otherwise_are_no_slots():
    def wrap(**settings):
        return get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=2, target_modules=["0"], **settings))

    plain = wrap()
    slot = find_slot(plain.base_model.model[0])
    assert slot is not None
    assert len(slot.tensors) == 4
    assert find_slot(wrap(use_dora=True).base_model.model[0]) is None
    assert find_slot(wrap(lora_bias=True).base_model.model[0]) is None
    plain.base_model.model[0].merge()
    assert find_slot(plain.base_model.model[0]) is None
    assert find_slot(nn.Linear(2, 2, bias=False)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_what_quickens_training_gives_the_modules_back(family, tiny_encoder):
    model, inputs = load(tiny_encoder(family)), make_inputs()
    expected, plain = run(model, inputs)
    with use_fast_path(model, model):
        found, ours = run(model, inputs)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    for name, gradient in plain.items():
        assert gradient is None or torch.allclose(ours[name], gradient, rtol=1e-8, atol=1e-8), name
    hooks = [module for module in model.modules() if module._forward_hooks or "forward" in vars(module)]
    assert not hooks
