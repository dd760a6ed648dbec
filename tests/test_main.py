"""The command line: what it prints and writes, how it goes on after a stop, what it says to wrong input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import modaltune_jax
from modaltune_jax import command, main
from modaltune_jax.monitor import Monitor, read_metrics
from tests import small

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder, with a space in its name."""
    return small.make_folder(tmp_path_factory.mktemp("my data"))


def start(folder: Path, *flags: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder / "home")}
    return subprocess.Popen(
        [sys.executable, "-m", "modaltune_jax.main", *flags],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    process = start(folder, *flags)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(flags, process.returncode, out, err)


@pytest.fixture(scope="module")
def finished(folder) -> subprocess.CompletedProcess:
    """A whole run in the default workdir, runs/tiny."""
    done = run(folder, "--config=small.py")
    assert done.returncode == 0, done.stderr
    return done


def table_of(out: str) -> str:
    return out[out.index("subtype: balanced accuracy") :]


def test_a_run_prints_its_table_and_writes_its_files(folder, finished):
    assert "80 cases of 4 sites" in finished.stdout
    assert "epoch 8: val subtype" in finished.stdout
    assert "runs/tiny/full/seed0: best checkpoint at epoch" in finished.stdout
    for line in (
        "subtype: balanced accuracy on test",
        "survival: Harrell's c on test",
        "site: balanced accuracy",
    ):
        assert line in finished.stdout
    workdir = folder / "runs/tiny"
    assert {path.name for path in workdir.iterdir()} == {
        *("full", "manifest.json", "results.csv", "results.json", "results.png")
    }
    assert {path.name for path in (workdir / "full/seed0").iterdir()} == {
        *("case_scores.csv", "checkpoints", "config.json", "embeddings.npz", "manifest.json"),
        *("metrics.jsonl", "probes.csv", "probes.json", "probes_val.csv", "tensorboard", "training.png"),
    }
    results = pd.read_csv(workdir / "results.csv")
    overall = results[(results.split == "test") & (results.site == "overall")].set_index("target")["value"]
    for target in ("subtype", "survival", "site"):
        assert f"{overall[target]:.3f}" in table_of(finished.stdout)
    assert json.loads((workdir / "full/seed0/config.json").read_text())["optim"]["epochs"] == 8


def test_nothing_but_the_progress_bar_is_on_stderr(finished):
    lines = [line for line in re.split(r"[\r\n]+", finished.stderr) if line.strip()]
    assert lines
    assert [line for line in lines if not line.startswith("full/seed0:")] == []


def test_the_same_command_again_trains_nothing(folder, finished):
    workdir = folder / "runs/tiny"
    before = {path: path.stat().st_mtime_ns for path in (workdir / "full").rglob("*")}
    results = (workdir / "results.csv").read_bytes()
    again = run(folder, "--config=small.py")
    assert again.returncode == 0
    assert "full/seed0 is finished" in again.stdout
    assert table_of(again.stdout) == table_of(finished.stdout)
    assert {path: path.stat().st_mtime_ns for path in (workdir / "full").rglob("*")} == before
    assert (workdir / "results.csv").read_bytes() == results
    assert again.stderr == ""


def test_evaluate_gives_the_same_table(folder, finished, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    main.main(["--config=small.py", "--mode=evaluate"])
    assert table_of(capsys.readouterr().out) == table_of(finished.stdout)


def embeddings(workdir: Path) -> np.ndarray:
    with np.load(workdir / "full/seed0/embeddings.npz") as file:
        return file["embeddings"]


def metrics(workdir: Path) -> list[dict]:
    """The log, without how fast it was."""
    rows = read_metrics(workdir / "full/seed0/metrics.jsonl")
    return [{key: value for key, value in row.items() if "per_second" not in key} for row in rows]


def wait_for_checkpoint(process: subprocess.Popen, workdir: Path) -> None:
    latest = workdir / "full/seed0/checkpoints/latest"
    while process.poll() is None:
        if any(path.name.isdigit() for path in latest.glob("*")):
            return
        time.sleep(0.02)
    raise AssertionError(f"ended before it could be stopped: {process.communicate()}")


def test_a_run_that_was_stopped_twice_ends_like_one_that_was_not(folder, finished, capfd, monkeypatch):
    """Killed, then stopped with SIGTERM within an epoch, then evaluated as it is, then run to its end."""
    workdir = folder / "stopped"
    flags = ["--config=small.py", "--workdir=stopped"]
    process = start(folder, *flags)
    wait_for_checkpoint(process, workdir)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    def terminated(self, step, values):
        if step == 45:
            signal.raise_signal(signal.SIGTERM)
        train(self, step, values)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["main", *flags])
    train = Monitor.train
    monkeypatch.setattr(Monitor, "train", terminated)
    with pytest.raises(SystemExit) as end:
        main.run()
    assert end.value.code == 0
    assert capfd.readouterr().err.splitlines()[-1] == (
        "stopped after step 45 of 48 and saved in stopped/full/seed0: the same command goes on from there"
    )
    assert metrics(workdir)[-1]["step"] == 45

    monkeypatch.setattr(Monitor, "train", train)
    main.main([*flags, "--mode=evaluate"])
    assert not (workdir / "full/seed0/probes.csv").exists(), "an evaluation does not make a run finished"

    capfd.readouterr()
    main.main(flags)
    out = capfd.readouterr().out
    assert table_of(out).partition("results in")[0] == table_of(finished.stdout).partition("results in")[0]
    np.testing.assert_array_equal(embeddings(workdir), embeddings(folder / "runs/tiny"))
    assert metrics(workdir) == metrics(folder / "runs/tiny")


def test_a_seed_that_is_added_leaves_the_first_as_it_is(folder, finished, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.copytree("runs/tiny", "seeds")
    before = embeddings(folder / "seeds")
    main.main(["--config=small.py", "--workdir=seeds", "--config.seeds=0,1", "--config.pipeline.prefetch=2"])
    out = capsys.readouterr().out
    assert "seeds/full/seed0 is finished" in out
    assert "balanced accuracy on test, 2 seeds" in out
    assert "±" in out
    np.testing.assert_array_equal(embeddings(folder / "seeds"), before)
    assert (folder / "seeds/full/seed1/probes.csv").exists()


@pytest.mark.parametrize(
    ("flag", "pattern"),
    [
        pytest.param("--config.optim.epoch=3", "unknown config key", id="unknown key"),
        pytest.param("--colour", "unrecognized arguments: --colour", id="unknown flag"),
    ],
)
def test_wrong_input_is_one_sentence_on_stderr_and_exit_code_2(folder, flag, pattern):
    done = run(folder, "--config=small.py", flag, "--workdir=refused")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: [^\n]*{pattern}[^\n]*\n", done.stderr)
    assert done.stdout == ""
    assert not (folder / "refused").exists()


def test_help_and_version_do_not_wait_for_jax():
    code = (
        "import sys; from modaltune_jax import main\n"
        "try: main.main([sys.argv[1]])\n"
        "finally: assert not {'jax', 'pandas', 'numpy.random'} & set(sys.modules)"
    )
    out = {}
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, flag], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out[flag] = done.stdout
    assert out["--version"] == f"modaltune_jax {modaltune_jax.__version__}\n"
    for word in ("--config", "--workdir", "--mode", "--config.optim.epochs=20", "pancancer.py"):
        assert word in out["--help"]


@pytest.mark.parametrize("given", [None, "/somewhere/else"])
def test_compilations_are_kept(monkeypatch, given):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    if given:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    command.prepare_jax(-1)
    expected = given or "/home/somebody/.cache/modaltune_jax/xla"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == expected
