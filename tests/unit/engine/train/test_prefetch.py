"""Batches made ahead are those made on the spot, and a loop that uses them ends in the same weights."""

import threading

import numpy as np
import pytest
import torch

from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.train import loop
from nlp_transfer.engine.train.prefetch import Prefetcher
from tests.tiny import make_splits
from tests.training import copy_weights, fit, make_recipe, prepare


@pytest.fixture
def feeder(tiny_encoder):
    _, prepared = prepare(make_recipe(tiny_encoder("bert")), make_splits(24, 3))
    return Feeder(prepared, "train", torch.device("cpu"))


def test_expected_batches_are_made_in_a_thread_and_others_on_the_spot(feeder, monkeypatch):
    made, collate = [], feeder.collate
    monkeypatch.setattr(
        feeder, "collate", lambda part: (made.append(threading.current_thread().name), collate(part))[1]
    )
    prefetcher = Prefetcher(feeder, is_on=True)
    parts = [np.array([3, 1]), np.array([5])]
    prefetcher.expect(lambda: parts)
    for part in (*parts, np.array([7, 8])):
        found, expected = prefetcher.feed(part), feeder.place(collate(part))
        assert found.inputs.keys() == expected.inputs.keys()
        assert all(torch.equal(found.inputs[name], expected.inputs[name]) for name in expected.inputs)
        assert torch.equal(found.labels, expected.labels)
    prefetcher.close()
    assert [name.startswith("next-batch") for name in made] == [True, True, False]
    assert not any(thread.name.startswith("next-batch") for thread in threading.enumerate())


def test_nothing_is_foreseen_without_a_thread(feeder):
    prefetcher = Prefetcher(feeder, is_on=False)
    prefetcher.expect(lambda: pytest.fail("nobody asked"))
    assert prefetcher.feed(np.array([1])).num_examples == 1
    prefetcher.close()


def test_what_fails_in_the_thread_fails_where_the_batch_is_asked_for(feeder, monkeypatch):
    def fail(part):
        raise OSError("the disk is gone")

    monkeypatch.setattr(feeder, "collate", fail)
    prefetcher = Prefetcher(feeder, is_on=True)
    prefetcher.expect(lambda: [np.array([1])])
    with pytest.raises(OSError, match="the disk is gone"):
        prefetcher.feed(np.array([1]))
    prefetcher.close()


def test_a_loop_with_batches_made_ahead_ends_in_the_same_weights(tiny_encoder, monkeypatch):
    recipe = make_recipe(tiny_encoder("bert"), training__epochs=2, training__batch_size=8, training__microbatch_size=3)
    splits, prepared = prepare(recipe, make_splits(28, 3))
    plain, log = fit(recipe, splits, prepared)
    feeds = []

    class Threaded(Prefetcher):
        def __init__(self, feeder, *, is_on):
            super().__init__(feeder, is_on=True)

        def feed(self, examples):
            feeds.append(examples.tobytes() in self._made)
            return super().feed(examples)

    monkeypatch.setattr(loop, "Prefetcher", Threaded)
    ahead, other = fit(recipe, splits, prepared)
    assert other.losses == log.losses
    assert all(torch.equal(value, copy_weights(plain)[name]) for name, value in copy_weights(ahead).items())
    # Of an epoch of three windows of three parts and one of two, the first window alone is not foreseen.
    assert feeds == 2 * [*[False] * 3, *[True] * 8]
