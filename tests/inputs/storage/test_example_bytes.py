"""Hand-written examples are those that TFDS would write, whatever is in them."""

import ml_dtypes
import numpy as np
import pytest

from modaltune_jax.inputs.storage.example_bytes import num_bytes, serialize


def features_of(example):
    """What TFDS makes of such values."""
    import tensorflow_datasets as tfds

    kinds = {}
    for name, value in example.items():
        if isinstance(value, int):
            kinds[name] = tfds.features.Scalar(np.int64)
        elif isinstance(value, str):
            kinds[name] = tfds.features.Text()
        elif isinstance(value, np.ndarray):
            shape = (None, *value.shape[1:])
            kinds[name] = tfds.features.Tensor(shape=shape, dtype=value.dtype, encoding="bytes")
        else:
            kinds[name] = tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict(kinds)


EXAMPLE = {
    "number": 300,
    "negative": -1,
    "zero": 0,
    "largest": 2**63 - 1,
    "text": "D-é",
    "no_text": "",
    "texts": ["a", "", "bb" * 100],
    "no_texts": [],
    "half": np.arange(6, dtype=np.float16).reshape(3, 2),
    "brain": np.ones((2, 3), ml_dtypes.bfloat16),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "nothing": np.zeros((0, 4), np.int32),
    "long": np.zeros((1, 20000), np.float32),
}


def test_tfds_reads_what_is_written():
    buffers = serialize(EXAMPLE)
    content = b"".join(buffers)
    assert num_bytes(buffers) == len(content)
    features = features_of(EXAMPLE)
    assert len(content) == len(features.serialize_example(EXAMPLE))
    read = features.deserialize_example_np(content)
    for name, value in EXAMPLE.items():
        if isinstance(value, str):
            assert read[name].decode() == value
        elif isinstance(value, list):
            assert [text.decode() for text in read[name]] == value
        else:
            np.testing.assert_array_equal(read[name], value)
            assert isinstance(value, int) or read[name].dtype == value.dtype


def test_arrays_are_stacked():
    parts = [np.arange(4.0).reshape(2, 2), np.zeros((0, 2)), np.ones((1, 2))]
    stacked = {"x": np.concatenate(parts)}
    assert b"".join(serialize({"x": parts})) == b"".join(serialize(stacked))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_large_arrays_are_not_copied(dtype):
    array = np.ones((100, 4), dtype)
    *_, data = serialize({"x": array})
    assert np.shares_memory(np.frombuffer(data, np.uint8), array)
