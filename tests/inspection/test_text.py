"""Reports stay tables whatever names are in them."""

import doctest

import pytest

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inspection import wording
from modaltune_jax.inspection.cohort_checks import cohort_facts
from modaltune_jax.inspection.cohort_table import tabulate
from modaltune_jax.inspection.inspection import Inspection
from modaltune_jax.inspection.text import WIDTH, to_text
from modaltune_jax.types import Case, Labels

LONG = "papillary renal cell carcinoma of the eosinophilic variant, not otherwise specified"


def report(site: str, name: str, values: dict[str, str], notes: tuple[str, ...] = ()) -> list[str]:
    spec = CohortSpec(site, "T", "o", classes=(name, "other"))
    cases = [
        Case(f"C{i}", site, split, (), None, Labels(subtype=0, time=3.0, event=1), values)
        for i, split in enumerate(("train", "val", "test"))
    ]
    facts = cohort_facts(tabulate(cases, (), (spec,)))
    return to_text(Inspection(("folder",), "features", 0, (), (), facts, 3, notes=notes)).splitlines()


@pytest.mark.parametrize(
    ("site", "name", "values"),
    [
        pytest.param("x" * 120, "clear", {}, id="site"),
        pytest.param("kidney", LONG + LONG, {}, id="class"),
        pytest.param("the-kidneys-of-the-university-hospital-of-a-town", LONG, {}, id="both"),
        pytest.param("kidney", "clear", {"v" * 90: LONG}, id="variable"),
    ],
)
def test_rows_with_long_names_are_not_broken(site, name, values):
    lines = report(site, name, values)
    assert max(map(len, lines)) <= WIDTH
    block = lines[lines.index("classes") + 1 :]
    rows = block[: block.index("")]
    assert [row.split()[-3:] for row in rows] == [
        ["train", "val", "test"],
        ["1", "1", "1"],
        rows[2].split()[-3:],
    ]
    assert lines[lines.index("clinical values") + 5].split()[0] == "age"


def test_a_path_in_a_note_is_not_broken():
    path = "/data/" + "a-long-folder/" * 10 + "quarantine.csv"
    assert any(path in line for line in report("kidney", "clear", {}, (f"see {path}",)))


def test_one_is_not_many():
    assert doctest.testmod(wording) == (0, doctest.testmod(wording).attempted)
    assert "feature files: 3 cases, 0 slides" in report("kidney", "clear", {})
