"""What is derived from the schema's models."""

from pydantic import BaseModel

from nlp_transfer.recipe.fields import (
    describe_type,
    get_annotation,
    get_default,
    list_keys,
    list_kinds,
    list_sections,
    suggest_key,
)
from nlp_transfer.recipe.schema import Recipe


def test_sections_are_all_fields_of_the_recipe_that_hold_keys():
    plain = {"description", "methods"}
    assert list_sections() == [name for name in Recipe.model_fields if name not in plain]
    assert len(list_sections()) == 7


def test_keys_of_every_section_equal_those_of_its_model():
    compared = 0
    for section in list_sections():
        model = type(getattr(Recipe(), section))
        assert issubclass(model, BaseModel)
        kind = getattr(getattr(Recipe(), section), "kind", None) if list_kinds(section) else None
        assert list_keys(section, kind) == list(model.model_fields)
        compared += 1
    assert compared == len(list_sections())
    assert list_keys("strategy", "lora") != list_keys("strategy", "full")
    assert set(list_keys("strategy", "unknown")) >= set(list_keys("strategy", "lora"))


def test_every_key_has_an_annotation_that_can_be_described():
    described = 0
    for section in list_sections():
        for key in list_keys(section):
            text = describe_type(get_annotation(section, key))
            assert text, (section, key)
            assert "a value" not in text, (section, key)
            described += 1
    assert described > 60
    assert get_annotation("training", "nonsense") is None
    assert get_annotation("nonsense", "epochs") is None


def test_defaults_come_from_the_schema():
    assert get_default("training", "epochs") == Recipe().training.epochs
    assert get_default("training", "nonsense") is None


def test_suggestions_name_the_right_place():
    assert suggest_key("training", "learning_rat") == ' Did you mean "learning_rate"?'
    assert suggest_key("data", "learning_rate") == ' It belongs in "training".'
    assert suggest_key("", "epochs") == ' It belongs in "training".'
    assert suggest_key("", "trainin") == ' Did you mean "training"?'
    assert suggest_key("strategy", "rank", "full") == ' It belongs to kind "lora".'
    assert suggest_key("report", "training").startswith(" It is a section of its own")
    assert suggest_key("task", "batch_size") == ' It belongs in "training" or "evaluation".'
    assert suggest_key("task", "learning_rat") == ' Did you mean "training.learning_rate"?'
    assert suggest_key("task", "zzz") == " Known here: kind, labels."
