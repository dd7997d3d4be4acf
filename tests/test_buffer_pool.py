"""Arrays come back once nothing refers to them, and not before."""

import gc

import numpy as np

from reader.batches.buffer_pool import BufferPool


def test_an_array_comes_back_only_with_its_last_view():
    pool = BufferPool((4, 8), "uint8", keep=2)
    for look in (lambda a: a, lambda a: a[:2][1:], np.asarray, lambda a: memoryview(a[1:])):
        lent = pool.take()
        address = lent.ctypes.data
        view = look(lent)
        del lent
        gc.collect()
        assert pool.take().ctypes.data != address
        del view
        gc.collect()
        taken = [pool.take() for _ in range(2)]
        assert address in [array.ctypes.data for array in taken]
        del taken


def test_arrays_begin_where_tensorflow_takes_them_over():
    pool = BufferPool((3, 5), "float32", keep=1)
    arrays = [pool.take() for _ in range(5)]
    assert {array.ctypes.data % 64 for array in arrays} == {0}
    assert {(array.shape, array.dtype.name) for array in arrays} == {((3, 5), "float32")}
