"""Hold `rank` against what fine-tuning every encoder comes to.

    python recipes/scripts/check_rank.py zoo --data sets/trec --data sets/sst2 --out runs/check-rank

Every folder in the zoo is an encoder (recipes/scripts/make_zoo.py makes some). They are ranked on each data set, then
all are fine-tuned as `advise` would plan it, and for each estimator the table says how well its figures agree with
test accuracy: Pearson's correlation over the members that are not random, Kendall's tau, the accuracy that is lost by
taking its first choice, and how many times cheaper the ranking was. What stands in --out is not done again, so a check
that was broken off goes on. Members fine-tuned on a data set of the same name are left out there.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np


def write(path: Path, content: Any) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def read_same(path: Path, question: Any) -> Any:
    """Read the result to the same question; None where there is none."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["question"] != question:
        raise SystemExit(f"{path}: was made with other options: {found['question']}. Name another --out.")
    return found


def rank_members(data: Path, members: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """Rank the members on one data set."""
    import nlp_transfer as nt

    path = options.out / data.name / "ranking.json"
    question = {
        "members": [member.name for member in members],
        "limit": options.rank_limit,
        "layers": options.layers,
        "seed": options.seed,
    }
    if (kept := read_same(path, question)) is not None:
        return dict(kept)
    # Vectors kept by an earlier command would make this one look cheaper than it is.
    shutil.rmtree(Path(os.environ["HF_DATASETS_CACHE"]) / "nlp_transfer" / "vectors", ignore_errors=True)
    start = time.perf_counter()
    ranking = nt.rank(
        str(data),
        members,
        estimators=["all"],
        layers=options.layers,
        limit=options.rank_limit,
        seed=options.seed,
        progress=False,
    )
    record = ranking.to_json()
    rows = {Path(row["name"]).name: row for row in record["encoders"]}
    classes = len(record["data"]["labels"])
    found = {"question": question, "seconds": time.perf_counter() - start, "classes": classes, "rows": rows}
    write(path, found)
    return found


def fine_tune(data: Path, member: Path, seed: int, classes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune one member with one seed, by a recipe that arrives, and keep its figures, not its weights."""
    import nlp_transfer as nt
    from nlp_transfer.evidence.advise.candidates import plan_recipe

    path = options.out / data.name / f"{member.name}-seed-{seed}.json"
    question = {"limit": options.limit, "max_length": options.max_length, "set": options.set}
    if (kept := read_same(path, question)) is not None:
        return dict(kept)
    place = options.out / data.name / "runs" / f"{member.name}-seed-{seed}"
    named = {"encoder.name": member, "data.path": data, "data.limit": options.limit, "training.seed": seed}
    recipe, overrides, _ = plan_recipe(
        "full",
        rows=options.limit,
        classes=classes,
        max_length=options.max_length,
        data=[f"{key}={value}" for key, value in named.items()],
    )
    quick = ["evaluation.metrics=[accuracy]", "evaluation.tfidf=false", "evaluation.resamples=100"]
    start = time.perf_counter()
    report = nt.run(recipe, [*overrides, *quick, *options.set], output_dir=place, progress=False)
    seconds = time.perf_counter() - start
    accuracies = {split: report.scores[split]["accuracy"].value for split in ("validation", "test")}
    training = report.record["training"]["seconds"]
    found = {"question": question, **accuracies, "seconds": seconds, "training_seconds": training}
    write(path, found)
    shutil.rmtree(place, ignore_errors=True)
    print(f"{data.name} {member.name} seed {seed}: {accuracies['test']:.3f} in {seconds:.0f} s", flush=True)
    return found


def check(data: Path, members: list[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rank, fine-tune and compare on one data set; gives a row for each estimator."""
    from nlp_transfer.evidence.rank.agreement import measure_agreement

    members = [member for member in members if not member.name.endswith(f"-{data.name}")]
    ranking = rank_members(data, members, options)
    runs = {
        member.name: [fine_tune(data, member, seed, ranking["classes"], options) for seed in range(options.seeds)]
        for member in members
    }
    reached = {name: float(np.mean([run["test"] for run in own])) for name, own in runs.items()}
    # One fine-tune of each is what a ranking saves, however many seeds are averaged here.
    tuning = sum(float(np.mean([run["seconds"] for run in own])) for own in runs.values())
    rows = []
    for estimator in next(iter(ranking["rows"].values()))["scores"]:
        given = {name: row["scores"][estimator] for name, row in ranking["rows"].items()}
        all_names = [name for name in reached if given[name] is not None]
        trained = [name for name in all_names if "random" not in name]
        if len(trained) < 3:
            continue
        own = [
            sum(row["seconds"][key] for key in ("embed", "head", estimator) if key in row["seconds"])
            - (row["seconds"].get("head", 0.0) if estimator not in ("leep", "nce") else 0.0)
            for row in ranking["rows"].values()
        ]
        agreement = measure_agreement([given[name] for name in trained], [reached[name] for name in trained])
        whole = measure_agreement([given[name] for name in all_names], [reached[name] for name in all_names])
        rows.append(
            {
                "data": data.name,
                "estimator": estimator,
                **agreement.to_json(),
                "pearson_with_random": whole.pearson,
                "seconds": sum(own),
                "times_cheaper": tuning / sum(own),
            }
        )
    write(options.out / data.name / "agreement.json", {"reached": reached, "rows": rows})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print a line for each estimator and data set, and the means over data sets."""
    print(f"\n{'data':<18}{'estimator':<14}{'n':>4}{'pearson':>9}{'tau':>7}{'regret':>8}{'seconds':>9}{'cheaper':>9}")

    def line(name: str, estimator: str, each: list[dict[str, Any]]) -> None:
        keys = ("n", "pearson", "kendall_tau", "regret", "seconds", "times_cheaper")
        n, pearson, tau, regret, seconds, cheaper = (
            float(np.mean([np.nan if row[key] is None else row[key] for row in each])) for key in keys
        )
        figures = f"{n:>4.0f}{pearson:>9.3f}{tau:>7.3f}{regret:>8.3f}{seconds:>9.1f}{cheaper:>8.1f}x"
        print(f"{name:<18}{estimator:<14}{figures}")

    for row in rows:
        line(row["data"], row["estimator"], [row])
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        line("mean", estimator, [row for row in rows if row["estimator"] == estimator])


def main() -> int:
    """Check every data set and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, help="folder of encoders")
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of splits; several times")
    parser.add_argument("--out", type=Path, default=Path("runs/check-rank"))
    parser.add_argument("--limit", type=int, default=1000, help="train rows of a fine-tune")
    parser.add_argument("--max-length", type=int, default=128, help="tokens that a fine-tune reads")
    parser.add_argument("--set", action="append", default=[], help="recipe key of the fine-tunes; several times")
    parser.add_argument("--seeds", type=int, default=1, help="fine-tunes of each member, averaged")
    parser.add_argument("--rank-limit", type=int, default=1000, help="train rows that the ranking looks at")
    parser.add_argument("--layers", default="mean")
    parser.add_argument("--seed", type=int, default=0, help="of the ranking's rows")
    options = parser.parse_args()
    members = sorted(place for place in options.zoo.iterdir() if place.is_dir() and not place.name.startswith("."))
    if len(members) < 2:
        raise SystemExit(f"{options.zoo}: expected two encoders or more, found {len(members)}.")
    # Read by the libraries when they are imported, which is later.
    os.environ["HF_DATASETS_CACHE"] = str((options.out / "cache").resolve())
    rows = [row for data in options.data for row in check(data, members, options)]
    write(options.out / "agreement.json", rows)
    show(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
