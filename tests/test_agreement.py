"""Processes that are told different things at different times do the same after the same step."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from modaltune_jax.agreement import ASK_EVERY, GO_ON, SAVE, STOP, Agreement

PROCESS = """
import sys, jax, numpy as np
from jax.sharding import Mesh
from modaltune_jax.agreement import GO_ON, SAVE, STOP, Agreement
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
agreement = Agreement(Mesh(np.array(jax.devices()), ("data",)))
# Due in the first process from step 3 until it is saved; stopped in the second from step 17.
is_due, is_stopped, done = False, False, []
for step in range(1, 40):
    is_due |= step == 3 and jax.process_index() == 0
    is_stopped |= step == 17 and jax.process_index() == 1
    todo = agreement.after(step, STOP if is_stopped else SAVE if is_due else GO_ON)
    if todo != GO_ON:
        is_due = False
        done.append((step, todo))
    if todo == STOP:
        break
print(done)
"""


def test_one_process_gets_its_wish_at_once():
    agreement = Agreement(Mesh(np.array(jax.devices()[:1]), ("data",)))
    wishes = [GO_ON, SAVE, GO_ON, STOP]
    assert [agreement.after(step, wish) for step, wish in enumerate(wishes, start=1)] == wishes


def test_two_processes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(index)],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONPATH": ".", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    if any(process.returncode for process in processes):
        pytest.fail(said[0][1] + said[1][1])
    expected = str([(2 * ASK_EVERY, SAVE), (6 * ASK_EVERY, STOP)])
    assert [out.splitlines()[-1] for out, _ in said] == [expected, expected]
