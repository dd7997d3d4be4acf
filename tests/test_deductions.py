"""Rows of lengths are found again where they can be, and never where they cannot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from converter.format.indexes import format_line
from converter.format.manifest import ShardInfo
from converter.storage.hashing import hash_bytes
from converter.upkeep import deductions
from converter.upkeep.deductions import _find_window, match_lengths

DEALT = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 2)), max_size=14)
"""Lengths, of which many are the same, with the row that each is of."""


def list_rows(dealt: list[tuple[int, int]]) -> list[list[int]]:
    return [[length for length, row in dealt if row == number] for number in range(3)]


@given(DEALT)
def test_rows_that_are_there_are_found(dealt: list[tuple[int, int]]) -> None:
    lengths = [length for length, _ in dealt]
    found = match_lengths(lengths, list_rows(dealt))
    assert found is not None
    assert list_rows(list(zip(lengths, found, strict=True))) == list_rows(dealt)


def test_rows_that_are_not_there_are_not_found() -> None:
    assert match_lengths([5, 7, 6], [[6, 7]]) is None
    assert match_lengths([5, 7, None], [[5], [7, 6]]) is None
    assert match_lengths([5], [[5], [5]]) is None


def test_a_search_that_goes_on_for_ever_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(deductions, "_MAX_STEPS", 50)
    assert match_lengths([1] * 40, [[1] * 20 + [2]]) is None
    assert match_lengths([1, 2] * 20, [[1, 2] * 10]) is not None


def test_what_failed_once_is_not_tried_again(monkeypatch) -> None:
    # Two to the power of twenty ways, or four hundred.
    monkeypatch.setattr(deductions, "_MAX_STEPS", 5_000)
    lengths, rows = [1] * 20 + [2] + [1] * 20 + [3], [[1] * 20 + [3], [1] * 20 + [2]]
    assert match_lengths(lengths, rows) == [1] * 21 + [0] * 21


def test_records_side_by_side_are_those_that_give_the_index() -> None:
    shard = ShardInfo(
        name="train-00000-of-00001.tfrecord",
        split="train",
        records=2,
        bytes=80,
        sha256="",
        index_bytes=13,
        index_sha256=hash_bytes(format_line(0, 40) + format_line(40, 40)),
        max_record_bytes=40,
    )
    assert _find_window(shard, [30, 50, 30, 40, 40, 7]) == slice(3, 5)
    assert _find_window(shard, [30, 50, 40, 7, 40]) is None
    assert _find_window(shard, [None, 80, 40, None, 40]) is None
    assert _find_window(shard, [80]) is None
