"""Slides against words: scores beside single slides through the model, planted cases, what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from absl import logging
from flax import nnx
from safetensors.numpy import save_file
from sklearn.metrics import balanced_accuracy_score

from modaltune_jax import zero_shot
from modaltune_jax.convert import titan
from modaltune_jax.inputs.bags import join_slides, merge_cells, subsample
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.records import Records
from modaltune_jax.models.encoders.titan import Titan, TitanConfig
from modaltune_jax.types import InputError
from modaltune_jax.zero_shot_embed import cases_with_slides
from modaltune_jax.zero_shot_table import to_text

ROOT = Path(__file__).parents[1]

CONFIG = """
from configs import common, titan
from tests import tiny

def get_config(encoder="titan"):
    config = titan.get_config()
    tiny.shrink(config, "titan")
    config.data.source = "simulation"
    config.data.directory = "records"
    config.data.simulation.update(tiny.SIMULATION)
    config.data.simulation.missing_slides = 0.2
    config.encoder_weights.update({"init": "file", "path": "titan.safetensors"})
    if encoder != "titan":
        config.model.encoder = common.get_config().model.encoder
        tiny.shrink(config, encoder)
    return config
"""
SIZES = TitanConfig(
    in_dim=12, width=16, depth=2, num_heads=4, mlp_dim=32, pooler_heads=2, num_caption_queries=3
)
PROMPTS = """
templates = ["CLASSNAME.", "an image of CLASSNAME."]
[classes]
lobular = ["lobular carcinoma"]
ductal = ["ductal carcinoma", "duct cancer"]
"""
WORDS = {"lobular": ["lobular carcinoma"], "ductal": ["ductal carcinoma", "duct cancer"]}
COHORTS = {
    **dict.fromkeys(("brca", "rare", "bare"), ("ductal", "lobular")),
    "lung": ("ductal", "lobular", "squamous"),
}
FLAGS = ("--config=zero.py", "--text=words.npz", "--prompts=prompts.toml")


@pytest.fixture(scope="module")
def encoder() -> Titan:
    return Titan(SIZES, rngs=nnx.Rngs(3))


@pytest.fixture(scope="module")
def words() -> dict[str, np.ndarray]:
    """Vectors of any norm for the sentences of `PROMPTS`."""
    names = [name for group in WORDS.values() for name in group]
    sentences = [f"{start}{name}." for name in names for start in ("", "an image of ")]
    vectors = 5.0 * np.random.default_rng(0).normal(size=(len(sentences), SIZES.width)).astype(np.float32)
    return dict(zip(sentences, vectors, strict=True))


def write_words(path: Path, words: dict[str, np.ndarray]) -> None:
    np.savez(path, sentences=np.array(list(words)), vectors=np.stack(list(words.values())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder, words) -> Path:
    """A user's folder: config, published weights with text tower and all, prompts, a table of words."""
    folder = tmp_path_factory.mktemp("my slides")
    (folder / "zero.py").write_text(CONFIG)
    (folder / "prompts.toml").write_text(PROMPTS)
    write_words(folder / "words.npz", words)
    tensors = titan.to_tensors(nnx.to_pure_dict(nnx.state(encoder, nnx.Param)))
    public = {f"vision_encoder.{name}": np.array(value, order="C") for name, value in tensors.items()}
    save_file({**public, "text_encoder.x": np.ones(3, np.float32)}, folder / "titan.safetensors")
    return folder


@pytest.fixture(autouse=True)
def quiet():
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)


def rank(*flags: str) -> pd.DataFrame:
    """The table of a command in the working directory."""
    zero_shot.main([*FLAGS, "--split=all", "--out=out/new.csv", *flags])
    return pd.read_csv("out/new.csv")


@pytest.fixture(scope="module")
def ranked(folder) -> pd.DataFrame:
    """Every case, in the default batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return rank()


@pytest.fixture
def records(folder, ranked) -> Records:
    return Records(folder / "records")


def embed_alone(encoder: Titan, records: Records, row: int) -> np.ndarray:
    """A case by itself, neither padded nor batched."""
    bag = merge_cells(subsample(join_slides(records[row].slides, tile_size=1024, origin="slide"), 24))
    embedding = jax.jit(encoder)(bag.features[None], bag.cells[None], np.array([len(bag)], np.int32))
    return np.asarray(embedding, np.float64)[0]


def unit(vectors) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_scores_are_those_of_single_slides(ranked, records, encoder, words):
    assert ranked.columns.tolist() == ["case_id", "site", "split", "best", "lobular", "ductal"]
    row_of = {case: row for row, case in enumerate(records.table["case_id"])}
    vectors = [
        unit(np.mean([unit(words[f"{start}{n}."]) for n in names for start in ("", "an image of ")], axis=0))
        for names in WORDS.values()
    ]
    longest = int(np.argmax(records.lengths))
    assert records.lengths[longest] > 24, "one of them has more tiles than a bag may hold"
    for case in (ranked["case_id"][0], ranked["case_id"].iloc[-1], records.table["case_id"][longest]):
        expected = unit(embed_alone(encoder, records, row_of[case])) @ np.stack(vectors).T
        found = ranked.set_index("case_id").loc[case]
        np.testing.assert_allclose(found[["lobular", "ductal"]].astype(float), expected, atol=1e-5)
        assert found["best"] == ("lobular", "ductal")[int(expected.argmax())]
    assert ranked["lobular"].std() > 0.01


def test_cases_come_in_the_order_of_the_records_and_those_without_slides_are_named(
    ranked, records, folder, monkeypatch, capsys
):
    has_slides = records.table["num_tiles"] > 0
    assert 0 < sum(has_slides) < len(has_slides)
    for column in ("case_id", "site", "split"):
        assert ranked[column].tolist() == records.table.loc[has_slides, column].tolist()
    monkeypatch.chdir(folder)
    in_val = records.table["split"] == "val"
    assert len(rank("--split=val")) == sum(in_val & has_slides)
    without = ", ".join(records.table.loc[in_val & ~has_slides, "case_id"])
    assert f"left out, as they have no slides: {without}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("--config.pipeline.batch_size=1",), id="singles"),
        pytest.param(
            ("--config.pipeline.batch_size=7", "--config.pipeline.num_buckets=1"), id="much padding"
        ),
    ],
)
def test_batches_change_nothing(ranked, folder, monkeypatch, flags):
    monkeypatch.chdir(folder)
    pd.testing.assert_frame_equal(rank(*flags), ranked, rtol=0, atol=1e-6)


def test_the_case_whose_embedding_is_the_words_comes_first(ranked, records, encoder, folder, monkeypatch):
    monkeypatch.chdir(folder)
    rows = np.flatnonzero(records.lengths > 0)[[4, 30]]
    first, second = (embed_alone(encoder, records, int(row)) for row in rows)
    write_words(folder / "planted.npz", {"this one.": 9 * first, "that one.": 0.1 * second})
    Path("planted.toml").write_text(
        'templates = ["{} one."]\n[classes]\nfirst = ["this"]\nsecond = ["that"]\n'
    )
    table = rank("--text=planted.npz", "--prompts=planted.toml")
    for name, row in zip(("first", "second"), rows, strict=True):
        best = table.loc[table[name].idxmax()]
        assert best["case_id"] == records.table["case_id"][row]
        assert best["best"] == name
        assert best[name] == pytest.approx(1.0, abs=1e-5)


def test_a_temperature_makes_probabilities(ranked, folder, monkeypatch):
    monkeypatch.chdir(folder)
    probabilities = rank("--temperature=0.05")
    odds = np.exp((ranked["lobular"] - ranked["ductal"]) / 0.05)
    np.testing.assert_allclose(probabilities["lobular"], odds / (1 + odds), rtol=1e-4)
    np.testing.assert_allclose(probabilities["lobular"] + probabilities["ductal"], 1.0, rtol=1e-6)
    assert probabilities["best"].tolist() == ranked["best"].tolist()


def test_the_command(ranked, records, folder):
    """On two devices: the same scores, a table, nothing on stderr but the progress bar."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "modaltune_jax.zero_shot", *FLAGS],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(folder / "scores.csv")
    expected = ranked[ranked["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-6)
    assert not list(folder.glob(".scores.csv*"))

    assert f"best class of {len(expected)} cases by site" in done.stdout
    assert done.stdout.endswith("scores in scores.csv\n")
    breast = expected[expected["site"] == "sim_breast"]
    labels = records.table.set_index("case_id")["subtype"][breast["case_id"]]
    accuracy = balanced_accuracy_score(labels, breast["best"].map({"ductal": 0, "lobular": 1}))
    counts = rf"{sum(breast['best'] == 'lobular')} +{sum(breast['best'] == 'ductal')}"
    assert re.search(rf"sim_breast +{counts} +{accuracy:.3f} of {len(breast)} cases\n", done.stdout)
    assert re.search(r"sim_lung +\d+ +\d+ +-\n", done.stdout), "its cohort has other classes"
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip()]
    assert lines
    assert [line for line in lines if not line.startswith("embedding slides:")] == []


def test_accuracy_is_that_of_labelled_cases_where_the_classes_are_the_cohorts():
    specs = [CohortSpec(site, site, site, classes=classes) for site, classes in COHORTS.items()]
    cases = pd.DataFrame(
        [
            *[("brca", "ductal", 0), ("brca", "lobular", 0), ("brca", "lobular", 1), ("brca", "lobular", -1)],
            *[("rare", "ductal", 0), ("bare", "ductal", -1), ("lung", "ductal", 1)],
        ],
        columns=["site", "best", "subtype"],
    )
    assert to_text(cases, ["lobular", "ductal"], cases, specs).splitlines()[2:] == [
        "        lobular  ductal   balanced accuracy",
        "  brca        3       1    0.750 of 3 cases",
        "  rare        0       1  - (one class only)",
        "  bare        0       1         - (no case)",
        "  lung        0       1                   -",
    ]


def test_help_does_not_wait_for_jax():
    code = (
        "import sys; from modaltune_jax import zero_shot\n"
        "try: zero_shot.main(['--help'])\n"
        "finally: assert not {'jax', 'pandas', 'numpy.random'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("--config", "--text", "--prompts", "--split", "--temperature", "CLASSNAME", "titan-text"):
        assert word in done.stdout


@pytest.fixture
def refused(folder, ranked, monkeypatch, capsys):
    """Runs a command that must be refused, and gives its sentence; nothing may be written meanwhile."""

    def call(*flags: str) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["zero_shot", *flags])
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(SystemExit) as info:
            zero_shot.run()
        assert info.value.code == 2
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("error: ")
        return sentence

    return call


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        pytest.param(("--config.pipeline.batches=3",), "unknown config key", id="unknown key"),
        pytest.param(("--config=nowhere.py",), "'nowhere.py' does not exist", id="no config"),
        pytest.param(("--split=dev",), "'dev'", id="unknown split"),
        pytest.param(("--out=records",), "--out=records is a folder", id="a folder for a file"),
        pytest.param(("--out=zero.py/scores.csv",), "zero.py: File exists", id="a file for a folder"),
        pytest.param(("--temperature=0",), "give a positive number", id="temperature 0"),
        pytest.param(("--temperature=nan",), "give a positive number", id="temperature NaN"),
        pytest.param(("--temperature=warm",), "'warm'", id="temperature in words"),
        pytest.param(
            ("--config=zero.py:longnet",), "LongNet, whose embedding lies in no space", id="LongNet"
        ),
        pytest.param(("--config=zero.py:mean_pool",), "MeanPool, whose embedding lies", id="mean pool"),
        pytest.param(
            ("--config.encoder_weights.init=random",), "only published weights", id="random weights"
        ),
        pytest.param(("--config.encoder_weights.path=",), 'path="hf:titan"', id="no weights"),
        pytest.param(("--config.encoder_weights.path=t.pt",), "'t.pt' does not exist", id="weights absent"),
        pytest.param(("--config.model.encoder.mlp_dim=48",), "mlp.fc1", id="weights of another size"),
        pytest.param(
            ("--config.model.encoder.in_dim=7",), "12 wide, but the slide encoder takes 7", id="width"
        ),
        pytest.param(("--config.mesh.data=64",), "mesh.data=64", id="devices"),
        pytest.param(("--text=nowhere",), "--text: ", id="no text tower"),
        pytest.param(
            ("--text=narrow.npz",), "width 8, but projected slide embeddings are 16", id="text width"
        ),
        pytest.param(
            ("--text=one.npz",), "one.npz has no vector for sentence", id="sentence not in the table"
        ),
    ],
)
def test_wrong_input_is_refused_and_writes_nothing(refused, folder, words, flags, part):
    write_words(folder / "narrow.npz", {sentence: vector[:8] for sentence, vector in words.items()})
    write_words(folder / "one.npz", dict([*words.items()][:1]))
    assert part in refused(*FLAGS, *flags)


@pytest.mark.parametrize("flag", ["--config", "--text", "--prompts"])
def test_flags_that_are_needed(refused, flag):
    assert f"required: {flag}" in refused(*(given for given in FLAGS if not given.startswith(flag)))


CLASSES = '[classes]\na = ["b"]\n'


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param(None, "does not exist", id="absent"),
        pytest.param("templates = [", "is not TOML", id="not TOML"),
        pytest.param("", "missing keys ['templates', 'classes']", id="empty"),
        pytest.param('template = ["{}"]\n' + CLASSES, "unknown keys ['template']", id="unknown key"),
        pytest.param('templates = ["{}"]\nclasses = ["a"]', "classes is ['a']", id="classes in a list"),
        pytest.param('templates = ["{}"]\n[classes]', "there are no classes", id="no classes"),
        pytest.param("templates = []\n" + CLASSES, "'templates' is []", id="no templates"),
        pytest.param(
            'templates = []\n[classes]\ntemplates = ["b"]', "'templates' is []", id="a class so called"
        ),
        pytest.param('templates = "{}"\n' + CLASSES, "'templates' is '{}'", id="a text for a list"),
        pytest.param('templates = ["a"]\n' + CLASSES, "template 'a' has no place", id="no place for a name"),
        pytest.param('templates = ["{}"]\n[classes]\na = []', "'a' is []", id="no names"),
        pytest.param('templates = ["{}"]\n[classes]\na = [" "]', "none empty", id="an empty name"),
        pytest.param('templates = ["{}"]\n[classes]\na = [1]', "'a' is [1]", id="a number"),
        pytest.param('templates = ["{}"]\n[classes]\nbest = ["b"]', "class 'best'", id="name of a column"),
    ],
)
def test_prompts_that_cannot_be_read(tmp_path, text, part):
    path = tmp_path / "prompts.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as info:
        zero_shot.read_prompts(path)
    assert part in str(info.value)
    assert str(path) in str(info.value)


def test_prompts_in_another_encoding(tmp_path):
    path = tmp_path / "prompts.toml"
    path.write_bytes(b'templates = ["{} \xe9"]')
    with pytest.raises(InputError, match=r"prompts\.toml is not TOML"):
        zero_shot.read_prompts(path)


def test_a_split_without_slides(records):
    records.lengths = np.where(records.table["split"] == "val", 0, records.lengths)
    assert len(cases_with_slides(records, "test", 12)[0]) > 0
    with pytest.raises(InputError, match="--split=val, and none of them has slides"):
        cases_with_slides(records, "val", 12)
