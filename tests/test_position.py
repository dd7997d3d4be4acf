"""Where in its epochs a reader is."""

import concurrent.futures

import numpy as np
import pytest

from converter.errors import UsageError
from reader.sampling.orders import Position, list_blocks


def test_epochs_follow_each_other_from_their_first_step():
    position = Position()
    assert [position.take() for _ in range(3)] == [(0, 0), (1, 0), (2, 0)]


def test_only_the_epoch_that_is_entered_begins_with_a_later_step():
    position = Position(4, 7)
    assert (position.epoch, position.step) == (4, 7)
    assert [position.take() for _ in range(2)] == [(4, 7), (5, 0)]


def test_steps_are_listed_in_blocks_the_last_of_which_may_be_shorter():
    assert list_blocks(4, 7, 9).tolist() == [[4, 7, 8], [4, 8, 9]]
    assert list_blocks(4, 7, 14, 3).tolist() == [[4, 7, 10], [4, 10, 13], [4, 13, 14]]
    assert list_blocks(5, 0, 4, 3).tolist() == [[5, 0, 3], [5, 3, 4]]
    assert list_blocks(0, 0, 2).dtype == np.int64


@pytest.mark.parametrize("most", [1, 2, 3, 100])
@pytest.mark.parametrize("step", [0, 1, 13, 14])
def test_parts_of_a_list_are_the_whole_list(step, most):
    parts, place = [], step
    while len(part := list_blocks(4, place, 14, 3, most)):
        assert len(part) <= most
        parts += part.tolist()
        place = parts[-1][2]
    assert parts == list_blocks(4, step, 14, 3).tolist()


@pytest.mark.parametrize("step", [0, 5])
def test_an_epoch_without_a_step_that_is_left_has_no_blocks(step: int):
    assert list_blocks(1, step, step, 3).shape == (0, 3)


def test_a_position_can_be_sought_forth_and_back():
    position = Position(9, 9)
    position.seek(2, 3)
    assert position.take() == (2, 3)
    position.seek(1)
    assert position.take() == (1, 0)
    assert (position.epoch, position.step) == (2, 0)


@pytest.mark.parametrize("place", [("1",), (None,), (1.5,), (-1,), (0, -1), (0, 1.0)])
def test_what_is_no_place_is_refused_before_anything_is_read(place):
    position = Position(4, 7)
    with pytest.raises(UsageError, match=f"^epoch {place[0]!r}, step "):
        position.seek(*place)
    assert (position.epoch, position.step) == (4, 7)
    position.seek(np.int64(1))
    assert type(position.epoch) is int


def test_a_position_keeps_where_it_was_made_to_begin():
    position = Position(4, 7)
    position.take()
    position.seek(9, 1)
    assert position.start == (4, 7)
    assert Position().start == (0, 0)


def test_no_epoch_is_begun_twice_by_several_threads():
    position = Position(0, 5)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: position.take(), range(2_000)))
    assert sorted(begun) == [(0, 5), *((epoch, 0) for epoch in range(1, 2_000))]
