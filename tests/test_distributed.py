"""Several processes: flags, and a whole command in two of them."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from modaltune_jax.distributed import Processes, add_flags, from_flags
from modaltune_jax.types import InputError
from tests import small

ROOT = Path(__file__).parents[1]
HERE = ["--coordinator=localhost:1234", "--num-processes=4"]


def parse(flags):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return from_flags(parser.parse_args(flags))


@pytest.mark.parametrize(
    ("flags", "processes"),
    [
        pytest.param([], None, id="one process"),
        pytest.param(["--distributed"], Processes(), id="jax finds them"),
        pytest.param([*HERE, "--process-id=3"], Processes("localhost:1234", 4, 3), id="plain hosts"),
    ],
)
def test_flags(flags, processes):
    assert parse(flags) == processes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(HERE, "belong together", id="which process is missing"),
        pytest.param(["--distributed", "--process-id=0"], "belong together", id="only which process"),
        pytest.param([*HERE, "--process-id=4"], "--process-id=4.*from 0 to 3", id="one more than there are"),
    ],
)
def test_flags_that_cannot_be(flags, said):
    with pytest.raises(InputError, match=said):
        parse(flags)


def test_two_processes_train_and_one_of_them_writes(tmp_path):
    """The whole command, with evaluation and checkpoints; the second process says and writes nothing."""
    folder = small.make_folder(tmp_path)
    port = 40_000 + os.getpid() % 20_000
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    command = [
        *(sys.executable, "-m", "modaltune_jax.main", "--config=small.py", "--workdir=run"),
        *("--config.optim.epochs=2", "--config.mesh.fsdp=2"),
        *(f"--coordinator=127.0.0.1:{port}", "--num-processes=2"),
    ]
    processes = [
        subprocess.Popen(
            [*command, f"--process-id={i}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    (first, first_errors), (second, second_errors) = [
        process.communicate(timeout=240) for process in processes
    ]
    assert [process.returncode for process in processes] == [0, 0], (
        first_errors[-2000:] + second_errors[-2000:]
    )
    assert "results in run/" in first
    assert [line for line in second.splitlines() if "[Gloo]" not in line] == []
    assert "epoch" not in second_errors
    assert set(pd.read_csv(folder / "run/results.csv")["split"]) == {"val", "test"}
    assert [path.name for path in (folder / "run/full/seed0/checkpoints/best").iterdir()]
