"""Likely reasons for a harmful transfer, each based on a fact of the run."""

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
"""Tokens per word above which the vocabulary does not fit the texts; chosen: English text in an English vocabulary is
near 1.3."""

MOST_UNKNOWN = 0.01
"""Share of unknown tokens above which the vocabulary does not fit the texts; chosen."""

FEWEST_ROWS = 200
"""Train rows below which another sample of rows could reverse the result; chosen."""

MOST_CONFLICTS = 0.05
"""Share of train rows with conflicting labels for their text above which this counts as a reason; chosen."""

LEAST_FALL = 0.05
"""Smallest fall of the training loss, as a share, that counts as learning; chosen."""

SAMPLE_ROWS = 500
"""Number of train texts that are tokenized to check the vocabulary."""


def measure_fragmentation(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[float, float]:
    """Measure how well a vocabulary fits some texts.

    Args:
        texts: Any texts.
        tokenizer: A `transformers` tokenizer.

    Returns:
        Tokens per word (words are separated by white space), and the share of unknown tokens.
    """
    num_words = sum(len(text.split()) for text in texts)
    ids = [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    unknown = 0 if tokenizer.unk_token_id is None else sum(token == tokenizer.unk_token_id for token in ids)
    return len(ids) / max(1, num_words), unknown / max(1, len(ids))


def find_reasons(
    recipe: Recipe, space: Workspace, results: Sequence[SeedResult], harmful: Sequence[Link], *, beside_control: bool
) -> list[str]:
    """List likely reasons for a harmful transfer, as far as the facts of the run show them.

    Args:
        recipe: The run.
        space: Its data and tokenizer.
        results: Its seeds.
        harmful: Links of the chain that were found harmful.
        beside_control: Whether the transfer was found harmful compared with the no-transfer control.

    Returns:
        One sentence per reason, the likeliest first; empty if no fact stands out.
    """
    reasons = [_describe_link(link) for link in harmful]
    reasons += _find_failures(results)
    reasons += _find_misfits(space)
    reasons += _find_shortages(space.splits)
    if harmful and not find_facts(recipe.strategy).moves_encoder:
        reasons.append(
            f"strategy.kind {recipe.strategy.kind} leaves the encoder's own weights as they are, so training cannot "
            "undo the damage of an earlier transfer."
        )
    if beside_control and len(recipe.evaluation.control_learning_rates) > 1:
        reasons.append(
            f"The control's learning rate was the best of {len(recipe.evaluation.control_learning_rates)}, while the "
            f"transfer had only {recipe.training.learning_rate:g}: try other rates."
        )
    return reasons


def _describe_link(link: Link) -> str:
    """Describe the encoder's earlier training."""
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
        # A collapsed seed is named already, so its loss is not mentioned as well.
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
    """Train rows that are too few or that contradict each other."""
    rows, reasons = splits.facts.rows.get("train", 0), []
    if rows < FEWEST_ROWS:
        reasons.append(f"Train has {rows} rows: with so few, another sample of rows could reverse the result.")
    if rows and splits.facts.conflicting / rows > MOST_CONFLICTS:
        reasons.append(f"{splits.facts.conflicting} train rows have a text that also occurs with another label.")
    return reasons
