import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import nlp_transfer as nt
from nlp_transfer.cli import app
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.unseen import ENCODERS
from nlp_transfer.errors import ArtifactError, DataError, OutputError, RecipeError
from nlp_transfer.evidence.advise.result import Advice
from nlp_transfer.evidence.advise.sample import FEWEST_ROWS, draw_sample, read_vectors, time_passes
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.models.vector_classifier import pool_tokens
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig, TaskConfig
from tests.tiny import make_splits


def make_tables(n=90, **more):
    """Frames by split, with names for labels."""
    splits = make_splits(n, **more)
    return {
        name: table.to_pandas().assign(label=[splits.labels.names[row] for row in table["label"]]).drop(columns="id")
        for name, table in splits.tables.items()
    }


@pytest.fixture(scope="module")
def advice(tiny_encoder):
    return nt.advise(make_tables(num_labels=3), encoder=str(tiny_encoder("bert")))


def test_advice_holds_facts_distances_probes_and_candidates(advice):
    data, distance = advice.record["data"], advice.record["distance"]
    assert data["rows"] == {"train": 90, "validation": 45, "test": 45}
    assert data["classes"]["classes"] == 3
    assert data["probed_rows"] == 90
    assert distance["rows"] == [90, 200]
    assert 0 <= distance["proxy_a_distance"] <= 2
    assert distance["masked_loss"] is None
    assert [probe["name"] for probe in advice.record["probes"]] == ["features", "middle_features", "neighbors", "tfidf"]
    assert all(probe["rows"] == 90 and probe["folds"] == 5 for probe in advice.record["probes"])
    assert [point["rows"] for point in advice.record["curve"]] == [18, 36, 72]
    assert {c["kind"] for c in advice.candidates} == {"features", "few_shot", "layerwise", "lora", "full", "zero_shot"}
    assert advice.best == advice.candidates[0]["kind"]
    assert all(c["seconds"] > 0 and c["reasons"] for c in advice.candidates)
    assert isinstance(advice.record["log_evidence"], float)


def test_the_same_seed_gives_the_same_advice(advice, tiny_encoder):
    again = nt.advise(make_tables(num_labels=3), encoder=str(tiny_encoder("bert"))).to_json()
    first = advice.to_json()
    for key in ("data", "distance", "probes", "curve", "zero_shot", "situation", "log_evidence"):
        assert again[key] == first[key], key


def test_validation_and_test_are_never_looked_at(advice, tiny_encoder):
    tables = make_tables(num_labels=3)
    for split in ("validation", "test"):
        labels = tables[split]["label"].to_numpy()
        tables[split] = tables[split].assign(label=np.roll(labels, 1), text=[f"other {n}" for n in range(len(labels))])
    other = nt.advise(tables, encoder=str(tiny_encoder("bert"))).to_json()
    for key in ("probes", "curve", "zero_shot", "situation"):
        assert other[key] == advice.to_json()[key], key


def test_it_shows_itself_everywhere(advice, tmp_path):
    text = str(advice)
    assert "Strategy" in text
    assert advice.best in text
    assert "Run it:" in text
    assert "proxy A-distance" in text
    assert repr(advice).startswith("Advice(")
    html = advice._repr_html_()
    assert html.count("<svg") == 1
    assert "<script" not in html
    assert not re.search(r'(?:src|href)="http', html)
    advice.save(tmp_path / "out")
    again = Advice.load(tmp_path / "out")
    assert again.to_json() == advice.to_json()
    assert "<!DOCTYPE html>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_texts_of_the_data_are_escaped(tiny_encoder):
    tables = make_tables(60)
    tables["train"]["label"] = tables["train"]["label"].replace("class 0", "<b>x</b>")
    tables["test"]["label"] = tables["test"]["label"].replace("class 0", "<b>x</b>")
    tables["validation"]["label"] = tables["validation"]["label"].replace("class 0", "<b>x</b>")
    found = nt.advise(tables, encoder=str(tiny_encoder("bert")))
    found.record["data"]["suspects"] = [{"id": "1", "text": "<script>alert(1)</script>", "label": "<b>x</b>"}]
    html = found._repr_html_()
    assert "<script>" not in html
    assert "<b>x</b>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
def test_advice_on_other_data_is_left_alone(tmp_path, tiny_encoder):
    for name, seed in (("one", 0), ("two", 1)):
        make_tables(60)["train"].sample(frac=1, random_state=seed).to_csv(tmp_path / f"{name}.csv", index=False)
    settings = {"encoder": str(tiny_encoder("bert")), "out": tmp_path / "told"}
    for _ in range(2):
        nt.advise(tmp_path / "one.csv", **settings)
    held = (tmp_path / "told" / "advice.json").read_bytes()
    with pytest.raises(OutputError, match=r"holds a result on .*one\.csv, not on .*two\.csv, and is left alone"):
        nt.advise(tmp_path / "two.csv", **settings)
    assert (tmp_path / "told" / "advice.json").read_bytes() == held


def test_rows_without_a_label_may_be_left_out_and_the_recipes_know(tmp_path, tiny_encoder):
    frame = make_tables(60)["train"]
    frame.loc[3, "label"] = None
    frame.to_csv(tmp_path / "mine.csv", index=False)
    encoder = str(tiny_encoder("bert"))
    with pytest.raises(DataError, match=r"data\.invalid=drop"):
        nt.advise(tmp_path / "mine.csv", encoder=encoder)
    for overrides in (["data.invalid=drop"], {"data.invalid": "drop"}):
        found = nt.advise(tmp_path / "mine.csv", overrides, encoder=encoder)
        assert sum(found.record["data"]["rows"].values()) == 59
        loaded = load_recipe(found.candidates[0]["recipe"], found.candidates[0]["overrides"])
        assert loaded.data.invalid == "drop"
    with pytest.raises(RecipeError, match=r"training\.epochs: advise takes keys of data\.\* only"):
        nt.advise(tmp_path / "mine.csv", ["training.epochs=2"], encoder=encoder)


def test_the_command_can_be_pasted_as_it_is_shown(advice):
    shown = str(advice)
    lines = shown[shown.index("nlp-transfer run") :].rstrip().splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 for line in lines if "encoder.name" not in line)
    assert shlex.split("\n".join(line.rstrip() for line in lines).replace("\\\n", " ")) == shlex.split(advice.command)


def test_planted_wrong_labels_are_suspected(tiny_encoder):
    encoder = str(tiny_encoder("bert"))
    subjects = {"sport": "The team won the match in the last minute", "money": "Shares fell as oil prices rose"}
    names = ["sport", "money"] * 60
    train = pd.DataFrame({"text": [f"{subjects[name]}, report {n}." for n, name in enumerate(names)], "label": names})
    clean = nt.advise({"train": train}, encoder=encoder)
    assert clean.record["data"]["label_noise"] == 0.0
    train.loc[:9, "label"] = ["money", "sport"] * 5
    found = nt.advise({"train": train}, encoder=encoder)
    suspects = found.record["data"]["suspects"]
    assert 0.0 < found.record["data"]["label_noise"] < 0.1
    assert len(suspects) >= 2
    assert all(int(row["text"].rsplit(" ", 1)[1].rstrip(".")) < 10 for row in suspects)


def test_pairs_are_advised_on_without_the_names_of_labels(tiny_encoder):
    found = nt.advise(make_tables(60, pairs=True), encoder=str(tiny_encoder("bert")))
    assert found.record["zero_shot"] is None
    assert "zero_shot" not in {row["kind"] for row in found.candidates}


def test_a_masked_head_is_asked(tiny_encoder):
    found = nt.advise(make_tables(60), encoder=str(tiny_encoder("roberta", "masked_lm")))
    assert found.record["distance"]["masked_loss"]["data"] > 0


def make_drinks(form):
    """A table whose labels hang on emoji alone, in texts of the given form."""
    drinks = {"cold": "\U0001f379\U0001f9ca", "hot": "\U0001f375\U00002615"}
    names = ["cold", "hot"] * 30
    texts = [form.format(n=n, drink=drinks[name][n // 2 % 2] + drinks[name]) for n, name in enumerate(names)]
    return pd.DataFrame({"text": [f"{text}{drinks[name][n // 4 % 2] * (n // 8 % 4)}" for n, (text, name)
                                  in enumerate(zip(texts, names, strict=True))], "label": names})  # fmt: skip


@pytest.mark.parametrize(("form", "is_all"), [("{drink}", True), ("the hotel {n} was {drink}", False)])
def test_what_the_encoder_cannot_see_is_said_and_ranked_with(form, is_all, tiny_encoder):
    found = nt.advise(make_drinks(form), encoder=str(tiny_encoder("bert")))
    unseen = found.record["unseen"]
    assert found.record["distance"]["fragmentation"]["data"]["unknown_share"] == unseen["unknown_share"] > 0.1
    assert (unseen["unseen"], unseen["blind_share"]) == (unseen["texts"] if is_all else 0, 1.0)
    assert unseen["score"] == 1.0
    assert unseen["encoder"] == ENCODERS["symbols"][0]
    ranked = {c["kind"]: c for c in found.candidates}
    assert all(ranked[kind]["gain"] <= 0 for kind in ("full", "lora", "layerwise", "features"))
    assert ENCODERS["symbols"][0] in found.candidates[0]["reasons"][0]
    assert "tokens unknown" in str(found)
    assert any("carries the labels" in note for note in found.record["notes"])
    if is_all:
        assert unseen["alike"] > 0
        assert found.record["outlook"]["ceiling"] < 0.8
        assert found.record["data"]["language"] is None
        assert "no letters" in str(found)


def test_an_encoder_that_reads_bytes_is_not_blamed(tiny_encoder):
    found = nt.advise(make_drinks("{drink}"), encoder=str(tiny_encoder("roberta")))
    unseen = found.record["unseen"]
    assert (unseen["unseen"], unseen["unknown_share"], unseen["encoder"], unseen["alike"]) == (0, 0.0, None, 0)
    assert not any("unknown to the encoder" in note for note in found.record["notes"])
    assert found.record["outlook"]["blind"] == 0.0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"text": [f"text {n}" for n in range(12)], "label": [0, 1] * 6}, "at least 10 train rows of two classes"),
        ({"text": [f"text {n}" for n in range(30)], "label": ["a"] * 30}, "two|one label|one class"),
    ],
)
def test_tables_that_say_nothing_are_refused(table, message, tiny_encoder):
    with pytest.raises(DataError, match=message):
        nt.advise(pd.DataFrame(table), encoder=str(tiny_encoder("bert")))


def test_an_output_folder_of_something_else_is_left_alone(tmp_path, tiny_encoder):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        nt.advise("reviews", encoder=str(tiny_encoder("bert")), output_dir=tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        nt.advise("reviews", encoder=str(tiny_encoder("bert")), output_dir=tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ArtifactError, match="expected advice, found none"):
        Advice.load(tmp_path)
    (tmp_path / "advice.json").write_text("[]")
    with pytest.raises(ArtifactError, match="expected advice, got"):
        Advice.load(tmp_path)


def test_long_texts_are_read_in_part_and_the_rows_are_those_of_a_plain_pass(tiny_encoder):
    encoder = EncoderConfig(name=str(tiny_encoder("bert")))
    splits = load_splits(DataConfig(), TaskConfig(), seed=0, source=make_tables(300))
    tokenizer = load_tokenizer(resolve_encoder(encoder))
    model = load_encoder(encoder, splits.labels, seed=0).model.base_model.eval()
    settings = {"max_length": 32, "seed": 0}
    whole = draw_sample(splits, tokenizer, model, **settings)
    part = draw_sample(splits, tokenizer, model, most_work=0.0, **settings)
    assert (len(whole.rows), len(part.rows), len(part.lengths)) == (300, FEWEST_ROWS, 300)
    assert part.rows.tolist() == whole.rows[:FEWEST_ROWS].tolist()
    assert time_passes(model, part) > 0
    last, mixed, cloud = read_vectors(model, part, nt.contracts.track_nothing)
    assert (last.shape, mixed.shape, cloud.shape) == ((FEWEST_ROWS, 32), (FEWEST_ROWS, 32), (200, 32))
    inputs = tokenizer(part.texts[7], return_tensors="pt", truncation=True, max_length=32)
    output = model(**inputs, output_hidden_states=True)
    states = [pool_tokens(output.hidden_states[layer], inputs["attention_mask"], "mean") for layer in (1, 2)]
    for found, expected in ((last, states[1]), (mixed, (states[0] + states[1]) / 2)):
        plain = (expected / expected.norm()).detach().numpy()[0]
        assert found[7] == pytest.approx(plain, abs=1e-5)
    assert part.labels[7] == splits.tables["train"]["label"][int(part.rows[7])]


def test_a_rare_class_is_read_whatever_the_draw(tiny_encoder):
    encoder, tables = EncoderConfig(name=str(tiny_encoder("bert"))), make_tables(900)
    names = np.array(["usual"] * 897 + ["rare", "rare", "single"])
    tables["train"] = tables["train"].assign(label=names)
    for split in ("validation", "test"):
        tables[split] = tables[split].assign(label="usual")
    splits = load_splits(DataConfig(), TaskConfig(), seed=0, source=tables)
    tokenizer = load_tokenizer(resolve_encoder(encoder))
    model = load_encoder(encoder, splits.labels, seed=0).model.base_model
    for seed in range(5):
        part = draw_sample(splits, tokenizer, model, max_length=32, seed=seed, most_work=0.0)
        held = dict(zip(splits.labels.names, np.bincount(part.labels, minlength=3).tolist(), strict=True))
        assert held == {"rare": 2, "single": 1, "usual": FEWEST_ROWS - 3}
        assert len(set(part.rows.tolist())) == FEWEST_ROWS
        assert [splits.tables["train"]["label"][row] for row in part.rows.tolist()] == part.labels.tolist()


def test_advice_on_a_table_in_memory_says_where_to_name_it(advice):
    assert all("data.path=YOUR_TABLE" in c["command"] for c in advice.candidates)
    assert any("in place of YOUR_TABLE" in note for note in advice.record["notes"])


def test_the_command_line_prints_json_and_writes_the_report(tiny_encoder, work_dir):
    make_tables(60)["train"].to_csv("mine.csv", index=False)
    command = ["advise", "mine.csv", "--encoder", str(tiny_encoder("bert")), "--json", "--out", "told", "--limit", "30"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found == Advice.load("told").to_json()
    assert found["data"]["rows"]["train"] == 30
    first = found["candidates"][0]
    assert {"data.path=mine.csv", "data.limit=30"} <= set(first["overrides"])
    assert load_recipe(first["recipe"], first["overrides"]).strategy.kind == first["kind"]
    assert not any("YOUR_TABLE" in note for note in found["notes"])
    shown = CliRunner().invoke(app, command[:4], catch_exceptions=False)
    assert "Run it:" in shown.stdout


@pytest.mark.slow
@pytest.mark.real
def test_real_questions_are_advised_on(real_data, minilm):
    found = nt.advise(str(real_data / "trec"), limit=300, encoder=str(minilm))
    assert found.record["data"]["language"] == "English"
    assert 0.5 < found.record["situation"]["probe"] < 0.95
    assert found.best in ("few_shot", "full", "layerwise", "lora", "features")
