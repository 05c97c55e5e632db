"""Bottleneck adapters: small networks beside the layers of an encoder that stays as it is."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.output_layer import find_output_layer, rescale_layer

__all__ = ["ADAPTER_PLACES", "AdapterClassifier", "AddedAfter", "Bottleneck", "find_places"]

Activation = Literal["relu", "gelu", "silu"]
Variant = Literal["houlsby", "pfeiffer", "parallel"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}

ATTENTION, INNER, OUTER = "attention", "feed_forward_in", "feed_forward_out"

_BERT = ("attention.output.dense", "intermediate.dense", "output.dense")

ADAPTER_PLACES: dict[str, tuple[str, str, str]] = {
    "albert": ("attention.dense", "ffn", "ffn_output"),
    "bert": _BERT,
    "camembert": _BERT,
    "deberta": _BERT,
    "deberta-v2": _BERT,
    "distilbert": ("attention.out_lin", "ffn.lin1", "ffn.lin2"),
    "electra": _BERT,
    "modernbert": ("attn.Wo", "mlp.Wi", "mlp.Wo"),
    "mpnet": ("attention.attn.o", "intermediate.dense", "output.dense"),
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}
"""In a layer of each family: the attention's output, and the first and the last linear layer of its feed-forward."""


def find_places(model: PreTrainedModel) -> dict[str, list[str]]:
    """Find the linear layers that adapters go on.

    Args:
        model: The family's own sequence-classification class.

    Returns:
        Full module names from the bottom layer up, for ``attention``, ``feed_forward_in`` and ``feed_forward_out``.

    Raises:
        RecipeError: The family is not known.
    """
    family = model.config.model_type
    if family not in ADAPTER_PLACES:
        raise RecipeError(
            [
                f"strategy.kind: adapters know where they go in {', '.join(ADAPTER_PLACES)}, got an encoder of "
                f"{family}. Use strategy.kind=lora."
            ]
        )
    attention, inner, outer = ADAPTER_PLACES[family]
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    # `attention.output.dense` ends in `output.dense` too.
    return {
        ATTENTION: [name for name in names if name.endswith(f".{attention}")],
        INNER: [name for name in names if name.endswith(f".{inner}")],
        OUTER: [name for name in names if name.endswith(f".{outer}") and not name.endswith(f".{attention}")],
    }


class Bottleneck(nn.Module):
    """A projection down, an activation, and a projection up that starts at zero.

    Args:
        width: D, what goes in and comes out.
        inner: Width of the bottleneck.
        activation: Between the projections.
        dropout: Rate before the projection up.
        scale: Factor on what comes out.
        input_norm: Whether a layer norm of its own stands before the projection down.
    """

    def __init__(
        self, width: int, inner: int, activation: Activation, dropout: float, scale: float, *, input_norm: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if input_norm else nn.Identity()
        self.down = nn.Linear(width, inner)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(inner, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """Give what is added to a sublayer's output, shape (B, L, D)."""
        added_BLD: Tensor = self.up(self.dropout(self.activation(self.down(self.norm(hidden_BLD)))))
        return added_BLD * self.scale


class AddedAfter:
    """Adds what an adapter makes of a linear layer's output; an object, so that a deep copy has its own adapter."""

    def __init__(self, adapter: Bottleneck) -> None:
        self.adapter = adapter

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG002
        """Run after the linear layer."""
        added: Tensor = self.adapter(output)
        return output + added


class _Beside:
    """Adds what an adapter makes of the feed-forward's input to the feed-forward's output."""

    def __init__(self, adapter: Bottleneck) -> None:
        self.adapter = adapter
        self.seen: Tensor | None = None

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002
        """Run before the feed-forward's first linear layer."""
        self.seen = inputs[0]

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG002
        """Run after its last."""
        seen, self.seen = self.seen, None
        assert seen is not None
        added: Tensor = self.adapter(seen)
        return output + added


class AdapterClassifier(CustomClassifier):
    """A family's own classifier with adapters in its layers.

    The encoder's modules keep their names: adapters stand apart from it and are hooked onto its linear layers.

    Args:
        encoder: The family's own sequence-classification class.
        labels: The label contract.
        variant: ``houlsby`` after attention and feed-forward, ``pfeiffer`` after the feed-forward, ``parallel`` beside
            it.
        reduction: Width of the encoder over that of the bottleneck.
        activation: Between the projections.
        dropout: Rate inside the bottleneck.
        scale: Factor on what the adapters give.
        input_norm: Whether each adapter has a layer norm on what it reads.
        trained: Names, in the encoder, of the parameters that are saved beside the adapters: the head, and whatever
            the checkpoint did not hold.

    Raises:
        RecipeError: The family is not known, or its layers are narrower than ``reduction``.
    """

    kind: ClassVar[str] = "adapters"
    auto: ClassVar[Any] = AutoModelForSequenceClassification
    keeps_labels: ClassVar[bool] = True

    def __init__(
        self,
        encoder: PreTrainedModel,
        labels: LabelSpace,
        *,
        variant: Variant,
        reduction: int,
        activation: Activation,
        dropout: float,
        scale: float,
        input_norm: bool = False,
        trained: Sequence[str],
    ) -> None:
        shape: dict[str, Any] = {"activation": activation, "dropout": dropout, "scale": scale, "input_norm": input_norm}
        super().__init__(
            encoder, labels, {"variant": variant, "reduction": reduction, **shape, "trained": list(trained)}
        )
        width = int(encoder.config.hidden_size)
        if reduction > width:
            raise RecipeError(
                [f"strategy.reduction: expected at most {width}, the width of the encoder, got {reduction}."]
            )
        self.adapters = nn.ModuleDict()
        places = find_places(encoder)
        for place in (ATTENTION, OUTER) if variant == "houlsby" else (OUTER,):
            for number, name in enumerate(places[place]):
                adapter = Bottleneck(width, width // reduction, **shape)
                self.adapters[f"{place}_{number}"] = adapter
                if variant == "parallel":
                    beside = _Beside(adapter)
                    encoder.get_submodule(places[INNER][number]).register_forward_pre_hook(beside.note)
                    encoder.get_submodule(name).register_forward_hook(beside)
                else:
                    encoder.get_submodule(name).register_forward_hook(AddedAfter(adapter))
        assert len(self.adapters) > 0

    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give the family's own logits."""
        logits_BC: Tensor = self.encoder(**inputs).logits
        return logits_BC.float()

    def rescale(self, mean: float, deviation: float) -> None:
        """Write a target's own unit into the family's own head."""
        rescale_layer(find_output_layer(self.encoder), mean, deviation)

    def collect_custom(self) -> dict[str, Tensor]:
        """The adapters, and what of the encoder is trained."""
        kept = {f"encoder.{name}" for name in self.settings["trained"]}
        return {
            name: value for name, value in self.state_dict().items() if name.startswith("adapters.") or name in kept
        }
