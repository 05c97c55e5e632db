import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, MissingExtraError
from nlp_transfer.evaluation.attribution import attribute_gradients, attribute_occlusion, make_score

SPACE = LabelSpace("classification", ("no", "yes"))
BLANK = 9


class Bag(nn.Module):
    """Adds up the vectors of a text's tokens: what each word is worth is known beforehand."""

    def __init__(self, bend=None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.words = nn.Embedding.from_pretrained(torch.randn(10, 4, generator=generator))
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        self.bend = bend or (lambda logits: logits)

    def forward(self, input_ids, attention_mask):
        summed_BD = (self.words(input_ids) * attention_mask[:, :, None]).sum(dim=1)
        return SimpleNamespace(logits=self.bend(self.head(summed_BD)))

    def weigh(self, ids):
        """By how much the log-odds of "yes" rise when a token takes the blank's place."""
        worth = (self.words.weight - self.words.weight[BLANK]) @ (self.head.weight[1] - self.head.weight[0])
        return worth[ids].detach().numpy()


def make_inputs(ids, owners):
    ids = torch.tensor(ids)
    blank = torch.where(torch.tensor(owners) < 0, ids, torch.full_like(ids, BLANK))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, blank, np.array(owners)


def test_gradients_give_a_linear_model_s_own_weights():
    model, (inputs, blank, owners) = Bag(), make_inputs([[0, 4, 5, 4, 1]], [[-1, 0, 1, 2, -1]])
    found = attribute_gradients(model, model.words, inputs, blank, make_score(SPACE, 1))
    expected = model.weigh([0, 4, 5, 4, 1]) * (owners[0] >= 0)
    np.testing.assert_allclose(found.values[0], expected, atol=1e-5)
    assert abs(expected).min(where=owners[0] >= 0, initial=9) > 0.01
    assert found.values.sum() == pytest.approx(found.score - found.baseline_score, abs=1e-5)
    assert (found.is_complete, found.steps) == (True, 32)
    logits = model(**inputs).logits[0].tolist()
    assert found.score == pytest.approx(logits[1] - logits[0], abs=1e-6)
    # Of the other label everything is the other way round.
    other = attribute_gradients(model, model.words, inputs, blank, make_score(SPACE, 0))
    np.testing.assert_allclose(other.values, -found.values, atol=1e-5)


def test_occlusion_gives_a_linear_model_s_own_weights_word_by_word():
    model, (inputs, blank, owners) = Bag(), make_inputs([[0, 4, 5, 4, 1]], [[-1, 0, 0, 2, -1]])
    found = attribute_occlusion(model, inputs, blank, owners, 3, make_score(SPACE, 1))
    one, two = model.weigh([4, 5])
    # The second word was not read.
    np.testing.assert_allclose(found.values, [one + two, 0, one], atol=1e-5)
    assert found.gap == pytest.approx(0, abs=1e-5)


def test_windows_share_a_text_and_a_word_in_both_counts_in_both():
    model, (inputs, blank, owners) = Bag(), make_inputs([[0, 4, 5, 1], [0, 5, 6, 1]], [[-1, 0, 1, -1], [-1, 1, 2, -1]])
    score = make_score(SPACE, 1)
    words = model.weigh([4, 5, 6]) * [0.5, 1, 0.5]
    found = attribute_gradients(model, model.words, inputs, blank, score)
    summed = np.bincount(owners[owners >= 0], weights=found.values[owners >= 0])
    np.testing.assert_allclose(summed, words, atol=1e-5)
    np.testing.assert_allclose(attribute_occlusion(model, inputs, blank, owners, 3, score).values, words, atol=1e-5)


def test_steps_are_doubled_until_the_values_add_up_and_otherwise_it_is_said():
    inputs, blank, _ = make_inputs([[0, 4, 5, 4, 1]], [[-1, 0, 1, 2, -1]])
    steep = Bag(lambda logits: torch.tanh(3 * logits))
    found = attribute_gradients(steep, steep.words, inputs, blank, make_score(SPACE, 1), steps=4)
    assert found.steps > 4
    assert found.is_complete
    assert found.gap <= 0.01 * abs(found.score - found.baseline_score)
    assert found.gap == pytest.approx(abs(found.values.sum() - found.score + found.baseline_score))
    short = attribute_gradients(steep, steep.words, inputs, blank, make_score(SPACE, 1), steps=2, last_steps=3)
    assert (short.steps, short.is_complete) == (2, False)
    assert short.gap > 0.02


def test_what_gradients_cannot_see_through_is_refused_with_the_way_out():
    inputs, blank, owners = make_inputs([[0, 4, 1]], [[-1, 0, -1]])
    jumping = Bag(lambda logits: (logits > 0).float())
    score = make_score(SPACE, 1)
    for model, embeddings, told in [
        (jumping, jumping.words, "jumps from answer to answer"),
        (Bag(), None, "an export"),
        (Bag(), nn.Embedding(10, 4), "puts words of its own beside the text"),
    ]:
        with pytest.raises(ArtifactError, match=rf"{told}.*Use --method occlusion"):
            attribute_gradients(model, embeddings, inputs, blank, score)
        assert attribute_occlusion(model, inputs, blank, owners, 1, score).values.shape == (1,)


def test_no_hook_stays_and_weights_take_no_gradient():
    model, (inputs, blank, _) = Bag(), make_inputs([[0, 4, 1]], [[-1, 0, -1]])
    attribute_gradients(model, model.words, inputs, blank, make_score(SPACE, 1))
    assert not model.words._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_are_log_odds():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    probability = logits.softmax(dim=1)[0, 2]
    three = make_score(LabelSpace("classification", ("a", "b", "c")), 2)(logits)
    assert float(three) == pytest.approx(float(torch.logit(probability)), abs=1e-6)
    assert float(make_score(LabelSpace("multi_label", ("a", "b", "c")), 1)(logits)) == -1.0
    assert float(make_score(LabelSpace("regression", ("y",)), 0)(logits[:, :1])) == pytest.approx(0.3)


def test_without_captum_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    model, (inputs, blank, _) = Bag(), make_inputs([[0, 4, 1]], [[-1, 0, -1]])
    with pytest.raises(MissingExtraError, match=r"captum. Install it with: .*nlp_transfer\[explain\]"):
        attribute_gradients(model, model.words, inputs, blank, make_score(SPACE, 1))
