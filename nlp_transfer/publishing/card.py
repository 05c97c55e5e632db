"""The model card: a README.md that the Hub can read and a person can check."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from nlp_transfer.contracts import Loader, TaskKind
from nlp_transfer.models.resolve import ALIASES, is_hub_id
from nlp_transfer.publishing.report.harm import describe_outcome, list_warnings
from nlp_transfer.publishing.report.scoreboard import collect_class_scores, collect_scores
from nlp_transfer.publishing.summary import (
    choose_split,
    describe_methods,
    find_section,
    format_count,
    format_interval,
    format_number,
    name_baseline,
    name_metric,
    name_place,
    name_title,
    read_score,
    show_text,
    write_headline,
)

__all__ = [
    "count_label_rows",
    "describe_calibration",
    "describe_control",
    "describe_reading",
    "drop_places",
    "escape_markdown",
    "list_data_facts",
    "list_environment",
    "list_inherited",
    "render_card",
    "suggest_widget",
    "write_hub_card",
    "write_loading_code",
]

MAX_CLASSES = 200
"""Most classes that the card lists one by one."""

TASK_TEXT: dict[str, str] = {
    "classification": "one class of several",
    "ordinal": "one of several ordered classes",
    "multi_label": "any number of classes at once",
    "regression": "a number",
}


def write_loading_code(
    path: str,
    format: Loader,  # noqa: A002 - the word that the ecosystem uses
    labels: Sequence[str],
    kind: TaskKind = "classification",
    *,
    is_pair: bool = False,
    max_length: int | None = None,
) -> list[str]:
    """Write the Python calls that load an artefact, without this package where possible.

    Args:
        path: Folder or Hub id of the artefact.
        format: What the folder is: a ``transformers`` model, a ``peft`` adapter, or a custom one.
        labels: Label names in column order; peft stores no label names, so its call passes them.
        kind: The task; sets the pipeline's output function.
        is_pair: Whether the input is a pair of texts.
        max_length: Maximum tokens in training; the call truncates longer texts to it.

    Returns:
        Blocks of Python code, each complete.

    Example:
        >>> print(write_loading_code("model", "peft", ["no", "yes"])[0].splitlines()[-1])
        model = AutoPeftModelForSequenceClassification.from_pretrained('model', num_labels=2, \
id2label={0: 'no', 1: 'yes'}, label2id={'no': 0, 'yes': 1}, dtype="float32")
    """
    place = ascii(path)
    if format == "nlp_transfer":
        texts = '["a text to read"], ["its second text"]' if is_pair else '["a text to read"]'
        return [
            "import nlp_transfer as nt\n"
            f"classifier = nt.Classifier.from_pretrained({place})\n"
            f"classifier.predict({texts})"
        ]
    if format == "peft":
        names = [ascii(name) for name in labels]
        id2label = ", ".join(f"{index}: {name}" for index, name in enumerate(names))
        label2id = ", ".join(f"{name}: {index}" for index, name in enumerate(names))
        return [
            "from peft import AutoPeftModelForSequenceClassification\n"
            f"model = AutoPeftModelForSequenceClassification.from_pretrained({place}, num_labels={len(names)}, "
            f'id2label={{{id2label}}}, label2id={{{label2id}}}, dtype="float32")',
            f"from transformers import AutoTokenizer\ntokenizer = AutoTokenizer.from_pretrained({place})",
        ]
    function = {"multi_label": ', top_k=None, function_to_apply="sigmoid"', "regression": ', function_to_apply="none"'}
    text = '{"text": "a text to read", "text_pair": "its second text"}' if is_pair else '"a text to read"'
    cut = "" if max_length is None else f", truncation=True, max_length={max_length}"
    return [
        "from transformers import pipeline\n"
        f'classify = pipeline("text-classification", model={place}{function.get(kind, "")})\n'
        f"classify({text}{cut})",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        f"model = AutoModelForSequenceClassification.from_pretrained({place})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({place})",
    ]


def describe_reading(record: Mapping[str, Any]) -> dict[str, Any]:
    """Collect how texts were tokenized, as arguments of ``write_loading_code``."""
    data = find_section(record, "data")
    return {"is_pair": bool(data.get("is_pair")), "max_length": data.get("max_length")}


def escape_markdown(value: object, limit: int = 300) -> str:
    r"""Escape foreign text for Markdown, and HTML inside it.

    Example:
        >>> escape_markdown("<b>a|b</b> [x](y)")
        '&lt;b&gt;a\\|b&lt;/b&gt; \\[x\\](y)'
    """
    text = show_text(value, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A zero-width space in a URL scheme prevents a link; escaped signs start no list, heading or rule.
    text = re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", text)
    return re.sub(r"(?i)\b(https?|ftp|mailto|javascript|www)([:.])", r"\1&#8203;\2", text)


def render_card(
    record: Mapping[str, Any],
    *,
    format: Loader,  # noqa: A002 - the word that the ecosystem uses
    kind: TaskKind,
    labels: Sequence[str],
    path: str = "path/to/model",
) -> str:
    """Write the model card of a run.

    Args:
        record: The report, as ``report.json`` holds it.
        format: What the artefact is: a ``transformers`` model, a ``peft`` adapter, or a custom one.
        kind: The task.
        labels: Label names in column order.
        path: Folder or Hub id for the loading calls.

    Returns:
        Markdown with YAML metadata in front, ending in a newline.
    """
    body = _read_template().render(
        name_baseline=partial(name_baseline, record),
        title=name_title(record),
        headline=write_headline(record),
        gain=describe_outcome(record),
        harms=list_warnings(record),
        model=find_section(record, "model"),
        base=_name_encoder(record)[0],
        data=find_section(record, "data"),
        strategy=find_section(record, "recipe", "strategy").get("kind", "full"),
        labels=labels,
        kind=kind,
        task_text=TASK_TEXT[kind],
        format=format,
        code=write_loading_code(path, format, labels, kind, **describe_reading(record)),
        long_text=find_section(record, "data").get("long_text", "truncate"),
        path=path,
        tables=collect_scores(record),
        classes=collect_class_scores(record, MAX_CLASSES),
        confidence=find_section(record, "recipe", "evaluation").get("confidence", 0.95),
        seeds=record.get("seeds") or [],
        limits=_list_limits(record, kind),
        calibration=describe_calibration(record, kind),
        control=describe_control(record),
        inherited=list_inherited(*_name_encoder(record), _recall(record, "language")),
        label_rows=count_label_rows(record, MAX_CLASSES),
        data_facts=list_data_facts(record),
        methods=describe_methods(record),
        environment=list_environment(record),
        source=name_place(str(find_section(record, "data").get("source") or "")),
        recipe=_fence(yaml.safe_dump(drop_places(find_section(record, "recipe")), sort_keys=False)),
        count=format_count,
    )
    metadata = _collect_metadata(record, format).to_yaml(line_break="\n")
    return f"---\n{metadata.strip()}\n---\n\n{body.strip()}\n"


def write_hub_card(
    card: str | None,
    metadata: Mapping[str, Any],
    report: Mapping[str, Any] | None,
    *,
    repo_id: str,
    format: Loader,  # noqa: A002 - the word that the ecosystem uses
    kind: TaskKind,
    labels: Sequence[str],
) -> str:
    """Write the card for the Hub; its loading calls name the repository in place of a folder.

    Args:
        card: The card in the artefact's folder, where there is one.
        metadata: Content of ``nlp_transfer.json``; empty where there is none.
        report: The report of the artefact's run, where it is known; the card is then rendered from the report.
        repo_id: OWNER/NAME.
        format: Format of the artefact.
        kind: The task.
        labels: Label names in column order.

    Returns:
        Markdown with YAML metadata in front.
    """
    if report is not None:
        return render_card(report, format=format, kind=kind, labels=labels, path=repo_id)
    if card is not None:
        # Replace only inside code blocks: there the path is a literal that this module wrote.
        pattern = re.compile(r"""(from_pretrained\(|pipeline\("text-classification", model=)('[^'\n]*'|"[^"\n]*")""")
        return re.sub(
            r"```python\n.*?```",
            lambda block: pattern.sub(lambda call: call[1] + ascii(repo_id), block[0]),
            card,
            flags=re.DOTALL,
        )
    encoder = find_section(metadata, "encoder")
    known: dict[str, Any] = {
        "recipe": find_section(metadata, "recipe"),
        "model": {"encoder": encoder.get("name"), "hub_id": encoder.get("hub_id")},
        "data": find_section(metadata, "reading"),
    }
    return render_card(known, format=format, kind=kind, labels=labels, path=repo_id)


@cache
def _read_template() -> Template:
    """Read the card's template, compiled once per process."""
    environment = Environment(
        loader=PackageLoader("nlp_transfer.publishing"),
        autoescape=False,  # Markdown, not HTML: foreign text goes through the md filter.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(md=escape_markdown)
    return environment.get_template("card.md.j2")


def _name_encoder(record: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name the encoder for the reader (of an absolute path only the last part), and its Hub id where it has one."""
    model = find_section(record, "model")
    name = str(model.get("encoder") or find_section(record, "recipe", "encoder").get("name", ""))
    hub_id = model.get("hub_id") or ALIASES.get(name)
    if hub_id is None and "hub_id" not in model and _is_on_hub(name):
        hub_id = name
    return name_place(name) or "encoder", hub_id


def _recall(record: Mapping[str, Any], key: str) -> Any:
    """Read a key of the recipe's ``report`` section."""
    return find_section(record, "recipe", "report").get(key)


def _is_on_hub(name: str) -> bool:
    """Whether a name is OWNER/NAME and no local path."""
    return "/" in name and is_hub_id(name) and not Path(name).suffix and not Path(name).exists()


def _collect_metadata(record: Mapping[str, Any], library: Loader) -> ModelCardData:
    """Collect the metadata for the Hub: library, task, base model, license, scores on test."""
    data = find_section(record, "data")
    wanted = find_section(record, "recipe", "data")
    source = str(data.get("source") or wanted.get("path") or "data")
    repository = str(wanted.get("path") or source)
    # The source of data from the Hub is OWNER/NAME, or OWNER/NAME (configuration).
    is_hub_data = _is_on_hub(repository) and source.startswith(repository)
    strategy = str(find_section(record, "recipe", "strategy").get("kind", "full"))
    results = []
    for metric, score in find_section(record, "scores", "test").items():
        value = read_score(score).get("value")
        if value is None or not math.isfinite(value):
            continue
        results.append(
            EvalResult(
                task_type="text-classification",
                dataset_type=repository if is_hub_data else "custom",
                dataset_config=wanted.get("name") if is_hub_data else None,
                dataset_name=show_text(name_place(source), 100),
                dataset_split="test",
                metric_type=show_text(metric, 100),
                metric_name=name_metric(metric),
                metric_value=round(float(value), 6),
            )
        )
    return ModelCardData(
        base_model=_name_encoder(record)[1],
        datasets=[repository] if is_hub_data else None,
        language=_recall(record, "language"),
        license=_recall(record, "license"),
        library_name=library,
        pipeline_tag="text-classification",
        tags=["nlp_transfer", "text-classification", strategy],
        eval_results=results or None,
        model_name=name_title(record) if results else None,
        widget=suggest_widget(library, is_pair=bool(data.get("is_pair"))),
    )


UNIT_LIMITS = {
    "regression": "Predictions and errors are in the unit of the target. Load the model in float32: 16 bits would "
    "round large numbers.",
    "ordinal": "The order of the classes is used, not their values: MAE and MSE count classes.",
}
"""Notes on the unit of the figures."""


def _list_limits(record: Mapping[str, Any], kind: TaskKind) -> list[str]:
    """Say what was measured and what was not, in a list of sentences."""
    baselines, data = find_section(record, "baselines"), find_section(record, "data")
    split = choose_split(record)
    limits = []
    if split is None:
        limits.append("Nothing was scored: no split has labels. How good the predictions are is unknown.")
    elif split != "test":
        limits.append(
            f"The test split has no labels. The scores are from {split}, which also selected the saved weights, so "
            "the scores may be too good."
        )
    else:
        limits.append("The scores hold for texts like those of the test split; other sources were not measured.")
    if split in (data.get("drawn") or []):
        limits.append(f"The {split} split was drawn from train, so its scores do not cover texts from other sources.")
    leaked = sum(sum(kinds.values()) for kinds in find_section(data, "leaked").values())
    if leaked:
        limits.append(f"Rows that are also in another split: {leaked}. They can make the scores too good.")
    if "no_transfer" not in baselines:
        limits.append("The no-transfer control (same encoder, random weights) was not trained.")
    if "tfidf" not in baselines:
        linear = "ridge" if kind == "regression" else "logistic"
        limits.append(f"TF-IDF with {linear} regression was not scored.")
    if kind in UNIT_LIMITS:
        limits.append(UNIT_LIMITS[kind])
    if kind in ("classification", "ordinal") and not record.get("calibration"):
        limits.append("Probabilities are not calibrated; ECE, where it is listed, measures their calibration error.")
    return limits + _list_trust_limits(record)


def _list_trust_limits(record: Mapping[str, Any]) -> list[str]:
    """Name the steps that only nlp_transfer applies, and the groups with the lowest scores."""
    limits = []
    if record.get("calibration"):
        how = find_section(record, "calibration").get("kind")
        limits.append(
            f"Probabilities were calibrated ({how}, fitted on validation), and the scores use the calibrated "
            "probabilities. nlp_transfer applies the calibration; transformers and peft do not."
        )
    if record.get("thresholds"):
        limits.append(
            "Labels are decided by thresholds chosen on validation. nlp_transfer applies them; transformers and peft "
            "do not."
        )
    slices = find_section(record, "slices", "columns")
    unmeasured = "Robustness" if slices else "Fairness across groups, robustness"
    limits.append(f"{unmeasured} to attack and toxicity of content were not measured.")
    for column, table in slices.items():
        if table.get("worst") is not None:
            worst = next(row for row in table["groups"] if row["name"] == table["worst"])
            limits.append(
                f"Of the groups by {show_text(column, 40)}, the model does worst on {show_text(worst['name'], 60)}: "
                f"{name_metric(str(table['metric']))} {format_number(worst['value'])} {format_interval(worst)} on "
                f"{format_count(worst['n'])} rows."
            )
    return limits


def drop_places(value: Any) -> Any:
    """Copy a recipe with absolute paths cut to their last part, since a card is public."""
    if isinstance(value, Mapping):
        return {key: drop_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [drop_places(item) for item in value]
    return name_place(value) if isinstance(value, str) else value


def _fence(text: str) -> str:
    """Put text in a code block with a fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.strip()}\n{fence}"


LEAST_SHARE = 0.01
"""Share of unknown tokens from which the card states it; chosen."""

WIDGET_TEXTS = ("I would happily see it again tomorrow.", "Nobody answered, and the battery was dead by lunch.")
"""Texts to try on the Hub; made up, because texts of the data may be private."""


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
    """List counts of truncated, unreadable, dropped and repeated texts, one sentence each; zero counts are left out."""
    data = find_section(record, "data")
    facts = []
    for key, words in (
        ("truncated", "Truncated texts"),
        ("unseen", "Texts without a token in the encoder's vocabulary"),
        ("dropped", "Dropped rows"),
    ):
        found = {name: count for name, count in find_section(data, key).items() if count}
        if found:
            facts.append(f"{words}: {', '.join(f'{name} {format_count(count)}' for name, count in found.items())}.")
    shares = {name: share for name, share in find_section(data, "unknown_share").items() if share >= LEAST_SHARE}
    if shares:
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        facts.append(f"Share of unknown tokens: {listed}.")
    if data.get("alike"):
        facts.append(
            f"Train rows with the same tokens as a different text that has another label: "
            f"{format_count(data['alike'])}."
        )
    if data.get("conflicting"):
        facts.append(f"Rows whose text also occurs with another label: {format_count(data['conflicting'])}.")
    return facts


def describe_calibration(record: Mapping[str, Any], kind: TaskKind) -> str:
    """Say in one sentence how well probabilities are calibrated; empty for a regression.

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
        return "Calibration was not measured: of predictions at probability 0.9, nine in ten need not be right."
    ends = f" [{format_number(score.get('low'))}, {format_number(score.get('high'))}]"
    return (
        f"Expected calibration error on {split}: {format_number(score['value'])}{ends if 'low' in score else ''} on "
        f"{format_count(score.get('n'))} examples. This is the mean difference between the predicted probability and "
        "the share of right predictions; 0 is perfect."
    )


def describe_control(record: Mapping[str, Any]) -> str:
    """Say what the no-transfer control is and whether it was trained."""
    if "no_transfer" in find_section(record, "baselines"):
        return (
            "The no-transfer control is the same architecture, trained on the same rows from random weights: the "
            "difference between the model and this control is the effect of pretraining."
        )
    return "This run does not show whether pretraining helped: add the no-transfer control, evaluation.control=true."


def list_inherited(base: str, hub_id: str | None, language: str | None) -> list[str]:
    """Say what the model inherits from its encoder and from its labels, independent of its scores.

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
        f"The model keeps what its encoder {base} learned from pretraining texts, stereotypes about groups of people "
        f"included; {where} describes these texts. Names, dialects and identity terms can change a prediction where "
        "they should not.",
        "Labels are the judgments of annotators: the model learns their errors and habits, and the scores are measured "
        "against the same labels.",
        f"The model is meant for {spoken}. Do not use it alone to decide about people.",
    ]


def list_environment(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List versions and machine facts as pairs of a name and a value."""
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
