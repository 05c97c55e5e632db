"""Likely reasons of a harmful transfer, each found in a fact of the run."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from nlp_transfer.contracts import Splits
from nlp_transfer.data.encode import MOST_CUT
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.strategies.table import find_facts
from nlp_transfer.runs.chain import Link
from nlp_transfer.runs.seed import SeedResult, Workspace

__all__ = ["find_reasons", "measure_fragmentation"]

MOST_PIECES = 2.0
"""Tokens a word above which the vocabulary is foreign; chosen: English text in an English vocabulary is near 1.3."""

MOST_UNKNOWN = 0.01
"""Share of tokens that the vocabulary does not have, above which it is foreign; chosen."""

FEWEST_ROWS = 200
"""Train rows below which another draw of them could turn the result; chosen."""

MOST_CONFLICTS = 0.05
"""Share of train rows whose text also has another label; chosen."""

LEAST_FALL = 0.05
"""Share by which the training loss has to fall; chosen."""

SAMPLE_ROWS = 500
"""Train texts that are cut into tokens to look at the vocabulary."""


def measure_fragmentation(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[float, float]:
    """Measure how well a vocabulary fits some texts.

    Args:
        texts: Any texts.
        tokenizer: A `transformers` tokenizer.

    Returns:
        Tokens a word, words being what stands between spaces; and the share of tokens that are unknown.
    """
    num_words = sum(len(text.split()) for text in texts)
    ids = [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    unknown = 0 if tokenizer.unk_token_id is None else sum(token == tokenizer.unk_token_id for token in ids)
    return len(ids) / max(1, num_words), unknown / max(1, len(ids))


def find_reasons(
    recipe: Recipe, space: Workspace, results: Sequence[SeedResult], harmful: Sequence[Link], *, beside_control: bool
) -> list[str]:
    """Name what may have made a transfer harmful, as far as the run's own facts show it.

    Args:
        recipe: The run.
        space: Its data and tokenizer.
        results: Its seeds.
        harmful: Links of the chain that were found harmful.
        beside_control: Whether the transfer was found harmful beside the no-transfer control.

    Returns:
        One sentence a reason, what explains most first; empty where no fact stands out.
    """
    reasons = [_describe_link(link) for link in harmful]
    reasons += _find_failures(results)
    reasons += _find_misfits(space)
    reasons += _find_shortages(space.splits)
    if harmful and not find_facts(recipe.strategy).moves_encoder:
        reasons.append(
            f"strategy.kind {recipe.strategy.kind} leaves the encoder's own weights as they are, so training cannot "
            "undo what an earlier transfer did to them."
        )
    if beside_control and len(recipe.evaluation.control_learning_rates) > 1:
        reasons.append(
            f"The control's learning rate was the best of {len(recipe.evaluation.control_learning_rates)}, the "
            f"transfer had {recipe.training.learning_rate:g} alone: try others."
        )
    return reasons


def _describe_link(link: Link) -> str:
    """Say what the encoder went through before."""
    facts: dict[str, Any] = dict(link.facts)
    data = facts.get("data") or {}
    made = f"The encoder is an earlier artefact, trained on {data.get('path') or 'other data'}"
    training = facts.get("training") or {}
    how = f" for {training['epochs']:g} epochs at a rate of {training['learning_rate']:g}" if training else ""
    end = ", with permuted labels, which teach nothing but noise" if data.get("permute_labels") else ""
    return f"{made}{how}{end}; without that training it does better."


def _find_failures(results: Sequence[SeedResult]) -> list[str]:
    """Seeds that learned nothing."""
    reasons = []
    collapsed = [str(result.seed) for result in results if result.log.collapsed]
    if collapsed:
        word = "Seeds" if len(collapsed) > 1 else "Seed"
        reasons.append(f"{word} {', '.join(collapsed)} collapsed: one class for every validation example.")
    for result in results:
        losses = result.log.losses
        part = max(1, len(losses) // 10)
        # What a collapsed seed's loss does needs no word of its own.
        if (
            not result.log.collapsed
            and len(losses) >= 4
            and sum(losses[-part:]) > (1 - LEAST_FALL) * sum(losses[:part])
        ):
            reasons.append(f"The training loss of seed {result.seed} hardly fell: the learning rate may be off.")
    return reasons


def _find_misfits(space: Workspace) -> list[str]:
    """Texts that the encoder cannot read well."""
    table = space.splits.tables["train"]
    texts = table.select(range(min(SAMPLE_ROWS, len(table))))["text"][:]
    pieces, unknown = measure_fragmentation(texts, space.tokenizer)
    reasons = []
    if unknown > MOST_UNKNOWN:
        reasons.append(f"The encoder's vocabulary does not know {unknown:.1%} of the tokens of these texts.")
    if pieces > MOST_PIECES:
        reasons.append(
            f"The tokenizer cuts a word into {pieces:.1f} pieces on average: the encoder comes from another language "
            "or field."
        )
    share = space.splits.facts.truncated.get("train", 0) / max(1, len(table))
    if share > MOST_CUT:
        reasons.append(f"The encoder does not see all of {share:.0%} of the train texts: raise data.max_length.")
    return reasons


def _find_shortages(splits: Splits) -> list[str]:
    """Too little, or contradicting, to learn from."""
    rows, reasons = splits.facts.rows.get("train", 0), []
    if rows < FEWEST_ROWS:
        reasons.append(f"Train has {rows} rows: with so few, another draw of them could turn the result.")
    if rows and splits.facts.conflicting / rows > MOST_CONFLICTS:
        reasons.append(f"{splits.facts.conflicting} train rows have a text that also occurs with another label.")
    return reasons
