"""Check on a GPU what can only be checked there, and measure training and prediction against transformers' own.

Needs no data and no network: an encoder of the shape of BERT-base with random weights, and made-up texts of the
lengths of SST-2 and IMDb. Checks come first (packed rows with torch's kernel against padded ones, losses in bf16, a
resumed run), then every way takes its turn, and the medians are printed as tables and written as JSON.

    python recipes/scripts/check_gpu.py --out check_gpu.json
    python recipes/scripts/check_gpu.py --data sets/imdb --encoder bert-base-uncased
    python recipes/scripts/check_gpu.py --small         # tiny, also without a GPU: does the script work?
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.state import AcceleratorState, GradientState
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from nlp_transfer.classifier import Classifier
from nlp_transfer.contracts import DataFacts, Evaluation, LabelSpace, Prepared, RunLog, Splits
from nlp_transfer.data.encode import encode_splits, encode_table, read_padding
from nlp_transfer.data.load import load_splits
from nlp_transfer.engine.fast.packing import KERNEL, attend_rows
from nlp_transfer.engine.fast.unpadded import pack_predictions, pack_rows
from nlp_transfer.engine.predict.forward import Feeder, compute_logits
from nlp_transfer.engine.predict.logits import predict_logits
from nlp_transfer.fitting.fit import Fitted, fit_model
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import EncoderConfig, Recipe
from nlp_transfer.runs.seed import make_accelerator

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENGTHS = {"sst2": (2.1, 0.7, 64), "imdb": (5.3, 0.6, 512)}
"""Mean and deviation of the logarithm of words a text, near those of the sets, and the most tokens that are read."""

WAYS = {
    "ours, padded": {"training.packing": "off"},
    "ours, packed": {"training.packing": "on"},
    "ours, packed and compiled": {"training.packing": "on", "training.compile": "on"},
    "Trainer": {},
    "Trainer, compiled": {"compile": True},
}
"""What is measured while training; the first is what the others are held against."""


@dataclass(frozen=True)
class Sizes:
    """How much is done: steps before the clock starts, steps timed, rows a step, rows predicted, rounds."""

    warm_up: int
    timed: int
    batch_size: int
    num_texts: int
    rounds: int
    matrix: int
    layers: int
    hidden: int


LARGE = Sizes(warm_up=40, timed=100, batch_size=64, num_texts=4096, rounds=3, matrix=8192, layers=12, hidden=768)
SMALL = Sizes(warm_up=1, timed=2, batch_size=4, num_texts=12, rounds=1, matrix=64, layers=2, hidden=32)


class Clock:
    """Takes the time between two steps of a loop; also counts the tokens of ours."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes, self.seconds, self.tokens, self._started, self._before = sizes, 0.0, 0, 0.0, 0

    def look(self, step: int, tokens: int = 0) -> None:
        """Note that a step was taken."""
        if step not in (self.sizes.warm_up, self.sizes.warm_up + self.sizes.timed):
            return
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        if step == self.sizes.warm_up:
            self._started, self._before = time.perf_counter(), tokens
        else:
            self.seconds, self.tokens = time.perf_counter() - self._started, tokens - self._before

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:  # noqa: ARG002
        """What our loop calls."""
        self.look(log.steps, log.tokens)

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Nothing is evaluated."""

    def close(self) -> None:
        """Nothing is open."""


class SyncCounter(Clock):
    """Counts, over two steps, where the host waits for the GPU."""

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:  # noqa: ARG002
        """What our loop calls."""
        if DEVICE.type == "cuda" and log.steps in (2, 4):
            torch.cuda.set_sync_debug_mode("warn" if log.steps == 2 else "default")


class Killed(BaseException):
    """Ends a run as a kill does: nothing is saved on the way out."""


class Breaker(Clock):
    """Breaks off after a step, as a kill would."""

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:  # noqa: ARG002
        """What our loop calls."""
        if log.steps == 3:
            raise Killed


def make_encoder(folder: Path, sizes: Sizes) -> Path:
    """Write an encoder with random weights and a vocabulary of made-up words."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    parts = [f"{a}{b}" for a in "bcdfghklmnprstvz" for b in "aeiou"]
    num_words = 600 if sizes is SMALL else 30_522 - len(specials)
    words = [f"{parts[n // 6400 % 80]}{parts[n // 80 % 80]}{parts[n % 80]}" for n in range(num_words)]
    BertTokenizer(vocab={word: n for n, word in enumerate([*specials, *words])}).save_pretrained(folder)
    heads = sizes.hidden // 64 or 2
    shape = {"num_hidden_layers": sizes.layers, "hidden_size": sizes.hidden, "num_attention_heads": heads}
    shape |= {"intermediate_size": 4 * sizes.hidden, "vocab_size": num_words + len(specials)}
    torch.manual_seed(0)
    BertModel(BertConfig(**shape)).save_pretrained(folder)
    return folder


def make_splits(kind: str, encoder: Path, num_rows: int, most: int) -> Splits:
    """Make texts whose first half of the vocabulary belongs to one class, the second to the other, by two thirds."""
    words = sorted(AutoTokenizer.from_pretrained(encoder).get_vocab())
    words = [word for word in words if word.isalpha()]
    generator, (mean, deviation, _) = np.random.default_rng(0), LENGTHS[kind]
    tables = {}
    for split, count in {"train": num_rows, "validation": 16, "test": num_rows}.items():
        labels = generator.integers(2, size=count)
        lengths = np.clip(generator.lognormal(mean, deviation, count), 1, most).astype(int)
        texts = []
        for label, length in zip(labels, lengths, strict=True):
            is_own = generator.random(length) < 2 / 3
            half = len(words) // 2
            picked = generator.integers(half, size=length) + np.where(is_own == (label == 1), half, 0)
            texts.append(" ".join(words[n] for n in picked))
        rows = {"id": [f"{split}-{n}" for n in range(count)], "text": texts, "label": labels.tolist()}
        tables[split] = Dataset.from_dict(rows)
    return Splits(tables, LabelSpace("classification", ("no", "yes")), DataFacts(source=kind))


@dataclass(frozen=True)
class Job:
    """Rows and an encoder, ready to train on."""

    name: str
    encoder: str
    splits: Splits
    prepared: Prepared
    max_length: int

    def build_recipe(self, sizes: Sizes, **overrides: object) -> Recipe:
        """The recipe of a fit; double underscores stand for dots."""
        steps = sizes.warm_up + sizes.timed
        plain: dict[str, object] = {
            "training.max_steps": steps,
            "training.batch_size": sizes.batch_size,
            "training.log_every": 50,
        }
        plain["training.max_tokens"] = 65_536  # as the peer, which takes every step in one pass
        more = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_recipe({"encoder": {"name": self.encoder}}, {**plain, "training.restore_best": False, **more})


def prepare_job(name: str, encoder: str, splits: Splits, max_length: int) -> Job:
    """Tokenize."""
    recipe = load_recipe({"data": {"max_length": max_length}})
    return Job(
        name, encoder, splits, encode_splits(splits, AutoTokenizer.from_pretrained(encoder), recipe.data), max_length
    )


def fit(job: Job, recipe: Recipe, hooks: Sequence[Any] = (), checkpoints: Path | None = None) -> Fitted:
    """Train with this package, without looks at validation."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    prepared = Prepared({"train": job.prepared.splits["train"]}, job.prepared.labels, job.prepared.pad)
    accelerator = make_accelerator(recipe)
    return fit_model(recipe, job.splits, prepared, accelerator, make_hooks=lambda *_: hooks, checkpoints=checkpoints)


def time_ours(job: Job, sizes: Sizes, overrides: dict[str, Any]) -> dict[str, Any]:
    """Seconds and real tokens of the timed steps."""
    clock = Clock(sizes)
    log = fit(job, job.build_recipe(sizes, **overrides), (clock,)).log
    return {"seconds": clock.seconds, "tokens": clock.tokens, "said": f"{log.packing}; {log.compiled}"}


def time_trainer(job: Job, sizes: Sizes, overrides: dict[str, Any]) -> dict[str, Any]:
    """The same with transformers.Trainer: bf16, batches of similar length, fused AdamW, nothing logged or saved."""
    clock, counted = Clock(sizes), [0]

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ARG002
            clock.look(state.global_step, counted[0])

    tokenizer = AutoTokenizer.from_pretrained(job.encoder)
    pad = transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if DEVICE.type == "cuda" else None)

    def collate(rows: list[dict[str, Any]]) -> Any:
        counted[0] += sum(len(row["input_ids"]) for row in rows)
        return pad(rows)

    encoded = job.prepared.splits["train"]
    rows = encoded.rows.add_column("labels", np.asarray(encoded.labels))
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=sizes.warm_up + sizes.timed,
            per_device_train_batch_size=sizes.batch_size,
            train_sampling_strategy="group_by_length",
            bf16=DEVICE.type == "cuda",
            use_cpu=DEVICE.type == "cpu",
            torch_compile=bool(overrides.get("compile")),
            optim="adamw_torch_fused",
            learning_rate=5e-5,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
        )
        model = AutoModelForSequenceClassification.from_pretrained(
            job.encoder, num_labels=job.splits.labels.num_outputs
        )
        trainer = transformers.Trainer(
            model=model, args=settings, train_dataset=rows, data_collator=collate, callbacks=[Callback()]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return {"seconds": clock.seconds, "tokens": clock.tokens, "said": ""}


def measure_matrix_limit(sizes: Sizes) -> float:
    """Operations a second of a large bf16 product of matrices: the best of several."""
    left, right = (torch.randn(sizes.matrix, sizes.matrix, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(3 if sizes is SMALL else 20):
        started = _read_clock()
        for _ in range(5):
            left @ right
        best = max(best, 5 * 2 * sizes.matrix**3 / (_read_clock() - started))
    return best


def _read_clock() -> float:
    """Now, when the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def count_operations(job: Job) -> float:
    """Operations a real token takes in a training step, attention at the mean of the squared lengths."""
    config = transformers.AutoConfig.from_pretrained(job.encoder)
    width = config.hidden_size
    weights = config.num_hidden_layers * (4 * width**2 + 2 * width * config.intermediate_size)
    lengths = job.prepared.splits["train"].lengths.astype(float)
    attention = config.num_hidden_layers * 2 * width * float((lengths**2).sum() / lengths.sum())
    return 6 * (weights + attention)


def measure_training(job: Job, sizes: Sizes, limit: float, ways: Sequence[str]) -> list[dict[str, Any]]:
    """Every way in turn, forth and back; medians."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(sizes.rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            time_way = time_trainer if way.startswith("Trainer") else time_ours
            found[way].append(time_way(job, sizes, WAYS[way]))
            print(f"  {job.name}, round {number}: {way}: {found[way][-1]['seconds']:.3f} s", flush=True)
    rows = []
    for way, all_rounds in found.items():
        rates = [each["tokens"] / each["seconds"] for each in all_rounds]
        rate = statistics.median(rates)
        row = {"job": job.name, "way": way, "tokens_per_second": rate, "low": min(rates), "high": max(rates)}
        rows.append(row | {"share_of_limit": rate * count_operations(job) / limit, "said": all_rounds[0]["said"]})
    return [row | {"times": row["tokens_per_second"] / rows[0]["tokens_per_second"]} for row in rows]


def build_predictors(job: Job, folder: Path) -> dict[str, Callable[[list[str]], list[str]]]:
    """Ways to name the labels of texts, from texts to names, tokenizing included."""
    classifier = Classifier.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(DEVICE).eval()
    pad, side = read_padding(tokenizer)

    def predict_packed(texts: list[str]) -> list[str]:
        table = Dataset.from_dict({"text": texts})
        encoded = encode_table(table, tokenizer, is_pair=False, max_length=job.max_length)
        prepared = Prepared({"input": encoded}, job.splits.labels, pad, side)
        feeder = Feeder(prepared, "input", DEVICE)
        with half(), pack_predictions(model, feeder, wanted="on", is_half=DEVICE.type == "cuda"):
            logits = predict_logits(model, feeder, batch_size=256, max_tokens=65_536)
        return [model.config.id2label[int(best)] for best in logits.argmax(axis=1)]

    def build_pipeline(dtype: torch.dtype) -> Callable[[list[str]], list[str]]:
        classify = transformers.pipeline(
            "text-classification", model=str(folder), batch_size=256, device=DEVICE, dtype=dtype
        )
        settings = {"truncation": True, "max_length": job.max_length}
        return lambda texts: [answer["label"] for answer in classify(texts, **settings)]

    return {
        "ours, fp32": lambda texts: classifier.predict(texts, batch_size=256),
        "ours, bf16, packed": predict_packed,
        "pipeline, fp32": build_pipeline(torch.float32),
        "pipeline, bf16": build_pipeline(torch.bfloat16),
    }


def half() -> Any:
    """Compute in bf16 on a GPU; in float32 elsewhere, where only the way is tried."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if DEVICE.type == "cuda" else nullcontext()


def measure_prediction(job: Job, sizes: Sizes) -> list[dict[str, Any]]:
    """Texts a second of every way, and the share of labels that it gives as the first one does."""
    texts = list(job.splits.tables["test"]["text"])[: sizes.num_texts]
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(job, job.build_recipe(sizes))
        model = fitted.adapted.model.cpu()
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(job.encoder).save_pretrained(folder)
        predictors = build_predictors(job, Path(folder))
        found: dict[str, list[float]] = {way: [] for way in predictors}
        answers = {way: predict(texts) for way, predict in predictors.items()}
        for _ in range(sizes.rounds):
            for way, predict in predictors.items():
                started = time.perf_counter()
                predict(texts)
                found[way].append(len(texts) / (time.perf_counter() - started))
    first = next(iter(answers.values()))
    return [
        {
            "job": job.name,
            "way": way,
            "texts_per_second": statistics.median(rates),
            "low": min(rates),
            "high": max(rates),
            "agreement": float(np.mean([one == other for one, other in zip(answers[way], first, strict=True)])),
        }
        for way, rates in found.items()
    ]


def check_kernel() -> str:
    """Torch's kernel gives what attention row by row gives in float32, forth and back, with and without a window."""
    lengths = [5, 1, 64, 0, 30, 28]
    starts = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=DEVICE)
    gaps = []
    for window in (None, 8):
        torch.manual_seed(0)
        states = [torch.randn(128, 4, 64, device=DEVICE).bfloat16() for _ in range(3)]
        whole = [each.float().requires_grad_(True) for each in states]
        halves = [each.clone().requires_grad_(True) for each in states]
        outs = [attend_rows(*each, starts, 64, scale=0.125, window=window) for each in (whole, halves)]
        weight = torch.randn(outs[0].shape, device=DEVICE)
        grads = [
            torch.autograd.grad((out.float() * weight).sum(), each)
            for out, each in zip(outs, (whole, halves), strict=True)
        ]
        pairs = [tuple(outs), *zip(*grads, strict=True)]
        gaps += [float((one - other.float()).detach().abs().max() / one.detach().abs().max()) for one, other in pairs]
    expect(max(gaps) < 2e-2, f"kernel: largest relative gap {max(gaps):.2g}, expected below 0.02")
    return f"largest relative gap of outputs and gradients {max(gaps):.2g}, kernel {'there' if KERNEL else 'missing'}"


def check_packing(job: Job) -> str:
    """Packed rows in bf16 are as near to padded float32 logits as padded rows in bf16 are."""
    model = load_encoder(EncoderConfig(name=job.encoder, dropout=0.0), job.splits.labels, seed=0).model
    model.to(DEVICE).eval()
    feeder, examples = Feeder(job.prepared, "train", DEVICE), np.arange(min(32, len(job.splits.tables["train"])))
    with torch.no_grad():
        exact = compute_logits(model, feeder.feed(examples))
        with half():
            padded = compute_logits(model, feeder.feed(examples))
            with pack_rows(model, feeder, "on", is_half=True, reads_first=True):
                packed = compute_logits(model, feeder.feed(examples))
    gaps = [float((each - exact).abs().max()) for each in (padded, packed)]
    expect(gaps[1] <= 2 * gaps[0] + 1e-2, f"packed logits are off by {gaps[1]:.2g}, padded ones by {gaps[0]:.2g}")
    return f"logits off float32 by {gaps[1]:.2g} packed, by {gaps[0]:.2g} padded"


def check_losses(job: Job, sizes: Sizes) -> str:
    """A packed run's losses are those of a padded one, step by step, without dropout."""
    settings: dict[str, Any] = {"encoder.dropout": 0.0, "training.max_steps": min(20, 3 + sizes.timed)}
    ways = ({"training.packing": "off"}, {"training.packing": "on"})
    padded, packed = (np.array(fit(job, job.build_recipe(sizes, **settings, **way)).log.losses) for way in ways)
    gap = float(np.abs(padded - packed).max() / padded.mean())
    expect(gap < 0.05, f"losses: packed and padded are {gap:.2g} of the mean apart, expected below 0.05")
    return f"{len(padded)} losses, largest gap {gap:.2g} of the mean ({padded[0]:.3f} to {padded[-1]:.3f})"


def check_resume(job: Job, sizes: Sizes) -> str:
    """A packed run that broke off goes on to the losses of a whole one."""
    settings: dict[str, Any] = {"training.packing": "on", "training.checkpoint_every": 2, "training.max_steps": 5}
    recipe = job.build_recipe(sizes, **settings)
    whole = np.array(fit(job, recipe).log.losses)
    with tempfile.TemporaryDirectory() as folder:
        with broken_off():
            fit(job, recipe, (Breaker(sizes),), Path(folder))
        log = fit(job, recipe, (), Path(folder)).log
    gap = float(np.abs(whole - np.array(log.losses)).max())
    expect(log.resumed_at == [2], f"resume: expected to go on from step 2, went on from {log.resumed_at}")
    expect(gap < 2e-2, f"resume: losses are {gap:.2g} apart, expected below 0.02")
    return f"largest gap {gap:.2g}" + (", bit for bit" if gap == 0 else "")


def check_syncs(job: Job, sizes: Sizes) -> str:
    """A step does not make the host wait for the GPU; said and not refused, as it costs time and not truth."""
    recipe = job.build_recipe(sizes, **{"training.packing": "on", "training.max_steps": 5})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(job, recipe, (SyncCounter(sizes),))
    waits = [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]
    return f"{len(waits)} in two steps" + "".join(f"\n    {place}" for place in sorted(set(waits)))


@contextmanager
def broken_off() -> Iterator[None]:
    """A run that breaks off, and must."""
    try:
        yield
    except Killed:
        return
    raise SystemExit("resume: the run was not broken off")


def expect(holds: bool, problem: str) -> None:
    """Stop with a sentence where something does not hold."""
    if not holds:
        raise SystemExit(f"check failed: {problem}")


def read_options() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of splits in place of made-up texts")
    parser.add_argument("--encoder", help="in place of random weights of BERT-base's shape")
    parser.add_argument("--max-length", type=int, default=512, help="with --data: most tokens of a text")
    parser.add_argument("--batch-size", type=int, help="rows a training step")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-compile", action="store_true", help="leave out what is compiled")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    return parser.parse_args()


def list_jobs(options: argparse.Namespace, sizes: Sizes, folder: Path) -> list[Job]:
    """The made-up sets, or the one that was named."""
    encoder = options.encoder or str(make_encoder(folder / "encoder", sizes))
    if options.data is not None:
        recipe = load_recipe({"data": {"path": str(options.data)}})
        splits = load_splits(recipe.data, recipe.task, seed=0)
        return [prepare_job(options.data.name, encoder, splits, options.max_length)]
    jobs = []
    for kind, (_, _, most) in LENGTHS.items():
        num_rows = max(sizes.num_texts, sizes.batch_size * 8)
        words = 24 if sizes is SMALL else most
        jobs.append(prepare_job(kind, encoder, make_splits(kind, Path(encoder), num_rows, words), most))
    return jobs


def main() -> int:
    """Check, measure, print and write."""
    options = read_options()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    sizes = SMALL if options.small else LARGE
    changes = {"batch_size": options.batch_size, "rounds": options.rounds}
    sizes_now = sizes if not any(changes.values()) else _change(sizes, changes)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}")
    ways = [way for way in WAYS if not ((options.no_compile or options.small) and "compiled" in way)]
    record: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "checks": {},
        "training": [],
        "prediction": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        jobs = list_jobs(options, sizes_now, Path(folder))
        checks: dict[str, Callable[[], str]] = {"kernel": check_kernel}
        checks["packing"] = lambda: check_packing(jobs[-1])
        checks["losses"] = lambda: check_losses(jobs[0], sizes_now)
        checks["resume"] = lambda: check_resume(jobs[0], sizes_now)
        checks["waits"] = lambda: check_syncs(jobs[0], sizes_now)
        for check, run in checks.items():
            record["checks"][check] = run()
            print(f"{check}: {record['checks'][check]}", flush=True)
        record["matrix_limit"] = measure_matrix_limit(sizes_now)
        print(f"bf16 matrix limit: {record['matrix_limit'] / 1e12:.3g} TFLOP/s", flush=True)
        for job in jobs:
            record["training"] += measure_training(job, sizes_now, record["matrix_limit"], ways)
            record["prediction"] += measure_prediction(job, sizes_now)
    print_tables(record)
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def _change(sizes: Sizes, changes: dict[str, int | None]) -> Sizes:
    """Other sizes where they were named."""
    return Sizes(**{**sizes.__dict__, **{key: value for key, value in changes.items() if value}})


def print_tables(record: dict[str, Any]) -> None:
    """Print what was measured: medians, with the range over rounds."""
    print(f"\n{'training':<36} {'real tokens/s':>14} {'(range)':>22} {'times':>6} {'of limit':>9}")
    for row in record["training"]:
        span = f"({row['low']:,.0f} to {row['high']:,.0f})"
        label, rate = f"{row['job']}: {row['way']}", row["tokens_per_second"]
        print(f"{label:<36} {rate:>14,.0f} {span:>22} {row['times']:>6.2f} {row['share_of_limit']:>9.3f}")
    print(f"\n{'prediction':<36} {'texts/s':>14} {'(range)':>22} {'agreement':>10}")
    for row in record["prediction"]:
        span = f"({row['low']:,.0f} to {row['high']:,.0f})"
        label = f"{row['job']}: {row['way']}"
        print(f"{label:<36} {row['texts_per_second']:>14,.0f} {span:>22} {row['agreement']:>10.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
