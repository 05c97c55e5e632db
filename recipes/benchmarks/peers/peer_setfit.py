"""Few-shot classification with the setfit library: `shots` training rows a class, its default settings.

Run as a script, in an environment that has setfit. Prints one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path

from datasets import load_dataset
from setfit import SetFitModel, Trainer, TrainingArguments, sample_dataset


def read_options() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of a sentence encoder")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampling", choices=("oversampling", "undersampling", "unique"), default="oversampling")
    parser.add_argument("--test-limit", type=int, help="rows of the shuffled test split; all of it where absent")
    return parser.parse_args()


def main() -> None:
    """Train on a draw of train, score test."""
    options = read_options()
    files = {split: str(options.data / f"{split}.parquet") for split in ("train", "test")}
    rows = load_dataset("parquet", data_files=files).select_columns(["text", "label"])
    train = sample_dataset(rows["train"], num_samples=options.shots, seed=options.seed)
    test = rows["test"]
    if options.test_limit:
        test = test.shuffle(seed=0).select(range(min(options.test_limit, len(test))))
    model = SetFitModel.from_pretrained(options.encoder, labels=sorted(set(train["label"])))
    settings = TrainingArguments(seed=options.seed, sampling_strategy=options.sampling, report_to="none")
    trainer = Trainer(model=model, args=settings, train_dataset=train)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    predicted = [str(label) for label in model.predict(test["text"][:])]
    hits = sum(mine == label for mine, label in zip(predicted, test["label"], strict=True))
    found = {"peer": "setfit", "train_seconds": seconds, "test_accuracy": hits / len(predicted)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
