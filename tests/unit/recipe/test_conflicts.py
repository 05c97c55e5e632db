"""Values that are right alone and wrong together."""

import copy

import pytest

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.conflicts import find_conflicts
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import METRICS, Recipe

CASES = [
    ({"task": {"labels": ["a"]}}, "task.labels: expected at least two names"),
    (
        {"task": {"kind": "ordinal", "labels": []}},
        "task.labels: expected at least two names for task.kind ordinal, got 0",
    ),
    ({"task": {"labels": ["a", "b", "a"]}}, 'task.labels: "a" is listed more than once'),
    ({"task": {"labels": ["a", " "]}}, "task.labels: expected names, got an empty text"),
    ({"task": {"kind": "regression", "labels": ["a", "b"]}}, "task.labels: expected one name"),
    ({"task": {"kind": "multi_label", "labels": []}}, "task.labels: expected names for task.kind multi_label"),
    (
        {"encoder": {"init": "random"}, "strategy": {"kind": "frozen"}},
        'encoder.init: strategy.kind "frozen" freezes weights',
    ),
    ({"encoder": {"init": "random"}, "strategy": {"kind": "lora"}}, "Use strategy.kind=full"),
    ({"data": {"label": ["a", "b"]}}, "data.label: a list of columns needs task.kind multi_label"),
    ({"data": {"label": []}, "task": {"kind": "multi_label"}}, "data.label: expected at least one column"),
    ({"data": {"label": ["a", "a"]}, "task": {"kind": "multi_label"}}, 'data.label: "a" is listed more than once'),
    ({"data": {"text": "a", "text_b": "a"}}, 'data.text_b: expected another column than data.text, got "a"'),
    ({"data": {"text": "a", "label": "a"}}, "data.label: expected another column than data.text"),
    ({"data": {"text_b": "a", "label": "a"}}, "data.label: expected another column than data.text_b"),
    ({"data": {"splits": {"train": "x", "test": "x"}}}, 'data.splits: "x" is named for more than one split'),
    ({"data": {"validation_share": 0.5, "test_share": 0.5}}, "data.test_share: expected a sum below 1"),
    ({"data": {"shots": 8}, "task": {"kind": "regression"}}, "data.shots: rows of every class cannot be drawn"),
    ({"data": {"shots": 8}, "task": {"kind": "multi_label"}}, "Use data.limit instead"),
    ({"data": {"long_text": "windows", "max_length": 8}}, "data.max_length: expected at least 16"),
    ({"data": {"long_text": "head_tail", "max_length": 15}}, "got 15"),
    ({"strategy": {"kind": "lora", "targets": []}}, "strategy.targets: expected names of layers"),
    ({"strategy": {"kind": "lora", "variant": "vera", "rank_stabilized": True}}, "strategy.rank_stabilized: does not"),
    ({"strategy": {"kind": "lora", "variant": "adalora", "init": "pissa"}}, "strategy.init: does not apply"),
    ({"strategy": {"kind": "lora", "rank_stabilized": True, "init": "pissa"}}, "strategy.init: pissa does not go with"),
    ({"strategy": {"kind": "lora", "variant": "dora", "init": "pissa"}}, "strategy.variant dora"),
    ({"strategy": {"kind": "lora", "variant": "vera", "rate_ratio": 4.0}}, "strategy.rate_ratio: does not apply"),
    ({"strategy": {"kind": "lora", "variant": "ia3", "rank": 4}}, "strategy.rank: does not apply"),
    ({"strategy": {"kind": "lora", "variant": "oft", "alpha": 8}}, "strategy.alpha: does not apply"),
    ({"strategy": {"kind": "lora", "variant": "loha", "dropout": 0.2}}, "strategy.dropout: does not apply"),
    ({"strategy": {"kind": "lora", "variant": "miss", "rank_stabilized": True}}, "strategy.rank_stabilized: does not"),
    ({"strategy": {"kind": "lora", "frequencies": 10}}, "strategy.frequencies: does not apply"),
    ({"strategy": {"kind": "prompts", "variant": "p_tuning", "init": "random"}}, "strategy.init: does not apply"),
    ({"strategy": {"kind": "prompts", "project": True}}, "strategy.project: does not apply"),
    (
        {"strategy": {"kind": "prompts", "variant": "prefix"}, "training": {"gradient_checkpointing": True}},
        "training.gradient_checkpointing: does not go with strategy.variant prefix",
    ),
    ({"encoder": {"init": "random"}, "strategy": {"kind": "adapters"}}, "Use strategy.kind=full"),
    ({"encoder": {"init": "random"}, "strategy": {"kind": "prompts"}}, "Use strategy.kind=full"),
    (
        {"encoder": {"init": "random"}, "strategy": {"kind": "layerwise"}},
        'encoder.init: strategy.kind "layerwise" freezes weights',
    ),
    ({"encoder": {"init": "random"}, "strategy": {"kind": "full", "l2_sp": 0.1}}, "strategy.l2_sp: would keep weights"),
    (
        {"encoder": {"init": "random"}, "strategy": {"kind": "full", "mixout": 0.1}},
        "strategy.mixout: would keep weights",
    ),
    (
        {"encoder": {"init": "random"}, "strategy": {"kind": "full", "head_init": "probe"}},
        "strategy.head_init: a probe learns nothing from encoder.init random",
    ),
    (
        {"task": {"kind": "regression"}, "training": {"label_smoothing": 0.1}},
        "training.label_smoothing: does not apply",
    ),
    ({"task": {"kind": "regression"}, "training": {"focal_gamma": 2.0}}, "training.focal_gamma: does not apply"),
    ({"training": {"focal_gamma": 2.0, "label_smoothing": 0.1}}, "does not go with training.label_smoothing"),
    (
        {"task": {"kind": "regression"}, "training": {"class_weights": "balanced"}},
        "does not apply to task.kind regression",
    ),
    (
        {"task": {"kind": "multi_label"}, "training": {"class_weights": {"a": 1.0}}},
        "does not apply to task.kind multi_label",
    ),
    ({"training": {"class_weights": {}}}, "training.class_weights: expected a weight for every class"),
    ({"training": {"class_weights": {"a": 0.0}}}, "training.class_weights.a: expected a number above 0"),
    (
        {"task": {"labels": ["good", "bad"]}, "training": {"class_weights": {"good": 1.0, "bad": 1.0, "godo": 1.0}}},
        'training.class_weights.godo: no name of task.labels. Did you mean "good"?',
    ),
    (
        {"task": {"labels": ["good", "bad"]}, "training": {"class_weights": {"good": 1.0}}},
        'training.class_weights: expected every name of task.labels, "bad" missing',
    ),
    ({"training": {"batch_size": 8, "microbatch_size": 9}}, "training.microbatch_size: expected at most"),
    ({"training": {"precision": "fp16", "device": "cpu"}}, "training.precision: fp16 does not train"),
    ({"training": {"seeds": [0, 1, 0]}}, 'training.seeds: "0" is listed more than once'),
    ({"training": {"trackers": ["wandb", "wandb"]}}, 'training.trackers: "wandb" is listed more than once'),
    (
        {"training": {"select_by": "acuracy"}},
        'training.select_by: "acuracy" is not a metric of task.kind classification. Did',
    ),
    ({"training": {"select_by": "f1_per_class"}}, "has one value per class and cannot select"),
    ({"training": {"select_by": "mae"}}, "training.select_by"),
    (
        {"evaluation": {"metrics": ["accurcy"]}},
        'evaluation.metrics: "accurcy" is not a metric of task.kind classification. Did',
    ),
    ({"evaluation": {"metrics": ["mse"]}}, 'evaluation.metrics: "mse" is not a metric of task.kind classification.'),
    ({"evaluation": {"metrics": ["mcc", "mcc"]}}, 'evaluation.metrics: "mcc" is listed more than once'),
]


@pytest.mark.parametrize(("data", "part"), CASES, ids=[part[:40] for _, part in CASES])
def test_a_conflict_gives_exactly_one_sentence(data, part):
    problems = find_conflicts(Recipe.model_validate(data))
    assert len(problems) == 1
    assert part in problems[0]
    assert problems[0].endswith((".", "?"))


def test_every_metric_may_be_reported_and_every_single_figure_may_select():
    tried = 0
    for kind, metrics in METRICS.items():
        for metric in metrics:
            selects = "_per_class" not in metric
            data = {"task": {"kind": kind}, "evaluation": {"metrics": [metric]}}
            assert find_conflicts(Recipe.model_validate(data)) == []
            data["training"] = {"select_by": metric}
            assert len(find_conflicts(Recipe.model_validate(data))) == (0 if selects else 1)
            tried += 1
    assert tried == sum(len(metrics) for metrics in METRICS.values()) > 40


SOUND = [
    {},
    {"task": {"kind": "regression", "labels": ["score"]}},
    {"task": {"kind": "multi_label", "labels": ["toxic"]}, "data": {"label": ["a", "b"]}},
    {"encoder": {"init": "random"}, "strategy": {"kind": "full"}},
    {"data": {"long_text": "windows", "max_length": 16, "shots": 8}},
    {"task": {"labels": ["a", "b"]}, "training": {"class_weights": {"a": 1.0, "b": 2.0}}},
    {"training": {"batch_size": 8, "microbatch_size": 8, "precision": "bf16", "device": "cpu", "focal_gamma": 2.0}},
]


def test_sound_recipes_have_no_conflicts():
    assert [find_conflicts(Recipe.model_validate(data)) for data in SOUND] == [[]] * 7


def find_problems(data):
    with pytest.raises(RecipeError) as caught:
        load_recipe(data)
    return list(caught.value.problems)


@pytest.mark.parametrize(("data", "part"), CASES, ids=[part[:40] for _, part in CASES])
def test_a_conflict_is_told_beside_a_mistake_that_has_nothing_to_do_with_it(data, part):
    spoiled = copy.deepcopy(data) | {"colour": "blue"}
    spoiled["report"] = {"title": 5}
    mistakes = [problem for problem in find_problems(spoiled) if part not in problem]
    assert len(mistakes) == 2
    assert len(find_problems(spoiled)) == 3


# With the default in place of what is wrong, each of these would contradict itself.
MISTAKES = [
    {"training": {"batch_size": "128", "microbatch_size": 64}},
    {"training": {"batch_sise": 128, "microbatch_size": 64}},
    {"batch_size": 128, "training": {"microbatch_size": 64}},
    {"data": {"validation_share": "0.01", "test_share": 0.95}},
    {"task": {"kind": "multilabel"}, "data": {"label": ["a", "b"]}},
    {"task": {"kind": 5, "labels": ["score"]}},
    {"task": 5, "training": {"select_by": "mae"}},
    {"taks": {"kind": "regression"}, "evaluation": {"metrics": ["mse"]}},
]


@pytest.mark.parametrize("data", MISTAKES, ids=[next(iter(data)) for data in MISTAKES])
def test_a_conflict_with_a_value_that_is_not_known_is_not_told(data):
    assert len(find_problems(data)) == 1


def test_a_conflict_that_stands_whatever_is_not_known_is_told():
    problems = find_problems({"data": {"label": ["a", "a"]}, "task": {"kind": "multilabel"}})
    assert [problem.split(":")[0] for problem in problems] == ["task.kind", "data.label"]
