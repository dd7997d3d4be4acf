"""The manifest: read back as written, and refused when it is damaged or lies."""

import copy
import dataclasses
import hashlib
import json
import math
import re
import time

import pytest
from conftest import limit_memory

from converter.errors import DatasetError
from converter.format.manifest import (
    MAX_MANIFEST_BYTES,
    FileInfo,
    ImageInfo,
    Manifest,
    ShardInfo,
    SplitInfo,
    Totals,
    parse_manifest,
    read_manifest,
)
from converter.format.schema import Column
from converter.names import fit_message, show_name
from converter.storage.files import hash_bytes, name_shard


def describe_shard(name: str, split: str, records: int) -> ShardInfo:
    return ShardInfo(
        name=f"{name}.tfrecord", split=split, records=records, bytes=100 * records,
        sha256="ab", index_bytes=10, index_sha256="cd", max_record_bytes=100,
    )  # fmt: skip


MANIFEST = Manifest(
    generator="shardmill 0.1.0",
    options={"seed": 7},
    plan="ef",
    classes=("ant", "b\udcff"),
    image=ImageInfo(
        height=8, width=None, max_height=8, max_width=9, channels=3, formats={"png": 9}
    ),
    splits={
        "train": SplitInfo(records=7, bytes=700, shards=2, labels=(3, 4)),
        "test": SplitInfo(records=2, bytes=200, shards=1, labels=(2, 0)),
    },
    shards=(
        describe_shard("a", "train", 4),
        describe_shard("b", "train", 3),
        describe_shard("c", "test", 2),
    ),
    files={"labels.txt": FileInfo(bytes=6, sha256="01")},
    totals=Totals(scanned=14, written=9, rejected={"empty": 2}, skipped={"skipped_link": 3}),
)

DATA = MANIFEST.to_bytes()
WAY_OUT = "; copy the data set again, or convert it again with --overwrite"
CONTENT = {key: value for key, value in json.loads(DATA).items() if key != "digest"}


def dump(content) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def sign(content: dict) -> bytes:
    """A manifest with that content whose digest is right, as an attacker would make it."""
    return dump({**content, "digest": hashlib.sha256(dump(content)).hexdigest()})


def change(path: tuple, value) -> dict:
    """A copy of the content with one value changed."""
    content = copy.deepcopy(CONTENT)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return content


def list_places(value, path: tuple = ()):
    """The path of every value in the content, from the outside in."""
    if path:
        yield path
    match value:
        case dict():
            keys = list(value)
        case list():
            keys = range(len(value))
        case _:
            keys = []
    for key in keys:
        yield from list_places(value[key], (*path, key))


def test_a_manifest_reads_back(tmp_path):
    (tmp_path / "manifest.json").write_bytes(DATA)
    assert read_manifest(tmp_path) == MANIFEST
    assert parse_manifest(DATA).to_bytes() == DATA


def test_the_file_is_the_documented_one():
    assert json.loads(DATA) == {
        "format": "shardmill",
        "format_version": "1.0",
        **json.loads(json.dumps(dataclasses.asdict(MANIFEST))),
        "digest": hashlib.sha256(dump(CONTENT)).hexdigest(),
    }
    assert sign(CONTENT) == DATA


def test_shards_are_listed_by_split():
    assert MANIFEST.list_shards("train") == MANIFEST.shards[:2]
    assert MANIFEST.list_shards("test") == MANIFEST.shards[2:]
    assert MANIFEST.total_bytes == 900
    with pytest.raises(DatasetError, match=r"^no split 'dev': .* train, test$"):
        MANIFEST.list_shards("dev")


def test_every_flipped_bit_is_found():
    for bit in range(8 * len(DATA)):
        damaged = bytearray(DATA)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DatasetError):
            parse_manifest(bytes(damaged))


def test_every_cut_is_found():
    for size in range(len(DATA)):
        with pytest.raises(DatasetError, match=r"^manifest\.json is "):
            parse_manifest(DATA[:size])


@pytest.mark.parametrize(
    "data",
    [DATA + b"\n", b" " + DATA, b"\xef\xbb\xbf" + DATA, DATA.decode().encode("utf-16")],
    ids=["line", "space", "bom", "utf-16"],
)
def test_the_same_content_in_other_bytes_is_refused(data):
    with pytest.raises(DatasetError, match=r"^manifest\.json is damaged: "):
        parse_manifest(data)


@pytest.mark.parametrize("spaces", [0, 2, None])
def test_other_spaces_are_refused_and_so_is_a_digest_that_is_not_last(spaces):
    first = {"digest": json.loads(DATA)["digest"], **CONTENT}
    for content in (json.loads(DATA), first):
        data = json.dumps(content, indent=spaces).encode() + b"\n"
        with pytest.raises(DatasetError, match=r"^manifest\.json is damaged: .* digest"):
            parse_manifest(data)
    with pytest.raises(DatasetError, match=r"^manifest\.json is damaged: .* digest"):
        parse_manifest(dump(first))


def test_writing_and_reading_hold_little_more_than_the_manifest_itself():
    names = [name_shard("train", number, 5_000) for number in range(5_000)]
    shard = describe_shard("", "train", 2)
    shards = tuple(
        dataclasses.replace(shard, name=name, sha256=hash_bytes(name.encode()), index_sha256="")
        for name in names
    )
    split = SplitInfo(records=10_000, bytes=1_000_000, shards=5_000, labels=(4_000, 6_000))
    totals = Totals(scanned=10_000, written=10_000, rejected={}, skipped={})
    large = dataclasses.replace(MANIFEST, shards=shards, splits={"train": split}, totals=totals)
    data = large.to_bytes()
    # The text beside the bytes, and what it is parsed into; without care it is ten times as much.
    with limit_memory(6 * len(data)):
        large.to_bytes()
    with limit_memory(5 * len(data)):
        parse_manifest(data)


def test_an_edited_manifest_is_refused():
    with pytest.raises(DatasetError, match=rf"^m is damaged: .* digest.*{WAY_OUT}$"):
        parse_manifest(DATA.replace(b'"seed": 7', b'"seed": 8'), "m")


def test_a_newer_major_version_is_named():
    with pytest.raises(DatasetError, match=r"^m has format version 2\.0; .* 1\.x: "):
        parse_manifest(sign({**CONTENT, "format_version": "2.0", "unheard": "of"}), "m")


@pytest.mark.parametrize("place", [(), ("image",), ("shards", 0), ("splits", "train"), ("totals",)])
def test_a_newer_minor_version_may_say_more(place):
    content = change((*place, "unheard"), "of")
    assert parse_manifest(sign({**content, "format_version": "1.7"})) == MANIFEST


@pytest.mark.parametrize("version", ["1", "one", "", None, "1.0\n", "-1.0", "1.0.0"])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(
        DatasetError, match=f"^manifest.json is damaged: format_version {re.escape(repr(version))} "
    ):
        parse_manifest(sign({**CONTENT, "format_version": version}))


@pytest.mark.parametrize("data", [b"{}", b"[]", b"3", b'"shardmill"', b'{"format": "other"}'])
def test_another_json_file_is_refused(data):
    with pytest.raises(DatasetError, match=r"^m is not the manifest"):
        parse_manifest(data, "m")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"\x80", "codec can't decode byte"),
        (b'{"format": "shardmill", "format": "shardmill"}', "a key appears twice in one object"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b'{"format": -Infinity}', "-Infinity is not JSON"),
        (b"[" * 1_000_000, "recursion"),
        (b'{"a":' * 1_000_000, "recursion"),
        (b'{"format": ' + b"9" * 10_000 + b"}", "integer string conversion"),
        (b'{"format": "shardmill"}', "'format_version' is missing"),
        (dump(CONTENT), "'digest' is missing"),
        (dump({**CONTENT, "digest": None}), "the content does not match its digest"),
    ],
)
def test_hostile_json_is_refused(data, message):
    with pytest.raises(DatasetError, match=f"^m is damaged: .*{message}"):
        parse_manifest(data, "m")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "train 7 records, test 2; 2 classes; up to 8x9 png"),
        ({"image": {"width": 9}}, "train 7 records, test 2; 2 classes; 8x9 png"),
        (
            {"image": {"max_height": 0, "formats": {"png": 4, "jpeg": 5}}},
            "train 7 records, test 2; 2 classes; png, jpeg",
        ),
        ({"labelled": False, "classes": ()}, "train 7 records, test 2; up to 8x9 png"),
        (
            {"columns": (Column("image/caption", "text"),), "classes": ("ant",)},
            "train 7 records, test 2; 1 class; 1 column; up to 8x9 png",
        ),
        (
            {"splits": {f"s{n}": SplitInfo(records=1_000, bytes=9, shards=1, labels=())
                        for n in range(9)}},
            "s0 1,000 records, s1 1,000, s2 1,000, s3 1,000 and 5 more; 2 classes; up to 8x9 png",
        ),
        (
            {"splits": {"fold": SplitInfo(records=1, bytes=9, shards=1, labels=())}},
            "fold 1 record; 2 classes; up to 8x9 png",
        ),
        ({"splits": {}, "image": {"max_width": 0, "formats": {}}}, "2 classes"),
    ],
)  # fmt: skip
def test_a_manifest_is_shown_as_one_line(changes, shown):
    image = dataclasses.replace(MANIFEST.image, **changes.get("image", {}))
    manifest = dataclasses.replace(MANIFEST, **changes | {"image": image})
    assert repr(manifest) == f"Manifest({shown})"


def test_a_hostile_manifest_is_shown_as_one_short_line():
    most = 2**63 - 1
    splits = {
        f"{'x' * 250}{n}": SplitInfo(records=most, bytes=most, shards=most, labels=())
        for n in range(5_000)
    }
    formats = {"\x1b[2J\n\udcff" + "\U0010ffff" * 90 + str(n): most for n in range(5_000)}
    image = dataclasses.replace(
        MANIFEST.image, formats=formats, width=None, max_height=most, max_width=most
    )
    shown = repr(dataclasses.replace(MANIFEST, splits=splits, image=image))
    assert shown.isprintable()
    assert len(shown) < 500


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("photos-256", "photos-256"),
        ("été", "été"),
        ("a\n\x1b[2Jb\udcff", "a\\n\\x1b[2Jb\\udcff"),
        ("x" * 120, "x" * 120),
        (f"{'x' * 120}y", f"…{'x' * 118}y"),
        ("\n" * 120, "…n" + "\\n" * 59),
    ],
)
def test_of_a_long_name_the_end_is_shown(name, shown):
    assert show_name(name) == shown


NAMES_THAT_LEAD_OUT = [
    "../a.tfrecord", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\0b", "a\n", "a\\b",
    "C:a", "ü.tfrecord", "x" * 256, 3, None, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES_THAT_LEAD_OUT, ids=repr)
def test_a_shard_outside_the_folder_is_refused(name):
    with pytest.raises(DatasetError, match=rf"not a (safe|string).*{WAY_OUT}$"):
        parse_manifest(sign(change(("shards", 0, "name"), name)))


@pytest.mark.parametrize("name", [name for name in NAMES_THAT_LEAD_OUT if isinstance(name, str)])
def test_a_file_or_split_outside_the_folder_is_refused(name):
    message = re.escape(fit_message(f"{name!r} is not a safe"))
    with pytest.raises(DatasetError, match=message):
        parse_manifest(sign({**CONTENT, "files": {name: {"bytes": 1, "sha256": ""}}}))
    content = change(("shards", 2, "split"), name)
    content["splits"][name] = content["splits"].pop("test")
    with pytest.raises(DatasetError, match=message):
        parse_manifest(sign(content))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("shards", 1, "name"), "a.tfrecord", "a shard is listed twice"),
        (("shards", 1, "split"), "dev", "the shards of split train do not add up to it"),
        (("shards", 1, "records"), 4, "the shards of split train do not add up to it"),
        (("shards", 1, "bytes"), 301, "the shards of split train do not add up to it"),
        (("splits", "train", "shards"), 3, "the shards of split train do not add up to it"),
        (("splits", "train", "labels"), [4, 4], "the labels of split train do not add up to it"),
        (("splits", "train", "labels"), [7], "the labels of split train do not add up to it"),
        (("classes",), ["ant"], "the labels of split train do not add up to it"),
        (("totals", "scanned"), 15, "its totals do not add up"),
        (("totals", "written"), 8, "its totals do not add up"),
        (("totals", "rejected", "empty"), 3, "its totals do not add up"),
        (("totals", "skipped"), {}, "its totals do not add up"),
        (("shards", 0, "max_record_bytes"), -1, "-1 is not a count"),
        (("shards", 0, "index_bytes"), 2**63, "9223372036854775808 is not a count"),
        (("shards", 0, "index_bytes"), 153, "153 is out of range: up to 152"),
        (("shards", 0, "max_record_bytes"), 401, "401 is out of range: up to 400"),
        (("image", "max_height"), 2**31, "2147483648 is out of range: up to 2147483647"),
        (("image", "width"), 2**31, "2147483648 is out of range: up to 2147483647"),
        (("image", "channels"), 5, "5 is out of range: up to 4"),
        (("image", "channels"), 3.0, "3.0 is not a count"),
        (("image", "height"), True, "True is not a count"),
        (("generator",), 1, "1 is not a string"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(path, value, message):
    message = f"^manifest.json is damaged: {re.escape(message)}{WAY_OUT}$"
    with pytest.raises(DatasetError, match=message):
        parse_manifest(sign(change(path, value)))


def test_a_shard_cannot_hold_more_records_than_their_framing_takes():
    content = change(("shards", 0, "records"), 26)
    content["splits"]["train"].update(records=29, labels=[25, 4])
    content["totals"].update(scanned=36, written=31)
    with pytest.raises(DatasetError, match=r"^manifest.json is damaged: 26 records .* 400 bytes"):
        parse_manifest(sign(content))


def test_a_record_beyond_what_protobuf_parses_is_refused():
    content = change(("shards", 0, "bytes"), 2**31)
    content["shards"][0]["max_record_bytes"] = 2**31
    content["splits"]["train"]["bytes"] += 2**31 - 400
    with pytest.raises(DatasetError, match=r"^manifest.json is damaged: 2147483648 .* 2147483647"):
        parse_manifest(sign(content))


def test_many_splits_take_no_longer_to_check_than_one():
    shard, count, manifests = describe_shard("a", "s0", 1), 5_000, {}
    for splits in (1, count):
        each = SplitInfo(records=count // splits, bytes=count // splits * 100,
                         shards=count // splits, labels=())  # fmt: skip
        shards = tuple(
            dataclasses.replace(shard, name=f"{n}.tfrecord", split=f"s{n % splits}")
            for n in range(count)
        )
        manifests[splits] = dataclasses.replace(
            MANIFEST, classes=(), labelled=False, splits={f"s{n}": each for n in range(splits)},
            shards=shards, totals=Totals(scanned=count, written=count, rejected={}, skipped={}),
        ).to_bytes()  # fmt: skip
    times = dict.fromkeys(manifests, math.inf)
    # The least of some, because other processes and the garbage of other tests take time, too.
    for splits in (1, count) * 8:
        begin = time.thread_time()
        parse_manifest(manifests[splits])
        times[splits] = min(times[splits], time.thread_time() - begin)
        if times[count] < 8 * times[1] < math.inf:
            break
    assert times[count] < 8 * times[1]  # 20 times as long if each split went through all shards


def test_an_error_does_not_quote_all_of_a_long_value():
    with pytest.raises(DatasetError, match=r"^m is damaged: 'xxxx") as caught:
        parse_manifest(sign(change(("shards", 0, "name"), "x" * 1_000_000)), "m")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, True, -1, 2**63, 1.5, "ab", [], ["a"], {}, {"a": 1}])
def test_a_value_of_another_type_is_refused_or_kept_as_it_is(value):
    for path in list_places(CONTENT):
        data = sign(change(path, value))
        try:
            manifest = parse_manifest(data)
        except DatasetError:
            continue
        assert manifest.to_bytes() == data, path


def test_a_missing_value_is_refused():
    free = [("options", "seed"), ("image", "formats", "png"), ("files", "labels.txt")]
    free += [("updated",), ("columns",), ("labelled",), ("totals", "frames")]
    for path in list_places(CONTENT):
        content = copy.deepcopy(CONTENT)
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        del parent[path[-1]]
        if path not in free:
            with pytest.raises(DatasetError):
                parse_manifest(sign(content))


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match=f"^{re.escape(str(tmp_path))} is no finished"):
        read_manifest(tmp_path)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(
        DatasetError,
        match=f"^{re.escape(str(tmp_path))}/manifest.json is not a file: .*--overwrite$",
    ):
        read_manifest(tmp_path)


def test_a_vast_manifest_is_refused(tmp_path):
    with open(tmp_path / "manifest.json", "wb") as file:
        file.truncate(10 * 2**30)
    sizes = f"10,737,418,240 bytes, at most {MAX_MANIFEST_BYTES:,}"
    with pytest.raises(
        DatasetError, match=f"^{re.escape(str(tmp_path))}/manifest.json has {sizes}: .*--overwrite$"
    ):
        read_manifest(tmp_path)
