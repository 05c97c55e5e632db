"""How long it takes from nothing to the first training step, and to the first prediction.

Every case is a fresh process, timed from outside, in turns; the table says seconds, as medians. Beside ours stand what
the Trainer's import alone takes, and the first answer of transformers' pipeline with the same model.

    python recipes/scripts/measure_startup.py --repeats 5
    python recipes/scripts/measure_startup.py --beside ../earlier    # another checkout of this package, in turns
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP = """
import os
from torch.optim.optimizer import register_optimizer_step_post_hook
import nlp_transfer
register_optimizer_step_post_hook(lambda *_: os._exit(0))
nlp_transfer.run("quickstart", ["encoder.name={encoder}"], output_dir={out!r}, progress=False)
raise SystemExit("no step was taken")
"""
"""Ends where the first update has been made, cleaning up nothing."""

PREDICT = """
import nlp_transfer
print(nlp_transfer.Classifier.from_pretrained({model!r}).predict(["a joy to watch"]))
"""

PIPELINE = """
from transformers import pipeline
print(pipeline("text-classification", model={model!r})(["a joy to watch"]))
"""

HELP = "import sys; sys.argv = ['nlp-transfer', '--help']; from nlp_transfer.cli import main; main()"

CASES = {
    "python": "pass",
    "import": "import nlp_transfer",
    "help": HELP,
    "step": STEP,
    "trainer import": "from transformers import Trainer, AutoModelForSequenceClassification",
    "prediction": PREDICT,
    "pipeline prediction": PIPELINE,
}
"""What is timed, as programs."""

OURS = ("import", "help", "step", "prediction")
"""Cases that differ between checkouts of this package."""


def run_fresh(code: str, checkout: Path | None) -> float:
    """Run a program in a new interpreter and give its seconds."""
    environment = dict(os.environ)
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout.resolve())
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{done.stderr[-2000:]}\nended with status {done.returncode}:\n{code}")
    return seconds


def train_model(encoder: str, folder: Path) -> Path:
    """Train a classifier for a step, for those that predict."""
    from nlp_transfer import run

    changes = [f"encoder.name={encoder}", "training.max_steps=1", "evaluation.tfidf=false"]
    return run("quickstart", changes, output_dir=folder / "run", progress=False).model_path


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm-l6")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", action="append", choices=tuple(CASES), help="may be given several times")
    parser.add_argument("--beside", type=Path, help="folder of another checkout, timed in turns with this one")
    options = parser.parse_args()
    names = options.only or list(CASES)
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        needs_model = any("{model" in CASES[name] for name in names)
        model = str(train_model(options.encoder, Path(folder))) if needs_model else ""
        for turn in range(options.repeats):
            # What slows the machine is to slow both checkouts alike.
            checkouts = [("here", None)] + ([("beside", options.beside)] if options.beside else [])
            for name in names:
                for label, checkout in checkouts if turn % 2 == 0 else reversed(checkouts):
                    if checkout is not None and name not in OURS:
                        continue
                    out = str(Path(folder) / f"{name}-{label}-{turn}")
                    code = CASES[name].format(encoder=options.encoder, model=model, out=out)
                    times.setdefault((name, label), []).append(run_fresh(code, checkout))
    print(f"seconds, median and range of {options.repeats} fresh processes")
    for (name, label), kept in times.items():
        median = statistics.median(kept)
        print(f"{name:20} {label:7} {median:6.2f} s ({min(kept):.2f} to {max(kept):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
