"""Tables and other text files as users save them: separators, encodings, headers, ragged lines."""

import doctest
import gzip
import zipfile

import pandas as pd
import pytest

from modaltune_jax.inputs import counts, table_file
from modaltune_jax.inputs.table_file import column_list, is_table, number, read_table
from modaltune_jax.inputs.text_file import read_text, read_toml
from modaltune_jax.types import InputError


def test_doctests():
    for module in (table_file, counts):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "t.csv", b"id;age;time\n1;50;3,5\n", "separated by semicolons; .* decimal points", id="german"
        ),
        pytest.param(
            "t.csv", b"id\tage\n1\t3\n", "separated by tabs; save it with commas, or .*tsv", id="tabs"
        ),
        pytest.param("t.csv", b"id|age\n1|3\n", "separated by vertical bars; save it with commas", id="bars"),
        pytest.param("t.tsv", b"id,age\n1,3\n", "separated by commas; save it with tabs", id="commas"),
        pytest.param("t.csv", "id\nM\xfc\n".encode("latin-1"), "not UTF-8 .*'CSV UTF-8'", id="latin-1"),
        pytest.param("t.csv", "id,age\n1,3\n".encode("utf-16"), "is UTF-16 text; .*'CSV UTF-8'", id="utf-16"),
        pytest.param(
            "t.csv", b"id,age\n1,3,\n2,4,\n", "line 2 has 3 cells, but .* 2;", id="comma-at-the-end"
        ),
        pytest.param("t.csv", b"id,age\n1,3\n2,Doe,4\n", "line 3 has 3 cells", id="comma-in-a-cell"),
        pytest.param("t.csv", b"Our cohort\nid,age\n1,3\n", "is the header in the first line", id="title"),
        pytest.param("t.csv", b"", "is empty", id="empty"),
        pytest.param("t.csv.gz", b"id,age\n1,3\n", "cannot be read as a table", id="not-gzip"),
    ],
)
def test_files_that_need_saving_otherwise(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zip"])
def test_marks_and_spaces_are_no_part_of_names_and_cells(tmp_path, kind):
    text = '\ufeff"Age\n(years)", id ,note\r\n50,P 1 ,none\r\n'.encode()
    path = tmp_path / {"plain": "t.csv", "gzip": "t.csv.gz", "zip": "t.csv.zip"}[kind]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", text)
    else:
        path.write_bytes(gzip.compress(text) if kind == "gzip" else text)
    assert read_table(path).to_dict("records") == [{"Age (years)": "50", "id": "P 1", "note": "none"}]


def test_words_for_missing_stay_where_they_may_mean_something(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,a\n NA ,[Not Available]\n")
    assert read_table(path, verbatim=True).to_dict("records") == [{"id": "NA", "a": "[Not Available]"}]
    assert read_table(path).empty


def test_an_empty_sheet_is_named(tmp_path):
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame().to_excel(book, sheet_name="Blank")
        pd.DataFrame({"id": [1]}).to_excel(book, sheet_name="Full", index=False)
    with pytest.raises(InputError, match=r"t.xlsx: sheet Blank is empty; choose another with t.xlsx#SHEET"):
        read_table(path, "Blank")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([["Our cohort", None, None], ["id", "age", "sex"], ["P1", 3, "f"]], id="title"),
        pytest.param([[None, None, None], ["id", "age", "sex"], ["P1", 3, "f"]], id="blank-row"),
        pytest.param([["id", None, None], ["", "years", "f/m"], ["P1", 3, "f"]], id="two-headers"),
    ],
)
def test_a_header_elsewhere_is_asked_for(tmp_path, rows):
    path = tmp_path / "t.xlsx"
    pd.DataFrame(rows).to_excel(path, index=False, header=False)
    assert "have no name: is the header in the first row?" in column_list(read_table(path))


def test_a_file_without_the_right_to_read_it(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("id,age\n1,3\n")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(table_file, "open_text", refuse)
    with pytest.raises(InputError, match=r"t\.csv: may not be read; give yourself the right"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "value"), [("4.5", 4.5), ("-3", -3), ("1e3", 1000), (".5", 0.5), ("5.", 5), ("+2", 2)]
)
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["1_000", "4,5", "inf", "nan", "", "\u0663", "1e999", "0x10", "> 3", "1 000"]
)
def test_what_is_no_number(text):
    assert number(text) != number(text)


@pytest.mark.parametrize("name", ["a.csv", "a.TSV.GZ", "a.txt", "b/a.CSV", "a.xlsx", "a.xlsx#Slides"])
def test_tables_by_their_ending(name):
    assert is_table(name)
    assert not is_table(f"({name[0]}).*")


def test_toml_and_text(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('age = "Alter"', encoding="utf-8-sig")
    assert read_toml(path, "") == {"age": "Alter"}
    path.write_bytes('age = "\xdcber"'.encode("latin-1"))
    with pytest.raises(InputError, match=r"c\.toml: is not UTF-8 text; save it as UTF-8"):
        read_text(path)
    with pytest.raises(InputError, match=r"none\.toml: no such file; write one"):
        read_toml(tmp_path / "none.toml", "write one")
