import pytest
from rich.console import Console

from nlp_transfer.contracts import Evaluation, RunLog
from nlp_transfer.engine.train import hooks
from nlp_transfer.engine.train.notebook import NotebookBar, NotebookProgress


class Cell:
    """A notebook's output: what was put there first, and what it was changed to."""

    def __init__(self):
        self.drawn = []

    def display(self, content, *, raw, display_id):
        assert raw
        assert display_id
        self.drawn.append(content)
        return self

    def update(self, content, *, raw):
        self.drawn.append(content)


@pytest.fixture
def cell(monkeypatch):
    display = pytest.importorskip("IPython.display")
    found = Cell()
    monkeypatch.setattr(display, "display", found.display)
    return found


def test_a_training_is_one_output_that_ends_as_a_table(cell, monkeypatch):
    progress = NotebookProgress(20, "full of <b>mine</b>")
    log = RunLog(steps=10, seconds=2.0, examples=320)
    progress.bar._drawn = -9.0
    progress.after_step(log, 0.5, 1e-3)
    progress.after_step(log, None, 1e-3)
    assert len(cell.drawn) == 2, "the third came too soon"
    assert "loss 0.500, 160 examples/s, 2 s left" in cell.drawn[-1]["text/plain"]
    assert 'value="10" max="20"' in cell.drawn[-1]["text/html"]
    progress.after_evaluation(log, Evaluation(step=10, epoch=1.0, metrics={"accuracy": 0.9, "mcc": 0.8}))
    progress.close()
    last = cell.drawn[-1]
    assert "<progress" not in last["text/html"]
    assert "s left" not in last["text/plain"]
    assert "<td>0.900</td>" in last["text/html"]
    assert "validation accuracy 0.900" in last["text/plain"]
    assert not any("<b>" in drawn["text/html"] for drawn in cell.drawn)


def test_work_without_updates_is_followed_too_and_nothing_floods(cell):
    bar = NotebookBar("reading", 1000)
    for _ in range(1000):
        bar.advance(1)
    bar.show(is_done=True)
    assert len(cell.drawn) <= 5
    assert cell.drawn[-1]["text/plain"] == "reading: 1,000 of 1,000"


def test_notebooks_get_this_and_quiet_ones_nothing(cell):
    console = Console(force_jupyter=True)
    assert isinstance(hooks.build_progress(console, 3, "x"), NotebookProgress)
    with hooks.track_work(console, "reading", 2) as advance:
        advance(2)
    assert cell.drawn[-1]["text/plain"] == "reading: 2 of 2"
    before = len(cell.drawn)
    quiet = Console(force_jupyter=True, quiet=True)
    assert isinstance(hooks.build_progress(quiet, 3, "x"), hooks.PlainProgress)
    with hooks.track_work(quiet, "reading", 2) as advance:
        advance(2)
    assert len(cell.drawn) == before
