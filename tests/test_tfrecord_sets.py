"""TFRecord files from anyone, as TensorFlow writes them: guessed, named, damaged and hostile.

What becomes of each hostile record is in a golden file:

python tests/test_tfrecord_sets.py > tests/golden_records.tsv
"""

import gzip
import json
import os
import re
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
from conftest import convert_folder, encode_image, limit_memory, make_image
from test_features import entry, field, image_entry

from converter.errors import DatasetError, UsageError
from converter.format import schema
from converter.format.examples import encode_example
from converter.format.indexing import index_shard
from converter.format.manifest import read_manifest
from converter.format.tfrecords import compute_masked_crc, frame_record
from converter.options import ConvertOptions
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.disk import DiskPath
from converter.storage.files import REJECTS
from converter.upkeep.verification import verify_dataset
from pipelines import convert
from pipelines.cli.commands import main
from pipelines.jobs.upkeep import repair, verify
from reader import open_shards

GOLDEN = Path(__file__).with_name("golden_records.tsv")
IN_MEMORY = ["--direct_running_mode=in_memory"]
SMALL = ConvertOptions(image_size=(8, 8))


def make_features(n: int, **more) -> dict:
    image = encode_image(make_image(n), "JPEG" if n % 2 else "PNG")
    return {"image_raw": image, "label": n % 3, "height": 24, "width": 32, **more}


def write_file(path: Path, features: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(frame_record(encode_example(each)) for each in features))
    return path


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 8), ("validation", 4)):
        for shard in range(2):
            records = [make_features(n + 10 * shard + len(split)) for n in range(count // 2)]
            write_file(tmp_path / "data" / f"{split}-{shard:05}-of-00002", records)
    return tmp_path / "data"


def test_files_of_tensorflow_are_read(tmp_path):
    tf = pytest.importorskip("tensorflow")
    images = {}
    for split in ("train", "test"):
        path = str(tmp_path / f"flowers_{split}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for n in range(5):
                images[f"{split}/{n}.png"] = data = encode_image(make_image(n), "PNG")
                writer.write(make_tensorflow_example(tf, data, n, f"{split}/{n}.png"))
    inventory = scan_images(tmp_path)
    # In the order of the numbers, not of the names.
    assert inventory.classes == ("zebra", "ant", "bee")
    options = ConvertOptions(resize="none", encoding="keep")
    convert_folder(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", options)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    for split in ("train", "test"):
        for record in open_shards(out).source(split):
            assert record.encoded == images[record.source_id]
            n = int(record.source_id[-5])
            assert record.label == n % 3
            assert record.values[schema.CAPTION] == f"Bild {n} ü"
            boxes = [(0.125, 0.25, 0.5, 0.75)] * (n % 3)
            assert record.values[schema.BOXES] == boxes
            assert record.values[schema.BOX_LABELS] == [2] * (n % 3)
    assert verify_dataset(out, originals=tmp_path) == []


def make_tensorflow_example(tf, data: bytes, n: int, name: str) -> bytes:
    def of_bytes(*values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def of_floats(value):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value] * (n % 3)))

    feature = {
        "image/encoded": of_bytes(data),
        "image/filename": of_bytes(name.encode()),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[n % 3 + 5])),
        "image/class/text": of_bytes([b"zebra", b"ant", b"bee"][n % 3]),
        "image/caption": of_bytes(f"Bild {n} ü".encode()),
        "image/object/bbox/ymin": of_floats(0.125),
        "image/object/bbox/xmin": of_floats(0.25),
        "image/object/bbox/ymax": of_floats(0.5),
        "image/object/bbox/xmax": of_floats(0.75),
        "image/object/class/text": of_bytes(*[b"bee"] * (n % 3)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString()


def test_what_is_guessed_is_shown(folder, tmp_path, capsys):
    assert main(["plan", str(folder), str(tmp_path / "out"), "--image-size=8"]) == 0
    shown = capsys.readouterr().out
    assert "tfrecord, image 'image_raw', label 'label'; leaves out height, width" in shown


def test_a_folder_a_file_and_a_pattern(folder):
    inventory = scan_images(folder)
    assert inventory.classes == ("0", "1", "2")
    assert [entry.split for entry in inventory.entries] == ["train"] * 8 + ["validation"] * 4
    assert inventory.entries[0].path == "train-00000-of-00002/00000000"
    pattern = scan_images(folder / "train-*")
    assert [entry.path for entry in pattern.entries] == [
        entry.path for entry in inventory.entries if entry.split == "train"
    ]
    single = scan_images(folder / "train-00001-of-00002", ConvertOptions(source="tfrecord"))
    assert len(single.entries) == 4
    drawn = scan_images(folder, ConvertOptions(split_folders="no"))
    assert {entry.split for entry in drawn.entries} == {""}


def test_splits_are_those_of_all_names_or_of_none(folder):
    write_file(folder / "more.tfrecord", [make_features(70)])
    assert {entry.split for entry in scan_images(folder).entries} == {""}
    asked = scan_images(folder, ConvertOptions(split_folders="yes"))
    assert {entry.split for entry in asked.entries} == {"train", "validation", ""}


def test_features_are_named_by_flags(tmp_path):
    records = [
        make_features(n, picture=encode_image(make_image(n + 50), "PNG"), city=b"c%d" % (n % 2),
                      story=b"story %d" % n)
        for n in range(6)
    ]  # fmt: skip
    write_file(tmp_path / "a.tfrecord", records)
    flags = ["--image-column=picture", "--label-column=city", "--caption-column=story"]
    flags += ["--resize=none", "--encoding=keep", "--keep-column=height", "--quiet", *IN_MEMORY]
    assert main(["convert", str(tmp_path / "a.tfrecord"), str(tmp_path / "out"), *flags]) == 0
    shards = open_shards(tmp_path / "out")
    assert shards.class_names == ["c0", "c1"]
    for record in shards.source("train"):
        n = int(record.source_id[-8:])
        assert record.encoded == records[n]["picture"]
        assert record.values == {schema.CAPTION: f"story {n}", "height": 24}
    stored = read_manifest(tmp_path / "out").options
    assert (stored["image_column"], stored["label_column"]) == ("picture", "city")


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["a/1.jpg", "a/2.jpg", "b.jpg"], True),
        (["a.jpg", "a.jpg", "b.jpg"], False),  # not unique
        (["/etc/a.jpg", "b.jpg", "c.jpg"], False),
        (["../a.jpg", "b.jpg", "c.jpg"], False),
        ([b"\xff.jpg", "b.jpg", "c.jpg"], True),  # not UTF-8
        ([7, 8, 9], False),
    ],
)
def test_images_are_called_by_unique_names_alone(tmp_path, names, named):
    values = [name.encode() if isinstance(name, str) else name for name in names]
    records = [make_features(n, filename=value) for n, value in enumerate(values)]
    write_file(tmp_path / "x.tfrecord", records)
    paths = [entry.path for entry in scan_images(tmp_path / "x.tfrecord").entries]
    if named:
        shown = [v.decode("utf-8", "surrogateescape") for v in values]
        assert sorted(paths) == sorted(shown)
    else:
        assert paths == [f"x.tfrecord/{n:08}" for n in range(3)]


def test_names_that_are_not_one_a_number_do_not_name_classes(tmp_path):
    records = [make_features(n, label_name=f"name {n}".encode()) for n in range(6)]
    write_file(tmp_path / "x.tfrecord", records)
    assert scan_images(tmp_path / "x.tfrecord").classes == ("0", "1", "2")
    records = [make_features(n, label_name=b"zyx"[n % 3 : n % 3 + 1]) for n in range(6)]
    write_file(tmp_path / "x.tfrecord", records)
    assert scan_images(tmp_path / "x.tfrecord").classes == ("z", "y", "x")


def test_lists_are_lists_in_every_row(tmp_path):
    records = [
        make_features(n, sizes=[1.0] * (n % 3), one=n, tags=[b"a", b"b"][: n % 3]) for n in range(5)
    ]
    types = {"sizes": float, "tags": bytes}
    data = b"".join(frame_record(encode_example(each, types)) for each in records)
    (tmp_path / "x.tfrecord").write_bytes(data)
    options = ConvertOptions(labels_column="tags", keep_columns=("sizes", "one"))
    inventory = scan_images(tmp_path / "x.tfrecord", options)
    assert [(column.name, column.kind) for column in inventory.columns] == [
        (schema.LABELS, "labels"), ("sizes", "floats"), ("one", "int"),
    ]  # fmt: skip


def test_damage_is_named_and_what_came_before_stays(folder, tmp_path):
    file = folder / "train-00000-of-00002"
    bounds = [0]
    for n in range(4):
        bounds.append(bounds[-1] + len(frame_record(encode_example(make_features(n + 5)))))
    data = bytearray(file.read_bytes())
    assert len(data) == bounds[-1]
    data[bounds[0] + 100] ^= 1  # in an image
    data[bounds[2]] ^= 1  # a length: nothing behind it can be found
    file.write_bytes(data)
    convert_folder(folder, tmp_path / "out", SMALL)
    totals = read_manifest(tmp_path / "out").totals
    assert (totals.scanned, totals.written, totals.rejected) == (11, 9, {"decode_error": 2})
    lines = [json.loads(line) for line in (tmp_path / "out" / REJECTS).read_text().splitlines()]
    details = {line["path"]: line["detail"] for line in lines}
    assert f"{file.name}, record at byte 0: checksum" in details[f"{file.name}/00000000"]
    assert f"{file.name} record 2: byte {bounds[2]}: checksum" in details[f"{file.name}/00000002"]
    assert "behind it" in details[f"{file.name}/00000002"]


def test_an_index_finds_what_is_behind_damage(folder):
    file = folder / "train-00000-of-00002"
    index_shard(file)
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    inventory = scan_images(folder)
    assert (len(inventory.entries), len(inventory.rejected), inventory.skipped) == (11, 1, ())


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_compressed_files_are_one_line(folder, pack):
    for file in folder.iterdir():
        file.write_bytes(pack(file.read_bytes()))
    with pytest.raises(DatasetError, match=r"is compressed.*decompress"):
        scan_images(folder)


def test_one_compressed_file_among_others_is_one_line(folder):
    file = folder / "validation-00001-of-00002"
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(DatasetError, match=r"is compressed.*decompress"):
        scan_images(folder)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"image_raw": b"\0" * 784, "height": 28, "width": 28}],
         r"no feature that begins like an image.*height \(int64\), image_raw \(bytes\)"),
        ([{"a": encode_image(make_image(1)), "b": encode_image(make_image(2))}],
         r"2 features that begin.*a \(bytes\), b \(bytes\)"),
        ([], "no record"),
        ([{}], "found: none"),
    ],
)  # fmt: skip
def test_no_image_is_one_line_with_what_was_found(tmp_path, records, message):
    write_file(tmp_path / "x.tfrecord", records)
    with pytest.raises(UsageError, match=message) as caught:
        scan_images(tmp_path / "x.tfrecord")
    assert "\n" not in str(caught.value)


def test_what_is_no_example_is_one_line(tmp_path):
    sequence = encode_example(make_features(1)) + field(2, b"lists")
    (tmp_path / "x.tfrecord").write_bytes(frame_record(sequence))
    with pytest.raises(UsageError, match="SequenceExample"):
        scan_images(tmp_path / "x.tfrecord")
    (tmp_path / "x.tfrecord").write_bytes(b"a letter to someone, which is longer than a header")
    with pytest.raises(UsageError, match=r"no record of a tf\.train"):
        scan_images(tmp_path / "x.tfrecord")


@pytest.mark.parametrize("option", ["image_column", "label_column", "mask_column"])
def test_a_feature_that_is_missing_is_named_with_those_there(folder, option):
    with pytest.raises(UsageError, match=r"'nothing'.*height"):
        scan_images(folder, ConvertOptions(**{option: "nothing"}))


def frame_length(length: int) -> bytes:
    header = length.to_bytes(8, "little")
    return header + compute_masked_crc(header).to_bytes(4, "little")


GOOD = encode_example(make_features(0))
HOSTILE = {
    "label NaN": frame_record(encode_example(make_features(1, label=float("nan")))),
    "label list": frame_record(encode_example(make_features(1, label=[1, 2]))),
    "no label": frame_record(encode_example({"image_raw": b"\xff\xd8\xff"})),
    "no image": frame_record(encode_example({"label": 1})),
    "two images": frame_record(encode_example(make_features(1, image_raw=[b"a", b"b"]))),
    "no Example": frame_record(b"\xff" * 50),
    "nothing": frame_record(b""),
    "8 EB field": frame_record(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "negative field": frame_record(b"\x0a" + b"\xff" * 9 + b"\x01"),
    "a million features": frame_record(
        field(1, b"".join(image_entry(b"%d" % n, b"") for n in range(1_000_000)))
    ),
    "name not UTF-8": frame_record(field(1, entry(b"\xff", b""))),
    "2 GB": frame_length(2**31),
    "8 EB": frame_length(2**63 - 1),
    "more than 8 EB": frame_length(2**64 - 1),
    "cut header": b"\1\2\3",
    "cut record": frame_record(GOOD)[:-9],
    "SequenceExample": frame_record(GOOD + field(2, b"lists")),
}  # fmt: skip


def convert_hostile(folder: Path, name: str) -> str:
    """A line of the golden file, and what scanning takes is bounded."""
    path = folder / "x.tfrecord"
    path.write_bytes(frame_record(GOOD) * 2 + HOSTILE[name])
    with limit_memory(32 << 20):
        inventory = scan_images(path)
    assert (len(inventory.entries), inventory.scanned) == (2, 3)
    (line,) = inventory.rejected
    assert line.path == "x.tfrecord/00000002"
    # What follows is protobuf's own, and differs between its versions.
    return f"{name}\t{line.code}\t{re.sub('Example: .*', 'Example', line.detail)}"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_have_the_outcome_in_the_golden_file(tmp_path, name):
    assert convert_hostile(tmp_path, name) in GOLDEN.read_text().splitlines()


def test_a_record_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "x.tfrecord"
    name, size = b"image_raw", 3 << 30
    value = field(1, name) + field_head(2, list_size := size + 24) + field_head(1, list_size - 6)
    head = field_head(1, len(value) + size) + value
    del list_size
    payload_bytes = len(head) + size
    with open(path, "wb") as file:
        file.write(frame_record(GOOD) + frame_length(payload_bytes) + head)
        file.seek(payload_bytes - len(head) + 4, 1)
        file.truncate(file.tell())
        file.seek(0, 2)
        file.write(frame_record(GOOD))
    with limit_memory(32 << 20):
        inventory = scan_images(path)
    assert (len(inventory.entries), len(inventory.rejected)) == (2, 1)


def field_head(number: int, size: int) -> bytes:
    from test_features import varint

    return bytes([number << 3 | 2]) + varint(size)


def test_update_verify_and_repair(folder, tmp_path):
    convert(folder, tmp_path / "out", SMALL, IN_MEMORY)
    assert verify(tmp_path / "out", sources=folder) == []
    write_file(folder / "train-00000-of-00002", [make_features(n + 5) for n in range(5)])
    convert(folder, tmp_path / "out", None, IN_MEMORY, mode="update")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.totals.written, manifest.updated) == (13, 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / manifest.shards[0].name).unlink()
    result = repair(tmp_path / "out", folder, IN_MEMORY)
    assert (result.left, result.unknown) == ((), ())
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_class_folders_and_tables_stay_what_they_are(tmp_path):
    images = tmp_path / "images" / "cats"
    images.mkdir(parents=True)
    (images / "1.png").write_bytes(encode_image(make_image(1), "PNG"))
    write_file(tmp_path / "images" / "left-over.tfrecord", [make_features(1)])
    assert resolve_options(tmp_path / "images", ConvertOptions()).source == "folders"
    shutil.rmtree(images)
    assert resolve_options(tmp_path / "images", ConvertOptions()).source == "tfrecord"


def test_other_files_are_accounted_for_and_pipes_are_not_waited_for(folder):
    (folder / "README").write_text("mine")
    os.mkfifo(folder / "pipe.tfrecord")
    options = ConvertOptions(source="tfrecord")
    inventory = scan_images(folder, options)
    assert [(line.path, line.code) for line in inventory.skipped] == [
        ("README", "skipped_extension"), ("pipe.tfrecord", "skipped_special"),
    ]  # fmt: skip
    assert inventory.scanned == 14
    with pytest.raises(UsageError, match="not a file"):
        scan_images(folder / "pipe.tfrecord", options)


if __name__ == "__main__":
    for hostile in HOSTILE:
        with tempfile.TemporaryDirectory() as scratch:
            print(convert_hostile(DiskPath(scratch), hostile))
