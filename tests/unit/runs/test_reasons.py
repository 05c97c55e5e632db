from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nlp_transfer.contracts import RunLog
from nlp_transfer.recipe.schema import EncoderConfig, Recipe
from nlp_transfer.runs.chain import Link
from nlp_transfer.runs.reasons import FEWEST_ROWS, find_reasons, measure_fragmentation
from tests.tiny import build_tokenizer, make_splits


class Words:
    """A tokenizer that cuts every word into its letters; it does not know the letter z."""

    unk_token_id = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [0 if letter == "z" else ord(letter) for letter in text if letter != " "]}


def test_fragmentation_by_hand() -> None:
    assert measure_fragmentation(["ab cd", "abcz"], Words()) == (8 / 3, 1 / 8)  # type: ignore[arg-type]
    assert measure_fragmentation([], Words()) == (0.0, 0.0)  # type: ignore[arg-type]


def find(
    recipe: Recipe | None = None, *, tokenizer: Any = None, log: RunLog | None = None, links: Any = (), **facts: Any
) -> list[str]:
    splits = make_splits(300)
    for name, value in {"rows": {"train": 300}, **facts}.items():
        setattr(splits.facts, name, value)
    space: Any = SimpleNamespace(splits=splits, tokenizer=tokenizer or build_tokenizer("bert"))
    results: Any = [SimpleNamespace(seed=3, log=log or RunLog(losses=[1.0] * 10 + [0.2] * 90))]
    return find_reasons(recipe or Recipe(), space, results, links, beside_control=False)


def test_a_run_without_a_fact_that_stands_out_has_no_reason() -> None:
    assert find() == []


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ({"tokenizer": Words()}, "pieces on average"),
        ({"log": RunLog(losses=[0.7] * 20)}, "seed 3 hardly fell"),
        ({"log": RunLog(collapsed=True)}, "Seed 3 collapsed"),
        ({"rows": {"train": FEWEST_ROWS - 1}}, f"Train has {FEWEST_ROWS - 1} rows"),
        ({"conflicting": 100}, "100 train rows"),
        ({"truncated": {"train": 200}}, "raise data.max_length"),
    ],
)
def test_each_fact_is_named(case, word) -> None:
    found = find(**case)
    assert len(found) == 1
    assert word in found[0]


def test_a_harmful_link_is_named_first_with_what_it_was_trained_on() -> None:
    facts = {"data": {"path": "sst2", "permute_labels": True}, "training": {"epochs": 8.0, "learning_rate": 1e-3}}
    link = Link("runs/first", EncoderConfig(), facts)
    frozen = Recipe.model_validate({"strategy": {"kind": "frozen"}})
    first, second = find(frozen, links=[link])
    assert "trained on sst2 for 8 epochs at a rate of 0.001, with permuted labels" in first
    assert "strategy.kind frozen" in second
    assert "permuted" not in find(links=[replace(link, facts={})])[0]


def test_a_transfer_whose_rate_was_not_tuned_is_told() -> None:
    splits = make_splits(300)
    splits.facts.rows = {"train": 300}
    space: Any = SimpleNamespace(splits=splits, tokenizer=build_tokenizer("bert"))
    results: Any = [SimpleNamespace(seed=0, log=RunLog(losses=[1.0] * 10 + [0.2] * 90))]
    assert "try other rates" in find_reasons(Recipe(), space, results, [], beside_control=True)[0]
