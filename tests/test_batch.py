"""A batch: its memory comes back, and what is given of it has the form that is asked for."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from converter.format.manifest import ImageInfo
from converter.format.schema import BOXES, LABELS, TARGET, Column
from reader.batches.batch import (
    Batch,
    BufferPool,
    Ragged,
    format_batch,
    format_labels,
    gather_column,
    stack_column,
)
from reader.examples.fields import Given
from reader.plan.read_options import ReadOptions

AGE = Column("age", "int")
CAPTION = Column("caption", "text")
SCORES = Column("scores", "floats")


def make_batch(values=(([1],), (), ([3],)), *, masks: bool = False) -> Batch:
    """Three records, of which the second one is missing."""
    return Batch(
        images=np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3),
        valid=np.array([True, False, True]),
        labels=np.array([2, 0, 1], np.int32),
        names=np.array([b"a/1.png", b"", b"b/2.png"], object),
        masks=np.ones((3, 2, 2, 1), np.uint8) if masks else None,
        values=np.fromiter((value or None for value in values), object),
        flips=np.zeros(3, np.bool_),
    )


def give(**arguments: object) -> Given:
    image = ImageInfo(height=2, width=2, max_height=2, max_width=2, channels=3, formats={"raw": 3})
    return Given(image=image, classes=4, **arguments)


def make_plan(given: Given | None = None, *, has_classes: bool = True, **options: object):
    """As much of a plan as decides what is given."""
    return SimpleNamespace(
        given=given or give(),
        options=ReadOptions(**options),
        has_classes=has_classes,
        choice=SimpleNamespace(class_names=["a", "b", "c"]),
    )


def test_labels_come_behind_the_images():
    batch = make_batch()
    images, labels = format_batch(make_plan(), batch)
    assert images is batch.images
    assert labels is batch.labels


def test_all_parts_come_in_their_order():
    given = give(columns={"old": AGE}, masks=True, with_labels=True)
    batch = make_batch(masks=True)
    plan = make_plan(given, remainder="pad", with_filename=True)
    images, (masks, labels), weights, names, columns = format_batch(plan, batch)
    assert (images is batch.images, masks is batch.masks) == (True, True)
    assert labels.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(weights, np.array([1, 0, 1], np.float32), strict=True)
    assert names.tolist() == [b"a/1.png", b"", b"b/2.png"]
    assert list(columns) == ["old"]
    np.testing.assert_array_equal(columns["old"], np.array([1, 0, 3]), strict=True)


def test_masks_stand_in_the_place_of_labels():
    batch = make_batch(masks=True)
    images, masks = format_batch(make_plan(give(masks=True)), batch)
    assert (images is batch.images, masks is batch.masks) == (True, True)


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        (make_plan(label_mode=None), 1),
        (make_plan(has_classes=False), 1),
        (make_plan(label_mode=None, with_filename=True), 2),
        (make_plan(has_classes=False, remainder="pad"), 2),
    ],
)
def test_images_come_alone_where_nothing_else_is_asked_for(plan, parts):
    batch = make_batch()
    element = format_batch(plan, batch)
    if parts == 1:
        assert element is batch.images
    else:
        assert (len(element), element[0] is batch.images) == (parts, True)


@pytest.mark.parametrize(
    ("label_mode", "expected"),
    [
        ("int", np.array([2, 0, 1], np.int32)),
        ("categorical", np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float32)),
        ("binary", np.array([[2], [0], [1]], np.float32)),
    ],
)
def test_labels_have_the_form_that_is_asked_for(label_mode, expected):
    labels = np.array([2, 0, 1], np.int32)
    np.testing.assert_array_equal(format_labels(labels, label_mode, 3), expected, strict=True)


def test_no_records_have_no_labels():
    nothing = np.zeros(0, np.int32)
    assert format_labels(nothing, "int", 3).shape == (0,)
    assert format_labels(nothing, "categorical", 3).shape == (0, 3)
    assert format_labels(nothing, "binary", 2).shape == (0, 1)


def test_several_labels_are_marks():
    column = Column(LABELS, "labels")
    given = give(labelled=False, label=column)
    batch = make_batch([([0, 3],), (), ([],)])
    _, labels = format_batch(make_plan(given, has_classes=False), batch)
    expected = np.array([[1, 0, 0, 1], [0] * 4, [0] * 4], np.float32)
    np.testing.assert_array_equal(labels, expected, strict=True)


def test_a_target_is_a_number():
    given = give(labelled=False, label=Column(TARGET, "float"))
    batch = make_batch([([0.5],), (), ([2.25],)])
    _, labels = format_batch(make_plan(given, has_classes=False), batch)
    np.testing.assert_array_equal(labels, np.array([0.5, 0, 2.25], np.float32), strict=True)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (AGE, [[5], [], [2**62]], np.array([5, 0, 2**62])),
        (Column("height", "float"), [[0.1], []], np.array([0.1, 0], np.float32)),
        (CAPTION, [[b"one"], [], [b"\xff"]], np.array([b"one", b"", b"\xff"], object)),
        (AGE, [], np.zeros(0, np.int64)),
    ],
)
def test_one_value_of_each_record_is_an_array(column, values, expected):
    np.testing.assert_array_equal(stack_column(column, values), expected, strict=True)


@pytest.mark.parametrize(
    ("column", "values", "rows"),
    [
        (SCORES, [[1, 2], [], [3]], [[1, 2], [], [3]]),
        (SCORES, [[], []], [[], []]),
        (SCORES, [[7, 8]], [[7, 8]]),
        (SCORES, [], []),
        (Column("codes", "ints"), [[2**60], [1]], [[2**60], [1]]),
        (Column("words", "texts"), [[b"x", b"yy"], []], [[b"x", b"yy"], []]),
        (Column(BOXES, "boxes"), [list(range(8)), []], [[[0, 1, 2, 3], [4, 5, 6, 7]], []]),
        (Column(BOXES, "boxes"), [[], []], [[], []]),
    ],
)
def test_any_number_of_values_is_ragged_and_is_split_into_rows(column, values, rows):
    ragged = stack_column(column, values)
    assert isinstance(ragged, Ragged)
    assert ragged.splits.tolist() == [0, *np.cumsum([*map(len, rows)])]
    found = ragged.list_rows()
    assert [row.tolist() for row in found] == rows
    dtype = {"ints": np.int64, "texts": np.object_}.get(column.kind, np.float32)
    assert {row.dtype for row in found} <= {np.dtype(dtype)}
    if column.kind == "boxes":
        assert {row.shape[1:] for row in found} == {(4,)}


def test_a_column_is_found_among_those_that_were_read():
    given = give(columns={"scores": SCORES, "age": AGE})
    batch = make_batch([([0.5], [7]), (), ([], [8])])
    plan = make_plan(given)
    assert gather_column(plan, batch, AGE).tolist() == [7, 0, 8]
    assert [row.tolist() for row in gather_column(plan, batch, SCORES).list_rows()] == [
        [0.5], [], [],
    ]  # fmt: skip


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
