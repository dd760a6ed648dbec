"""The page on a cohort can be drawn whatever the cohort lacks."""

import itertools

import numpy as np
import pytest

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inspection import cohort_figure
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


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a page and gives its figure."""
    from matplotlib import pyplot as plt

    figures = []
    monkeypatch.setattr(cohort_figure, "save", lambda figure, path: figures.append(figure))

    def draw(cases, specs=SPECS, lengths=(7,)):
        checks = [SlideCheck(f"S{i}", num_tiles=length) for i, length in enumerate(lengths)]
        draw_cohort(tabulate(cases, ("G",), specs), checks, tmp_path / "cohort.png")
        figures[-1].canvas.draw()
        return figures[-1]

    yield draw
    for figure in figures:
        plt.close(figure)


def test_long_names_leave_room_for_the_bars(drawn):
    sites = [f"{word}-long-name-of-a-university-hospital" for word in ("one", "two", "three")]
    specs = [CohortSpec(site, "T", "o", classes=(100 * "papillary ", "clear")) for site in sites]
    splits = ("train", "val", "test")
    cases = [case(i, sites[i % 3], splits[i % 3], subtype=i % 2, time=1.0, event=1) for i in range(9)]
    figure = drawn(cases, specs)
    classes, _, missing, _ = figure.axes
    page, bars = figure.bbox, classes.get_window_extent()
    assert bars.width > 0.3 * page.width
    assert not classes.get_legend().get_window_extent().overlaps(classes._left_title.get_window_extent())
    names = [label.get_window_extent() for label in missing.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(names))


@pytest.mark.parametrize(
    ("longest", "end", "title"),
    [
        pytest.param(
            99_999.0, 40.0, "follow-up: 30 deaths in 30 cases; 1 beyond, to 99,999 months", id="outlier"
        ),
        pytest.param(60.0, 60.0, "follow-up: 30 deaths in 30 cases", id="long"),
        pytest.param(0.0, 40.0, "follow-up: 30 deaths in 30 cases", id="none"),
    ],
)
def test_one_far_time_does_not_press_the_others_together(drawn, longest, end, title):
    times = [*np.linspace(1.0, 40.0, 29), longest]
    figure = drawn([case(i, time=time, event=1) for i, time in enumerate(times)])
    follow_up = figure.axes[1]
    assert follow_up.get_title(loc="left") == title
    assert max(patch.get_x() + patch.get_width() for patch in follow_up.patches) == pytest.approx(end)


def test_cases_are_counted_in_whole_numbers(drawn):
    classes, follow_up, *_ = drawn([case(0, time=1.0, event=1, subtype=0)]).axes
    for ticks in (classes.get_xticks(), follow_up.get_yticks()):
        assert all(tick == round(tick) for tick in ticks)
    assert follow_up.get_title(loc="left") == "follow-up: 1 death in 1 case"
