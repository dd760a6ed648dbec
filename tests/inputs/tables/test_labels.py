"""One's own tables: columns by a file, one row a case, values that cannot be read."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.tables.labels import FIELDS
from modaltune_jax.inputs.tables.read import LABEL_KINDS, paths_of, read_expression, read_labels
from modaltune_jax.types import InputError

COLUMNS = """
case_id = "Patient ID"
slide_id = "Slide"
diagnosis = "Histology"
stage = "Stage"
age = "Age"
split = "Set"

[endpoint]
time = "Follow-up"
unit = "years"
event = "Status"
event_values = { "died" = 1, "alive" = 0 }

[variables]
sex = "Sex"
ki67 = "Ki-67 %"
"""

TABLE = pd.DataFrame(
    {
        "Patient ID": ["P1", "P1", "P2", "P3"],
        "Slide": ["P1-a.svs", "P1-b.svs", "P2-a.svs", ""],
        "Histology": ["Adenocarcinoma, NOS", "", "Squamous cell carcinoma, NOS", "Not reported"],
        "Stage": ["Stage IIB", "Stage IIB", "pending", "IV"],
        "Age": ["61", "61", "610", "45.5"],
        "Set": ["train", "train", "TEST", ""],
        "Follow-up": ["2", "2", "0.5", ""],
        "Status": ["died", "died", "alive", "alive"],
        "Sex": ["f", "f", "m", ""],
        "Ki-67 %": ["12.5", "12.5", "", "30"],
        "Notes": ["x", "y", "z", ""],
    }
)


@pytest.fixture
def columns(tmp_path):
    path = tmp_path / "columns.toml"
    path.write_text(COLUMNS)
    return path


def write(table, path):
    """Writes as the ending says."""
    if path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)
    return path


def counts_of(table):
    return {count.step: count for count in table.counts}


@pytest.mark.parametrize(
    "name", ["csv:t.csv", "csv:t.tsv", "csv:t.csv.gz", "csv:t.csv.zip", "csv:t.tsv.gz", "excel:t.xlsx"]
)
def test_every_file_type_says_the_same(tmp_path, columns, name):
    kind, file = name.split(":")
    path = write(TABLE, tmp_path / file)
    labels = read_labels(f"{kind}:{path}", columns=columns)
    assert labels.frame.index.tolist() == ["P1", "P2", "P3"]
    assert labels.frame.index.name == "case_id"
    assert tuple(labels.frame) == FIELDS
    row = labels.frame.loc["P1"]
    assert (row.diagnosis, row.time, row.event, row.stage, row.age, row.split) == (
        *("Adenocarcinoma, NOS", 24.0, 1, "Stage IIB", 61.0, "train"),
    )
    assert labels.frame["diagnosis"].tolist()[2] == ""
    assert labels.frame["split"].tolist() == ["train", "test", ""]
    assert labels.slides == {"P1-a": "P1", "P1-b": "P1", "P2-a": "P2"}
    assert labels.variables["sex"].tolist() == ["f", "m", None]
    np.testing.assert_array_equal(labels.variables["ki67"], [12.5, math.nan, 30])


def test_what_cannot_be_read_is_emptied_and_counted(tmp_path, columns):
    labels = read_labels(f"csv:{write(TABLE, tmp_path / 't.csv')}", columns=columns)
    counts = counts_of(labels)
    assert labels.frame.loc["P2", "stage"] == ""
    assert counts["stage codes"].examples == ("P2: pending",)
    assert math.isnan(labels.frame.loc["P2", "age"])
    assert counts["ages"].examples == ("P2: 610",)
    assert (counts["rows of labels to cases"].before, counts["rows of labels to cases"].after) == (4, 3)
    assert counts["events without a time"].examples == ("P3",)
    assert counts["variable sex"].reason == "a category with 2 values"
    assert counts["variable ki67"].reason == "a number, 12.5 to 30"
    assert labels.frame["event"].tolist() == [1, 0, -1]


def test_columns_named_as_ours_need_no_file(tmp_path):
    table = pd.DataFrame({"age": [50], "case_id": ["A"], "months": [3], "dead": [0], "grade": ["G2"]})
    path = write(table, tmp_path / "t.csv")
    labels = read_labels(f"csv:{path}", endpoint="time=months,unit=months,event=dead", variables=["grade"])
    assert labels.frame.loc["A", ["age", "time", "event"]].tolist() == [50, 3, 0]
    assert labels.variables.loc["A", "grade"] == "G2"
    assert read_labels(f"csv:{path}").frame.loc["A", "event"] == -1, "no endpoint was chosen"


def test_a_table_of_cases_alone(tmp_path):
    path = write(pd.DataFrame({"case_id": ["A", "B"]}), tmp_path / "t.csv")
    labels = read_labels(f"csv:{path}")
    assert labels.frame.index.tolist() == ["A", "B"]
    assert labels.variables.shape == (2, 0)


def test_rows_without_a_case_are_counted(tmp_path):
    path = write(pd.DataFrame({"case_id": ["A", "", "NA"], "age": [1, 2, 3]}), tmp_path / "t.csv")
    labels = read_labels(f"csv:{path}")
    count = counts_of(labels)["rows of labels with a case"]
    assert (count.before, count.after, count.suspect) == (3, 1, True)


def test_column_order_changes_nothing(tmp_path, columns):
    one = read_labels(f"csv:{write(TABLE, tmp_path / 'a.csv')}", columns=columns)
    other = read_labels(f"csv:{write(TABLE[TABLE.columns[::-1]], tmp_path / 'b.csv')}", columns=columns)
    pd.testing.assert_frame_equal(one.frame, other.frame)
    pd.testing.assert_frame_equal(one.variables, other.variables)
    assert one.slides == other.slides
    assert one.counts == other.counts


def test_a_sheet_is_chosen_not_guessed(tmp_path):
    path = tmp_path / "cohort.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"x": [1]}).to_excel(book, sheet_name="Legend", index=False)
        pd.DataFrame({"case_id": [7, 8], "age": [50, None]}).to_excel(book, sheet_name="Cases", index=False)
    labels = read_labels(f"excel:{path}#Cases")
    assert labels.frame.index.tolist() == ["7", "8"]
    np.testing.assert_array_equal(labels.frame["age"], [50, math.nan])
    with pytest.raises(InputError, match=r"has the sheets Legend, Cases; choose one with cohort.xlsx#SHEET"):
        read_labels(f"excel:{path}")
    with pytest.raises(InputError, match="has no sheet 'Patients', only Legend, Cases"):
        read_labels(f"excel:{path}#Patients")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"Patient ID": "Case"},
            "has no column 'Patient ID' for case_id; its columns are Case, Slide",
            id="case",
        ),
        pytest.param({"Status": "State"}, "has no column 'Status' for the event", id="endpoint"),
        pytest.param({"Sex": "Gender"}, "has no column 'Sex' for sex", id="variable"),
        pytest.param(
            {"Notes": "Sex"},
            r"has no column 'Sex' for sex; .* Sex \(column 9\), .* Sex \(column 11\)",
            id="twice",
        ),
    ],
)
def test_absent_columns(tmp_path, columns, change, message):
    path = write(TABLE.rename(columns=change), tmp_path / "t.csv")
    with pytest.raises(InputError, match=message):
        read_labels(f"csv:{path}", columns=columns)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        pytest.param("Age", "62", "case P1 has Age '61' and '62'; keep one", id="age"),
        pytest.param("Status", "alive", "case P1 has Status 'died' and 'alive'", id="status"),
        pytest.param("Set", "test", "case P1 has Set 'train' and 'test'", id="split"),
        pytest.param("Status", "lost", "case P1 has Status 'died' and 'lost'", id="unknown-word"),
    ],
)
def test_a_case_that_contradicts_itself(tmp_path, columns, column, value, message):
    table = TABLE.copy()
    table.loc[1, column] = value
    with pytest.raises(InputError, match=message):
        read_labels(f"csv:{write(table, tmp_path / 't.csv')}", columns=columns)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([("2", ""), ("", "died")], "'2' and Status 'died' in different rows", id="two-halves"),
        pytest.param([("2", "died"), ("2", "")], "", id="one-whole-row"),
        pytest.param([("2", "died"), ("", "")], "", id="an-empty-row"),
    ],
)
def test_time_and_status_are_of_one_row(tmp_path, columns, rows, message):
    table = TABLE.copy()
    table.loc[[0, 1], ["Follow-up", "Status"]] = rows
    path = write(table, tmp_path / "t.csv")
    if message:
        with pytest.raises(InputError, match=message):
            read_labels(f"csv:{path}", columns=columns)
    else:
        assert read_labels(f"csv:{path}", columns=columns).frame.loc["P1", ["time", "event"]].tolist() == [
            24,
            1,
        ]


def test_rows_that_complete_each_other_are_told(tmp_path, columns):
    labels = read_labels(f"csv:{write(TABLE, tmp_path / 't.csv')}", columns=columns)
    count = counts_of(labels)["rows of labels to cases"]
    assert count.reason == "1 row of a case that has another; in 1 case they complete each other"
    assert count.examples == ("P1",)


@pytest.mark.parametrize(
    ("endpoint", "event"),
    [
        pytest.param("time=T,unit=days,event=S", 1, id="same-status"),
        pytest.param("time=T,unit=days,event=Other", 0, id="other-status"),
    ],
)
def test_meanings_of_the_columns_file_outlive_an_endpoint_in_words(tmp_path, endpoint, event):
    path = write(pd.DataFrame({"id": ["A"], "T": [30], "S": [0], "Other": [0]}), tmp_path / "t.csv")
    columns = tmp_path / "columns.toml"
    columns.write_text(
        'case_id="id"\n[endpoint]\ntime="T"\nunit="months"\nevent="S"\nevent_values={"1"=0, "0"=1}'
    )
    assert read_labels(f"csv:{path}", columns=columns, endpoint=endpoint).frame.loc["A", "event"] == event
    with pytest.raises(InputError, match="the columns file says what the words of S mean as an event"):
        read_labels(f"csv:{path}", columns=columns, endpoint="time=T,unit=days,censorship=S")


def test_fields_that_come_out_empty_are_suspect(tmp_path, columns):
    table = TABLE.assign(Histology="", Stage="early", Age="1970-01-01")
    labels = read_labels(f"csv:{write(table, tmp_path / 't.csv')}", columns=columns)
    assert {count.step for count in labels.counts if count.suspect} == {
        "cases with diagnosis",
        "stage codes",
        "ages",
    }


def test_none_is_an_answer(tmp_path):
    table = pd.DataFrame(
        {
            "case_id": ["A", "B", "C"],
            "smoking": ["none", "former", "NA"],
            "progression": ["none", "yes", ""],
            "T": [9, 8, 7],
        }
    )
    columns = tmp_path / "columns.toml"
    columns.write_text(
        'case_id="case_id"\n[endpoint]\ntime="T"\nunit="months"\nevent="progression"\n'
        'event_values={yes=1, none=0}\n[variables]\nsmoking="smoking"'
    )
    labels = read_labels(f"csv:{write(table, tmp_path / 't.csv')}", columns=columns)
    assert labels.variables["smoking"].tolist() == ["none", "former", None]
    assert labels.frame["event"].tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("values", "events"),
    [
        pytest.param('{yes=1, ""=0}', [1, 0, -1], id="empty-means-no"),
        pytest.param("{yes=1, NA=0}", [1, -1, 0], id="na-means-no"),
        pytest.param("{yes=1, no=0}", [1, -1, -1], id="neither"),
    ],
)
def test_what_an_empty_cell_means(tmp_path, values, events):
    table = pd.DataFrame({"case_id": list("ABC"), "S": ["yes", "", "NA"], "T": [9, 8, 7]})
    columns = tmp_path / "columns.toml"
    columns.write_text(
        f'case_id="case_id"\n[endpoint]\ntime="T"\nunit="months"\nevent="S"\nevent_values={values}'
    )
    labels = read_labels(f"csv:{write(table, tmp_path / 't.csv')}", columns=columns)
    assert labels.frame["event"].tolist() == events


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('[variables]\nage = "Age"', "variable 'age' has the name of a label", id="label"),
        pytest.param('[variables]\nx = "Patient ID"', "x is column 'Patient ID', which names", id="case"),
        pytest.param('slide_id = "Slide"\n[variables]\nx = "Slide"', "x is column 'Slide'", id="slide"),
        pytest.param('age = "Patient ID"', "age is column 'Patient ID'", id="age"),
    ],
)
def test_columns_that_hold_something_else(tmp_path, text, message):
    path = tmp_path / "columns.toml"
    path.write_text(f'case_id = "Patient ID"\n{text}')
    with pytest.raises(InputError, match=message):
        read_labels(f"csv:{write(TABLE, tmp_path / 't.csv')}", columns=path)


def test_a_line_break_in_a_header_is_a_space(tmp_path):
    path = write(pd.DataFrame({"case_id": ["A"], "Age\n(years)": [50]}), tmp_path / "t.xlsx")
    columns = tmp_path / "columns.toml"
    columns.write_text('case_id = "case_id"\nage = "Age\\n(years)"', encoding="utf-8-sig")
    assert read_labels(f"excel:{path}", columns=columns).frame.loc["A", "age"] == 50


def test_a_comma_in_a_path(tmp_path):
    folder = tmp_path / "ex,k"
    folder.mkdir()
    path = write(pd.DataFrame({"case_id": ["A"]}), folder / "t.csv")
    assert read_labels(f"csv:{path}").frame.index.tolist() == ["A"]
    assert paths_of(f"gdc:{path}, b.tsv,{path}") == [str(path), "b.tsv", str(path)]


def test_a_slide_of_two_cases(tmp_path, columns):
    table = TABLE.copy()
    table.loc[2, "Slide"] = "P1-a.svs"
    with pytest.raises(InputError, match=r"slide P1-a.svs is of case P1 and of P2"):
        read_labels(f"csv:{write(table, tmp_path / 't.csv')}", columns=columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("patient = 'x'", "unknown key 'patient'; known are case_id, slide_id", id="key"),
        pytest.param("case_id = 3", "case_id is 3; write the name of a column", id="type"),
        pytest.param("case_id = [", "is not TOML", id="toml"),
        pytest.param("endpoint = 'OS'", r"write a table, \[endpoint\]", id="endpoint"),
        pytest.param("[endpoint]\ntime='T'\nunit='days'", "name exactly one", id="direction"),
        pytest.param(
            "[endpoint]\ntime='T'\nunit='days'\nevent='S'\ncensorship_values={a=1}",
            "write event_values",
            id="values",
        ),
        pytest.param("variables = 'sex'", r"write a table, \[variables\]", id="variables"),
    ],
)
def test_wrong_columns_files(tmp_path, text, message):
    path = tmp_path / "columns.toml"
    path.write_text(text)
    table = write(TABLE, tmp_path / "t.csv")
    with pytest.raises(InputError, match=message) as error:
        read_labels(f"csv:{table}", columns=path)
    assert "columns.toml" in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("labels.csv", f"write KIND:PATH; the kinds are {', '.join(LABEL_KINDS)}", id="no-kind"),
        pytest.param("sas:labels.sas", "write KIND:PATH", id="unknown-kind"),
        pytest.param("csv:a.csv,b.csv", "csv reads one file", id="two-files"),
        pytest.param("csv:absent.csv", "absent.csv: no such file", id="no-file"),
        pytest.param("csv:.", "no such file", id="folder"),
    ],
)
def test_wrong_sources(source, message):
    with pytest.raises(InputError, match=message):
        read_labels(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("t.csv", b"case_id,age\n", "has no rows with a case", id="no-rows"),
        pytest.param(
            "t.csv", b"case_id,age,stage\nA,3,\nB,4", "its last line, 'B,4', has fewer cells", id="cut-off"
        ),
        pytest.param("t.csv.zip", b"case_id,age\nA,3\n", "cannot be read as a table", id="no-zip"),
        pytest.param("t.xlsx", b"case_id,age\nA,3\n", "cannot be read as a table", id="no-workbook"),
        pytest.param("t.sav", b"x", "is no table by its ending", id="ending"),
        pytest.param(
            "t.csv", b"patient,age\nA,3\n", "no column is named case_id; .* patient, age", id="no-case"
        ),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_labels(f"csv:{path}")
    assert str(path) in str(error.value)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"case_id","age"\n"Mu\u0308ller, A.",50\n', encoding="utf-8-sig")
    assert read_labels(f"csv:{path}").frame.index.tolist() == ["Mu\u0308ller, A."]
    path.write_text("case_id,TP53\nA,1\n", encoding="utf-8-sig")
    assert read_expression(f"csv:{path}").frame.loc["A", "TP53"] == 1


def test_an_endpoint_by_name_needs_a_table_that_defines_it(tmp_path):
    path = write(TABLE, tmp_path / "t.csv")
    with pytest.raises(InputError, match="does not define the endpoint 'OS', only none; write time=COLUMN"):
        read_labels(f"csv:{path}", endpoint="OS")


def test_an_unknown_variable(tmp_path, columns):
    path = write(TABLE, tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"variable 'grade' fits 0 columns, .*; choose of Patient ID, Slide"):
        read_labels(f"csv:{path}", columns=columns, variables=["grade"])


rows = st.lists(
    st.tuples(
        st.sampled_from(["", "A", "B", "C", "D"]),
        st.sampled_from(["", "'--", "Stage I", "Stage IIA", "early"]),
        st.sampled_from(["", "-4", "0", "3.5", "80"]),
        st.sampled_from(["", "0", "1"]),
        st.sampled_from(["", "30", "130", "old"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0] or object(),
)


@settings(deadline=None, max_examples=50)
@given(rows)
def test_cases_in_are_cases_out_or_reported(tmp_path_factory, rows):
    table = pd.DataFrame(rows, columns=["case_id", "stage", "T", "S", "age"])
    path = write(table, tmp_path_factory.mktemp("t") / "t.csv")
    source = f"csv:{path}"
    named = [row[0] for row in rows if row[0]]
    if not named:
        with pytest.raises(InputError):
            read_labels(source)
        return
    labels = read_labels(source, endpoint="time=T,unit=months,censorship=S", variables=["S"])
    assert labels.frame.index.tolist() == named
    counts = counts_of(labels)
    reported = {
        name: counts[name].before - counts[name].after if name in counts else 0
        for name in ("stage codes", "ages", "negative times", "events without a time")
    }
    stated = table[table["case_id"] != ""]
    assert (stated["stage"].isin(["Stage I", "Stage IIA", "early"])).sum() == (
        (labels.frame["stage"] != "").sum() + reported["stage codes"]
    )
    assert (stated["age"] != "").sum() == labels.frame["age"].notna().sum() + reported["ages"]
    assert (stated["T"] != "").sum() == labels.frame["time"].notna().sum() + reported["negative times"]
    assert (stated["S"] != "").sum() == (labels.frame["event"] != -1).sum() + reported[
        "events without a time"
    ]
    for case, state in zip(stated["case_id"], stated["S"], strict=True):
        assert labels.frame.loc[case, "event"] in (-1, {"": -1, "0": 1, "1": 0}[state])
