"""Device and number format: what is not here is refused, with what is."""

import json
from pathlib import Path

import pytest
import torch

from nlp_transfer.engine import machine
from nlp_transfer.engine.precision import choose_device, choose_precision, keep_measured
from nlp_transfer.errors import RecipeError


def test_auto_takes_what_is_here():
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == "cpu"
    assert choose_precision("fp32", "cpu") == ("fp32", "asked for")
    assert choose_precision("bf16", "cpu") == ("bf16", "asked for")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(RecipeError, match=r"cuda is not on this machine\. Here: cpu"):
        choose_device("cuda")


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(RecipeError, match="fp16 trains on cuda only"):
        choose_precision("fp16", "cpu")


@pytest.mark.parametrize(("gain", "expected"), [(1.62, "bf16"), (1.05, "fp32"), (0.4, "fp32")])
def test_auto_on_a_cpu_takes_what_was_measured_to_be_faster(gain, expected, monkeypatch):
    monkeypatch.setattr("nlp_transfer.engine.precision.compare_formats", lambda: gain)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    found = choose_precision("auto", "cpu")
    assert found.format == expected
    assert f"{1 / gain:.2g} times as long" in found.reason
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_precision("auto", "cpu").format == "fp32"


def test_the_measurement_is_made_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_is_busy", lambda: False)
    calls = []
    measure = machine._measure
    monkeypatch.setattr(machine, "_measure", lambda: calls.append(1) or measure())
    compare = machine.compare_formats.__wrapped__
    state = torch.get_rng_state()
    gain = compare()
    assert gain > 0
    assert torch.equal(torch.get_rng_state(), state)
    (file,) = (Path(tmp_path) / "nlp_transfer").iterdir()
    (key,) = json.loads(file.read_text())
    assert f"torch {torch.__version__}" in key
    assert compare() == gain
    assert len(calls) == 1
    monkeypatch.setattr(machine, "_measure", lambda: calls.append(1) or 2.0)
    file.write_text("not JSON")
    assert compare() == 2.0
    monkeypatch.setattr(machine.constants, "HF_HOME", str(file / "no folder"))
    assert compare() == 2.0
    assert len(calls) == 3


def test_what_was_measured_on_a_busy_machine_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_measure", lambda: 1.5)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (100.0 * machine.os.cpu_count(), 0.0, 0.0))
    assert machine.compare_formats.__wrapped__() == 1.5
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert machine.compare_formats.__wrapped__() == 1.5
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_that_goes_on_computes_in_the_format_in_which_it_began(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    place, other = tmp_path / "machine.json", tmp_path / "inner.json"
    for gain in (1.5, 0.5):  # another process measures another gain
        monkeypatch.setattr("nlp_transfer.engine.precision.compare_formats", lambda gain=gain: gain)
        with keep_measured(place), keep_measured(other):
            assert choose_precision("auto", "cpu").format == "bf16"
    assert choose_precision("auto", "cpu").format == "fp32"
    assert place.is_file()
    assert not other.exists()
