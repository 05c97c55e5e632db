"""Plant wrong labels in clean data and count how many of those listed by `nlp-transfer suspects` are wrong.

Labels are changed at random, or where the texts are ambiguous, which is harder and nearer to what people do. Every way
of estimating is scored on the same rows: the regression alone, the neighbors alone, both. The table says the mean
precision of the most suspect twentieth over the seeds.

    python recipes/scripts/check_suspects.py ../shared/data/trec ../shared/data/sst2 --limit 2500 --seeds 3
    nlp-transfer suspects ../shared/data/ag_news --label human_label --truth label --drop-invalid    # real noise
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nlp_transfer.data.load import load_splits
from nlp_transfer.evaluation.confident_learning import View, estimate_held_out, rank_suspects
from nlp_transfer.evidence.suspects.command import embed_splits
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

WAYS: dict[str, tuple[View, ...]] = {
    "regression": ("regression",),
    "neighbors": ("neighbors",),
    "regression + neighbors": ("regression", "neighbors"),
}


def plant_noise(clean_NC: np.ndarray, labels: np.ndarray, kind: str, rate: float, seed: int) -> np.ndarray:
    """Change a share of the labels: any row to any other class, or ambiguous rows to the likeliest other one.

    Args:
        clean_NC: What held-out estimates on the clean labels say, shape (N, C).
        labels: Clean class ids, shape (N,).
        kind: ``random`` or ``ambiguous``.
        rate: Share that is changed.
        seed: Draws the rows.

    Returns:
        Class ids, shape (N,).
    """
    draw, num_classes = np.random.default_rng(seed), clean_NC.shape[1]
    rows, changed = np.arange(len(labels)), labels.copy()
    others = clean_NC.copy()
    others[rows, labels] = 0.0
    num_wrong = round(rate * len(labels))
    if kind == "random":
        chosen = draw.choice(rows, num_wrong, replace=False)
        changed[chosen] = (labels[chosen] + draw.integers(1, num_classes, num_wrong)) % num_classes
        return changed
    # A trace of a chance for the clear rows, so that the draw does not run out of rows.
    weights = others.max(axis=1) + 0.02
    chosen = draw.choice(rows, num_wrong, replace=False, p=weights / weights.sum())
    changed[chosen] = others[chosen].argmax(axis=1)
    return changed


def check_set(path: str, encoder: str, limit: int | None, seeds: int) -> list[dict[str, Any]]:
    """Score every way on one set: a row a noise, rate, seed and way."""
    data = DataConfig(path=path, limit=limit)
    splits = load_splits(data, TaskConfig(), seed=0)
    vectors_ND = embed_splits(splits, ["train"], data, encoder=encoder)
    labels = np.asarray(splits.tables["train"].with_format("numpy")["label"][:])
    num_classes = splits.labels.num_outputs
    clean_NC = estimate_held_out(vectors_ND, labels, num_classes, seed=99)
    found = []
    for kind, rate, seed in product(("random", "ambiguous"), (0.1, 0.2), range(seeds)):
        given = plant_noise(clean_NC, labels, kind, rate, seed)
        for way, views in WAYS.items():
            ranking = rank_suspects(given, estimate_held_out(vectors_ND, given, num_classes, seed=seed, views=views))
            listed = ranking.rows[: max(1, round(0.05 * len(given)))]
            row = {"set": Path(path).stem, "noise": kind, "rate": rate, "seed": seed, "views": way, "rows": len(given)}
            found.append({**row, "precision": float((given != labels)[listed].mean())})
    return found


def main() -> int:
    """Check every set and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="files or folders of splits whose labels can be trusted")
    parser.add_argument("--encoder", default="minilm-l6", help="alias, folder or Hub id")
    parser.add_argument("--limit", type=int, default=None, help="rows of train")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the noise")
    parser.add_argument("--out", type=Path, default=None, help="JSON with every figure")
    options = parser.parse_args()
    found = [row for path in options.data for row in check_set(path, options.encoder, options.limit, options.seeds)]
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    cells = list(dict.fromkeys((row["set"], row["noise"], row["rate"]) for row in found))
    print(f"{'set':<20}{'noise':<11}{'rate':>5}  " + "  ".join(f"{way:>22}" for way in WAYS))
    for name, kind, rate in cells:
        own = [row for row in found if (row["set"], row["noise"], row["rate"]) == (name, kind, rate)]
        means = (np.mean([row["precision"] for row in own if row["views"] == way]) for way in WAYS)
        print(f"{name:<20}{kind:<11}{rate:>5.2f}  " + "  ".join(f"{mean:>22.3f}" for mean in means))
    return 0


if __name__ == "__main__":
    sys.exit(main())
