"""Tars of samples that the library WebDataset wrote become the data set that it reads."""

import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
import tarfile
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    convert_folder,
    encode_image,
    limit_memory,
    make_image,
    read_tree,
    run_conversion,
    write_folder,
    write_image,
)
from PIL import Image
from servers import upload_tree

from converter.commits.commit import list_finished
from converter.errors import OutputError, UsageError
from converter.format.manifest import read_manifest
from converter.inventory import NOTES
from converter.options import ConvertOptions
from converter.planning.plan import read_plan
from converter.sources import archives, webdataset
from converter.sources.originals import read_entry
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.disk import DiskPath
from pipelines import convert, convert_sizes
from pipelines.cli.commands import main
from pipelines.jobs.upkeep import repair, verify
from reader import open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3, dedupe="report")
MASKED = dataclasses.replace(OPTIONS, mask_column="seg.png")
IN_MEMORY = ["--direct_running_mode=in_memory"]
CLASSES = ["ant", "bee", "cow"]


def write_samples(folder: Path, count: int = 10, pattern: str = "train-%06d.tar", **more) -> Path:
    """Tars of four samples each, as the library writes them."""
    wds = pytest.importorskip("webdataset")
    folder.mkdir(parents=True, exist_ok=True)
    with wds.ShardWriter(str(folder / pattern), maxcount=4, verbose=0) as writer:
        for number in range(count):
            writer.write({"__key__": f"{number:06}", **make_sample(number), **more})
    return folder


def make_sample(number: int) -> dict[str, object]:
    return {
        "jpg": encode_image(make_image(number)),
        "cls": number % 3,
        "txt": f"text {number} é\nof two lines",
        "json": {"age": number, "weight": number / 2, "name": f"x{number}", "deep": {"a": 1}},
        "npy": np.arange(number),
    }


def write_tar(path: Path, *members: tuple, compression: str = "") -> Path:
    """A tar of members: names with contents, or with the traits of a `TarInfo`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for trait, value in content.items():
                    setattr(info, trait, value)
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, seed: int = 0, label: str = "1") -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", encode_image(make_image(seed))), (f"{key}.cls", label.encode())]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three tars of ten samples."""
    return write_samples(tmp_path_factory.mktemp("shards"))


def read_with_library(tars: list[Path]) -> dict[str, dict[str, object]]:
    """The samples of tars by tar and key."""
    library = pytest.importorskip("webdataset.tariterators")
    samples = {}
    for path in tars:
        with open(path, "rb") as file:
            stream = [{"url": path.name, "stream": file}]
            for found in library.group_by_keys(library.tar_file_expander(stream)):
                samples[f"{found['__url__']}/{found['__key__']}"] = found
    return samples


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_records_are_what_the_library_reads(shards, tmp_path):
    options = ConvertOptions(
        resize="none", encoding="png", keep_columns=("age", "weight", "name", "__key__")
    )
    conversion = run_conversion(shards, tmp_path / "out", options, IN_MEMORY)
    totals = conversion.manifest.totals
    assert (totals.written, totals.rejected) == (10, {})
    expected = read_with_library(sorted(shards.glob("*.tar")))
    assert len(expected) == 10
    seen = set()
    source = open_shards(tmp_path / "out").source("train")
    for record in source:
        key = record.source_id.removesuffix(".jpg")
        found = expected[key]
        values = json.loads(found["json"])
        assert record.text == found["cls"].decode()
        assert record.values["image/caption"] == found["txt"].decode()
        assert {name: record.values[name] for name in ("age", "weight", "name")} == {
            name: values[name] for name in ("age", "weight", "name")
        }
        assert record.values["__key__"] == found["__key__"]
        pixels = decode(found["jpg"])
        np.testing.assert_array_equal(decode(record.encoded), pixels)
        seen.add(key)
    assert seen == expected.keys()


def test_the_labels_are_the_numbers_where_none_is_missing(shards, tmp_path):
    convert_folder(shards, tmp_path / "out", OPTIONS)
    assert read_manifest(tmp_path / "out").classes == ("0", "1", "2")


def test_what_follows_from_the_first_sample_is_stored_and_stays(shards, tmp_path):
    options = resolve_options(shards, ConvertOptions())
    implied = (options.source, options.label_column, options.caption_column)
    assert implied == ("webdataset", "cls", "txt")
    assert resolve_options(shards, options) == options
    given = ConvertOptions(label_column="name", keep_columns=("txt",))
    options = resolve_options(shards, given)
    assert (options.label_column, options.caption_column) == ("name", None)
    convert_folder(shards, tmp_path / "out", OPTIONS)
    assert read_manifest(tmp_path / "out").options["source"] == "webdataset"


def test_plan_says_what_was_found(shards, tmp_path, capsys):
    assert main(["plan", str(shards), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "webdataset, 3 tars, image 'jpg', label 'cls', caption 'txt'" in said
    assert NOTES["unused_part"] in said
    assert ".json" in said
    assert ".npy" in said


@pytest.mark.parametrize(
    "images", ["shards", "shards/train-000001.tar", "shards/train-{000000..000002}.tar", "s*/*.tar"]
)
def test_a_tar_a_folder_and_a_pattern_are_recognized(images, shards, tmp_path):
    shutil.copytree(shards, tmp_path / "shards")
    inventory = scan_images(tmp_path / images, OPTIONS)
    assert len(inventory.entries) == (4 if "1.tar" in images else 10)
    assert inventory.columns[0].name == "image/caption"
    for entry in inventory.entries:
        seed = int(entry.path[-10:-4])
        root = resolve_root(tmp_path / images, shards)
        assert read_entry(entry, root) == encode_image(make_image(seed))


def resolve_root(images: DiskPath, shards: DiskPath) -> DiskPath:
    from converter.sources.inputs import locate_root

    return locate_root(images, resolve_options(images, OPTIONS))


def test_splits_come_from_folders_and_from_names_of_tars(tmp_path):
    for split in ("train", "val", "Test"):
        write_samples(tmp_path / "folders" / split, 5, "%03d.tar")
        write_samples(tmp_path / "names", 5, f"photos-{split}-%03d.tar")
    for images in ("folders", "names"):
        entries = scan_images(tmp_path / images, OPTIONS).entries
        splits = {entry.file: entry.split for entry in entries}
        assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2
        assert all({"validation": "val"}.get(s, s) in file.lower() for file, s in splits.items())
        assert len({entry.path for entry in entries}) == 15  # the same keys in each split
    write_samples(tmp_path / "names", 2, "extra-%03d.tar")
    with pytest.raises(UsageError, match=r"'extra-000\.tar' does not"):
        scan_images(tmp_path / "names", OPTIONS)
    ignored = dataclasses.replace(OPTIONS, split_folders="no")
    assert {entry.split for entry in scan_images(tmp_path / "names", ignored).entries} == {""}


def test_names_without_splits_are_none(tmp_path):
    write_samples(tmp_path / "one", 2, "stress-test-%d.tar")
    write_samples(tmp_path / "one", 2, "other-%d.tar")
    assert {entry.split for entry in scan_images(tmp_path / "one", OPTIONS).entries} == {""}


def test_class_folders_beside_or_in_tars_stay_what_they_were(image_folder, tmp_path):
    beside = DiskPath(shutil.copytree(image_folder, tmp_path / "beside"))
    write_samples(beside, 2)
    assert resolve_options(beside, OPTIONS).source == "folders"
    folder = DiskPath(shutil.copytree(image_folder, tmp_path / "folder"))
    for path in [*folder.rglob("*")]:
        if path.suffix in (".png", ".jpg"):
            path.with_suffix(".txt").write_text("about it")
            path.with_suffix(".json").write_text("{}")
    with tarfile.open(tmp_path / "classes.tar", "w") as tar:
        tar.add(image_folder, ".")
    with tarfile.open(tmp_path / "partners.tar", "w") as tar:
        tar.add(folder, ".")
    before = scan_images(tmp_path / "classes.tar", OPTIONS)
    assert resolve_options(tmp_path / "classes.tar", OPTIONS).source == "archive"
    assert resolve_options(tmp_path / "partners.tar", OPTIONS).source == "archive"
    after = scan_images(tmp_path / "partners.tar", OPTIONS)
    assert [entry.path for entry in after.entries] == [entry.path for entry in before.entries]
    splits = tmp_path / "splits"
    for split in ("train", "val"):
        shutil.copytree(image_folder, splits / split)
    write_samples(splits / "train", 2)
    assert resolve_options(splits, OPTIONS).source == "folders"


def test_tables_beside_tars_are_skipped_as_img2dataset_writes_them_or_are_the_source(tmp_path):
    write_samples(tmp_path / "in", 2, "%05d.tar")
    (tmp_path / "in" / "00000.parquet").write_bytes(b"about the samples")
    (tmp_path / "in" / "00000_stats.json").write_text("{}")
    inventory = scan_images(tmp_path / "in", OPTIONS)
    assert len(inventory.entries) == 2
    assert {skip.code for skip in inventory.skipped} == {"skipped_extension"}
    named = dataclasses.replace(OPTIONS, image_column="jpg")
    assert resolve_options(tmp_path / "in", named).source == "webdataset"
    write_tar(tmp_path / "other" / "t.tar", ("a/1.jpg", b"x"))
    (tmp_path / "other" / "rows.csv").write_text("path\n")
    assert not webdataset.recognize(tmp_path / "other", ["t.tar", "rows.csv"], OPTIONS)


def test_a_source_may_be_named(tmp_path):
    images = [(f"{key}.jpg", encode_image(make_image(key))) for key in range(3)]
    tar = write_tar(tmp_path / "t.tar", *images)
    assert resolve_options(tar, OPTIONS).source == "archive"
    named = dataclasses.replace(OPTIONS, source="webdataset")
    assert resolve_options(tar, named).label_column is None
    assert len(scan_images(tar, named).entries) == 3


@pytest.mark.parametrize(
    ("members", "images", "said"),
    [
        ([("a/1.jpg", b"x"), ("b/2.jpg", b"x")], "", "'a/1' has no .cls, .json or .txt"),
        ([("a.txt", b"x"), ("b", b"x")], "", "the first members are 'a.txt', 'b'"),
        ([], "", "the first members are missing"),
        ([("a.txt", b"x"), ("b", b"x")], "*.tar", "the first members are 'a.txt', 'b'"),
    ],
)
def test_tars_without_samples_are_one_line(members, images, said, tmp_path, capsys):
    write_tar(tmp_path / "in" / "t.tar", *members)
    assert main(["plan", str(tmp_path / "in" / images), str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    named = ConvertOptions(source="webdataset")
    if "a/1" not in said:
        with pytest.raises(UsageError, match=f"^{tmp_path}.* has no samples") as caught:
            scan_images(tmp_path / "in" / "t.tar", named)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["path_column", "path_format", "table_root", "label_from"])
def test_options_of_other_sources_are_refused(name, shards):
    value = {"label_from": "none", "table_root": ".."}.get(name, "{x}")
    with pytest.raises(UsageError, match=name.replace("_", " ")):
        scan_images(shards, ConvertOptions(**{name: value}))


def test_other_files_are_skipped_by_rule(shards, tmp_path):
    folder = DiskPath(shutil.copytree(shards, tmp_path / "in"))
    (folder / "README.md").write_text("x")
    (folder / ".cache").mkdir()
    (folder / "broken.tar").symlink_to(folder / "nowhere")
    (folder / "outside.tar").symlink_to(shards / "train-000000.tar")
    (folder / "inside-train.tar").symlink_to(folder / "train-000000.tar")
    os.mkfifo(folder / "pipe.tar")
    write_samples(folder / "train" / "deeper", 2)
    inventory = scan_images(folder, dataclasses.replace(OPTIONS, source="webdataset"))
    assert {(skip.path, skip.code) for skip in inventory.skipped} == {
        ("README.md", "skipped_extension"), (".cache/", "skipped_hidden"),
        ("broken.tar", "skipped_link"), ("outside.tar", "skipped_link"),
        ("pipe.tar", "skipped_special"), ("train/deeper/", "skipped_extension"),
    }  # fmt: skip
    assert len(inventory.entries) == 14


@pytest.mark.parametrize("name", ["classnames.txt", "classes.txt", "labels.txt"])
def test_numbers_are_lines_of_a_list_beside_the_tars(name, shards, tmp_path):
    folder = DiskPath(shutil.copytree(shards, tmp_path / "in"))
    (folder / name).write_bytes(b"ant\r\nbee\r\n\r\ncow\r\ndog\r\n")
    inventory = scan_images(folder, OPTIONS)
    assert inventory.classes == (*CLASSES, "dog")
    assert [entry.label for entry in inventory.entries] == [key % 3 for key in range(10)]
    assert inventory.skipped == ()
    assert f"4 names in {name}" in inventory.recognized
    chosen = dataclasses.replace(OPTIONS, class_names=("cow -> cattle", "ant"))
    inventory = scan_images(folder, chosen)
    assert inventory.classes == ("cattle", "ant")
    assert [entry.label for entry in inventory.entries] == [1, 0, 1, 0, 1, 0, 1]
    assert {skip.code for skip in inventory.skipped} == {"skipped_no_label"}


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (("x", "y"), ("x", "y"), [0, 1, 0, 1, 0, 1, 0]),
        (("2 -> x", "0 -> y"), ("x", "y"), [1, 0, 1, 0, 1, 0, 1]),
        (("2", "1"), ("2", "1"), [1, 0, 1, 0, 1, 0]),
    ],
)
def test_without_a_list_numbers_count_the_classes_asked_for(shards, names, classes, labels):
    inventory = scan_images(shards, dataclasses.replace(OPTIONS, class_names=names))
    assert inventory.classes == classes
    assert [entry.label for entry in inventory.entries] == labels


def test_a_list_that_does_not_fit_is_not_believed(shards, tmp_path):
    folder = DiskPath(shutil.copytree(shards, tmp_path / "in"))
    (folder / "classes.txt").write_text("ant\nant\ncow\n")
    inventory = scan_images(folder, OPTIONS)
    assert inventory.classes == ("0", "1", "2")
    assert [skip.path for skip in inventory.skipped] == ["classes.txt"]
    (folder / "classes.txt").write_text("ant\nbee\n")
    rejected = scan_images(folder, OPTIONS).rejected
    assert [(skip.path, skip.code) for skip in rejected] == [
        (f"train-00000{key // 4}.tar/{key:06}", "bad_row") for key in (2, 5, 8)
    ]


def test_labels_may_be_names_or_a_key_of_the_json(tmp_path):
    members = itertools.chain(
        *(
            [
                *sample(f"{key}", key, CLASSES[key]),
                (f"{key}.json", json.dumps({"kind": 7 - key}).encode()),
            ]
            for key in range(3)
        )
    )
    tar = write_tar(tmp_path / "t.tar", *members)
    assert scan_images(tar, OPTIONS).classes == ("ant", "bee", "cow")
    by_key = scan_images(tar, dataclasses.replace(OPTIONS, label_column="kind"))
    assert by_key.classes == ("5", "6", "7")
    assert [entry.label for entry in by_key.entries] == [2, 1, 0]
    with pytest.raises(UsageError, match="'kin'") as caught:
        scan_images(tar, dataclasses.replace(OPTIONS, label_column="kin"))
    assert "kind" in str(caught.value)


def test_boxes_come_from_the_json(tmp_path):
    about = {"boxes": [[1, 2, 10, 12], [0, 0, 4, 4]], "things": ["cup", "jar"]}
    tar = write_tar(tmp_path / "t.tar", *sample("1"), ("1.json", json.dumps(about).encode()))
    options = dataclasses.replace(OPTIONS, boxes_column="boxes", box_labels_column="things")
    (entry,) = scan_images(tar, options).entries
    assert json.loads(entry.values) == [[[2, 1, 12, 10], [0, 0, 4, 4]], [1, 2]]


def test_labels_do_not_get_lost_where_the_first_sample_has_none(tmp_path):
    tar = write_tar(
        tmp_path / "t.tar", *sample("1")[:1], ("1.txt", b"x"), *sample("2"), ("2.txt", b"x")
    )
    with pytest.raises(UsageError, match="--label-column cls"):
        scan_images(tar, OPTIONS)
    labelled = scan_images(tar, dataclasses.replace(OPTIONS, label_column="cls"))
    assert [(skip.path, skip.code) for skip in labelled.rejected] == [("t.tar/1", "bad_row")]


@pytest.mark.parametrize("compression", ["", "gz"])
def test_torn_and_broken_samples_are_rejects_with_their_keys(tmp_path, compression):
    image, end = encode_image(make_image(1)), f".tar{compression and '.gz'}"
    write_tar(
        tmp_path / f"a{end}",
        *sample("whole", 2), ("apart.jpg", image), ("other.jpg", image), ("other.cls", b"1"),
        ("apart.cls", b"2"), ("bare.cls", b"1"), *sample("two", 3), ("two.png", image),
        *sample("twice", 4), ("between.jpg", image), ("between.cls", b"1"), *sample("twice", 4),
        ("link.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), ("link.cls", b"1"),
        ("../out.jpg", image), ("out.cls", b"1"), ("binary.jpg", image),
        ("binary.cls", b"\xff\xfe"),
        ("big.jpg", image), ("big.cls", b"1" * 2_000_000), ("end.jpg", image),
        compression=compression,
    )  # fmt: skip
    write_tar(tmp_path / f"b{end}", ("end.cls", b"1"), *sample("whole", 5), compression=compression)
    inventory = scan_images(tmp_path, OPTIONS)
    assert [entry.path for entry in inventory.entries] == [
        f"a{end}/{name}.jpg" for name in ("between", "other", "whole")
    ] + [f"b{end}/whole.jpg"]
    assert sorted((skip.path.replace(end, ""), skip.code) for skip in inventory.rejected) == [
        ("a/apart", "bad_sample"), ("a/bare", "bad_sample"), ("a/big", "bad_row"),
        ("a/binary", "bad_row"), ("a/end", "bad_sample"), ("a/link", "unreadable"),
        ("a/out", "bad_sample"), ("a/twice", "bad_sample"), ("a/two", "bad_sample"),
        ("b/end", "bad_sample"),
    ]  # fmt: skip
    assert [skip.path for skip in inventory.skipped] == [f"a{end}/../out.jpg"]
    out = tmp_path.parent / f"out {compression}"
    conversion = run_conversion(tmp_path, out, OPTIONS, IN_MEMORY)
    totals = conversion.manifest.totals
    assert (totals.scanned, totals.written, sum(totals.rejected.values())) == (15, 4, 10)


@pytest.mark.parametrize("compression", ["", "gz"])
def test_it_is_updated_verified_repaired_and_resumed(tmp_path, compression):
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        members = itertools.chain(*(sample(f"{key}", 10 * number + key) for key in range(5)))
        write_tar(
            folder / f"{number}.tar{compression and '.gz'}", *members, compression=compression
        )
    options = dataclasses.replace(OPTIONS, num_shards=3)
    convert_folder(folder, tmp_path / "clean", options)
    planned = write_folder(folder, out, options)
    (out / planned.shards[1].name).unlink()
    assert len(list_finished(read_plan(out))) == 2
    convert(folder, out, options, IN_MEMORY)  # goes on
    assert read_tree(out) == read_tree(tmp_path / "clean")
    assert verify(out, sources=folder) == []
    shard = read_manifest(out).shards[1]
    (out / shard.name).write_bytes(b"damaged")
    assert shard.name in repair(out, folder, IN_MEMORY).repaired
    assert read_tree(out) == read_tree(tmp_path / "clean")
    members = itertools.chain(*(sample(f"{key}", 20 + key) for key in range(1, 4)))
    more = [*sample("new", 77), *members]
    write_tar(folder / f"2.tar{compression and '.gz'}", *more, compression=compression)
    assert len(verify(out, sources=folder)) > 0
    update = run_conversion(folder, out, None, IN_MEMORY, mode="update").update
    assert (update.added, update.changed, update.removed) == (1, 0, 2)
    assert verify(out, sources=folder) == []


def test_masks_are_parts_too(tmp_path):
    members = []
    for key in range(6):
        mask = encode_image(make_image(key, mode="L"), "PNG")
        members += [*sample(f"{key}", key), (f"{key}.seg.png", mask)]
        write_image(tmp_path / "photos" / "1" / f"{key}.jpg", key, "JPEG")
        (tmp_path / "masks" / "1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / "1" / f"{key}.png").write_bytes(mask)
    tar = write_tar(tmp_path / "in" / "t.tar", *members[:-1])
    run_conversion(tar, tmp_path / "out", MASKED, IN_MEMORY)
    assert read_manifest(tmp_path / "out").totals.rejected == {"mask_missing": 1}
    assert verify(tmp_path / "out", sources=tar) == []
    options = dataclasses.replace(OPTIONS, mask_dir="../masks")
    convert_folder(tmp_path / "photos", tmp_path / "expected", options)
    masks = {
        name: {
            Path(record.source_id).name: decode(record.mask)
            for record in open_shards(tmp_path / name).source("train")
        }
        for name in ("out", "expected")
    }
    assert masks["out"].keys() == masks["expected"].keys() - {"5.jpg"}
    for name, mask in masks["out"].items():
        np.testing.assert_array_equal(mask, masks["expected"][name])
    packed = write_tar(tmp_path / "in" / "t.tar.gz", *members, compression="gz")
    with pytest.raises(UsageError, match="compressed as a whole"):
        scan_images(packed, MASKED)


def test_a_store_gives_the_data_set_that_a_disk_gives(server, shards, tmp_path):
    folder = DiskPath(shutil.copytree(shards, tmp_path / "in"))
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    packed = itertools.chain(*(sample(f"{key}", 40 + key) for key in range(3)))
    write_tar(folder / "train-packed.tar.gz", *packed, compression="gz")
    far = upload_tree(folder, server.path(uuid.uuid4().hex))
    assert scan_images(far, OPTIONS) == scan_images(folder, OPTIONS)
    for images in ("", "train-000*.tar", "train-000001.tar"):
        name = f"{len(images)}"
        near, there = tmp_path / f"near {name}", tmp_path / f"far {name}"
        convert_folder(folder / images if images else folder, near, OPTIONS)
        convert_folder(far / images if images else far, there, OPTIONS)
        assert read_tree(there) == read_tree(near)
    server.set_faults(faults=0.2, kinds="refuse,reset,cut,short", seed=4)
    convert_folder(far, tmp_path / "faults", OPTIONS)
    server.set_faults()
    assert read_tree(tmp_path / "faults") == read_tree(tmp_path / "near 0")
    assert verify(tmp_path / "faults", sources=far) == []


def test_a_tar_in_a_store_is_read_once_and_not_part_by_part(s3_server, tmp_path):
    members = []
    for key in range(300):
        members += [*sample(f"{key}", key % 20), (f"{key}.json", b'{"a": 1}')]
    tar = write_tar(tmp_path / "t.tar", *members)
    far = s3_server.path(f"{uuid.uuid4().hex}/t.tar")
    with far.create(far.parent) as file:
        file.write(tar.read_bytes())
    options = dataclasses.replace(OPTIONS, keep_columns=("a",), dedupe="off")
    resolved = resolve_options(far, options)
    s3_server.set_faults()
    scan_images(far, resolved)
    assert s3_server.set_faults()["GET"] < 60  # of 900 members, in all that looks at them


def test_several_sizes_and_workers_give_the_same_bytes(shards, tmp_path):
    sizes = [dataclasses.replace(OPTIONS, image_size=size) for size in ((16, 20), (8, 8))]
    convert_sizes(shards, tmp_path / "1", sizes, IN_MEMORY)
    convert_sizes(shards, tmp_path / "2", sizes, workers=2)
    for size in ("16x20", "8x8"):
        assert read_tree(tmp_path / "1" / size) == read_tree(tmp_path / "2" / size)
    convert_folder(shards, tmp_path / "alone", sizes[1])
    assert read_tree(tmp_path / "alone") == read_tree(tmp_path / "1" / "8x8")


def test_a_folder_joins_a_folder_of_tars(shards, image_folder, tmp_path):
    options = dataclasses.replace(OPTIONS, label_column=None)
    tars = write_tar(tmp_path / "t.tar", *sample("1", 50, "ant"), *sample("2", 51, "bee"))
    more = write_tar(tmp_path / "more" / "u.tar", *sample("1", 52, "bee"))
    convert([tars, more], tmp_path / "out", options, IN_MEMORY)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == ("ant", "bee")
    assert manifest.totals.written == 3
    assert verify(tmp_path / "out", sources=[tars, more]) == []


def test_memory_does_not_grow_with_parts_that_are_not_read(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for key in range(6):
            for name, content in [*sample(f"{key}", key), (f"{key}.npy", bytes(20_000_000))]:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with limit_memory(10_000_000):
        assert len(scan_images(tmp_path / "t.tar", OPTIONS).entries) == 6


def test_many_empty_members_take_little_time_and_memory(tmp_path):
    header = tarfile.TarInfo("0000000.txt")
    with open(tmp_path / "t.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in sample("a", 1):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for number in range(30_000):
            header.name = f"{number:07}.txt"
            tar.addfile(header)
    with limit_memory(30_000 * 800):
        inventory = scan_images(tmp_path / "t.tar", OPTIONS)
    assert len(inventory.rejected) == 30_000


@pytest.mark.parametrize(
    ("offset", "content", "said"),
    [
        (124, b"7777777777\0", "past the end"),
        (124, b"\x80\0\0\0\x6f" + b"\xff" * 7, "past the end"),  # 8 EB
        (124, b"\xff" * 12, "claims -1 bytes|cannot be read"),
        (0, b"\xff" * 512, "damaged or cut off"),
    ],
)
def test_headers_that_lie_are_one_line(offset, content, said, tmp_path):
    tar = write_tar(tmp_path / "t.tar", *sample("1"), *sample("2", 3))
    data = bytearray(tar.read_bytes())
    at = data.index(b"2.jpg\0") + offset
    data[at : at + len(content)] = content
    if offset:
        begin = at - offset
        data[begin + 148 : begin + 156] = b" " * 8
        total = sum(data[begin : begin + 512])
        data[begin + 148 : begin + 156] = b"%06o\0 " % total
    tar.write_bytes(data)
    with pytest.raises(UsageError, match=said):
        scan_images(tar, OPTIONS)


def test_headers_of_megabytes_and_sparse_members_are_not_believed(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("1.jpg")
        info.pax_headers = {"comment": "x" * 3_000_000}
        tar.addfile(info)
    with pytest.raises(UsageError, match="a header of 3,000,"):
        scan_images(tmp_path / "t.tar", dataclasses.replace(OPTIONS, source="webdataset"))
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sample("1"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("2.jpg")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "1000000000"}
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("2.cls"))
    rejected = scan_images(tmp_path / "s.tar", OPTIONS).rejected
    assert [(skip.path, skip.code) for skip in rejected] == [("s.tar/2", "unreadable")]


def test_every_cut_of_a_tar_is_an_error_or_the_same_samples(tmp_path):
    tar = write_tar(tmp_path / "in" / "t.tar", *sample("1"), *sample("2", 3))
    data = tar.read_bytes()
    whole = scan_images(tar, OPTIONS)
    for end in range(0, len(data), 509):
        tar.write_bytes(data[:end])
        try:
            assert scan_images(tar, OPTIONS).entries == whole.entries
        except UsageError as error:
            assert "\n" not in str(error)  # noqa: PT017 (both are right)


def test_pickles_are_not_read(tmp_path, monkeypatch):
    bad = b"cos\nsystem\n(S'touch /tmp/never'\ntR."
    tar = write_tar(tmp_path / "t.tar", *sample("1"), ("1.pyd", bad), ("1.pkl", bad))
    wanted = []
    original = archives.read_tar

    def spy(archive, wants):
        def note(member):
            found = wants(member)
            wanted.append((member.path, found))
            return found

        return original(archive, note)

    monkeypatch.setattr(webdataset, "read_tar", spy)
    inventory = scan_images(tar, OPTIONS)
    assert [note.names for note in inventory.notes if note.code == "unused_part"] == [
        (".pkl", ".pyd")
    ]
    assert {path for path, found in wanted if found} == {"1.cls"}


def test_a_tar_that_changes_meanwhile_is_noticed(shards, tmp_path):
    folder, out = DiskPath(shutil.copytree(shards, tmp_path / "in")), tmp_path / "out"
    options = dataclasses.replace(OPTIONS, on_error="reject")
    from converter.planning.plan import write_plan
    from converter.sources.inputs import locate_root
    from converter.writing.shard_writer import Job, write_shard
    from pipelines.jobs.preview import propose

    resolved = resolve_options(folder, options)
    draft = propose(folder, resolved, always_sample=False).draft
    made = write_plan(draft, resolved, images=locate_root(folder, resolved), out=out)
    (folder / "train-000001.tar").write_bytes(b"\xff" * 2_000)
    (folder / "train-000002.tar").unlink()
    receipts = [write_shard(shard, Job.of_plan(made)) for shard in made.shards]
    codes = {
        reject["path"].partition("/")[0]: reject["code"]
        for receipt in receipts
        for reject in receipt.rejects
    }
    assert codes == {"train-000001.tar": "changed", "train-000002.tar": "vanished"}


def test_a_full_temporary_folder_is_one_line(shards, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(OutputError, match=rf"{tmp_path}/rows.*No space left"):
        scan_images(shards, OPTIONS)


def test_duplicates_are_found_by_their_beginnings_and_then_as_a_whole(tmp_path, monkeypatch):
    contents = [os.urandom(20_000) for _ in range(3)]
    contents += [contents[0], contents[1][:-1] + b"x"]
    members = [(f"{key}.jpg", content) for key, content in enumerate(contents)]
    tar = write_tar(tmp_path / "t.tar", *members)
    read = []
    original = archives.start_member
    monkeypatch.setattr(archives, "start_member", lambda *a: read.append(a) or original(*a))
    inventory = scan_images(tar, dataclasses.replace(OPTIONS, source="webdataset"))
    assert [places.tolist() for places in inventory.duplicates] == [[0, 3]]
    assert len(read) == 4  # those whose beginnings are alike


def test_compressed_tars_are_decompressed_a_few_times_and_not_for_each_image(tmp_path, monkeypatch):
    for number in range(4):
        members = itertools.chain(*(sample(f"{key}", key % 2) for key in range(40)))
        write_tar(tmp_path / "in" / f"{number}.tar.gz", *members, compression="gz")
    opened = []
    original = archives._decompress

    def count(archive):
        opened.append(archive)
        return original(archive)

    monkeypatch.setattr(archives, "_decompress", count)
    convert(tmp_path / "in", tmp_path / "out", OPTIONS, IN_MEMORY)
    scanned = len(opened)
    assert scanned <= 4 * 12
    assert verify(tmp_path / "out", sources=tmp_path / "in") == []
    assert len(opened) <= scanned + 4 * 12
