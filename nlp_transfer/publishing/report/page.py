"""The report as one HTML file, and as a fragment for notebooks.

Neither loads anything from outside nor runs a script; everything that comes from data or recipe is escaped.
"""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment
from markupsafe import Markup, escape

from nlp_transfer.contracts import Loader, TaskKind
from nlp_transfer.publishing.card import describe_reading, write_loading_code
from nlp_transfer.publishing.report import outcomes, plots
from nlp_transfer.publishing.report.console import show_path
from nlp_transfer.publishing.report.harm import describe_outcome, list_warnings
from nlp_transfer.publishing.report.scoreboard import collect_class_scores, collect_scores
from nlp_transfer.publishing.report.trust import collect_trust
from nlp_transfer.publishing.summary import (
    choose_metric,
    choose_split,
    count_updates,
    describe_methods,
    find_kind,
    find_section,
    format_bytes,
    format_count,
    format_duration,
    format_interval,
    format_number,
    list_baselines,
    list_metrics,
    name_baseline,
    name_label_columns,
    name_metric,
    name_title,
    read_score,
    show_text,
    write_headline,
)
from nlp_transfer.publishing.views import make_templates, read_styles
from nlp_transfer.recipe.metrics import TABLE as METRICS
from nlp_transfer.recipe.strategies.table import STRATEGIES

__all__ = ["render_fragment", "render_page"]

MAX_TEXT = 600
"""Letters of an example's text that the page shows; chosen to keep a page of long texts readable."""

MANY_CLASSES = 12
"""Above this many classes a matrix keeps its size on a phone and is scrolled."""

OPEN_ERRORS = 8
"""Worst errors that are seen without a click."""

MAX_ROWS = 200
"""Rows of a table of classes."""

PICTURES = ("learning", "comparison", "labels", "confusion", "reliability", "outcomes", "numbers")


VERDICTS = {
    "gain": "Transfer helped",
    "harm": "Transfer did harm",
    "better": "Better than the baseline",
    "worse": "Worse than the baseline",
    "unclear": "No clear gain",
    "unknown": "No control",
}


def render_page(record: Mapping[str, Any], predictions: pd.DataFrame | None, *, folder: Path | None = None) -> str:
    """Write the report as one self-contained HTML file.

    Args:
        record: The report, as ``report.json`` holds it.
        predictions: The frame that is ``predictions.parquet``; without it there is no picture of errors.
        folder: The run's folder, for the loading calls; the recipe's ``output_dir`` where absent.

    Returns:
        The whole page, UTF-8 text.
    """
    return _render("page.html.j2", record, predictions, folder)


def render_fragment(record: Mapping[str, Any], predictions: pd.DataFrame | None, *, folder: Path | None = None) -> str:
    """Write headline, scores and pictures as a fragment that a notebook shows.

    Args:
        record: The report, as ``report.json`` holds it.
        predictions: The frame that is ``predictions.parquet``, or None.
        folder: The run's folder; the recipe's ``output_dir`` where absent.

    Returns:
        One ``<div>`` with its own style.
    """
    return _render("fragment.html.j2", record, predictions, folder)


def _render(template: str, record: Mapping[str, Any], predictions: pd.DataFrame | None, folder: Path | None) -> str:
    """Fill a template; autoescape is on for every value."""
    return _read_templates().get_template(template).render(_collect(record, predictions, folder))


@cache
def _read_templates() -> Environment:
    """The templates, each compiled once a process."""
    environment = make_templates("nlp_transfer.publishing")
    environment.filters.update(text=show_text, number=format_number, count=format_count)
    environment.filters.update(bytes=format_bytes, duration=format_duration, breakable=_make_breakable)
    return environment


def _collect(record: Mapping[str, Any], predictions: pd.DataFrame | None, folder: Path | None) -> dict[str, Any]:
    """Gather what the templates show."""
    recipe = find_section(record, "recipe")
    kind = find_kind(record)
    columns = [] if predictions is None else list(predictions.columns)
    names = name_label_columns(record, columns)
    labelled, shown = _select_rows(record, predictions)
    verdict, gain = describe_outcome(record)
    return {
        "title": name_title(record),
        "headline": write_headline(record),
        "hero": _collect_hero(record),
        "verdict": verdict,
        "verdict_name": VERDICTS[verdict],
        # The verdict stands above the sentence, so it is not said twice.
        "gain": gain if verdict == "unknown" else gain.partition(": ")[2],
        "harms": list_warnings(record),
        "chips": _list_chips(record, kind, names),
        "cards": _list_cards(record),
        "tables": collect_scores(record),
        "classes": collect_class_scores(record, MAX_ROWS),
        "name_baseline": partial(name_baseline, record),
        "confidence": f"{find_section(recipe, 'evaluation').get('confidence', 0.95) * 100:g} %",
        "pictures": _draw_pictures(record, labelled, names, kind),
        "pairs_only": len(names) > plots.MAX_MATRIX_CLASSES,
        "many_labels": len(names) > plots.MAX_LABELS,
        "many_classes": len(names) > MANY_CLASSES,
        "kept_seed": find_section(record, "training").get("seed") if record.get("seeds") else None,
        "shown_split": shown,
        "trust": collect_trust(record),
        "errors": _list_errors(record, labelled, names, kind),
        "has_test": "test" in find_section(record, "data", "rows"),
        "max_text": MAX_TEXT,
        "open_errors": OPEN_ERRORS,
        "data": _collect_data(record),
        "training": _list_training(record),
        "code": _list_code(record, names, kind, folder),
        "recipe": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        "environment": _list_environment(record),
        "version": str(record.get("version", "")),
        "styles": Markup(read_styles()),
    }


def _make_breakable(text: str) -> Markup:
    """Let a long name break after its underscores, where a reader would break it."""
    return Markup(escape(text).replace("_", Markup("_<wbr>")))


def _select_rows(record: Mapping[str, Any], predictions: pd.DataFrame | None) -> tuple[pd.DataFrame, str | None]:
    """Rows with labels of the split of the headline."""
    split = choose_split(record)
    if predictions is None or split is None or "split" not in predictions:
        return pd.DataFrame(), split
    return outcomes.select_labelled(predictions, split), split


def _collect_hero(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figure that stands on top; None where nothing was scored."""
    split, metric = choose_split(record), choose_metric(record)
    if split is None or metric is None:
        return None
    score = read_score(record["scores"][split][metric])
    low, high, value = score.get("low"), score.get("high"), score.get("value")
    bar = {}
    is_share = metric not in METRICS or METRICS[metric].is_share
    if (
        is_share
        and low is not None
        and high is not None
        and value is not None
        and 0 <= low <= high <= 1
        and 0 <= value <= 1
    ):
        bar = {"low": round(low * 100, 2), "wide": round((high - low) * 100, 2), "at": round(value * 100, 2)}
    return {
        "metric": name_metric(metric),
        "value": format_number(value),
        "interval": format_interval(score),
        "n": format_count(score.get("n")),
        "split": split,
        "spread": None if score.get("spread") is None else format_number(score["spread"]),
        "seeds": len(score.get("per_seed") or []),
        "bar": bar,
        "baselines": [
            (name_baseline(record, key), format_number(found["value"]))
            for key, found in list_baselines(record, split, metric).items()
        ],
    }


def _list_chips(record: Mapping[str, Any], kind: TaskKind, names: list[str]) -> list[str]:
    """What the run was, in a few words each."""
    recipe = find_section(record, "recipe")
    seeds = find_section(recipe, "training").get("seeds") or record.get("seeds") or []
    chips = [
        kind.replace("_", "-"),
        f"{len(names)} labels" if kind != "regression" and names else "",
        f"encoder {find_section(record, 'model').get('encoder') or '?'}",
        f"strategy {find_section(recipe, 'strategy').get('kind', 'full')}",
        *(f"method {method.get('kind')}" for method in recipe.get("methods") or []),
        f"{len(seeds)} seeds" if seeds else "",
    ]
    return [show_text(chip, 60) for chip in chips if chip]


def _list_cards(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key figures as (name, value, remark)."""
    training, model = find_section(record, "training"), find_section(record, "model")
    cards = []
    split = choose_split(record)
    for metric in (list_metrics(record, split) if split else [])[1:3]:
        score = read_score(record["scores"][split][metric])
        cards.append((name_metric(metric), format_number(score.get("value")), format_interval(score)))
    if training.get("seconds") is not None:
        cards.append(("Training", format_duration(training["seconds"]), count_updates(training)))
    if training.get("examples_per_second"):
        speed, tokens = training["examples_per_second"], training.get("tokens_per_second")
        cards.append(("Examples per second", format_count(speed), f"{format_count(tokens)} tokens" if tokens else ""))
    if model.get("parameters"):
        share = (model.get("trainable") or 0) / model["parameters"]
        cards.append(("Weights trained", f"{share:.2g}" if share < 0.001 else f"{share:.1%}", _count_weights(model)))
    if training.get("peak_memory_bytes"):
        device = find_section(record, "environment").get("device") or "memory"
        cards.append(("Peak memory", format_bytes(training["peak_memory_bytes"]), show_text(device, 30)))
    return cards


def _count_weights(model: Mapping[str, Any]) -> str:
    """Say how many weights there are."""
    return f"of {model['parameters'] / 1e6:,.1f} million"


def _draw_pictures(
    record: Mapping[str, Any], labelled: pd.DataFrame, names: list[str], kind: TaskKind
) -> dict[str, Markup]:
    """Every picture by name; an empty text where there is nothing to draw. matplotlib escapes what it writes."""
    split, metric = choose_split(record), choose_metric(record)
    training = find_section(record, "training")
    selected = find_section(record, "recipe", "training").get("select_by") or metric or ""
    losses = [(int(row["step"]), float(row["loss"])) for row in training.get("losses") or [] if row["loss"] is not None]
    evaluations = [
        (int(row["step"]), float(row["metrics"][selected]))
        for row in training.get("evaluations") or []
        if row["metrics"].get(selected) is not None
    ]
    svgs = dict.fromkeys(PICTURES, "") | {
        "learning": plots.draw_learning_curves(
            losses,
            evaluations,
            metric=name_metric(selected),
            best_step=training.get("best_step"),
            loss="Training loss, squared standard deviations" if kind == "regression" else "Training loss",
        ),
        "labels": plots.draw_labels(find_section(record, "data", "label_counts")),
    }
    if split is not None and metric is not None:
        found = list_baselines(record, split, metric)
        rows = [("This model", read_score(record["scores"][split][metric]))]
        rows += [(name_baseline(record, key), score) for key, score in found.items()]
        svgs["comparison"] = plots.draw_comparison(rows, metric=name_metric(metric)) if found else ""
    if len(labelled):
        svgs |= _draw_outcomes(labelled, names, kind)
    return {name: Markup(svg) for name, svg in svgs.items()}


def _draw_outcomes(labelled: pd.DataFrame, names: list[str], kind: TaskKind) -> dict[str, str]:
    """Pictures of what was predicted."""
    if kind == "regression":
        numbers = [labelled[column].to_numpy(dtype=float) for column in ("label", "predicted")]
        return {"numbers": plots.draw_numbers(*numbers)}
    reliability = outcomes.bin_confidence(labelled, names, kind)
    is_multi = kind == "multi_label"
    svgs = {"reliability": plots.draw_reliability(reliability, of_labels=is_multi) if reliability else ""}
    if is_multi:
        svgs["outcomes"] = plots.draw_label_outcomes(outcomes.count_label_outcomes(labelled, names))
    else:
        svgs["confusion"] = plots.draw_confusion(outcomes.count_confusions(labelled, names), names)
    return svgs


def _list_errors(
    record: Mapping[str, Any], labelled: pd.DataFrame, names: list[str], kind: TaskKind
) -> list[dict[str, Any]]:
    """The most confident mistakes, texts cut."""
    limit = find_section(record, "recipe", "evaluation").get("worst_errors", 20)
    return [
        {
            "id": error.id,
            "texts": [
                (show_text(text, MAX_TEXT), len(text)) for text in (error.text, error.text_b) if text is not None
            ],
            "label": show_text(error.label, 120),
            "predicted": show_text(error.predicted, 120),
            "probability": error.probability,
            "error": None if error.error is None else format_number(error.error, signed=True),
        }
        for error in outcomes.find_worst_errors(labelled, names, kind, limit)
    ]


def _collect_data(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was found in the data: a table by split, counts, notes and warnings."""
    data = find_section(record, "data")
    rows, truncated, counts = (find_section(data, key) for key in ("rows", "truncated", "label_counts"))
    drawn = set(data.get("drawn") or [])
    splits = [
        {
            "name": split,
            "rows": format_count(n),
            "labels": len(counts[split]) if split in counts else None,
            "truncated": format_count(truncated.get(split, 0)),
            "drawn": split in drawn,
        }
        for split, n in rows.items()
    ]
    facts = [
        (f"Dropped: {show_text(why, 80)}", format_count(n)) for why, n in find_section(data, "dropped").items() if n
    ]
    facts += [
        (f"Without a token that the encoder knows: {show_text(split, 60)}", format_count(n))
        for split, n in find_section(data, "unseen").items()
        if n
    ]
    shares = find_section(data, "unknown_share")
    if any(shares.values()):
        listed = ", ".join(f"{show_text(split, 60)} {share:.2%}" for split, share in shares.items())
        facts.append(("Tokens that the encoder does not know", listed))
    if data.get("alike"):
        facts.append(("Same tokens, another text, another label, within train", format_count(data["alike"])))
    facts += [
        (f"Also in another split ({show_text(pair.replace('/', ' → '), 60)}, {show_text(how, 30)})", format_count(n))
        for pair, kinds in find_section(data, "leaked").items()
        for how, n in kinds.items()
        if n
    ]
    if data.get("conflicting"):
        facts.append(("Same text, another label, within train", format_count(data["conflicting"])))
    source = data.get("source") or find_section(record, "recipe", "data").get("path") or ""
    texts = {key: [show_text(line, 500) for line in data.get(key) or []] for key in ("notes", "warnings")}
    return {"source": show_text(source, 120), "splits": splits, "facts": facts, **texts}


def _list_training(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the training went, as (name, value)."""
    training = find_section(record, "training")
    share = training.get("padding_share") if training.get("steps") else None
    resumed = ", ".join(format_count(step) for step in training.get("resumed_at") or [])
    rows = [
        ("Steps", format_count(training.get("steps"))),
        ("Time in the loop", format_duration(training.get("seconds"))),
        ("Examples per second", format_count(training.get("examples_per_second"))),
        ("Tokens per second", format_count(training.get("tokens_per_second") or None)),
        ("Padding, share of tokens", "—" if share is None else f"{share:.1%}"),
        ("Peak memory", format_bytes(training.get("peak_memory_bytes"))),
        ("Weights kept from step", format_count(training.get("best_step"))),
        ("Stopped early", "yes" if training.get("stopped_early") else "no"),
        ("Resumed at step", resumed),
        *describe_methods(record),
        ("Damaged checkpoints", show_text("; ".join(training.get("damaged_checkpoints") or []), 300)),
        ("Collapsed", "yes: one class for every validation example" if training.get("collapsed") else ""),
    ]
    return [(name, value) for name, value in rows if value and value != "—"]


def _list_code(record: Mapping[str, Any], names: list[str], kind: TaskKind, folder: Path | None) -> list[str]:
    """The loading calls: plain transformers or peft, then this package."""
    recipe = find_section(record, "recipe")
    strategy = find_section(recipe, "strategy")
    place = show_path(folder) if folder else str(find_section(recipe, "report").get("output_dir") or ".")
    path = (Path(place) / str(record.get("artifact") or "model")).as_posix()
    loader = find_section(record, "model").get("loader")
    format_: Loader = loader or _guess_loader(strategy)
    reading = describe_reading(record)
    texts = '["a text to read"], ["its second text"]' if reading["is_pair"] else '["a text to read"]'
    ours = (
        f"import nlp_transfer as nt\nclassifier = nt.Classifier.from_pretrained({path!a})\nclassifier.predict({texts})"
    )
    if format_ == "nlp_transfer":
        return [ours]
    return [write_loading_code(path, format_, names, kind, **reading)[0], ours]


def _guess_loader(strategy: Mapping[str, Any]) -> Loader:
    """What loads the artefact of a strategy, where the report does not say so."""
    facts = STRATEGIES.get(str(strategy.get("kind")))
    return "transformers" if facts is None or strategy.get("merge") else facts.loads_with


def _list_environment(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Device, precision and versions, as (name, value)."""
    environment = find_section(record, "environment")
    rows = [(key, value) for key, value in environment.items() if not isinstance(value, (dict, list))]
    rows += list(find_section(environment, "versions").items())
    return [(show_text(key, 60), show_text(value, 120)) for key, value in rows if value is not None]
