"""The work of a job is what its layers multiply, and shares are of a limit that was measured apart."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from nlp_transfer.benchmarks import runners
from nlp_transfer.benchmarks.picture import draw_sizes
from nlp_transfer.benchmarks.rounds import Bench, run_suite
from nlp_transfer.benchmarks.runners import _launch_processes
from nlp_transfer.benchmarks.shares import (
    Sizes,
    add_matrix_shares,
    count_forward,
    count_job,
    count_training,
    read_sizes,
)
from nlp_transfer.benchmarks.suite import Suite, load_suite, narrow_suite
from nlp_transfer.benchmarks.summary import compare_contenders, comparison_table
from nlp_transfer.errors import OutputError
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.runs.pipeline import run
from tests.tiny import make_splits

PEER = """
import json
print(json.dumps({"peer": "trainer", "train_seconds": 2.0, "test_accuracy": 0.25, "precision": "bf16"}))
"""


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "mpnet", "roberta", "albert"])
def test_the_count_is_what_torch_counts_in_the_layers(family, tiny_encoder):
    model = AutoModel.from_pretrained(tiny_encoder(family), attn_implementation="eager").eval()
    sizes = read_sizes(model.config)
    tokens = torch.full((2, 12), 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    counted = sizes.layers * count_forward(sizes, np.array([12, 12]))
    # The pooler and what stands between embeddings of another size and the layers are not counted.
    outside = counter.get_total_flops() - counted
    assert 0 <= outside <= 0.1 * counted


def test_a_family_with_other_layers_has_no_count(tiny_encoder):
    for family in ("modernbert", "deberta-v2"):
        assert read_sizes(AutoModel.from_pretrained(tiny_encoder(family)).config) is None


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"kind": "full"}, 3 * 3 * 2),  # three passes' worth, three layers, two epochs
        ({"kind": "frozen"}, 3),
        ({"kind": "features"}, 3),
        ({"kind": "lora"}, 2 * 3 * 2),
        ({"kind": "layerwise", "freeze_layers": 2}, 2 + 3 * 2),
        ({"kind": "layerwise", "freeze_layers": 2, "only": "biases"}, None),
        ({"kind": "layerwise"}, None),
        ({"kind": "few_shot"}, None),
    ],
)
def test_training_counts_what_gradients_have_to_reach(strategy, expected):
    sizes, lengths = Sizes(hidden=8, inner=16, layers=3), np.array([3, 5])
    recipe = Recipe.model_validate({"strategy": strategy, "training": {"epochs": 2.0}})
    work = count_training(recipe, sizes, lengths)
    assert work == (None if expected is None else pytest.approx(expected * count_forward(sizes, lengths)))
    stopped = Recipe.model_validate({"strategy": strategy, "training": {"max_steps": 3}})
    assert count_training(stopped, sizes, lengths) is None


@pytest.fixture
def place(tmp_path):
    splits = make_splits(20, 2, names=("x", "y"))
    (tmp_path / "data" / "made_up").mkdir(parents=True)
    for name, table in splits.tables.items():
        table.to_parquet(tmp_path / "data" / "made_up" / f"{name}.parquet")
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "peer_trainer.py").write_text(PEER)
    return tmp_path


def make_suite():
    overrides = ["training.epochs=1", "training.precision=fp32", "training.device=cpu", "evaluation.tfidf=false"]
    return Suite.model_validate(
        {
            "description": "A try.",
            "contenders": {"ours": {"recipe": "sentiment/full"}, "peer": {"peer": "trainer"}},
            "jobs": {"made_up": {"data": "made_up", "overrides": overrides}},
        }
    )


def test_shares_are_of_limits_measured_once_and_kept_beside_the_rows(place, tiny_encoder, monkeypatch):
    suite = make_suite()
    bench = Bench(place / "data", place / "out", str(tiny_encoder("bert")), peers=place / "peers")
    call = runners._call
    asked = []

    def call_beside(command, name, *rest):
        if "nlp_transfer.benchmarks.limits" in command:
            asked.append(command[command.index("--format") + 1])
            line = {"format": asked[-1], "device": "cpu", "threads": 1, "flop_per_second": 1e6 * len(asked)}
            return json.dumps(line)
        if "sentiment/full" in command:
            run("sentiment/full", command[command.index("sentiment/full") + 1 :], progress=False)
            return ""
        return call(command, name, *rest)

    monkeypatch.setattr(runners, "_call", call_beside)
    records, limits = add_matrix_shares(run_suite(suite, bench), suite, bench)
    assert asked == ["fp32", "bf16"]
    assert [limit["flop_per_second"] for limit in limits] == [1e6, 2e6]
    work = count_job(suite, bench, "made_up", "ours")
    assert work == count_job(suite, bench, "made_up", "peer") > 0
    ours, peer = records
    assert ours["environment"]["precision"] == "fp32"
    assert ours["matrix_share"] == pytest.approx(work / ours["seconds"] / 1e6)
    assert peer["matrix_share"] == pytest.approx(work / 2.0 / 2e6)
    assert add_matrix_shares(records, suite, bench)[1] == limits
    assert len(asked) == 2
    console = Console(width=80, record=True)
    console.print(comparison_table(compare_contenders(records), "A try."))
    text = console.export_text()
    assert all(heading in text for heading in ("pad", "peak", "limit"))
    assert max(map(len, text.splitlines())) <= 80
    (bench.out / "limits.json").write_text("{")
    with pytest.raises(OutputError, match=r"limits\.json: cannot be read"):
        add_matrix_shares(records, suite, bench)


def test_work_without_a_recipe_on_the_job_is_not_made_up(place, tiny_encoder):
    suite = narrow_suite(make_suite(), contenders=["peer"])
    bench = Bench(place / "data", place / "out", str(tiny_encoder("bert")), peers=place / "peers")
    records, limits = add_matrix_shares(run_suite(suite, bench), suite, bench)
    assert [record["matrix_share"] for record in records] == [None]
    assert limits == []


def test_the_limit_is_measured_in_a_process_of_its_own():
    command = [sys.executable, "-m", "nlp_transfer.benchmarks.limits", "--format", "fp32", "--threads", "1"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["threads"] == 1
    assert found["flop_per_second"] > 0


def test_scaling_holds_each_size_against_the_first_of_its_job():
    suite = load_suite("scaling")
    held = {job: [name for name in suite.contenders if name not in suite.jobs[job].skip] for job in suite.jobs}
    assert [len(held[job]) for job in ("rows", "length", "processes")] == [4, 4, 2]
    assert all(name.startswith(job) for job, names in held.items() for name in names)
    assert _launch_processes(suite.contenders["processes_2"].processes)[-2:] == ["--num_processes=2", "-m"]
    records = [
        {
            "job": job,
            "contender": name,
            "round": 0,
            "accuracy": 0.5,
            "seconds": float(place + 1),
            "examples_per_second": 7.0,
            "settings": suite.contenders[name].model_dump(exclude_defaults=True),
        }
        for job, names in held.items()
        for place, name in enumerate(names)
    ]
    rows = compare_contenders(records)
    assert [row.get("time_ratio") for row in rows] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert [row["size"] for row in rows][:5] == [500, 1000, 2000, 4000, 32]
    console = Console(width=80, record=True)
    console.print(comparison_table(rows, "A try."))
    text = console.export_text()
    assert all(heading in text for heading in ("minus", "first", "accuracy", "seconds"))
    picture = draw_sizes(rows)
    assert all(f">{text}<" in picture for text in ("rows", "length", "processes", "4000", "256"))
    assert picture.index(">rows<") < picture.index(">length<") < picture.index(">processes<")
