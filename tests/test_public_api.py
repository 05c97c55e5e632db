import inspect

import pytest

import nlp_transfer as nt

PUBLIC = (
    "Classifier",
    "Recipe",
    "Report",
    "TransferError",
    "advise",
    "audit",
    "compare",
    "load_recipe",
    "rank",
    "run",
    "tune",
)


def test_public_names_are_these_and_all_can_be_had():
    assert {name for name in nt.__all__ if not name.startswith("_")} == set(PUBLIC)
    assert set(PUBLIC) <= set(dir(nt))
    found = [getattr(nt, name) for name in PUBLIC]
    assert len(found) == len(PUBLIC)
    assert [value.__name__ for value in found] == list(PUBLIC)
    assert all(value.__module__.startswith("nlp_transfer.") for value in found)


def test_names_that_are_not_there_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        nt.runn  # noqa: B018


def test_public_functions_and_methods_are_documented_and_take_named_arguments():
    functions = [nt.advise, nt.audit, nt.compare, nt.load_recipe, nt.rank, nt.run, nt.tune]
    for owner in (nt.Classifier, nt.Report):
        members = inspect.getmembers(owner, callable)
        functions += [member for name, member in members if not name.startswith("_")]
    assert len(functions) >= 6
    for function in functions:
        assert (inspect.getdoc(function) or "").strip(), function
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, function


def test_every_public_error_is_a_transfer_error_with_an_exit_status():
    from nlp_transfer import errors

    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert len(kinds) >= 10
    assert all(issubclass(kind, nt.TransferError) and kind.exit_status in (1, 2) for kind in kinds)
    assert errors.StorageError.exit_status == 1


def test_classifier_offers_what_the_ecosystem_expects():
    for name in ("from_pretrained", "predict", "predict_proba", "labels"):
        assert hasattr(nt.Classifier, name)
