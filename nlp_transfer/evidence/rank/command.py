"""Source selection: which encoder suits a table, told from one pass of each over some of its rows."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from nlp_transfer.contracts import Splits, Track, track_nothing
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.fingerprints import hash_tables
from nlp_transfer.data.load import load_splits
from nlp_transfer.engine.train.hooks import track_work
from nlp_transfer.errors import RecipeError
from nlp_transfer.evidence.embedding import EmbeddedRows, embed_rows, find_posteriors, is_trained_on, narrow_splits
from nlp_transfer.evidence.estimators import (
    score_gbc,
    score_h,
    score_h_deep,
    score_h_even,
    score_leep,
    score_logme,
    score_nce,
    score_neighbors,
    score_nleep,
    score_probe,
    score_transrate,
)
from nlp_transfer.evidence.rank.options import (
    DEFAULT_LAYERS,
    DEFAULT_LIMIT,
    NEEDS_SOURCE,
    VERIFY_EPOCHS,
    choose_estimators,
    read_layers_option,
)
from nlp_transfer.evidence.rank.result import Ranking, claim_ranking
from nlp_transfer.evidence.rank.verify import VerifyingRuns, choose_goal, verify_encoders
from nlp_transfer.models.encoder import open_encoder
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import Recipe

__all__ = ["FEATURE_ESTIMATORS", "rank"]

FORMAT = 1
"""Of ``rank.json``."""

FEATURE_ESTIMATORS: dict[str, Callable[[NDArray[np.float64], NDArray[np.int64], int, int], float]] = {
    "h_score_depth": lambda features, labels, _, layers: score_h_deep(features, labels, num_layers=layers),
    "h_score": lambda features, labels, *_: score_h_even(features, labels),
    "h_score_lw": lambda features, labels, *_: score_h(features, labels),
    "logme": lambda features, labels, *_: score_logme(features, labels),
    "probe": lambda features, labels, seed, _: score_probe(features, labels, seed=seed),
    "knn": lambda features, labels, *_: score_neighbors(features, labels),
    "nleep": lambda features, labels, seed, _: score_nleep(features, labels, seed=seed),
    "transrate": lambda features, labels, *_: score_transrate(features, labels),
    "gbc": lambda features, labels, *_: score_gbc(features, labels),
}
"""Estimators that read features, by their key; the last arguments are a seed and the encoder's count of layers."""

SOURCE_ESTIMATORS = {"leep": score_leep, "nce": score_nce}
"""Estimators that read the answers of an encoder's old head."""


def rank(
    data: object,
    encoders: Sequence[str | Path],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    estimators: Sequence[str] = (),
    layers: str | int = DEFAULT_LAYERS,
    limit: int = DEFAULT_LIMIT,
    pooling: str = "mean",
    verify: int = 0,
    seed: int = 0,
    output_dir: str | Path | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Ranking:
    """Rank encoders by how well they suit a labelled table, before any of them is trained.

    Every encoder runs once over the same rows of train. Estimators look at the vectors, and at the answers of the head
    where an encoder is a fine-tuned classifier. The first estimator decides the order. The best of it may be verified
    by short fine-tunes; then the one that does best on validation is named.

    Args:
        data: A path, bundled name or Hub id, a `datasets.Dataset` or `DatasetDict`, a pandas or polars frame, an Arrow
            table, a dictionary of columns, or a mapping of those by split name; one class a row.
        encoders: Two or more of: alias, folder, Hub id, or an earlier run, whose head is dropped.
        overrides: Dotted recipe keys, ``["data.text=body"]`` or a mapping: how the table is read, and how
            verification trains.
        estimators: Keys of `ESTIMATOR_NAMES`, or ``all``; the default where empty.
        layers: ``mean`` of all layers, ``last``, a number, or ``all``: each by itself, where the best one counts.
        limit: Most train rows that are looked at, with equal shares of every class.
        pooling: How the tokens of a text become one vector: ``mean``, ``first`` or ``max``.
        verify: How many of the best are fine-tuned; 0 for none.
        seed: Of the rows, of estimators that draw, and of verification.
        output_dir: Where ``rank.json``, ``report.html`` and the verifying runs go; nothing is kept where absent.
        progress: Whether to show how far it is.
        console: Where that is shown; stderr, or the notebook's cell, where absent.

    Returns:
        The ranking.

    Raises:
        RecipeError: An option is not one of those there are.
        DataError: The table cannot be used, or has another task.
        EncoderError: An encoder cannot be loaded.
        OutputError: The output folder is somebody else's.
    """
    console = console or Console(stderr=True, quiet=not progress)
    names = _check_names(encoders)
    chosen, layers = choose_estimators(list(estimators)), read_layers_option(layers)
    _check_counts(limit=limit, verify=verify, pooling=pooling)
    recipe, source = _build_recipe(data, names[0], overrides, seed)
    goal = choose_goal(recipe) if verify else ""
    for name in names:
        # A name that leads nowhere is told before the first encoder runs.
        open_encoder(recipe.encoder.model_copy(update={"name": name}))
    findings = Findings()
    splits = load_splits(recipe.data, recipe.task, seed=seed, source=source, findings=findings)
    for note in (*findings.list_notes(), *splits.facts.warnings):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    folder = None if output_dir is None else claim_ranking(Path(output_dir), splits.facts.source)
    rows = narrow_splits(splits, limit, seed)
    track = track_nothing if console.quiet else lambda label, total: track_work(console, label, total)
    settings = {"estimators": chosen, "layers": layers, "limit": limit, "pooling": pooling, "seed": seed}
    found = [_look_at(name, rows, recipe, settings, track) for name in names]
    found.sort(key=lambda row: _read_figure(row, chosen[0]), reverse=True)
    record = _write_record(rows, settings | {"max_length": recipe.data.max_length}, found)
    if verify:
        with tempfile.TemporaryDirectory() as aside:
            place = Path(aside) if folder is None else folder / "verify"
            runs = VerifyingRuns(recipe, source, place, hash_tables(splits), console)
            record["verification"] = verify_encoders(found, verify, runs, goal)
    ranking = Ranking(record, folder)
    if folder is not None:
        ranking.save(folder)
    return ranking


def _read_figure(row: Mapping[str, Any], estimator: str) -> float:
    """A row's figure to sort by; one without a figure comes last."""
    value = row["scores"][estimator]
    return -float("inf") if value is None else float(value)


def _write_record(rows: Splits, settings: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``rank.json`` holds, before anything is verified."""
    return {
        "format": FORMAT,
        "data": {
            "source": rows.facts.source,
            "rows": len(rows.tables["train"]),
            "train_rows": rows.facts.rows["train"],
            "labels": list(rows.labels.names),
        },
        "settings": dict(settings),
        "encoders": list(found),
        "verification": None,
    }


def _check_names(encoders: Sequence[str | Path]) -> list[str]:
    """Names of the encoders, each once."""
    if isinstance(encoders, str | Path):
        raise RecipeError(f"encoders: expected a list of names, got one, {encoders!s}. Name two or more.")
    names = [str(name) for name in encoders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"encoders: expected each once, got {twice[0]} twice. Name it once.")
    if len(names) < 2:
        raise RecipeError(
            f"encoders: expected two or more to compare, got {len(names)}. Name each with --encoder NAME, or in a list."
        )
    return names


def _check_counts(*, limit: int, verify: int, pooling: str) -> None:
    """Refuse options that mean nothing."""
    if limit < 2:
        raise RecipeError(f"limit: expected 2 rows or more, got {limit}.")
    if verify < 0:
        raise RecipeError(f"verify: expected 0 or more encoders, got {verify}.")
    if pooling not in ("mean", "first", "max"):
        raise RecipeError(f"pooling: expected mean, first or max, got {pooling!r}.")


def _build_recipe(
    data: object, encoder: str, overrides: Sequence[str] | Mapping[str, Any], seed: int
) -> tuple[Recipe, object | None]:
    """The recipe that says how rows are read and how verification trains; and the tables where they are in memory."""
    in_memory = not isinstance(data, str | Path)
    path = f"in-memory-{type(data).__name__}" if in_memory else str(data)
    base = {
        "data": {"path": path},
        "encoder": {"name": encoder},
        "training": {"epochs": VERIFY_EPOCHS, "seed": seed},
    }
    return load_recipe(base, overrides), data if in_memory else None


def _look_at(name: str, rows: Splits, recipe: Recipe, settings: Mapping[str, Any], track: Track) -> dict[str, Any]:
    """Run one encoder and every estimator; gives its row of the record."""
    config = recipe.encoder.model_copy(update={"name": name})
    labels_N = np.asarray(rows.tables["train"]["label"], dtype=np.int64)
    start = time.perf_counter()
    embedded = embed_rows(
        config, rows, recipe, pooling=settings["pooling"], track=lambda _, total: track(f"reading {name}", total)
    )
    features = embedded.combine(settings["layers"])
    row: dict[str, Any] = {
        "name": name,
        **_describe(embedded),
        "is_trained_here": is_trained_on(embedded.source, recipe.data.path),
        "scores": {},
        "layers_used": {},
        "scores_by_layer": {},
        "reasons": {},
        "seconds": {"embed": time.perf_counter() - start},
    }
    if any(estimator in NEEDS_SOURCE for estimator in settings["estimators"]):
        start = time.perf_counter()
        posteriors_NZ, reason = find_posteriors(config, rows, recipe)
        row["seconds"]["head"] = time.perf_counter() - start
    for estimator in settings["estimators"]:
        start = time.perf_counter()
        if estimator in NEEDS_SOURCE:
            given = None if posteriors_NZ is None else SOURCE_ESTIMATORS[estimator](posteriors_NZ, labels_N)
            row["scores"][estimator] = given
            if given is None:
                row["reasons"][estimator] = reason
        else:
            score, seed, depth = FEATURE_ESTIMATORS[estimator], settings["seed"], embedded.num_layers
            each = {layer: score(part, labels_N, seed, depth) for layer, part in features.items()}
            best = max(each, key=lambda layer: each[layer])
            row["scores"][estimator], row["layers_used"][estimator] = each[best], best
            if len(each) > 1:
                row["scores_by_layer"][estimator] = {str(layer): value for layer, value in each.items()}
        row["seconds"][estimator] = time.perf_counter() - start
    return row


def _describe(embedded: EmbeddedRows) -> dict[str, Any]:
    """What an encoder is, in figures."""
    return {
        "hub_id": embedded.source.hub_id,
        "num_layers": embedded.num_layers,
        "hidden_size": int(embedded.vectors.shape[2]),
        "parameters": embedded.parameters,
    }
