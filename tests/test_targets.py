"""Projector against recorded numbers; targets, their cache, tables of vectors, and what they refuse."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import targets
from modaltune_jax.models.text.table import TableEncoder
from modaltune_jax.targets import Projector, build_targets, load_encoder
from modaltune_jax.types import InputError
from tests import golden

CASES = [("a b", "a", "b"), ("a c", "a", "c"), ("a b", "a", "b")]


class CountingEncoder:
    """Vectors drawn from the text itself; remembers what it was asked."""

    dim = 5

    def __init__(self, name="one"):
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.asked = []

    def encode(self, sentences):
        self.asked += sentences
        seeds = [int.from_bytes(hashlib.sha256(s.encode()).digest()[:4], "big") for s in sentences]
        rows = [np.random.default_rng(seed).normal(size=self.dim) for seed in seeds]
        return np.array(rows, np.float32).reshape(len(sentences), self.dim)


def test_projector_equals_the_recorded_one():
    arrays = golden.load("modaltune_gigapath_avg_sum")
    weights = {name: value.squeeze() for name, value in golden.weights(arrays, "projector/").items()}
    projector = Projector(
        kernel1=weights["0.weight"].T,
        bias1=weights["0.bias"],
        scale=weights["1.weight"],
        offset=weights["1.bias"],
        kernel2=weights["3.weight"].T,
        bias2=weights["3.bias"],
    )
    bags = [name.removeprefix("text/") for name in arrays if name.startswith("text/")]
    assert len(bags) == 3
    for bag in bags:
        projected = projector(arrays[f"text/{bag}"])
        assert projected.dtype == np.float32
        # eps 1e-6 in the LayerNorm instead of 1e-5 would be off by 7e-7.
        assert golden.relative_error(projected, arrays[f"text_projected/{bag}"]) < 2e-7


def test_projector_is_named_by_its_seed():
    projector = Projector.init(0, 512)
    again, other = Projector.init(0, 512), Projector.init(1, 512)
    for name, value in projector.to_dict().items():
        np.testing.assert_array_equal(value, again.to_dict()[name])
        assert value.dtype == np.float32
    assert np.abs(projector.kernel1 - other.kernel1).max() > 0.01
    # Pinned: a seed stands for a target space, whatever the version of numpy.
    np.testing.assert_allclose(projector.kernel1[0, :3], [0.01210582, -0.02034817, -0.04057259], rtol=1e-6)


def test_projector_is_initialised_as_torch_does():
    projector = Projector.init(3, 400, 64)
    shapes = {name: value.shape for name, value in projector.to_dict().items()}
    assert shapes == {
        "kernel1": (400, 64),
        "bias1": (64,),
        "scale": (64,),
        "offset": (64,),
        "kernel2": (64, 64),
        "bias2": (64,),
    }
    for value, bound in [(projector.kernel1, 1 / 20), (projector.kernel2, 1 / 8), (projector.bias2, 1 / 8)]:
        assert 0.9 * bound < np.abs(value).max() <= np.float32(bound)
        assert abs(value.mean()) < 0.2 * bound
    assert np.abs(projector.bias1).max() <= np.float32(1 / 20)
    np.testing.assert_array_equal(projector.scale, 1.0)
    np.testing.assert_array_equal(projector.offset, 0.0)


def test_projector_through_a_dict():
    projector = Projector.init(0, 5, 4)
    text = np.random.default_rng(0).normal(size=(2, 3, 5))
    restored = Projector.from_dict(projector.to_dict())
    np.testing.assert_array_equal(restored(text), projector(text))


def test_each_distinct_sentence_is_encoded_once_and_lands_in_its_place(tmp_path):
    encoder, projector = CountingEncoder(), Projector.init(0, 5, 8)
    result = build_targets(CASES, encoder, projector)
    assert sorted(encoder.asked) == ["a", "a b", "a c", "b", "c"]
    assert (result.shape, result.dtype) == ((3, 3, 8), np.float32)
    for row, case in enumerate(CASES):
        for task, sentence in enumerate(case):
            np.testing.assert_array_equal(result[row, task], projector(encoder.encode([sentence]))[0])


def test_cache(tmp_path):
    encoder, projector = CountingEncoder(), Projector.init(0, 5, 8)
    fresh = build_targets(CASES, encoder, projector, tmp_path / "new")
    (file,) = (tmp_path / "new").iterdir()
    encoder.asked.clear()
    np.testing.assert_array_equal(build_targets(CASES, encoder, projector, tmp_path / "new"), fresh)
    np.testing.assert_array_equal(
        build_targets(CASES[::-1], encoder, projector, tmp_path / "new"), fresh[::-1]
    )
    assert encoder.asked == []

    # Another projector shares the text vectors; another encoder or sentence does not.
    other = Projector.init(1, 5, 8)
    np.testing.assert_array_equal(
        build_targets(CASES, encoder, other, tmp_path / "new"), build_targets(CASES, CountingEncoder(), other)
    )
    assert encoder.asked == []
    build_targets(CASES[:1], encoder, projector, tmp_path / "new")
    assert sorted(encoder.asked) == ["a", "a b", "b"]
    stranger = CountingEncoder("two")
    build_targets(CASES, stranger, projector, tmp_path / "new")
    assert len(stranger.asked) == 5
    assert len(list((tmp_path / "new").iterdir())) == 3

    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match=f"{file} is damaged .*: delete it"):
        build_targets(CASES, encoder, projector, tmp_path / "new")
    np.savez(file, vectors=np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match=r"holds shape \(2, 5\) instead of \(5, 5\): delete it"):
        build_targets(CASES, encoder, projector, tmp_path / "new")


def test_a_failed_write_leaves_no_cache_file(tmp_path, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(targets.np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        build_targets(CASES, CountingEncoder(), Projector.init(0, 5, 8), tmp_path)
    assert not list(tmp_path.glob("text-*.npz"))


def test_projector_of_another_width_is_refused():
    with pytest.raises(InputError, match="projector takes text vectors of width 6, the text encoder gives 5"):
        build_targets(CASES, CountingEncoder(), Projector.init(0, 6, 8))


def write_table(path, sentences, vectors):
    if path.suffix == ".npz":
        np.savez(path, sentences=np.array(sentences), vectors=vectors)
    else:
        pd.DataFrame({"sentence": sentences, "vector": list(vectors)}).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_table_of_vectors(tmp_path, suffix):
    sentences, vectors = ["a", "b; Ünïcode"], np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    path = write_table(tmp_path / f"table{suffix}", sentences, vectors)
    encoder = load_encoder(path)
    assert isinstance(encoder, TableEncoder)
    assert encoder.dim == 7
    assert encoder.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(encoder.encode(["b; Ünïcode", "a", "a"]), vectors[[1, 0, 0]])
    with pytest.raises(InputError, match=f"{path} has no vector for sentence 'c': add what"):
        encoder.encode(["a", "c"])


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize(
    ("sentences", "vectors", "message"),
    [
        pytest.param(["a", "b", "a"], np.eye(3), "sentence 'a' is there twice", id="twice"),
        pytest.param(["a", "b"], [[1.0, 2.0], [np.nan, 1.0]], "vector of 'b' is not finite", id="NaN"),
    ],
)
def test_table_with_bad_rows(tmp_path, suffix, sentences, vectors, message):
    path = write_table(tmp_path / f"table{suffix}", sentences, np.array(vectors))
    with pytest.raises(InputError, match=message):
        TableEncoder(path)


def test_table_in_another_layout(tmp_path):
    missing = tmp_path / "missing.npz"
    with pytest.raises(InputError, match=f"{missing} is missing"):
        load_encoder(missing)
    np.savez(tmp_path / "keys.npz", words=np.array(["a"]))
    with pytest.raises(InputError, match=r"keys\.npz is no table of text vectors: .*sentences"):
        load_encoder(tmp_path / "keys.npz")
    pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / "columns.parquet")
    with pytest.raises(InputError, match=r"columns\.parquet is no table of text vectors"):
        load_encoder(tmp_path / "columns.parquet")
    (tmp_path / "junk.parquet").write_text("junk")
    with pytest.raises(InputError, match=r"junk\.parquet is no table of text vectors"):
        load_encoder(tmp_path / "junk.parquet")
    with pytest.raises(InputError, match=r"2 sentences for vectors of shape \(3, 3\)"):
        load_encoder(write_table(tmp_path / "rows.npz", ["a", "b"], np.eye(3)))
    pd.DataFrame({"sentence": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}).to_parquet(
        tmp_path / "ragged.parquet"
    )
    with pytest.raises(InputError, match=r"ragged\.parquet is no table of text vectors"):
        load_encoder(tmp_path / "ragged.parquet")


def test_unknown_encoder():
    with pytest.raises(
        InputError, match=r"config\.text\.encoder = 'minilm-2' is neither 'minilm' nor an existing"
    ):
        load_encoder("minilm-2")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_encoder(Path(__file__).parent)
