"""A signal raises where nothing is lost by it, waits where something would be, and a second one ends the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from nlp_transfer import stopping
from nlp_transfer.stopping import Stopped, find_request, hold_signals, is_watched, raise_request, watch_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def send(number: int = signal.SIGTERM) -> None:
    """Send this process a signal, and wait until Python has heard it."""
    os.kill(os.getpid(), number)
    for _ in range(10):
        pass


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_where_nothing_holds_it(number, status):
    earlier = signal.signal(number, signal.SIG_DFL)  # Whoever runs the tests may ignore it, as nohup does.
    try:
        with watch_signals(), pytest.raises(Stopped) as stop:
            send(number)
    finally:
        signal.signal(number, earlier)
    assert (stop.value.exit_status, stop.value.step, stop.value.is_done) == (status, None, False)
    assert isinstance(stop.value, KeyboardInterrupt)


def test_ctrl_c_is_a_signal_as_well(monkeypatch):
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with watch_signals(), pytest.raises(Stopped) as stop:
            send(signal.SIGINT)
        assert stop.value.exit_status == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_a_held_signal_waits_for_the_end_of_the_outer_block(capfd):
    seen = []

    def work() -> None:
        with hold_signals():
            with hold_signals():
                send()
                seen.append("inner")
            seen.append("outer")
        seen.append("behind")

    with watch_signals(), pytest.raises(Stopped):
        work()
    assert seen == ["inner", "outer"]
    assert "a second signal ends at once" in capfd.readouterr().err


def test_a_request_is_raised_once_and_asked_for_again_where_it_got_lost():
    with watch_signals():
        with pytest.raises(Stopped):
            send()
        with hold_signals():  # what is done on the way out
            pass
        assert find_request() == signal.SIGTERM
        with pytest.raises(Stopped):
            raise_request()


def test_what_another_process_was_asked_for_is_raised_once_too():
    def work() -> None:
        with hold_signals():
            send()
            raise_request(signal.SIGINT)

    with watch_signals():
        with pytest.raises(Stopped) as stop:
            work()
        assert stop.value.exit_status == 130
        with hold_signals():  # the checkpoint on the way out
            pass


def test_the_last_block_says_that_everything_is_finished():
    with watch_signals(), pytest.raises(Stopped) as stop, hold_signals(is_last=True):
        send()
    assert stop.value.is_done


def test_handlers_are_put_back_and_none_is_there_without_a_command():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert stopping._receive not in before
    with watch_signals():
        assert is_watched()
        assert signal.getsignal(signal.SIGTERM) is stopping._receive
    assert not is_watched()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_is_ignored_stays_ignored():
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watch_signals():
            send(signal.SIGHUP)
            assert find_request() is None
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_another_thread_installs_nothing():
    found = []

    def watch() -> None:
        with watch_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


SECOND = """
import os, signal, time
from nlp_transfer import stopping
stopping.REPEAT_SECONDS = {seconds}
with stopping.watch_signals():
    with stopping.hold_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        print("still here", flush=True)
"""


@pytest.mark.parametrize(("seconds", "said"), [(0.0, ""), (60.0, "still here\n")])
def test_a_second_signal_ends_at_once_unless_it_is_the_first_passed_on_twice(seconds, said):
    code = SECOND.format(seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == said
    assert done.returncode == (143 if not said else 1)
    assert ("Stopped" in done.stderr) == bool(said)
