"""Export one classifier in all four ways and hold each against PyTorch on real texts.

    python recipes/scripts/check_export.py sets/sst2                       # trains sentiment/full first
    python recipes/scripts/check_export.py sets/sst2 --run runs/mine       # takes a run that is there

Prints, for each: the share of test texts that keep their label, through `Classifier.predict_proba`; the largest
difference of two logits, in ragged batches; texts a second (tokenizing included, best of the rounds, in turn); and the
size of the weights.
Exit status 1 where float32 is further than 1e-4 from PyTorch, or eight bits keep fewer labels than asked.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import nlp_transfer as nt
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.exchange import read_split
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.publishing.artifact import load_artifact
from nlp_transfer.publishing.export.check import compare_logits, compute_batches, read_batches
from nlp_transfer.publishing.export.command import LEAST_AGREEMENT, TOLERANCE, export_artifact

WAYS = [(to, int8) for to in ("onnx", "openvino") for int8 in (False, True)]


def main() -> int:
    """Parse, train where needed, export, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of splits")
    parser.add_argument("--run", type=Path, help="a finished run; trained where absent")
    parser.add_argument("--recipe", default="sentiment/full")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/check_export"))
    parser.add_argument("--limit", type=int, help="only the first test texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agreement", type=float, default=LEAST_AGREEMENT)
    arguments = parser.parse_args()
    run = arguments.run
    if run is None:
        run = arguments.out / "run"
        nt.run(arguments.recipe, [*arguments.set, f"data.path={arguments.data}"], output_dir=str(run))
    table, _ = read_split(arguments.data, "test")
    if arguments.limit:
        table = table.select(range(min(arguments.limit, len(table))))
    # The figures come from all texts below; here validation is only what an export looks at on its way out.
    validation, _ = read_split(arguments.data, "validation")
    folders = {"PyTorch fp32": run}
    for to, int8 in WAYS:
        name = f"{to} {'int8' if int8 else 'fp32'}"
        folder = arguments.out / name.replace(" ", "-")
        if not folder.exists():
            export_artifact(run, to=to, int8=int8, output_dir=folder, data=validation, agreement=0.0)
        folders[name] = folder
    rows = measure(folders, table, rounds=arguments.rounds)
    print(f"{len(table)} texts, best of {arguments.rounds} rounds")
    print(f"{'':16}{'agreement':>10}{'difference':>12}{'texts/s':>9}{'MB':>8}")
    for name, row in rows.items():
        figures = f"{row['agreement']:>10.4f}{row['difference']:>12.2e}{row['texts_per_second']:>9.0f}{row['mb']:>8.1f}"
        print(f"{name:16}{figures}")
    (arguments.out / "export.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    bad = [
        name
        for name, row in rows.items()
        if (row["agreement"] < arguments.agreement if "int8" in name else row["difference"] > TOLERANCE)
    ]
    print(f"beyond the bounds: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


def measure(folders: dict[str, Path], table: object, *, rounds: int) -> dict[str, dict[str, float]]:
    """Compare logits on every text, then time predictions in turn."""
    artifacts = {name: load_artifact(folder) for name, folder in folders.items()}
    first = next(iter(artifacts.values()))
    batches = read_batches(first, table, text=None, text_b=None, most=len(table))
    logits = {name: compute_batches(artifact.model, batches) for name, artifact in artifacts.items()}
    expected = logits["PyTorch fp32"]
    checks = {name: compare_logits(expected, found, first.labels) for name, found in logits.items()}
    assert all(check.num_texts == len(table) for check in checks.values())
    classifiers = {name: nt.Classifier(artifact, precision="fp32") for name, artifact in artifacts.items()}
    classifiers["PyTorch auto"] = nt.Classifier(load_artifact(folders["PyTorch fp32"]))
    texts = read_texts(first, table)
    best: dict[str, float] = dict.fromkeys(classifiers, np.inf)
    answers = {}
    for _ in range(rounds):
        for name, classifier in classifiers.items():
            start = time.perf_counter()
            answers[name] = classifier.predict_proba(*texts)
            best[name] = min(best[name], time.perf_counter() - start)
    # Where PyTorch takes bf16 for speed, its logits are no matter of an export: only labels and speed are shown.
    folders = {**folders, "PyTorch auto": folders["PyTorch fp32"]}
    labels = {name: predict_labels(found, first.labels) for name, found in answers.items()}
    kept = {name: float(np.mean(found == labels["PyTorch fp32"])) for name, found in labels.items()}
    return {
        name: {
            "agreement": kept[name],
            "difference": checks[name].largest_difference if name in checks else float("nan"),
            "texts_per_second": len(table) / seconds,
            "mb": sum(path.stat().st_size for path in list_weights(folders[name])) / 1e6,
        }
        for name, seconds in best.items()
    }


def read_texts(artifact: object, table: object) -> list[list[str]]:
    """The texts as `predict_proba` takes them."""
    is_pair = bool(artifact.metadata.get("reading", {}).get("is_pair"))
    ready = prepare_inference_table(table, is_pair=is_pair, where="test")
    return [list(ready[name]) for name in (("text", "text_b") if is_pair else ("text",))]


def list_weights(folder: Path) -> list[Path]:
    """Files with weights, of a run or an export."""
    names = ("*.safetensors", "model.onnx*", "openvino_model.*")
    return [path for place in (folder, folder / "model") for name in names for path in place.glob(name)]


if __name__ == "__main__":
    sys.exit(main())
