"""Converted files: exact, named by a hash that is checked, in one format."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modaltune_jax.convert import param_file
from modaltune_jax.convert.safetensors_writer import write_safetensors
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.types import InputError

PARAMS = {
    "layers": {
        0: {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
        1: {"kernel": np.ones((1, 1), np.float32)},
    },
    "scale": np.array([3.0], np.float32),
}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    return path, param_file.write(path, PARAMS, kind="gigapath", about={"source": "x.pth"})


def test_what_was_written_is_read(written):
    path, digest = written
    with open_tensors(path) as file:
        assert param_file.is_converted(file)
        assert file.metadata["sha256"] == digest == param_file.fingerprint(PARAMS)
        jax.tree.map(np.testing.assert_array_equal, param_file.read(file, "gigapath", PARAMS), PARAMS)
        alone = param_file.read(file, "gigapath")
    assert param_file.fingerprint(alone) == digest
    assert [leftover.name for leftover in path.parent.iterdir()] == [path.name]


def test_the_library_reads_the_same(written):
    assert {name: value.tolist() for name, value in load_file(written[0]).items()} == {
        "layers.0.kernel": [[0, 1, 2], [3, 4, 5]],
        "layers.1.kernel": [[1]],
        "scale": [3],
    }


def test_a_changed_value_is_found(written):
    path, _ = written
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with open_tensors(path) as file, pytest.raises(InputError, match="changed or damaged; convert"):
        param_file.read(file, "gigapath")


def test_another_kind_is_refused(written):
    with (
        open_tensors(written[0]) as file,
        pytest.raises(InputError, match="holds gigapath weights where titan is"),
    ):
        param_file.read(file, "titan")


def test_other_formats(tmp_path):
    save_file({"x": np.ones(1)}, tmp_path / "public")
    save_file({"x": np.ones(1)}, tmp_path / "later", metadata={"format": "modaltune_jax parameters 9"})
    with open_tensors(tmp_path / "public") as file:
        assert not param_file.is_converted(file)
    with (
        open_tensors(tmp_path / "later") as file,
        pytest.raises(InputError, match=r"parameters 9.*convert the weights"),
    ):
        param_file.is_converted(file)


def test_the_hash_names_values_names_shapes_and_dtypes():
    one = np.float32([1, 2])
    others = (
        {"a": one},
        {"b": one},
        {"a": one[None]},
        {"a": one.astype(np.float16)},
        {"a": np.float32([1, 3])},
    )
    assert len({param_file.fingerprint(params) for params in others}) == len(others)
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert param_file.fingerprint({"a": kernel.T}) == param_file.fingerprint({"a": kernel.T.copy()})


def test_views_are_written_as_they_look(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_safetensors(tmp_path / "file", {"a": kernel.T, "b": kernel[:, ::2], "c": np.float32(7)}, {})
    read = load_file(tmp_path / "file")
    np.testing.assert_array_equal(read["a"], kernel.T)
    np.testing.assert_array_equal(read["b"], kernel[:, ::2])
    assert read["c"] == 7
