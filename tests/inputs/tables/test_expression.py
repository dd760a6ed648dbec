"""Expression matrices: samples to cases, names to symbols, both layouts."""

import gzip
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modaltune_jax.inputs.tables.read import read_expression
from modaltune_jax.inputs.tables.samples import choose_samples
from modaltune_jax.types import InputError

A, B = "TCGA-ZZ-0001", "TCGA-ZZ-0002"


def xena(path, samples, genes):
    """Writes genes x samples with tabs, as Xena does."""
    table = pd.DataFrame(list(genes.values()), columns=samples, index=pd.Index(list(genes), name="sample"))
    table.to_csv(path, sep="\t", na_rep="NA", compression="gzip" if path.suffix == ".gz" else None)
    return path


def counts_of(table):
    return {count.step: count for count in table.counts}


@pytest.mark.parametrize("name", ["HiSeqV2", "HiSeqV2.gz", "matrix.tsv", "matrix.tsv.gz"])
def test_xena(tmp_path, name):
    path = xena(tmp_path / name, [f"{B}-01", f"{A}-01"], {"TP53": [1.5, 2.5], "MYC": [0.1, math.nan]})
    if name == "HiSeqV2.gz":
        assert gzip.decompress(path.read_bytes()).startswith(b"sample\t")
    table = read_expression(f"xena:{path}")
    assert table.frame.index.tolist() == [B, A]
    assert table.frame.columns.tolist() == ["TP53", "MYC"]
    assert (table.frame.dtypes == np.float32).all()
    np.testing.assert_array_equal(table.frame, np.asarray([[1.5, 0.1], [2.5, math.nan]], np.float32))
    assert table.unit == "as given"
    assert table.counts[-1].reason == "1 values are not measured"


def test_a_tumour_sample_a_case(tmp_path):
    samples = [f"{A}-11", f"{A}-06", f"{A}-01B", f"{A}-01A", f"{B}-11"]
    table = read_expression(f"xena:{xena(tmp_path / 'm', samples, {'TP53': [0, 1, 2, 3, 4]})}")
    assert table.frame.to_dict() == {"TP53": {A: 3.0}}
    counts = counts_of(table)
    assert counts["tumour samples"].examples == (f"{A}-11", f"{B}-11")
    assert (counts["one sample a case"].before, counts["one sample a case"].after) == (3, 1)
    assert counts["one sample a case"].examples == (f"{A}-06", f"{A}-01B")


def test_values_follow_their_sample_whatever_the_order(tmp_path):
    path = xena(tmp_path / "m", [f"{A}-06", f"{B}-01", f"{A}-01"], {"TP53": [1, 2, 3], "MYC": [4, 5, 6]})
    table = read_expression(f"xena:{path}")
    assert table.frame.to_dict("index") == {A: {"TP53": 3, "MYC": 6}, B: {"TP53": 2, "MYC": 5}}


sample_names = st.lists(
    st.builds(
        "TCGA-ZZ-000{}-{:02d}{}".format,
        st.integers(0, 3),
        st.sampled_from([1, 2, 6, 10, 11, 20]),
        st.sampled_from("AB"),
    ),
    unique=True,
)


@given(sample_names, st.randoms())
def test_samples_in_are_samples_out_or_reported(names, random):
    chosen, counts = choose_samples(names)
    left_out = sum(count.before - count.after for count in counts)
    assert len(names) == len(chosen) + left_out
    shuffled = list(names)
    random.shuffle(shuffled)
    assert choose_samples(shuffled)[0] == chosen, "the order of the columns decides nothing"
    tumours = {name[:12] for name in names if int(name[13:15]) < 10}
    assert set(chosen) == tumours
    for case, sample in chosen.items():
        assert sample == min(name for name in names if name.startswith(case) and int(name[13:15]) < 10)


def test_names_of_genes(tmp_path):
    genes = {
        "?|10357": [9],
        "__no_feature": [8],
        "N_unmapped": [7],
        "TP53|7157": [1],
        "ENSG00000136997.15": [2],
        "ENSG00000002586.20_PAR_Y": [3],
        "BRCA1": [4],
    }
    table = read_expression(f"xena:{xena(tmp_path / 'm', [f'{A}-01'], genes)}")
    assert table.frame.loc[A].to_dict() == {"TP53": 1, "ENSG00000136997": 2, "BRCA1": 4}
    counts = counts_of(table)
    assert counts["genes with a name"].examples == (
        "?|10357",
        "__no_feature",
        "N_unmapped",
        "ENSG00000002586.20_PAR_Y",
    )
    assert counts["genes with an Ensembl id"].examples == ("ENSG00000136997.15",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("probemap", "id\tgene\tchrom\nENSG00000136997.10\tMYC\tchr8\n", id="probe-map"),
        pytest.param("probemap", "#id\tgene\nENSG00000136997.15\tMYC\n", id="probe-map-hash"),
        pytest.param("aliases.csv", "alias,symbol\nENSG00000136997,MYC\n", id="csv"),
    ],
)
def test_aliases(tmp_path, name, text):
    path = xena(tmp_path / "m", [f"{A}-01"], {"ENSG00000136997.15": [2], "TP53": [1]})
    (tmp_path / name).write_text(text)
    table = read_expression(f"xena:{path}", aliases=tmp_path / name)
    assert table.frame.loc[A].to_dict() == {"MYC": 2, "TP53": 1}
    assert counts_of(table)["genes renamed by aliases"].examples == ("ENSG00000136997: MYC",)


def test_ambiguous_aliases_and_symbols_stay(tmp_path):
    aliases = tmp_path / "aliases.csv"
    aliases.write_text("alias,symbol\nP1,TP53\nP1,PRL\nMYC,MYCN\nx,MYC\nOLD,NEW\n")
    path = xena(tmp_path / "m", [f"{A}-01"], {"P1": [1], "MYC": [2], "OLD": [3]})
    table = read_expression(f"xena:{path}", aliases=aliases)
    assert table.frame.loc[A].to_dict() == {"P1": 1, "MYC": 2, "NEW": 3}
    assert counts_of(table)["aliases of one symbol"].examples == ("P1",)


@pytest.mark.parametrize("layout", ["xena", "csv"])
def test_of_one_symbol_the_highest_mean_is_kept(tmp_path, layout):
    names, values = ["S|1", "S|2", "S|3"], np.asarray([[1, 2], [5, math.nan], [4, 4]])
    path = tmp_path / "m.csv"
    if layout == "xena":
        pd.DataFrame(values, index=names, columns=[f"{A}-01", f"{B}-01"]).to_csv(path, sep="\t")
    else:
        pd.DataFrame(values.T, columns=["S|1", "S|1", "S|1"], index=[A, B]).to_csv(path)
    table = read_expression(f"{layout}:{path}")
    np.testing.assert_array_equal(table.frame["S"], [5, math.nan])
    assert (counts_of(table)["one gene a symbol"].before, counts_of(table)["one gene a symbol"].after) == (
        3,
        1,
    )


def test_wanted_genes_only(tmp_path):
    path = xena(tmp_path / "m", [f"{A}-01"], {"TP53|1": [1], "MYC|2": [2], "KRAS|3": [3]})
    table = read_expression(f"xena:{path}", genes=["KRAS", "TP53", "absent"])
    assert table.frame.columns.tolist() == ["TP53", "KRAS"]
    assert (
        counts_of(table)["genes that are asked for"].before,
        counts_of(table)["genes that are asked for"].after,
    ) == (3, 2)


@pytest.mark.parametrize(
    "source", ["csv:m.csv", "csv:m.tsv", "csv:m.csv.gz", "survpath:m.csv", "parquet:m.parquet"]
)
@pytest.mark.parametrize("is_named", [True, False])
def test_cases_in_rows(tmp_path, source, is_named):
    kind, name = source.split(":")
    frame = pd.DataFrame({"TP53": [0.1, 2], "MYC": [math.nan, 4]}, index=[f"{B}-01A", "P7"])
    path = tmp_path / name
    if is_named:
        # Not the first column.
        frame = frame.assign(case_id=frame.index).reset_index(drop=True)[["TP53", "case_id", "MYC"]]
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in name else ",", index=not is_named)
    table = read_expression(f"{kind}:{path}")
    assert table.frame.index.tolist() == [B, "P7"]
    assert table.frame.columns.tolist() == ["TP53", "MYC"]
    np.testing.assert_array_equal(table.frame, np.asarray([[0.1, math.nan], [2, 4]], np.float32))


def test_mcat_takes_expression_columns_of_equal_rows(tmp_path):
    path = tmp_path / "t.csv.zip"
    table = pd.DataFrame(
        {"case_id": [A, A, B], "age": [1, 1, 2], "TP53_rnaseq": [0.5, 0.5, 1], "TP53_mut": [1, 1, 0]}
    )
    table.to_csv(path)
    expression = read_expression(f"mcat:{path}")
    assert expression.frame.to_dict() == {"TP53": {A: 0.5, B: 1.0}}
    assert counts_of(expression)["rows of expression to samples"].examples == (A,)
    table.assign(TP53_rnaseq=[0.5, 0.6, 1]).to_csv(path)
    with pytest.raises(InputError, match=f"case {A} has rows that differ, first in TP53"):
        read_expression(f"mcat:{path}")
    table.drop(columns="TP53_rnaseq").to_csv(path)
    with pytest.raises(InputError, match="has no columns of expression"):
        read_expression(f"mcat:{path}")


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        pytest.param(
            "xena:m",
            f"gene\t{A}-01\nTP53\thigh\n",
            f"'high' is no number .row TP53, column {A}-01",
            id="text",
        ),
        pytest.param(
            "csv:m.csv",
            f"case_id,TP53\n{A},high\n",
            f"'high' is no number .row {A}, column TP53",
            id="wide-text",
        ),
        pytest.param(
            "xena:m", f"gene\t{A}-01\nTP53\t-inf\n", f"case {A}: gene TP53 is infinite", id="infinite"
        ),
        pytest.param(
            "xena:m", f"gene\t{A}-01\t{A}-01\nTP53\t1\t2\n", f"sample {A}-01 is there twice", id="twice"
        ),
        pytest.param(
            "xena:m", f"case_id\tTP53\n{A}\t1\n", "has cases in rows; read it with csv:", id="turned"
        ),
        pytest.param(
            "csv:m.csv",
            f"gene,{A}-01\nTP53,1\n",
            "has cases in columns; read it with xena:",
            id="turned-wide",
        ),
        pytest.param("xena:m", f"gene\t{A}-11\nTP53\t1\n", "gives 1 genes for 0 cases", id="normals-only"),
        pytest.param("xena:m", f"gene\t{A}-01\n?|1\t1\n", "gives 0 genes for 1 cases", id="nameless-only"),
        pytest.param(
            "xena:m",
            f"g\t{A}-01\t{B}-01\nTP53\t1\t\nMYC\t1",
            "its last line, .* has fewer cells",
            id="cut-off",
        ),
        pytest.param(
            "xena:m",
            f"g\t{A}-01\t{B}-11\nTP53\t1\t2\nMYC\t1",
            "its last line, .* has fewer cells",
            id="cut-off-end",
        ),
        pytest.param(
            "csv:m.csv",
            f"case_id,TP53,MYC\n{A},1,2\n{B},3",
            "its last line, .* has fewer cells",
            id="cut-off-wide",
        ),
        pytest.param(
            "xena:m",
            "gene,sample\nTP53,1\n",
            "m: its columns are separated by commas; save it with tabs",
            id="commas",
        ),
        pytest.param(
            "xena:m",
            f"{A}-01\t{B}-01\nTP53\t1\t2\n",
            "m: line 2 has 3 cells, but those before it 2",
            id="header-too-short",
        ),
        pytest.param("csv:m.csv", "case_id,TP53\n,1\n", "row 1 names no case", id="no-case"),
        pytest.param("csv:m.csv", "case_id,TP53\n", "gives 1 genes|gives 0 genes", id="no-rows"),
        pytest.param("parquet:m.parquet", "x", "cannot be read as a table", id="no-parquet"),
        pytest.param("csv:m.rds", "x", "is no table by its ending", id="ending"),
        pytest.param("xena:absent", None, "no such file", id="absent"),
        pytest.param("rds:m", None, "write KIND:PATH; the kinds are xena, csv", id="kind"),
        pytest.param("csv:m,n", None, "reads one file; join the matrices", id="two"),
    ],
)
def test_wrong_matrices(tmp_path, monkeypatch, source, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / source.split(":")[1]).write_text(text)
    with pytest.raises(InputError, match=message):
        read_expression(source)


def test_truncated_download(tmp_path):
    path = xena(tmp_path / "m.gz", [f"{A}-01"], {f"G{i}": [i * math.pi] for i in range(2000)})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"m.gz: cannot be read as a table .* download or save it again"):
        read_expression(f"xena:{path}")


@pytest.mark.parametrize("num_before", [0, 2500])
def test_every_word_for_missing_is_read(tmp_path, num_before):
    genes = {f"G{i}": ["1.5", "2"] for i in range(num_before)}
    genes |= {"TP53": ["Not Available", "3.25"], "MYC": ["'--", "[Unknown]"], "KRAS": ["4", ""]}
    table = read_expression(f"xena:{xena(tmp_path / 'm', [f'{A}-01', f'{B}-01'], genes)}")
    assert len(table.frame.columns) == num_before + 3
    np.testing.assert_array_equal(table.frame["TP53"], [math.nan, 3.25])
    np.testing.assert_array_equal(table.frame["MYC"], [math.nan, math.nan])
    np.testing.assert_array_equal(table.frame["KRAS"], [4, math.nan])


def test_how_many_cells_are_no_numbers(tmp_path):
    path = xena(tmp_path / "m", [f"{A}-01", f"{B}-01"], {"TP53": ["NA", "high"], "MYC": ["low", "1_000"]})
    with pytest.raises(
        InputError, match=rf"'high' is no number .row TP53, column {B}-01; so are 2 cells more"
    ):
        read_expression(f"xena:{path}")


@pytest.mark.parametrize("is_xena", [True, False])
def test_a_matrix_that_lies_on_its_side(tmp_path, is_xena):
    frame = pd.DataFrame({"P1": [1.0, 2.0], "P2": [3.0, 4.0]}, index=["TP53", "MYC"])
    path = tmp_path / "m.csv"
    (frame.T if is_xena else frame).to_csv(path, sep="\t" if is_xena else ",")
    kind, other = ("xena", "csv") if is_xena else ("csv", "xena")
    with pytest.raises(InputError, match=f"read it with {other}:"):
        read_expression(f"{kind}:{path}", genes=["MYC", "KRAS"])


def test_a_column_without_a_name_is_told(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"case_id,TP53,\n{A},1,\n")
    assert counts_of(read_expression(f"csv:{path}"))["genes with a name"].examples == (
        "a column without a name",
    )


def test_a_matrix_of_a_header_only(tmp_path):
    (tmp_path / "m").write_text(f"gene\t{A}-01\n")
    with pytest.raises(InputError, match="gives 0 genes for 1 cases"):
        read_expression(f"xena:{tmp_path / 'm'}")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        pytest.param(
            pd.DataFrame({"TP53": [1.0]}), "has no column case_id and no index of cases", id="no-case"
        ),
        pytest.param(pd.DataFrame({"case_id": ["A"], "sex": ["f"]}), "column 'sex' is no number", id="text"),
    ],
)
def test_wrong_parquet(tmp_path, frame, message):
    frame.to_parquet(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=message):
        read_expression(f"parquet:{tmp_path / 'm.parquet'}")
