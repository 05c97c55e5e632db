"""A finished run in words: the sentences and rows that terminal, page and card share.

Every function here reads the dictionary in ``report.json`` and returns plain text; the caller escapes it for HTML,
Markdown or the terminal.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, get_args

from nlp_transfer.contracts import SPLITS, TaskKind
from nlp_transfer.figures import format_number
from nlp_transfer.recipe.metrics import LOWER_IS_BETTER
from nlp_transfer.recipe.metrics import TABLE as METRICS

__all__ = [
    "BASELINES",
    "choose_metric",
    "choose_split",
    "count_updates",
    "describe_alignment",
    "describe_gain",
    "describe_methods",
    "describe_pretraining",
    "describe_rounds",
    "describe_transfer",
    "find_kind",
    "find_section",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_interval",
    "format_number",
    "list_baselines",
    "list_class_scores",
    "list_metrics",
    "list_splits",
    "name_baseline",
    "name_label_columns",
    "name_metric",
    "name_place",
    "name_title",
    "read_score",
    "show_text",
    "split_metric",
    "write_headline",
]

BASELINES = {
    "refused": "Refused transfer",
    "without_link": "Without the last transfer",
    "tfidf": "TF-IDF + logistic regression",
    "no_transfer": "No transfer (random weights)",
    "majority": "Majority class",
}
"""Baselines that are shown beside the model, in order."""

SHORT_BASELINES = {"tfidf": "TF-IDF", "no_transfer": "No transfer", "majority": "Majority"}

REGRESSION_BASELINES = {"tfidf": "TF-IDF + ridge regression", "majority": "Mean of train"}

PER_CLASS = ("f1", "precision", "recall")
AVERAGES = ("macro", "micro", "weighted")

# Bidirectional overrides and control characters can make a page or terminal show something other than the text.
_HIDDEN = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def show_text(value: object, limit: int | None = None) -> str:
    r"""Make foreign text safe to show: on one line, cut to a limit, with hidden characters as escapes.

    Args:
        value: What to show.
        limit: Most characters of the original that are kept; all where absent.

    Returns:
        The text, with an ellipsis at its end if it was cut.

    Example:
        >>> show_text("two\nlines and a long end", limit=10)
        'two lines…'
        >>> show_text("abc\u202edef")
        'abc\\u202edef'
    """
    text = value if isinstance(value, str) else str(value)
    cut = limit is not None and len(text) > limit
    kept = text[:limit] if cut else text
    kept = _HIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", kept)
    kept = " ".join(kept.split())
    return f"{kept}…" if cut else kept


def find_section(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return a nested section of the report; an empty one where it is absent."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def format_interval(score: Mapping[str, Any]) -> str:
    """Write a score's interval, or an empty text where it has none."""
    low, high = score.get("low"), score.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{format_number(low)}, {format_number(high)}]"


def format_count(value: float | None) -> str:
    """Write a count with separators; an em dash where it is unknown."""
    return "—" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def format_bytes(value: float | None) -> str:
    """Write a size in bytes with the unit GB, MB, kB or B.

    Example:
        >>> format_bytes(1_500_000_000), format_bytes(0)
        ('1.5 GB', '—')
    """
    if not value:
        return "—"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}" if value < 10 * size else f"{value / size:.0f} {unit}"
    return f"{value:.0f} B"


def format_duration(seconds: float | None) -> str:
    """Write a wall time.

    Example:
        >>> format_duration(4.24), format_duration(75), format_duration(7330)
        ('4.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe_transfer(record: Mapping[str, Any]) -> str:
    """Say how far texts without labels are from the labelled rows; an empty text where there are no such texts.

    Args:
        record: The report.

    Example:
        >>> sides = {"rows": {"source": 50, "target": 1200}, "new_words": 0.25, "proxy_a_distance": 1.5}
        >>> describe_transfer({"data": {"transfer": sides}})
        '1,200 texts without labels; 25% of their words are new; proxy A-distance from train 1.50 of 2'
    """
    sides = find_section(record, "data", "transfer")
    if not sides:
        return ""
    distance = sides.get("proxy_a_distance")
    said = (
        f"{format_count(sides['rows']['target'])} texts without labels; {sides['new_words']:.0%} of their words are new"
    )
    return said if distance is None else f"{said}; proxy A-distance from train {distance:.2f} of 2"


def describe_pretraining(record: Mapping[str, Any]) -> str:
    """Say what continued masked-language pretraining did to perplexity; an empty text where there was none.

    Args:
        record: The report.

    Example:
        >>> found = {"texts": 900, "held_out": 47, "perplexity": {"before": 31.0, "after": 12.5}}
        >>> describe_pretraining({"training": {"methods": {"domain_mlm": found}}})
        'on 900 texts, perplexity of hidden words in 47 others from 31.0 to 12.5'
    """
    found = find_section(record, "training", "methods", "domain_mlm")
    if not found:
        return ""
    before, after = (found["perplexity"][name] for name in ("before", "after"))
    start = f"from {before:,.1f} to" if before is not None else "ends at"
    after = "an unknown number" if after is None else f"{after:,.1f}"
    texts, held_out = format_count(found["texts"]), format_count(found["held_out"])
    lead = f"on {texts} texts, perplexity of hidden words in {held_out} others"
    return f"{lead} {start} {after}" + ("" if before is not None else " (the encoder came without a head for it)")


def describe_rounds(record: Mapping[str, Any]) -> str:
    """Say how many texts each round of self-training took; an empty text where there were no rounds.

    Args:
        record: The report.

    Example:
        >>> rounds = [{"taken": 40, "changed": 1.0}, {"taken": 0, "changed": 0.004}]
        >>> describe_rounds({"training": {"methods": {"self_training": {"texts": 120, "rounds": rounds}}}})
        'round 1 took 40 of 120 texts; training ended before round 2, which would have changed 0.4% of the labels'
    """
    found = find_section(record, "training", "methods", "self_training")
    told = []
    for number, each in enumerate(found.get("rounds") or [], 1):
        if each["taken"]:
            told.append(f"round {number} took {format_count(each['taken'])} of {format_count(found['texts'])} texts")
        else:
            told.append(
                f"training ended before round {number}, which would have changed {each['changed']:.1%} of the labels"
            )
    return "; ".join(told)


APART, CHANCE, LESS = 0.95, 0.55, 0.05
"""Accuracy of a domain head that tells domains apart, and of one that guesses; and how much less says something. All
chosen; chance is 0.5."""

AS_CHANCE, NEARER = 1.1, 0.9
"""Distance of two domains in that of random halves, up to which they are not apart; and the share of the first tenth's
at which they have come nearer. Chosen."""


def describe_alignment(record: Mapping[str, Any]) -> str:
    """Say whether domains were aligned, by how well they can be told apart; an empty text where none were to be.

    Args:
        record: The report.

    Example:
        >>> found = {"loss": "dann", "accuracy": [0.55, 0.9, 0.62]}
        >>> describe_alignment({"training": {"methods": {"domain_alignment": found}}}).rpartition(": ")[2]
        'it tells the domains apart less well than it did'
        >>> found = {"loss": "coral", "distance": [0.02, 0.0196], "chance": [0.001, 0.001]}
        >>> describe_alignment({"training": {"methods": {"domain_alignment": found}}}).partition(" (")[0]
        'coral: the distance of the domains was 20.0 times that of random halves at first and 19.6 times at last'
    """
    found = find_section(record, "training", "methods", "domain_alignment")
    if found.get("accuracy"):
        return _describe_accuracy(found["loss"], found["accuracy"])
    if found.get("distance"):
        return _describe_distance(found["loss"], found["distance"], found["chance"])
    return ""


def _describe_accuracy(loss: str, accuracy: Sequence[float]) -> str:
    """What the accuracy of a domain head by tenths of the training says."""
    first, best, last = accuracy[0], max(accuracy), accuracy[-1]
    if last >= APART:
        meaning = "it still tells the domains apart, so nothing was aligned"
    elif best <= CHANCE:
        meaning = "it guessed from the start, so nothing was aligned"
    elif last <= best - LESS:
        meaning = "it tells the domains apart less well than it did"
    else:
        meaning = "it tells the domains apart as well as ever, so little was aligned"
    return (
        f"{loss}: the domain head placed {first:.0%} of the texts right at first, {best:.0%} at its best and "
        f"{last:.0%} at last (chance: 50%): {meaning}"
    )


def _describe_distance(loss: str, distances: Sequence[float], chances: Sequence[float]) -> str:
    """What the distance of two domains by tenths of the training says, in that of random halves of the same texts."""
    first, last = (distances[at] / chances[at] if chances[at] else 0.0 for at in (0, -1))
    if max(first, last) <= AS_CHANCE:
        meaning = "from the start they were no further apart than chance, so nothing was aligned"
    elif last <= max(first * NEARER, AS_CHANCE):
        meaning = "they came nearer"
    else:
        meaning = "they came no nearer, so nothing was aligned"
    return (
        f"{loss}: the distance of the domains was {first:.1f} times that of random halves at first and {last:.1f} "
        f"times at last ({distances[0]:.2g} and {distances[-1]:.2g}): {meaning}"
    )


def describe_methods(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what methods found out on the way, as (name, sentence); what a run has not is left out.

    Args:
        record: The report.
    """
    told = (
        ("Transfer", describe_transfer(record)),
        ("Masked-language pretraining", describe_pretraining(record)),
        ("Self-training", describe_rounds(record)),
        ("Domain alignment", describe_alignment(record)),
    )
    return [(name, said) for name, said in told if said]


def name_metric(key: str) -> str:
    """Name a metric as a heading, with the label if the metric is of a single class.

    Example:
        >>> name_metric("f1_macro"), name_metric("mcc"), name_metric("average_precision")
        ('F1 macro', 'MCC', 'Average precision')
    """
    if key in METRICS and METRICS[key].heading:
        return METRICS[key].heading
    base, label = split_metric(key)
    if label is not None:
        return f"{name_metric(base)}: {show_text(label)}"
    return show_text(key[:1].upper() + key[1:].replace("_", " "))


def split_metric(key: str) -> tuple[str, str | None]:
    """Split the key of a single class's metric into the metric and the label; the label is None for any other key.

    Example:
        >>> split_metric("f1_negative"), split_metric("f1_macro"), split_metric("f1_class_macro")
        (('f1', 'negative'), ('f1_macro', None), ('f1', 'macro'))
    """
    base, _, rest = key.partition("_")
    if base not in PER_CLASS or rest in AVERAGES or not rest:
        return key, None
    label = rest.removeprefix("class_")
    return base, label if label in AVERAGES else rest


def list_splits(record: Mapping[str, Any]) -> list[str]:
    """List the scored splits, the most important first: test, validation, train, then any other."""
    scores = find_section(record, "scores")
    known = [split for split in reversed(SPLITS) if scores.get(split)]
    return known + [split for split in scores if split not in SPLITS and scores[split]]


def choose_split(record: Mapping[str, Any]) -> str | None:
    """Choose the split of the headline: test if it was scored, else validation; None if no split was scored."""
    return next(iter(list_splits(record)), None)


def list_metrics(record: Mapping[str, Any], split: str) -> list[str]:
    """List a split's metrics in the recipe's order, then any others; metrics of single classes are left out."""
    present = [key for key in find_section(record, "scores", split) if split_metric(key)[1] is None]
    wanted = find_section(record, "recipe", "evaluation").get("metrics") or []
    first = [metric for metric in wanted if metric in present]
    return first + [metric for metric in present if metric not in first]


def list_class_scores(record: Mapping[str, Any], split: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Collect the metrics of single classes: label to metric to score."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key, score in find_section(record, "scores", split).items():
        metric, label = split_metric(key)
        if label is not None:
            found.setdefault(label, {})[metric] = read_score(score)
    return found


def choose_metric(record: Mapping[str, Any]) -> str | None:
    """Choose the metric of the headline: the first metric of the recipe that was scored on the split."""
    split = choose_split(record)
    return None if split is None else next(iter(list_metrics(record, split)), None)


def read_score(score: object) -> dict[str, Any]:
    """Read a score, a bare number or a dictionary, as a dictionary; empty for any other value."""
    if isinstance(score, Mapping):
        return dict(score)
    if isinstance(score, (int, float)) and not isinstance(score, bool):
        return {"value": float(score)}
    return {}


def list_baselines(record: Mapping[str, Any], split: str, metric: str) -> dict[str, dict[str, Any]]:
    """Collect the baselines that were scored with one metric on one split, by key and in order."""
    baselines = find_section(record, "baselines")
    ordered = [key for key in BASELINES if key in baselines] + [key for key in baselines if key not in BASELINES]
    found = {}
    for key in ordered:
        score = read_score(find_section(baselines, key, split).get(metric))
        if score.get("value") is not None:
            found[key] = score
    return found


def name_baseline(record: Mapping[str, Any], key: str, *, short: bool = False) -> str:
    """Name a baseline for the reader; short for the head of a column.

    Example:
        >>> name_baseline({}, "tfidf"), name_baseline({}, "tfidf", short=True)
        ('TF-IDF + logistic regression', 'TF-IDF')
    """
    names = BASELINES | REGRESSION_BASELINES if find_kind(record) == "regression" else BASELINES
    if short:
        names = SHORT_BASELINES | ({"majority": "Mean"} if names is not BASELINES else {})
    return names.get(key) or show_text(key.replace("_", " "))


def find_kind(record: Mapping[str, Any]) -> TaskKind:
    """Kind of the run's task."""
    kind = find_section(record, "data").get("kind") or find_section(record, "recipe", "task").get("kind")
    return next((known for known in get_args(TaskKind) if known == kind), "classification")


def write_headline(record: Mapping[str, Any]) -> str:
    """Say in one line how good the model is.

    Args:
        record: The report.

    Returns:
        The first metric, its interval, its n and, if there are several seeds, its spread.

    Example:
        >>> score = {"value": 0.872, "low": 0.835, "high": 0.905, "n": 330}
        >>> write_headline({"scores": {"test": {"accuracy": score}}})
        'Accuracy 0.872 [0.835, 0.905] on 330 test examples'
    """
    split, metric = choose_split(record), choose_metric(record)
    if split is None or metric is None:
        return "Nothing was scored: no split has labels"
    score = read_score(record["scores"][split][metric])
    interval = format_interval(score)
    parts = [name_metric(metric), format_number(score.get("value"))]
    if interval:
        parts.append(interval)
    text = " ".join(parts) + f" on {format_count(score.get('n'))} {show_text(split)} examples"
    if score.get("spread") is not None:
        text += f", mean of {len(score.get('per_seed') or [])} seeds, spread {format_number(score['spread'])}"
    return text


def count_updates(training: Mapping[str, Any]) -> str:
    """Say how many updates were made, or that none were.

    Example:
        >>> count_updates({"steps": 1620}), count_updates({"steps": 0})
        ('1,620 steps', 'fitted without updates')
    """
    return f"{format_count(training['steps'])} steps" if training.get("steps") else "fitted without updates"


def describe_gain(record: Mapping[str, Any]) -> tuple[str, str]:
    """Say in plain words whether transfer helped.

    Args:
        record: The report; its ``gain`` holds the model minus the better control, in the metric's own direction.

    Returns:
        A verdict and a sentence. With a no-transfer control the verdict is ``gain`` or ``harm``, with TF-IDF alone
        ``better`` or ``worse``; ``unclear`` if the interval contains 0, ``unknown`` if nothing was scored.

    Example:
        >>> gain = {"accuracy": {"value": 0.09, "low": 0.05, "high": 0.13, "n": 330, "over": "tfidf"}}
        >>> score = {"value": 0.872, "low": 0.835, "high": 0.905, "n": 330}
        >>> describe_gain({"gain": gain, "scores": {"test": {"accuracy": score}}})[0]
        'better'
    """
    metric = choose_metric(record)
    gain = {} if metric is None else read_score(find_section(record, "gain").get(metric))
    value, low, high = gain.get("value"), gain.get("low"), gain.get("high")
    if value is None or metric is None:
        if find_section(record, "scores") and not find_section(record, "scores", "test"):
            return "unknown", "The test split has no labels, so the run does not show whether transfer helped."
        return "unknown", "No control was scored with this run, so it does not show whether transfer helped."
    baselines = find_section(record, "baselines")
    over = name_baseline(record, str(gain.get("over", "")))
    both = "tfidf" in baselines and "no_transfer" in baselines
    control = f"{over}, the better of two controls" if both else over
    interval = format_interval(gain)
    change = "higher" if value >= 0 else "lower"
    sentence = f"{name_metric(metric)} is {format_number(abs(value))} {change} than with {control}"
    if interval:
        sentence += f" (difference {format_number(value)} {interval})"
    if low is None or high is None or low <= 0 <= high:
        return "unclear", f"No clear gain: {sentence}; that can be chance."
    # Only a difference from the same architecture without pretraining is an effect of transfer.
    has_control = "no_transfer" in baselines
    if (value < 0) == (metric in LOWER_IS_BETTER):
        verdict, said = ("gain", "Transfer helped") if has_control else ("better", "Better than the baseline")
    else:
        verdict, said = ("harm", "Transfer did harm") if has_control else ("worse", "Worse than the baseline")
    hint = "" if has_control else " This does not show whether transfer helped: add evaluation.control=true."
    return verdict, f"{said}: {sentence}.{hint}"


def name_label_columns(record: Mapping[str, Any], columns: Iterable[str] = ()) -> list[str]:
    """List label names in column order: from the report, else the predictions' columns, the recipe or label counts."""
    labels = find_section(record, "data").get("labels")
    if labels:
        return [str(name) for name in labels]
    names = [str(column).removeprefix("probability_") for column in columns if str(column).startswith("probability_")]
    if names:
        return names
    named = find_section(record, "recipe", "task").get("labels")
    if named:
        return [str(name) for name in named]
    counts = find_section(record, "data", "label_counts")
    seen: dict[str, None] = {}
    for split in counts.values():
        seen.update(dict.fromkeys(split))
    return list(seen)


def name_title(record: Mapping[str, Any]) -> str:
    """Title of the run: from the recipe, else encoder and data."""
    title = find_section(record, "recipe", "report").get("title")
    if title:
        return show_text(title, 120)
    encoder = find_section(record, "model").get("encoder") or "encoder"
    source = find_section(record, "data").get("source") or find_section(record, "recipe", "data").get("path")
    encoder, source = name_place(str(encoder)), name_place(str(source or ""))
    return show_text(f"{encoder} on {source}" if source else encoder, 120)


def name_place(place: str) -> str:
    """Name a file, folder or repository; of an absolute path only the last part, which does not reveal its owner.

    Example:
        >>> name_place("/home/someone/reviews.csv"), name_place("stanfordnlp/sst2")
        ('reviews.csv', 'stanfordnlp/sst2')
    """
    if PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute():
        return PureWindowsPath(place).name or place
    return place
