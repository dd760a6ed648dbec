"""Batches from records: what they hold, and that a run can stop and go on anywhere."""

import dataclasses
import itertools
import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from modaltune_jax.inputs.bags import join_slides, merge_cells, subsample
from modaltune_jax.inputs.collate import collate
from modaltune_jax.inputs.pipeline import BatchIterator, PipelineConfig, eval_batches, train_batches
from modaltune_jax.inputs.records import Records, write
from modaltune_jax.inputs.simulate import SimulationConfig, simulate
from modaltune_jax.inputs.transforms import fit_transforms
from modaltune_jax.types import MODALITIES, Batch, Case, InputError, Labels

CONFIG = PipelineConfig(batch_size=6, tokens_per_batch=120, num_buckets=3, multiple=8, max_tiles=40)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records of a simulated cohort with some of everything missing, and what goes with them."""
    cases, genes, gene_sets, specs = simulate(
        SimulationConfig(
            cases_per_site=20,
            mean_tiles=25,
            feature_dim=6,
            num_genes=40,
            num_pathways=5,
            missing_expression=0.2,
            missing_slides=0.1,
        )
    )
    bare = Case("SIM-BARE", "sim_lung", "train", (), None, Labels())
    directory = tmp_path_factory.mktemp("records") / "r"
    names = {"source": "simulation", "encoder": "simulation"}
    write(directory, [*cases, bare], genes=genes, gene_sets=gene_sets, specs=specs, **names)
    records = Records(directory)
    targets = np.random.default_rng(0).normal(size=(records.num_cases, 3, 4)).astype(np.float32)
    return records, targets, fit_transforms(cases, num_bins=2)


def train(data, config=CONFIG, **changes):
    records, targets, transforms = data
    settings = {"seed": 5} | changes
    return train_batches(records, records.rows("train"), targets, transforms, config, **settings)


def evaluate(data, config=CONFIG, split="test", **changes):
    records, targets, transforms = data
    return eval_batches(records, records.rows(split), targets, transforms, config, **changes)


def assert_same(batch, expected):
    for name, array, wanted in zip(Batch._fields, batch, expected, strict=True):
        np.testing.assert_array_equal(array, wanted, err_msg=name)


def test_a_batch_holds_its_cases(data):
    records, targets, transforms = data
    seen = []
    for batch in evaluate(data, split="train"):
        for row, i in enumerate(batch.index):
            if i < 0:
                continue
            seen.append(int(i))
            case = records[i]
            bag = subsample(join_slides(case.slides, feature_dim=6), 40)
            length = batch.length[row]
            assert length == len(bag)
            np.testing.assert_array_equal(batch.features[row, :length], bag.features)
            np.testing.assert_array_equal(batch.cells[row, :length], bag.cells)
            assert not batch.features[row, length:].any()
            assert not batch.cells[row, length:].any()
            if case.expression is not None:
                np.testing.assert_array_equal(batch.expression[row], transforms.expression(case.expression))
            np.testing.assert_array_equal(batch.targets[row], targets[i])
            labels = case.labels
            assert (batch.subtype[row], batch.event[row]) == (labels.subtype, labels.event)
            assert batch.time[row] == pytest.approx(labels.time, rel=1e-6, nan_ok=True)
            assert records.sites[batch.site[row]] == case.site
            assert batch.weight[row] == 1
    assert sorted(seen) == records.rows("train").tolist()


def test_dtypes_and_shapes(data):
    dtypes = {
        **dict.fromkeys(Batch._fields, "float32"),
        **dict.fromkeys(("cells", "length", "subtype", "site", "event", "index"), "int32"),
        "present": "bool",
    }
    batch = next(iter(train(data)))
    assert {name: array.dtype.name for name, array in batch._asdict().items()} == dtypes
    num_cases, bucket, _ = batch.features.shape
    assert batch.cells.shape == (num_cases, bucket, 2)
    assert batch.expression.shape == (num_cases, 40)
    assert batch.clinical.shape == (num_cases, 10)
    assert batch.targets.shape == (num_cases, 3, 4)


def test_filler_is_empty_and_unknown(data):
    fillers = 0
    for batch in evaluate(data):
        is_filler = batch.index < 0
        fillers += is_filler.sum()
        for name in ("features", "cells", "length", "expression", "clinical", "present", "targets", "weight"):
            assert not getattr(batch, name)[is_filler].any()
        assert (batch.subtype[is_filler] == -1).all()
        assert (batch.event[is_filler] == -1).all()
        assert np.isnan(batch.time[is_filler]).all()
    assert fillers > 0


def test_absent_modalities_are_zero_and_marked(data):
    records, _, transforms = data
    patterns = set()
    for batch in evaluate(data, split="train"):
        arrays = (batch.features, batch.expression, batch.clinical)
        for row in np.flatnonzero(batch.index >= 0):
            case = records[batch.index[row]]
            missing = transforms.clinical(case)[5:]
            present = (bool(case.slides), case.expression is not None, not missing.all())
            assert tuple(batch.present[row].tolist()) == present
            assert tuple(bool(array[row].any()) for array in arrays) == present
            patterns.add(present)
    assert patterns >= {(True, True, True), (False, True, True), (True, False, True), (False, False, False)}


@pytest.mark.parametrize("shown", [("slides",), ("expression",), ("clinical", "expression")])
def test_modalities_not_shown_are_absent(data, shown):
    everything = {
        int(i): row for batch in evaluate(data) for i, row in zip(batch.index, batch.present, strict=True)
    }
    config = dataclasses.replace(CONFIG, modalities=shown)
    for batch in evaluate(data, config):
        for column, (name, array) in enumerate(
            zip(MODALITIES, (batch.features, batch.expression, batch.clinical), strict=True)
        ):
            expected = [name in shown and i >= 0 and everything[int(i)][column] for i in batch.index]
            assert batch.present[:, column].tolist() == expected
            assert array.reshape(len(array), -1).any(axis=1).tolist() == expected
        if "slides" not in shown:
            assert not batch.length.any()
            assert batch.features.shape[1] == CONFIG.multiple - 1


def test_slides_that_are_not_shown_are_not_read(data, tmp_path):
    records, targets, transforms = data
    copy = pickle.loads(pickle.dumps(records))
    copy.__dict__["_files"] = {}  # reading a record would fail
    config = dataclasses.replace(CONFIG, modalities=("expression", "clinical"))
    batches = eval_batches(copy, copy.rows("test"), targets, transforms, config)
    for batch, expected in zip(batches, evaluate(data, config), strict=True):
        assert_same(batch, expected)


@pytest.mark.parametrize(
    ("name", "dtype"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16), ("float32", np.float32)]
)
def test_features_are_cast(data, name, dtype):
    for batch, exact in zip(
        evaluate(data, dataclasses.replace(CONFIG, feature_dtype=name)), evaluate(data), strict=True
    ):
        assert batch.features.dtype == dtype
        np.testing.assert_array_equal(batch.features, exact.features.astype(dtype))


def test_bags_without_a_cap_keep_every_tile(data):
    records = data[0]
    for batch in evaluate(data, dataclasses.replace(CONFIG, max_tiles=0)):
        real = batch.index >= 0
        np.testing.assert_array_equal(batch.length[real], records.lengths[batch.index[real]])


def test_grid_settings_reach_the_cells(data):
    records = data[0]
    config = dataclasses.replace(CONFIG, max_tiles=0, tile_size=1024, layout="own", origin="slide")
    for batch in evaluate(data, config):
        for row in np.flatnonzero(batch.index >= 0):
            bag = join_slides(
                records[batch.index[row]].slides, tile_size=1024, layout="own", origin="slide", feature_dim=6
            )
            np.testing.assert_array_equal(batch.cells[row, : len(bag)], bag.cells)


def test_cells_are_merged_after_subsampling(data):
    records = data[0]
    settings = {"tile_size": 2048, "origin": "slide"}
    config = dataclasses.replace(CONFIG, merge_cells=True, **settings)
    saved = 0
    for batch in evaluate(data, config, split="train"):
        for row in np.flatnonzero(batch.index >= 0):
            bag = subsample(join_slides(records[batch.index[row]].slides, feature_dim=6, **settings), 40)
            merged = merge_cells(bag)
            length = batch.length[row]
            assert length == len(merged)
            np.testing.assert_array_equal(batch.features[row, :length], merged.features)
            np.testing.assert_array_equal(batch.cells[row, :length], merged.cells)
            assert not batch.features[row, length:].any()
            saved += len(bag) - length
    assert saved > 0


def test_a_case_of_background_has_no_slides(data):
    records, _, transforms = data
    case = next(case for case in records if case.slides)
    slides = tuple(
        dataclasses.replace(slide, features=np.zeros_like(slide.features)) for slide in case.slides
    )
    config = dataclasses.replace(CONFIG, merge_cells=True)
    case = dataclasses.replace(case, slides=slides)
    batch = collate([case], 127, transforms, config, sites=records.sites, num_genes=40, feature_dim=6)
    assert batch.length.tolist() == [0]
    assert not batch.present[0, MODALITIES.index("slides")]


def test_training_and_evaluation_share_shapes(data):
    shapes = [
        batch.features.shape for split in ("train", "val", "test") for batch in evaluate(data, split=split)
    ]
    shapes += [batch.features.shape for batch in itertools.islice(train(data), 20)]
    assert len(set(shapes)) <= CONFIG.num_buckets


def test_every_case_once_an_epoch(data):
    batches = train(data)
    iterator = iter(batches)
    orders = []
    for _ in range(3):
        index = np.concatenate([next(iterator).index for _ in range(batches.steps_per_epoch)])
        assert sorted(index[index >= 0]) == data[0].rows("train").tolist()
        orders.append(tuple(index))
    assert len(set(orders)) == 3


def tiles_by_epoch(data, seed, config=CONFIG):
    """{(epoch, case): first feature of every tile}."""
    batches = train(data, config, seed=seed)
    tiles = {}
    for step, batch in enumerate(itertools.islice(batches, 2 * batches.steps_per_epoch)):
        for row in np.flatnonzero(batch.index >= 0):
            tiles[step // batches.steps_per_epoch, int(batch.index[row])] = batch.features[
                row, : batch.length[row], 0
            ]
    return tiles


def test_tiles_are_drawn_anew_each_epoch(data):
    records = data[0]
    tiles = tiles_by_epoch(data, seed=5)
    long = [i for i in records.rows("train") if records.lengths[i] > CONFIG.max_tiles]
    assert long
    for i in long:
        assert len(tiles[0, i]) == CONFIG.max_tiles
        assert not np.array_equal(tiles[0, i], tiles[1, i])


def test_the_tiles_of_a_case_do_not_depend_on_its_batch(data):
    tiles = tiles_by_epoch(data, seed=5)
    alone = tiles_by_epoch(data, seed=5, config=dataclasses.replace(CONFIG, batch_size=1, num_buckets=1))
    assert tiles.keys() == alone.keys()
    for key, drawn in tiles.items():
        np.testing.assert_array_equal(drawn, alone[key])


def test_training_repeats_with_its_seed(data):
    num_batches = train(data).steps_per_epoch + 3
    for batch, again in itertools.islice(zip(train(data), train(data), strict=False), num_batches):
        assert_same(batch, again)
    assert not np.array_equal(next(iter(train(data))).index, next(iter(train(data, seed=6))).index)


@pytest.mark.parametrize("num_done", [0, 1, 7, 40])
def test_a_killed_run_goes_on_exactly(data, num_done):
    uninterrupted = iter(train(data))
    expected = [next(uninterrupted) for _ in range(num_done + 10)][num_done:]
    killed = iter(train(data))
    for _ in range(num_done):
        next(killed)
    state = json.loads(json.dumps(killed.get_state()))
    del killed
    resumed = iter(train(data))
    resumed.set_state(state)
    for batch in expected:
        assert_same(next(resumed), batch)


def test_an_iterator_goes_back(data):
    iterator = iter(train(data))
    assert isinstance(iterator, BatchIterator)
    state = iterator.get_state()
    first = [next(iterator) for _ in range(4)]
    iterator.set_state(state)
    for batch in first:
        assert_same(next(iterator), batch)


def test_orbax_keeps_the_position(data, tmp_path):
    import grain
    import orbax.checkpoint as ocp

    iterator = iter(train(data))
    for _ in range(5):
        next(iterator)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
    expected = [next(iterator) for _ in range(3)]
    fresh = iter(train(data))
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.restore(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    for batch in expected:
        assert_same(next(fresh), batch)


@pytest.mark.parametrize("num_threads", [1, 4])
def test_threads_do_not_change_batches(data, num_threads):
    config = dataclasses.replace(CONFIG, num_threads=num_threads, prefetch=2 * num_threads)
    for batch, expected in itertools.islice(zip(train(data, config), train(data), strict=False), 15):
        assert_same(batch, expected)


def test_batches_that_are_kept_do_not_change(data):
    batches = train(data)
    kept, copies = [], []
    for batch in itertools.islice(batches, 2 * batches.steps_per_epoch):
        kept.append(batch)
        copies.append(Batch(*(array.copy() for array in batch)))
    for batch, copy in zip(kept, copies, strict=True):
        assert_same(batch, copy)


def test_batches_on_a_device_do_not_change(data):
    jax = pytest.importorskip("jax")
    for batch, expected in zip(
        [jax.device_put(batch.features) for batch in evaluate(data)], evaluate(data), strict=True
    ):
        np.testing.assert_array_equal(batch, expected.features)


def test_the_memory_of_batches_is_used_again(data):
    config = dataclasses.replace(CONFIG, num_threads=3, prefetch=5)
    batches = evaluate(data, config, split="train")
    addresses = set()
    for _ in range(10):
        for batch in batches:
            addresses.add(batch.features.ctypes.data)
    # Those kept ready, one being read by each thread, two with the consumer while it takes the next; a bag
    # that is to be cut takes another.
    assert len(addresses) <= 2 * (5 + 3 + 2) < batches.steps_per_epoch * 10 / 5


def test_processes_load_their_rows(data):
    whole = train(data, num_shards=2)
    halves = [train(data, shard=(i, 2), num_shards=2) for i in range(2)]
    assert whole.steps_per_epoch == halves[0].steps_per_epoch == halves[1].steps_per_epoch
    for batch, *parts in itertools.islice(zip(whole, *halves, strict=False), whole.steps_per_epoch + 2):
        for name, array, *pieces in zip(Batch._fields, batch, *parts, strict=True):
            np.testing.assert_array_equal(array, np.concatenate(pieces), err_msg=name)


def test_batches_are_multiples_of_the_process_count(data):
    for part in evaluate(data, shard=(2, 4)):
        assert len(part.index) in (1, 2)


def test_evaluation_passes_once_and_again(data):
    batches = evaluate(data)
    first, second = list(batches), list(batches)
    assert len(first) == batches.steps_per_epoch
    for batch, again in zip(first, second, strict=True):
        assert_same(batch, again)


def test_a_damaged_case_stops_the_iterator_with_its_name(data, monkeypatch):
    records = pickle.loads(pickle.dumps(data[0]))

    def damaged(*args):
        raise ValueError("its checksum differs")

    monkeypatch.setattr("modaltune_jax.inputs.storage.examples.decode", damaged)
    with pytest.raises(InputError, match=r"case SIM-.*checksum"):
        next(iter(eval_batches(records, records.rows("test"), data[1], data[2], CONFIG)))


def test_targets_of_other_records_are_refused(data):
    records, targets, transforms = data
    with pytest.raises(ValueError, match="targets of 5 cases"):
        eval_batches(records, records.rows("test"), targets[:5], transforms, CONFIG)


def test_collate_new_cases_without_targets(data):
    records, _, transforms = data
    cases = [records[0], None, records[3]]
    batch = collate(cases, 127, transforms, CONFIG, sites=records.sites, num_genes=40, feature_dim=6)
    assert batch.index.tolist() == [0, -1, 2]
    assert batch.targets.shape == (3, 0, 0)
    assert batch.weight.tolist() == [1, 0, 1]


def test_memory_for_a_batch_may_hold_anything(data):
    records, _, transforms = data
    cases = [records[0], None, next(case for case in records if not case.slides)]
    settings = {"sites": records.sites, "num_genes": 40, "feature_dim": 6}
    for modalities in (MODALITIES, ("expression",)):
        config = dataclasses.replace(CONFIG, modalities=modalities)
        features = np.full((3, 127, 6), 9, np.float32)
        batch = collate(cases, 127, transforms, config, features=features, **settings)
        assert batch.features is features
        assert_same(batch, collate(cases, 127, transforms, config, **settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param({"sites": ("sim_lung",)}, "site 'sim_breast' is not among sim_lung", id="site"),
        pytest.param({"feature_dim": 7}, "6 wide, not 7", id="width"),
    ],
)
def test_collate_names_a_case_that_does_not_fit(data, setting, message):
    records, _, transforms = data
    case = next(case for case in records if case.site == "sim_breast" and case.slides)
    settings = {"sites": records.sites, "num_genes": 40, "feature_dim": 6} | setting
    with pytest.raises(InputError, match=f"case {case.id}: .*{message}"):
        collate([case], 127, transforms, CONFIG, **settings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"modalities": ("slides", "rna")}, r"modalities is \('slides', 'rna'\)"),
        ({"modalities": ()}, "modalities"),
        ({"feature_dtype": "float64"}, "feature_dtype is 'float64'"),
        ({"layout": "piled"}, "layout is 'piled'"),
        ({"origin": "centre"}, "origin is 'centre'"),
        ({"merge_cells": True, "layout": "own"}, "set pipeline.layout to 'stacked'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"max_tiles": -1}, "max_tiles is -1"),
    ],
)
def test_impossible_settings(setting, message):
    with pytest.raises(InputError, match=message):
        PipelineConfig(**setting)
