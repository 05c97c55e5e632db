"""Progress: a bar on terminals, plain lines elsewhere."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from nlp_transfer.contracts import Evaluation, RunLog
from nlp_transfer.engine.train import hooks
from nlp_transfer.engine.train.hooks import PlainProgress, ProgressBar, TrackerHook, build_progress
from nlp_transfer.recipe.schema import TrainingConfig

LOG = RunLog(steps=5, examples=160, seconds=2.0, epochs=0.5)


@pytest.mark.parametrize(("terminal", "kind"), [(True, ProgressBar), (False, PlainProgress)])
def test_progress_shows_loss_speed_and_validation(terminal, kind, monkeypatch):
    monkeypatch.setattr(hooks, "PLAIN_SECONDS", 0.0)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    progress = build_progress(console, 10, "full, seed 0")
    assert isinstance(progress, kind)
    progress.after_step(LOG, None, 1e-3)
    progress.after_step(LOG, 0.4321, 1e-3)
    progress.after_evaluation(LOG, Evaluation(5, 0.5, {"accuracy": 0.75}))
    progress.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "accuracy 0.750" in shown
    assert "loss 0.432" in shown
    assert "80 examples/s" in shown


def test_trackers_get_figures_and_are_closed():
    sent, closed = [], []
    accelerator = SimpleNamespace(
        log=lambda values, step: sent.append((values, step)), end_training=lambda: closed.append(True)
    )
    hook = TrackerHook(accelerator, TrainingConfig())
    hook.after_step(LOG, None, 1e-3)
    hook.after_step(LOG, 0.5, 1e-3)
    hook.after_evaluation(LOG, Evaluation(5, 0.5, {"accuracy": 0.75}))
    hook.close()
    assert sent == [
        ({"train/loss": 0.5, "train/learning_rate": 1e-3, "train/epoch": 0.5}, 5),
        ({"validation/accuracy": 0.75}, 5),
    ]
    assert closed == [True]
