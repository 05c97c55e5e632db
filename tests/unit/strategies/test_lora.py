"""The variants of lora that are not matrices of low rank."""

import pytest

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import EncoderConfig, LoraConfig
from nlp_transfer.strategies.lora import adapt_lora

LABELS = LabelSpace("classification", ("a", "b"))
HEAD, HIDDEN, LAYERS = 66, 32, 2


def adapt(folder, **settings):
    loaded = load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0)
    return adapt_lora(loaded, LoraConfig(kind="lora", **settings))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        # Query and value by their outputs, the feed-forward's last layer by its inputs.
        ({"variant": "ia3"}, LAYERS * (2 * HIDDEN + 2 * HIDDEN)),
        ({"variant": "ia3", "targets": ["query"]}, LAYERS * HIDDEN),
        # A rotation of R inputs has R * (R - 1) / 2 angles.
        ({"variant": "oft", "rank": 8}, LAYERS * 2 * (HIDDEN // 8) * 28),
        ({"variant": "fourierft", "frequencies": 50}, LAYERS * 2 * 50),
        ({"variant": "loha", "rank": 3}, LAYERS * 2 * 4 * 3 * HIDDEN),
        ({"variant": "miss", "rank": 5}, LAYERS * 2 * 5 * HIDDEN),
    ],
)
def test_a_variant_trains_as_much_as_its_paper_says(settings, count, tiny_encoder):
    assert adapt(tiny_encoder("bert"), **settings).num_trainable == count + HEAD


def test_lokr_trains_less_than_loha_at_the_same_rank(tiny_encoder):
    found = {name: adapt(tiny_encoder("bert"), variant=name).num_trainable for name in ("lokr", "loha")}
    assert HEAD < found["lokr"] < found["loha"]


def test_blocks_that_do_not_divide_a_layer_are_refused(tiny_encoder):
    with pytest.raises(RecipeError, match=r"strategy\.rank: the blocks of oft must divide.*32, got 5"):
        adapt(tiny_encoder("bert"), variant="oft", rank=5)


def test_more_frequencies_than_a_matrix_has_are_refused(tiny_encoder):
    with pytest.raises(RecipeError, match=r"strategy\.frequencies: expected at most 1024"):
        adapt(tiny_encoder("bert"), variant="fourierft", frequencies=1025)
