"""The loss of masked-language modeling, over the rows of an update or of a split."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from nlp_transfer.contracts import Encoded
from nlp_transfer.data.batches import plan_inference
from nlp_transfer.data.masking import MOST_WINDOWS, Masker, make_masker
from nlp_transfer.engine.predict.forward import Feeder, Microbatch, compute_logits
from nlp_transfer.engine.train.window import Rows, WindowStep
from nlp_transfer.errors import EncoderError
from nlp_transfer.models.encoder import load_tokenizer
from nlp_transfer.models.masked_head import MaskedHead, load_masked_head
from nlp_transfer.models.output_layer import find_classifier
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig

__all__ = ["MaskedLanguageLoss", "number_examples"]

NUMBER = "number"
"""Column of rows that are masked: the number of the example, on which its masks depend."""

NO_STEP = 2**62
"""Stands for the step where masks are to stay the same, as for a figure that is compared; more than any run has."""

ALONE_SHARE = 0.4
"""Share of the updates in which a head that the checkpoint lacks learns alone; chosen."""

BATCH_SIZE, MAX_TOKENS = 64, 8_192
"""Most examples and tokens of one pass without gradients; chosen."""


def number_examples(encoded: Encoded) -> Encoded:
    """Give rows the column that masks are drawn by."""
    return replace(encoded, columns={**encoded.columns, NUMBER: np.arange(encoded.num_examples)})


@dataclass(frozen=True)
class MaskedLanguageLoss:
    """Asks an encoder for the tokens that were hidden from it.

    Attributes:
        encoder: The family's own class, a part of the model that is trained; its last hidden states are read.
        head: Turns them into logits of tokens.
        masker: Hides words.
        alone_share: Share of the updates, from the first on, in which the head learns alone: gradients of a head that
            was drawn at random would undo what the encoder was pretrained for.
    """

    encoder: PreTrainedModel
    head: MaskedHead
    masker: Masker
    alone_share: float = 0.0

    @classmethod
    def build(
        cls,
        model: nn.Module,
        encoder: EncoderConfig,
        *,
        device: torch.device,
        seed: int,
        share: float,
        whole_words: bool,
    ) -> "MaskedLanguageLoss":
        """Build the loss of a model that is about to be trained; its head is to be trained beside it.

        Args:
            model: On its device, its encoder in it.
            encoder: Where that came from.
            device: Where the model is.
            seed: Draws masks, and a head where the checkpoint has none.
            share: Of the words that are hidden.
            whole_words: Whether all tokens of a word are hidden together.

        Raises:
            EncoderError: The encoder has no mask token, or its family no masked-language class.
        """
        source = resolve_encoder(encoder)
        tokenizer = load_tokenizer(source, trust_remote_code=encoder.trust_remote_code)
        if tokenizer.mask_token_id is None:
            raise EncoderError(
                f"encoder.name: {source.name}: expected a tokenizer with a mask token, for masked-language modeling, "
                "came one without. Leave the methods domain_mlm and mixed_mlm out, or name another encoder."
            )
        masker = make_masker(tokenizer, share=share, seed=seed, whole_words=whole_words)
        head = load_masked_head(source, model, seed=seed, trust_remote_code=encoder.trust_remote_code)
        alone_share = ALONE_SHARE if head.is_new else 0.0
        return cls(find_classifier(model).base_model, head.to(device), masker.to(device), alone_share)

    def add_gradients(self, step: WindowStep, rows: Rows, *, weight: float = 1.0, is_last: bool = True) -> Tensor:
        """Add the gradients of the mean loss over the hidden tokens of an update, however its rows are split.

        Args:
            step: The update.
            rows: Numbered by `number_examples`.
            weight: Factor on the loss.
            is_last: Whether no other backward pass follows in this update.

        Returns:
            The loss times ``weight``, this process's part times the count of processes; without gradient.
        """
        held = list(rows.batches)
        masks = [self._mask(batch, step.step) for batch in held]
        # Rows that run only for company, see `Rows.scale`, count nothing.
        count = sum((chosen.sum() for _, chosen in masks), start=torch.zeros((), dtype=torch.long, device=self.device))
        count = count * int(rows.scale != 0)
        if step.accelerator.num_processes > 1:
            count = step.accelerator.reduce(count, "sum")
        scale = weight * step.accelerator.num_processes * int(rows.scale != 0) / count.clamp(min=1)
        total = torch.zeros((), device=self.device)
        again = Rows(held, len(held), rows.scale)
        for batch, (masked, chosen) in zip(step.iterate(again, is_last=is_last), masks, strict=True):
            is_alone = step.step < self.alone_share * step.num_steps
            loss, logits = self._sum(step.model, batch, masked, chosen, is_alone=is_alone)
            # Every parameter takes part in the pass behind which processes exchange gradients.
            step.accelerator.backward(loss * scale + 0 * logits.sum())
            total += loss.detach() * scale
        return total

    def measure(self, model: nn.Module, feeder: Feeder) -> float:
        """Measure the mean loss over the hidden tokens of a split, with masks that are always the same.

        Args:
            model: What is trained, unwrapped.
            feeder: Rows, numbered by `number_examples`.

        Returns:
            Negative log-likelihood of a token, in nats; lower is better; nan where no token was hidden.
        """
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        total, count = 0.0, 0
        try:
            with torch.inference_mode():
                for examples in plan_inference(feeder.lengths, batch_size=BATCH_SIZE, max_tokens=MAX_TOKENS):
                    batch = feeder.feed(examples)
                    masked, chosen = self._mask(batch, NO_STEP)
                    total += float(self._sum(model, batch, masked, chosen)[0])
                    count += int(chosen.sum())
        finally:
            for module, training in modes:
                module.training = training
        return total / count if count else float("nan")

    @property
    def device(self) -> torch.device:
        """Where the loss is computed."""
        return self.masker.starts.device

    def _mask(self, batch: Microbatch, step: int) -> tuple[Tensor, Tensor]:
        """Hide words of a batch: what the model reads, and which tokens it is asked for."""
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        numbers = batch.columns[NUMBER]
        if batch.owners is None:
            rows = numbers * MOST_WINDOWS
        else:
            # Rows of an example stand one behind the other.
            places = torch.arange(len(batch.owners), device=ids.device)
            firsts = torch.searchsorted(batch.owners.contiguous(), torch.arange(batch.num_examples, device=ids.device))
            rows = numbers[batch.owners] * MOST_WINDOWS + places - firsts[batch.owners]
        return self.masker.choose(ids, mask, rows, step)

    def _sum(
        self, model: nn.Module, batch: Microbatch, masked: Tensor, chosen: Tensor, *, is_alone: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Sum the loss over the hidden tokens of a batch; gives the classifier's logits too."""
        with self._catching() as caught:
            logits = compute_logits(model, replace(batch, inputs={**batch.inputs, "input_ids": masked}))
        (states_RLD,) = caught
        truth_M = batch.inputs["input_ids"][chosen]
        states_MD = states_RLD[chosen]
        if is_alone:
            # The embeddings, which the head may share with the encoder, stay as they are too.
            embedding = self.encoder.get_input_embeddings().weight
            shared = {name: each.detach() for name, each in self.head.named_parameters() if each is embedding}
            logits_MV = torch.func.functional_call(self.head, shared, (states_MD.detach(),))
        else:
            logits_MV = self.head(states_MD)
        return functional.cross_entropy(logits_MV, truth_M, reduction="sum"), logits

    @contextmanager
    def _catching(self) -> Iterator[list[Tensor]]:
        """Collect the encoder's last hidden states."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, __: Any, output: Any) -> None:
            caught.append(output[0])

        handle = self.encoder.register_forward_hook(catch)
        try:
            yield caught
        finally:
            handle.remove()
