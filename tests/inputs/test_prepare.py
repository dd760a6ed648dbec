"""Records are written once, and only from the settings that the config gives."""

import dataclasses

import pytest

from modaltune_jax.inputs.prepare import DataConfig, prepare
from modaltune_jax.inputs.simulate import SimulationConfig
from modaltune_jax.types import InputError


@pytest.fixture
def config(tmp_path):
    return DataConfig(
        source="simulation",
        directory=str(tmp_path / "records"),
        path="",
        cohorts=(),
        expression="",
        gene_sets="",
        num_bins=2,
        bins="train",
        clinical=("age",),
        simulation=SimulationConfig(cases_per_site=16, mean_tiles=5),
    )


def test_writes_once(config, tmp_path):
    first = prepare(config)
    written = (tmp_path / "records" / "metadata.json").stat().st_mtime_ns
    again = prepare(config)
    assert (tmp_path / "records" / "metadata.json").stat().st_mtime_ns == written
    assert first.table.equals(again.table)


def test_as_records_whatever_the_source_was(config):
    prepare(config)
    assert prepare(dataclasses.replace(config, source="records")).num_cases == 64


def test_other_settings_are_refused(config):
    prepare(config)
    other = dataclasses.replace(config, simulation=SimulationConfig(cases_per_site=20, mean_tiles=5))
    with pytest.raises(InputError, match=r"other settings.*data\.directory"):
        prepare(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"source": "magic"}, "magic", id="unknown source"),
        pytest.param({"source": "records"}, "holds no records", id="no records there"),
        pytest.param(
            {"source": "tcga_bench", "path": "nowhere", "expression": "own", "cohorts": ("brca",)},
            "nowhere",
            id="no source there",
        ),
    ],
)
def test_wrong_sources_leave_nothing_behind(config, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        prepare(dataclasses.replace(config, **changes))
    assert not (tmp_path / "records").exists()
