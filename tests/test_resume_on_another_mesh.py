"""A run that goes on on another number of devices ends where it would have ended, to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# The first so many devices of a process that has eight.
MESHES = """
import dataclasses, signal, sys, jax, numpy as np
from pathlib import Path
from configs import common
from tests import tiny
from modaltune_jax.signals import Terminated
from modaltune_jax.train import build, train

folder = Path(sys.argv[1])
loss = common.loss(distillation=1.0)
config, records, targets = tiny.experiment(folder, "mean_pool", loss, b1=0.9)

def go_on(num_devices, workdir, stop_in=None):
    mesh = dataclasses.replace(config.mesh, data=num_devices)
    run, state = build(dataclasses.replace(config, mesh=mesh), 0, ("slides", "expression"), records, targets)
    assert run.mesh.size == num_devices

    def step(state, *args):
        if int(state.step) + 1 == stop_in:
            signal.raise_signal(signal.SIGTERM)
        return run.train_step(state, *args)

    last = train(dataclasses.replace(run, train_step=step), state, folder / workdir)
    flat, _ = jax.tree_util.tree_flatten_with_path(last.trainable)
    np.savez(folder / workdir, **{jax.tree_util.keystr(path): np.asarray(value) for path, value in flat})

go_on(1, "whole")
for num_devices, stop_in in ((8, 3), (1, 9), (4, None)):
    try:
        go_on(num_devices, "moved", stop_in)
    except Terminated as stopped:
        print(stopped)
"""


def test_from_eight_devices_to_one_to_four(tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", MESHES, tmp_path],
        env=os.environ | {"XLA_FLAGS": flags},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.fail(done.stderr)
    assert [line.split(" of ")[0] for line in done.stdout.splitlines() if line.startswith("stopped")] == [
        "stopped after step 3",
        "stopped after step 9",
    ]
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "moved.npz") as moved:
        for name in whole:
            np.testing.assert_allclose(moved[name], whole[name], rtol=2e-3, atol=2e-4, err_msg=name)
