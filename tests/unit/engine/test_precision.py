"""Device and number format: what is not here is refused, with what is."""

import pytest
import torch

from nlp_transfer.engine.precision import choose_device, choose_precision
from nlp_transfer.errors import RecipeError


def test_auto_takes_what_is_here():
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == "cpu"
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(RecipeError, match=r"cuda is not on this machine\. Here: cpu"):
        choose_device("cuda")


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(RecipeError, match="fp16 trains on cuda only"):
        choose_precision("fp16", "cpu")
