"""Further columns: what is a number, what a category, and what is hard to believe."""

import re

import pandas as pd
import pytest

from modaltune_jax.inputs.tables.read import read_labels


def write(table, path):
    table.to_csv(path, index=False)
    return path


def suspects(labels):
    return {count.step: count.reason for count in labels.counts if count.suspect}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        pytest.param(["4,5", "6,1", "7"], r"such as '4,5' numbers\? .* decimal point", id="decimal-comma"),
        pytest.param(["4.5", "> 90", "7"], "most are numbers, but not '> 90'", id="mostly-numbers"),
        pytest.param(["", "", ""], "no case has it", id="empty"),
        pytest.param([f"Dr {chr(65 + i)}" for i in range(12)], "nearly every case has its own", id="names"),
    ],
)
def test_variables_that_are_hardly_meant(tmp_path, cells, reason):
    table = pd.DataFrame({"case_id": [f"P{i}" for i in range(len(cells))], "x": cells})
    labels = read_labels(f"csv:{write(table, tmp_path / 't.csv')}", variables=["x"])
    assert re.search(reason, suspects(labels)["variable x"])


def test_common_variables_are_believed(tmp_path):
    table = pd.DataFrame({"case_id": list("ABC"), "grade": ["G1", "G2", "G3"], "gleason": ["3+4", "4+4", ""]})
    path = write(table, tmp_path / "t.csv")
    assert suspects(read_labels(f"csv:{path}", variables=["grade", "gleason"])) == {}


def test_a_table_that_gives_nothing_to_learn_is_suspect(tmp_path):
    path = write(pd.DataFrame({"case_id": ["A"], "age": [3], "Histology": ["x"]}), tmp_path / "t.csv")
    (reason,) = suspects(read_labels(f"csv:{path}")).values()
    assert "neither diagnosis, survival nor variables were read; name their columns" in reason
