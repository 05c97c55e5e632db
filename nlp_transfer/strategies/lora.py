"""LoRA and its kin: low-rank updates of the layers, and the head; the encoder itself does not move."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    AdaLoraModel,
    FourierFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    MissConfig,
    OFTConfig,
    PeftModel,
    VeraConfig,
)
from peft import LoraConfig as PeftLoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_transfer.contracts import Guide
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.bottleneck import ADAPTER_PLACES, OUTER, find_places
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.layers import find_lora_targets
from nlp_transfer.models.quantize import find_gpu, quantize_linears
from nlp_transfer.recipe.schema import LoraConfig
from nlp_transfer.strategies.base import Adapted, Strategy
from nlp_transfer.strategies.wrapping import ADAPTER, describe_saved, list_opened, strip_name, wrap_encoder

__all__ = [
    "STRATEGY",
    "adapt_lora",
]

Common = dict[str, Any]


def _choose_tuner(model: PreTrainedModel, config: LoraConfig, common: Common) -> Any:
    """Lay out peft's own settings for a variant that is not one of low-rank matrices.

    Args:
        model: The family's own sequence-classification class.
        config: A section whose variant is in ``TUNERS``.
        common: What every config of peft is told.

    Returns:
        A config of peft whose update starts at nothing.

    Raises:
        RecipeError: A layer is of a width that the variant cannot divide, or smaller than the update.
    """
    return TUNERS[config.variant](model, config, common)


def _choose_ia3(model: PreTrainedModel, config: LoraConfig, common: Common) -> IA3Config:
    """Scale query and value, and what the feed-forward's last layer reads.

    The scores of attention are the same whether the query is scaled or, as in the paper, the key.
    """
    inner: list[str] = []
    if config.targets is None and model.config.model_type in ADAPTER_PLACES:
        inner = find_places(model)[OUTER]
    return IA3Config(**{**common, "target_modules": [*common["target_modules"], *inner]}, feedforward_modules=inner)


def _choose_oft(model: PreTrainedModel, config: LoraConfig, common: Common) -> OFTConfig:
    """Rotate the inputs of each matrix in blocks."""
    for name in common["target_modules"]:
        width = _get_linear(model, name).in_features
        if width % config.rank:
            raise RecipeError(
                [f"strategy.rank: the blocks of oft must divide the width of {name}, {width}, got {config.rank}."]
            )
    return OFTConfig(r=0, oft_block_size=config.rank, **common)


def _choose_fourierft(model: PreTrainedModel, config: LoraConfig, common: Common) -> FourierFTConfig:
    """Learn a few frequencies of the change of each matrix."""
    most = min(_get_linear(model, name).weight.numel() for name in common["target_modules"])
    if config.frequencies > most:
        raise RecipeError(
            [f"strategy.frequencies: expected at most {most}, the figures of a matrix, got {config.frequencies}."]
        )
    return FourierFTConfig(n_frequency=config.frequencies, init_weights=True, **common)


def _get_linear(model: PreTrainedModel, name: str) -> nn.Linear:
    """Find a linear layer by its name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


TUNERS: dict[str, Callable[[PreTrainedModel, LoraConfig, Common], Any]] = {
    "ia3": _choose_ia3,
    "oft": _choose_oft,
    "fourierft": _choose_fourierft,
    "loha": lambda _, config, common: LoHaConfig(r=config.rank, alpha=config.alpha, **common),
    "lokr": lambda _, config, common: LoKrConfig(r=config.rank, alpha=config.alpha, **common),
    "miss": lambda _, config, common: MissConfig(r=config.rank, miss_dropout=config.dropout, **common),
}
"""What lays out each variant's settings."""


START_RANKS, WARMUP, FINAL = 1.5, 0.1, 0.3
"""AdaLoRA: ranks to begin with over ranks to end with (section 4 of its paper), share of the steps before any is
taken away, and share after the last is; chosen."""

EVERYWHERE = ("lora", "dora", "adalora")
"""Variants that adapt every linear layer where a recipe names none."""


class DealOutRanks(Guide):
    """Takes ranks away where they count least, step by step, and keeps the directions apart (AdaLoRA).

    Args:
        model: A model wrapped by peft for AdaLoRA.
    """

    def __init__(self, model: PeftModel) -> None:
        assert isinstance(model.base_model, AdaLoraModel)
        self._tuner: Any = model.base_model
        self._settings: Any = model.peft_config[ADAPTER]
        self._matrices = [p for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name]
        self._done = 0
        # Importance is read off the gradients, which are gone after the update, when peft would look.
        self._note_importance = self._tuner.rankallocator.update_ipt
        self._tuner.rankallocator.update_ipt = lambda _: None

    def start(self, num_steps: int) -> None:
        """Lay out when ranks are taken away."""
        self._settings.total_step = num_steps
        self._settings.tinit = math.floor(WARMUP * num_steps)
        self._settings.tfinal = math.floor(FINAL * num_steps)

    def before_step(self, epoch: int, step: int) -> None:  # noqa: ARG002
        """Remember where the loop stands."""
        self._done = step

    def after_backward(self, trained: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Add the gradient of the penalty that keeps the directions apart, once an update."""
        weight = self._settings.orth_reg_weight / len(self._matrices)
        with torch.enable_grad():
            for matrix in self._matrices:
                held = matrix.detach().requires_grad_(True)
                gram = held @ held.T if held.shape[0] <= held.shape[1] else held.T @ held
                distance = torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device))
                (gradient,) = torch.autograd.grad(weight * distance, held)
                if matrix.grad is not None:
                    matrix.grad.add_(gradient)
        if self._done + 1 < self._settings.total_step - self._settings.tfinal:
            self._note_importance(self._tuner.model)

    def after_step(self, step: int) -> None:
        """Mask what counts least, as far as that is known: a run of one step has seen nothing."""
        if self._tuner.rankallocator.exp_avg_ipt:
            self._tuner.update_and_allocate(step)

    def collect(self) -> dict[str, Tensor]:
        """Importance so far, and which ranks are left."""
        allocator = self._tuner.rankallocator
        found = {
            f"{kind}/{name}": value.detach().cpu().clone()
            for kind in ("exp_avg_ipt", "exp_avg_unc")
            for name, value in getattr(allocator, kind).items()
        }
        pattern = self._settings.rank_pattern or {}
        return found | {f"pattern/{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        allocator = self._tuner.rankallocator
        device = self._matrices[0].device
        pattern = {}
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if kind == "pattern":
                pattern[name] = value.tolist()
            else:
                getattr(allocator, kind)[name] = value.to(device)
                allocator.ipt[name] = torch.zeros_like(value, device=device)
        self._settings.rank_pattern = pattern or None


def adapt_lora(loaded: LoadedEncoder, config: LoraConfig) -> Adapted:
    """Wrap the encoder with low-rank updates through ``peft``.

    Args:
        loaded: The encoder with its new head.
        config: Variant, rank, scale, dropout and layers.

    Returns:
        The wrapped model; an adapter folder is what gets saved.

    Source:
        Hu et al. 2021, https://arxiv.org/abs/2106.09685, applied to every linear layer where none is named, as Dettmers
        et al. 2023 (https://arxiv.org/abs/2305.14314, section 4) found it takes to match full fine-tuning; Liu et al.
        2024 (DoRA), https://arxiv.org/abs/2402.09353; Zhang et al. 2023 (AdaLoRA), https://arxiv.org/abs/2303.10512;
        Kopiczko et al. 2024 (VeRA), https://arxiv.org/abs/2310.11454; Kalajdzievski 2023 (rsLoRA),
        https://arxiv.org/abs/2312.03732; Hayou et al. 2024 (LoRA+), https://arxiv.org/abs/2402.12354; Meng et al. 2024
        (PiSSA), https://arxiv.org/abs/2404.02948; Liu et al. 2022 (IA3), https://arxiv.org/abs/2205.05638; Qiu et al.
        2023 (OFT), https://arxiv.org/abs/2306.07280; Gao et al. 2024 (FourierFT), https://arxiv.org/abs/2405.03003;
        Hyeon-Woo et al. 2022 (LoHa), https://arxiv.org/abs/2108.06098; Yeh et al. 2024 (LoKr),
        https://arxiv.org/abs/2309.14859; Kang and Yin 2024 (MiSS), https://arxiv.org/abs/2409.15371. AdaLoRA's penalty
        is added once an update, whatever it was split into; FourierFT starts at zero, not at noise.
    """
    model = loaded.model
    settings = _choose_settings(loaded, config)
    targets = list(settings.target_modules or ())
    originals = (
        {name: model.get_submodule(name).weight.detach().clone() for name in targets} if config.init == "pissa" else {}
    )
    finish: Callable[[nn.Module], nn.Module] | None = None
    if config.quantize != "none":
        gpu = find_gpu(config.quantize)
        finish = _PublishedBase(model, settings)
        quantize_linears(model, config.quantize, gpu)
    wrapped = wrap_encoder(model, settings)
    if config.init == "pissa":
        finish = _PissaEnd(wrapped, originals)
    elif config.variant == "adalora":
        finish = _keep_masked_ranks
    rates = {name: config.rate_ratio for name, _ in wrapped.named_parameters() if ".lora_B." in name}
    return Adapted(
        wrapped,
        "peft",
        new_parameters=list_opened(wrapped, loaded),
        rates=rates if config.rate_ratio != 1 else {},
        guides=(DealOutRanks(wrapped),) if config.variant == "adalora" else (),
        to_artifact=finish,
        merge=config.merge,
    )


def _choose_settings(loaded: LoadedEncoder, config: LoraConfig) -> Any:
    """Lay out peft's own settings."""
    wanted = config.targets or (["all-linear"] if config.variant in EVERYWHERE else None)
    common = {"target_modules": find_lora_targets(loaded.model, wanted), **describe_saved(loaded)}
    if config.variant in TUNERS:
        return _choose_tuner(loaded.model, config, common)
    if config.variant == "vera":
        return VeraConfig(r=config.rank, vera_dropout=config.dropout, save_projection=True, **common)
    scale: dict[str, Any] = {"lora_alpha": config.alpha, "lora_dropout": config.dropout}
    if config.variant == "adalora":
        start = math.ceil(START_RANKS * config.rank)
        return AdaLoraConfig(target_r=config.rank, init_r=start, total_step=1_000_000, **scale, **common)
    return PeftLoraConfig(
        r=config.rank,
        use_dora=config.variant == "dora",
        use_rslora=config.rank_stabilized,
        init_lora_weights="pissa" if config.init == "pissa" else True,
        **scale,
        **common,
    )


def _keep_masked_ranks(model: nn.Module) -> nn.Module:
    """Save the ranks that were taken away as the zeros they are: peft warns of a pattern that it reads later."""
    assert isinstance(model, PeftModel)
    settings: Any = model.peft_config[ADAPTER]
    settings.rank_pattern = None
    wrapped: nn.Module = model
    return wrapped


class _PublishedBase:
    """Puts what was trained beside rounded matrices on the encoder as it was published.

    That is what the saved folder loads, so that is what is scored.

    Args:
        model: The classifier before its matrices are rounded; it is copied.
        settings: What peft wraps it with.
    """

    def __init__(self, model: nn.Module, settings: Any) -> None:
        self._model, self._settings = copy.deepcopy(model), copy.deepcopy(settings)

    def __call__(self, model: nn.Module) -> nn.Module:
        """Give the trained update on the plain encoder."""
        trained = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
        wrapped = wrap_encoder(self._model, self._settings)
        _, unexpected = wrapped.load_state_dict(trained, strict=False)
        assert not unexpected
        moved: nn.Module = wrapped.to(next(iter(model.parameters())).device)
        return moved


class _PissaEnd:
    """Turns updates of matrices that PiSSA changed into updates of the pretrained ones, at twice the rank.

    The difference of the two products is what training added; so the saved adapter goes on the encoder as it was
    published, and no other machine need find the same singular vectors.
    """

    def __init__(self, model: PeftModel, originals: Mapping[str, Tensor]) -> None:
        self._originals = originals
        self._starts = {
            name: (layer.lora_A[ADAPTER].weight.detach().clone(), layer.lora_B[ADAPTER].weight.detach().clone())
            for name, layer in _list_lora_layers(model)
        }

    def __call__(self, model: nn.Module) -> nn.Module:
        """Rewrite the trained model in place."""
        assert isinstance(model, PeftModel)
        with torch.no_grad():
            for name, layer in _list_lora_layers(model):
                first_A, first_B = (start.to(layer.weight.device) for start in self._starts[name])
                A_RD = torch.cat([layer.lora_A[ADAPTER].weight, first_A])
                B_DR = torch.cat([layer.lora_B[ADAPTER].weight, -first_B], dim=1)
                layer.lora_A[ADAPTER] = _make_linear(A_RD)
                layer.lora_B[ADAPTER] = _make_linear(B_DR)
                layer.weight.copy_(self._originals[strip_name(model, name)])
                layer.r[ADAPTER] *= 2
                layer.lora_alpha[ADAPTER] *= 2
        settings: Any = model.peft_config[ADAPTER]
        settings.r, settings.lora_alpha, settings.init_lora_weights = 2 * settings.r, 2 * settings.lora_alpha, True
        wrapped: nn.Module = model
        return wrapped


def _list_lora_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Name every adapted layer."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def _make_linear(weight: Tensor) -> nn.Linear:
    """A linear layer without bias that holds a matrix."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
    layer.weight.data = weight.contiguous()
    return layer


STRATEGY = Strategy(kind="lora", adapt=adapt_lora)
