"""Training on the embeddings that the examples reach gives what training on the whole matrix gives."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM

from nlp_transfer.engine.fast import vocabulary
from nlp_transfer.engine.fast.vocabulary import ReachedVocabulary, find_embedding, reach_vocabulary
from nlp_transfer.engine.predict.forward import Feeder
from tests.tiny import FAMILIES
from tests.training import Breaker, Killed, adapt, copy_weights, find_largest_gap, fit, make_recipe, prepare

SETTINGS: dict[str, object] = {
    "training__max_steps": 50,
    "training__batch_size": 8,
    "training__learning_rate": 3e-3,
    "training__weight_decay": 0.1,
    "training__select_by": "accuracy",
}


@pytest.fixture
def narrow(monkeypatch):
    """Matrices are narrowed however little is won, and what was narrowed is told."""
    monkeypatch.setattr(vocabulary, "MOST_REACHED", 1.0)
    made = []
    start = ReachedVocabulary.__init__

    def note(self, embedding, rows, name):
        made.append(len(rows))
        start(self, embedding, rows, name)

    monkeypatch.setattr(ReachedVocabulary, "__init__", note)
    return made


def score(model: nn.Module) -> dict[str, float]:
    """A figure of the whole matrix that depends on rows no example reaches, best in the middle of a run."""
    matrix = find_embedding_of(model)
    assert matrix.shape[0] == model.config.vocab_size
    return {"accuracy": -abs(float(matrix.detach().norm()) - score.best)}  # type: ignore[attr-defined]


def find_embedding_of(model: nn.Module) -> torch.Tensor:
    return model.get_input_embeddings().weight


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=[] if each in ("bert", "roberta") else [pytest.mark.slow]) for each in FAMILIES]
)
def test_losses_and_weights_are_those_of_the_whole_matrix(family, optimizer, tiny_encoder, narrow, monkeypatch):
    recipe = make_recipe(tiny_encoder(family), **SETTINGS, training__optimizer=optimizer)
    # Few words of the vocabulary in few examples.
    splits, prepared = prepare(recipe, n=12)
    found = {}
    for way in ("narrow", "whole"):
        if way == "whole":
            monkeypatch.setattr("nlp_transfer.engine.train.weights.reach_vocabulary", lambda *_: None)
        model, log = fit(recipe, splits, prepared)
        found[way] = (log.losses, copy_weights(model))
    (vocabulary_size,) = {len(find_embedding_of(model))}
    assert len(narrow) == 1
    assert 0 < narrow[0] < 0.9 * vocabulary_size
    (losses, weights), (expected, whole) = found["narrow"], found["whole"]
    assert len(losses) == 50
    assert losses == pytest.approx(expected, abs=1e-6)
    assert weights.keys() == whole.keys()
    assert find_largest_gap(weights, whole) < 2e-5
    (name,) = (name for name, p in model.named_parameters() if p is find_embedding_of(model))
    start = copy_weights(adapt(recipe, prepared).model)[name]
    changed = (whole[name] != start).any(dim=1)
    assert changed.sum() > narrow[0], "decay reaches the rest"
    assert torch.allclose(weights[name], whole[name], rtol=2e-6, atol=2e-5)


def test_best_weights_and_resumed_runs_decay_the_rest_as_far(tiny_encoder, narrow, tmp_path, monkeypatch):
    recipe = make_recipe(
        tiny_encoder("bert"), **SETTINGS, training__evaluate_every=5, training__checkpoint_every=4, encoder__dropout=0.1
    )
    splits, prepared = prepare(recipe, n=12)
    monkeypatch.setattr(score, "best", 0.0, raising=False)
    model, log = fit(recipe, splits, prepared, evaluate=score)
    norms = [-look.metrics["accuracy"] for look in log.evaluations]
    assert len(set(norms)) == 10
    monkeypatch.setattr(score, "best", norms[3])
    model, log = fit(recipe, splits, prepared, evaluate=score)
    assert log.best_step == 20
    assert float(find_embedding_of(model).detach().norm()) == norms[3]
    unbroken = copy_weights(model)
    with pytest.raises(Killed):
        fit(recipe, splits, prepared, evaluate=score, folder=tmp_path, hooks=(Breaker(33),))
    model, resumed = fit(recipe, splits, prepared, evaluate=score, folder=tmp_path)
    assert resumed.resumed_at == [32]
    weights = copy_weights(model)
    assert weights.keys() == unbroken.keys()
    assert all(torch.equal(weights[name], unbroken[name]) for name in weights)
    assert len(narrow) == 4


def test_what_is_tied_frozen_or_nearly_all_reached_is_left_alone(tiny_encoder, monkeypatch):
    recipe = make_recipe(tiny_encoder("bert"))
    _, prepared = prepare(recipe, n=12)
    model = adapt(recipe, prepared).model
    embedding = find_embedding(model)
    assert embedding is model.get_input_embeddings()
    embedding.weight.requires_grad_(False)
    assert find_embedding(model) is None
    assert find_embedding(AutoModelForMaskedLM.from_pretrained(tiny_encoder("bert", "masked_lm"))) is None
    tied = adapt(recipe, prepared).model
    tied.extra = nn.Linear(1, 1)
    tied.extra.weight = tied.get_input_embeddings().weight
    assert find_embedding(tied) is None
    feeder = Feeder(prepared, "train", torch.device("cpu"))
    monkeypatch.setattr(vocabulary, "MOST_REACHED", 0.01)
    assert reach_vocabulary(adapt(recipe, prepared).model, [feeder]) is None


def test_a_token_of_no_example_is_not_taken_for_another():
    embedding = nn.Embedding(5, 2, padding_idx=4)
    reached = ReachedVocabulary(embedding, torch.tensor([1, 3, 4]), "weight")
    assert embedding.padding_idx == 2
    with pytest.raises(IndexError):
        embedding(torch.tensor([0]))
    with reached.whole(1.0):
        assert embedding(torch.tensor([0])).shape == (1, 2)
        assert embedding.padding_idx == 4
    embedding(torch.tensor([4])).sum().backward()
    assert not embedding.weight.grad.any()
