"""What the guard against negative transfer found, in words that terminal, page and card share.

Reads the section ``transfer`` of ``report.json``; plain text, escaped by whoever shows it.
"""

from collections.abc import Mapping
from typing import Any

from nlp_transfer.publishing.summary import (
    describe_gain,
    find_section,
    format_interval,
    format_number,
    name_metric,
    name_place,
    read_score,
    show_text,
)

__all__ = ["describe_comparison", "describe_outcome", "list_warnings"]


def describe_comparison(record: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Say what one transfer gained over the same run without it.

    Args:
        record: The report.
        comparison: One entry of its ``transfer.comparisons``.

    Returns:
        A sentence without its full stop.

    Example:
        >>> gain = {"accuracy": {"value": -0.1, "low": -0.13, "high": -0.07, "n": 800}}
        >>> found = {"kind": "link", "with": "runs/planted", "without": "minilm-l6", "gain": gain}
        >>> describe_comparison({"transfer": {"metric": "accuracy", "split": "test"}}, found)
        'from runs/planted, Accuracy on test is 0.100 lower than from minilm-l6 (difference -0.100 [-0.130, -0.070])'
    """
    transfer = find_section(record, "transfer")
    metric = str(transfer.get("metric"))
    gain = read_score(find_section(comparison, "gain").get(metric))
    value = gain.get("value")
    ours, theirs = (show_text(name_place(str(comparison.get(key))), 60) for key in ("with", "without"))
    if value is None:
        return f"from {ours}, {name_metric(metric)} could not be held against {theirs}"
    change = "lower" if value < 0 else "higher"
    return (
        f"from {ours}, {name_metric(metric)} on {transfer.get('split')} is {format_number(abs(value))} {change} than "
        f"from {theirs} (difference {format_number(value)} {format_interval(gain)})"
    )


def describe_outcome(record: Mapping[str, Any]) -> tuple[str, str]:
    """Say in plain words whether transfer helped, with the verdict of the guard if it ran.

    Args:
        record: The report.

    Returns:
        A verdict and the sentence, as ``describe_gain`` has them. With the guard's comparisons ``harm`` is what they
        call harm: a difference that one seed more could turn is ``unclear``.

    Example:
        >>> describe_outcome({"transfer": {"is_harmful": False}})[0]
        'unknown'
    """
    transfer = find_section(record, "transfer")
    if transfer.get("is_harmful"):
        # How much, and why, stands in the warnings that go with it.
        return "harm", f"Transfer did harm: {_describe_kept(transfer)}"
    verdict, sentence = describe_gain(record)
    if verdict != "harm" or not transfer:
        return verdict, sentence
    found = sentence.partition(": ")[2]
    metric = find_section(record, "gain")
    if any(read_score(score).get("over") != "no_transfer" for score in metric.values()):
        return "worse", f"Worse than the baseline: {found}"
    return "unclear", f"No clear harm: {found} Another training seed could turn that: add training.seeds."


def list_warnings(record: Mapping[str, Any]) -> list[str]:
    """List what a reader has to know about a harmful transfer; empty where there is no harm.

    Args:
        record: The report.

    Returns:
        Sentences: each harm found, then the likely reasons. What was kept is said by ``describe_outcome``.

    Example:
        >>> list_warnings({"transfer": {"is_harmful": False, "comparisons": []}})
        []
    """
    transfer = find_section(record, "transfer")
    if not transfer.get("is_harmful"):
        return []
    lines = [
        f"Harmful transfer: {describe_comparison(record, comparison)}."
        for comparison in transfer.get("comparisons") or []
        if comparison.get("verdict") == "harm"
    ]
    reasons = [show_text(reason, 300) for reason in transfer.get("reasons") or []]
    lines += [f"Likely reason: {reason}" for reason in reasons] or [
        "No likely reason stands out in the facts of this run."
    ]
    return lines


def _describe_kept(transfer: Mapping[str, Any]) -> str:
    """Say which model the run is known by, and why."""
    kept, encoder = transfer.get("kept"), show_text(name_place(str(transfer.get("kept_encoder"))), 60)
    refused = show_text(name_place(str(transfer.get("refused"))), 60)
    if kept == "no_transfer":
        return (
            f"the guard refused the transfer from {refused}: the model kept is the no-transfer control, trained from "
            "random weights, which does better on validation. Scores and artefact are the control's."
        )
    if kept == "without_link":
        return (
            f"the guard refused the transfer from {refused}: the model kept is the same run from {encoder}, which does "
            "better on validation. Scores and artefact are those of that run."
        )
    if transfer.get("guard"):
        return "the guard kept the transfer all the same: on validation, which alone decides, nothing did better."
    return "the model was kept as it is. Add evaluation.guard=true, or --guard, to keep the better one instead."
