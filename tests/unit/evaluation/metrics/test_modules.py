import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from datasets import Features, Sequence, Value
from sklearn import metrics as sk

from nlp_transfer.errors import LabelError, ShapeError
from nlp_transfer.evaluation.metrics.modules import (
    BUNDLED,
    F1,
    Accuracy,
    BrierScore,
    CohenKappa,
    Mae,
    MatthewsCorrelation,
    Mse,
    Pearsonr,
    Precision,
    Recall,
    RocAuc,
    Spearmanr,
)

INT, FLOAT = Value("int32"), Value("float32")
CLASSES = Features({"predictions": INT, "references": INT})
NUMBERS = Features({"predictions": FLOAT, "references": FLOAT})

# Ids, columns and result keys as the modules under metrics/ of huggingface/evaluate have them.
HUB: dict[str, tuple[Any, str]] = {
    "accuracy": (CLASSES, "accuracy"),
    "precision": (CLASSES, "precision"),
    "recall": (CLASSES, "recall"),
    "f1": (CLASSES, "f1"),
    "matthews_correlation": (CLASSES, "matthews_correlation"),
    "roc_auc": (Features({"references": INT, "prediction_scores": FLOAT}), "roc_auc"),
    "brier_score": (
        [
            Features({"references": FLOAT, "predictions": FLOAT}),
            Features({"references": Value("string"), "predictions": FLOAT}),
        ],
        "brier_score",
    ),
    "mse": (NUMBERS, "mse"),
    "mae": (NUMBERS, "mae"),
    "pearsonr": (NUMBERS, "pearsonr"),
    "spearmanr": (NUMBERS, "spearmanr"),
}
OURS = {"cohen_kappa", "average_precision", "log_loss", "expected_calibration_error"}


def _compute_once(name: str) -> dict[str, Any]:
    module = BUNDLED[name]()
    first = next(iter(module.features)) if isinstance(module.features, list) else module.features
    scores = [0.2, 0.8, 0.6, 0.3]
    columns: dict[str, Any] = {}
    for column, feature in first.items():
        if column == "references":
            columns[column] = [0, 1, 0, 1]
        elif isinstance(feature, Sequence) or not isinstance(feature, Value):
            columns[column] = [[1 - score, score] for score in scores]
        else:
            columns[column] = scores if feature.dtype.startswith("float") else [0, 1, 1, 0]
    return module.compute(**columns)


def test_modules_have_the_hubs_ids_columns_and_result_keys() -> None:
    assert set(BUNDLED) == set(HUB) | OURS
    for name, (features, key) in HUB.items():
        assert BUNDLED[name]().name == name
        assert BUNDLED[name]().features == features
        assert list(_compute_once(name)) == [key]
    assert len(HUB) == 11


@pytest.mark.parametrize("name", sorted(OURS))
def test_modules_without_a_hub_model_give_their_own_id_as_the_key(name: str) -> None:
    assert list(_compute_once(name)) == [name]


def test_multilabel_configurations_read_rows() -> None:
    references, predictions = [[0, 1], [1, 1], [1, 0]], [[0, 1], [1, 0], [1, 0]]
    assert Accuracy("multilabel").compute(predictions=predictions, references=references)["accuracy"] == 2 / 3
    for module, score in ((F1, sk.f1_score), (Precision, sk.precision_score), (Recall, sk.recall_score)):
        for average in ("macro", "micro", "weighted"):
            found = module("multilabel").compute(predictions=predictions, references=references, average=average)
            assert next(iter(found.values())) == pytest.approx(score(references, predictions, average=average))


def test_parameters_of_the_hub_work_as_in_sklearn() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(5):
        true, given, weights = rng.integers(4, size=30), rng.integers(4, size=30), rng.random(30)
        columns = {"predictions": given, "references": true, "sample_weight": weights.tolist()}
        pairs = [
            (Accuracy().compute(**columns), sk.accuracy_score(true, given, sample_weight=weights)),
            (
                Accuracy().compute(**columns, normalize=False),
                sk.accuracy_score(true, given, sample_weight=weights, normalize=False),
            ),
            (MatthewsCorrelation().compute(**columns), sk.matthews_corrcoef(true, given, sample_weight=weights)),
            (CohenKappa().compute(**columns), sk.cohen_kappa_score(true, given, sample_weight=weights)),
            (
                CohenKappa().compute(**columns, weights="quadratic"),
                sk.cohen_kappa_score(true, given, sample_weight=weights, weights="quadratic"),
            ),
            (
                Mse().compute(**columns, squared=False),
                np.sqrt(sk.mean_squared_error(true, given, sample_weight=weights)),
            ),
            (Mae().compute(**columns), sk.mean_absolute_error(true, given, sample_weight=weights)),
        ]
        for average in ("macro", "micro", "weighted", None):
            for labels in (None, [3, 1], [0, 1, 2, 3, 4]):
                asked = {"average": average, "labels": labels}
                expected = sk.f1_score(true, given, sample_weight=weights, zero_division=0, **asked)
                pairs.append((F1().compute(**columns, **asked), expected))
                expected = sk.precision_score(true, given, sample_weight=weights, zero_division=1, **asked)
                pairs.append((Precision().compute(**columns, **asked, zero_division=1), expected))
        for found, expected in pairs:
            assert next(iter(found.values())) == pytest.approx(expected, abs=1e-9)
            compared += 1
    assert compared == 5 * (7 + 24)


def test_binary_average_reads_the_positive_label_and_refuses_more_than_two_classes() -> None:
    two = {"references": [0, 1, 0, 1, 0], "predictions": [0, 0, 1, 1, 0]}
    assert F1().compute(**two, pos_label=0)["f1"] == pytest.approx(2 / 3)
    with pytest.raises(LabelError, match="two classes"):
        F1().compute(references=[0, 1, 2], predictions=[0, 1, 1])


def test_kappa_refuses_a_class_outside_its_labels() -> None:
    with pytest.raises(LabelError, match="add them to labels"):
        CohenKappa().compute(references=[0, 5], predictions=[0, 1], labels=[0, 1])


def test_sample_weight_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected 2 weights"):
        Accuracy().compute(references=[0, 1], predictions=[0, 1], sample_weight=[1.0])


def test_correlations_return_p_values_when_asked() -> None:
    columns = {"predictions": [10, 9, 2.5, 6, 4], "references": [1, 2, 3, 4, 5]}
    assert Pearsonr().compute(**columns, return_pvalue=True)["p-value"] == pytest.approx(0.15, abs=0.01)
    assert Spearmanr().compute(**columns, return_pvalue=True)["spearmanr_pvalue"] == pytest.approx(0.19, abs=0.01)


def test_brier_reads_text_references_and_errors_read_several_outputs() -> None:
    found = BrierScore().compute(
        references=["spam", "ham", "ham", "spam"], predictions=[0.1, 0.9, 0.8, 0.3], pos_label="ham"
    )
    assert found["brier_score"] == pytest.approx(0.0375)
    rows = {"predictions": [[0.5, 1], [-1, 1], [7, -6]], "references": [[0, 2], [-1, 2], [8, -5]]}
    assert Mse("multilist").compute(**rows)["mse"] == pytest.approx(0.7083333)
    raw = Mse("multilist").compute(**rows, multioutput="raw_values")["mse"]
    assert raw.tolist() == pytest.approx([0.41666667, 1.0])


def test_roc_auc_scores_several_classes() -> None:
    scores = [[0.3, 0.5, 0.2], [0.7, 0.2, 0.1], [0.005, 0.99, 0.005], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.1, 0.7, 0.2]]
    found = RocAuc("multiclass").compute(references=[1, 0, 1, 2, 2, 0], prediction_scores=scores, multi_class="ovr")
    assert found["roc_auc"] == pytest.approx(0.85, abs=0.005)


def test_modules_forget_the_examples_of_an_earlier_call() -> None:
    module = Accuracy()
    assert module.compute(predictions=[1, 1], references=[1, 1])["accuracy"] == 1.0
    assert module.compute(predictions=[0], references=[1])["accuracy"] == 0.0
    module.add_batch(predictions=[0, 1], references=[0, 1])
    module.add(prediction=1, reference=0)
    assert module.compute()["accuracy"] == pytest.approx(2 / 3)


SCRIPT = """
import warnings
warnings.simplefilter("error")
from nlp_transfer.evaluation.metrics.modules import BUNDLED, Accuracy, LogLoss, Spearmanr
for _ in range(50):
    assert Accuracy().compute(predictions=[0, 1], references=[0, 0]) == {"accuracy": 0.5}
Spearmanr().compute(predictions=[0.0, 1.0], references=[0.0, 1.0])
LogLoss().compute(predictions=[[0.5, 0.5]], references=[0])
print(len(BUNDLED))
"""


@pytest.mark.slow
def test_two_processes_that_compute_offline_leave_no_file_behind(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    root = Path(__file__).parents[4]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment |= {"HF_HOME": str(home / "hf"), "HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-B", "-c", SCRIPT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, cwd=work, env=environment, text=True, **pipes) for _ in range(2)]
    for process in processes:
        said, complaint = process.communicate(timeout=300)
        assert process.returncode == 0, complaint
        assert said.strip() == str(len(BUNDLED))
    assert [path for path in tmp_path.rglob("*") if path not in (home, work)] == []


def test_no_lock_or_folder_is_made_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert len([_compute_once(name) for name in BUNDLED]) == 15
    assert list(tmp_path.iterdir()) == []
    # The look would have found something: a module without the bundled base does leave a folder.
    monkeypatch.setattr(Accuracy, "_build_data_dir", evaluate.Metric._build_data_dir)
    Accuracy()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
