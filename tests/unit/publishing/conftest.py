"""Made-up runs of every task, so that showing a run is tested without training one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

Run = tuple[dict[str, Any], pd.DataFrame]

TEXTS = [
    "A joy to watch from the first frame to the last, and I would happily see it again tomorrow.",
    "I wanted to like it. The battery dies by lunch and support never answered, which says it all really.",
    "Not bad, though the soup was cold and nobody seemed to mind.",
    "The room smelled of paint.",
]


def make_run(
    kind: str = "classification",
    labels: tuple[str, ...] = ("negative", "positive"),
    *,
    num: int = 330,
    labelled_test: bool = True,
    lora: bool = False,
    controls: bool = True,
) -> Run:
    """Make the report and the predictions of a run that never took place."""
    rng = np.random.default_rng(0)
    frames = [make_split(kind, labels, split, num, rng) for split in ("validation", "test")]
    predictions = pd.concat(frames, ignore_index=True)
    metrics = {
        "classification": ["accuracy", "f1_macro", "mcc", "log_loss", "ece"],
        "ordinal": ["accuracy", "f1_macro", "quadratic_kappa", "mae"],
        "multi_label": ["f1_micro", "f1_macro", "accuracy", "average_precision"],
        "regression": ["mse", "mae", "pearson", "spearman"],
    }[kind]
    score = {
        metric: {"value": 0.872 - 0.02 * i, "low": 0.835 - 0.02 * i, "high": 0.905 - 0.02 * i, "n": num}
        for i, metric in enumerate(metrics)
    }
    splits = ["validation", "test"] if labelled_test else ["validation"]
    if not labelled_test:
        predictions["label"] = predictions["label"].astype(object)
        predictions.loc[predictions["split"] == "test", "label"] = None
    record: dict[str, Any] = {
        "version": "0.1.0",
        "recipe": {
            "task": {"kind": kind, "labels": None},
            "encoder": {"name": "minilm-l6", "init": "pretrained"},
            "data": {"path": "reviews", "max_length": 128},
            "strategy": {"kind": "lora", "rank": 8, "merge": False} if lora else {"kind": "full"},
            "training": {"epochs": 3.0, "learning_rate": 5e-05, "seed": 0, "select_by": metrics[0]},
            "evaluation": {"metrics": metrics, "confidence": 0.95, "worst_errors": 20},
            "report": {"output_dir": "runs/quickstart", "title": None, "license": "apache-2.0", "language": "en"},
        },
        "environment": {
            "versions": {"nlp_transfer": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.9"},
            "device": "cpu",
            "precision": "bf16",
        },
        "data": {
            "source": "reviews",
            "rows": {"train": 780, "validation": num, "test": num},
            "label_counts": {}
            if kind == "regression"
            else {split: count_labels(predictions, split, labels) for split in ["validation", *splits[1:]]},
            "truncated": {"train": 3, "validation": 0, "test": 1},
            "dropped": {"empty text": 2},
            "leaked": {"train/test": {"exact": 1, "near": 0}},
            "conflicting": 4,
            "drawn": ["validation"],
            "notes": ["Column 'review' was taken as the text."],
            "warnings": ["1 test row also stands in train; data.leaks=drop removes it."],
        },
        "model": {
            "encoder": "minilm-l6",
            "revision": None,
            "family": "bert",
            "parameters": 22_713_986,
            "trainable": 22_713_986,
        },
        "training": {
            "steps": 75,
            "seconds": 43.2,
            "examples_per_second": 54.1,
            "tokens_per_second": 1850.0,
            "padding_share": 0.047,
            "peak_memory_bytes": 1_400_000_000,
            "losses": [{"step": i, "loss": float(0.7 * np.exp(-i / 30) + rng.normal(0, 0.04))} for i in range(1, 76)],
            "evaluations": [
                {"step": 25 * (i + 1), "epoch": i + 1.0, "metrics": dict.fromkeys(metrics, value)}
                for i, value in enumerate((0.81, 0.874, 0.868))
            ],
            "best_step": 50,
            "stopped_early": False,
            "resumed_at": [],
            "collapsed": False,
        },
        "scores": dict.fromkeys(splits, score),
        "artifact": "model",
    }
    if controls:
        add_controls(record, metrics, splits, num)
    return record, predictions


def add_controls(record: dict[str, Any], metrics: list[str], splits: list[str], num: int) -> None:
    """Add baselines and the gain over the better one."""
    low = {metric: {"value": 0.76, "low": 0.71, "high": 0.8, "n": num} for metric in metrics}
    record["baselines"] = {
        "tfidf": dict.fromkeys(splits, low),
        "no_transfer": {split: {metric: {"value": 0.69} for metric in metrics} for split in splits}
        | {"learning_rate": 3e-4},
        "majority": {split: {metrics[0]: 0.5} for split in splits},
    }
    sign = -1 if metrics[0] == "mse" else 1
    ends = sorted((sign * 0.067, sign * 0.155))
    record["gain"] = {metrics[0]: {"value": sign * 0.112, "low": ends[0], "high": ends[1], "n": num, "over": "tfidf"}}


def make_split(kind: str, labels: tuple[str, ...], split: str, num: int, rng: np.random.Generator) -> pd.DataFrame:
    """Make one split's predictions: about four of five are right."""
    frame = pd.DataFrame(
        {
            "split": split,
            "id": [f"{split}-{i}" for i in range(num)],
            "text": [TEXTS[i % len(TEXTS)] for i in range(num)],
        }
    )
    if kind == "regression":
        true = rng.uniform(0, 5, num)
        return frame.assign(label=true, predicted=true + rng.normal(0, 0.5, num))
    true_ids = rng.integers(0, len(labels), num)
    logits_NC = rng.normal(0, 1.1, (num, len(labels)))
    logits_NC[np.arange(num), true_ids] += 2.2 + np.log(len(labels)) * 0.8
    if kind == "multi_label":
        probabilities_NC = 1 / (1 + np.exp(-(logits_NC - 1.5)))
        frame["label"] = [[labels[i], labels[(i + 1) % len(labels)]] if i % 3 == 0 else [labels[i]] for i in true_ids]
        frame["predicted"] = [[labels[c] for c in np.flatnonzero(row > 0.5)] for row in probabilities_NC]
    else:
        powers_NC = np.exp(logits_NC)
        probabilities_NC = powers_NC / powers_NC.sum(axis=1, keepdims=True)
        frame["label"] = [labels[i] for i in true_ids]
        frame["predicted"] = [labels[i] for i in probabilities_NC.argmax(axis=1)]
    columns = pd.DataFrame(probabilities_NC, columns=[f"probability_{name}" for name in labels])
    return pd.concat([frame, columns], axis=1)


def count_labels(predictions: pd.DataFrame, split: str, labels: tuple[str, ...]) -> dict[str, int]:
    """Count examples per label of a split."""
    cells = predictions.loc[predictions["split"] == split, "label"]
    sets = [set(cell) if isinstance(cell, list) else {cell} for cell in cells]
    return {name: sum(name in cell for cell in sets) for name in labels}


@pytest.fixture
def make() -> Callable[..., Run]:
    """The maker of runs."""
    return make_run
