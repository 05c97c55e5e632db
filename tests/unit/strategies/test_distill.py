import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_transfer.contracts import LabelSpace, track_nothing
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.engine.train.objectives import build_objective
from nlp_transfer.errors import DataError, RecipeError
from nlp_transfer.fitting.fit import fit_model, predict_split
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.layers import choose_layers
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import METRICS, TrainingConfig
from nlp_transfer.runs.pipeline import run
from nlp_transfer.strategies import STRATEGIES, Material
from nlp_transfer.strategies.distill import IS_LABELLED, TEACHER, DistillationObjective, sum_divergence
from tests.tiny import FAMILIES, HEADS, make_encoder, make_splits, make_texts
from tests.training import make_batch

SPACE = LabelSpace("classification", ("a", "b", "c"))


def make_recipe(encoder, teacher, kind="classification", training=None, **strategy):
    return load_recipe(
        {
            "encoder": {"name": str(encoder)},
            "task": {"kind": kind},
            "strategy": {"kind": "distill", "teacher": str(teacher), **strategy},
            "data": {"max_length": 48},
            "training": {"device": "cpu", "max_steps": 2, "batch_size": 8, **(training or {})},
        }
    )


def lay_out(recipe, splits):
    prepared = encode_splits(splits, AutoTokenizer.from_pretrained(recipe.encoder.name), recipe.data)
    loaded = load_encoder(recipe.encoder, prepared.labels, seed=0)
    adapted = STRATEGIES["distill"].adapt(loaded, recipe.strategy)
    return prepared, adapted.plan_stage(Material(splits, prepared, recipe, torch.device("cpu"), track_nothing))


def ask(teacher, texts):
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")).logits


def test_the_loss_is_the_weighted_sum_of_teacher_and_label_and_adds_up_over_examples():
    torch.manual_seed(0)
    logits, given = torch.randn(5, 3), torch.randn(5, 3)
    task = build_objective(SPACE, TrainingConfig(label_smoothing=0.1, class_weights={"a": 1.0, "b": 3.0, "c": 0.5}), {})
    objective = DistillationObjective(SPACE, task, alpha=0.7, temperature=3.0)
    labels, known = torch.tensor([0, 2, 1, 0, 0]), torch.tensor([True, True, True, False, False])

    def take(rows: slice) -> torch.Tensor:
        columns = {TEACHER: given[rows], IS_LABELLED: known[rows]}
        return objective(logits[rows], make_batch(labels[rows], **columns))

    p, q = (given / 3).softmax(dim=1), (logits / 3).softmax(dim=1)
    expected = 0.7 * 9 * (p * (p / q).log()).sum() + 0.3 * task(logits[:3], make_batch(labels[:3]))
    found = take(slice(0, 5))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    # The last two rows have no label: only what the teacher says of them counts.
    parts = [take(rows) for rows in (slice(0, 2), slice(2, 3), slice(3, 5))]
    assert sum(part.item() for part in parts) == pytest.approx(found.item(), rel=1e-5)
    assert parts[2].item() == pytest.approx(0.7 * 9 * (p[3:] * (p[3:] / q[3:]).log()).sum().item(), rel=1e-5)


def test_a_student_that_says_what_its_teacher_says_has_no_loss_and_no_gradient():
    for kind, num_labels in (("classification", 3), ("ordinal", 3), ("multi_label", 3), ("regression", 1)):
        space = LabelSpace(kind, SPACE.names[:num_labels])
        logits = torch.randn(4, num_labels, requires_grad=True)
        loss = sum_divergence(logits, logits.detach().clone(), space, 2.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert abs(loss.item()) < 1e-5, kind
        assert gradient.abs().max() < 1e-6, kind
        assert sum_divergence(logits + torch.randn(4, num_labels), logits, space, 2.0) > 0.01


def test_several_labels_are_compared_one_by_one():
    space = LabelSpace("multi_label", ("a", "b"))
    logits, given = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]])
    p, q = (given / 2).sigmoid(), (logits / 2).sigmoid()
    expected = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / 2
    assert sum_divergence(logits, given, space, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_targets_are_the_teachers_own_logits_in_our_order_by_its_own_tokenizer(family, tiny_encoder):
    teacher = tiny_encoder(family, "classifier")
    splits = make_splits(24, 3)
    prepared, stage = lay_out(make_recipe(tiny_encoder("bert"), teacher), splits)
    order = [HEADS["classifier"].index(name) for name in splits.labels.names]
    assert order == [1, 2, 0]
    train = stage.prepared.splits["train"]
    assert train.columns[TEACHER].dtype == np.float32
    assert train.columns[IS_LABELLED].all()
    assert np.array_equal(train.labels, prepared.splits["train"].labels)
    expected = ask(teacher, splits.tables["train"]["text"][:])[:, order]
    assert np.allclose(train.columns[TEACHER], expected, atol=1e-5)
    assert np.array_equal(stage.prepared.splits["validation"].labels, prepared.splits["validation"].labels)
    again = lay_out(make_recipe(tiny_encoder("bert"), teacher), splits)[1].prepared.splits["train"]
    assert np.array_equal(train.columns[TEACHER], again.columns[TEACHER]), "a resumed run must see the same targets"


def test_further_texts_stand_behind_train_and_have_no_label(tiny_encoder, tmp_path):
    teacher = tiny_encoder("roberta", "classifier")
    texts = make_texts(10, seed=5)
    Dataset.from_dict({"text": texts, "label": [1] * 10}).to_parquet(tmp_path / "more.parquet")
    splits = make_splits(24, 3)
    recipe = make_recipe(tiny_encoder("bert"), teacher, unlabelled=str(tmp_path / "more.parquet"))
    prepared, stage = lay_out(recipe, splits)
    train = stage.prepared.splits["train"]
    assert (train.num_examples, len(train.rows), len(train.lengths)) == (34, 34, 34)
    assert train.columns[IS_LABELLED].tolist() == [True] * 24 + [False] * 10
    assert np.array_equal(train.labels[:24], prepared.splits["train"].labels)
    assert train.examples.tolist() == list(range(34))
    tokenizer = AutoTokenizer.from_pretrained(recipe.encoder.name)
    assert train.rows[25]["input_ids"] == tokenizer(texts[1])["input_ids"]
    assert train.rows[3]["input_ids"] == prepared.splits["train"].rows[3]["input_ids"]
    assert np.allclose(train.columns[TEACHER][24:], ask(teacher, texts)[:, [1, 2, 0]], atol=1e-5)
    fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
    assert fitted.log.examples == 16
    Dataset.from_dict({"text": ["fine", " "]}).to_parquet(tmp_path / "gaps.parquet")
    with pytest.raises(DataError, match=r"strategy.unlabelled: .*row 2: expected a text"):
        lay_out(make_recipe(tiny_encoder("bert"), teacher, unlabelled=str(tmp_path / "gaps.parquet")), splits)


def test_a_student_learns_sixteen_answers_of_its_teacher_by_heart(tiny_encoder):
    splits = make_splits(16, 3)
    teacher = tiny_encoder("roberta", "classifier")
    training = {"max_steps": 80, "batch_size": 16, "learning_rate": 3e-3, "restore_best": False}
    recipe = make_recipe(tiny_encoder("bert"), teacher, training=training, alpha=1.0, temperature=1.0)
    prepared = encode_splits(splits, AutoTokenizer.from_pretrained(recipe.encoder.name), recipe.data)
    accelerator = Accelerator(cpu=True)
    fitted = fit_model(recipe, splits, prepared, accelerator)
    found = predict_split(fitted.adapted.model, prepared, "train", accelerator, batch_size=16)
    expected = ask(teacher, splits.tables["train"]["text"][:])[:, [1, 2, 0]].softmax(dim=1).numpy()
    assert expected.std(axis=0).max() > 1e-3
    assert abs(found - expected).max() < 0.02
    assert fitted.log.losses[-1] < 0.1 * fitted.log.losses[0]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_what_is_left_is_the_layers_that_were_named_and_saves_as_a_plain_model(family, tmp_path):
    folder = make_encoder(family, tmp_path / "five", layers=5)
    recipe = make_recipe(folder, "nowhere", keep_layers=[1, 4])
    plain = load_encoder(recipe.encoder, SPACE, seed=0).model
    student = STRATEGIES["distill"].adapt(load_encoder(recipe.encoder, SPACE, seed=0), recipe.strategy).model
    assert student.config.num_hidden_layers == 2
    before, after = plain.state_dict(), student.state_dict()
    assert 0 < len(after) < len(before)
    for name, value in after.items():
        old = ".".join("3" if part == "1" and "layer" in name else part for part in name.split("."))
        assert torch.equal(value, before[old if old in before and ".1." in name else name]), name
    student.eval().save_pretrained(tmp_path / "two")
    again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    inputs = AutoTokenizer.from_pretrained(folder)(make_texts(4), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(again.eval()(**inputs).logits, student(**inputs).logits)


def test_layers_are_spread_evenly_and_more_than_there_are_is_refused(tiny_encoder):
    assert choose_layers(6, 12) == [0, 2, 4, 7, 9, 11]
    assert choose_layers(2, 2) == [0, 1]
    for family, wanted, words in (
        ("bert", 3, "expected at most 2"),
        ("bert", [1, 3], "expected at most 2"),
        ("albert", 1, "share their weights"),
        ("modernbert", [2], "must stay"),
    ):
        recipe = make_recipe(tiny_encoder(family), "nowhere", keep_layers=wanted)
        with pytest.raises(RecipeError, match=words):
            STRATEGIES["distill"].adapt(load_encoder(recipe.encoder, SPACE, seed=0), recipe.strategy)
    for wanted in ([2, 1], [1, 1]):
        with pytest.raises(RecipeError, match="keep_layers: expected each layer once"):
            make_recipe("minilm-l6", "nowhere", keep_layers=wanted)


def test_a_teacher_of_another_kind_is_refused(tiny_encoder):
    encoder, teacher = tiny_encoder("bert"), tiny_encoder("bert", "classifier")
    for splits, other, words in (
        (make_splits(16, 3), "nowhere/to/be", "strategy.teacher: nowhere/to/be: no such folder"),
        (make_splits(16, 3), encoder, "strategy.teacher: .*is not a classifier"),
        (make_splits(16, 2), teacher, "expected the labels of the data, class 0, class 1; .* has class 2, class 0"),
        (make_splits(16, 3, kind="multi_label"), teacher, "one for task.kind multi_label, came one for classification"),
    ):
        with pytest.raises(RecipeError, match=words):
            lay_out(make_recipe(encoder, other, splits.labels.kind), splits)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind == "ordinal" else []) for kind in METRICS]
)
def test_every_kind_of_task_is_taught_from_run_to_run(kind, tiny_encoder, tmp_path):
    tables = dict(make_splits(24, 3, kind=kind).tables)
    settings = {"max_steps": 2, "batch_size": 8, "device": "cpu", "learning_rate": 1e-2}
    base = {
        "encoder": {"name": str(tiny_encoder("bert", "masked_lm"))},
        "training": settings,
        "evaluation": {"resamples": 100, "tfidf": False},
        "data": {"max_length": 48},
    }
    if kind == "multi_label":
        names = ["class 0", "class 1", "class 2"]
        tables = {
            split: Dataset.from_dict(
                {
                    "text": table["text"][:],
                    "label": [[n for n, on in zip(names, row, strict=True) if on] for row in table["label"]],
                }
            )
            for split, table in tables.items()
        }
    base["task"] = {"kind": kind, **({"labels": ["class 0", "class 1", "class 2"]} if kind == "ordinal" else {})}
    # An adapter teaches as well as a plain model.
    first = {**base, "strategy": {"kind": "lora" if kind == "ordinal" else "full"}}
    run(first, data=tables, output_dir=tmp_path / "teacher", progress=False)
    second = {**base, "strategy": {"kind": "distill", "teacher": str(tmp_path / "teacher"), "keep_layers": 1}}
    report = run(second, data=tables, output_dir=tmp_path / "student", progress=False)
    assert report.record["training"]["steps"] == 2
    assert report.record["model"]["loader"] == "transformers"
    model = AutoModelForSequenceClassification.from_pretrained(report.model_path)
    assert model.config.num_hidden_layers == 1
