"""The columns of a plan: they give back what went in, in any order, and take little memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.entries import Entries, Members, list_files
from converter.inventory import NO_LABEL, SPLITS, Entry

# Any name that a file may have, also bytes that are no UTF-8, as lone surrogates.
NAMES = st.binary(min_size=1, max_size=12).map(lambda data: data.decode("utf-8", "surrogateescape"))
NUMBERS = st.integers(0, 2**40)
MASKS = st.tuples(NAMES, NUMBERS, NUMBERS, NAMES).map(
    lambda of: Entry(of[0], NO_LABEL, of[1], place=of[2], file=of[3])
)
ENTRIES = st.lists(
    st.builds(
        Entry,
        NAMES,
        st.integers(-1, 2**31 - 1),
        NUMBERS,
        split=st.sampled_from(("", *SPLITS)),
        group=st.just("") | NAMES,
        values=st.just("") | NAMES,
        place=st.just(0) | NUMBERS,
        mask=st.none() | MASKS,
        file=st.just("") | NAMES,
        part=st.just("") | NAMES,
        span=st.just(0) | NUMBERS,
    ),
    max_size=8,
)


@given(ENTRIES)
def test_they_give_back_what_went_in(entries):
    columns = Entries(entries)
    assert list(columns) == entries
    assert len(columns) == len(entries)
    assert [columns[place] for place in range(-len(entries), 0)] == entries
    assert columns[1:5:2] == entries[1:5:2]
    assert [*columns.paths] == [entry.path for entry in entries]
    assert columns.sizes.tolist() == [entry.size_bytes for entry in entries]
    assert columns.labels.tolist() == [entry.label for entry in entries]
    assert list_files(columns) == list_files(entries) == {entry.file for entry in entries} - {""}


@given(ENTRIES, st.randoms(use_true_random=False))
def test_some_of_them_in_another_order(entries, random):
    places = random.choices(range(len(entries)), k=5) if entries else []
    columns, chosen = Entries(entries), np.array(places, np.uint32)
    expected = [entries[place] for place in places]
    assert columns.take(chosen) == expected
    members = Members(columns, chosen)
    assert members == expected
    assert members[1:3] == expected[1:3]
    assert list_files(members) >= {entry.file for entry in expected} - {""}


@given(ENTRIES)
def test_sorting_goes_by_bytes_and_keeps_the_order_of_equal_paths(entries):
    expected = sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogateescape"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converter.entries._RUN", 3)
        columns = Entries(entries)
        columns.sort()
    assert columns == expected


@pytest.mark.parametrize(("last", "sizes"), [(False, [1, 2, 5]), (True, [1, 4, 5])])
def test_of_one_path_the_first_or_the_last_is_kept(last, sizes):
    names = ("a", "b", "b", "b", "c")
    entries = Entries(Entry(name, 0, size) for size, name in enumerate(names, 1))
    kept, repeated = entries.keep_distinct(last=last)
    assert [entry.size_bytes for entry in kept] == sizes
    assert repeated == ["b", "b"]
    assert kept.keep_distinct() == (kept, [])


def test_labels_are_counted_by_class():
    entries = Entries(Entry(str(label), label, 1) for label in (2, 0, NO_LABEL, 2))
    assert entries.count_labels(4) == [1, 0, 2, 0]


@pytest.mark.parametrize("place", [2, -3])
def test_there_is_nothing_behind_the_last_one_nor_before_the_first(place):
    with pytest.raises(IndexError):
        Entries([Entry("a", 0, 1), Entry("b", 0, 1)])[place]


def test_they_equal_no_other_entries():
    one = Entries([Entry("a", 0, 1)])
    assert one != [Entry("a", 0, 2)]
    assert one != []
    assert one != "a"


def test_an_image_takes_its_path_and_21_bytes():
    count, path = 100_000, b"class-0/0000/0000000.png"
    tracemalloc.start()
    entries = Entries()
    for _ in range(count):
        entries.add(path, 1)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Buffers that grow keep up to an eighth of room.
    assert taken < count * (len(path) + 21) * 1.13
