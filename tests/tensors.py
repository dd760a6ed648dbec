"""Named arrays of all kinds, and whether two sets of them are the same."""

import ml_dtypes
import numpy as np

DTYPES = [
    *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16),
    *(np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_),
]


def same(ours, theirs):
    assert {*ours} == {*theirs}
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype.newbyteorder("="), name
        assert ours[name].shape == array.shape, name
        assert ours[name].tobytes() == np.asarray(array, array.dtype.newbyteorder("<")).tobytes(), name


def every_kind():
    """Arrays of all dtypes and layouts."""
    rng = np.random.default_rng(0)
    tensors = {np.dtype(d).name: (4 * rng.normal(size=(3, 5))).astype(d) for d in DTYPES}
    matrix = tensors["float32"]
    special = np.array([np.nan, -0.0, np.inf, np.finfo(np.float32).smallest_subnormal], np.float32)
    return tensors | {
        "transposed": matrix.T,
        "every second": matrix[::2, 1::2],
        "reversed": matrix[::-1],
        "broadcast": np.broadcast_to(matrix[0], (4, 5)),
        "big-endian": matrix.astype(">f4"),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "empty in the middle": np.zeros((2, 0, 3), np.int16),
        "special values": special,
        "four axes": matrix.reshape(1, 3, 1, 5),
        "name with 'ümläut'.weight": np.ones(1, np.float32),
    }
