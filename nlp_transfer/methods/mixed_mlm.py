"""A task's loss on labelled rows and masked-language modeling on other texts, in one training."""

from dataclasses import replace

from torch import Tensor

from nlp_transfer.engine.predict.forward import compute_logits
from nlp_transfer.engine.train.masked_lm import MaskedLanguageLoss, number_examples
from nlp_transfer.engine.train.window import Window, WindowStep
from nlp_transfer.fitting.fit import Change
from nlp_transfer.methods.base import Method
from nlp_transfer.recipe.methods.mixed_mlm import MixedMlmConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage

__all__ = ["METHOD", "mix_losses"]

STREAM, HEAD = "masked_texts", "masked_head"


def mix_losses(loss: MaskedLanguageLoss, weight: float) -> Window:
    """Make the window of both losses.

    Args:
        loss: Asks for hidden tokens.
        weight: Its share in the loss, in [0, 1).

    Returns:
        A window whose loss is ``1 - weight`` times the task's mean over examples, plus ``weight`` times the mean over
        hidden tokens.
    """

    def run_window(step: WindowStep) -> Tensor:
        total = loss.add_gradients(step, step.streams[STREAM], weight=weight, is_last=False)
        for batch in step.iterate(step.rows):
            task = step.objective(compute_logits(step.model, batch), batch) * step.rows.scale * (1 - weight)
            # Every parameter takes part in the pass behind which processes exchange gradients.
            step.accelerator.backward(task + 0 * sum(each.sum() for each in loss.head.parameters()))
            total = total + task.detach()
        return total

    return run_window


def change_fit(config: MixedMlmConfig) -> Change:
    """What the mix makes of a fit: a stream of texts, a head that names hidden tokens, another window.

    Args:
        config: Weight and masks.

    Source:
        Karouzos et al. 2021, "UDALM", https://arxiv.org/abs/2104.07078, equation 3: the weights are the shares of
        unlabelled and labelled examples. Departure: every update reads as many texts as labelled rows.
    """

    def change(stage: Stage, adapted: Adapted, material: Material) -> Stage:
        texts = material.prepared.unlabelled
        assert texts is not None, "a recipe without texts is refused"
        train = material.prepared.splits["train"]
        weight = config.weight
        if weight is None:
            weight = texts.num_examples / (texts.num_examples + train.num_examples)
        loss = MaskedLanguageLoss.build(
            adapted.model,
            material.recipe.encoder,
            device=material.device,
            seed=material.recipe.training.seed,
            share=config.masked_share,
            whole_words=config.whole_words,
        )
        return replace(
            stage,
            window=mix_losses(loss, weight),
            streams={**stage.streams, STREAM: (number_examples(texts), material.recipe.training.batch_size)},
            modules={**stage.modules, HEAD: loss.head},
            reads_tokens=True,
        )

    return change


METHOD = Method("mixed_mlm", change=change_fit)
