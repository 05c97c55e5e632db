import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError
from nlp_transfer.models.encoder import (
    PROBLEM_TYPES,
    check_vocabulary,
    load_encoder,
    load_tokenizer,
    quiet_loading,
    read_config,
)
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import METRICS, EncoderConfig

LABELS = LabelSpace("classification", ("no", "yes"))


def load(folder, labels=LABELS, seed=0, **options):
    return load_encoder(EncoderConfig(name=str(folder), **options), labels, seed=seed)


@pytest.fixture
def folder(tiny_encoder, tmp_path):
    return shutil.copytree(tiny_encoder("bert"), tmp_path / "encoder")


def test_a_family_loads_with_its_own_classifier_and_the_labels_in_its_config(family, tiny_encoder):
    loaded = load(tiny_encoder(family))
    config = loaded.model.config
    assert type(loaded.model).__name__.endswith("ForSequenceClassification")
    assert config.id2label == {0: "no", 1: "yes"}
    assert config.label2id == {"no": 0, "yes": 1}
    assert config.problem_type == "single_label_classification"
    assert config.model_type == loaded.family
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.new_parameters


def test_every_kind_of_task_has_its_problem_type(tiny_encoder):
    assert set(PROBLEM_TYPES) == set(METRICS)
    for kind, problem in PROBLEM_TYPES.items():
        names = ("score",) if kind == "regression" else ("a", "b", "c")
        model = load(tiny_encoder("bert"), LabelSpace(kind, names)).model
        assert model.config.problem_type == problem
        assert model.classifier.out_features == len(names)


def test_the_seed_decides_the_head_and_nothing_else(tiny_encoder):
    one, same, other = (load(tiny_encoder("bert"), seed=seed).model for seed in (1, 1, 2))
    for (name, a), (_, b), (_, c) in zip(
        one.named_parameters(), same.named_parameters(), other.named_parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == (name != "classifier.weight"), name


def test_random_weights_are_all_new_and_share_nothing_with_the_checkpoint(tiny_encoder):
    plain, drawn = load(tiny_encoder("bert")), load(tiny_encoder("bert"), init="random", seed=5)
    assert set(drawn.new_parameters) == {name for name, _ in drawn.model.named_parameters()}
    a, b = (each.model.bert.encoder.layer[0].attention.self.query.weight for each in (plain, drawn))
    assert a.shape == b.shape
    assert not torch.equal(a, b)


def test_dropout_is_overridden_everywhere(family, tiny_encoder):
    loaded = load(tiny_encoder(family), dropout=0.25)
    rates = {module.p for module in loaded.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates - {0.0} == {0.25}
    plain = load(tiny_encoder(family))
    assert {module.p for module in plain.model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_weights_of_lower_precision_are_read_as_float32(folder):
    weights = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert {parameter.dtype for parameter in load(folder).model.parameters()} == {torch.float32}


def test_a_checkpoint_that_lacks_a_weight_of_the_encoder_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "query.weight" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 weights of the encoder itself.*query\.weight"):
        load(folder)


def test_a_truncated_file_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load(folder)


def test_an_unknown_family_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))
    with pytest.raises(EncoderError, match="no-such-family"):
        load(folder)


def test_a_family_without_a_classifier_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model"}))
    with pytest.raises(EncoderError):
        load(folder)


def test_a_folder_without_a_tokenizer_is_refused(family, tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder(family), tmp_path / "encoder")
    gone = [path for path in folder.iterdir() if "token" in path.name or "vocab" in path.name]
    assert gone
    for path in gone:
        path.unlink()
    source = resolve_encoder(EncoderConfig(name=str(folder)))
    with pytest.raises(EncoderError, match="tokenizer"):
        check_vocabulary(load_tokenizer(source), read_config(source), where="here")


def test_a_tokenizer_of_another_encoder_is_refused(tiny_encoder):
    sources = [resolve_encoder(EncoderConfig(name=str(tiny_encoder(family)))) for family in ("bert", "roberta")]
    tokenizers, settings = [load_tokenizer(each) for each in sources], [read_config(each) for each in sources]
    for tokenizer, config in zip(tokenizers, settings, strict=True):
        check_vocabulary(tokenizer, config, where="here")
    with pytest.raises(EncoderError, match="another encoder"):
        check_vocabulary(tokenizers[1], settings[0], where="here")


def test_the_tokenizer_of_every_family_loads_fast(family, tiny_encoder):
    tokenizer = load_tokenizer(resolve_encoder(EncoderConfig(name=str(tiny_encoder(family)))))
    assert tokenizer.is_fast
    assert len(tokenizer("a lovely hotel")["input_ids"]) > 3


def test_a_hub_encoder_that_is_not_here_says_so_at_once(monkeypatch):
    source = resolve_encoder(EncoderConfig(name="owner/no-such-encoder"))
    for act in (read_config, load_tokenizer):
        with pytest.raises(EncoderError, match=r"owner/no-such-encoder.*not on this machine"):
            act(source)


def test_an_adapter_of_an_adapter_is_refused(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder, base in ((inner, "gone/base"), (outer, str(inner))):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        (folder / "adapter_model.safetensors").write_text("")
        (folder / "nlp_transfer.json").write_text('{"format": 1}')
    with pytest.raises(EncoderError, match="Merge that one first"):
        load(outer)


def test_quiet_loading_puts_everything_back():
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled(), warnings.filters[:]
    with quiet_loading():
        warnings.warn("not for the user", FutureWarning, stacklevel=1)
    with pytest.raises(KeyError), quiet_loading():
        raise KeyError
    after = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled(), warnings.filters[:]
    assert before == after
    with pytest.warns(FutureWarning):
        warnings.warn("for the user", FutureWarning, stacklevel=1)
