import pytest

from nlp_transfer.commands import machine as doctor
from nlp_transfer.errors import EncoderError
from nlp_transfer.models.resolve import EncoderSource


def test_the_machine_is_described(monkeypatch):
    found = doctor.examine()
    assert {"python", *doctor.PACKAGES, "device", "precision", "memory", "minilm-l6", "cache", "network"} == set(found)
    assert all(isinstance(value, str) and value for value in found.values())
    assert found["network"] == "off (HF_HUB_OFFLINE)"
    monkeypatch.setattr(doctor.hub_constants, "HF_HUB_OFFLINE", False)
    assert "allowed" in doctor.examine()["network"]


@pytest.mark.parametrize(
    ("kind", "wanted"), [("folder", "bundled, hash correct"), ("hub", r"not bundled.*nlp_transfer\[embedded\]")]
)
def test_the_bundled_encoder_is_looked_for(kind, wanted, monkeypatch):
    import re

    source = EncoderSource("minilm-l6", "somewhere", None, None, kind)
    monkeypatch.setattr(doctor, "resolve_encoder", lambda _: source)
    assert re.match(wanted, doctor.examine()["minilm-l6"])


def test_a_damaged_bundled_encoder_is_reported_and_no_crash(monkeypatch):
    def refuse(_):
        raise EncoderError("encoder.name: minilm-l6: the weights have sha256 0000")

    monkeypatch.setattr(doctor, "resolve_encoder", refuse)
    assert "sha256 0000" in doctor.examine()["minilm-l6"]


def test_no_secret_of_the_environment_is_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    assert "hf_secretsecret" not in "".join(doctor.examine().values())


def test_a_package_that_is_absent_is_said():
    assert doctor._find_version("no-such-package-anywhere") == "not installed"
