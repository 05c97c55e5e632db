"""A launched command's size is its own, and what it says and how it ends come through."""

import resource
import subprocess
import sys

import pytest

from nlp_transfer.benchmarks.launch import read_peak

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
