"""What a step will take of a device, known before it is compiled."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from configs import common
from modaltune_jax import host_memory, partitioning, train
from modaltune_jax.memory_plan import MemoryPlan, fullest, plan_memory
from modaltune_jax.types import InputError
from tests import tiny

KB = 4 * 250
"""Of `[250]` float32."""


def program(function, *shapes):
    return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr


def test_values_are_held_while_they_are_needed():
    def function(x):
        y = jnp.sin(x)  # 1 kB, needed to the end
        z = jnp.exp(jnp.cos(x))  # 3 kB while exp works, 2 afterwards
        return y * z  # 3 kB

    assert fullest(program(function, (250,)), frozenset()) == (2 * KB, KB)


def test_a_longer_life_is_counted():
    def function(x):
        values = [jnp.sin(x + i) for i in range(4)]  # x + i lives for one operation, sin(x + i) to the end
        return jnp.stack(values)

    kept, working = fullest(program(function, (250,)), frozenset())
    # `stack` gives every value an axis and joins them: the fourth, then eight rows.
    assert kept + working == 8 * KB


def test_what_a_checkpointed_layer_forms_again_is_working_memory():
    def layer(x):
        return jnp.sin(jnp.sin(jnp.sin(x)))

    def loss(x):
        for _ in range(10):
            x = jax.checkpoint(layer)(x)
        return x.sum()

    def plain(x):
        for _ in range(10):
            x = layer(x)
        return x.sum()

    kept, working = fullest(program(jax.grad(loss), (250,)), frozenset())
    all_kept = sum(fullest(program(jax.grad(plain), (250,)), frozenset()))
    assert 9 * KB <= kept <= 12 * KB
    assert 3 * KB <= working <= 8 * KB
    assert all_kept >= 30 * KB


def test_weights_and_their_gradients_are_counted_elsewhere():
    def function(w):
        return (w + 1.0) * jnp.sum(jnp.sin(w[0]))

    values = program(function, (5, 50))
    assert sum(fullest(values, frozenset())) == 2 * KB + 4  # w + 1, the result, and the sum
    assert sum(fullest(values, frozenset({(5, 50)}))) == 2 * KB // 5  # w[0] and its sines


def test_devices_share_values_outside_of_shard_map():
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))

    def function(x):
        return jnp.cos(jax.shard_map(lambda x: jnp.sin(x), mesh=mesh, in_specs=P(), out_specs=P())(x))

    # sin inside is one device's already; outside, sin and cos are shared by four.
    assert sum(fullest(program(function, (250,)), frozenset(), 4)) == KB


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run, its first state, and a list that grows with every trace of its loss."""
    config, records, targets = tiny.experiment(
        tmp_path_factory.mktemp("tiny"), loss=common.loss(distillation=1.0)
    )
    pipeline = dataclasses.replace(config.pipeline, num_buckets=2)
    traces = []
    with pytest.MonkeyPatch.context() as patch:
        make = train.make_objective

        def counting(*args):
            objective = make(*args)
            return lambda *inputs: traces.append(1) or objective(*inputs)

        patch.setattr(train, "make_objective", counting)
        config = dataclasses.replace(config, pipeline=pipeline)
        run, state = train.build(config, 0, ("slides", "expression"), records, targets)
    return run, state, traces


@pytest.fixture(scope="module")
def plan(built):
    run, state, _ = built
    return plan_memory(run.train_step, state, run.frozen, run.batches, run.mesh)


def test_plan_of_a_run(built, plan):
    run, state, _ = built
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert (plan.cases, plan.tiles) == max(run.batches.plan.shapes, key=np.prod)
    assert (plan.frozen, plan.trainable) == (size(run.frozen), size(state.trainable))
    assert plan.gradients == plan.trainable
    assert plan.optimizer == size(state.opt_state)
    assert plan.whole == 0
    assert 0 < plan.peak < plan.free <= plan.limit + plan.fixed


def test_estimate_donation_and_one_trace(built, plan):
    """The estimate is near what the compiler says, tracing was not done for it alone, buffers are reused."""
    run, state, traces = built
    num_traces = len(traces)
    assert num_traces == len(run.batches.plan.shapes) == 2
    for batch in run.batches:
        batch = partitioning.shard_batch(batch, run.mesh)
        if batch.features.shape[:2] == (plan.cases, plan.tiles):
            break
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) == plan.batch
    memory = run.train_step.lower(state, run.frozen, batch).compile().memory_analysis()
    assert len(traces) == num_traces
    assert 0.5 < (plan.kept + plan.working) / memory.temp_size_in_bytes < 2.0
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves((state.trainable, state.opt_state)))
    assert memory.alias_size_in_bytes >= arrays


def test_the_largest_bag_alone_is_about_as_long_as_the_batch(plan):
    enough = dataclasses.replace(plan, free=plan.peak)
    assert plan.tiles < enough.max_tiles <= 1.5 * plan.cases * plan.tiles
    assert dataclasses.replace(plan, free=plan.fixed).max_tiles == 0


GB = 10**9


def example(**changes) -> MemoryPlan:
    values: dict[str, Any] = {
        "cases": 2,
        "tiles": 1000,
        "frozen": 2 * GB,
        "trainable": GB,
        "whole": 0,
        "gradients": GB,
    }
    values |= {"optimizer": 2 * GB, "batch": GB, "kept": 6 * GB, "working": GB, "bytes_per_tile": 4e6}
    return MemoryPlan(**{**values, "limit": 16 * GB, "free": 15 * GB, **changes})


def test_plan_for_people():
    text = example(free=26 * GB).to_text(is_remat=True)
    assert "2 x 1,000 tiles: weights 2.00 GB frozen and 1.00 GB trainable, gradients 1.00 GB" in text
    # 20 GB are left beside the weights, and 4 MB a tile.
    assert text.splitlines()[-1] == (
        "estimated 14.00 GB of 26.00 GB, within a factor of 1.8; the largest bag that fits the estimate has "
        "5,000 tiles"
    )


@pytest.mark.parametrize(
    ("is_remat", "first", "has_dtype"),
    [
        pytest.param(False, "set model.encoder.remat=True, lower pipeline.tokens", True, id="without remat"),
        pytest.param(True, "lower pipeline.tokens_per_batch or pipeline.max_tiles", True, id="with remat"),
        pytest.param(None, "lower pipeline.tokens_per_batch or pipeline.max_tiles", False, id="no such key"),
    ],
)
def test_advice_where_it_may_not_fit(is_remat, first, has_dtype):
    plan = example(free=22 * GB)
    plan.check()
    warning = plan.to_text(is_remat).splitlines()[-1]
    assert warning.startswith(f"warning: this may not fit: {first}")
    assert "mesh.sequence" in warning
    assert ("bfloat16" in warning) == has_dtype


def test_what_cannot_fit_is_refused():
    example(limit=7 * GB).check()
    with pytest.raises(InputError, match=r"take 7\.00 GB, but a device has 6\.90 GB"):
        example(limit=int(6.9 * GB)).check()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"memory.max": "max\n", "memory.current": "5\n"}, [], id="version 2, no limit"),
        pytest.param({"memory.max": "70\n", "memory.current": "5\n"}, [(70, 5)], id="version 2"),
        pytest.param(
            {"memory/memory.limit_in_bytes": "80\n", "memory/memory.usage_in_bytes": "9\n"},
            [(80, 9)],
            id="version 1",
        ),
    ],
)
def test_limit_of_a_control_group(tmp_path, files, expected):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert host_memory._groups(tmp_path) == expected


def test_main_memory(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemAvailable:  1024 kB\nHugePages_Total: 0\n")
    assert host_memory._meminfo(tmp_path / "meminfo") == {"MemTotal": 2**21, "MemAvailable": 2**20}
    assert host_memory._meminfo(tmp_path / "none") == {}
    assert 0 < host_memory.available() <= host_memory.limit()
