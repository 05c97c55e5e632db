import pytest

from nlp_transfer.contracts import RunLog
from nlp_transfer.errors import OutOfTimeError, RecipeError
from nlp_transfer.evidence.clock import PROBE_STEPS, SETTLED_STEPS, DeadlineHook, StepTimer, parse_budget


@pytest.mark.parametrize("text", ["soon", "-3m", "0", "10 minutes", "m", ""])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(RecipeError, match="budget: expected a time such as 10m"):
        parse_budget(text)


def take_steps(num_steps: int, seconds: float, end: float, log: RunLog) -> int:
    """Take even steps under a deadline; the log holds how far it came."""
    now = [0.0]
    hook = DeadlineHook(num_steps, end, now=lambda: now[0])
    for _ in range(num_steps):
        now[0] += seconds
        log.steps += 1
        hook.after_step(log, None, 0.0)
    return log.steps


def test_a_fit_that_ends_in_time_is_left_alone_to_its_last_step():
    assert take_steps(200, 1.0, 200.5, RunLog()) == 200
    # The last step is over its time, but there is nothing to save by ending it.
    assert take_steps(5, 1.0, 4.5, RunLog()) == 5


@pytest.mark.parametrize(("end", "most"), [(50.0, SETTLED_STEPS + PROBE_STEPS), (190.0, 25)])
def test_a_fit_that_cannot_end_in_time_is_stopped_long_before_its_deadline(end, most):
    log = RunLog()
    with pytest.raises(OutOfTimeError, match=r"stopped at step \d+ of 200: it needed \d+ s more"):
        take_steps(200, 1.0, end, log)
    assert SETTLED_STEPS + PROBE_STEPS <= log.steps <= most


def test_a_fit_whose_steps_become_slow_is_stopped_at_its_deadline():
    log, now = RunLog(steps=50), [100.0]
    hook = DeadlineHook(60, 90.0, now=lambda: now[0])
    with pytest.raises(OutOfTimeError, match="when its time was up"):
        hook.after_step(log, None, 0.0)


def test_a_step_timer_leaves_the_first_steps_out_and_ends_the_fit(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nlp_transfer.evidence.clock.time.monotonic", lambda: now[0])
    timer = StepTimer(1000.0)

    def take(seconds: list[float]) -> None:
        for step in seconds:
            now[0] += step
            timer.after_step(RunLog(), None, 0.0)

    with pytest.raises(OutOfTimeError):
        take([9.0, 5.0, 3.0, *[0.5] * 30])
    assert len(timer.times) == PROBE_STEPS + 1
    assert timer.seconds == pytest.approx(0.5)
