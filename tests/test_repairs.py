"""A repair gives back the very bytes that were there, or leaves things as they are."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import convert_folder, drop_companions, write_image

from converter.commits.replacements import clean
from converter.errors import DatasetError, LockedError, OutputError, UsageError
from converter.format.manifest import FileInfo, ShardInfo, read_manifest
from converter.names import to_system
from converter.options import ConvertOptions
from converter.storage.files import Layout
from converter.upkeep.contents import read_sources
from converter.upkeep.verification import verify_dataset
from pipelines import repair, verify
from pipelines.cli.reports import summarize_repair
from pipelines.jobs.convert import convert

OPTIONS = ConvertOptions(
    image_size=(8, 10), encoding="png", num_shards=3, validation_split=0.3, seed=3
)
IN_MEMORY = ["--direct_running_mode=in_memory"]
NOT_UTF8 = os.fsdecode(b"\xfc")
ONE, TWO = "train-00000-of-00003", "train-00001-of-00003"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of them bad, and the data set of them: `images` and `out`."""
    root = tmp_path_factory.mktemp("original")
    for seed in range(30):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed} {NOT_UTF8}.png", seed)
    (root / "images" / "b" / "bad.png").write_bytes(b"bad")
    (root / "images" / "b" / "notes.txt").touch()
    convert_folder(root / "images", root / "out", OPTIONS)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(original, tmp_path / "root")


def read_tree(folder: Path) -> dict[str, bytes]:
    return drop_companions({path.name: path.read_bytes() for path in folder.iterdir()})


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def flip_in_an_image(out: Path) -> None:
    flip(out / f"{ONE}.tfrecord", 250)


def lose_a_shard_and_its_index(out: Path) -> None:
    (out / f"{ONE}.tfrecord").unlink()
    (out / f"{ONE}.tfindex").unlink()


def lose_an_index(out: Path) -> None:
    (out / f"{ONE}.tfindex").write_bytes(b"")


def cut_two_shards(out: Path) -> None:
    for name in (ONE, TWO):
        path = out / f"{name}.tfrecord"
        path.write_bytes(path.read_bytes()[:-5])


def swap_two_shards(out: Path) -> None:
    one, two = out / f"{ONE}.tfrecord", out / f"{TWO}.tfrecord"
    one.rename(out / "aside")
    two.rename(one)
    (out / "aside").rename(two)


def lose_every_small_file(out: Path) -> None:
    for path in out.iterdir():
        if not path.name.startswith(("train", "validation", "manifest")):
            path.unlink()


DAMAGES = [
    flip_in_an_image,
    lose_a_shard_and_its_index,
    lose_an_index,
    cut_two_shards,
    swap_two_shards,
    lose_every_small_file,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_comes_back_byte_for_byte(
    root: Path, original: Path, damage: Callable[[Path], None]
) -> None:
    out = root / "out"
    damage(out)
    condemned = {fault.file for fault in verify_dataset(out)}
    untouched = {p.name: p.stat().st_ino for p in out.iterdir() if p.name not in condemned}

    result = repair(out, root / "images", IN_MEMORY)

    assert result.left == ()
    assert condemned <= set(result.repaired)
    assert read_tree(out) == read_tree(original / "out")
    for name in set(untouched) - set(result.repaired):
        assert (out / name).stat().st_ino == untouched[name]


def test_a_whole_data_set_is_left_alone(root: Path) -> None:
    result = repair(root / "out", root / "images")
    assert (result.repaired, result.unknown, result.left) == ((), (), ())


@pytest.mark.parametrize("suffix", ["tfrecord", "tfindex"])
def test_a_folder_in_the_place_of_a_file_is_named(root: Path, suffix: str) -> None:
    taken = root / "out" / f"{ONE}.{suffix}"
    taken.unlink()
    taken.mkdir()
    (taken / "mine").touch()
    with pytest.raises(OutputError, match=f"^{re.escape(str(taken))} cannot be written"):
        repair(root / "out", root / "images", IN_MEMORY)
    assert (taken / "mine").exists()


def test_an_index_needs_no_originals(root: Path, original: Path) -> None:
    lose_an_index(root / "out")
    for path in (root / "images").rglob("*.png"):
        path.write_bytes(b"gone")
    assert repair(root / "out", root / "images").repaired == (f"{ONE}.tfindex",)
    assert read_tree(root / "out") == read_tree(original / "out")


def test_new_images_do_not_matter_to_a_shard_that_names_its_originals(
    root: Path, original: Path
) -> None:
    flip_in_an_image(root / "out")
    write_image(root / "images" / "a" / "new.png", 99)
    result = repair(root / "out", root / "images", IN_MEMORY)
    assert result.left == ()
    assert read_tree(root / "out") == read_tree(original / "out")


def test_new_images_are_not_taken_for_those_of_a_lost_shard(root: Path) -> None:
    (root / "out" / f"{ONE}.tfrecord").unlink()
    before = read_tree(root / "out")
    for seed in range(100, 120):
        write_image(root / "images" / "a" / f"{seed}.png", seed)
    result = repair(root / "out", root / "images", IN_MEMORY)
    assert [fault.file for fault in result.left] == [f"{ONE}.tfrecord"]
    assert (result.repaired, result.unknown) == ((), (f"{ONE}.tfrecord",))
    assert read_tree(root / "out") == before


def test_other_originals_are_never_taken_for_the_old_ones(root: Path) -> None:
    out = root / "out"
    before = read_tree(out)
    lose_a_shard_and_its_index(out)
    for path in (root / "images" / "a").glob("*.png"):
        flip(path, -20)
    result = repair(out, root / "images", IN_MEMORY)
    assert {fault.file for fault in result.left} == {f"{ONE}.tfrecord", f"{ONE}.tfindex"}
    rest = {name: data for name, data in before.items() if not name.startswith(ONE)}
    assert read_tree(out) == rest


def test_a_shard_of_the_right_size_and_index_is_not_enough(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for seed in range(4):
        write_image(images / "a" / f"{seed}.bmp", seed, "BMP")
    convert_folder(images, out, ConvertOptions(image_size=(8, 10), encoding="raw", num_shards=1))
    for path in images.rglob("*.bmp"):
        flip(path, -20)
    shard = out / "train-00000-of-00001.tfrecord"
    shard.write_bytes(b"")
    result = repair(out, images, IN_MEMORY)
    assert (result.repaired, [fault.file for fault in result.left]) == ((), [shard.name])
    assert shard.read_bytes() == b""


def test_a_small_file_that_would_come_out_otherwise_is_left_alone(root: Path) -> None:
    manifest = read_manifest(root / "out")
    files = {**manifest.files, "labels.txt": FileInfo(bytes=4, sha256="00")}
    other = dataclasses.replace(manifest, files=files)
    (root / "out" / "manifest.json").write_bytes(other.to_bytes())
    (root / "out" / "labels.txt").unlink()
    result = repair(root / "out", root / "images")
    assert (result.repaired, [fault.file for fault in result.left]) == ((), ["labels.txt"])
    assert not (root / "out" / "labels.txt").exists()


def test_a_lost_shard_of_an_updated_data_set_is_what_no_other_one_holds(root: Path) -> None:
    write_image(root / "images" / "a" / "new.png", 99)
    convert(root / "images", root / "out", None, IN_MEMORY, mode="update")
    whole = read_tree(root / "out")
    for path in (root / "out").glob("*-00001-of-*"):
        path.unlink()
    result = repair(root / "out", root / "images", IN_MEMORY)
    assert result.left == ()
    assert read_tree(root / "out") == whole


@pytest.mark.parametrize("indexes", [(), (ONE,), (ONE, TWO)])
def test_several_lost_shards_of_an_updated_split_are_reported_and_not_guessed(
    root: Path, indexes: tuple[str, ...]
) -> None:
    for seed in range(40, 60):
        write_image(root / "images" / "a" / f"{seed}.png", seed)
    convert(root / "images", root / "out", None, IN_MEMORY, mode="update")
    for name in (ONE, TWO):
        (root / "out" / f"{name}.tfrecord").unlink()
        if name not in indexes:
            (root / "out" / f"{name}.tfindex").unlink()
    before = read_tree(root / "out")
    result = repair(root / "out", root / "images", IN_MEMORY)
    assert {fault.file for fault in result.left} >= {f"{ONE}.tfrecord", f"{TWO}.tfrecord"}
    assert (result.repaired, result.unknown) == ((), (f"{ONE}.tfrecord", f"{TWO}.tfrecord"))
    assert read_tree(root / "out") == before
    line = next(line for line in summarize_repair(result, root / "out") if "cannot tell" in line)
    assert line.startswith(f"cannot tell which originals {ONE}.tfrecord, {TWO}.tfrecord held: ")
    assert "--overwrite" in line
    assert line.endswith(f": shardmill verify {root / 'out'} --sources IMAGES")
    convert(root / "images", root / "out", OPTIONS, IN_MEMORY, mode="overwrite")
    assert verify_dataset(root / "out") == []


def test_strangers_are_named_and_left_alone(root: Path) -> None:
    (root / "out" / "letter.txt").write_text("mine")
    flip_in_an_image(root / "out")
    result = repair(root / "out", root / "images", IN_MEMORY)
    assert [fault.file for fault in result.left] == ["letter.txt"]
    assert (root / "out" / "letter.txt").read_text() == "mine"


def test_a_data_set_of_other_versions_is_left_alone(root: Path) -> None:
    path = root / "out" / "manifest.json"
    # The digest of a plan is over the versions, too.
    manifest = read_manifest(root / "out")
    other = dataclasses.replace(manifest, generator="shardmill 0, Pillow 0", plan="00")
    path.write_bytes(other.to_bytes())
    lose_every_small_file(root / "out")
    cut_two_shards(root / "out")
    result = repair(root / "out", root / "images", IN_MEMORY)
    assert {fault.file for fault in result.left} == {
        f"{ONE}.tfrecord", f"{TWO}.tfrecord", "notes.jsonl", "rejects.jsonl"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no manifest.json in it; without it nothing says what .*: convert it again"),
        (b"{}", "not the manifest of a .*; without it nothing says what .*: convert it again"),
        (b"{", "is damaged: [^;]*; copy the data set again, or convert it again with --overwrite$"),
    ],
)
def test_without_a_manifest_there_is_nothing_to_go_by(
    root: Path, content: bytes | None, message: str
) -> None:
    path = root / "out" / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        repair(root / "out", root / "images")


def test_a_repair_that_was_killed_starts_again(root: Path, original: Path) -> None:
    flip_in_an_image(root / "out")
    made = Layout(root / "out").repair
    made.mkdir(parents=True)
    (made / f"{ONE}.tfrecord").write_bytes(b"half")
    assert [path for path, _ in clean(root / "out", dry_run=True)] == [made]
    repair(root / "out", root / "images", IN_MEMORY)
    assert read_tree(root / "out") == read_tree(original / "out")


def test_a_data_set_that_is_being_written_is_refused(root: Path) -> None:
    with (root / "out").lock(), pytest.raises(LockedError, match="is being written by"):
        repair(root / "out", root / "images")


def test_rejects_come_back_with_their_reasons(root: Path) -> None:
    path = root / "out" / "rejects.jsonl"
    before = path.read_bytes()
    assert [json.loads(line)["code"] for line in before.splitlines()] == [
        "not_an_image", "skipped_extension",
    ]  # fmt: skip
    path.write_bytes(b"")
    assert repair(root / "out", root / "images").repaired == ("rejects.jsonl",)
    assert path.read_bytes() == before


def test_counts_that_were_wrong_by_damage_are_looked_at_once_more(tmp_path: Path) -> None:
    """Two shards of one size in each other's place can be read, and only their counts are wrong."""
    for seed in range(24):  # four shards cannot have as many of the first class each
        write_image(tmp_path / "images" / "ab"[seed > 6] / f"{seed:02}.png", seed)
    options = ConvertOptions(image_size=(8, 8), encoding="raw", num_shards=4)
    out = tmp_path / "out"
    convert_folder(tmp_path / "images", out, options)
    whole = read_tree(out)
    manifest = read_manifest(out)
    one, *others = manifest.shards
    labels = count_labels(out, one)
    other = next(shard for shard in others if count_labels(out, shard) != labels)
    one, two = out / one.name, out / other.name
    # A copy of the other one: sizes are right, and the labels of all are counted otherwise.
    shutil.copy(two, one)
    shutil.copy(two.with_suffix(".tfindex"), one.with_suffix(".tfindex"))
    assert "manifest.json" in {fault.file for fault in verify_dataset(out)}
    result = repair(out, tmp_path / "images", IN_MEMORY)
    assert result.left == ()
    assert read_tree(out) == whole


def count_labels(out: Path, shard: ShardInfo) -> list[int]:
    return sorted(source.label for source in read_sources(out, shard))


def test_each_file_is_named_once_and_only_if_it_was_damaged(root: Path) -> None:
    lose_a_shard_and_its_index(root / "out")
    flip(root / "out" / f"{TWO}.tfrecord", 250)
    repaired = repair(root / "out", root / "images", IN_MEMORY).repaired
    assert sorted(repaired) == [f"{ONE}.tfindex", f"{ONE}.tfrecord", f"{TWO}.tfrecord"]


def test_originals_of_the_damaged_shard_are_enough(root: Path) -> None:
    """What is left would not make a data set of so many shards, and it need not."""
    before = read_tree(root / "out")
    manifest = read_manifest(root / "out")
    shard = next(shard for shard in manifest.shards if shard.name == f"{ONE}.tfrecord")
    needed = {to_system(source.path) for source in read_sources(root / "out", shard)}
    for path in (root / "images").rglob("*.*"):
        if str(path.relative_to(root / "images")) not in needed:
            path.unlink()
    flip_in_an_image(root / "out")
    assert repair(root / "out", root / "images", IN_MEMORY).left == ()
    assert read_tree(root / "out") == before


def test_folders_that_workers_do_not_see_are_refused_before_anything_is_done(root: Path) -> None:
    flip_in_an_image(root / "out")
    before = read_tree(root / "out")
    dataflow = [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=r",
        "--temp_location=gs://b/t",
    ]
    with pytest.raises(UsageError, match=r"on this machine, .* Dataflow"):
        repair(root / "out", root / "images", dataflow)
    with pytest.raises(UsageError, match=r"on this machine, .* Dataflow"):
        verify(root / "out", sources=root / "images", beam_args=dataflow)
    assert read_tree(root / "out") == before
