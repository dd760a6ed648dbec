"""Folders of text encoders: they appear whole, replace only their kind, and notice changes."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modaltune_jax.convert import bert
from modaltune_jax.models.text import folder as folders
from modaltune_jax.models.text.bert_encoder import BertEncoder
from modaltune_jax.models.text.conch_encoder import ConchEncoder
from modaltune_jax.signals import Terminated
from modaltune_jax.targets import load_encoder
from modaltune_jax.types import InputError
from tests.text_models import SENTENCES, bert_tensors, write_bert


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("raw") / "raw", bert_tensors())


@pytest.fixture
def folder(raw, tmp_path):
    bert.convert(raw, tmp_path / "bert")
    return tmp_path / "bert"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_an_older_encoder_and_an_empty_folder_are_replaced(raw, folder, tmp_path):
    bert.convert(raw, folder, pooling="cls")
    assert BertEncoder(folder).pooling == "cls"
    (tmp_path / "empty").mkdir()
    bert.convert(raw, tmp_path / "empty")
    assert names(tmp_path) == ["bert", "empty"]
    assert (
        names(folder)
        == names(tmp_path / "empty")
        == ["model.safetensors", "text_encoder.json", "tokenizer.json"]
    )
    bert.convert(raw, tmp_path / "not" / "yet" / "there")
    assert BertEncoder(tmp_path / "not" / "yet" / "there").fingerprint == BertEncoder(raw).fingerprint


def test_whatever_else_is_there_stays(raw, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for path in (tmp_path / "thesis", tmp_path / "file", raw):
        with pytest.raises(InputError, match=f"{path} exists and is no folder of a text encoder"):
            bert.convert(raw, path)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    assert names(tmp_path) == ["file", "thesis"]


def test_a_failed_write_leaves_the_older_folder(raw, folder, tmp_path, monkeypatch):
    before = BertEncoder(folder).fingerprint

    def fail(*arguments, **named):
        raise OSError("disk full")

    monkeypatch.setattr(folders, "json", SimpleNamespace(dumps=fail, loads=json.loads))
    with pytest.raises(OSError, match="disk full"):
        bert.convert(raw, folder, pooling="cls")
    monkeypatch.undo()
    assert names(tmp_path) == ["bert"]
    assert BertEncoder(folder).fingerprint == before


@pytest.mark.parametrize(
    ("renames", "pooling"),
    [pytest.param(1, "mean", id="the older one is away"), pytest.param(2, "cls", id="the new one is there")],
)
def test_a_signal_while_one_replaces_the_other(raw, folder, tmp_path, monkeypatch, renames, pooling):
    rename, done = os.rename, []

    def terminated(source, target):
        rename(source, target)
        done.append(target)
        if len(done) == renames:
            raise Terminated

    monkeypatch.setattr(os, "rename", terminated)
    with pytest.raises(Terminated):
        bert.convert(raw, folder, pooling="cls")
    assert names(tmp_path) == ["bert"]
    assert BertEncoder(folder).pooling == pooling


def test_a_moved_folder_is_the_same_encoder(folder, tmp_path):
    before = load_encoder(folder)
    shutil.move(folder, tmp_path / "elsewhere")
    after = load_encoder(str(tmp_path / "elsewhere"))
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.encode(SENTENCES), before.encode(SENTENCES))


def edit(folder, **changes):
    path = folder / "text_encoder.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not None}))


def change_weights(folder):
    """One weight, the header left as it is."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def other_encoder(folder):
    raw = write_bert(folder.parent / "other_raw", bert_tensors(seed=1))
    bert.convert(raw, folder.parent / "other")
    os.replace(folder.parent / "other" / "model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            change_weights, r"model\.safetensors holds parameters with sha256 \w+ where", id="weight"
        ),
        pytest.param(other_encoder, r"does not hold the parameters with sha256 \w+ that", id="other weights"),
        pytest.param(
            lambda f: save_file(load_file(f / "model.safetensors"), f / "model.safetensors"),
            "does not hold the parameters",
            id="weights without header",
        ),
        pytest.param(
            lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors does not exist", id="none"
        ),
        pytest.param(
            lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing", id="no tokenizer"
        ),
        pytest.param(
            lambda f: (f / "tokenizer.json").write_text("{}"), "is no tokenizer", id="bad tokenizer"
        ),
        pytest.param(lambda f: (f / "text_encoder.json").write_text("{"), "is damaged", id="no JSON"),
        pytest.param(lambda f: edit(f, format=2), "of format 2 .* this version reads format 1", id="format"),
        pytest.param(lambda f: edit(f, kind="gpt"), "kind 'gpt'.* reads format 1 of bert, conch", id="kind"),
        pytest.param(lambda f: edit(f, pooling=None), "damaged .*'pooling'", id="no pooling"),
        pytest.param(lambda f: edit(f, pooling="last"), "pooling 'last' is unknown", id="pooling"),
        pytest.param(lambda f: edit(f, config={"width": 3}), r"text_encoder\.json is damaged", id="sizes"),
    ],
)
def test_changes_are_noticed(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        load_encoder(folder)


def test_a_folder_of_another_kind(folder):
    with pytest.raises(InputError, match="kind 'bert', not 'conch'"):
        ConchEncoder(folder)
    with pytest.raises(InputError, match=r"text_encoder\.json is missing"):
        ConchEncoder(folder.parent)


def test_fingerprint_names_pooling_norm_and_tokenizer(folder):
    seen = {load_encoder(folder).fingerprint}
    edit(folder, pooling="max")
    seen.add(load_encoder(folder).fingerprint)
    edit(folder, unit_norm=True)
    seen.add(load_encoder(folder).fingerprint)
    edit(folder, source={"file": "elsewhere.bin", "sha256": "0"})
    assert load_encoder(folder).fingerprint in seen
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"lung"', '"lungs"'))
    seen.add(load_encoder(folder).fingerprint)
    assert len(seen) == 4
