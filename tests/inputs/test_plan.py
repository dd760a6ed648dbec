"""The order and shapes of batches."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.plan import BatchPlan, fewest_rows, stream
from modaltune_jax.types import InputError

LENGTHS = np.random.default_rng(0).integers(0, 64, 50)


def make_plan(lengths=LENGTHS, indices=None, **changes):
    indices = np.arange(len(lengths)) if indices is None else indices
    settings = {"buckets": (15, 31, 63), "batch_size": 8, "tokens_per_batch": 130, "seed": 3} | changes
    return BatchPlan(lengths, indices, **settings)


def epoch_of(plan, epoch):
    return [plan[epoch * plan.steps_per_epoch + i] for i in range(plan.steps_per_epoch)]


def cases_of(steps):
    rows = np.concatenate([step.rows for step in steps])
    return rows[rows >= 0].tolist()


@given(
    lengths=st.lists(st.integers(0, 63), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    tokens_per_batch=st.integers(1, 300),
    num_shards=st.integers(1, 4),
    seed=st.none() | st.integers(0, 2**40),
)
@settings(deadline=None)
def test_every_case_comes_once_an_epoch(lengths, batch_size, tokens_per_batch, num_shards, seed):
    plan = make_plan(
        np.array(lengths),
        batch_size=batch_size,
        tokens_per_batch=tokens_per_batch,
        num_shards=num_shards,
        seed=seed,
    )
    for epoch in range(1 if seed is None else 3):
        steps = epoch_of(plan, epoch)
        assert {step.epoch for step in steps} == {epoch}
        assert sorted(cases_of(steps)) == list(range(len(lengths)))
        assert {(len(step.rows), step.bucket) for step in steps} == set(plan.shapes)
        for step in steps:
            assert len(step.rows) % num_shards == 0
            assert len(step.rows) <= max(num_shards, min(batch_size, tokens_per_batch // step.bucket))
            assert (step.rows >= 0).any()
            assert all(lengths[row] <= step.bucket for row in step.rows[step.rows >= 0])
        rows = sum(len(step.rows) * step.bucket for step in steps)
        assert plan.waste == pytest.approx(1 - sum(lengths) / rows)


@given(
    cases=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(1, 20)), min_size=1, max_size=5
    )
)
@settings(deadline=None)
def test_no_other_way_takes_fewer_rows(cases):
    """Every bucket's rest may fill a batch of its own or go on: all ways, one by one."""
    counts, sizes, _ = zip(*cases, strict=True)
    buckets = np.cumsum([step for _, _, step in cases]).tolist()
    fewest = np.inf
    for goes_on in itertools.product((False, True), repeat=len(cases)):
        left = rows = 0
        for count, size, bucket, go in zip(counts, sizes, buckets, goes_on, strict=True):
            full, rest = divmod(count + left, size)
            left = rest if go else 0
            rows += (full + (rest > 0 and not go)) * size * bucket
        fewest = min(fewest, rows if not left else np.inf)
    found = fewest_rows(counts, sizes, buckets)
    assert sum(n * size * bucket for n, size, bucket in zip(found, sizes, buckets, strict=True)) == fewest


@pytest.mark.parametrize("seed", [None, 0])
def test_what_is_left_over_takes_the_place_of_filler(seed):
    """Three of length 15 fill no batch of two; the third completes that of the longer bag."""
    plan = make_plan(np.array([15, 15, 15, 31]), batch_size=2, seed=seed)
    steps = sorted(epoch_of(plan, 0), key=lambda step: step.bucket)
    assert [(step.bucket, len(step.rows)) for step in steps] == [(15, 2), (31, 2)]
    assert 3 in steps[1].rows
    assert plan.filler == 0
    assert plan.describe() == (
        "2 batches an epoch in 2 shapes (cases x tiles: 2 x 15, 2 x 31); 17.4% of them is padding"
    )


def test_those_left_over_change_from_epoch_to_epoch():
    plan = make_plan(np.array([15, 15, 15, 31]), batch_size=2)
    beside = {
        int(row)
        for epoch in range(30)
        for step in epoch_of(plan, epoch)
        if 3 in step.rows
        for row in step.rows
    }
    assert beside == {0, 1, 2, 3}


def test_filler_is_taken_where_it_costs_less():
    """One short case beside no filler is padded to its own bucket, and not to four times that."""
    plan = make_plan(np.array([15, 63]), tokens_per_batch=63, batch_size=1)
    assert {step.bucket for step in epoch_of(plan, 0)} == {15, 63}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, ((8, 15), (4, 31), (2, 63)), id="tokens-bound-long-bags"),
        pytest.param({"batch_size": 3}, ((3, 15), (3, 31), (2, 63)), id="cases-bound-short-bags"),
        pytest.param({"tokens_per_batch": 1}, ((1, 15), (1, 31), (1, 63)), id="at-least-one-case"),
        pytest.param({"num_shards": 3}, ((6, 15), (3, 31), (3, 63)), id="multiples-of-the-shards"),
    ],
)
def test_shapes(settings, expected):
    assert make_plan(**settings).shapes == expected


def test_the_last_batch_of_a_bucket_is_completed_with_filler():
    plan = make_plan(np.array([5, 6, 7]), batch_size=2, seed=None)
    assert [step.rows.tolist() for step in epoch_of(plan, 0)] == [[0, 1], [2, -1]]
    assert plan.filler == 1 / 4


def test_without_seed_the_plan_is_sorted_and_ends():
    plan = make_plan(seed=None)
    assert len(plan) == plan.steps_per_epoch
    assert [step.bucket for step in epoch_of(plan, 0)] == sorted(step.bucket for step in epoch_of(plan, 0))


def test_only_the_given_cases_come():
    assert sorted(cases_of(epoch_of(make_plan(indices=[4, 7, 30]), 5))) == [4, 7, 30]


def test_epochs_and_seeds_differ_and_repeat():
    orders = {
        (seed, epoch): cases_of(epoch_of(make_plan(seed=seed), epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    assert cases_of(epoch_of(make_plan(seed=1), 1)) == orders[1, 1]


def test_buckets_are_mixed_over_an_epoch():
    buckets = [step.bucket for epoch in range(20) for step in epoch_of(make_plan(), epoch)[:3]]
    assert set(buckets) == {15, 31, 63}


def test_the_cases_of_a_batch_change():
    partners = Counter()
    for epoch in range(20):
        for step in epoch_of(make_plan(), epoch):
            if 0 in step.rows:
                partners.update(step.rows[step.rows > 0].tolist())
    assert len(partners) > 6


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_every_batch(count):
    whole = make_plan(num_shards=4)
    parts = [make_plan(num_shards=4, process=(i, count)) for i in range(count)]
    for i in range(3 * whole.steps_per_epoch):
        shares = [part[i] for part in parts]
        assert len({(share.bucket, share.epoch, len(share.rows)) for share in shares}) == 1
        np.testing.assert_array_equal(np.concatenate([share.rows for share in shares]), whole[i].rows)


def test_a_pickled_plan_is_the_same():
    plan = make_plan()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(plan))[77].rows, plan[77].rows)


def test_training_reaches_far():
    plan = make_plan()
    assert plan[10**9].epoch == 10**9 // plan.steps_per_epoch
    assert len(plan) > 10**15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"indices": []}, "no cases", id="no-cases"),
        pytest.param({"indices": [1, 2, 1]}, "listed twice", id="twice"),
        pytest.param({"num_shards": 3, "process": (0, 2)}, "3 shards .* 2 processes", id="shards"),
        pytest.param({"buckets": (15, 31)}, "longer than the last bucket", id="too-long"),
    ],
)
def test_impossible_plans(settings, message):
    with pytest.raises(InputError, match=message):
        make_plan(**settings)


def test_streams_are_independent():
    keys = [("tiles", 1, 2), ("tiles", 2, 1), ("cases", 1, 2), ("tiles", 1, 2, 3)]
    draws = [stream(*key).integers(2**63) for key in keys]
    assert len(set(draws)) == 4
    assert stream(*keys[0]).integers(2**63) == draws[0]


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**40),
)
@settings(deadline=None)
def test_labels_are_spread_over_the_batches(labels, batch_size, seed):
    """Every batch holds its share of each label, and every case comes once an epoch."""
    labels = np.array(labels)
    lengths = np.full(len(labels), 5)
    plan = make_plan(lengths, batch_size=batch_size, seed=seed, strata=labels)
    steps = epoch_of(plan, 1)
    assert sorted(cases_of(steps)) == list(range(len(labels)))
    for step in steps:
        rows = step.rows[step.rows >= 0]
        for label in np.unique(labels):
            share = np.mean(labels == label) * len(rows)
            # Every label may be half a case ahead at one end of the batch and behind at the other.
            assert abs(np.sum(labels[rows] == label) - share) <= 4


def test_every_batch_holds_an_event_where_there_are_enough():
    events = (np.arange(64) % 8 == 0).astype(np.int32)
    lengths = np.full(64, 5)
    for seed in range(20):
        spread = epoch_of(
            make_plan(lengths, batch_size=16, tokens_per_batch=999, seed=seed, strata=events), 0
        )
        assert all(events[step.rows].any() for step in spread)
    alone = [
        events[step.rows].any()
        for seed in range(20)
        for step in epoch_of(make_plan(lengths, batch_size=16, tokens_per_batch=999, seed=seed), 0)
    ]
    assert not all(alone), "chance leaves batches without"


def test_spread_orders_change_from_epoch_to_epoch():
    plan = make_plan(strata=np.arange(50) % 3)
    assert cases_of(epoch_of(plan, 0)) != cases_of(epoch_of(plan, 1))
    np.testing.assert_array_equal(
        cases_of(epoch_of(plan, 1)), cases_of(epoch_of(make_plan(strata=np.arange(50) % 3), 1))
    )
