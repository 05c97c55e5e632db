import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, DamageError, EncoderError, StorageError
from nlp_transfer.models.digests import open_record
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing import artifact
from nlp_transfer.publishing.artifact import (
    amend_artifact,
    find_artifact,
    load_artifact,
    save_artifact,
    write_atomically,
)
from nlp_transfer.publishing.hub.push import push_artifact
from nlp_transfer.recipe.schema import EncoderConfig, FeaturesConfig, FullConfig, LoraConfig
from nlp_transfer.strategies import STRATEGIES
from tests.records import reseal, unseal

LABELS = LabelSpace("classification", ("no", "yes", "naïve"))
SECTIONS = {
    "full": FullConfig(kind="full"),
    "lora": LoraConfig(kind="lora"),
    "features": FeaturesConfig(kind="features"),
}


def save(encoder, folder, kind="full", labels=LABELS, metadata=None, seed=0):
    loaded = load_encoder(EncoderConfig(name=str(encoder)), labels, seed=seed)
    adapted = STRATEGIES[kind].adapt(loaded, SECTIONS[kind])
    save_artifact(
        folder,
        adapted.model,
        load_tokenizer(loaded.source),
        labels=labels,
        source=loaded.source,
        merge=False,
        metadata=metadata or {},
    )
    return folder


@pytest.fixture
def plain(tiny_encoder, tmp_path):
    return save(tiny_encoder("bert"), tmp_path / "run" / "model", metadata={"reading": {"max_length": 9}})


@pytest.fixture
def adapter(tiny_encoder, tmp_path):
    return save(tiny_encoder("bert"), tmp_path / "run" / "model", "lora")


def edit(path: Path, **changes):
    """Change a file as a user does who means it."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    unseal(path.parent)


def list_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_artifact_comes_back_with_its_contract_and_metadata(plain):
    loaded = load_artifact(plain)
    assert loaded.labels == LABELS
    assert loaded.metadata["reading"] == {"max_length": 9}
    assert loaded.metadata["loader"] == "transformers"
    assert loaded.folder == plain
    assert not loaded.model.training
    assert {value.dtype for value in load_file(plain / "model.safetensors").values()} == {torch.float32}
    assert "naïve" in (plain / "nlp_transfer.json").read_text(encoding="utf-8")


def test_the_folder_of_a_run_stands_for_its_model(plain):
    assert find_artifact(plain) == find_artifact(plain.parent) == plain


def test_an_adapter_names_its_base_by_a_path_that_can_be_found_from_anywhere(adapter, tiny_encoder):
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(tiny_encoder("bert").resolve())
    assert settings["inference_mode"] is True
    assert not (adapter / "README.md").exists()
    assert load_artifact(adapter).labels == LABELS


@pytest.mark.parametrize(
    ("problem", "names", "kind"),
    [
        ("single_label_classification", ["a", "b"], "classification"),
        ("multi_label_classification", ["a", "b"], "multi_label"),
        ("regression", ["score"], "regression"),
        (None, ["a", "b"], "classification"),
        (None, ["score"], "regression"),
    ],
)
def test_a_plain_classifier_of_another_tool_loads(problem, names, kind, tiny_encoder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_encoder("bert"), num_labels=len(names), id2label=dict(enumerate(names)), problem_type=problem
    )
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_encoder("bert")).save_pretrained(tmp_path / "other")
    loaded = load_artifact(tmp_path / "other")
    assert loaded.labels == LabelSpace(kind, tuple(names))
    assert loaded.metadata == {}


def test_a_bare_encoder_is_not_a_classifier(tiny_encoder):
    with pytest.raises(ArtifactError, match="is not a classifier"):
        load_artifact(tiny_encoder("bert"))


def test_labels_that_contradict_each_other_are_refused_with_both_sides(plain):
    edit(plain / "nlp_transfer.json", labels={"kind": "classification", "names": ["yes", "no", "naïve"]})
    with pytest.raises(ArtifactError, match=r"\['yes', 'no', 'naïve'\].*\['no', 'yes', 'naïve'\]"):
        load_artifact(plain)


def test_another_class_count_is_refused(plain):
    edit(plain / "nlp_transfer.json", labels={"kind": "classification", "names": ["no", "yes"]})
    with pytest.raises(ArtifactError, match="labels"):
        load_artifact(plain)


def test_an_adapter_without_its_contract_is_refused(adapter):
    (adapter / "nlp_transfer.json").unlink()
    with pytest.raises(ArtifactError, match=r"nlp_transfer\.json"):
        load_artifact(adapter)


def test_an_adapter_without_its_base_names_it(adapter):
    edit(adapter / "adapter_config.json", base_model_name_or_path="/gone/away")
    with pytest.raises(EncoderError, match=r"base is missing.*/gone/away"):
        load_artifact(adapter)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1, "labels": {"kind": "x"}}', "\x00"])
def test_a_damaged_contract_is_refused(content, plain):
    (plain / "nlp_transfer.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"nlp_transfer\.json: cannot be read"):
        load_artifact(plain)


def test_a_later_format_asks_for_an_upgrade(plain):
    edit(plain / "nlp_transfer.json", format=99)
    with pytest.raises(ArtifactError, match=r"format 99.*Upgrade"):
        load_artifact(plain)


def test_pickled_weights_are_refused(plain):
    (plain / "model.safetensors").rename(plain / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="Pickled weights are refused"):
        load_artifact(plain)


def test_cut_weights_are_refused(plain):
    weights = plain / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ArtifactError, match="damaged"):
        load_artifact(plain)


def test_a_missing_head_is_refused(plain):
    weights = load_file(plain / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
    reseal(plain)
    with pytest.raises(ArtifactError, match=r"classifier\.weight is missing"):
        load_artifact(plain)


def test_a_missing_head_of_an_adapter_is_refused(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    gone = [name for name in weights if "classifier" in name]
    assert gone
    save_file({k: v for k, v in weights.items() if k not in gone}, adapter / "adapter_model.safetensors")
    reseal(adapter)
    with pytest.raises(ArtifactError, match="classifier"):
        load_artifact(adapter)


def test_what_is_not_there_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, message in (
        ("empty", "holds no artefact"),
        ("file", "is a file"),
        ("gone", "no such folder"),
    ):
        with pytest.raises(ArtifactError, match=message):
            load_artifact(tmp_path / name)
    with pytest.raises(ArtifactError, match="HF_HUB_OFFLINE"):
        load_artifact("owner/name")


def test_a_full_disk_leaves_the_earlier_artifact_whole_and_nothing_else(plain, tiny_encoder, monkeypatch):
    before = list_bytes(plain.parent)

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifact.os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left") as caught:
        save(tiny_encoder("bert"), plain, seed=1)
    assert caught.value.exit_status == 1
    monkeypatch.undo()
    assert list_bytes(plain.parent) == before
    save(tiny_encoder("bert"), plain, seed=1)
    assert list_bytes(plain.parent) != before
    assert list_bytes(plain.parent).keys() == before.keys()


def test_a_full_disk_while_the_base_is_written_leaves_no_half_of_it(tiny_encoder, tmp_path, monkeypatch):
    earlier = save(tiny_encoder("bert"), tmp_path / "first" / "model")
    monkeypatch.setattr(artifact, "_save_adapter", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(StorageError, match="full"):
        save(earlier, tmp_path / "second" / "model", "lora")
    assert [path for path in (tmp_path / "second").rglob("*") if path.is_file()] == []


def test_left_overs_of_a_killed_save_are_cleared_away(plain, tiny_encoder):
    stale = plain.with_name(".model.writing")
    stale.mkdir()
    (stale / "junk").write_text("half")
    save(tiny_encoder("bert"), plain)
    assert not stale.exists()
    assert not (plain / "junk").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_atomically(path, "ä")
    assert path.read_bytes() == "ä".encode()
    write_atomically(path, b"two")

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(artifact.os, "fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        write_atomically(path, b"three")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_moved_artifact_loads_where_it_is_now(plain, tmp_path):
    moved = shutil.move(plain, tmp_path / "elsewhere")
    assert load_artifact(moved).labels == LABELS


def read_digests(folder: Path) -> dict:
    return json.loads((folder / "nlp_transfer.json").read_text(encoding="utf-8"))["digests"]


def turn_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_every_file_but_the_card_has_its_digest(plain):
    names = {path.name for path in plain.iterdir()}
    assert set(read_digests(plain)["files"]) == names - {"nlp_transfer.json"}
    (plain / "README.md").write_text("# a card of my own")
    (plain / "notes.txt").write_text("files may be added")
    assert load_artifact(plain).labels == LABELS


def test_a_turned_bit_of_the_weights_is_named_and_the_way_out_holds(plain):
    turn_bit(plain / "model.safetensors")
    with pytest.raises(DamageError, match=r'model\.safetensors: is damaged.*take the entry "digests" out') as caught:
        load_artifact(plain)
    assert str(plain / "nlp_transfer.json") in str(caught.value)
    unseal(plain)
    assert load_artifact(plain).labels == LABELS


def test_an_artifact_of_before_digests_loads(plain):
    expected = load_artifact(plain)
    unseal(plain)
    found = load_artifact(plain)
    assert found.metadata == expected.metadata
    assert "digests" not in found.metadata


def test_what_transformers_saves_again_elsewhere_loads(plain, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(plain).save_pretrained(tmp_path / "again")
    AutoTokenizer.from_pretrained(plain).save_pretrained(tmp_path / "again")
    assert load_artifact(tmp_path / "again").labels.names == LABELS.names


def test_amending_a_record_renews_its_digest_and_keeps_those_of_the_files(plain):
    files = read_digests(plain)["files"]
    amend_artifact(plain, {"temperature": 2.0})
    assert load_artifact(plain).metadata["temperature"] == 2.0
    assert read_digests(plain)["files"] == files
    turn_bit(plain / "model.safetensors")
    amend_artifact(plain, {"temperature": 3.0})
    with pytest.raises(DamageError, match=r"model\.safetensors"):
        load_artifact(plain)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["lora", "features"])
def test_an_encoder_beside_an_artifact_that_is_another_now_is_noticed(kind, name, tiny_encoder, tmp_path):
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder("bert"), encoder)
    folder = save(encoder, tmp_path / "run" / "model", kind)
    assert set(read_digests(folder)["encoder"]) == {"config.json", "model.safetensors"}
    assert load_artifact(folder).labels == LABELS
    if name == "config.json":
        settings = json.loads((encoder / name).read_text())
        (encoder / name).write_text(json.dumps(settings | {"hidden_act": "relu"}))
    else:
        turn_bit(encoder / name)
    with pytest.raises(ArtifactError, match=rf"model: its encoder is not the one.*encoder/{name}: is damaged"):
        load_artifact(folder)
    unseal(folder)
    assert load_artifact(folder).labels == LABELS


def test_a_damaged_base_under_an_adapter_is_named_where_the_next_run_starts(tiny_encoder, tmp_path):
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder("bert"), encoder)
    folder = save(encoder, tmp_path / "run" / "model", "lora")
    load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0)
    turn_bit(encoder / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"encoder/model\.safetensors: is damaged"):
        load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0)


def test_a_damaged_artifact_is_no_encoder_to_start_from(plain):
    turn_bit(plain / "tokenizer.json")
    with pytest.raises(DamageError, match=r"tokenizer\.json"):
        load_encoder(EncoderConfig(name=str(plain)), LABELS, seed=0)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_other_json(path: Path) -> None:
    path.write_text('{"architectures": []}')


REMOVED = Path.unlink


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", REMOVED),
        ("model.safetensors", turn_bit),
        ("nlp_transfer.json", put_folder),
        ("nlp_transfer.json", put_other_json),
        ("nlp_transfer.json", REMOVED),
        ("README.md", lambda path: path.write_bytes(b"\xff\xfe")),
    ],
)
def test_a_push_names_what_is_damaged_and_plans_nothing(name, damage, plain):
    (plain / "README.md").write_text("# card")
    (plain.parent / "report.json").write_text("{}")
    assert push_artifact(plain, "owner/name", dry_run=True).plan.files
    damage(plain / name)
    with pytest.raises(ArtifactError, match=rf"model/{name}: "):
        push_artifact(plain, "owner/name", dry_run=True)


@pytest.mark.parametrize("damage", [put_folder, put_other_json, REMOVED])
def test_a_run_whose_record_is_damaged_is_no_encoder_and_names_it(damage, plain):
    (plain.parent / "report.json").write_text("{}")
    assert resolve_encoder(EncoderConfig(name=str(plain.parent))).kind == "artifact"
    damage(plain / "nlp_transfer.json")
    for place in (plain, plain.parent):
        with pytest.raises(ArtifactError, match=r"model/nlp_transfer\.json: "):
            resolve_encoder(EncoderConfig(name=str(place)))
        with pytest.raises(ArtifactError, match=r"model/nlp_transfer\.json: "):
            load_artifact(place)


def test_what_goes_to_the_hub_has_the_digests_of_what_goes(plain):
    edit(plain / "config.json", _name_or_path="/home/me/encoder")
    reseal(plain)
    plan = push_artifact(plain, "owner/name", dry_run=True).plan
    content = {f.path: f.content if isinstance(f.content, bytes) else f.content.read_bytes() for f in plan.files}
    assert b"/home/me" not in content["config.json"]
    expected = json.loads(content["nlp_transfer.json"])["digests"]["files"]
    assert set(expected) == set(content) - {"README.md", "nlp_transfer.json"}
    for name, entry in expected.items():
        assert entry == {"size": len(content[name]), "sha256": hashlib.sha256(content[name]).hexdigest()}
    assert open_record(json.loads(content["nlp_transfer.json"]), Path("nlp_transfer.json"))[0]["format"] == 1
