from collections import Counter

import numpy as np
import pandas as pd
import pytest

from nlp_transfer.data.balance import FORMS, mix_sets, plan_repeats, split_groups
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.terms import TermList, read_terms
from nlp_transfer.errors import DataError, RecipeError
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import DataConfig, TaskConfig


@pytest.fixture
def frames():
    """Three gay rows in four are bad, of all rows one in two."""
    train = [{"text": f"a gay one, number {n}", "label": "bad" if n % 4 else "good", "who": "g"} for n in range(12)]
    train += [{"text": f"something else {n}", "label": "good" if n % 4 else "bad", "who": None} for n in range(12)]
    held_out = [{"text": f"held out {n}", "label": ("bad", "good")[n % 2], "who": None} for n in range(6)]
    return {"train": pd.DataFrame(train), "validation": pd.DataFrame(held_out), "test": pd.DataFrame(held_out)}


def load(frames, **keys):
    return load_splits(DataConfig(**keys), TaskConfig(), seed=0, source=frames)


def test_shipped_terms_stand_in_one_set_and_find_themselves():
    terms = read_terms()
    assert len(terms.kinds) >= 90
    assert set(terms.kinds.values()) == {"gender", "religion", "ethnicity", "orientation", "disability", "age"}
    for term, members in terms.sets.items():
        assert term in members
        assert terms.find(f"so {term} it is") == [term]
        for other in members:
            assert terms.find(terms.replace(f"so {term} it is", {term: other})) == [other]


@pytest.mark.parametrize(
    ("text", "others", "expected"),
    [
        ("An asian and a Muslim.", {"asian": "black", "muslim": "hindu"}, "A black and a Hindu."),
        ("a European", {"european": "asian"}, "an Asian"),
        ("an african-american", {"african american": "european"}, "a european"),
        ("GAYS? not gayness", {"gays": "lesbians"}, "LESBIANS? not gayness"),
        ("middle  aged", {"middle-aged": "young"}, "young"),
        ("men and women", {"men": "women", "women": "men"}, "women and men"),
        ("a gay", {"lesbian": "queer"}, "a gay"),
    ],
)
def test_a_term_gives_way_to_another_in_its_case_and_with_its_article(text, others, expected):
    assert read_terms().replace(text, others) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"age": [["young"]]}, "two terms or more"),
        ({"age": [["young", "old"], ["old", "new"]]}, "'old' again"),
        ({}, "expected sets of terms"),
    ],
)
def test_lists_that_cannot_be_swapped_by_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        TermList.build(content)


def test_a_file_of_terms_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_terms(tmp_path / "absent.yaml")
    (tmp_path / "flat.yaml").write_text("age: [young, old]")
    with pytest.raises(DataError, match="something else"):
        read_terms(tmp_path / "flat.yaml")


def test_repeats_make_the_label_independent_of_every_group_that_has_rows_enough():
    random = np.random.default_rng(0)
    labels = random.integers(2, size=400)
    groups = [[name for name, odds in (("a", 0.5), ("b", 0.3)) if random.random() < odds * (0.4 + y)] for y in labels]
    groups[0], labels[0] = [*groups[0], "rare"], 1
    rows, short = plan_repeats(groups, labels, 2, seed=0)
    assert short == ["rare"]
    assert max(Counter(rows.tolist()).values()) <= 10
    every = np.concatenate([np.arange(400), rows])
    for name in ("a", "b"):
        own = np.array([row for row in every if name in groups[row]])
        assert labels[own].mean() == pytest.approx(labels.mean(), abs=0.03)
    again, _ = plan_repeats(groups, labels, 2, seed=0)
    assert np.array_equal(rows, again)


@pytest.mark.parametrize("balance", ["who", "shipped_terms"])
def test_balance_repeats_rows_of_train_only_and_says_so(frames, balance):
    splits = load(frames, balance=balance)
    table = splits.tables["train"].to_pandas()
    assert table["text"][:24].tolist() == frames["train"]["text"].tolist()
    own = table[table.text.str.contains("gay")]
    assert len(table) == 30
    assert own.label.mean() == 0.5
    assert {split: len(splits.tables[split]) for split in ("validation", "test")} == {"validation": 6, "test": 6}
    assert any("6 rows of train are repeats" in note for note in splits.facts.notes)


def test_swapped_copies_keep_the_label_and_never_bring_a_held_out_text(frames):
    frames["test"].loc[0, "text"] = "a Lesbian one, number 3!"
    splits = load(frames, augment="identity_swap", swap_copies=7)
    table = splits.tables["train"].to_pandas()
    copies = table[24:]
    assert 12 <= len(copies) < 12 * 7
    others = set(read_terms().sets["gay"]) - {"gay"}
    for _, copy in copies.iterrows():
        assert set(read_terms().find(copy.text)) <= others
        number = int(copy.text.split()[-1])
        assert splits.labels.names[copy.label] == frames["train"].label[number]
    assert "a lesbian one, number 3" not in set(table.text)
    assert splits.facts.leaked == {"validation/test": splits.facts.leaked["validation/test"]}
    assert len(set(zip(copies.text, copies.label, strict=True))) == len(copies)


def test_mixed_copies_name_people_of_any_kind_in_the_same_form(frames):
    splits = load(frames, augment="identity_mix", swap_copies=7)
    terms = read_terms()
    copies = splits.tables["train"].to_pandas().text[len(frames["train"]) :]
    named = Counter(term for text in copies for term in terms.find(text))
    assert 12 * 5 < len(copies) <= 12 * 7  # drawn twice the same, a copy is made once
    assert "gay" not in named
    assert len({terms.kinds[term] for term in named}) >= 5
    assert not {"gays", "man", "islam"} & set(named)


def test_sentences_that_name_people_are_cut_from_texts_of_one_label(frames):
    long = "Nothing here. A gay one\nlives in it! An old house."
    frames["train"].loc[0, "text"], frames["train"].loc[1, "text"] = long, long + " Well"
    assert frames["train"].label[:2].tolist() == ["good", "bad"]
    splits = load(frames, augment="identity_mix", swap_copies=3, swap_sentences="good")
    copies = splits.tables["train"].to_pandas()[len(frames["train"]) :]
    cut = copies[copies.text.str.match(r"An? \w+( \w+)? one$")]
    assert 1 <= len(cut) <= 3
    assert {splits.labels.names[label] for label in cut.label} == {"good"}
    assert sum(copies.text.str.contains("Nothing here")) > 2
    with pytest.raises(DataError, match=r"data\.swap_sentences: expected one of the labels .*, got 'best'"):
        load(frames, augment="identity_mix", swap_sentences="best")


def test_every_form_that_is_mixed_names_sets_of_the_shipped_list():
    terms = read_terms()
    for form in FORMS:
        assert len({terms.sets[term] for term in form}) == len(form)
    mixed = mix_sets(terms)
    assert set(mixed) == set(terms.kinds)
    assert all(term in members for term, members in mixed.items())


def test_without_the_keys_train_is_as_it_was(frames):
    plain = load(frames).tables["train"].to_pandas()
    assert plain["text"].tolist() == frames["train"]["text"].tolist()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"balance": "nobody"}, "expected shipped_terms or a column"),
        ({"balance": "empty"}, "expected rows with a group, found none"),
    ],
)
def test_a_balance_that_cannot_be_is_refused(frames, keys, message):
    for frame in frames.values():
        frame["empty"] = None
    with pytest.raises(DataError, match=message):
        load(frames, **keys)


def test_texts_without_terms_stay_as_they_are_and_it_is_said(frames):
    frames["train"]["text"] = [f"plain {n}" for n in range(24)]
    splits = load(frames, augment="identity_swap", balance="shipped_terms")
    assert splits.tables["train"].num_rows == 24
    said = [warning for warning in splits.facts.warnings if "no row of train has a term" in warning]
    assert [warning.split(":")[0] for warning in said] == ["data.augment", "data.balance"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.balance=who", "task.kind=multi_label"], "needs one class per row"),
        (["data.balance=body", "data.text=body"], "has another role"),
        (["data.swap_copies=3"], "no effect with data.augment none"),
        (["data.swap_sentences=good"], "no effect with data.augment none"),
        (["data.augment=identity_mix", "data.swap_sentences=1", "task.kind=regression"], "needs one class per row"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("sentiment/full", overrides)


def test_cells_of_several_groups_are_split_by_what_the_column_uses():
    assert split_groups(["a|b", "c"]) == [["a", "b"], ["c"]]
    assert split_groups([float("nan"), ["x", None, "x"], "a, b"]) == [[], ["x"], ["a, b"]]
