"""Samples as the library WebDataset groups them, their rows, and what is wrong with them."""

import json
import re

import pytest

from converter.errors import ImageError
from converter.inventory import NO_LABEL, Entry, Skipped, leave_out
from converter.options import ConvertOptions
from converter.sources import samples
from converter.sources.row_sources import IMAGE
from converter.sources.samples import (
    RowMaker,
    Sample,
    are_torn,
    group_members,
    is_image,
    split_name,
)

PATHS = [
    "000001.jpg", "a/000001.seg.png", "a.b/c.d.e", "a.b/c", ".hidden.jpg", "x.", "x..jpg", "x",
    "deep/er/k.JPG", "a b/ü.x.Y", "a//b.jpg", "x.tar.gz", "a.b/.c.d", "..jpg", "é.ç",
]  # fmt: skip


def group(*names, **contents):
    """The samples of members with these names, as of a tar, and what is skipped."""
    members = [
        (member if isinstance(member, Skipped) else Entry(member, NO_LABEL, 9, place=512 * place))
        for place, member in enumerate(names)
    ]
    read = [(member, contents.get(split_name(member.path)[1])) for member in members]
    found = [*group_members(read)]
    return [each for each in found if isinstance(each, Sample)], [
        each for each in found if isinstance(each, Skipped)
    ]


def make(*names, options=None, classes=(), complete=True, **contents):
    """The row of the only sample with these members."""
    ((sample,), _) = group(*names, **contents)
    maker = RowMaker(options or ConvertOptions(), classes, complete=complete)
    return maker.make("t.tar", "train", sample)


def refusal(row):
    error = row[IMAGE]
    assert isinstance(error, ImageError)
    return f"{error.code}: {error.detail}"


@pytest.mark.parametrize("path", PATHS)
def test_keys_and_extensions_are_those_of_the_library(path):
    webdataset = pytest.importorskip("webdataset.tariterators")
    key, extension = webdataset.base_plus_ext(path)
    assert split_name("a/.jpg") == ("", "")  # to the library, the key of a dotfile is `a/`
    if not extension:  # it makes a part without a name of `x.`
        key, extension = "", ""
    assert split_name(path) == (key, extension.lower())


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "1.cls", "2.jpg", "2.cls"],
        ["1.cls", "1.seg.png", "1.JPG", "a/1.jpg", "a/1.txt", "b/1.jpg"],
        ["1.jpg", "2.jpg", "1.cls"],
        ["x", "1.jpg", "y", "1.cls", "2.cls"],
    ],
)
def test_samples_are_grouped_as_the_library_groups_them(names):
    webdataset = pytest.importorskip("webdataset.tariterators")
    members = [{"fname": name, "data": name.encode(), "__url__": "t.tar"} for name in names]
    expected = [
        (sample.pop("__key__"), {name: sample[name] for name in sample if name != "__url__"})
        for sample in webdataset.group_by_keys(iter(members))
    ]
    found, skipped = group(*names)
    assert [
        (sample.key, {name: part.path.encode() for name, part in sample.parts.items()})
        for sample in found
    ] == expected
    assert [skip.path for skip in skipped] == [name for name in names if "." not in name]


def test_what_is_no_part_of_a_sample_is_skipped_and_does_not_divide_one():
    outside = leave_out("../1.jpg", "skipped_outside")
    found, skipped = group(
        "1.jpg", "._1.jpg", "__MACOSX/1.jpg", "notes", "1.cls", ".git/1.jpg", "d/", outside,
        "__info__/shard.json", "Thumbs.db", "1.txt",
    )  # fmt: skip
    assert [(sample.key, [*sample.parts]) for sample in found] == [("1", ["jpg", "cls", "txt"])]
    assert {(skip.path, skip.code) for skip in skipped} == {
        ("._1.jpg", "skipped_hidden"), ("__MACOSX/1.jpg", "skipped_hidden"),
        ("notes", "skipped_extension"), (".git/1.jpg", "skipped_hidden"),
        ("../1.jpg", "skipped_outside"), ("__info__/shard.json", "skipped_extension"),
        ("Thumbs.db", "skipped_hidden"),
    }  # fmt: skip


def test_the_image_is_found_by_its_last_extension_and_placed_in_its_tar():
    image = make("a/1.cls", "a/1.left.JPG", "a/1.npy", cls=b"3")[IMAGE]
    assert image == Entry("t.tar/a/1.left.JPG", NO_LABEL, 9, split="train", place=512, file="t.tar")
    assert is_image("seg.png")
    assert not is_image("png.txt")


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["1.jpg", "1.png"], {}, "bad_sample: several images, 'jpg', 'png'.*--image-column"),
        (["1.left.jpg", "1.right.jpg"], {}, "bad_sample: several images, 'left.jpg', 'right.jpg'"),
        (["1.jpg", "1.seg.png"], {}, "bad_sample: several images, 'jpg', 'seg.png'"),
        (["1.cls", "1.txt"], {}, "bad_sample: no image among its parts 'cls', 'txt'"),
        (["1.jpg"], {"image_column": "png"}, "bad_sample: no 'png' among its parts 'jpg'"),
        (["1.jpg", "1.JPG"], {}, "bad_sample: 'jpg' stands twice"),
        (["1.jpg", "1.cls", "1.cls"], {}, "bad_sample: 'cls' stands twice"),
        (["1.jpg"], {"mask_column": "seg.png"}, "mask_missing: "),
        ([Skipped("1.jpg", "skipped_link", "a link")], {}, "unreadable: '1.jpg': a link"),
        (["1.jpg"], {"label_column": "cls"}, "bad_row: it has no .cls"),
        (
            ["1.jpg", Skipped("1.cls", "skipped_link", "a link")],
            {"label_column": "cls"},
            "bad_row: its .cls: a link",
        ),
        (
            ["1.jpg", Skipped("1.seg.png", "skipped_special", "special")],
            {"mask_column": "seg.png"},
            "unreadable: '1.seg.png': special",
        ),
    ],
)
def test_a_sample_without_one_image_is_a_reject_with_its_key(names, options, said):
    row = make(*names, options=ConvertOptions(**options))
    assert re.match(said, refusal(row))
    assert row["path"] == "t.tar/1"


@pytest.mark.parametrize("chosen", ["left.jpg", "right.jpg", "dat"])
def test_an_extension_chooses_the_image(chosen):
    names = ["1.left.jpg", "1.right.jpg", "1.dat"]
    row = make(*names, options=ConvertOptions(image_column=chosen))
    assert row[IMAGE].path == f"t.tar/1.{chosen}"


def test_a_mask_is_a_part_and_no_second_image():
    options = ConvertOptions(mask_column="seg.png")
    image = make("1.jpg", "1.seg.png", options=options)[IMAGE]
    assert image.path == "t.tar/1.jpg"
    assert image.mask == Entry("t.tar/1.seg.png", NO_LABEL, 9, place=512, file="t.tar")


def test_parts_and_keys_of_json_are_columns():
    options = ConvertOptions(
        label_column="cls", caption_column="txt", keep_columns=("age", "__key__", "count", "json")
    )
    values = {"age": 7, "cls": "from json", "unused": [1], "count": 1}
    row = make(
        "1.jpg", "1.cls", "1.txt", "1.count", "1.json", options=options,
        cls=b" ant\n", txt=b" a text \n", count=b"12\n", json=json.dumps(values).encode(),
    )  # fmt: skip
    assert {name: row[name] for name in ("cls", "txt", "age", "count", "__key__")} == {
        "cls": "ant", "txt": " a text \n", "age": 7, "count": "12", "__key__": "1",
    }  # fmt: skip
    assert row["json"] == json.dumps(values)
    assert row["unused"] is row["jpg"] is None  # the names alone, for messages


def test_names_of_columns_come_once_and_are_bounded(monkeypatch):
    monkeypatch.setattr(samples, "_MAX_NAMES", 3)
    maker = RowMaker(ConvertOptions(keep_columns=("x",)))
    rows = []
    for number in range(3):
        content = json.dumps({f"{number}{key}": 1 for key in range(5)}).encode()
        ((sample,), _) = group("1.jpg", "1.json", json=content)
        rows.append(maker.make("t.tar", "", sample))
    hidden = {IMAGE, "__key__", "__url__"}
    assert sum(len(row.keys() - hidden) for row in rows) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe1", "not UTF-8"),
        (b"[1, 2]", "not an object"),
        (b"{", "cannot be read"),
        (b'{"a": ' + b"[" * 100_000, "cannot be read"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_json_that_makes_no_sense_is_a_reject_and_only_where_it_is_read(content, said):
    options = ConvertOptions(keep_columns=("a",))
    assert re.search(said, refusal(make("1.jpg", "1.json", options=options, json=content)))
    assert isinstance(make("1.jpg", "1.json", json=content)[IMAGE], Entry)


def test_texts_are_read_up_to_a_bound_and_only_if_they_are_columns():
    maker = RowMaker(ConvertOptions(label_column="cls"))
    most = samples.MAX_TEXT_BYTES
    assert maker.wants(Entry("1.cls", NO_LABEL, most))
    assert not maker.wants(Entry("1.cls", NO_LABEL, most + 1))
    assert not maker.wants(Entry("1.txt", NO_LABEL, 1))
    assert not maker.wants(Entry("1.json", NO_LABEL, 1))
    assert not maker.wants(Entry("1.npy", NO_LABEL, 1))
    assert RowMaker(ConvertOptions(label_column="kind")).wants(Entry("1.json", NO_LABEL, 1))
    large = Entry("1.cls", NO_LABEL, 10_000_000)
    ((sample,), _) = group("1.jpg")
    sample.parts["cls"] = large
    assert "10,000,000 bytes, at most 1,048,576" in refusal(maker.make("t.tar", "", sample))


@pytest.mark.parametrize(
    ("text", "complete", "label"),
    [
        (b"0", True, "ant"), (b"1\n", True, "bee"), (b"bee", True, "bee"), (b"cow", True, "cow"),
        (b"2", True, None), (b"2", False, "2"), (b"9" * 5_000, True, None), (b"-1", True, "-1"),
        ("²".encode(), True, "²"), (b"\xef\xbb\xbf1", True, "bee"),
    ],
)  # fmt: skip
def test_a_number_is_a_line_of_the_list_of_classes(text, complete, label):
    options = ConvertOptions(label_column="cls")
    row = make(
        "1.jpg", "1.cls", options=options, classes=["ant", "bee"], complete=complete, cls=text
    )
    if label is None:
        assert "no line of the list of classes, 0 to 1" in refusal(row)
    else:
        assert row["cls"] == label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (1, "bee"), (1.0, "bee"), ("1", "bee"), (" 1 ", "bee"), ("bee", "bee"), (1.5, "1.5"),
        ("bee ", "bee "), ("\tcow", "\tcow"),
    ],
)  # fmt: skip
def test_a_number_in_a_json_is_a_line_too(value, label):
    options = ConvertOptions(label_column="kind")
    content = json.dumps({"kind": value}).encode()
    row = make("1.jpg", "1.json", options=options, classes=["ant", "bee"], json=content)
    assert row["kind"] == label


@pytest.mark.parametrize("value", [True, [1], {"a": 1}])
def test_a_label_that_is_no_name_is_a_reject(value):
    options = ConvertOptions(label_column="kind")
    content = json.dumps({"kind": value}).encode()
    row = make("1.jpg", "1.json", options=options, classes=["ant", "bee"], json=content)
    assert "is not a name" in refusal(row)


def test_without_a_list_numbers_are_names():
    row = make("1.jpg", "1.cls", options=ConvertOptions(label_column="cls"), cls=b"007")
    assert row["cls"] == "007"


def test_unused_parts_are_counted_by_extension():
    maker = RowMaker(ConvertOptions(label_column="cls", mask_column="seg.png"))
    for names in (["1.jpg", "1.cls", "1.npy", "1.seg.png"], ["2.cls", "2.npy", "2.json"]):
        ((sample,), _) = group(*names)
        maker.make("t.tar", "", sample)
    assert maker.unused == {"npy": 2, "json": 1}
    maker = RowMaker(ConvertOptions(image_column="left.jpg", keep_columns=("age",)))
    ((sample,), _) = group("1.left.jpg", "1.right.jpg", "1.json")
    maker.make("t.tar", "", sample)
    assert maker.unused == {"right.jpg": 1}


@pytest.mark.parametrize(
    ("last", "first", "torn"),
    [
        (["1.jpg"], ["1.cls"], True),
        (["1.cls"], ["1.jpg", "1.txt"], True),
        (["1.jpg"], ["2.cls"], False),
        (["1.jpg", "1.cls"], ["1.jpg", "1.cls"], False),
        (["1.jpg", "1.cls"], ["1.png", "1.txt"], False),
    ],
)
def test_a_sample_that_goes_on_in_the_next_tar_is_torn(last, first, torn):
    assert are_torn(group(*last)[0][0], group(*first)[0][0]) == torn
