"""Sequence classification with transformers.Trainer, set up with care: padding by batch, batches of similar length.

Tokenizing is not timed. Run as a script; prints one line of JSON.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

RATES = {"full": 5e-5, "lora": 1e-3, "frozen": 1e-3}
"""Learning rate by strategy where none is asked for."""


def read_options() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--encoder", required=True, help="folder or Hub id")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="rows of the shuffled training split")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--strategy", choices=tuple(RATES), default="full")
    parser.add_argument("--freeze-layers", type=int, default=0, help="freeze the embeddings and the first N layers")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def build_model(options: argparse.Namespace, num_labels: int) -> PreTrainedModel:
    """Load the encoder with a new head, and close or extend what the strategy asks for."""
    model = AutoModelForSequenceClassification.from_pretrained(options.encoder, num_labels=num_labels)
    if options.strategy == "frozen":
        model.base_model.requires_grad_(False)
    if options.freeze_layers:
        model.base_model.embeddings.requires_grad_(False)
        model.base_model.encoder.layer[: options.freeze_layers].requires_grad_(False)
    if options.strategy == "lora":
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1)
        model = get_peft_model(model, settings)
    return model


def main() -> None:
    """Train, score test, and say how long it took."""
    options = read_options()
    files = {split: str(options.data / f"{split}.parquet") for split in ("train", "test")}
    rows = load_dataset("parquet", data_files=files)
    texts = [name for name in ("text", "text_b") if name in rows["train"].column_names]
    rows = rows.select_columns([*texts, "label"])
    names = sorted(set(rows["train"]["label"]))
    tokenizer = AutoTokenizer.from_pretrained(options.encoder)

    def encode(part: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(*(part[name] for name in texts), truncation=True, max_length=options.max_length)
        return {**encoded, "labels": [names.index(label) for label in part["label"]]}

    def prepare(split: Dataset) -> Dataset:
        return split.map(encode, batched=True, remove_columns=[*texts, "label"])

    train = rows["train"].shuffle(seed=0)
    train = prepare(train.select(range(min(options.limit or len(train), len(train)))))
    test = prepare(rows["test"])
    set_seed(options.seed)
    has_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            seed=options.seed,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=64,
            learning_rate=options.learning_rate or RATES[options.strategy],
            train_sampling_strategy="group_by_length",
            use_cpu=not has_gpu,
            bf16=options.precision == "bf16",
            torch_compile=options.compile,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
        )
        trainer = Trainer(
            model=build_model(options, len(names)),
            args=settings,
            train_dataset=train,
            data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if has_gpu else None),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        answers = trainer.predict(test)
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = {
        "peer": "trainer",
        "precision": options.precision,
        "device": "cuda" if has_gpu else "cpu",
        "train_seconds": seconds,
        "train_examples_per_second": len(train) * options.epochs / seconds,
        "test_accuracy": float((answers.predictions.argmax(axis=-1) == answers.label_ids).mean()),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if has_gpu else memory,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
