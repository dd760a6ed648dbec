"""Cases as files and back: what `example` and `export` write, `pack` turns into the same cases."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from modaltune_jax import example, pack
from modaltune_jax.args_file import read_args_file
from modaltune_jax.inputs.cohort import CohortSpec, find_spec
from modaltune_jax.inputs.genesets import read_gene_sets
from modaltune_jax.inputs.readers import tcga_bench
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.simulate import SimulationConfig, simulate
from modaltune_jax.packing.export import export
from modaltune_jax.types import InputError

TCGA = Path(__file__).parents[1] / "../shared/tcga"
SIZES = SimulationConfig(cases_per_site=16, feature_dim=4, mean_tiles=5)


def assert_same(records, cases):
    """All cases that have anything to see, sorted, to the last bit."""
    cases = [case for case in cases if case.slides or case.expression is not None]
    assert [case.id for case in records] == sorted(case.id for case in cases)
    for packed, case in zip(records, sorted(cases, key=lambda case: case.id), strict=True):
        assert repr(packed.labels) == repr(case.labels)
        assert (packed.site, packed.split) == (case.site, case.split)
        assert (packed.expression is None) == (case.expression is None)
        if case.expression is not None:
            np.testing.assert_array_equal(packed.expression, case.expression)
        for a, b in zip(packed.slides, case.slides, strict=True):
            assert (a.id, a.patch_size_level0, a.features.dtype) == (
                b.id,
                b.patch_size_level0,
                b.features.dtype,
            )
            np.testing.assert_array_equal(a.features, b.features)
            np.testing.assert_array_equal(a.coords, b.coords)


def test_the_example_packs_into_the_cases_it_was_made_of(tmp_path, capsys):
    folder = tmp_path / "a cohort"
    example.main([str(folder), "--cases-per-site", "16"])
    told = capsys.readouterr().out
    assert "expression of 64 simulated cases" in told
    pack.main([f"@{folder}/cohort.args", "--out", str(tmp_path / "records"), "--workers", "1", "--quiet"])
    records = Records(tmp_path / "records")
    sizes = {"feature_dim": 16, "num_genes": 40, "num_pathways": 4, "mean_tiles": 16, "noise": 0.5}
    cases, genes, _, specs = simulate(SimulationConfig(cases_per_site=16, **sizes))
    kept = [genes.index(gene) for gene in records.genes]
    cases = [
        case if case.expression is None else dataclasses.replace(case, expression=case.expression[kept])
        for case in cases
    ]
    assert_same(records, cases)
    assert {spec.name: spec for spec in records.specs} == {spec.name: spec for spec in specs}


@pytest.mark.skipif(not TCGA.is_dir(), reason="the TCGA tables lie beside the repository only in development")
def test_tcga_packs_into_the_cases_its_reader_gives(tmp_path):
    cases, genes = tcga_bench.read(TCGA, ("gbmlgg",))
    gene_sets = read_gene_sets(TCGA / "signature_groups.csv", genes)
    folder = tmp_path / "files"
    export(folder, cases, genes=genes, gene_sets=gene_sets, specs=[find_spec("gbmlgg")], encoder="hipt")
    flags = [
        *("--cohort", "gbmlgg", "--features", f"{folder}/features", "--labels", f"csv:{folder}/labels.csv"),
        *("--columns", f"{folder}/columns.toml", "--expression", f"csv:{folder}/expression.csv"),
        *("--gene-sets", f"{folder}/gene_sets.csv", "--splits", f"{folder}/splits.csv"),
    ]
    pack.main([*flags, "--out", str(tmp_path / "records"), "--quiet"])
    assert_same(Records(tmp_path / "records"), cases)


def test_a_folder_that_exists_is_left_alone(tmp_path):
    with pytest.raises(InputError, match="exists already"):
        example.main([str(tmp_path)])


def test_a_name_with_a_comma_is_refused(tmp_path):
    with pytest.raises(InputError, match="ex,k: a comma separates"):
        example.main([str(tmp_path / "ex,k")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [pytest.param("ex#1", id="hash"), pytest.param("it's", id="apostrophe")])
def test_odd_names_can_be_read_again(tmp_path, name):
    example.main([str(tmp_path / name), "--cases-per-site", "16"])
    flags = read_args_file(tmp_path / name / "cohort.args")
    assert flags[flags.index("--splits") + 1] == f"{tmp_path}/{name}/splits.csv"


def test_cohorts_need_projects_to_be_told_apart(tmp_path):
    cases, genes, gene_sets, _ = simulate(SIZES)
    specs = [CohortSpec("a", "A", "a", ("P",)), CohortSpec("b", "B", "b", ("P",))]
    with pytest.raises(InputError, match=r"\['a', 'b'\]: each needs a project that no other has"):
        export(tmp_path / "x", cases, genes=genes, gene_sets=gene_sets, specs=specs, encoder="")
    assert not (tmp_path / "x").exists()
