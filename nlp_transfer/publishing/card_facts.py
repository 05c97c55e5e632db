"""What a model card says beside scores: how labels are spread, how sure to be of probabilities, what is inherited."""

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_transfer.contracts import Loader, TaskKind
from nlp_transfer.publishing.summary import choose_split, find_section, format_count, format_number, read_score

__all__ = [
    "count_label_rows",
    "describe_calibration",
    "describe_control",
    "list_data_facts",
    "list_environment",
    "list_inherited",
    "suggest_widget",
]

LEAST_SHARE = 0.01
"""Share of unknown tokens from which the card states it; chosen."""

WIDGET_TEXTS = ("I would happily see it again tomorrow.", "Nobody answered, and the battery was dead by lunch.")
"""Texts to try on the Hub. Made up: those of the data may be private."""


def count_label_rows(record: Mapping[str, Any], limit: int) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Count examples of each label, split by split.

    Args:
        record: The report.
        limit: Most labels that are listed.

    Returns:
        Names of the splits, and for each label its name and one count a split.

    Example:
        >>> count_label_rows({"data": {"label_counts": {"train": {"no": 3, "yes": 1200}}}}, limit=9)
        (['train'], [('no', ['3']), ('yes', ['1,200'])])
    """
    counts = {split: found for split, found in find_section(record, "data", "label_counts").items() if found}
    names = list(dict.fromkeys(name for found in counts.values() for name in found))
    return list(counts), [
        (name, [format_count(found.get(name, 0)) for found in counts.values()]) for name in names[:limit]
    ]


def list_data_facts(record: Mapping[str, Any]) -> list[str]:
    """Say what was cut, not seen, dropped or seen twice, one sentence each; nothing that did not happen."""
    data = find_section(record, "data")
    facts = []
    for key, words in (
        ("truncated", "Texts that were cut"),
        ("unseen", "Texts of which the encoder knows no token"),
        ("dropped", "Rows that were dropped"),
    ):
        found = {name: count for name, count in find_section(data, key).items() if count}
        if found:
            facts.append(f"{words}: {', '.join(f'{name} {format_count(count)}' for name, count in found.items())}.")
    shares = {name: share for name, share in find_section(data, "unknown_share").items() if share >= LEAST_SHARE}
    if shares:
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        facts.append(f"Tokens that the encoder does not know: {listed}.")
    if data.get("alike"):
        facts.append(
            f"Train rows that become the same tokens as a different text with another label: "
            f"{format_count(data['alike'])}."
        )
    if data.get("conflicting"):
        facts.append(f"Rows whose text also stands under another label: {format_count(data['conflicting'])}.")
    return facts


def describe_calibration(record: Mapping[str, Any], kind: TaskKind) -> str:
    """Say in one sentence how far stated probabilities can be trusted; empty for numbers that are none.

    Example:
        >>> scores = {"test": {"ece": {"value": 0.072, "low": 0.045, "high": 0.109, "n": 336}}}
        >>> describe_calibration({"scores": scores}, "classification").partition(":")[0]
        'Expected calibration error on test'
    """
    if kind == "regression":
        return ""
    split = choose_split(record)
    score = read_score(find_section(record, "scores", split).get("ece")) if split else {}
    if score.get("value") is None:
        return "Calibration was not measured: a stated probability of 0.9 need not mean that nine in ten are right."
    ends = f" [{format_number(score.get('low'))}, {format_number(score.get('high'))}]"
    return (
        f"Expected calibration error on {split}: {format_number(score['value'])}{ends if 'low' in score else ''} on "
        f"{format_count(score.get('n'))} examples. It is the mean distance between stated confidence and the share "
        "that is right; 0 is perfect."
    )


def describe_control(record: Mapping[str, Any]) -> str:
    """Say what the no-transfer control is and whether it was trained."""
    if "no_transfer" in find_section(record, "baselines"):
        return (
            "The no-transfer control is the same architecture, trained on the same rows from random weights: what the "
            "model is better by than that is what pretraining brought."
        )
    return "Whether pretraining helped is not shown: that needs the no-transfer control, evaluation.control=true."


def list_inherited(base: str, hub_id: str | None, language: str | None) -> list[str]:
    """Say what the model has from its encoder and from its labels, whatever its scores are.

    Args:
        base: The encoder, as the reader may see it.
        hub_id: Its Hub id, where it has one.
        language: Language code of the texts, where the recipe names it.

    Returns:
        One sentence each.
    """
    where = f"the card of {hub_id}" if hub_id else "its own documentation"
    spoken = f"texts in the language {language}" if language else "texts in the languages of the training data"
    return [
        f"What the encoder {base} learned from its pretraining texts stays in the model, stereotypes about groups of "
        f"people included; {where} says what those texts were. Names, dialects and identity terms can move a "
        "prediction where they should not.",
        "Labels are the judgments of whoever gave them: their errors and habits are learned, and the scores have them "
        "too.",
        f"It is meant for {spoken}. Do not let it decide about people on its own.",
    ]


def list_environment(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List versions and machine as pairs of a name and a value."""
    environment, training = find_section(record, "environment"), find_section(record, "training")
    rows = [(name, str(found)) for name, found in find_section(environment, "versions").items()]
    rows += [(name, str(environment[name])) for name in ("device", "precision") if environment.get(name)]
    if training.get("seconds") is not None:
        rows.append(("training time", f"{float(training['seconds']):.1f} s"))
    return rows


def suggest_widget(format: Loader, *, is_pair: bool) -> Sequence[Mapping[str, str]] | None:  # noqa: A002
    """Give texts to try on the Hub's page; None where the page cannot run the model."""
    if format != "transformers" or is_pair:
        return None
    return [{"text": text, "example_title": f"Example {number}"} for number, text in enumerate(WIDGET_TEXTS, start=1)]
