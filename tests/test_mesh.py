"""A few steps of training on any mesh are those on one device: losses and weights to 1e-5.

Gradients are followed as they are (SGD, dropout off): Adam divides a gradient by its own size, so that where
it is zero but for rounding, which differs with the order of sums, weights would differ by whole steps.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

MESHES = {
    "data": (8, 1, 1),
    "fsdp": (1, 8, 1),
    "sequence": (1, 1, 8),
    "data x fsdp x sequence": (2, 2, 2),
    "data x fsdp x sequence, layers scanned": (2, 2, 2),
}

SCRIPT = """
import sys
from pathlib import Path
folder, process, num_processes, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
import jax
if num_processes > 1:
    from modaltune_jax.distributed import Processes, start
    start(Processes(f"127.0.0.1:{port}", num_processes, process))
import dataclasses
import numpy as np
import optax
from modaltune_jax import partitioning, train
from modaltune_jax.inputs.pipeline import train_batches
from tests import tiny
from tests.test_mesh import MESHES

partitioning.MIN_SHARDED = 64
train.make_optimizer = lambda config, steps: optax.sgd(0.1)
config, records, targets = tiny.experiment(folder, loss=tiny.common.loss(distillation=1.0, cox=0.1))
encoder = dataclasses.replace(config.model.encoder, dropout=0.0, drop_path=0.0)
pathways = dataclasses.replace(config.model.pathways, dropout=0.0)
adapter = dataclasses.replace(config.model.adapter, drop_path=0.0)
model = dataclasses.replace(
    config.model, encoder=encoder, pathways=pathways, adapter=adapter, modalities=("slides",)
)
for name, shape in ({"one": (1, 1, 1)} | MESHES).items():
    if num_processes > 1 and name != "data x fsdp x sequence":
        continue
    scanned = dataclasses.replace(encoder, scan_layers=True, remat=True)
    model = dataclasses.replace(model, encoder=scanned if "scanned" in name else encoder)
    config = dataclasses.replace(config, model=model, mesh=partitioning.MeshConfig(*shape))
    run, state = train.build(config, 0, ("slides",), records, targets)
    batches = iter(train_batches(
        records, records.rows("train"), targets.values, targets.transforms, run.pipeline, seed=0,
        num_shards=8, shard=partitioning.process_shard(run.mesh),
    ))
    losses = []
    for _ in range(3):
        batch = partitioning.shard_batch(next(batches), run.mesh)
        state, metrics = run.train_step(state, run.frozen, batch)
        losses.append(metrics["loss"])
    assert run.train_step._cache_size() == 1
    leaves = jax.tree.leaves(state.trainable)
    if shape[1] > 1:
        assert not all(leaf.is_fully_replicated for leaf in leaves)
    everywhere = jax.sharding.NamedSharding(run.mesh, jax.sharding.PartitionSpec())
    whole = jax.jit(lambda x: x, out_shardings=everywhere)
    values = [np.asarray(leaf) for leaf in whole([*losses, *leaves])]
    if process == 0:
        np.savez(folder / f"{name} {num_processes}.npz", *values)
if num_processes > 1:
    jax.distributed.shutdown()
"""


def start(folder: Path, process: int, num_processes: int) -> subprocess.Popen:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={8 // num_processes}"
    environment = {**os.environ, "XLA_FLAGS": flags}
    if num_processes > 1:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    port = str(20_000 + os.getpid() % 20_000)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(process), str(num_processes), port],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What every mesh has made of the same three steps."""
    folder = tmp_path_factory.mktemp("mesh")
    waiting = [start(folder, 0, 1)]
    said = waiting[0].communicate(timeout=240)[0]
    assert waiting[0].returncode == 0, said[-2000:]
    waiting = [start(folder, process, 2) for process in range(2)]
    said = [process.communicate(timeout=240)[0] for process in waiting]
    assert [process.returncode for process in waiting] == [0, 0], said[0][-2000:]
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(f"{name} 1", id=name) for name in MESHES),
        pytest.param("data x fsdp x sequence 2", id="data x fsdp x sequence, two processes of four devices"),
    ],
)
def test_losses_and_weights_are_those_of_one_device(folder, name):
    with np.load(folder / "one 1.npz") as one, np.load(folder / f"{name}.npz") as many:
        assert one["arr_0"] - one["arr_2"] > 0.1, "three steps that change nothing show nothing"
        for key in one.files:
            np.testing.assert_allclose(many[key], one[key], rtol=1e-5, atol=1e-5)
