"""Advice on a labelled table before any training: facts, distances, quick probes, a ranked list of strategies."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from nlp_transfer.contracts import Splits, Track, track_nothing
from nlp_transfer.data.checks import hash_texts
from nlp_transfer.data.encode import resolve_max_length
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.unseen import Unseen, describe_unseen, find_unseen, suggest_encoder
from nlp_transfer.engine.precision import choose_device
from nlp_transfer.errors import DataError
from nlp_transfer.evaluation.shift import compute_coral, compute_mmd, measure_proxy_distance
from nlp_transfer.evidence.advise.candidates import Outlook, rank_candidates, write_outlook
from nlp_transfer.evidence.advise.distance import (
    measure_fragmentation,
    score_masked_tokens,
)
from nlp_transfer.evidence.advise.facts import (
    bound_accuracy,
    count_repeats,
    describe_classes,
    describe_lengths,
    find_suspects,
    guess_language,
)
from nlp_transfer.evidence.advise.gains import Situation
from nlp_transfer.evidence.advise.probes import (
    Probe,
    choose_strength,
    extrapolate_curve,
    make_folds,
    measure_curve,
    predict_logistic,
    predict_neighbors,
    predict_tfidf,
    summarize_folds,
)
from nlp_transfer.evidence.advise.result import Advice, claim_advice
from nlp_transfer.evidence.advise.sample import REFERENCE, Sample, draw_sample, find_middle, read_vectors, time_passes
from nlp_transfer.evidence.estimators import score_logme
from nlp_transfer.models.encoder import (
    LoadedEncoder,
    load_encoder,
    open_encoder,
)
from nlp_transfer.models.masked_head import load_masked_model
from nlp_transfer.models.resolve import EncoderSource
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.overrides import check_sections
from nlp_transfer.recipe.schema import EncoderConfig, Recipe, ZeroShotConfig
from nlp_transfer.strategies.zero_shot import adapt_zero_shot

__all__ = ["advise"]

MASKED_ROWS, CLOUD_ROWS = 64, 500
"""Rows of the masked-language loss, and most of a cloud; chosen."""

SMALL, MANY_FOLDS, FEW_FOLDS = 1_000, 5, 3
"""Up to so many rows there are at most five folds, above it three; chosen: little data wants every row, much data
time."""

IN_MEMORY = "YOUR_TABLE"
"""Stands for the path of a table in memory, in the commands of advice too."""

MOST_SHOWN = 20
"""Unknown characters that the advice names; chosen."""

MOST_SUSPECTS = 10
"""Rows with a suspected label that the advice names."""


@dataclass(frozen=True)
class _Probed:
    """What quick classifiers found."""

    probes: tuple[Probe, ...]
    best: Probe
    curve: list[tuple[int, float]]
    suspects: np.ndarray
    log_evidence: float

    @property
    def is_mixed(self) -> bool:
        """Whether the middle layer helped."""
        return self.best.name == "middle_features"


def advise(
    data: object,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    encoder: str = EncoderConfig().name,
    text: str | None = None,
    text_b: str | None = None,
    label: str | None = None,
    limit: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    output_dir: str | Path | None = None,
    track: Track = track_nothing,
) -> Advice:
    """Say which transfer strategies suit a labelled table, before any of them is trained.

    Looks at train alone: what its rows are like, how far they lie from what the encoder knows, and what quick
    classifiers on fixed vectors reach by cross-validation. From that every strategy gets an expected accuracy with an
    interval, an expected cost on this machine, reasons, and the recipe to run.

    Args:
        data: Bundled name, file, folder of splits, Hub id, `datasets.Dataset` or `DatasetDict`, pandas or polars frame,
            Arrow table, dictionary of columns, or a mapping of those by split name.
        overrides: Further dotted keys of ``data``, as ``["data.invalid=drop"]`` or a mapping; the advised recipes get
            them too.
        encoder: Alias, folder, earlier run or Hub id.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text of a pair.
        label: Column of the label.
        limit: First rows of the shuffled train, as ``data.limit``.
        shots: Rows a class, as ``data.shots``.
        seed: Of draws and folds.
        output_dir: Folder that gets ``advice.json`` and ``report.html``; nothing is written where absent.
        track: Shows how far it is.

    Returns:
        The advice.

    Raises:
        DataError: The table cannot be used, or holds too few rows or classes.
        RecipeError: An override is of another section, or does not fit.
        EncoderError: The encoder cannot be loaded.
        OutputError: The folder holds something else.
        StorageError: The machine cannot read or write.
    """
    started = time.perf_counter()
    source = None if isinstance(data, str | Path) else data
    columns = {"text": text, "text_b": text_b, "label": label, "limit": limit, "shots": shots}
    recipe, told = _make_recipe(data, encoder, columns, overrides, seed)
    splits = load_splits(recipe.data, recipe.task, seed=seed, source=source)
    if output_dir is not None:
        claim_advice(output_dir, splits.facts.source)
    _check_splits(splits)
    origin, tokenizer, loaded, max_length = _load(recipe, splits, seed)
    model: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    sample = draw_sample(splits, tokenizer, model, max_length=max_length, seed=seed)
    forward_seconds = time_passes(model, sample)
    last, mixed, cloud = read_vectors(model, sample, track)
    distance = _measure_distances(origin, tokenizer, sample, last, cloud, max_length=max_length, seed=seed)
    found = _probe(sample, last, mixed, seed=seed)
    zero_shot = None if splits.is_pair else _try_labels(loaded, sample, last)
    encoded = sample.prepared.splits["train"]
    unseen = find_unseen(splits.tables["train"].select(sample.rows), encoded, tokenizer)
    outlook = _look_out(sample, found, distance, zero_shot, forward_seconds, max_length, told)
    lost = _write_unseen(unseen, tokenizer)
    outlook = replace(
        outlook, blind=unseen.blind_share, is_carried=unseen.score is not None, reader=lost["encoder"] or ""
    )
    if found.is_mixed:
        outlook = replace(outlook, layers=(find_middle(model), -1))
    record = {
        **_write_down(sample, found, outlook),
        "unseen": lost,
        "encoder": {"name": encoder, "max_length": max_length, "forward_seconds": forward_seconds},
        "distance": distance,
        "in_memory": source is not None,
        "seed": seed,
        "seconds": time.perf_counter() - started,
    }
    record["notes"] += describe_unseen(unseen, tokenizer, where="train", way="try it with --encoder")
    advice = Advice(record)
    if output_dir is not None:
        advice.save(output_dir)
    return advice


def _look_out(
    sample: Sample,
    found: _Probed,
    distance: Mapping[str, Any],
    zero_shot: tuple[float, float] | None,
    forward_seconds: float,
    max_length: int,
    told: tuple[str, ...],
) -> Outlook:
    """Put together what ranking looks at."""
    return Outlook(
        situation=_describe_situation(sample, found, distance),
        probe_error=_find_error(found.best.score, found.best.rows, found.best),
        zero_shot=zero_shot,
        rows=dict(sample.splits.facts.rows),
        max_length=max_length,
        slope=found.curve[-1][1] - found.curve[-2][1] if len(found.curve) > 1 else 0.0,
        word_ratio=_compare({name: part["tokens_per_word"] for name, part in distance["fragmentation"].items()}),
        loss_ratio=None if distance["masked_loss"] is None else _compare(distance["masked_loss"]),
        forward_seconds=forward_seconds,
        layers=None,
        data=told,
        ceiling=_find_ceiling(sample),
    )


def _find_ceiling(sample: Sample) -> float:
    """Accuracy that no classifier on this encoder passes on the rows that were looked at."""
    counts = sample.prepared.splits["train"].counts
    return 1.0 if counts is None else bound_accuracy(counts.keys, sample.labels)


def _write_unseen(unseen: Unseen, tokenizer: Any) -> dict[str, Any]:
    """What the encoder does not see of the rows that were looked at, and which one would."""
    kind, encoder, _ = suggest_encoder(unseen.characters, len(tokenizer))
    return {
        **asdict(unseen),
        "characters": list(unseen.characters)[:MOST_SHOWN],
        "unknown_share": unseen.unknown_share,
        "blind_share": unseen.blind_share,
        "kind": kind if unseen.is_notable else "",
        "encoder": encoder if unseen.is_notable else None,
    }


def _write_down(sample: Sample, found: _Probed, outlook: Outlook) -> dict[str, Any]:
    """What was found, as JSON holds it."""
    facts, zero_shot = sample.splits.facts, outlook.zero_shot
    return {
        "data": _describe_data(sample, found.suspects, outlook.max_length),
        "probes": [asdict(probe) for probe in found.probes],
        "log_evidence": found.log_evidence,
        "curve": [{"rows": rows, "score": score} for rows, score in found.curve],
        "zero_shot": zero_shot and {"score": zero_shot[0], "error": zero_shot[1]},
        **write_outlook(outlook),
        "candidates": [asdict(candidate) for candidate in rank_candidates(outlook)],
        "notes": [*facts.notes, *facts.warnings, *_take_notes(sample, outlook)],
    }


def _make_recipe(
    data: object,
    encoder: str,
    columns: Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any],
    seed: int,
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe's data and encoder sections, checked as such, and the overrides that tell another recipe the same."""
    further = check_sections(overrides, ("data",), where="advise")
    section = {"path": str(data) if isinstance(data, str | Path) else IN_MEMORY}
    section |= {key: value for key, value in columns.items() if value is not None}
    recipe = load_recipe({"encoder": {"name": encoder}, "data": section, "training": {"seed": seed}}, further)
    told = [f"data.{key}={value}" for key, value in section.items()]
    told += [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in further.items()]
    told += [f"encoder.name={encoder}"] if encoder != EncoderConfig().name else []
    told += [f"training.seed={seed}"] if seed else []
    return recipe, tuple(told)


def _check_splits(splits: Splits) -> None:
    """Refuse what has no classes to tell apart."""
    num_held = sum(count > 0 for count in splits.facts.label_counts.get("train", {}).values())
    rows = splits.facts.rows["train"]
    if num_held < 2 or rows < 2 * MANY_FOLDS:
        raise DataError(
            f"{splits.facts.source}: expected at least {2 * MANY_FOLDS} train rows of two classes to advise on, came "
            f"{rows} of {num_held}. Add rows; strategy.kind=zero_shot needs none."
        )


def _load(recipe: Recipe, splits: Splits, seed: int) -> tuple[EncoderSource, Any, LoadedEncoder, int]:
    """The encoder on its device, its tokenizer, and how many tokens it reads."""
    opened = open_encoder(recipe.encoder)
    origin, tokenizer, settings = opened.source, opened.tokenizer, opened.settings
    splits.facts.notes += opened.notes
    loaded = load_encoder(recipe.encoder, splits.labels, seed=seed)
    loaded.model.to(torch.device(choose_device("auto"))).eval()
    return origin, tokenizer, loaded, resolve_max_length(tokenizer, settings, recipe.data.max_length)


def _measure_distances(
    origin: EncoderSource,
    tokenizer: Any,
    sample: Sample,
    last: np.ndarray,
    cloud: np.ndarray,
    *,
    max_length: int,
    seed: int,
) -> dict[str, Any]:
    """Distances of words, masked tokens and vectors; the rows are in random order, so the first are a sample."""
    near = last[:CLOUD_ROWS]
    both = {"data": sample.texts, "reference": sample.reference}
    model = None if tokenizer.mask_token_id is None else load_masked_model(origin)
    losses = (
        None
        if model is None
        else {
            name: score_masked_tokens(model, tokenizer, texts[:MASKED_ROWS], max_length=max_length, seed=seed)
            for name, texts in both.items()
        }
    )
    return {
        "reference": REFERENCE,
        "rows": [len(near), len(cloud)],
        "proxy_a_distance": measure_proxy_distance(near, cloud, seed=seed),
        "coral": compute_coral(near, cloud),
        "mmd": compute_mmd(near, cloud),
        "fragmentation": {
            name: {**asdict(measure_fragmentation(texts, tokenizer)), "unknown_share": _count_unknown(sample, split)}
            for (name, texts), split in zip(both.items(), ("train", "reference"), strict=True)
        },
        "masked_loss": losses,
    }


def _count_unknown(sample: Sample, split: str) -> float:
    """Share of the tokens that are unknown, as the tokenizer has them."""
    counts = sample.prepared.splits[split].counts
    return 0.0 if counts is None else counts.unknown_share


def _compare(figures: Mapping[str, float]) -> float:
    """A figure of the data over that of the reference sample."""
    return figures["data"] / max(figures["reference"], 1e-9)


def _probe(sample: Sample, last: np.ndarray, mixed: np.ndarray, *, seed: int) -> _Probed:
    """Quick classifiers by cross-validation, the learning curve of the best head, and suspected labels."""
    labels, space = sample.labels, sample.splits.labels
    folds = make_folds(labels, MANY_FOLDS if len(labels) <= SMALL else FEW_FOLDS, seed=seed)
    heads: dict[str, tuple[Probe, np.ndarray, np.ndarray, float]] = {}
    for name, vectors in (("features", last), ("middle_features", mixed)):
        strength = choose_strength(vectors, labels, space, seed=seed)
        given = predict_logistic(vectors, labels, space, folds, strength=strength, seed=seed)
        heads[name] = (summarize_folds(name, given.argmax(axis=1), labels, folds), given, vectors, strength)
    plain, other = heads["features"][0], heads["middle_features"][0]
    # The last layer is what everyone expects; another must be better by more than chance.
    is_better = other.score > plain.score + _find_error(plain.score, plain.rows, plain)
    best, given, vectors, strength = heads["middle_features" if is_better else "features"]
    curve = measure_curve(vectors, labels, space, folds, strength=strength, seed=seed)
    curve.append((round(len(labels) * (1 - 1 / len(folds))), best.score))
    neighbors = predict_neighbors(last, labels, space.num_outputs, folds).argmax(axis=1)
    tfidf = predict_tfidf(sample.texts, labels, folds, seed=seed)
    others = [summarize_folds(name, n, labels, folds) for name, n in (("neighbors", neighbors), ("tfidf", tfidf))]
    return _Probed((plain, other, *others), best, curve, find_suspects(given, labels), score_logme(last, labels))


def _find_error(score: float, rows: int, probe: Probe | None = None) -> float:
    """Standard error of a share; that of the folds' mean where it is larger. Never 0, even of a perfect score."""
    error = math.sqrt(max(score * (1 - score), 0.25 / rows) / rows)
    return error if probe is None else max(error, probe.spread / math.sqrt(probe.folds))


def _try_labels(loaded: LoadedEncoder, sample: Sample, last: np.ndarray) -> tuple[float, float]:
    """Accuracy of the labels' own names on train, as zero_shot has it, and its standard error."""
    loaded.model.cpu()
    head: Any = adapt_zero_shot(loaded, ZeroShotConfig(kind="zero_shot")).model.head
    score = float(((last @ head.weight.detach().numpy().T).argmax(axis=1) == sample.labels).mean())
    return score, _find_error(score, len(last))


def _describe_situation(sample: Sample, found: _Probed, distance: Mapping[str, Any]) -> Situation:
    """What gains depend on."""
    rows = sample.splits.facts.rows["train"]
    expected = extrapolate_curve(found.curve, rows)
    tfidf = next(probe.score for probe in found.probes if probe.name == "tfidf")
    return Situation(
        probe=expected,
        # What more rows bring the one they bring the other, for want of a curve of its own.
        tfidf=min(1.0, tfidf + expected - found.best.score),
        rows=rows,
        classes=sample.splits.labels.num_outputs,
        distance=float(distance["proxy_a_distance"]),
    )


def _describe_data(sample: Sample, suspects: np.ndarray, max_length: int) -> dict[str, Any]:
    """The facts of train."""
    facts = sample.splits.facts
    train = sample.splits.tables["train"]
    columns = [name for name in ("text", "text_b") if name in train.column_names]
    exact, near = hash_texts(pa.table({name: pa.array(list(train[name]), pa.string()) for name in columns}))
    language, scripts = guess_language(sample.texts)
    return {
        "source": facts.source,
        "rows": dict(facts.rows),
        "label_counts": facts.label_counts["train"],
        "classes": describe_classes(facts.label_counts["train"]),
        "lengths": describe_lengths(sample.lengths, max_length),
        "duplicates": {"exact": count_repeats(exact), "near": count_repeats(near)},
        "conflicting": facts.conflicting,
        "language": language,
        "scripts": scripts,
        "probed_rows": len(sample.rows),
        "label_noise": len(suspects) / len(sample.rows),
        "suspects": [
            {
                "id": str(train[int(sample.rows[row])]["id"]),
                "text": sample.texts[row][:200],
                "label": sample.splits.labels.names[sample.labels[row]],
            }
            for row in suspects[:MOST_SUSPECTS].tolist()
        ],
    }


def _take_notes(sample: Sample, outlook: Outlook) -> list[str]:
    """What the reader should know of how the advice came about."""
    notes = []
    if f"data.path={IN_MEMORY}" in outlook.data:
        notes.append(
            f"The table is in memory: write it to a file and name that in place of {IN_MEMORY}, or give the recipe and "
            "its overrides to nlp_transfer.run with data=."
        )
    if len(sample.rows) < outlook.situation.rows:
        notes.append(
            f"Probes looked at {len(sample.rows):,} of {outlook.situation.rows:,} rows; their scores are carried on."
        )
    if outlook.slope > 0.01:
        notes.append(f"Twice the rows brought fixed features {outlook.slope:+.3f}: more labels will still pay.")
    return notes
