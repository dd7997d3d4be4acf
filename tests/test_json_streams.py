"""Long JSON is read item by item, to the same values as all at once, within bounded memory."""

import json

import pytest
from conftest import limit_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.sources import json_streams
from converter.sources.json_streams import MAX_ITEM_CHARS, read_lists
from converter.storage.disk import DiskPath

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def read_all(path) -> dict[str, list]:
    return {key: list(items) for key, items in read_lists(path)}


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 20])
@given(content=st.dictionaries(st.text(), VALUES, max_size=4), indent=st.none() | st.just(1))
@settings(deadline=None, max_examples=60)
def test_items_are_those_of_the_whole(tmp_path_factory, piece, content, indent):
    path = DiskPath(tmp_path_factory.getbasetemp()) / f"{piece}.json"
    path.write_text(
        json.dumps(content, indent=indent, ensure_ascii=False), "utf-8", "surrogatepass"
    )
    expected = {key: v if isinstance(v, list) else [] for key, v in content.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_streams, "_PIECE_CHARS", piece)
        assert read_all(path) == expected


def test_items_that_are_left_are_passed_over(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"a": [1, {"b": [2]}, 3], "c": {"d": [4]}, "e": [5]}')
    found = [(key, next(items, None)) for key, items in read_lists(path)]
    assert found == [("a", 1), ("c", None), ("e", 5)]


def test_bytes_that_are_not_utf8_are_kept(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": ["caf\xe9"]}')
    assert read_all(DiskPath(tmp_path / "a.json")) == {"a": ["caf\udce9"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'' at character 0, expected '{'"),
        (b"[1]", r"'\[' at character 0"),
        (b"{", "character 1"),
        (b'{"a": [1', "expected ','"),
        (b'{"a": [1,]}', "character 9"),
        (b'{"a": [1 2]}', "'2' at character 9, expected ','"),
        (b'{"a": 1} x', "after its end, at character 9"),
        (b'{"a": 1, "a": 2}', "'a' is no key, or stands twice"),
        (b"{1: 2}", "1 is no key"),
        (b'{"a": [' + b"9" * 5000 + b"]}", "Exceeds the limit"),
        (b'{"a": "' + b"x" * 3000, "Unterminated string"),
        (b'{"a": ' + b"[" * 100_000, "too many lists inside"),
        (b'{"a": [' + b'{"b": [' * 100_000, "too many lists inside"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_said_in_one_line(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_all(DiskPath(tmp_path / "a.json"))
    assert "\n" not in str(caught.value)
    assert "a.json" in str(caught.value)


def refuse_within(path, most: int) -> None:
    with limit_memory(most), pytest.raises(UsageError, match=r"inside|longer than"):
        for _, items in read_lists(path):
            sum(1 for _ in items)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_hundred_megabytes_of_lists_in_lists_take_little_memory(tmp_path, opening):
    with open(tmp_path / "deep.json", "w") as file:
        file.write('{"annotations": [')
        file.writelines(opening * ((1 << 20) // len(opening)) for _ in range(100))
    refuse_within(tmp_path / "deep.json", 30 << 20)


def test_one_item_without_an_end_takes_little_memory(tmp_path):
    with open(tmp_path / "long.json", "w") as file:
        file.write('{"annotations": ["')
        file.writelines("x" * (1 << 20) for _ in range(40))
    refuse_within(tmp_path / "long.json", 12 * MAX_ITEM_CHARS)


def test_many_items_take_the_memory_of_one(tmp_path):
    with open(tmp_path / "wide.json", "w") as file:
        file.write('{"annotations": [')
        item = '{"bbox": [1, 2, 3, 4], "segmentation": [[1.5, 2.5]]},'
        file.writelines(item * 20_000 for _ in range(8))
        file.write("1]}")
    with limit_memory(8 << 20):
        count = sum(1 for _, items in read_lists(DiskPath(tmp_path / "wide.json")) for _ in items)
    assert count == 160_001
