"""Wrong input from the command line: one sentence, exit code 2, nothing half-written."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl import logging

from modaltune_jax import config_file, main
from modaltune_jax.config import describe, unpack
from modaltune_jax.inputs.records import Records
from modaltune_jax.types import InputError
from tests import small, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder, with a space in its name."""
    return small.make_folder(tmp_path_factory.mktemp("my data"))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


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
        pytest.param(["--config=records"], ["'records' does not exist"], id="a folder for a file"),
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
            ["MeanPoolConfig", 'encoder_weights.init="random"'],
            id="weights of an encoder that has none",
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
    message = refused(*flags)
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
def test_a_workdir_of_another_config_is_refused(refused, folder, flag, part):
    config = unpack(config_file.load(str(folder / "small.py")))
    run = folder / "other/full/seed0"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(describe(config)))
    message = refused("--config=small.py", "--workdir=other", flag)
    assert "other/full/seed0 was trained with" in message
    assert part in message


@pytest.mark.parametrize(
    ("before", "part"),
    [
        pytest.param({"age": 3}, "which has the key config.age", id="key that is gone"),
        pytest.param({"loss": {}}, "which lacks the key config.loss.cox.memory", id="key that is new"),
    ],
)
def test_a_workdir_of_another_version_is_refused(refused, folder, before, part):
    described = describe(unpack(config_file.load(str(folder / "small.py"))))
    run = folder / "older/full/seed0"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({**described, **before}))
    message = refused("--config=small.py", "--workdir=older")
    assert f"another version of this package, {part}" in message


def test_a_workdir_with_a_damaged_config_is_refused(refused, folder):
    run = folder / "damaged/full/seed0"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"name": ')
    assert "damaged/full/seed0/config.json is damaged" in refused("--config=small.py", "--workdir=damaged")


def test_a_workdir_that_cannot_be_made_is_refused(refused, folder):
    (folder / "a_file").write_text("")
    message = refused("--config=small.py", "--workdir=a_file/run")
    assert "a_file/run" in message
    assert "Not a directory" in message


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
    with np.load(tmp_path / "run/full/seed0/embeddings.npz") as file:
        values = file["embeddings"]
    assert np.isfinite(values).all(), "the case without tiles has its embedding from expression"
    assert len(np.unique(values[:, 0], axis=0)) == 30
