"""Dotted overrides: how their values are read, where they go, what they take along, and what is refused."""

import copy
from pathlib import Path

import pytest

from nlp_transfer.recipe.overrides import apply_changes, describe_dropped, read_changes

READ = [
    ("training.epochs=2", ("training", "epochs"), 2),
    ("training.learning_rate = 2e-5", ("training", "learning_rate"), 2e-5),
    ("training.seeds=[0, 1,2]", ("training", "seeds"), [0, 1, 2]),
    ("training.restore_best=false", ("training", "restore_best"), False),
    ("training.restore_best=no", ("training", "restore_best"), "no"),
    ("training.max_grad_norm=null", ("training", "max_grad_norm"), None),
    ('training.epochs="2"', ("training", "epochs"), "2"),
    ("training.class_weights=balanced", ("training", "class_weights"), "balanced"),
    ("training.class_weights={0: 1, 1: 2.5}", ("training", "class_weights"), {"0": 1, "1": 2.5}),
    ("training.class_weights.v1.0=2", ("training", "class_weights", "v1.0"), 2),
    ("data.text=2024", ("data", "text"), "2024"),
    ("data.text=no", ("data", "text"), "no"),
    ("data.text=null", ("data", "text"), None),
    ("data.text=", ("data", "text"), None),
    ('data.text="null"', ("data", "text"), "null"),
    ("data.path=a=b.csv", ("data", "path"), "a=b.csv"),
    ("data.path=[x].csv", ("data", "path"), "[x].csv"),
    ("data.label=[1, 2]", ("data", "label"), ["1", "2"]),
    ("data.splits.validation=dev", ("data", "splits", "validation"), "dev"),
    ("data.splits={train: 1}", ("data", "splits"), {"train": 1}),
    ("task.labels=[no, 1.0]", ("task", "labels"), ["no", "1.0"]),
    ('report.title=2024: "so"', ("report", "title"), '2024: "so"'),
    ("description=5", ("description",), "5"),
    ("trainin.epochs=2", ("trainin", "epochs"), 2),
    ("strategy.rank=4", ("strategy", "rank"), 4),
    ("methods.r_drop.alpha=2e-1", ("methods", "r_drop", "alpha"), 0.2),
    ("methods.self_training.targets=soft", ("methods", "self_training", "targets"), "soft"),
]

REFUSED = [
    ("training.epochs", 'override "training.epochs": expected key=value, such as training.epochs=2.'),
    ("=3", 'override "=3": expected key=value, such as training.epochs=2.'),
    ("training..x=3", 'override "training..x=3": expected key=value, such as training.epochs=2.'),
    (
        "training=5",
        "training: expected a key, got a section. Name one of its keys, such as training.epochs=VALUE.",
    ),
    (
        "strategy=lora",
        "strategy: expected a key, got a section. Name one of its keys, such as strategy.kind=lora.",
    ),
    ("training.epochs.x=2", "training.epochs.x: training.epochs has no keys. Write training.epochs=... instead."),
    ("description.x=2", "description.x: description has no keys. Write description=... instead."),
    ("methods.rdrop.alpha=1", "methods.rdrop.alpha: there is no method 'rdrop'. Did you mean \"r_drop\"?"),
    (
        "methods.r_drop=1",
        "methods.r_drop: expected a key, got a method. Name one of its keys, such as methods.r_drop.alpha=VALUE.",
    ),
    ("training.seeds=[0,1", "training.seeds: line 1, column 5: expected ',' or ']', but got '<stream end>'."),
]


@pytest.mark.parametrize(("text", "path", "value"), READ, ids=[text for text, _, _ in READ])
def test_an_override_is_read_as_its_key_takes_it(text, path, value):
    changes, problems = read_changes([text])
    assert problems == []
    assert changes == [(path, value)]
    assert type(changes[0][1]) is type(value)


@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=[text for text, _ in REFUSED])
def test_a_bad_override_is_refused_and_changes_nothing(text, sentence):
    assert read_changes([text]) == ([], [sentence])


def test_a_mapping_of_dotted_keys_keeps_its_values():
    changes, problems = read_changes({"data.path": Path("a.csv"), "training.seeds": (0, 1), "training": {"epochs": 2}})
    assert problems == []
    assert changes == [(("data", "path"), "a.csv"), (("training", "seeds"), [0, 1]), (("training", "epochs"), 2)]


def test_a_mapping_with_a_bad_key_is_refused():
    assert read_changes({"training.": 3}) == (
        [],
        ['override "training.": expected a dotted key, such as training.epochs.'],
    )


def test_a_section_takes_a_mapping():
    assert read_changes(["training={epochs: 4, seed: 3}"]) == (
        [(("training", "epochs"), 4), (("training", "seed"), 3)],
        [],
    )


def test_one_text_is_one_override():
    assert read_changes("training.epochs=2") == ([(("training", "epochs"), 2)], [])


def apply(base, *texts):
    changes, problems = read_changes(texts)
    assert problems == []
    before = copy.deepcopy(base)
    result = apply_changes(base, changes)
    assert base == before, "the input was changed"
    return result


BOUND = {
    "name": "mrpc",
    "revision": "main",
    "text": "a",
    "text_b": "b",
    "label": "c",
    "id": "d",
    "splits": {"test": "validation"},
}


def test_another_data_path_drops_exactly_what_belongs_to_the_old_source():
    base = {"data": {"path": "nyu-mll/glue", "max_length": 64, "invalid": "drop", **BOUND}}
    assert apply(base, "data.path=pairs.csv") == {"data": {"path": "pairs.csv", "max_length": 64, "invalid": "drop"}}
    assert len(BOUND) == 7


def test_source_keys_that_are_overridden_too_hold_in_any_order():
    base = {"data": {"path": "x", **BOUND}}
    wanted = {"data": {"path": "y", "text": "body"}}
    assert apply(base, "data.text=body", "data.path=y") == wanted
    assert apply(base, "data.path=y", "data.text=body") == wanted


def test_the_same_data_path_drops_nothing():
    base = {"data": {"path": "x", **BOUND}}
    assert apply(base, "data.path=x") == base


def test_another_strategy_drops_the_old_ones_keys_and_rates():
    base = {
        "strategy": {"kind": "lora", "rank": 8, "typo": 1},
        "training": {"learning_rate": 5e-4, "head_learning_rate": 1e-3, "epochs": 2},
    }
    assert apply(base, "strategy.kind=full") == {"strategy": {"kind": "full", "typo": 1}, "training": {"epochs": 2}}
    changed = apply(base, "strategy.kind=full", "training.learning_rate=1e-5", "strategy.rank=2")
    assert changed["training"] == {"learning_rate": 1e-5, "epochs": 2}
    assert changed["strategy"]["rank"] == 2, "an overridden key stays, to be reported"


def test_the_same_strategy_drops_nothing():
    base = {"strategy": {"kind": "lora", "rank": 4}, "training": {"learning_rate": 5e-4}}
    assert apply(base, "strategy.kind=lora") == base


def test_another_task_and_another_encoder_drop_what_was_bound_to_them():
    base = {
        "encoder": {"name": "a", "revision": "r"},
        "training": {"select_by": "accuracy", "seed": 1},
        "evaluation": {"metrics": ["accuracy"], "tfidf": False},
    }
    assert apply(base, "task.kind=regression", "encoder.name=b") == {
        "task": {"kind": "regression"},
        "encoder": {"name": "b"},
        "training": {"seed": 1},
        "evaluation": {"tfidf": False},
    }


def describe(base, *texts):
    return describe_dropped(base, read_changes(texts)[0])


def test_a_note_names_every_key_that_went_with_its_value():
    base = {"data": {"path": "x", "max_length": 64, **BOUND}}
    (note,) = describe(base, "data.path=y")
    went = set(base["data"]) - set(apply(base, "data.path=y")["data"])
    assert went == set(BOUND)
    assert note == (
        "data.path=y: dropped data.name=mrpc, data.revision=main, data.text=a, data.text_b=b, data.label=c, data.id=d, "
        'data.splits={"test": "validation"} of the recipe, which were written for other data; '
        "name them again to keep them."
    )


def test_a_note_leaves_out_what_is_named_again_and_what_was_the_default():
    base = {"data": {"path": "x", "text": "a", "label": ["b", "c"], "name": None}}
    assert describe(base, "data.path=y", "data.text=body") == [
        'data.path=y: dropped data.label=["b", "c"] of the recipe, which was written for other data; '
        "name it again to keep it."
    ]
    assert describe(base, "data.path=y", "data={text: a, label: d}") == []
    assert describe(base, "data.path=x", "training.epochs=2") == []
    assert describe({"strategy": {"kind": "lora"}, "training": {"learning_rate": 1e-3}}, "strategy.kind=full") == []


def test_every_override_that_takes_something_along_has_its_note():
    base = {
        "encoder": {"name": "a", "revision": "r"},
        "strategy": {"kind": "lora", "rank": 4},
        "training": {"learning_rate": 3e-3, "head_learning_rate": 2e-3, "select_by": "mcc"},
        "evaluation": {"metrics": ["mcc"]},
    }
    notes = describe(base, "task.kind=ordinal", "strategy.kind=full", "encoder.name=b")
    assert [note.split(" of the recipe, which ")[0] for note in notes] == [
        "encoder.name=b: dropped encoder.revision=r",
        "strategy.kind=full: dropped training.learning_rate=0.003, training.head_learning_rate=0.002",
        'task.kind=ordinal: dropped evaluation.metrics=["mcc"], training.select_by=mcc',
    ]
    assert [note.split("written for ")[1].split(";")[0] for note in notes] == [
        "another encoder",
        "another strategy",
        "another task",
    ]


def test_another_variant_takes_the_rates_along_unless_the_whole_strategy_goes():
    base = {"strategy": {"kind": "lora"}, "training": {"learning_rate": 3e-3}}
    (note,) = describe(base, "strategy.variant=ia3")
    assert note.startswith(
        "strategy.variant=ia3: dropped training.learning_rate=0.003 of the recipe, which was written"
    )
    assert "for another variant" in note
    assert apply(base, "strategy.variant=ia3") == {"strategy": {"kind": "lora", "variant": "ia3"}, "training": {}}
    assert describe(base, "strategy.variant=lora") == []
    assert apply(base, "strategy.variant=lora")["training"] == {"learning_rate": 3e-3}
    notes = describe(base, "strategy.kind=adapters", "strategy.variant=houlsby")
    assert [note.partition(":")[0] for note in notes] == ["strategy.kind=adapters"]


def test_a_recipe_that_is_wrong_itself_has_its_note_all_the_same():
    assert describe({"strategy": {"kind": "lorra"}, "training": {"learning_rate": 1e-3}}, "strategy.kind=full") != []
    assert describe({"data": 5, "strategy": "lora"}, "strategy.kind=full", "data.path=y") == []


def test_names_below_a_key_are_added_to_the_mapping_there():
    base = {"training": {"class_weights": {"a": 1.0}}}
    assert apply(base, "training.class_weights.b=2") == {"training": {"class_weights": {"a": 1.0, "b": 2}}}
    assert apply({"training": {"class_weights": "balanced"}}, "training.class_weights.b=2") == {
        "training": {"class_weights": {"b": 2}}
    }


def test_a_section_that_is_no_mapping_is_left_to_be_reported():
    assert apply({"training": 5}, "training.epochs=2") == {"training": 5}


def test_the_last_of_two_overrides_holds():
    assert apply({}, "training.epochs=2", "training.epochs=3") == {"training": {"epochs": 3}}


@pytest.mark.parametrize("held", [["r_drop"], [{"kind": "r_drop"}], [{"kind": "r_drop", "alpha": 3.0}]])
def test_a_key_of_a_method_is_set_where_the_method_stands(held):
    base = {"methods": [{"kind": "self_training", "rounds": 2}, *held]}
    wanted = [{"kind": "self_training", "rounds": 2}, {"kind": "r_drop", "alpha": 0.5}]
    assert apply(base, "methods.r_drop.alpha=0.5") == {"methods": wanted}


def test_a_key_of_a_method_that_the_recipe_lacks_adds_the_method():
    wanted = {"methods": [{"kind": "r_drop", "alpha": 0.5}]}
    assert apply({}, "methods.r_drop.alpha=0.5") == wanted
    assert apply({"methods": []}, "methods.r_drop={alpha: 0.5}") == wanted
    assert apply({}, "methods=[r_drop]", "methods.r_drop.alpha=0.5") == wanted
