import numpy as np
import pytest
from scipy.stats import entropy

from nlp_transfer.errors import ShapeError
from nlp_transfer.evidence.advise.facts import (
    bound_accuracy,
    count_repeats,
    describe_classes,
    describe_lengths,
    find_suspects,
    guess_language,
)


def test_classes_are_described_as_scipy_has_their_entropy():
    found = describe_classes({"a": 10, "b": 30, "c": 0})
    assert (found["classes"], found["smallest"], found["median"], found["largest"]) == (3, 0, 10, 30)
    assert (found["imbalance"], found["majority"]) == (3.0, 0.75)
    assert found["evenness"] == pytest.approx(entropy([10, 30], base=3))
    assert describe_classes({"a": 5, "b": 5})["evenness"] == pytest.approx(1.0)
    for counts in ({"a": 3}, {"a": 0, "b": 0}):
        with pytest.raises(ShapeError, match="at least two classes"):
            describe_classes(counts)


def test_lengths_and_repeats_are_counted():
    found = describe_lengths(np.array([3, 5, 9, 200]), max_length=128)
    assert (found["median"], found["longest"], found["truncated"]) == (7.0, 200.0, 0.25)
    with pytest.raises(ShapeError, match="at least one text"):
        describe_lengths(np.array([]), max_length=8)
    assert count_repeats(np.array([1, 2, 1, 1], dtype=np.uint64)) == 2


@pytest.mark.parametrize(
    ("text", "language", "script"),
    [
        ("It was not the end of the story, and that is what I like about this film.", "English", "LATIN"),
        ("Das ist nicht der Film, den ich mit den Kindern sehen will, und die Musik ist zu laut.", "German", "LATIN"),
        ("Je ne sais pas ce que vous en pensez, mais le film est un des plus longs.", "French", "LATIN"),
        ("Не знаю, что и думать", None, "CYRILLIC"),  # noqa: RUF001
        ("좋은 영화였다", "Korean", "HANGUL"),
        ("とても面白い映画でした", "Japanese", "HIRAGANA"),
        ("非常好看的电影", None, "CJK"),
        ("lorem dolor amet ipsum", None, "LATIN"),
        ("Καλή ταινία", "Greek", "GREEK"),
    ],
)
def test_a_language_is_named_only_where_it_is_sure(text, language, script):
    found, scripts = guess_language([text])
    assert found == language
    assert next(iter(scripts)) == script
    assert sum(scripts.values()) == pytest.approx(1.0)


def test_rows_that_look_alike_bound_the_accuracy():
    keys = np.array([5, 5, 5, 9, 9, 3], dtype=np.uint64)
    assert bound_accuracy(keys, np.array([0, 0, 1, 2, 1, 0])) == pytest.approx(4 / 6)
    assert bound_accuracy(keys, np.zeros(6, dtype=int)) == 1.0
    assert bound_accuracy(np.full(4, 2**63, dtype=np.uint64), np.array([0, 1, 2, 3])) == 0.25
    # Rows without a number are like no other.
    assert bound_accuracy(np.zeros(3, dtype=np.uint64), np.array([0, 1, 0])) == 1.0
    assert bound_accuracy(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=int)) == 1.0


def test_texts_without_letters_have_no_language():
    assert guess_language(["123 !?", ""]) == (None, {})


def test_only_labels_that_are_contradicted_with_confidence_are_suspected():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 300)
    given = truth.copy()
    planted = generator.choice(300, 30, replace=False)
    given[planted] = (given[planted] + 1) % 3
    # The classifier is sure of all rows but every fifth.
    sure = np.where(np.arange(300) % 5 == 0, 0.6, 0.97)
    probabilities = np.repeat((1 - sure)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(300), truth] = sure
    found = find_suspects(probabilities, given)
    assert set(found.tolist()) == {row for row in planted.tolist() if row % 5}
    assert len(found) > 15
    assert len(find_suspects(probabilities, truth)) == 0
    assert len(find_suspects(probabilities, (truth + 1) % 3)) == 0
    assert len(find_suspects(np.zeros((0, 3)), np.zeros(0, dtype=int))) == 0
    with pytest.raises(ShapeError, match="a label a row"):
        find_suspects(probabilities, truth[:5])
