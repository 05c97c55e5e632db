"""Continued pretraining: masked-language modeling on texts of the task, before the fit."""

import math
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from nlp_transfer.contracts import Encoded, Prepared
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.train.masked_lm import MaskedLanguageLoss, number_examples
from nlp_transfer.engine.train.window import Window, WindowStep
from nlp_transfer.errors import RecipeError
from nlp_transfer.fitting.fit import Change
from nlp_transfer.fitting.series import Fits
from nlp_transfer.methods.base import Method, Started
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.output_layer import find_classifier
from nlp_transfer.recipe.methods.domain_mlm import DomainMlmConfig
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.strategies.base import Adapted, Material, Stage

__all__ = ["HEAD", "METHOD", "pretrain"]

HEAD = "masked_head"
NAME, HELD_OUT = "domain_mlm", "held_out"
METRIC = "log_loss"
"""Key of the loss on the texts that were held out: the lower, the better, so that the best pass is kept by it."""

MOST_HELD_OUT = 1_000
"""Texts of which perplexity is measured at most; chosen."""


def pretrain(config: DomainMlmConfig, fits: Fits, material: Material) -> Started:
    """Train the encoder on texts, each asked for the words that are hidden from it.

    What moves is what the strategy moves: every weight of ``full``, the small matrices of ``lora``. The task's head
    stays as it is. The pass with the lowest loss on texts that were held out is kept.

    Args:
        config: Texts, passes, rate and masks.
        fits: Trains under the name of this method.
        material: The texts.

    Returns:
        Weights that every later fit starts from, and what was found.

    Source:
        Gururangan et al. 2020, "Don't stop pretraining", https://arxiv.org/abs/2004.10964 (task-adaptive where the
        texts are the task's own, domain-adaptive where there are more). Departures: whole words are hidden, and the
        best pass by held-out loss is kept.
    """
    texts = _join_texts(config, material.prepared)
    chosen = np.random.default_rng(material.recipe.training.seed).permutation(texts.num_examples)
    num_held = min(MOST_HELD_OUT, max(1, round(config.held_out * texts.num_examples)))
    if num_held >= texts.num_examples:
        raise RecipeError(f"methods: {NAME} expected at least two texts, came {texts.num_examples}. Give more.")
    held, kept = (texts.select(np.sort(each)) for each in (chosen[:num_held], chosen[num_held:]))
    prepared = replace(material.prepared, splits={"train": kept, HELD_OUT: held}, unlabelled=None)
    recipe = _make_recipe(config, material.recipe)
    losses: dict[str, float] = {}
    alone = replace(fits, recipe=recipe, changes=())
    fitted = alone.train(NAME, prepared=prepared, changes=[_change_to_masks(config, losses)], keep_weights=True)
    assert fitted.weights is not None
    after = min(each.metrics[METRIC] for each in fitted.log.evaluations)
    said = {
        "texts": kept.num_examples,
        "held_out": num_held,
        "loss": {"before": losses.get("before"), "after": after},
        "perplexity": {"before": _to_perplexity(losses.get("before")), "after": _to_perplexity(after)},
    }
    return Started(fitted.weights, replace(fitted.log, methods={NAME: said}))


def _join_texts(config: DomainMlmConfig, prepared: Prepared) -> Encoded:
    """All texts, numbered for their masks, with labels that nothing reads."""
    train = prepared.splits["train"]
    assert train.labels is not None
    texts = replace(train, labels=None, columns={})
    if config.texts == "all" and prepared.unlabelled is not None:
        texts = texts.join(prepared.unlabelled)
    # A classifier is loaded for the task, and wants to see labels of its kind.
    labels = np.resize(train.labels, (texts.num_examples, *train.labels.shape[1:]))
    return number_examples(replace(texts, labels=labels))


def _make_recipe(config: DomainMlmConfig, recipe: Recipe) -> Recipe:
    """The recipe of the pretraining: passes and rate of its own, the best pass by held-out loss."""
    changes = {
        "epochs": config.epochs,
        "max_steps": None,
        "learning_rate": config.learning_rate or recipe.training.learning_rate,
        "select_by": METRIC,
        "restore_best": True,
        "early_stopping": None,
        "evaluate_every": None,
        "ema_share": 0.0,
    }
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def _to_perplexity(loss: float | None) -> float | None:
    """The exponential of a loss in nats; None where there is no loss."""
    return None if loss is None or math.isnan(loss) else math.exp(min(loss, 700.0))


def _change_to_masks(config: DomainMlmConfig, losses: dict[str, float]) -> Change:
    """What pretraining makes of a fit: another window and evaluation, and a task's head that stays as it is."""

    def change(stage: Stage, adapted: Adapted, material: Material) -> Stage:
        loss = MaskedLanguageLoss.build(
            adapted.model,
            material.recipe.encoder,
            device=material.device,
            seed=material.recipe.training.seed,
            share=config.masked_share,
            whole_words=config.whole_words,
        )
        feeder = Feeder(material.prepared, HELD_OUT, material.device)
        _freeze_head(adapted)
        if not loss.head.is_new:
            losses["before"] = loss.measure(adapted.model, feeder)
        return replace(
            stage,
            window=_make_window(loss),
            modules={HEAD: loss.head},
            evaluate=lambda model: {METRIC: loss.measure(model, feeder)},
            reads_tokens=True,
        )

    return change


def _make_window(loss: MaskedLanguageLoss) -> Window:
    """The window of masked-language modeling alone."""

    def run_window(step: WindowStep) -> Tensor:
        return loss.add_gradients(step, step.rows)

    return run_window


def _freeze_head(adapted: Adapted) -> None:
    """Keep the task's head as it is: it gets no gradient here, and would only decay."""
    adapted.probe = None
    heads = {id(module) for module in _list_heads(adapted.model)}
    for module in adapted.model.modules():
        if id(module) in heads:
            module.requires_grad_(False)


def _list_heads(model: nn.Module) -> list[nn.Module]:
    """The modules that serve the task alone."""
    classifier = find_classifier(model)
    return [classifier.get_submodule(name) for name in find_head_modules(classifier)]


METHOD = Method(NAME, before=pretrain)
