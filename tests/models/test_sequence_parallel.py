"""Dilated attention of rows on several devices, against the same on one; on virtual devices of a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ROWS = 128
# 64, 32 or 16 rows a device. Each list of segments has a branch for every way in which borders can fall.
BRANCHES = {
    "inside devices, at their borders, across them": ((16, 12, 24, 44), (1, 1, 2, 4), 8),
    "across several devices, across all": ((40, 72, 104, 2000), (1, 2, 4, 16), 16),
    "strides that go into neither segments nor devices nor heads": ((9, 30, 70), (4, 7, 3), 3),
}

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from modaltune_jax.models.encoders.dilated_attention import dilated_attention
from modaltune_jax.models.encoders.sequence_parallel import (
    join_class_token, part_class_token, sharded_dilated_attention,
)
from modaltune_jax.partitioning import MeshConfig, make_mesh, tracing
from tests.models.test_sequence_parallel import BRANCHES, ROWS

def loss(attention, branches, q, k, v, g, length):
    o = attention(q, k, v, length, *branches)
    real = jnp.arange(q.shape[1]) < length[:, None]
    o = jnp.where(real[..., None, None], o, 0.0)
    return jnp.sum(o * g), o

def run(attention, branches, mesh, q, k, v, g, length):
    def both(*arrays):
        with tracing(mesh):
            return jax.value_and_grad(
                lambda *qkv: loss(attention, branches, *qkv, *arrays[3:]), argnums=(0, 1, 2), has_aux=True
            )(*arrays[:3])
    placed = jax.device_put((q, k, v, g, jnp.asarray(length)), NamedSharding(mesh, P()))
    (_, o), grads = jax.jit(both)(*placed)
    return [np.asarray(x) for x in (o, *grads)]

def class_token(mesh, rows):
    rng = np.random.default_rng(1)
    cls, tiles = rng.normal(size=(2, 4)).astype(np.float32), rng.normal(size=(2, rows, 4)).astype(np.float32)
    def there_and_back(cls, tiles, length):
        with tracing(mesh):
            x = join_class_token(cls, tiles)
            return x, part_class_token(x, length)
    length = jnp.int32([rows - 1, rows])
    placed = jax.device_put((cls, tiles, length), NamedSharding(mesh, P()))
    x, (back, tiles_back) = jax.device_get(jax.jit(there_and_back)(*placed))
    np.testing.assert_array_equal(x, np.concatenate([cls[:, None], tiles[:, :-1]], axis=1))
    np.testing.assert_array_equal(tiles_back[:, :-1], tiles[:, :-1])
    np.testing.assert_array_equal(back[0], cls[0])
    assert np.isnan(back[1]).all()

whole = {}
for size in (1, 2, 4, 8):
    mesh = make_mesh(MeshConfig(1, 1, size))
    if size > 1:
        class_token(mesh, ROWS)
    for name, (segments, ratios, heads) in BRANCHES.items():
        edges = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, *(s + i for s in segments for i in (-1, 0, 1))}
        edges |= {2 * s + i for s in segments for i in (-1, 0, 1)}
        length = np.array(sorted(n for n in edges if n <= ROWS), np.int32)
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=(len(length), ROWS, heads, 4)).astype(np.float32) for _ in range(4)]
        attention = sharded_dilated_attention if size > 1 else dilated_attention
        found = run(attention, (segments, ratios), mesh, *arrays, length)
        whole.setdefault(name, found)
        worst = [float(np.abs(a - b).max()) for a, b in zip(whole[name], found, strict=True)]
        print(json.dumps([size, name, worst, float(min(np.abs(a).max() for a in found))]), flush=True)
"""


@pytest.fixture(scope="module")
def differences():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {(size, name): rest for size, name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_values_and_gradients_are_those_of_one_device(differences, num_devices, name):
    """At all lengths around the borders of segments and devices in one batch, padding behind each."""
    worst, smallest = differences[num_devices, name]
    assert smallest > 0.1
    assert max(worst) < 1e-5, dict(zip(("output", "dq", "dk", "dv"), worst, strict=True))
