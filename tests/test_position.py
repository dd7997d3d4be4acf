"""Where in its epochs a reader is."""

import concurrent.futures

import numpy as np

from reader.sampling.position import Position


def test_epochs_follow_each_other_from_their_first_step():
    position = Position()
    begun = [position.begin() for _ in range(3)]
    assert [pair.tolist() for pair in begun] == [[0, 0], [1, 0], [2, 0]]
    assert all(pair.dtype == np.int64 for pair in begun)


def test_only_the_epoch_that_is_entered_begins_with_a_later_step():
    position = Position(4, 7)
    assert (position.epoch, position.step) == (4, 7)
    assert [position.begin().tolist() for _ in range(2)] == [[4, 7], [5, 0]]


def test_a_position_can_be_sought_forth_and_back():
    position = Position(9, 9)
    position.seek(2, 3)
    assert position.begin().tolist() == [2, 3]
    position.seek(1)
    assert position.begin().tolist() == [1, 0]
    assert (position.epoch, position.step) == (2, 0)


def test_a_position_keeps_where_it_was_made_to_begin():
    position = Position(4, 7)
    position.begin()
    position.seek(9, 1)
    assert position.start == (4, 7)
    assert Position().start == (0, 0)


def test_no_epoch_is_begun_twice_by_several_threads():
    position = Position(0, 5)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: tuple(position.begin().tolist()), range(2_000)))
    assert sorted(begun) == [(0, 5), *((epoch, 0) for epoch in range(1, 2_000))]
