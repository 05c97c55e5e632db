import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError
from nlp_transfer.models.encoder import load_encoder, load_tokenizer, open_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import build_tokenizer, make_config, make_encoder

LIBRARY_WORDS = ("Traceback", "huggingface.co", "HTTPS", "Errno", "..", "  ")


def open_folder(folder, **settings):
    return open_encoder(EncoderConfig(name=str(folder), **settings))


def refuse(folder, **settings):
    """The sentence of a refusal, held to what every sentence must be."""
    with pytest.raises(EncoderError) as caught:
        open_folder(folder, **settings)
    said = str(caught.value)
    assert said.startswith("encoder.name: ")
    assert said.endswith((".", "?"))
    assert [
        word for word in LIBRARY_WORDS if word in said.replace(str(folder), "FOLDER").replace("save_pretrained", "")
    ] == []
    return said


@pytest.fixture
def folder(tmp_path, tiny_encoder):
    return shutil.copytree(tiny_encoder("bert"), tmp_path / "encoder")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def make_family(model_type, folder, **settings):
    """An encoder of a family that has no tiny one, with a BERT tokenizer."""
    tokenizer = build_tokenizer("bert")
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **settings)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "pad_token_id": 0}
T5 = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("gpt2", GPT2, "came gpt2 as a decoder"),
        ("t5", T5, "came t5, an encoder with a decoder"),
    ],
)
def test_what_is_no_encoder_of_texts_is_refused_with_what_would_do(family, settings, reason, tmp_path):
    said = refuse(make_family(family, tmp_path / family, **settings))
    assert reason in said
    assert "minilm-l6" in said
    assert "ModernBERT" in said


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "llama"}, "llama as a decoder"),
        ({"model_type": "bert", "is_decoder": True}, "bert as a decoder"),
        ({"model_type": "vit"}, "which reads pictures"),
        ({"model_type": "wav2vec2"}, "which reads sound"),
        ({"model_type": "clip"}, "which reads pictures and texts"),
        ({"model_type": "tapas"}, "tables beside the text"),
        ({"model_type": "lilt"}, "places of words on a page"),
        ({"model_type": "mt5"}, "an encoder with a decoder"),
        ({"model_type": "no-such-family"}, "'no-such-family' is not known to transformers"),
        ({"hidden_size": 32}, "without model_type"),
    ],
    ids=lambda value: value.get("model_type", "none") if isinstance(value, dict) else "",
)
def test_a_config_alone_tells_what_cannot_be_used(config, reason, folder):
    (folder / "config.json").write_text(json.dumps(config))
    assert reason in refuse(folder)


def test_an_encoder_decoder_with_masked_words_is_refused_too(tmp_path):
    # BART classifies by its decoder: states, prompts and ranking would find no encoder to read.
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    assert "came bart, an encoder with a decoder" in refuse(make_family("bart", tmp_path / "bart", **sizes, **heads))


def test_every_family_opens_without_a_note(family, tiny_encoder):
    found = open_folder(tiny_encoder(family))
    assert found.notes == ()
    assert found.tokenizer.pad_token_id is not None


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_broken_settings_are_refused(file, content, folder):
    (folder / file).write_text(content)
    said = refuse(folder)
    assert "config" in said or "tokenizer" in said


def test_a_missing_padding_token_is_chosen_and_saved(folder, tmp_path):
    change_json(folder / "tokenizer_config.json", pad_token=None)
    found = open_folder(folder)
    assert found.tokenizer.pad_token == "[PAD]"
    assert len(found.notes) == 1
    assert "[PAD] was taken" in found.notes[0]
    found.tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").pad_token == "[PAD]"


def test_without_any_token_to_pad_with_the_way_out_is_said(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text().replace("[PAD]", "word")
        (folder / name).write_text(text)
    change_json(folder / "tokenizer_config.json", pad_token=None)
    assert "add_special_tokens" in refuse(folder)


def test_type_ids_that_the_encoder_lacks_are_left_out_for_good(tmp_path):
    tokenizer = build_tokenizer("bert")
    config = make_config("bert", tokenizer)
    config.type_vocab_size = 1
    folder = tmp_path / "one-type"
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = open_folder(folder)
    assert "one type of token" in found.notes[0]
    found.tokenizer.save_pretrained(tmp_path / "saved")
    for each in (found.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved"), load_tokenizer(found.source)):
        assert set(each("a room", "a meal")) == {"input_ids", "attention_mask"}
    labels = LabelSpace("classification", ("a", "b"))
    model = load_encoder(EncoderConfig(name=str(folder)), labels, seed=0).model.eval()
    with torch.inference_mode():
        logits = model(**found.tokenizer("a room", "a meal", return_tensors="pt")).logits
    assert logits.shape == (1, 2)


def test_type_ids_that_the_model_does_not_take_are_left_out(tmp_path):
    folder = make_encoder("distilbert", tmp_path / "encoder")
    build_tokenizer("bert").save_pretrained(folder)
    found = open_folder(folder)
    assert "token_type_ids" not in found.tokenizer("a room", "a meal")
    assert found.notes == ()


def test_added_tokens_without_embeddings_are_named(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<product>"])
    tokenizer.save_pretrained(folder)
    said = refuse(folder)
    assert "'<product>'" in said
    assert "resize_token_embeddings" in said


def test_a_number_beyond_the_embeddings_is_found_where_numbers_have_gaps(folder):
    change_json(folder / "config.json", vocab_size=200)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = 200
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "at most 200 tokens" in refuse(folder)


def rewrite(folder, change):
    weights = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_of_another_size_are_refused_by_their_header(folder):
    change_json(folder / "config.json", hidden_size=64)
    said = refuse(folder)
    assert "embeddings.word_embeddings.weight of [159, 64] numbers" in said
    assert "came [159, 32]" in said
    assert open_folder(folder, init="random").notes == ()


def test_weights_of_another_architecture_are_refused_by_their_header(folder):
    rewrite(folder, lambda weights: {f"other.{name}": value for name, value in weights.items()})
    assert "came others, such as other." in refuse(folder)


def test_a_cut_file_and_one_that_is_no_safetensors_are_damaged(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[:-1], whole[:100], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        (folder / "model.safetensors").write_bytes(content)
        assert "model.safetensors is damaged" in refuse(folder)
    (folder / "model.safetensors").write_bytes(whole)
    assert open_folder(folder).source.kind == "folder"


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert "came without model-00001-of-00002.safetensors" in refuse(folder)
    index.write_text("{}")
    assert "index.json cannot be read" in refuse(folder)


def test_checkpoints_inside_are_named_the_newest_first(tmp_path, tiny_encoder):
    for number in (500, 1000, 90):
        shutil.copytree(tiny_encoder("bert"), tmp_path / "out" / f"checkpoint-{number}")
    said = refuse(tmp_path / "out")
    assert f"such as encoder.name={tmp_path}/out/checkpoint-1000 (or checkpoint-500, checkpoint-90)" in said


def test_an_encoder_of_sentence_transformers_is_found_inside_its_folder(tmp_path, tiny_encoder):
    inner = shutil.copytree(tiny_encoder("bert"), tmp_path / "sbert" / "0_Transformer")
    (tmp_path / "sbert" / "modules.json").write_text("[]")
    assert open_folder(tmp_path / "sbert").source.location == str(inner)


def test_an_adapter_that_peft_saved_is_refused_with_the_way_out(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    assert "merge_and_unload" in refuse(folder)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("model.onnx", "weights for another engine"),
        ("onnx/model.onnx", "weights for another engine"),
        ("tf_model.h5", "weights for TensorFlow or Flax"),
        ("flax_model.msgpack", "weights for TensorFlow or Flax"),
        ("encoder.gguf", "weights for llama.cpp"),
    ],
)
def test_weights_of_other_libraries_are_named(file, reason, folder):
    (folder / "model.safetensors").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"")
    said = refuse(folder)
    assert reason in said
    assert file in said


def test_a_folder_that_shadows_the_bundled_encoder_is_named_either_way(tmp_path, monkeypatch, tiny_encoder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm-l6").mkdir()
    (tmp_path / "minilm-l6" / "notes.txt").write_text("notes")
    said = refuse("minilm-l6")
    assert "holds no config.json" in said
    assert f"the folder {tmp_path / 'minilm-l6'} was taken" in said
    assert "rename the folder" in said
    shutil.rmtree(tmp_path / "minilm-l6")
    shutil.copytree(tiny_encoder("bert"), tmp_path / "minilm-l6")
    (note,) = open_folder("minilm-l6").notes
    assert "comes before the bundled encoder" in note
    assert open_folder("./minilm-l6").notes == ()


def test_links_are_told_from_absence(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "it is a link that leads to nothing" in refuse(tmp_path / "gone")
    assert "its links lead in a circle" in refuse(tmp_path / "circle")
