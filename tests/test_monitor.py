"""The log of a run: every step once, whatever happened in between."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from modaltune_jax.losses.combine import Term
from modaltune_jax.monitor import Monitor, read_metrics


def metrics(loss: float, cases: float = 4.0, grad_norm: float = 1.0) -> dict:
    terms = {"cox": Term(jnp.float32(loss * cases), jnp.float32(cases))}
    values = {"loss": jnp.float32(loss), "cases": jnp.float32(cases), "grad_norm": jnp.float32(grad_norm)}
    return {**values, "terms": terms}


def probe_table(value: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"site": "brca", "target": "subtype", "method": "probe", "value": 0.1},
            {"site": "overall", "target": "subtype", "method": "probe", "value": value},
            {"site": "overall", "target": "survival", "method": "probe", "value": math.nan},
            {"site": "overall", "target": "survival", "method": "risk", "value": 0.6},
        ]
    )


def run(folder, start: int, stop: int, num_steps: int = 8, *, is_writing: bool = True) -> None:
    with Monitor(folder, start, num_steps, steps_per_epoch=2, is_writing=is_writing) as monitor:
        for step in range(start + 1, stop + 1):
            monitor.train(step, metrics(float(step)))
            if step % 4 == 0:
                monitor.flush()
                monitor.probes(step, probe_table(0.5 + step / 100), score=0.5)
        monitor.flush()


def steps(folder, key: str) -> list[int]:
    return [row["step"] for row in read_metrics(folder / "metrics.jsonl") if key in row]


def test_a_line_a_step_and_a_line_of_probes(tmp_path, capsys):
    run(tmp_path, 0, 4)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4]
    assert [row["train/loss"] for row in rows[:4]] == [1.0, 2.0, 3.0, 4.0]
    assert rows[0]["train/grad_norm"] == pytest.approx(1.0)
    assert rows[0]["train/cases_per_second"] > 0
    scores = {"val/subtype": 0.54, "val/survival:risk": 0.6, "val/score": 0.5}
    assert rows[4] == {"step": 4, **scores}, "what is not estimable is left out"
    assert rows[0]["train/loss_cox"] == pytest.approx(1.0)
    assert "epoch 2: val subtype 0.540" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "probes_val.csv")["step"].unique().tolist() == [4]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_term_without_cases_is_left_out(tmp_path):
    with Monitor(tmp_path, 0, 1, steps_per_epoch=1) as monitor:
        monitor.train(1, metrics(0.0, cases=0))
        monitor.flush()
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert row["train/loss"] == 0.0
    assert "train/loss_cox" not in row


def test_a_monitor_that_only_watches_writes_nothing(tmp_path):
    run(tmp_path / "run", 0, 4, is_writing=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        pytest.param(0, [4, 8], id="anew"),
        pytest.param(4, [8], id="validated anew"),
        pytest.param(5, [4, 8], id="resumed"),
    ],
)
def test_lines_beyond_the_resumed_step_are_dropped(tmp_path, start, expected):
    run(tmp_path, 0, 6)
    assert steps(tmp_path, "train/loss") == [1, 2, 3, 4, 5, 6]
    run(tmp_path, start, 8)
    assert steps(tmp_path, "train/loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(tmp_path, "val/score") == expected


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    run(tmp_path, 0, 4)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 6, "train/lo')
    assert read_metrics(path) == [json.loads(line) for line in whole.splitlines()]
    run(tmp_path, 4, 6)
    assert steps(tmp_path, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_no_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(
    ("values", "name"),
    [
        pytest.param({"loss": np.nan}, "loss is nan", id="loss not a number"),
        pytest.param({"loss": np.inf}, "loss is inf", id="infinite loss"),
        pytest.param({"loss": 1.0, "grad_norm": np.nan}, "grad_norm is nan", id="gradient not a number"),
    ],
)
def test_divergence_stops_the_run_before_it_is_logged(tmp_path, values, name):
    with Monitor(tmp_path, 0, 2, steps_per_epoch=1) as monitor:
        monitor.train(1, metrics(**values))
        with pytest.raises(FloatingPointError, match=f"{name} at step 1: lower optim.learning_rate"):
            monitor.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == []
