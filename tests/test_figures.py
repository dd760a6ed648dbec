"""Figures show something, and the one thing they should."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.figures import COLOURS, comparison_figure, training_figure


def pixels(path) -> np.ndarray:
    from matplotlib import image

    return image.imread(path)[..., :3]


def has_colour(path, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(pixels(path) - wanted).max(axis=-1) < 0.01).any())


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


def test_training_figure_of_a_run_without_lines(tmp_path):
    write_metrics(tmp_path, [])
    training_figure(tmp_path)
    assert pixels(tmp_path / "training.png").std() > 0, "the axes"


def comparison(num_variants: int, seeds: tuple[int, ...] = (0,), value: float = 0.8) -> pd.DataFrame:
    rows = [
        {
            "split": "test",
            "site": site,
            "target": target,
            "metric": metric,
            "value": value + 0.05 * seed,
            "variant": f"v{i}",
            "seed": seed,
        }
        for i in range(num_variants)
        for seed in seeds
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
    ],
)
def test_comparison_figure_shows_each_variant(tmp_path, table, num_colours):
    comparison_figure(table, tmp_path / "results.png")
    shown = [has_colour(tmp_path / "results.png", colour) for colour in COLOURS[:-1]]
    assert sum(shown) == min(num_colours, len(COLOURS) - 1)


def test_comparison_figure_of_what_cannot_be_estimated(tmp_path):
    comparison_figure(comparison(2, value=math.nan), tmp_path / "results.png")
    assert pixels(tmp_path / "results.png").std() > 0
