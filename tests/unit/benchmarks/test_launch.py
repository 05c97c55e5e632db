"""A launched command's size is its own, and what it says and how it ends come through."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from nlp_transfer.benchmarks.launch import read_peak
from nlp_transfer.benchmarks.runners import _call

MEASURE = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
LAUNCH = [sys.executable, "-m", "nlp_transfer.benchmarks.launch"]


def ask(*command):
    return subprocess.run([*command], capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems do not hand a peak on")
def test_a_commands_peak_is_its_own_and_not_that_of_whoever_started_it():
    # Torch is loaded here, so this process is larger than a bare interpreter.
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert here > 200e6
    assert int(ask(sys.executable, "-c", MEASURE).stdout) > 0.9 * here  # why there is a launcher
    assert 5e6 < read_peak(ask(*LAUNCH, sys.executable, "-c", "pass").stdout) < 60e6
    grown = read_peak(ask(*LAUNCH, sys.executable, "-c", "held = bytearray(300_000_000)").stdout)
    assert 300e6 < grown < 360e6


def test_what_a_command_says_and_how_it_ends_come_through():
    done = ask(*LAUNCH, sys.executable, "-c", "import sys; print('said'); print('why', file=sys.stderr); sys.exit(3)")
    assert done.returncode == 3
    assert done.stdout.startswith("said\n")
    assert done.stderr == "why\n"
    killed = ask(*LAUNCH, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert killed.returncode == 137
    assert read_peak("nothing of the kind") is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_contender_ends_with_the_benchmark(tmp_path):
    place = tmp_path / "pid"
    code = f"import os, time; open({str(place)!r}, 'w').write(str(os.getpid())); time.sleep(100)"

    def interrupt():
        until = time.monotonic() + 60
        while time.monotonic() < until and not (place.is_file() and place.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            _call([sys.executable, "-c", code], "contender")
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert not psutil.pid_exists(int(place.read_text()))
