"""Gene groups from membership tables."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.genesets import GeneSets, read_gene_sets
from modaltune_jax.types import InputError

TCGA = Path(__file__).parents[2] / "../shared/tcga"
needs_tcga = pytest.mark.skipif(not TCGA.is_dir(), reason=f"TCGA benchmark not at {TCGA}")


def as_lists(sets):
    return dict(zip(sets.names, [group.tolist() for group in sets.groups], strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("pathway,gene\nP,C\nP,A\nQ,A\n", {"P": [2, 0], "Q": [0]}, id="overlap-and-file-order"),
        pytest.param(
            "pathway,gene\nP,A\nQ,unmeasured\n", {"P": [0], "Q": []}, id="no-measured-gene-keeps-group"
        ),
        pytest.param("pathway,gene\nP,A\nP,A\n", {"P": [0]}, id="repeated-row"),
        pytest.param("pathway,gene\nQ,B\nP,A\nQ,A\n", {"Q": [1, 0], "P": [0]}, id="first-appearance"),
        pytest.param(
            "pathway_idx,pathway,gene\n10,Z,A\n2,Y,B\n2,Y,A\n",
            {"Y": [1, 0], "Z": [0]},
            id="ordered-by-number-not-text",
        ),
        pytest.param("feature,group\nA,G\nB,H\n", {"G": [0], "H": [1]}, id="signature-groups"),
        pytest.param("group,gene\nG,NA\n", {"G": [3]}, id="gene-called-NA"),
    ],
)
def test_read(tmp_path, text, expected):
    path = tmp_path / "sets.csv"
    path.write_text(text)
    sets = read_gene_sets(path, ["A", "B", "C", "NA"])
    assert as_lists(sets) == expected
    assert list(sets.names) == list(expected)
    assert all(group.dtype == np.int32 for group in sets.groups)


def test_read_gzipped(tmp_path):
    path = tmp_path / "sets.csv.gz"
    path.write_bytes(gzip.compress(b"pathway,gene\nP,B\n"))
    assert as_lists(read_gene_sets(path, ("A", "B"))) == {"P": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("pathway,symbol\nP,A\n", "needs one named gene or feature", id="no-gene-column"),
        pytest.param("set,gene\nP,A\n", "needs one named pathway or group", id="no-group-column"),
        pytest.param("pathway,gene\nP,ENSG1\n", r"none of its genes .*'ENSG1'.*'A'", id="other-identifiers"),
        pytest.param("pathway,gene\n", "none of its genes", id="no-rows"),
        pytest.param("pathway,gene\nP\xfc,A\n", "not UTF-8 text", id="latin-1"),
        pytest.param("", "is empty", id="empty"),
        pytest.param("pathway,gene\nP,A\nQ,A,B\n", "line 3 has 3 cells", id="ragged"),
        pytest.param("pathway,gene\nP,\n", "row 1 has pathway 'P' and gene ''", id="no-gene"),
        pytest.param("pathway_idx,pathway,gene\n,P,A\n", "pathway_idx of 'P' is '', which is no", id="order"),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    path = tmp_path / "sets.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        read_gene_sets(path, ["A"])


def test_what_only_claims_to_be_gzipped(tmp_path):
    path = tmp_path / "sets.csv.gz"
    path.write_text("pathway,gene\nP,A\n")
    with pytest.raises(InputError, match=r"sets\.csv\.gz: cannot be read as a table"):
        read_gene_sets(path, ["A"])


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_gene_sets(tmp_path / "absent.csv", ["A"])


def test_names_and_groups_must_match():
    with pytest.raises(ValueError, match="2 names for 0 groups"):
        GeneSets(("a", "b"), ())


@needs_tcga
def test_published_pathways():
    genes = sorted(set(pd.read_csv(TCGA / "pathways.csv.gz").gene))
    sets = read_gene_sets(TCGA / "pathways.csv.gz", genes)
    sizes = [len(group) for group in sets.groups]
    assert (len(sets.names), sum(sizes), min(sizes), max(sizes), len(genes)) == (331, 9731, 1, 199, 4987)
    assert sets.names[0] == "GABA_B_receptor_activation"


@needs_tcga
@pytest.mark.parametrize(("cohort", "at_least_5"), [("blca", 215), ("brca", 77), ("nsclc", 28)])
def test_measured_pathways(cohort, at_least_5):
    genes = list(pd.read_parquet(TCGA / f"rna/{cohort}.parquet").columns[1:])
    sets = read_gene_sets(TCGA / "pathways.csv.gz", genes)
    assert len(sets.names) == 331
    assert sum(len(group) >= 5 for group in sets.groups) == at_least_5


@needs_tcga
def test_signature_groups_cover_the_pancancer_table():
    genes = list(pd.read_parquet(TCGA / "rna/pancan_sig_dec.parquet").columns[1:])
    sets = read_gene_sets(TCGA / "signature_groups.csv", genes)
    assert sorted(np.concatenate(sets.groups).tolist()) == list(range(119))
