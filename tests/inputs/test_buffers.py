"""Memory that is used again, and never too early."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from modaltune_jax.inputs.buffers import BufferPool

FLOAT = np.dtype(np.float32)


def address(array):
    return array.__array_interface__["data"][0]


def test_arrays_have_their_shape_and_can_be_written():
    array = BufferPool().take((3, 4, 5), np.dtype(np.float16))
    array[:] = 7
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((3, 4, 5), np.float16, True)
    assert BufferPool().take((0, 4), FLOAT).shape == (0, 4)


def test_memory_is_used_again():
    pool = BufferPool()
    array = pool.take((1000,), FLOAT)
    first = address(array)
    assert address(pool.take((1000,), FLOAT)) != first
    del array
    assert address(pool.take((10, 20), FLOAT)) == first


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param(lambda array: array[2:, ::3], id="view"),
        pytest.param(lambda array: array.reshape(-1)[5:].view(np.uint8), id="view-of-view"),
        pytest.param(lambda array: memoryview(array)[1:], id="memoryview"),
        pytest.param(lambda array: np.lib.stride_tricks.as_strided(array[1:], (2, 5)), id="strided"),
    ],
)
def test_whatever_refers_to_an_array_keeps_it(keep):
    pool = BufferPool()
    array = pool.take((8, 5), FLOAT)
    array[:] = 1
    kept = keep(array)
    before = bytes(kept.tobytes())
    del array
    pool.take((8, 5), FLOAT)[:] = 2
    assert kept.tobytes() == before
    del kept
    assert (pool.take((8, 5), FLOAT) == 1).all()


def test_jax_arrays_that_share_memory_keep_it():
    jax = pytest.importorskip("jax")
    pool = BufferPool()
    array = pool.take((64, 64), FLOAT)
    array[:] = 1
    start = address(array)
    on_device = jax.device_put(array).block_until_ready()
    shared = on_device.unsafe_buffer_pointer() == start
    del array
    pool.take((64, 64), FLOAT)[:] = 2
    assert (np.asarray(on_device) == 1).all()
    # Page-aligned memory is what jax on a CPU does not copy; if it did, the test above would test nothing.
    assert shared
    on_device.delete()
    del on_device
    gc.collect()
    assert start in [address(each) for each in [pool.take((64, 64), FLOAT) for _ in range(2)]]


def test_the_pool_grows_to_the_largest_and_drops_smaller_memory():
    pool = BufferPool()
    for size in (10, 5000, 100_000, 3):
        pool.take((size,), FLOAT)[:] = size
    largest = address(pool.take((100_000,), FLOAT))
    arrays = [pool.take((size,), FLOAT) for size in (1, 2)]
    assert [address(array) for array in arrays].count(largest) == 1


def test_memory_outlives_the_pool_and_goes_with_the_last_array():
    pool = BufferPool()
    array = pool.take((1000,), FLOAT)
    free = weakref.ref(pool._free)
    del pool
    array[:] = 3
    assert array.sum() == 3000
    del array
    gc.collect()
    assert free() is None


def test_threads_never_share_memory():
    pool = BufferPool()

    def use(number):
        for _ in range(300):
            array = pool.take((50, 20), FLOAT)
            array[:] = number
            if (array != number).any():
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(8)))
