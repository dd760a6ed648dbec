"""CONCH's text tower against recorded numbers, through the converter; its masks; sentences end to end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from flax import nnx

from modaltune_jax.convert import conch as table
from modaltune_jax.models.text.bert_encoder import BertEncoder
from modaltune_jax.models.text.conch import ConchTextConfig
from modaltune_jax.models.text.conch_encoder import ConchEncoder
from modaltune_jax.models.text.folder import read_folder
from modaltune_jax.targets import TextEncoder, load_encoder
from modaltune_jax.types import InputError
from tests.golden import load, relative_error
from tests.text_models import (
    CONCH,
    CONCH_VOCAB,
    SENTENCES,
    conch_ids,
    conch_tensors,
    write_conch,
    write_conch_tokenizer,
)

MAX_IDS = CONCH["context_length"] - 1


def convert(directory, tensors=None, **changes):
    """The folder of a converted text tower."""
    source = write_conch(directory / "weights.safetensors", conch_tensors() if tensors is None else tensors)
    tokenizer = write_conch_tokenizer(directory / "words.json")
    arguments = {"tokenizer": tokenizer, "num_heads": CONCH["heads"]} | changes
    table.convert(source, directory / "conch", **arguments)
    return directory / "conch"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("conch"))


@pytest.fixture(scope="module")
def tower(folder):
    """The recorded text tower, from a published file by way of a folder."""
    return nnx.merge(*read_folder(folder).split())


@pytest.fixture(scope="module")
def recorded():
    arrays = load("conch_text")
    return arrays | {"ids": arrays["ids"][:, :-1].astype(np.int32)}


@functools.partial(jax.jit, static_argnums=0)
def jitted(graph, state, ids):
    return nnx.merge(graph, state)(ids)


def run(module, ids):
    return np.asarray(jitted(*nnx.split(module), jnp.asarray(ids, jnp.int32)))


def test_recorded_vectors(tower, recorded):
    pooled = run(tower, recorded["ids"])
    assert relative_error(pooled, recorded["pooled"]) < 1e-6
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert relative_error(unit, recorded["embedding"]) < 1e-6


def length(ids):
    return int(np.count_nonzero(ids))


def test_other_padding_and_single_sentences_give_the_same_vectors(tower, recorded):
    together = run(tower, recorded["ids"])
    for row, ids in enumerate(recorded["ids"]):
        for width in sorted({length(ids), min(length(ids) + 1, MAX_IDS), MAX_IDS}):
            np.testing.assert_allclose(run(tower, ids[None, :width])[0], together[row], rtol=0, atol=3e-6)


def with_params(tower, **changes):
    """The tower with some parameters replaced, given by their paths with `__` for dots."""
    graph, state = nnx.split(tower)
    flat = dict(nnx.to_flat_state(state))
    for name, change in changes.items():
        path = tuple(name.split("__"))
        flat[path] = flat[path].replace(change(np.array(flat[path][...])))
    return nnx.merge(graph, nnx.from_flat_state(flat.items()))


def set_row(row, value=9.0):
    def change(array):
        array[row] = value
        return jnp.asarray(array)

    return change


@pytest.mark.parametrize("row", range(5))
def test_the_class_embedding_sees_the_text_one_pad_and_no_other(tower, recorded, row):
    """Moves one position after the other; the recorded sentences have 1 to 15 of 15 ids."""
    ids = recorded["ids"][row : row + 1]
    expected, n = run(tower, ids), length(ids)
    for position in range(MAX_IDS):
        changed = run(with_params(tower, positional_embedding=set_row(position)), ids)
        is_seen = position <= n
        assert (np.abs(changed - expected).max() > 1e-3) == is_seen, (position, n)
    assert np.abs(run(with_params(tower, positional_embedding=set_row(-1)), ids) - expected).max() > 1e-3


def test_sizes_that_make_no_heads():
    sizes = {"vocab_size": 9, "context_length": 8, "width": 48, "depth": 1, "ffn_dim": 8, "out_dim": 4}
    with pytest.raises(InputError, match="width 48 must be a multiple of num_heads 0"):
        ConchTextConfig(**sizes, num_heads=48 // 64)
    with pytest.raises(InputError, match="width 48 must be a multiple of num_heads 5"):
        ConchTextConfig(**sizes, num_heads=5)


def by_hand(tower, sentence):
    """The unit vector of one sentence on the whole context, cut as published."""
    ids = conch_ids(sentence)
    ids = ids if len(ids) <= MAX_IDS else [*ids[: MAX_IDS - 1], 2]
    (vector,) = run(tower, [ids + [0] * (MAX_IDS - len(ids))])
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_sentences_end_to_end(folder, tower, batch_size):
    encoder = ConchEncoder(folder, batch_size=batch_size)
    assert isinstance(encoder, TextEncoder)
    sentences = [*SENTENCES, "LUNG Cancer"]
    vectors = encoder.encode(sentences)
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(sentences), encoder.dim))
    np.testing.assert_allclose(vectors, [by_hand(tower, s) for s in sentences], rtol=0, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(sentences[::-1]), vectors[::-1], rtol=0, atol=1e-6)
    assert encoder.encode([]).shape == (0, CONCH["output_dim"])


def test_sentences_beyond_the_context_are_cut_with_one_warning(folder, caplog):
    encoder = ConchEncoder(folder)
    fits = "lung " * (MAX_IDS - 2)
    logging.use_absl_handler()
    with caplog.at_level("WARNING", logger="absl"):
        inside = encoder.encode([fits, "lung"])
        assert not caplog.records
        cut = encoder.encode([fits + "breast", "lung", fits * 3])
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 3 sentences have more than 15 tokens")
    np.testing.assert_allclose(cut[[0, 2]], inside[[0, 0]], rtol=0, atol=1e-6)


def test_load_encoder_tells_kinds_of_folders_apart(folder):
    encoder = load_encoder(folder)
    assert isinstance(encoder, ConchEncoder)
    assert encoder.fingerprint == ConchEncoder(str(folder)).fingerprint
    with pytest.raises(InputError, match="kind 'conch', not 'bert'"):
        BertEncoder(folder)


def test_a_text_tower_knows_one_pooling(tmp_path):
    folder = convert(tmp_path)
    manifest = folder / "text_encoder.json"
    manifest.write_text(manifest.read_text().replace('"cls"', '"mean"'))
    with pytest.raises(InputError, match="conch: pooling 'mean' is unknown: choose one of cls"):
        load_encoder(folder)


def test_fingerprint_names_all_that_decides_the_vectors(folder, tmp_path):
    seen = {ConchEncoder(folder).fingerprint}

    def changed(name, tensors=None, **changes):
        (tmp_path / name).mkdir()
        return ConchEncoder(convert(tmp_path / name, tensors, **changes)).fingerprint

    assert changed("copy") in seen
    seen.add(changed("weights", conch_tensors(seed=1)))
    seen.add(changed("heads", num_heads=2))
    other = write_conch_tokenizer(tmp_path / "other.json", [*CONCH_VOCAB[:4], *CONCH_VOCAB[:3:-1]])
    seen.add(changed("tokenizer", tokenizer=other))
    assert len(seen) == 4
