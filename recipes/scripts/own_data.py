"""Train on a table of your own, look at the scores, predict, and keep the classifier.

    python recipes/scripts/own_data.py
    python recipes/scripts/own_data.py --table mine.csv --limit 5000

Without --table the bundled reviews stand in for yours; nothing is downloaded. The table needs a column of texts and one
of labels; validation and test are drawn from it.
"""

import argparse
from pathlib import Path

import pandas as pd

import nlp_transfer as nt
from nlp_transfer.data.examples import find_example

TEXTS = ["A joy to watch from start to finish.", "The room was cold and nobody answered the phone."]


def train(frame: pd.DataFrame, options: argparse.Namespace) -> nt.Report:
    """Fine-tune an encoder on a frame; gives the report, whose model lies beside it."""
    overrides = {
        "encoder.name": options.encoder,
        "data.limit": options.limit,
        "training.max_steps": options.max_steps,
    }
    return nt.run("quickstart", overrides, data=frame, output_dir=options.out)


def main() -> int:
    """Train, score, predict, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="csv with a header; the bundled reviews where absent")
    parser.add_argument("--limit", type=int, default=240, help="rows to train on")
    parser.add_argument("--encoder", default="minilm-l6", help="alias, folder or Hub id")
    parser.add_argument("--max-steps", type=int, help="updates; three epochs where absent")
    parser.add_argument("--out", type=Path, default=Path("runs/own-data"), help="folder of the run")
    options = parser.parse_args()

    reviews = find_example("reviews")
    assert reviews is not None
    frame = pd.read_csv(options.table or reviews / "train.csv", keep_default_na=False)  # "NA" stays text
    report = train(frame, options)
    print(report)  # in a notebook, `report` alone shows tables and pictures
    for name, score in report.scores["test"].items():
        print(f"{name}: {score.value:.3f}, between {score.low:.3f} and {score.high:.3f} on {score.n} texts")
    wrong = report.predictions.query("split == 'test' and label != predicted")
    print(f"{len(wrong)} test texts were labelled otherwise")

    classifier = nt.Classifier.from_pretrained(report.model_path)
    labels, probabilities = classifier.predict(TEXTS), classifier.predict_proba(TEXTS)
    for text, label, row in zip(TEXTS, labels, probabilities, strict=True):
        print(f"{label} ({row.max():.2f}): {text}")
    saved = classifier.save_pretrained(report.folder.with_name(f"{report.folder.name}-classifier"))
    print(f"saved {saved}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
