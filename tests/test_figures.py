"""Figures show something, and the one thing they should."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.figures import COLOURS, HATCHES, _styles, comparison_figure, training_figure
from modaltune_jax.results import over_seeds


def pixels(path) -> np.ndarray:
    from matplotlib import image

    return image.imread(path)[..., :3]


def has_colour(path, colour: str, rows: slice = slice(None)) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(pixels(path)[rows] - wanted).max(axis=-1) < 0.01).any())


def write_metrics(folder, rows) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_training_figure_shows_the_loss_and_each_probe(tmp_path):
    write_metrics(
        tmp_path,
        [
            {"step": 1, "train/loss": 2.0},
            {"step": 5, "train/loss": 1.0},
            {"step": 5, "val/subtype": 0.6, "val/survival": 0.55, "val/score": 0.575},
            {"step": 10, "train/loss": 0.5},
            {"step": 10, "val/subtype": 0.9, "val/survival": 0.7, "val/score": 0.8},
        ],
    )
    training_figure(tmp_path)
    assert all(has_colour(tmp_path / "training.png", colour) for colour in COLOURS[:2])
    assert not has_colour(tmp_path / "training.png", COLOURS[2]), "the score is the mean of the others"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "training.png"]


def test_training_figure_shows_a_loss_below_zero(tmp_path):
    rows = [(1, 2.0), (5, -2.0), (9, -8.0), (13, -8.0), (17, 2.0)]
    write_metrics(tmp_path, [{"step": step, "train/loss": loss} for step, loss in rows])
    training_figure(tmp_path)
    wanted = np.array([int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    columns = (
        (np.abs(pixels(tmp_path / "training.png") - wanted).max(axis=-1) < 0.01).any(axis=0).nonzero()[0]
    )
    assert np.diff(columns).max() == 1, "the line is not interrupted"


def test_training_figure_of_a_run_without_lines(tmp_path):
    write_metrics(tmp_path, [])
    training_figure(tmp_path)
    assert pixels(tmp_path / "training.png").std() > 0, "the axes"


def comparison(
    num_variants: int,
    seeds: tuple[int, ...] = (0,),
    value: float = 0.8,
    methods: tuple[str, ...] = ("probe",),
) -> pd.DataFrame:
    rows = [
        {
            "split": "test",
            "site": site,
            "target": target,
            "method": method,
            "metric": metric,
            "value": value + 0.05 * seed,
            "variant": f"v{i}",
            "seed": seed,
        }
        for i in range(num_variants)
        for seed in seeds
        for method in methods
        for target, metric in (("subtype", "balanced_accuracy"), ("survival", "harrell_c"))
        for site in ("brca", "overall")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("table", "num_colours"),
    [
        pytest.param(comparison(1), 1, id="one variant"),
        pytest.param(comparison(3, (0, 1)), 3, id="three variants, two seeds"),
        pytest.param(comparison(len(COLOURS) + 2), len(COLOURS), id="more variants than colours"),
        pytest.param(comparison(2).query("target == 'survival'"), 2, id="one panel"),
        pytest.param(comparison(2, methods=("probe", "risk")), 2, id="two variants with a head each"),
    ],
)
def test_comparison_figure_shows_each_variant(tmp_path, table, num_colours):
    comparison_figure(table, tmp_path / "results.png")
    shown = [has_colour(tmp_path / "results.png", colour) for colour in COLOURS[:-1]]
    assert sum(shown) == min(num_colours, len(COLOURS) - 1)


def test_heads_have_the_colour_of_their_variant_and_a_hatch():
    table = comparison(2, methods=("probe", "risk"))
    # The head predicts survival only.
    styles = _styles(over_seeds(table.query("target == 'survival' or method == 'probe'")))
    assert list(styles) == ["v0", "v0 [risk]", "v1", "v1 [risk]"]
    assert [style["color"] for style in styles.values()] == [COLOURS[0]] * 2 + [COLOURS[1]] * 2
    assert [style["hatch"] for style in styles.values()] == [HATCHES[0], HATCHES[1]] * 2


def test_a_head_of_one_target_is_in_the_legend_and_in_one_panel(tmp_path):
    table = comparison(1, methods=("probe", "risk"))
    heads = table["method"] == "risk"
    comparison_figure(table[~heads], tmp_path / "probes.png")
    comparison_figure(table[~heads | (table["target"] == "survival")], tmp_path / "one.png")
    comparison_figure(table, tmp_path / "both.png")
    hatched = [pixels(tmp_path / f"{name}.png") for name in ("probes", "one", "both")]
    bars, middle = slice(40, 330), hatched[0].shape[1] // 2
    left, right = np.s_[bars, :middle], np.s_[bars, middle:]
    np.testing.assert_array_equal(hatched[0][left], hatched[1][left])
    assert np.abs(hatched[0][right] - hatched[1][right]).max() > 0
    assert np.abs(hatched[1][left] - hatched[2][left]).max() > 0


def test_a_score_below_chance_is_not_off_the_axis(tmp_path):
    comparison_figure(comparison(1, value=0.1), tmp_path / "results.png")
    assert has_colour(tmp_path / "results.png", COLOURS[0], slice(400)), "the bars, not the legend"


def test_comparison_figure_of_what_cannot_be_estimated(tmp_path):
    comparison_figure(comparison(2, value=math.nan), tmp_path / "results.png")
    assert pixels(tmp_path / "results.png").std() > 0
