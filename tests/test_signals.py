"""Signals: raised, held back, noted; and a process that ends in time whatever it is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modaltune_jax import command
from modaltune_jax.signals import STOPS, StopSignals, Terminated, stops_wait, terminations_raise

ERRORS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated, signal.SIGUSR1: Terminated}


@pytest.fixture(autouse=True)
def handlers_come_back():
    before = [signal.getsignal(number) for number in STOPS]
    yield
    assert [signal.getsignal(number) for number in STOPS] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", STOPS)
def test_the_first_is_noted(number):
    def work():
        with StopSignals(60.0) as signals:
            assert signals.received is None
            signal.raise_signal(number)
            assert signals.received == number
            raise signals.error("saved")

    with pytest.raises(ERRORS[number], match="saved") as info:
        work()
    assert type(info.value) is ERRORS[number]


def test_what_nobody_heeded_is_raised_at_the_end():
    done = []

    def work():
        with StopSignals(60.0):
            signal.raise_signal(signal.SIGTERM)
            done.append("all")

    with pytest.raises(Terminated):
        work()
    assert done == ["all"]


@pytest.mark.parametrize("comes", ["before", "meanwhile"])
def test_work_that_is_done_again_is_interrupted(comes):
    done = []

    def work():
        with StopSignals(60.0) as signals:
            if comes == "before":
                signal.raise_signal(signal.SIGTERM)
            with signals.interrupting():
                signal.raise_signal(signal.SIGTERM)
                done.append("more")

    with pytest.raises(Terminated):
        work()
    assert done == []


@pytest.mark.parametrize("context", [terminations_raise, lambda: StopSignals(60.0)])
def test_a_save_is_not_broken_off(context):
    done = []

    def work():
        with context(), stops_wait():
            signal.raise_signal(signal.SIGTERM)
            done.append("saved")

    with pytest.raises(Terminated):
        work()
    assert done == ["saved"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_command_cleans_up_and_says_so(number, monkeypatch, capsys):
    cleaned = []

    def main(arguments):
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as end:
        command.run(main, interrupted="stopped: nothing was written")
    assert end.value.code == 143
    assert cleaned
    assert capsys.readouterr().err == "stopped: nothing was written\n"


HANGS = """
import sys, time
from modaltune_jax.signals import StopSignals
with StopSignals(float(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("grace", "kills", "reason"),
    [
        pytest.param("60", 2, "by a second signal", id="second signal"),
        pytest.param("0.2", 1, "0.2 s of checkpoint.grace_seconds", id="grace period"),
    ],
)
def test_a_process_that_hangs_ends_in_time(grace, kills, reason):
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, grace],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(kills):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    lines = err.strip().splitlines()
    assert lines[0].startswith("stopping after the step under way")
    assert reason in lines[-1]
    assert "the same command goes on" in lines[-1]
