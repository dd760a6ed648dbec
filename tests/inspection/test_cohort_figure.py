"""The page on a cohort can be drawn whatever the cohort lacks."""

import numpy as np
import pytest

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inspection.cohort_figure import draw_cohort
from modaltune_jax.inspection.cohort_table import tabulate
from modaltune_jax.inspection.slide_checks import SlideCheck
from modaltune_jax.types import Case, Labels

SPECS = (CohortSpec("lung", "Lung", "lung", classes=("a", "b")), CohortSpec("brain", "Brain", "brain"))


def case(number: int, site: str = "lung", split: str = "train", **labels) -> Case:
    return Case(f"C{number}", site, split, (), np.ones(1, np.float32), Labels(**labels))


@pytest.mark.parametrize(
    ("cases", "lengths"),
    [
        pytest.param(None, [10, 200, 3000], id="slides alone"),
        pytest.param(None, [], id="nothing"),
        pytest.param([case(0, subtype=1, time=3.0, event=1), case(1, split="test")], [7], id="one site"),
        pytest.param(
            [case(0), case(1, site="brain", time=0.0, event=0)], [1, 1], id="a site without classes"
        ),
        pytest.param([case(0, split="")], [], id="no splits, no survival, no slides"),
        pytest.param([], [], id="no cases"),
    ],
)
def test_a_page_is_drawn(tmp_path, cases, lengths):
    table = None if cases is None else tabulate(cases, ("G",), SPECS)
    checks = [SlideCheck(f"S{i}", num_tiles=length) for i, length in enumerate([*lengths, None, 0])]
    draw_cohort(table, checks, tmp_path / "cohort.png")
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 8_000
