"""Every kind of mistake in a recipe has its sentence: where, what was expected, what came, what to do."""

import pytest
from pydantic import ValidationError

from nlp_transfer.recipe.methods.table import METHODS
from nlp_transfer.recipe.mistakes import describe_value, explain_errors
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS, Recipe

KINDS = ", ".join(f'"{kind}"' for kind in STRATEGY_CONFIGS)
METHOD_KINDS = ", ".join(f'"{kind}"' for kind in METHODS)

CASES = [
    ({"training": {"learning_rat": 1}}, 'training.learning_rat: unknown key. Did you mean "learning_rate"?'),
    ({"data": {"epochs": 1}}, 'data.epochs: unknown key. It belongs in "training".'),
    ({"epochs": 1}, 'epochs: unknown key. It belongs in "training".'),
    ({"trainin": {}}, 'trainin: unknown key. Did you mean "training"?'),
    (
        {"strategy": {"kind": "full", "rank": 1}},
        'strategy.rank: unknown key for kind "full". It belongs to kind "lora".',
    ),
    ({"strategy": {"kind": "lora", "rnk": 1}}, 'strategy.rnk: unknown key for kind "lora". Did you mean "rank"?'),
    ({"strategy": {"rank": 4}}, f"strategy.kind: missing. Choose one of {KINDS}."),
    (
        {"strategy": {"kind": "lra"}},
        f'strategy.kind: expected one of {KINDS}, got the text "lra". Did you mean "lora"?',
    ),
    (
        {"strategy": {"kind": "distill"}},
        "strategy.teacher: missing. Give it a value, such as strategy.teacher=VALUE.",
    ),
    ({"strategy": {"kind": [1]}}, f"strategy.kind: expected one of {KINDS}, got a list."),
    ({"strategy": "lora"}, 'strategy: expected keys, got the text "lora". Write strategy.kind: lora instead.'),
    ({"task": 5}, "task: expected a section with keys, got the number 5. Give it keys such as kind."),
    (
        {"report": None},
        "report: expected a section with keys, got nothing. Remove the line, or give it keys such as output_dir.",
    ),
    ({"training": {"epochs": "two"}}, 'training.epochs: expected a number, got the text "two".'),
    (
        {"training": {"learning_rate": "2e-5"}},
        'training.learning_rate: expected a number, got the text "2e-5". Remove the quotes.',
    ),
    ({"training": {"epochs": True}}, "training.epochs: expected a number, got true."),
    (
        {"training": {"batch_size": 32.0}},
        "training.batch_size: expected a whole number, got the number 32.0. Write 32.",
    ),
    ({"training": {"batch_size": 0}}, "training.batch_size: expected a number above 0, got the number 0."),
    ({"training": {"seed": -1}}, "training.seed: expected a number of at least 0, got the number -1."),
    ({"training": {"warmup_share": 1.0}}, "training.warmup_share: expected a number below 1, got the number 1.0."),
    ({"training": {"seed": 2**32}}, "training.seed: expected a number below 4294967296, got the number 4294967296."),
    (
        {"training": {"learning_rate": float("inf")}},
        "training.learning_rate: expected a finite number, got the number inf.",
    ),
    ({"training": {"seeds": []}}, "training.seeds: expected at least 1 item, got an empty list."),
    ({"training": {"seeds": [0, "a"]}}, 'training.seeds[1]: expected a whole number, got the text "a".'),
    ({"training": {"seeds": 3}}, "training.seeds: expected a list of whole numbers, got the number 3."),
    (
        {"training": {"restore_best": "no"}},
        'training.restore_best: expected true or false, got the text "no". Write false.',
    ),
    (
        {"training": {"precision": "fp8"}},
        'training.precision: expected one of "auto", "fp32", "bf16", "fp16", got the text "fp8".',
    ),
    (
        {"training": {"class_weights": "balancd"}},
        'training.class_weights: expected "balanced" or a mapping, got the text "balancd". Did you mean "balanced"?',
    ),
    ({"training": {"class_weights": {"a": "x"}}}, 'training.class_weights.a: expected a number, got the text "x".'),
    (
        {"training": {"class_weights": {1: 2.0}}},
        "training.class_weights[1]: expected a key that is text, got the number 1. Put it in quotes.",
    ),
    (
        {"training": {"trackers": ["wandbb"]}},
        'training.trackers[0]: expected one of "tensorboard", "trackio", "wandb", "mlflow", got the text "wandbb". '
        'Did you mean "wandb"?',
    ),
    ({"data": {"label": 5}}, 'data.label: expected text or a list of texts, got the number 5. Put it in quotes: "5".'),
    ({"data": {"label": ["a", 3]}}, 'data.label[1]: expected text, got the number 3. Put it in quotes: "3".'),
    (
        {"data": {"splits": {"dev": "x"}}},
        'data.splits.dev: unknown key, expected "train", "validation" or "test".',
    ),
    ({"data": {"path": None}}, "data.path: expected text, got nothing. Remove the line to use the default."),
    ({"data": {"path": ""}}, "data.path: expected text, got an empty text."),
    (
        {"evaluation": {"metrics": "accuracy"}},
        'evaluation.metrics: expected a list of texts, got the text "accuracy". Write [accuracy].',
    ),
    ({"methods": [{"a": 1}]}, f"methods[0].kind: missing. Choose one of {METHOD_KINDS}."),
    ({"description": 5}, 'description: expected text, got the number 5. Put it in quotes: "5".'),
    ({1: 2}, "1: expected a key that is text, got the number 1. Put it in quotes."),
]


@pytest.mark.parametrize(("data", "sentence"), CASES, ids=[sentence.split(":")[0] for _, sentence in CASES])
def test_a_mistake_gives_exactly_one_sentence(data, sentence):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    assert explain_errors(caught.value, data) == [sentence]


METHOD_MISTAKES = [
    ({"methods": "r_drop"}, 'methods: expected a list of methods, got the text "r_drop". Write [{kind: r_drop}].'),
    ({"methods": [3]}, "methods[0]: expected a method, got the number 3. Write {kind: r_drop}."),
    (
        {"methods": [{"kind": "rdrop"}]},
        f'methods[0].kind: expected one of {METHOD_KINDS}, got the text "rdrop". Did you mean "r_drop"?',
    ),
    (
        {"methods": ["r_drop", {"kind": "self_training", "round": 2}], "data": {"unlabelled": "x.txt"}},
        'methods[1].round: unknown key for kind "self_training". Did you mean "rounds"?',
    ),
    (
        {"methods": [{"kind": "r_drop", "alpha": -1}]},
        "methods[0].alpha: expected a number of at least 0, got the number -1.",
    ),
    ({"methods": [{"kind": "r_drop", "alpha": "x"}]}, 'methods[0].alpha: expected a number, got the text "x".'),
]


@pytest.mark.parametrize(("data", "sentence"), METHOD_MISTAKES)
def test_a_mistake_in_a_method_gives_exactly_one_sentence(data, sentence):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    assert explain_errors(caught.value, data) == [sentence]


def test_all_mistakes_of_a_recipe_are_told_together_and_once():
    data: dict = {"training": {}, "data": {}}
    sentences = []
    for case, sentence in CASES:
        for section in ("training", "data"):
            held = case.get(section)
            if isinstance(held, dict) and not set(held) & set(data[section]):
                data[section].update(held)
                sentences.append(sentence)
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    assert sorted(explain_errors(caught.value, data)) == sorted(sentences)
    assert len(sentences) >= 14


def test_values_are_shown_short_and_on_one_line():
    assert len(describe_value("x" * 10_000)) < 100
    assert describe_value("two\nlines") == 'the text "two\\nlines"'
    assert describe_value(10**400) == "a number too large to handle"
    assert describe_value(object()) == "an object of type object"
    assert describe_value({}) == "a mapping"
