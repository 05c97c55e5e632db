"""Whether a mitigation halves the gap in false alarms between groups, and what it costs in AUC.

Both models are trained on the first rows of TRAIN, and both are held to one share of false alarms on its validation
split: from that probability on the label is said, and so they are audited on AUDIT. A line for each seed and model;
what is finished in OUT is not run again. Exit status 1 where the gap is not halved, or the cost is more than a point.

    python recipes/scripts/check_audit.py sets/comments sets/templates --group identity --sentences nontoxic
    python recipes/scripts/check_audit.py sets/comments sets/cases --group target --rename hateful=toxic --seeds 3
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from nlp_transfer import Classifier, Report, audit, run
from nlp_transfer.data.exchange import read_split

MOST_COST = 0.01
"""AUC on the test split of TRAIN that the mitigation may take."""


def main() -> None:
    """Train, audit and judge."""
    options = read_options()
    rows = []
    for seed in range(options.seeds):
        for name, recipe in (("plain", options.recipe), ("mitigated", options.mitigated)):
            row = {"seed": seed, "model": name} | try_model(options, seed, name, recipe)
            rows.append(row)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    means = {
        name: {key: statistics.mean(row[key] for row in rows if row["model"] == name) for key in ("gap", "auc")}
        for name in ("plain", "mitigated")
    }
    (Path(options.out) / "check_audit.json").write_text(json.dumps({"rows": rows, "means": means}, indent=2), "utf-8")
    share = means["mitigated"]["gap"] / means["plain"]["gap"]
    cost = means["plain"]["auc"] - means["mitigated"]["auc"]
    is_good = share <= 0.5 and cost <= MOST_COST
    sys.stdout.write(f"{share:.2f} of the gap is left, at {cost:.4f} of AUC: {'good' if is_good else 'not good'}\n")
    sys.exit(0 if is_good else 1)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="folder of splits with text and label")
    parser.add_argument("audit", help="labelled rows to audit on")
    parser.add_argument("--group", required=True, help="column of the groups")
    parser.add_argument("--positive", default="toxic", help="label whose false alarms count")
    parser.add_argument("--rename", action="append", default=[], help="AUDIT_LABEL=LABEL")
    parser.add_argument("--rows", type=int, default=60, help="rows of each group and label to audit, the first ones")
    parser.add_argument("--limit", type=int, default=5_000, help="rows to train on")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--false-alarms", type=float, default=0.05, help="share on validation that sets the threshold")
    parser.add_argument("--sentences", help="label of data.swap_sentences of the mitigated model")
    parser.add_argument("--recipe", default="toxicity/full")
    parser.add_argument("--mitigated", default="toxicity/balanced", help="recipe of the mitigated model")
    parser.add_argument("--out", default="runs/check_audit")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of both recipes")
    return parser.parse_args()


def try_model(options: argparse.Namespace, seed: int, name: str, recipe: str) -> dict[str, float]:
    """Train one model, or read it, and audit it."""
    place = Path(options.out) / f"{name}-{seed}"
    if (place / "report.json").is_file():
        report = Report.load(place)
    else:
        settings = ["evaluation.tfidf=false", *options.set]
        if name == "mitigated" and options.sentences is not None:
            settings.append(f"data.swap_sentences={options.sentences}")
        settings += [f"data.path={options.train}", f"data.limit={options.limit}", f"training.seed={seed}"]
        report = run(recipe, settings, output_dir=place, progress=False)
    classifier = Classifier.from_pretrained(report.model_path)
    column = classifier.labels.index(options.positive)
    table, _ = read_split(options.train, "validation")
    innocent = [text for text, label in zip(table["text"], table["label"], strict=True) if label != options.positive]
    threshold = float(np.quantile(classifier.predict_proba(innocent)[:, column], 1 - options.false_alarms))
    found = audit(
        classifier,
        draw_rows(options),
        group=options.group,
        positive=options.positive,
        threshold=threshold,
        rename=dict(pair.split("=") for pair in options.rename),
        max_swaps=0,
    )
    overall, gap = found.record["overall"], found.gaps["false_positive_rate"]
    if gap["value"] is None:
        sys.exit(f"{options.audit}: expected two groups or more with 20 rows that are not {options.positive}.")
    return {
        "auc": report.scores["test"]["roc_auc"].value,
        "threshold": threshold,
        "gap": gap["value"],
        "gap_low": gap["low"],
        "gap_high": gap["high"],
        "false_positive_rate": overall["false_positive_rate"]["value"],
        "false_negative_rate": overall["false_negative_rate"]["value"],
        "audit_auc": overall["auc"]["value"],
    }


def draw_rows(options: argparse.Namespace) -> pd.DataFrame:
    """The first rows of each group and label."""
    table = read_split(options.audit, "test")[0].to_pandas()
    return table.groupby([options.group, "label"]).head(options.rows)


if __name__ == "__main__":
    main()
