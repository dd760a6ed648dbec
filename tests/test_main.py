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
from absl import logging

import modaltune_jax
from modaltune_jax import main
from modaltune_jax.inputs.records import Records
from modaltune_jax.types import InputError
from tests import tiny

ROOT = Path(__file__).parents[1]

# One stage, one bucket: a quarter of the time that `tiny` takes to compile.
CONFIG = """
from pathlib import Path
from tests import tiny

def get_config(extra=""):
    config = tiny.config_dict(Path(__file__).parent, "mean_pool")
    config.model.adapter.update({"stages": ((0, 3),), "num_extra_extractors": 0})
    config.pipeline.num_buckets = 1
    config.optim.update({"epochs": 8, "warmup_epochs": 1})
    if extra:
        config.optim[extra] = 3
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder, with a space in its name: a config, and its data once they are made."""
    folder = tmp_path_factory.mktemp("my data")
    (folder / "small.py").write_text(CONFIG)
    tiny.config_dict(folder, "mean_pool")
    return folder


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


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


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
    assert {path.name for path in workdir.iterdir()} == {"full", "results.csv", "results.json", "results.png"}
    assert {path.name for path in (workdir / "full/seed0").iterdir()} == {
        *("checkpoints", "config.json", "embeddings.npz", "metrics.jsonl", "probes.csv", "probes.json"),
        *("probes_val.csv", "tensorboard", "training.png"),
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


def wait_for_checkpoint(process: subprocess.Popen, workdir: Path, *, after: int = 0) -> int:
    """Waits for a whole checkpoint beyond a step, and returns its step."""
    latest = workdir / "full/seed0/checkpoints/latest"
    while process.poll() is None:
        steps = [int(path.name) for path in latest.glob("*") if path.name.isdigit()]
        if max(steps, default=0) > after:
            return max(steps)
        time.sleep(0.02)
    raise AssertionError(f"ended before it could be stopped: {process.communicate()}")


def test_a_run_that_was_stopped_twice_ends_like_one_that_was_not(folder, finished, capsys, monkeypatch):
    """Killed, then evaluated as it is, then stopped with Ctrl-C, then run to its end."""
    workdir = folder / "stopped"
    flags = ("--config=small.py", "--workdir=stopped")
    process = start(folder, *flags)
    step = wait_for_checkpoint(process, workdir)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    monkeypatch.chdir(folder)
    main.main([*flags, "--mode=evaluate"])
    capsys.readouterr()
    assert not (workdir / "full/seed0/probes.csv").exists(), "an evaluation does not make a run finished"

    process = start(folder, *flags)
    wait_for_checkpoint(process, workdir, after=step)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped: the same command goes on from the last checkpoint"
    assert "Traceback" not in err

    last = run(folder, *flags)
    assert last.returncode == 0, last.stderr
    assert (
        table_of(last.stdout).partition("results in")[0]
        == table_of(finished.stdout).partition("results in")[0]
    )
    np.testing.assert_array_equal(embeddings(workdir), embeddings(folder / "runs/tiny"))
    steps = [
        json.loads(line)["step"]
        for line in (workdir / "full/seed0/metrics.jsonl").read_text().splitlines()
        if "train/loss" in line
    ]
    assert steps == sorted(set(steps))


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


# Wrong input.


@pytest.fixture
def quiet():
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)


@pytest.fixture
def refused(folder, monkeypatch, quiet, capsys):
    """Runs a command that must be refused, and gives its sentence; nothing may be written meanwhile."""

    def call(*flags: str) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["modaltune", *flags])
        before = files_below(folder)
        with pytest.raises(SystemExit) as info:
            main.run()
        assert info.value.code == 2
        assert files_below(folder) == before
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("error: ")
        assert len(sentence) > 30
        return sentence

    return call


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        pytest.param([], ["required: --config"], id="no config"),
        pytest.param(
            ["--config=nowhere.py"], ["'nowhere.py' does not exist", "pancancer.py"], id="no such file"
        ),
        pytest.param(["--config=runs"], ["'runs' does not exist"], id="a folder for a file"),
        pytest.param(["--config=configs/pancancer.py:big"], ["'demo'", "'big'"], id="no such variant"),
        pytest.param(["--config=small.py", "--epochs=3"], ["--epochs=3", "--help"], id="unknown flag"),
        pytest.param(["--config=small.py", "demo"], ["demo"], id="a word too much"),
        pytest.param(["--config=small.py", "--mode=test"], ["'test'", "evaluate"], id="unknown mode"),
        pytest.param(["--config=small.py", "--verbosity=much"], ["'much'"], id="verbosity"),
        pytest.param(
            ["--config=small.py", "--config.optim.epoch=3"],
            ["unknown config key config.optim.epoch", "config.optim.epochs"],
            id="unknown key on the command line",
        ),
        pytest.param(
            ["--config=small.py:epoch"],
            ["unknown config key config.optim.epoch", "config.optim.epochs"],
            id="unknown key in the file",
        ),
        pytest.param(
            ["--config=small.py", "--config.optim.epochs=many"], ["config.optim.epochs", "'many'"], id="type"
        ),
        pytest.param(
            ["--config=small.py", "--config.data.source=zarr"], ["'zarr'", "tcga_bench"], id="unknown source"
        ),
        pytest.param(
            ["--config=small.py", "--config.data.source=records", "--config.data.directory=no/records"],
            ["no/records"],
            id="missing records",
        ),
        pytest.param(
            [
                *("--config=small.py", "--config.data.source=tcga_bench", "--config.data.directory=new"),
                *(
                    "--config.data.path=no/tables",
                    "--config.data.cohorts=brca",
                    "--config.data.expression=own",
                ),
            ],
            ["no/tables"],
            id="missing data folder",
        ),
        pytest.param(
            [
                *("--config=small.py", "--config.data.source=tcga_bench", "--config.data.directory=new"),
                *("--config.data.cohorts=prostate", "--config.data.expression=own"),
            ],
            ["prostate"],
            id="unknown cohort",
        ),
        pytest.param(
            ["--config=small.py", "--config.model.encoder.in_dim=1536"],
            ["12 wide", "1536"],
            id="feature width of another encoder",
        ),
        pytest.param(
            [
                "--config=small.py",
                "--config.encoder_weights.init=file",
                "--config.encoder_weights.path=w.safetensors",
            ],
            ["w.safetensors", "encoder_weights.path"],
            id="encoder weights absent",
        ),
        pytest.param(
            ["--config=small.py", "--config.text.encoder=bert"],
            ["'bert'", "minilm"],
            id="unknown text encoder",
        ),
        pytest.param(
            ["--config=small.py", "--config.text.encoder=no.npz"],
            ["no.npz"],
            id="missing table of text vectors",
        ),
        pytest.param(
            ["--config=small.py", "--mode=evaluate", "--workdir=none"],
            ["none/full/seed0 holds no checkpoint"],
            id="evaluate without a checkpoint",
        ),
        pytest.param(["--config=small.py", "--config.mesh.data=64"], ["mesh.data=64"], id="devices"),
        pytest.param(
            ["--config=small.py", "--config.optim.rules=(('^adapter/','train'),)"],
            ["optim.rules", "add a pattern"],
            id="rules that leave parameters out",
        ),
    ],
)
def test_wrong_input_is_refused_and_writes_nothing(refused, flags, parts):
    # "runs/tiny" is of another config by now.
    elsewhere = [] if "--workdir=none" in flags or not flags else ["--workdir=new"]
    message = refused(*flags, *elsewhere)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        pytest.param("--config.optim.learning_rate=0.5", "optim.learning_rate=0.001", id="optimiser"),
        pytest.param(
            "--config.compare=(('full',('slides',)),)", "compare=['slides', 'expression']", id="variant"
        ),
        pytest.param("--config.model.fusion=cat", "model.fusion='sum'", id="model"),
    ],
)
def test_a_workdir_of_another_config_is_refused(refused, finished, flag, part):
    message = refused("--config=small.py", flag)
    assert "runs/tiny/full/seed0 was trained with" in message
    assert part in message


def test_a_workdir_that_cannot_be_made_is_refused(refused, folder):
    (folder / "a_file").write_text("")
    message = refused("--config=small.py", "--workdir=a_file/run")
    assert "a_file/run" in message
    assert "Not a directory" in message


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


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        pytest.param(InputError("one\nsentence"), 2, "error: one sentence", id="wrong input"),
        pytest.param(
            PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied", id="disk"
        ),
        pytest.param(FloatingPointError("loss is nan"), 1, "error: loss is nan", id="divergence"),
        pytest.param(KeyboardInterrupt(), 130, "stopped: the same command goes on", id="Ctrl-C"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, sentence):
    def fail(arguments):
        raise error

    monkeypatch.setattr(main, "main", fail)
    with pytest.raises(SystemExit) as info:
        main.run()
    assert info.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(sentence)


@pytest.mark.parametrize("error", [ValueError("a fault of ours"), OSError("without a file")])
def test_our_own_faults_keep_their_traceback(monkeypatch, error):
    def fail(arguments):
        raise error

    monkeypatch.setattr(main, "main", fail)
    with pytest.raises(type(error)):
        main.run()


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
def test_compilations_are_kept(monkeypatch, quiet, given):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    if given:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    main._prepare_jax(-1)
    expected = given or "/home/somebody/.cache/modaltune_jax/xla"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == expected


# Wrong data, in the layout of the TCGA benchmark.

GENES = [f"G{i}" for i in range(8)]


def write_tables(root: Path, *, scale: float = 0.1, twice: bool = False, empty: bool = False) -> None:
    """A cohort of thirty cases with one slide of four regions each."""
    for name in ("splits", "wsi_hipt", "rna"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = [f"C{i:02d}" for i in range(30)]
    splits = pd.DataFrame(
        {
            "case_id": ids,
            "split": ["train", "train", "train", "val", "test"] * 6,
            "primary_class": [i // 5 % 2 for i in range(30)],
            "primary_diagnosis": [
                ("infiltrating duct", "lobular")[i // 5 % 2] + " carcinoma" for i in range(30)
            ],
            "vital_status": 1,
            "durations_months": rng.exponential(20.0, 30).round(2),
            **dict.fromkeys(("stage", "T", "N", "M", "age"), ""),
            "slide_ids": [f"{id}-DX1" for id in ids],
        }
    )
    if twice:
        splits = pd.concat([splits, splits.iloc[:1].assign(split="test")])
    splits.to_csv(root / "splits/brca.csv", index=False)
    num_regions = np.full(30, 4, np.int32)
    num_regions[7] = 0 if empty else 4
    np.savez(
        root / "wsi_hipt/brca.npz",
        q=rng.integers(0, 255, (num_regions.sum(), 12), np.uint8),
        scale=np.full(12, scale, np.float32),
        lo=np.full(12, -12.0, np.float32),
        start=np.cumsum(num_regions, dtype=np.int32) - num_regions,
        n=num_regions,
        slide=np.asarray(splits["slide_ids"][:30].tolist()),
    )
    expression = pd.DataFrame(rng.normal(size=(30, 8)).astype(np.float16), columns=GENES)
    expression.insert(0, "case_id", ids)
    expression.to_parquet(root / "rna/brca.parquet")
    pd.DataFrame({"pathway": ["P"] * 4 + ["Q"] * 4, "gene": GENES}).to_csv(root / "pathways.csv", index=False)


def table_flags(root: str) -> list[str]:
    values = {
        "data.source": "tcga_bench",
        "data.directory": f"{root}/records",
        "data.path": f"{root}/tables",
        "data.cohorts": "brca",
        "data.expression": "own",
        "data.gene_sets": "pathways.csv",
        "text.encoder": f"{root}/sentences.npz",
        "optim.epochs": 2,
    }
    return ["--config=small.py", f"--workdir={root}/run", *(f"--config.{k}={v}" for k, v in values.items())]


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        pytest.param(
            {"scale": np.nan}, ["case C00, slide C00-DX1", "NaN"], id="features that are not numbers"
        ),
        pytest.param({"twice": True}, ["case C00", "both train and test"], id="case in two splits"),
    ],
)
def test_wrong_data_are_refused_before_records_are_written(refused, folder, tmp_path, fault, parts):
    write_tables(tmp_path / "tables", **fault)
    message = refused(*table_flags(str(tmp_path)))
    assert [part for part in parts if part not in message] == []
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_an_empty_bag_is_kept_masked_and_warned(folder, tmp_path, monkeypatch, caplog, capsys, quiet):
    monkeypatch.chdir(folder)
    write_tables(tmp_path / "tables", empty=True)
    flags = table_flags(str(tmp_path))
    # Makes the records, from which the text vectors are made.
    with pytest.raises(InputError, match=r"sentences\.npz"):
        main.main(flags)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["case C07, slide C07-DX1: has no tiles; kept as empty"]
    records = Records(tmp_path / "records")
    tiny.write_text_vectors(records, tmp_path / "sentences.npz")

    main.main(flags)
    assert "brca: train 18  val 6  test 6; without slides 1" in capsys.readouterr().out
    values = embeddings(tmp_path / "run")
    assert np.isfinite(values).all(), "the case without tiles has its embedding from expression"
    assert len(np.unique(values[:, 0], axis=0)) == 30
