"""RiskMemory: what it keeps, and the Cox loss with remembered batches as the loss on their concatenation."""

import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.losses import risk_memory as module
from modaltune_jax.losses.cox import cox, is_known
from modaltune_jax.losses.ranking import ranking
from modaltune_jax.losses.risk_memory import RiskMemory

NAN = math.nan
push = jax.jit(RiskMemory.push)


def draw(seed, num):
    """(risk, time, event, strata, where, case): all known, tied times, cases not named."""
    rng = np.random.default_rng(seed)
    risk, time = (
        jnp.asarray(rng.normal(size=num), jnp.float32),
        jnp.asarray(rng.integers(0, 9, num), jnp.float32),
    )
    event, strata = (jnp.asarray(rng.integers(0, 2, num), jnp.int32) for _ in range(2))
    return risk, time, event, strata, jnp.ones(num, bool), jnp.full(num, -1, jnp.int32)


def mean_loss(rows, loss=cox):
    num_deaths = jnp.sum(is_known(rows.time, rows.event, rows.where) & (rows.event == 1))
    losses = loss(rows.risk, rows.time, rows.event, rows.where, strata=rows.strata)
    return losses.sum() / jnp.maximum(num_deaths, 1)


def same(a, b):
    for name, x, y in zip(RiskMemory._fields, a, b, strict=True):
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def batch_of(risks, **columns):
    """Cases told apart by their risk, of known survival unless said otherwise."""
    num = len(risks)
    time = jnp.asarray(columns.get("time", np.arange(num)), jnp.float32)
    event = jnp.asarray(columns.get("event", np.ones(num)), jnp.int32)
    where = jnp.asarray(columns.get("where", np.ones(num)), bool)
    index = jnp.asarray(columns.get("index", np.full(num, -1)), jnp.int32)
    return jnp.asarray(risks, jnp.float32), time, event, jnp.zeros(num, jnp.int32), where, index


@pytest.mark.parametrize(
    ("size", "batches", "expected"),
    [
        pytest.param(4, [], [], id="nothing yet"),
        pytest.param(4, [batch_of([1, 2])], [1, 2], id="half full"),
        pytest.param(4, [batch_of([1, 2]), batch_of([3, 4])], [1, 2, 3, 4], id="exactly full"),
        pytest.param(3, [batch_of([1, 2]), batch_of([3, 4])], [2, 3, 4], id="the oldest goes"),
        pytest.param(3, [batch_of([1, 2, 3, 4, 5])], [3, 4, 5], id="batch longer than the memory"),
        pytest.param(1, [batch_of([1, 2]), batch_of([3])], [3], id="room for one"),
        pytest.param(165, [batch_of(range(99), where=[0, 0, 1] * 33)] * 5, [*range(2, 99, 3)] * 5, id="long"),
        pytest.param(0, [batch_of([1, 2])], [], id="room for none"),
        pytest.param(3, [batch_of([1, 2]), batch_of([3, 4], where=[0, 0])], [1, 2], id="all masked"),
        pytest.param(3, [batch_of([1, 2]), batch_of([3, 4], where=[0, 1])], [1, 2, 4], id="one masked"),
        pytest.param(3, [batch_of([1, 2]), batch_of([3, 4], time=[NAN, 1])], [1, 2, 4], id="NaN time"),
        pytest.param(3, [batch_of([1, 2]), batch_of([3, 4], event=[-1, 0])], [1, 2, 4], id="unknown event"),
        pytest.param(3, [batch_of([NAN, 2], where=[0, 1])], [2], id="masked garbage"),
        pytest.param(
            4, [batch_of([1, 2], index=[7, 8]), batch_of([3, 4], index=[8, 9])], [1, 3, 4], id="again"
        ),
        pytest.param(4, [batch_of([1, 2], index=[0, 1]), batch_of([3, 4])], [1, 2, 3, 4], id="unknown index"),
    ],
)
def test_keeps_the_newest_known_cases_in_order(size, batches, expected):
    memory = RiskMemory.empty(size)
    for batch in batches:
        memory = push(memory, *batch)
    free = size - len(expected)
    np.testing.assert_array_equal(memory.risk, [0.0] * free + expected)
    np.testing.assert_array_equal(memory.where, [False] * free + [True] * len(expected))
    np.testing.assert_array_equal(memory.time[:free], 0.0)


BATCH, SIZE = 3, 5


@st.composite
def batches(draw):
    """Cases are numbered by their risk; the mask, time or event of some says that they are not known."""
    num = draw(st.integers(1, 5))
    columns = {"time": [0.0, 1.0, 4.0, NAN], "event": [0, 1, 1, -1], "where": [True, True, False]}
    drawn = {
        name: draw(st.lists(st.sampled_from(values), min_size=BATCH * num, max_size=BATCH * num))
        for name, values in columns.items()
    }
    return [
        batch_of(np.arange(i, i + BATCH), **{name: column[i : i + BATCH] for name, column in drawn.items()})
        for i in range(0, BATCH * num, BATCH)
    ]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(batches=batches())
def test_any_batches_leave_the_last_known_cases(batches):
    memory, known = RiskMemory.empty(SIZE), []
    for batch in batches:
        memory = push(memory, *batch)
        known += [case for *case, counts, _ in zip(*map(np.asarray, batch), strict=True) if counts]
    known = [case for case in known if not math.isnan(case[1]) and case[2] >= 0][-SIZE:]
    kept = zip(*(np.asarray(column)[SIZE - len(known) :] for column in memory[:-2]), strict=True)
    assert [tuple(case) for case in known] == list(kept)
    assert memory.where.sum() == len(known)


def test_join_puts_the_batch_behind_the_memory():
    memory = push(RiskMemory.empty(3), *draw(0, 2))
    batch = draw(1, 4)
    rows = memory.join(*batch)
    for name, row, old, new in zip(RiskMemory._fields, rows, memory, batch, strict=True):
        np.testing.assert_array_equal(row, np.r_[old, new], err_msg=name)
        assert row.dtype == old.dtype, name
    same(memory.join(*batch[:3]), memory.join(*batch[:3], jnp.zeros(4, jnp.int32), jnp.ones(4, bool)))


@pytest.mark.parametrize("loss", [cox, ranking])
def test_no_room_is_no_memory(loss):
    memory = push(RiskMemory.empty(0), *draw(0, 8))
    same(memory, RiskMemory.empty(0))
    batch = draw(1, 8)
    with_memory = jax.jit(jax.value_and_grad(lambda x: mean_loss(memory.join(x, *batch[1:]), loss)))(batch[0])
    without = jax.jit(jax.value_and_grad(lambda x: mean_loss(RiskMemory(x, *batch[1:]), loss)))(batch[0])
    for a, b in zip(with_memory, without, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", [cox, ranking])
@pytest.mark.parametrize(
    "size", [pytest.param(12, id="room for the three batches"), pytest.param(20, id="more room")]
)
def test_remembered_batches_and_the_current_one_are_one_set(size, loss):
    """The same mean, and for current cases the same gradient; remembered ones get none."""
    batches = [draw(seed, 4) for seed in range(4)]
    together = RiskMemory(*(jnp.concatenate(columns) for columns in zip(*batches, strict=True)))

    @jax.jit
    @jax.value_and_grad
    def remembered(risks):
        memory = RiskMemory.empty(size)
        for risk, batch in zip(risks[:-1], batches[:-1], strict=True):
            memory = memory.push(risk, *batch[1:])
        return mean_loss(memory.join(risks[-1], *batches[-1][1:]), loss)

    value, gradient = remembered([batch[0] for batch in batches])
    full = jax.jit(jax.value_and_grad(lambda x: mean_loss(together._replace(risk=x), loss)))
    expected, expected_gradient = full(together.risk)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[-1], expected_gradient[-4:], rtol=1e-5, atol=1e-7)
    assert jnp.abs(gradient[-1]).max() > 1e-3
    np.testing.assert_array_equal(np.concatenate(gradient[:-1]), 0.0)


def test_a_batch_of_one_learns_from_remembered_cases():
    """Alone, a case has no gradient; a censored one is pulled down by deaths that it outlived."""
    alone, memory = (
        batch_of([0.5], time=[7], event=[0]),
        push(RiskMemory.empty(4), *batch_of([0.0], time=[3])),
    )
    gradients = [
        jax.jit(jax.grad(lambda x, queue=queue: mean_loss(queue.join(x, *alone[1:]))))(alone[0])
        for queue in (RiskMemory.empty(4), memory)
    ]
    np.testing.assert_array_equal(gradients[0], 0.0)
    np.testing.assert_allclose(gradients[1], 1.0 / (1.0 + np.exp(-0.5)), rtol=1e-6)


def test_restored_from_a_file_it_goes_on_bit_by_bit(tmp_path):
    memory = push(RiskMemory.empty(7), *draw(0, 5))
    np.savez(tmp_path / "memory.npz", **memory._asdict())
    with np.load(tmp_path / "memory.npz") as file:
        restored = RiskMemory(**{name: jnp.asarray(file[name]) for name in RiskMemory._fields})
    same(restored, memory)
    same(push(restored, *draw(1, 5)), push(memory, *draw(1, 5)))


def test_shapes_and_types_never_change():
    """As the carry of a scan; risks of half precision are kept in float32."""
    risk, *rest = draw(0, 4)
    batch = (risk.astype(jnp.bfloat16), *rest)
    memory, _ = jax.lax.scan(lambda carry, _: (carry.push(*batch), None), RiskMemory.empty(6), length=3)
    same(memory, push(push(RiskMemory.empty(6), *batch), *batch))
    assert memory.risk.dtype == jnp.float32


def test_docstring_example():
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 0
