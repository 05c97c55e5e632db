import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import nlp_transfer as nt
from nlp_transfer.cli import app
from nlp_transfer.contracts import Splits
from nlp_transfer.errors import ArtifactError, DataError, EncoderError, OutputError, RecipeError
from nlp_transfer.evidence import embedding
from nlp_transfer.evidence.rank import options as rank_options
from nlp_transfer.evidence.rank.command import FEATURE_ESTIMATORS, SOURCE_ESTIMATORS
from nlp_transfer.evidence.rank.result import Ranking
from nlp_transfer.recipe.load import load_recipe
from tests.tiny import make_splits

QUICK = {"training.max_steps": 2, "evaluation.metrics": ["accuracy"]}


@pytest.fixture(scope="module")
def tables():
    return dict(make_splits(80, 3).tables)


@pytest.fixture(scope="module")
def blind(tiny_encoder, tmp_path_factory):
    """An encoder that reads every word alike, so that only length and place are left."""
    folder = tmp_path_factory.mktemp("zoo") / "blind"
    shutil.copytree(tiny_encoder("bert"), folder)
    weights = load_file(folder / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("word_embeddings.weight"))
    weights[name] = weights[name][:1].expand_as(weights[name]).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def look(tables, encoder, **keys):
    """Rows and recipe for the functions under `rank`."""
    recipe = load_recipe({"encoder": {"name": str(encoder)}, **keys})
    splits = make_splits(80, 3)
    return Splits({"train": tables["train"]}, splits.labels, splits.facts), recipe


def test_rows_are_drawn_by_class_and_seed():
    labels = np.array([0] * 500 + [1] * 99 + [2] * 1)
    rows = embedding.choose_rows(labels, 60, seed=0)
    assert np.bincount(labels[rows]).tolist() == [50, 10, 1]
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == embedding.choose_rows(labels, 60, seed=0).tolist()
    assert rows.tolist() != embedding.choose_rows(labels, 60, seed=1).tolist()
    assert embedding.choose_rows(labels, 600, seed=0).tolist() == list(range(600))
    # Forty classes do not fit twenty rows twice: each keeps two, so that something can be compared.
    assert (
        np.bincount(np.repeat(np.arange(40), 5)[embedding.choose_rows(np.repeat(np.arange(40), 5), 20, 0)]).min() == 2
    )


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_vectors_are_the_mean_of_each_layers_tokens(family, tables, tiny_encoder):
    rows, recipe = look(tables, tiny_encoder(family))
    found = embedding.embed_rows(recipe.encoder, rows, recipe)
    model = AutoModel.from_pretrained(tiny_encoder(family)).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(family))
    assert found.vectors.shape == (3, 80, 32)
    for number, text in enumerate(tables["train"]["text"][:20]):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        each = [*states.hidden_states[:-1], states.last_hidden_state]
        expected = torch.stack([layer[0].mean(dim=0) for layer in each]).numpy()
        np.testing.assert_allclose(found.vectors[:, number], expected, atol=2e-5)
    np.testing.assert_allclose(found.combine("mean")["mean"], found.vectors[1:].mean(axis=0), atol=1e-6)
    assert list(found.combine("all")) == [1, 2]
    assert (found.combine(-1)[2] == found.vectors[2]).all()
    assert (found.combine(0)[0] == found.vectors[0]).all()
    with pytest.raises(RecipeError, match="has 2 layers, got 7"):
        found.combine(7)


def test_many_rows_are_read_in_the_format_that_trains(tiny_encoder):
    splits = make_splits(300, 3)
    rows = Splits({"train": splits.tables["train"]}, splits.labels, splits.facts)
    found = {}
    for precision in ("fp32", "bf16"):
        recipe = load_recipe(
            {"encoder": {"name": str(tiny_encoder("bert"))}, "training": {"precision": precision, "device": "cpu"}}
        )
        found[precision] = embedding.embed_rows(recipe.encoder, rows, recipe).vectors
    assert found["bf16"].shape == found["fp32"].shape
    assert not np.array_equal(found["bf16"], found["fp32"])
    lengths = np.linalg.norm(found["fp32"], axis=2)
    assert (np.linalg.norm(found["bf16"] - found["fp32"], axis=2) < 0.01 * lengths).all()


def test_posteriors_are_those_of_the_old_head(tables, tiny_encoder):
    folder = tiny_encoder("bert", "classifier")
    rows, recipe = look(tables, folder)
    found, reason = embedding.find_posteriors(recipe.encoder, rows, recipe)
    assert reason == ""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for number, text in enumerate(tables["train"]["text"][:20]):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits.softmax(dim=1)[0].numpy()
        np.testing.assert_allclose(found[number], expected, atol=1e-5)
    bare, reason = embedding.find_posteriors(look(tables, tiny_encoder("bert"))[1].encoder, rows, recipe)
    assert bare is None
    assert "no head" in reason


def test_every_estimator_ranks_one_that_reads_over_one_that_is_blind(tables, tiny_encoder, blind, tmp_path):
    encoders = [blind, tiny_encoder("bert"), tiny_encoder("bert", "classifier")]
    ranking = nt.rank(tables, encoders, estimators=["all"], output_dir=tmp_path / "out", progress=False)
    assert ranking.estimators == list(rank_options.ESTIMATOR_NAMES) == [*FEATURE_ESTIMATORS, *SOURCE_ESTIMATORS]
    assert ranking.names[-1] == str(blind)
    assert ranking.best == ranking.names[0]
    sighted, dull = ranking.scores[str(tiny_encoder("bert"))], ranking.scores[str(blind)]
    better = [key for key in FEATURE_ESTIMATORS if sighted[key] > dull[key]]
    # How much room vectors take is TransRate's measure too, and a blind encoder's may take more of it.
    assert set(FEATURE_ESTIMATORS) - set(better) <= {"transrate"}
    classifier = ranking.scores[str(tiny_encoder("bert", "classifier"))]
    assert all(classifier[key] is not None and classifier[key] < 0 for key in ("leep", "nce"))
    assert dull["leep"] is None
    assert dull["nce"] is None
    assert Ranking.load(tmp_path / "out").to_json() == ranking.to_json()
    assert all(row["seconds"]["embed"] > 0 for row in ranking.record["encoders"])
    text = str(ranking)
    assert "No LEEP and NCE of" in text
    assert "H-score" in text
    assert "Take " in text
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 1
    assert html.startswith("<!DOCTYPE html>")
    assert "<script" not in html
    assert ranking._repr_html_().startswith('<div class="nt fragment">')
    # Written again into its own folder.
    nt.rank(tables, encoders[:2], output_dir=tmp_path / "out", progress=False)
    assert len(Ranking.load(tmp_path / "out").names) == 2


def test_ranking_is_the_same_again_and_depends_on_rows_by_the_seed(tables, tiny_encoder, blind):
    def compute(**options):
        found = nt.rank(tables, [tiny_encoder("bert"), blind], limit=40, progress=False, **options)
        return [(row["name"], row["scores"], row["layers_used"]) for row in found.record["encoders"]]

    assert compute(estimators=["probe", "nleep"]) == compute(estimators=["probe", "nleep"])
    assert compute() != compute(seed=1)


def test_all_layers_are_looked_at_and_the_best_counts(tables, tiny_encoder, blind):
    encoders = [tiny_encoder("bert"), blind]
    whole = nt.rank(tables, encoders, layers="all", estimators=["knn"], progress=False)
    for row in whole.record["encoders"]:
        alone = {
            layer: nt.rank(tables, encoders, layers=layer, estimators=["knn"], progress=False).scores[row["name"]][
                "knn"
            ]
            for layer in (1, -1)
        }
        assert row["scores_by_layer"]["knn"] == {"1": alone[1], "2": alone[-1]}
        assert row["scores"]["knn"] == max(alone.values())
    assert "best layer" in str(whole)


def test_the_best_are_verified_once_and_held_against_the_estimators(tiny_encoder, blind, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for split, table in make_splits(60, 2, names=["bad", "good"]).tables.items():
        frame = table.to_pandas()
        frame["label"] = [["bad", "good"][label] for label in frame["label"]]
        frame.to_csv(data / f"{split}.csv", index=False)
    encoders = [tiny_encoder("bert"), blind, tiny_encoder("distilbert")]
    out = tmp_path / "out"
    first = nt.rank(data, encoders, QUICK, estimators=["h_score", "leep"], verify=2, output_dir=out, progress=False)
    verification = first.record["verification"]
    assert verification["count"] == 2
    verified = [row["verified"] for row in first.record["encoders"] if "verified" in row]
    assert len(verified) == 2
    assert all(0 <= row["validation"] <= 1 and 0 <= row["test"] <= 1 for row in verified)
    assert first.best == max(first.record["encoders"][:2], key=lambda row: row["verified"]["validation"])["name"]
    assert list(verification["agreement"]) == ["h_score"]
    assert verification["agreement"]["h_score"]["n"] == 2
    assert "Verified 2, " in str(first)
    assert (out / "report.html").read_text(encoding="utf-8").count("<svg") == 2
    runs = sorted((out / "verify").glob("*/report.json"))
    assert len(runs) == 2
    times = [run.stat().st_mtime_ns for run in runs]
    again = nt.rank(data, encoders, QUICK, estimators=["h_score", "leep"], verify=2, output_dir=out, progress=False)
    assert [run.stat().st_mtime_ns for run in sorted((out / "verify").glob("*/report.json"))] == times
    assert [row["scores"] for row in again.record["encoders"]] == [row["scores"] for row in first.record["encoders"]]
    # The same path with other rows is verified anew, and what was there is left alone.
    train = (data / "train.csv").read_text()
    (data / "train.csv").write_text(train + train.splitlines()[1] + "\n")
    nt.rank(data, encoders, QUICK, estimators=["h_score"], verify=1, output_dir=out, progress=False)
    later = sorted((out / "verify").glob("*/report.json"))
    assert len(later) == 3
    again = nt.rank(data, encoders, QUICK, estimators=["h_score"], verify=1, output_dir=out, progress=False)
    assert "there is nothing to compare it with" in " ".join(str(again).split())
    other = tmp_path / "other"
    shutil.copytree(data, other)
    with pytest.raises(OutputError, match="holds a result on"):
        nt.rank(other, encoders, QUICK, output_dir=out, progress=False)
    assert [run.stat().st_mtime_ns for run in runs] == times


def test_an_earlier_run_on_the_same_data_is_named(tiny_encoder, tmp_path):
    data = tmp_path / "mine.csv"
    splits = make_splits(60, 2, names=["bad", "good"])
    frame = splits.tables["train"].to_pandas()[["text", "label"]]
    frame.assign(label=[["bad", "good"][row] for row in frame["label"]]).to_csv(data, index=False)
    recipe = {"encoder": {"name": str(tiny_encoder("bert"))}, "data": {"path": str(data)}, "strategy": {"kind": "full"}}
    settings = {"training.max_steps": 2, "evaluation.tfidf": False, "evaluation.resamples": 100}
    run = nt.run(recipe, settings, output_dir=tmp_path / "run", progress=False).folder
    ranking = nt.rank(data, [tiny_encoder("bert"), run], estimators=["h_score"], progress=False)
    assert {Path(row["name"]).name: row["is_trained_here"] for row in ranking.record["encoders"]}["run"]
    assert sum(row["is_trained_here"] for row in ranking.record["encoders"]) == 1
    assert "Fine-tuned on this very data: run." in " ".join(str(ranking).split())


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"encoders": ["one"]}, RecipeError, "two or more to compare, got 1. Name each with --encoder"),
        ({"encoders": "one"}, RecipeError, "a list of names"),
        ({"encoders": ["one", "one"]}, RecipeError, "one twice"),
        ({"encoders": ["no/such/folder/here", "other"]}, EncoderError, "no such folder"),
        ({"estimators": ["hscore"]}, RecipeError, 'Did you mean "h_score"'),
        ({"layers": "first"}, RecipeError, "last, mean, all or a layer's number"),
        ({"limit": 1}, RecipeError, "limit: expected 2 rows"),
        ({"verify": -1}, RecipeError, "verify: expected 0"),
        ({"pooling": "sum"}, RecipeError, "pooling: expected mean"),
        ({"overrides": ["data.txt=body"]}, RecipeError, "data.txt"),
        ({"verify": 1, "overrides": {"evaluation.metrics": ["log_loss"]}}, RecipeError, "Add accuracy"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options, error, problem, tables, tiny_encoder, blind):
    given = {"encoders": [tiny_encoder("bert"), blind], **options}
    with pytest.raises(error, match=problem):
        nt.rank(tables, progress=False, **given)


def test_other_tasks_and_folders_are_refused(tables, tiny_encoder, blind, tmp_path):
    encoders = [tiny_encoder("bert"), blind]
    numbers = dict(make_splits(40, kind="regression").tables)
    with pytest.raises(DataError, match="one class a row"):
        nt.rank(numbers, encoders, {"task.kind": "regression"}, progress=False)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"such as mine\.txt"):
        nt.rank(tables, encoders, output_dir=tmp_path, progress=False)
    with pytest.raises(ArtifactError, match="expected a ranking, found none"):
        Ranking.load(tmp_path)
    (tmp_path / "rank.json").write_text("{}")
    with pytest.raises(ArtifactError, match="Rank again"):
        Ranking.load(tmp_path)


def test_the_command_prints_a_table_or_json(tiny_encoder, blind, tmp_path):
    encoders = ["--encoder", str(tiny_encoder("bert")), "--encoder", str(blind)]
    more = ["--limit", "50", "--estimator", "knn", "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, ["rank", "reviews", "data.max_length=32", *encoders, *more])
    assert shown.exit_code == 0, shown.output
    assert "Encoders for reviews" in shown.stdout
    written = CliRunner().invoke(app, ["rank", "reviews", "data.max_length=32", *encoders, *more, "--json"])
    record = json.loads(written.stdout)
    assert record["data"]["rows"] == 50
    assert record["settings"]["max_length"] == 32
    assert list(record["encoders"][0]["scores"]) == ["knn"]
    stored = json.loads((tmp_path / "out" / "rank.json").read_text(encoding="utf-8"))
    assert [row["scores"] for row in stored["encoders"]] == [row["scores"] for row in record["encoders"]]
