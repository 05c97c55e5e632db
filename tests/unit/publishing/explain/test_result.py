import json
import re
import sys

import pytest

from nlp_transfer import Classifier
from nlp_transfer.errors import DataError, LabelError, MissingExtraError, OutputError
from nlp_transfer.publishing.explain.result import Explanation
from tests.commands import run_command
from tests.contracts.test_explain import TEXT, write_artifact
from tests.tiny import make_splits

HOSTILE = "<script>alert('x')</script> \u202eevil [red]superb[/red] \x1b[31m {{ 7*7 }}"


@pytest.fixture(scope="module")
def folder(tiny_encoder, tmp_path_factory):
    splits = make_splits(8, 3, names=["<b>bad</b>", "fine", "[bold]great"])
    return write_artifact(tiny_encoder("bert"), tmp_path_factory.mktemp("explained") / "model", splits)


@pytest.fixture(scope="module")
def classifier(folder):
    return Classifier.from_pretrained(folder)


def test_pages_and_terminals_show_texts_and_labels_as_texts(classifier, tmp_path):
    found = classifier.explain(HOSTILE, label="<b>bad</b>")
    page = found.save(tmp_path / "page.html").read_text(encoding="utf-8")
    for html in (page, found._repr_html_()):
        assert not re.search(r"<script|<b>|\u202e|\x1b|49 ", html)
        assert "script" in html
        assert "&lt;b&gt;bad" in html
        assert "\\u202e" in html
    plain = str(found)
    assert "[red]superb[/red]" in plain
    assert "[bold]great" in str(classifier.explain(TEXT, label="[bold]great"))
    assert not re.search("\u202e|\x1b", plain)
    assert "default-src 'none'" in page


def test_every_word_stands_in_its_place_and_nothing_of_the_text_is_lost(classifier):
    found = classifier.explain(f"  {TEXT}  ")
    for word in found.words:
        assert f"  {TEXT}  "[word["start"] : word["end"]] == word["word"]
    assert TEXT in str(found)
    fragment = re.sub(r"<style>.*?</style>", "", found._repr_html_(), flags=re.DOTALL)
    assert TEXT.replace("'", "&#39;") in re.sub(r"<[^>]*>", "", fragment)
    ranked = [abs(value) for _, value in found.top(12)]
    assert ranked == sorted(ranked, reverse=True)
    assert len(ranked) == len(found.words) == 12
    shown = re.search(r"2 other words: (\S+) together", str(found))
    assert float(shown[1]) == pytest.approx(sum(value for _, value in found.top(12)[10:]), abs=1e-3)


def test_values_that_do_not_add_up_are_flagged(classifier):
    record = classifier.explain(TEXT).to_json()
    assert "do not add up" not in str(Explanation(record))
    flagged = Explanation(record | {"is_complete": False, "gap": 0.4})
    assert "0.400 after 32 steps" in str(flagged)
    assert "do not add up" in flagged._repr_html_()


def test_arguments_that_name_nothing_are_refused(classifier):
    with pytest.raises(LabelError, match=r"expected one of <b>bad</b>, fine, \[bold\]great, came 'good'"):
        classifier.explain(TEXT, label="good")
    for arguments, message in [
        ({"method": "lime"}, "method: expected one of integrated_gradients, occlusion, got 'lime'"),
        ({"baseline": "zero"}, "baseline: expected one of pad, mask, got 'zero'"),
        ({"steps": 0}, "steps: expected a whole number from 1, got 0"),
    ]:
        with pytest.raises(DataError, match=message):
            classifier.explain(TEXT, **arguments)
    with pytest.raises(DataError, match="reads single texts, got pairs"):
        classifier.explain(TEXT, TEXT)
    with pytest.raises(DataError, match="item 0 is empty"):
        classifier.explain(" ")


def test_the_command_shows_writes_and_prints_json(folder, classifier, monkeypatch, capsys, work_dir):
    status, out, err = run_command(monkeypatch, capsys, "explain", folder, TEXT, "-o", "page.html")
    assert (status, err) == (0, "")
    found = classifier.explain(TEXT)
    assert "wasn't" in out
    assert f"{found.top(1)[0][1]:+.3f}" in out
    assert out.endswith("wrote page.html\n")
    assert (work_dir / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    status, _, err = run_command(monkeypatch, capsys, "explain", folder, TEXT, "-o", "page.html")
    assert status == 2
    assert "exists already" in err
    arguments = (folder, TEXT, "--json", "--method", "occlusion", "--label", "fine", "-o", "all.json")
    status, out, _ = run_command(monkeypatch, capsys, "explain", *arguments)
    assert status == 0
    record = json.loads(out)
    assert record == json.loads((work_dir / "all.json").read_text(encoding="utf-8"))
    assert (record["label"], record["method"], len(record["words"])) == ("fine", "occlusion", 12)
    status, _, err = run_command(monkeypatch, capsys, "explain", folder, TEXT, "--label", "good")
    assert (status, err.count("\n")) == (2, 1)


def test_files_of_other_kinds_and_places_are_refused_before_any_work(monkeypatch, capsys, work_dir):
    for name, message in [("a.csv", r"ending in .html or .json"), ("no/a.html", "there is no folder no")]:
        status, _, err = run_command(monkeypatch, capsys, "explain", "no/such/model", TEXT, "-o", name)
        assert status == 2
        assert re.search(message, err)
    with pytest.raises(OutputError, match="ending in"):
        Explanation({}).save(work_dir / "a.txt")


def test_a_missing_captum_is_told_with_its_install_command(classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    for method in ("integrated_gradients", "occlusion"):
        with pytest.raises(MissingExtraError, match=r"needs captum. Install it with: .*nlp_transfer\[explain\]"):
            classifier.explain(TEXT, method=method)
