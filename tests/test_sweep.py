"""Sweeps: the grid, and processes that end well, badly or not at all."""

import os
import signal
import sys
import threading
import time

import pandas as pd
import pytest

from modaltune_jax import sweep
from modaltune_jax.sweeping import processes
from modaltune_jax.sweeping.grid import make_grid
from modaltune_jax.sweeping.ledger import Ledger
from modaltune_jax.sweeping.processes import Sweep
from modaltune_jax.types import InputError

PER_COHORT = "configs/hipt.py:{cohort},mean_pool"
# What training leaves behind, for seeds that are given one by one; seed 1 fails where a file says so.
RUN = """
import pathlib, sys, time
workdir, seeds, wait = pathlib.Path(sys.argv[1]), [int(x) for x in sys.argv[3:]], float(sys.argv[2])
for seed in seeds:
    time.sleep(wait)
    if seed == 1 and (workdir.parent / "broken").exists():
        sys.exit("error: seed 1 has no data")
    folder = workdir / "full" / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"wall_seconds": 2.04}')
    (folder / "probes.csv").write_text("")
"""


@pytest.fixture
def grid(tmp_path):
    return make_grid([PER_COHORT], ["brca", "blca"], range(3), [], tmp_path)


@pytest.fixture
def commands(monkeypatch):
    """Replaces training; returns the list of what was started."""
    started = []

    def command(experiment, seeds, wait=0.0):
        started.append((experiment.name, tuple(seeds)))
        left = [seed for seed in seeds if not experiment.is_finished("full", seed)]
        return [sys.executable, "-c", RUN, str(experiment.workdir), str(wait), *map(str, left)]

    monkeypatch.setattr(processes, "command", command)
    return started


def rows(ledger):
    table = pd.read_csv(ledger.path, keep_default_na=False)
    return {(row.experiment, row.seed): (row.status, row.error) for row in table.itertuples()}


def test_grid_fills_in_cohorts_and_seeds(tmp_path):
    configs = [PER_COHORT, "configs/hipt.py:pancancer,longnet"]
    grid = make_grid(configs, ["brca", "blca"], range(2), ["optim.epochs=3"], tmp_path)
    assert [one.words for one in grid] == [
        "configs/hipt.py:brca,mean_pool",
        "configs/hipt.py:blca,mean_pool",
        "configs/hipt.py:pancancer,longnet",
    ]
    assert [one.cohort for one in grid] == ["brca", "blca", ""]
    assert grid[0].config.data.cohorts == ("brca",)
    assert grid[0].runs == [("full", 0), ("full", 1)]
    assert grid[0].config.optim.epochs == 3
    assert grid[0].workdir == tmp_path / "hipt_brca_mean_pool"


def test_cohort_in_an_override_names_the_folder(tmp_path):
    overrides = ["data.directory=records/{cohort}"]
    grid = make_grid(["configs/brca.py"], ["brca", "blca"], [], overrides, tmp_path)
    assert [one.config.data.directory for one in grid] == ["records/brca", "records/blca"]
    assert [one.name for one in grid] == ["brca", "brca_blca"]
    assert grid[0].config.seeds == (0, 1, 2)  # those of the config


@pytest.mark.parametrize(
    ("configs", "cohorts", "message"),
    [
        pytest.param([PER_COHORT], [], "stands for the cohorts of --cohorts", id="no cohorts"),
        pytest.param(["configs/brca.py"], ["blca"], "no config says where they belong", id="no place"),
        pytest.param([PER_COHORT] * 2, ["blca"], "are both called", id="twice"),
        pytest.param(["configs/hipt.py:{cohort},x"], ["blca"], "configs/hipt.py:blca,x: ", id="wrong word"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(configs, cohorts, message, tmp_path):
    with pytest.raises(InputError, match=message):
        make_grid(configs, cohorts, [], [], tmp_path)


def test_command_is_training_with_all_overrides(tmp_path):
    (one,) = make_grid([PER_COHORT], ["brca"], range(2), ["optim.epochs=3"], tmp_path)
    assert processes.command(one, [1])[1:] == [
        *("-m", "modaltune_jax.main", "--config=configs/hipt.py:brca,mean_pool"),
        f"--workdir={tmp_path}/hipt_brca_mean_pool",
        *("--config.optim.epochs=3", "--config.seeds=(1,)"),
    ]


@pytest.mark.parametrize("num_jobs", [1, 2, 9])
def test_all_runs_end_and_are_not_run_again(grid, commands, tmp_path, num_jobs):
    said = []
    ledger = Ledger(tmp_path / "sweep.csv", grid)
    Sweep(grid, ledger, num_jobs, said.append).run()
    assert set(rows(ledger).values()) == {("done", "")}
    assert len(said) == 6
    assert sorted(commands) == [("hipt_blca_mean_pool", (0, 1, 2)), ("hipt_brca_mean_pool", (0, 1, 2))]
    assert set(ledger.table()["seconds"]) == {2.0}
    Sweep(grid, Ledger(tmp_path / "sweep.csv", grid), num_jobs, said.append).run()
    assert len(commands) == 2


def test_a_failure_is_noted_and_ends_nothing_else(grid, commands, tmp_path):
    (tmp_path / "broken").touch()
    ledger = Ledger(tmp_path / "sweep.csv", grid)
    Sweep(grid, ledger, 1, str).run()
    found = rows(ledger)
    for name in ("hipt_brca_mean_pool", "hipt_blca_mean_pool"):
        assert found[name, 0] == found[name, 2] == ("done", "")
        assert found[name, 1] == ("failed", "exit code 1: error: seed 1 has no data")
    # Mended, the same sweep runs what failed.
    (tmp_path / "broken").unlink()
    again = Ledger(tmp_path / "sweep.csv", grid)
    assert again.count(grid, "waiting") == 2
    Sweep(grid, again, 1, str).run()
    assert set(rows(again).values()) == {("done", "")}


def test_rows_of_other_sweeps_into_the_folder_stay(grid, tmp_path):
    Ledger(tmp_path / "sweep.csv", grid[:1])
    ledger = Ledger(tmp_path / "sweep.csv", grid[1:])
    assert {name for name, _ in rows(ledger)} == {"hipt_brca_mean_pool", "hipt_blca_mean_pool"}


def test_a_sweep_that_is_stopped_stops_its_processes(grid, commands, tmp_path, monkeypatch):
    slow = processes.command
    monkeypatch.setattr(processes, "command", lambda experiment, seeds: slow(experiment, seeds, wait=60.0))
    ledger = Ledger(tmp_path / "sweep.csv", grid)

    def interrupt():
        while len(commands) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Sweep(grid, ledger, 2, str).run()
    assert time.monotonic() - start < 30
    assert {status for status, _ in rows(ledger).values()} == {"stopped"}


def test_dry_run_says_what_would_run(capsys, tmp_path):
    sweep.main(
        ["--configs", PER_COHORT, "--cohorts", "brca", "--seeds", "2", "--out", str(tmp_path), "--dry-run"]
    )
    assert capsys.readouterr().out == (
        f"{tmp_path}/hipt_brca_mean_pool: configs/hipt.py:brca,mean_pool; variants full; seeds 0, 1\n"
    )
    assert not list(tmp_path.iterdir())
