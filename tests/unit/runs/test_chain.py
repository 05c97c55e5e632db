import json
from pathlib import Path
from typing import Any

import pytest

from nlp_transfer.errors import DamageError, EncoderError
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.runs.chain import MOST_LINKS, trace_chain


def make_folder(path: Path, origin: Any = None, recipe: Any = None) -> str:
    """A folder that looks like an encoder, or like an artefact that started from another."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    if origin is not None:
        record = {"format": 1, "encoder": {"name": str(origin), "hub_id": None, "revision": None}, "recipe": recipe}
        (path / "nlp_transfer.json").write_text(json.dumps(record))
    return str(path)


def trace(name: str, **settings: Any) -> tuple[list[tuple[str, str]], list[str]]:
    links, notes = trace_chain(EncoderConfig(name=name, **settings))
    return [(link.name, link.without.name) for link in links], notes


def test_every_link_is_found_back_to_the_encoder_that_is_no_artefact(tmp_path):
    plain = make_folder(tmp_path / "plain")
    first = make_folder(tmp_path / "first" / "model", plain)
    second = make_folder(tmp_path / "second" / "model", first)
    assert trace(str(tmp_path / "second")) == ([(str(tmp_path / "second"), first), (first, plain)], [])
    assert second
    assert trace(first) == ([(first, plain)], [])
    assert trace(plain) == ([], [])


def test_settings_of_the_encoder_section_go_with_each_link(tmp_path):
    first = make_folder(tmp_path / "first", make_folder(tmp_path / "plain"), {"data": {"path": "sst2"}})
    links, _ = trace_chain(EncoderConfig(name=first, dropout=0.3))
    assert (links[0].without.dropout, links[0].facts["data"]["path"]) == (0.3, "sst2")


def test_an_encoder_from_random_weights_has_the_control_for_its_link(tmp_path):
    plain = make_folder(tmp_path / "plain")
    assert trace(make_folder(tmp_path / "first", plain, {"encoder": {"init": "random"}})) == ([], [])


def test_a_chain_that_cannot_be_followed_is_told_and_nothing_is_fetched(tmp_path, work_dir):
    # The folder is gone; its name alone would do for a repository.
    gone = make_folder(tmp_path / "gone", "runs/earlier")
    links, notes = trace(gone)
    assert links == []
    assert "runs/earlier, cannot be found" in notes[0]
    silent = make_folder(tmp_path / "silent", "x")
    (Path(silent) / "nlp_transfer.json").write_text('{"format": 1}')
    assert "does not say which encoder" in trace(silent)[1][0]
    (Path(silent) / "nlp_transfer.json").write_text("[]")
    with pytest.raises(DamageError, match=r"silent/nlp_transfer\.json: is no record of an artefact"):
        trace(silent)
    with pytest.raises(EncoderError):
        trace(str(tmp_path / "nowhere"))


def test_an_origin_that_lies_beside_the_artefact_is_found_wherever_both_are(tmp_path, work_dir):
    make_folder(tmp_path / "moved" / "plain")
    artifact = make_folder(tmp_path / "moved" / "first", "plain")
    assert trace(artifact) == ([(artifact, str(tmp_path / "moved" / "plain"))], [])


def test_a_chain_that_bites_its_tail_ends(tmp_path):
    one = make_folder(tmp_path / "one", tmp_path / "two")
    make_folder(tmp_path / "two", one)
    assert len(trace(one)[0]) == MOST_LINKS
