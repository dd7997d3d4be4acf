"""The commit: a manifest appears last, and only over shards that are all there."""

import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import PIL
import pytest
from conftest import (
    convert_folder,
    encode_image,
    make_environment,
    make_image,
    write_folder,
    write_image,
)

from converter import __version__
from converter.commits.commit import commit, list_finished, remove_work
from converter.errors import DatasetError, OutputError
from converter.format.manifest import FileInfo, ImageInfo, SplitInfo, Totals, read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import Plan, read_entries
from converter.sources.scan import scan_folder
from converter.storage.files import Layout, name_index
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import (
    Job,
    convert_images,
    read_receipt,
    receipt_path,
    write_images,
    write_receipt,
    write_shard,
)
from reader import open_shards

OPTIONS = ConvertOptions(
    image_size=(8, 10), encoding="png", num_shards=3, validation_split=0.4, seed=1
)
METADATA = [
    "dataset_info.json",
    "features.json",
    "image.class.label.labels.txt",
    "labels.txt",
    "notes.jsonl",
    "rejects.jsonl",
]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Written, not committed: 12 good images in 2 classes, 3 bad ones, 2 files to skip."""
    images = tmp_path / "images"
    for seed in range(12):
        write_image(images / "ab"[seed % 2] / f"{seed}.png", seed)
    (images / "a" / "empty.png").touch()
    (images / "b" / "text.png").write_bytes(b"no image")
    (images / "b" / "text.jpg").write_bytes(b"no image")
    (images / "a" / "notes.txt").touch()
    (images / "beside.png").touch()
    return write_folder(images, tmp_path / "out", OPTIONS)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def change_receipt(plan: Plan, **values: object) -> None:
    layout, shard = Layout(plan.out), plan.shards[0]
    receipt = read_receipt(receipt_path(layout, shard))
    write_receipt(dataclasses.replace(receipt, **values), layout, shard)


def assert_refused(plan: Plan, message: str) -> None:
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        commit(plan)
    assert not (plan.out / "manifest.json").exists()


def test_a_data_set_has_these_files_and_no_other(plan):
    commit(plan)
    shards = [shard.name for shard in plan.shards]
    indexes = [name_index(name) for name in shards]
    expected = sorted([*METADATA, "manifest.json", *shards, *indexes])
    assert sorted(path.name for path in plan.out.iterdir()) == expected


def test_the_manifest_says_what_the_receipts_say(plan):
    receipts = [read_receipt(receipt_path(Layout(plan.out), shard)) for shard in plan.shards]
    manifest = commit(plan)
    assert manifest == read_manifest(plan.out)
    assert (manifest.generator, manifest.plan) == (
        f"shardmill {__version__}, Pillow {PIL.__version__}",
        plan.digest,
    )
    assert (manifest.classes, manifest.options) == (("a", "b"), plan.options.to_json())
    assert [(s.name, s.split, s.records, s.bytes, s.sha256) for s in manifest.shards] == [
        (r.name, r.split, r.records, r.bytes, r.sha256) for r in receipts
    ]
    assert [(s.index_bytes, s.index_sha256, s.max_record_bytes) for s in manifest.shards] == [
        (r.index_bytes, r.index_sha256, r.max_record_bytes) for r in receipts
    ]
    assert manifest.image == ImageInfo(
        height=8, width=10, max_height=8, max_width=10, channels=3, formats={"png": 12}
    )
    for split, info in manifest.splits.items():
        members = [r for r in receipts if r.split == split]
        assert info == SplitInfo(
            records=sum(r.records for r in members),
            bytes=sum(r.bytes for r in members),
            shards=len(members),
            labels=tuple(sum(dict(r.labels).get(label, 0) for r in members) for label in (0, 1)),
        )
    assert manifest.files == {
        name: FileInfo(
            bytes=len((plan.out / name).read_bytes()),
            sha256=hashlib.sha256((plan.out / name).read_bytes()).hexdigest(),
        )
        for name in METADATA
    }


def test_every_file_is_accounted_for(plan):
    manifest = commit(plan)
    inventory = scan_folder(plan.images)
    assert manifest.totals == Totals(
        scanned=17,
        written=12,
        rejected={"empty": 1, "not_an_image": 2},
        skipped={"skipped_extension": 1, "skipped_no_class": 1},
    )
    rejects = [json.loads(line) for line in (plan.out / "rejects.jsonl").read_bytes().splitlines()]
    assert {reject["path"]: reject["code"] for reject in rejects} == {
        "a/empty.png": "empty",
        "b/text.jpg": "not_an_image",
        "b/text.png": "not_an_image",
        "a/notes.txt": "skipped_extension",
        "beside.png": "skipped_no_class",
    }
    assert rejects[3:] == [skip._asdict() for skip in inventory.skipped]


def test_images_of_many_sizes_leave_the_size_open(tmp_path):
    for seed, size in enumerate([(4, 9), (7, 3)]):
        path = tmp_path / "images" / "a" / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(make_image(seed, *size), "PNG"))
    options = ConvertOptions(resize="none", encoding="raw", num_shards=2)
    assert commit(write_folder(tmp_path / "images", tmp_path / "out", options)).image == ImageInfo(
        height=None, width=None, max_height=7, max_width=9, channels=3, formats={"raw": 2}
    )


def test_images_that_happen_to_be_alike_can_be_read_in_batches(tmp_path):
    for seed in range(3):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    (tmp_path / "images" / "a" / "bad.png").write_bytes(b"bad")
    options = ConvertOptions(resize="none", encoding="raw", num_shards=4)
    plan = write_folder(tmp_path / "images", tmp_path / "out", options)
    assert commit(plan).image == ImageInfo(
        height=24, width=32, max_height=24, max_width=32, channels=3, formats={"raw": 3}
    )
    (images, _) = next(iter(open_shards(plan.out).batches("train", 3)))
    assert images.shape == (3, 24, 32, 3)


def test_images_of_one_height_alone_leave_the_size_open(tmp_path):
    for seed, size in enumerate([(4, 9), (4, 3)]):
        path = tmp_path / "images" / "a" / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(make_image(seed, *size), "PNG"))
    image = commit(
        write_folder(tmp_path / "images", tmp_path / "out", ConvertOptions(resize="none"))
    ).image
    assert (image.height, image.width, image.max_height, image.max_width) == (None, None, 4, 9)


def test_a_shard_without_a_good_image_is_a_part_like_any_other(tmp_path):
    write_image(tmp_path / "images" / "a" / "1.png", 1)
    for number in range(5):
        (tmp_path / "images" / "a" / f"empty {number}.png").touch()
    options = ConvertOptions(image_size=(8, 8), num_shards=3)
    manifest = commit(write_folder(tmp_path / "images", tmp_path / "out", options))
    assert sorted(shard.records for shard in manifest.shards) == [0, 0, 1]
    assert verify_dataset(tmp_path / "out") == []


@pytest.mark.parametrize("name", [*METADATA, "manifest.json"])
def test_the_manifest_is_last(plan, name):
    (plan.out / name).mkdir()
    with pytest.raises(OutputError, match=f"{name[-20:]}.*: Is a directory; .* move it away"):
        commit(plan)
    assert not (plan.out / "manifest.json").is_file()
    (plan.out / name).rmdir()
    commit(plan)
    assert verify_dataset(plan.out) == []


def test_a_second_commit_changes_nothing(plan):
    commit(plan)
    before = read_tree(plan.out)
    with pytest.raises(OutputError, match=f"^{re.escape(str(plan.out))}/manifest.json exists"):
        commit(plan)
    assert read_tree(plan.out) == before


def test_a_manifest_that_appears_meanwhile_is_not_overwritten(plan, monkeypatch):
    from converter.commits import commit as committing

    describe = committing.describe_dataset

    def lose_race(*arguments, **named):
        (plan.out / "manifest.json").write_bytes(b"of another")
        return describe(*arguments, **named)

    monkeypatch.setattr(committing, "describe_dataset", lose_race)
    with pytest.raises(OutputError, match=r"manifest\.json exists already"):
        commit(plan)
    assert (plan.out / "manifest.json").read_bytes() == b"of another"


def test_the_work_folder_of_a_finished_data_set_is_removed(plan, tmp_path):
    layout = Layout(plan.out)
    layout.lock.touch()
    commit(plan, keep_work=True)
    remove_work(layout.out)
    assert list(layout.work.iterdir()) == [layout.lock]
    layout.lock.unlink()
    remove_work(layout.out)
    assert not layout.work.exists()


def test_a_commit_of_the_same_at_the_same_time_changes_nothing(plan, tmp_path):
    shutil.copytree(plan.out / ".shardmill", tmp_path / "work")
    commit(plan)
    before = read_tree(plan.out)
    shutil.copytree(tmp_path / "work", plan.out / ".shardmill")
    with pytest.raises(OutputError, match=f"^{re.escape(str(plan.out))}/manifest.json exists"):
        commit(plan)
    shutil.rmtree(plan.out / ".shardmill")
    assert read_tree(plan.out) == before


def test_two_conversions_of_the_same_are_byte_identical(plan, tmp_path):
    other = write_folder(plan.images, tmp_path / "other", OPTIONS)
    commit(plan)
    commit(other)
    assert read_tree(plan.out) == read_tree(other.out)


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "POSIX"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_the_locale_does_not_show_in_any_byte(image_folder, tmp_path, locale):
    script = """
import sys
from converter.storage.disk import DiskPath as Path
from conftest import convert_folder
from converter.options import ConvertOptions
images, out = map(Path, sys.argv[1:])
convert_folder(images, out, ConvertOptions(image_size=(8, 8), num_shards=2))
"""
    out = tmp_path / "there"
    subprocess.run(
        [sys.executable, "-c", script, image_folder, out],
        env=make_environment(**locale),
        check=True,
    )
    convert_folder(image_folder, tmp_path / "here", ConvertOptions(image_size=(8, 8), num_shards=2))
    assert read_tree(out) == read_tree(tmp_path / "here")


def test_none_converted_is_no_data_set(tmp_path):
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"" if name == "1.png" else b"no image")
    plan = write_folder(tmp_path, tmp_path.parent / "none", ConvertOptions(num_shards=1))
    with pytest.raises(OutputError, match=r"^none of the 3 .* 2 of .* not_an_image"):
        commit(plan)
    assert not (plan.out / "manifest.json").exists()


def test_a_missing_receipt_is_refused(plan):
    receipt_path(Layout(plan.out), plan.shards[1]).unlink()
    assert_refused(
        plan,
        f"{plan.shards[1].name} has no receipt: it was not finished; run the same command again",
    )


def test_a_receipt_that_leaves_images_out_is_refused(plan):
    name, records = plan.shards[0].name, plan.shards[0].records
    change_receipt(plan, records=0, rejects=[])
    assert_refused(plan, f"{name}: 0 images are accounted for, planned were {records}")


def test_a_shard_that_was_given_too_few_images_is_refused(plan):
    shard, job = plan.shards[0], Job.of_plan(plan)
    planned = itertools.islice(read_entries(plan.out, shard), shard.records - 1)
    write_images(shard, job, convert_images(planned, [job]))
    message = f"{shard.records - 1} images are accounted for, planned were {shard.records}"
    assert_refused(plan, f"{shard.name}: {message}")


@pytest.mark.parametrize("size", [0, 100])
def test_a_shard_of_another_size_is_refused(plan, size):
    name = plan.shards[2].name
    (plan.out / name).write_bytes(bytes(size))
    with pytest.raises(DatasetError, match=f"^{name} is missing, or has"):
        commit(plan)
    assert not (plan.out / "manifest.json").exists()


def test_a_missing_shard_is_refused(plan):
    name = plan.shards[2].name
    (plan.out / name).unlink()
    with pytest.raises(DatasetError, match=f"^{name} is missing, or has"):
        commit(plan)
    assert not (plan.out / "manifest.json").exists()


def test_a_missing_index_is_refused(plan):
    name = name_index(plan.shards[2].name)
    (plan.out / name).unlink()
    with pytest.raises(DatasetError, match=f"^{name} is missing, or has"):
        commit(plan)
    assert not (plan.out / "manifest.json").exists()


def test_what_is_missing_is_not_finished(plan):
    layout = Layout(plan.out)
    assert list_finished(plan) == list(plan.shards)
    receipt_path(layout, plan.shards[0]).unlink()
    receipt_path(layout, plan.shards[1]).write_bytes(b"{")
    (plan.out / plan.shards[2].name).unlink()
    seen = []
    assert list_finished(plan, on_shard=seen.append) == list(plan.shards[3:])
    assert seen == list(plan.shards)


def test_shards_that_took_each_others_place_with_their_receipts_are_not_finished(plan):
    one, two, *rest = plan.shards
    for first, second in (
        (plan.out / one.name, plan.out / two.name),
        (plan.out / name_index(one.name), plan.out / name_index(two.name)),
        (receipt_path(Layout(plan.out), one), receipt_path(Layout(plan.out), two)),
    ):
        first.rename(plan.out / "aside")
        second.rename(first)
        (plan.out / "aside").rename(second)
    assert list_finished(plan) == rest
    assert_refused(plan, f"{one.name} has the receipt of {two.name}")


@pytest.mark.parametrize("suffix", [".tfrecord", ".tfindex"])
def test_a_shard_of_other_bytes_than_its_receipt_states_is_not_finished(plan, suffix):
    path = (plan.out / plan.shards[1].name).with_suffix(suffix)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert list_finished(plan) == [plan.shards[0], *plan.shards[2:]]


def test_an_interrupted_conversion_ends_as_a_clean_one(plan, tmp_path):
    clean = write_folder(plan.images, tmp_path / "clean", OPTIONS)
    commit(clean)
    receipt_path(Layout(plan.out), plan.shards[0]).unlink()
    (plan.out / plan.shards[2].name).unlink()
    (plan.out / ".shardmill" / "tmp" / "half.tfrecord.123").write_bytes(b"half")
    finished = list_finished(plan)
    assert len(finished) == len(plan.shards) - 2
    for shard in set(plan.shards) - set(finished):
        write_shard(shard, Job(images=plan.images, out=plan.out, options=plan.options))
    commit(plan)
    assert read_tree(plan.out) == read_tree(clean.out)
