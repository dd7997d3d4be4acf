"""Several sizes in one pass: each data set is what it would have been alone, byte for byte."""

import contextlib
import dataclasses
import itertools
import os
import shutil
import threading
import uuid
from pathlib import Path

import pytest
from conftest import drop_companions, encode_image, make_image, run_conversion, write_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converter.commits import receipts
from converter.commits.replacements import replace_dataset
from converter.errors import ImageError, ShardmillError, UsageError
from converter.format.manifest import read_manifest
from converter.images import openers, pixels
from converter.images.conversion import convert_image, convert_sizes
from converter.options import ConvertOptions
from converter.planning.plan import Plan, write_plan
from converter.storage.disk import DiskPath
from converter.storage.files import Layout, name_size
from converter.storage.object_requests import list_objects
from converter.upkeep.verification import verify_dataset
from converter.writing import multi_size, records, shard_groups, shard_writer
from converter.writing.multi_size import (
    assemble_shard,
    choose_leader,
    list_pieces,
    plan_work,
    write_leaders,
)
from pipelines.beam import remaining
from pipelines.beam.remaining import list_remaining
from pipelines.cli.commands import main
from pipelines.jobs.convert import Conversion, run_conversions
from pipelines.jobs.outputs import locate_sizes
from pipelines.jobs.preview import propose

SIZES = [
    ConvertOptions(image_size=(side, side), encoding="raw", shard_bytes=8_000, validation_split=0.2)
    for side in (8, 24, 12)
]
IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Thirty pictures, one of them no picture, and one of several frames."""
    root = tmp_path_factory.mktemp("images")
    for seed in range(30):
        write_image(root / "ab"[seed % 2] / f"{seed}.jpg", seed, "JPEG")
    (root / "a" / "bad.jpg").write_bytes(b"no image")
    more = [make_image(seed) for seed in range(5)]
    write_image(root / "b" / "several.gif", 9, "GIF", save_all=True, append_images=more)
    return root


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """What a conversion to each size alone writes."""
    root = tmp_path_factory.mktemp("alone")
    for options in SIZES:
        run_conversion(folder, root / str(options.image_size[0]), options, IN_MEMORY)
    return {f"{side}x{side}": read_tree(root / str(side)) for side in (8, 24, 12)}


def run_sizes(images: Path, out: Path, sizes, beam_args, **settings) -> dict[str, Conversion]:
    """What `convert_sizes` does, with the whole outcome of each size."""
    outs = locate_sizes(out, sizes)
    done = run_conversions(images, outs, beam_args, **settings)
    return {place.name: conversion for place, conversion in done.items()}


def read_tree(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file())
    return drop_companions({str(path.relative_to(out)): path.read_bytes() for path in files})


def read_all(out: Path) -> dict[str, dict[str, bytes]]:
    return {path.name: read_tree(path) for path in sorted(out.iterdir())}


def write_plans(folder: Path, out: Path, sizes=SIZES) -> list[Plan]:
    plans = []
    for options in sizes:
        target = out / str(options.image_size[0])
        draft = propose(folder, options, always_sample=False).draft
        plans.append(write_plan(draft, options, images=folder, out=target))
    return plans


def test_each_data_set_is_what_it_would_be_alone(folder, alone, tmp_path):
    found = run_sizes(folder, tmp_path / "out", SIZES, IN_MEMORY)
    assert read_all(tmp_path / "out") == alone
    assert len({len(conversion.manifest.shards) for conversion in found.values()}) == 3
    for name, done in found.items():
        assert done.written == len(done.manifest.shards)
        assert done.manifest.totals.rejected == {"not_an_image": 1}
        assert verify_dataset(tmp_path / "out" / name, originals=folder) == []
    again = run_sizes(folder, tmp_path / "out", SIZES, IN_MEMORY)
    assert all(conversion.unchanged for conversion in again.values())


def test_merged_receipts_change_no_byte_of_any_size(folder, alone, tmp_path, monkeypatch):
    for module in (receipts, remaining):
        monkeypatch.setattr(module, "MERGED_RECEIPTS", 2)
    merged, write = [], receipts._write_merged
    monkeypatch.setattr(
        receipts,
        "_write_merged",
        lambda layout, lines: merged.append(layout) or write(layout, lines),
    )
    run_sizes(folder, tmp_path / "out", SIZES, IN_MEMORY)
    assert read_all(tmp_path / "out") == alone
    assert {layout.out.name for layout in merged} == {"8x8", "12x12", "24x24"}


def test_every_image_is_read_and_decoded_once(folder, tmp_path, monkeypatch):
    plans, opened = write_plans(folder, tmp_path), []
    check, loaded = openers.open_checked, []
    monkeypatch.setattr(openers, "open_checked", lambda *a: opened.append(1) or check(*a))
    monkeypatch.setattr(pixels, "orient", lambda image, turn: loaded.append(turn) or image)
    work = plan_work(plans, [plan.shards for plan in plans])
    for shard in work.shards:
        write_leaders([shard], work)
    for assembly in work.assemblies:
        assemble_shard(assembly)
    assert len(opened) == 32
    assert len(loaded) == 31


def test_several_parts_are_looked_at_at_once(folder, tmp_path, monkeypatch):
    plans, both, looks = write_plans(folder, tmp_path), threading.Barrier(2), itertools.count()
    meet = lambda *_: next(looks) > 1 or both.wait(10) >= 0  # noqa: E731
    monkeypatch.setattr(multi_size, "_is_whole", meet)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert plan_work(plans, [plan.shards for plan in plans]).assemblies
    assert next(looks) > 2


@pytest.mark.parametrize("interrupted", [0, 11, 31])
def test_an_interruption_costs_only_what_it_interrupts(
    folder, alone, tmp_path, monkeypatch, interrupted
):
    out, left, seen = tmp_path / "out", [interrupted], []
    convert = shard_writer.make_records

    def stop_there(entry, *others, **named):
        seen.append(entry.path)
        if left and not left[0]:
            raise ShardmillError("killed")
        if left:
            left[0] -= 1
        return convert(entry, *others, **named)

    monkeypatch.setattr(shard_writer, "make_records", stop_there)
    with pytest.raises(ShardmillError, match="killed"):
        run_sizes(folder, out, SIZES, IN_MEMORY)
    left.clear()
    seen.clear()
    found = run_sizes(folder, out, SIZES, IN_MEMORY)
    assert read_all(out) == alone
    kept = found["24x24"].kept
    assert kept == len(found["24x24"].manifest.shards) - found["24x24"].written
    assert len(seen) <= 32 - kept


def test_parts_that_are_gone_or_damaged_are_made_again(folder, alone, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(_):
        raise ShardmillError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.beam.transforms.assemble_shard", stop)
        with pytest.raises(ShardmillError, match="killed"):
            run_sizes(folder, out, SIZES, IN_MEMORY)
    (parts,) = Layout(out / "8x8").work.glob("parts-*")
    first, damaged, *_ = sorted(path for path in parts.iterdir() if path.suffix != ".json")
    first.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    plans = write_plans(folder, tmp_path / "other")
    work = plan_work(plans, [list_remaining(plan) for plan in plans])
    assert work.shards == choose_leader(plans).shards
    written = []
    monkeypatch.setattr(
        "pipelines.beam.transforms.write_leaders",
        lambda shards, work: written.extend(shards) or write_leaders(shards, work),
    )
    run_sizes(folder, out, SIZES, IN_MEMORY)
    names = sorted(shard.name for shard in written)
    assert names == sorted({f"{p.name}.tfrecord" for p in (first, damaged)})
    assert read_all(out) == alone


def test_one_size_may_be_finished_before(folder, alone, tmp_path):
    run_conversion(folder, tmp_path / "out" / "12x12", SIZES[2], IN_MEMORY)
    found = run_sizes(folder, tmp_path / "out", SIZES, IN_MEMORY)
    assert found["12x12"].unchanged
    assert read_all(tmp_path / "out") == alone


@pytest.mark.parametrize("frames", ["first", "all"])
@pytest.mark.parametrize("isolate", [False, True])
def test_frames_and_isolation_change_nothing_about_it(folder, tmp_path, frames, isolate):
    sizes = [
        dataclasses.replace(options, frames=frames, isolate=isolate, encoding="png")
        for options in SIZES[:2]
    ]
    run_sizes(folder, tmp_path / "out", sizes, IN_MEMORY)
    for options in sizes:
        name = "{}x{}".format(*options.image_size)
        single = dataclasses.replace(options, isolate=False)
        run_conversion(folder, tmp_path / name, single, IN_MEMORY)
        assert read_tree(tmp_path / "out" / name) == read_tree(tmp_path / name)


def test_masks_come_in_all_sizes(folder, tmp_path):
    for path in folder.rglob("*.jpg"):
        mask = tmp_path / "masks" / path.relative_to(folder).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.write_bytes(encode_image(Image.new("L", (32, 24), len(path.name)), "PNG"))
    sizes = [
        dataclasses.replace(options, mask_dir=str(tmp_path / "masks")) for options in SIZES[:2]
    ]
    run_sizes(folder, tmp_path / "out", sizes, IN_MEMORY)
    for options in sizes:
        name = "{}x{}".format(*options.image_size)
        run_conversion(folder, tmp_path / name, options, IN_MEMORY)
        assert read_tree(tmp_path / "out" / name) == read_tree(tmp_path / name)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "shorter", "longer"])
def test_large_images_have_the_bytes_of_each_size_alone(resize, file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_image(make_image(3, 240, 320), file_format, exif=exif)
    # At 1/8, 1/4, 1/2 and all of it; and once as it is.
    sides = [10, 17, 30, 60, 61, 120, 240]
    sizes = [ConvertOptions(image_size=(side, side), resize=resize) for side in sides]
    if resize == "stretch":
        sizes.append(ConvertOptions(image_size=(240, 320)))
    assert convert_sizes(data, sizes) == [convert_image(data, options) for options in sizes]
    assert convert_sizes(data, sizes[::-1]) == [convert_image(data, size) for size in sizes[::-1]]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_what_is_damaged_is_refused_in_all_sizes(file_format):
    data = encode_image(make_image(1, 60, 80), file_format)
    sizes = [ConvertOptions(image_size=(side, side), encoding="keep") for side in (60, 70, 80)]
    codes = []
    for cut in range(len(data) // 3, len(data) - len(data) // 8, len(data) // 16):
        for damaged in (data[:cut], data[:cut] + b"\xff\xd9" + data[cut + 2 :]):
            try:
                outcomes = convert_sizes(damaged, sizes)
            except ImageError:
                continue
            codes.append({getattr(outcome, "code", "written") for outcome in outcomes})
    assert all(len(found) == 1 for found in codes), codes


def test_a_size_that_cannot_be_written_costs_no_other():
    data = encode_image(Image.new("L", (4000, 10)), "PNG")
    sizes = [ConvertOptions(image_size=(side, side), resize="shorter") for side in (5, 50)]
    small, large = convert_sizes(data, sizes)
    assert small.width == 2000
    assert large.code == "too_large"


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_pieces_are_all_images_in_their_order(leader, follower):
    total = min(sum(leader), sum(follower))
    cut = []
    for counts in (leader, follower):
        left, taken = total, []
        for count in counts:
            taken.append(min(count, left))
            left -= taken[-1]
        cut.append([*taken, left])
    places = [[_Shard(index, n) for index, n in enumerate(counts)] for counts in cut]
    plans = [_Plan(shards) for shards in places]
    numbers = [(shard.name, place) for shard in places[0] for place in range(shard.records)]
    pieces = list_pieces(plans[1], plans[0], DiskPath("parts"))
    found = [
        (f"{piece.part.name}.tfrecord", piece.first + place)
        for shard in places[1]
        for piece in pieces[shard.name]
        for place in range(piece.images)
    ]
    assert found == numbers
    assert all(piece.images for each in pieces.values() for piece in each)


def test_pieces_of_many_shards_take_one_look_at_each():
    looks = itertools.count()

    class Shards(list):
        def __iter__(self):
            next(looks)
            return super().__iter__()

    plans = [_Plan(Shards(_Shard(index, n) for index in range(1_200 // n))) for n in (2, 3)]
    assert len(list_pieces(plans[1], plans[0], DiskPath("parts"))) == 400
    assert next(looks) == 2


@dataclasses.dataclass
class _Shard:
    index: int
    records: int
    split: str = "train"

    @property
    def name(self) -> str:
        return f"train-{self.index}.tfrecord"


@dataclasses.dataclass
class _Plan:
    shards: list


def test_the_command_line_takes_several_sizes(folder, alone, tmp_path, capsys):
    arguments = ["--encoding=raw", "--shard-size=8000", "--validation-split=0.2", "--no-progress"]
    sizes = ["--image-size=8", "--image-size=24", "--image-size=12x12"]
    assert main(["plan", str(folder), str(tmp_path / "out"), *arguments[:-1], *sizes]) == 0
    assert "24x24:" in capsys.readouterr().out
    out = str(tmp_path / "out")
    assert main(["convert", str(folder), out, *arguments, *sizes, "--workers=1"]) == 0
    assert read_all(tmp_path / "out") == alone
    told = capsys.readouterr().out
    assert f"wrote 31 images to {tmp_path / 'out' / '8x8'} in" in told
    # With the options of the data sets, which lie in folders of their own.
    again = [str(folder), out, *sizes]
    assert main(["convert", *again, "--no-progress", "--update", *IN_MEMORY]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 3
    assert main(["convert", str(folder), out, "--no-progress", "--update"]) == 2
    assert "holds data sets of several sizes, such as 12x12: give" in capsys.readouterr().err
    assert main(["plan", *again, *arguments[:-1]]) == 0
    planned = capsys.readouterr().out
    assert planned.count("nothing to do") == 3
    assert planned.endswith("nothing was written\n")
    assert main(["plan", *again]) == 2
    assert "8x8 holds a finished data set (encoding was raw, is jpeg; " in capsys.readouterr().err
    assert main(["plan", *again, "--image-size=8x8"]) == 2
    assert "image size 8x8 is given twice" in capsys.readouterr().err
    assert read_manifest(tmp_path / "out" / "24x24").image.height == 24


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([SIZES[0], SIZES[1], SIZES[0]], "image size 8x8 is given twice"),
        (
            [dataclasses.replace(s, resize="none") for s in SIZES],
            "resize none leaves images as large",
        ),
        ([SIZES[0], dataclasses.replace(SIZES[1], seed=7)], "and seed is 0 for 8x8, 7 for 24x24: "),
        ([SIZES[0], dataclasses.replace(SIZES[1], on_error="fail")], "and on_error is reject for "),
        ([], "there is no image size to convert to"),
    ],
)
def test_sizes_that_make_no_sense_together_are_refused(folder, tmp_path, sizes, message):
    with pytest.raises(UsageError, match=message):
        run_sizes(folder, tmp_path / "out", sizes, IN_MEMORY)
    assert not (tmp_path / "out").exists()


def test_a_data_set_itself_is_no_folder_for_several(folder, converted):
    with pytest.raises(UsageError, match="a data set itself"):
        run_sizes(folder, converted, SIZES, IN_MEMORY)


def test_sizes_that_are_there_are_replaced_or_updated_one_by_one(folder, alone, tmp_path):
    images, out = shutil.copytree(folder, tmp_path / "images"), tmp_path / "out"
    other = [dataclasses.replace(size, seed=1) for size in SIZES]
    run_sizes(images, out, other[:2], IN_MEMORY)
    with pytest.raises(UsageError, match="replace it with --overwrite"):
        run_sizes(images, out, SIZES, IN_MEMORY)
    run_sizes(images, out, SIZES, IN_MEMORY, mode="overwrite")
    assert read_all(out) == alone
    write_image(images / "a" / "new.jpg", 99, "JPEG")
    # Each size runs a pipeline of its own, with the same options.
    processes = ["--direct_running_mode=multi_processing", "--direct_num_workers=1"]
    updated = run_sizes(images, out, SIZES, processes, mode="update")
    assert {name: done.update.added for name, done in updated.items()} == dict.fromkeys(alone, 1)
    for name in alone:
        assert verify_dataset(out / name, originals=images) == []


def read_tree_there(out) -> dict[str, bytes]:
    if isinstance(out, Path):
        return read_tree(out)
    found = {path.relative_to(out): path.read_bytes() for path, _ in list_objects(out)}
    return drop_companions(found)


def count_reads(monkeypatch) -> list[str]:
    """The paths of the originals that are read from now on, but for those of samples."""
    seen = []

    def count(entry, *others, **named):
        seen.append(entry.path)
        return records.make_records(entry, *others, **named)

    monkeypatch.setattr(shard_writer, "make_records", count)
    return seen


def test_an_archive_that_is_compressed_comes_in_several_sizes(folder, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", folder)
    alone = {}
    for options in SIZES:
        name = name_size(*options.image_size)
        run_conversion(archive, tmp_path / name, options, IN_MEMORY)
        alone[name] = read_tree(tmp_path / name)
    seen = count_reads(monkeypatch)
    found = run_sizes(archive, tmp_path / "out", SIZES, IN_MEMORY)
    assert len(seen) == 32
    assert read_all(tmp_path / "out") == alone
    assert found["24x24"].written == len(found["24x24"].manifest.shards)


def test_an_archive_that_is_compressed_is_gone_on_with(folder, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", folder)
    run_sizes(archive, tmp_path / "whole", SIZES, IN_MEMORY)

    def stop(_):
        raise ShardmillError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.beam.transforms.assemble_shard", stop)
        with pytest.raises(ShardmillError, match="killed"):
            run_sizes(archive, tmp_path / "out", SIZES, IN_MEMORY)
    seen = count_reads(monkeypatch)
    found = run_sizes(archive, tmp_path / "out", SIZES, IN_MEMORY)
    assert not seen
    assert found["24x24"].written == 0
    assert read_all(tmp_path / "out") == read_all(tmp_path / "whole")


def test_a_full_disk_is_told_while_images_wait(folder, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", folder)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_groups, "pack_outcome", fail)
    with pytest.raises(ShardmillError, match=": No space left"):
        run_sizes(archive, tmp_path / "out", SIZES, IN_MEMORY)


def test_parts_in_a_store_are_not_read_to_find_out_what_is_left(
    folder, alone, s3_server, monkeypatch
):
    out = s3_server.path(uuid.uuid4().hex)

    def stop(_):
        raise ShardmillError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.beam.transforms.assemble_shard", stop)
        with pytest.raises(ShardmillError, match="killed"):
            run_sizes(folder, out, SIZES[:2], IN_MEMORY)
    hashed, hash_here = [], multi_size.hash_file
    monkeypatch.setattr(multi_size, "hash_file", lambda p: hashed.append(p) or hash_here(p))
    seen = count_reads(monkeypatch)
    run_sizes(folder, out, SIZES[:2], IN_MEMORY)
    assert not seen
    assert not hashed
    for name in ("8x8", "24x24"):
        assert read_tree_there(out / name) == alone[name]


def test_several_sizes_go_into_a_store(folder, alone, server, monkeypatch):
    out = server.path(uuid.uuid4().hex)
    seen = count_reads(monkeypatch)
    run_sizes(folder, out, SIZES, IN_MEMORY)
    assert len(seen) == 32
    assert {name: read_tree_there(out / name) for name in alone} == alone
    again = run_sizes(folder, out, SIZES, IN_MEMORY)
    assert all(conversion.unchanged for conversion in again.values())


@pytest.mark.parametrize(
    ("place", "replaced"), [("here", 0), ("here", 1), ("here", 2), ("store", 1)]
)
def test_sizes_that_were_replaced_before_a_kill_are_not_made_again(
    folder, alone, s3_server, tmp_path, monkeypatch, place, replaced
):
    out = tmp_path / "out" if place == "here" else s3_server.path(uuid.uuid4().hex)
    other = [dataclasses.replace(size, seed=1) for size in SIZES]
    run_sizes(folder, out, other, IN_MEMORY)
    before = {name: read_tree_there(out / name) for name in alone}
    done = []

    def replace(target):
        if len(done) == replaced:
            raise ShardmillError("killed")
        done.append(target.name)
        replace_dataset(target)

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.jobs.convert.replace_dataset", replace)
        with pytest.raises(ShardmillError, match="killed"):
            run_sizes(folder, out, SIZES, IN_MEMORY, mode="overwrite")
    for name in alone:
        assert read_tree_there(out / name) == (alone if name in done else before)[name]
    seen = count_reads(monkeypatch)
    found = run_sizes(folder, out, SIZES, IN_MEMORY, mode="overwrite")
    assert not seen
    assert {name for name in alone if found[name].unchanged} == {*done}
    assert {name: read_tree_there(out / name) for name in alone} == alone


def test_sizes_that_are_there_as_asked_for_are_made_again_only_with_overwrite(
    folder, alone, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    run_sizes(folder, out, SIZES, IN_MEMORY)
    seen = count_reads(monkeypatch)
    run_sizes(folder, out, SIZES, IN_MEMORY)
    assert not seen
    damaged = next((out / "8x8").glob("*.tfrecord"))
    damaged.write_bytes(b"damaged")
    run_sizes(folder, out, SIZES, IN_MEMORY, mode="overwrite")
    assert len(seen) == 32
    assert read_all(out) == alone


def test_what_another_run_has_left_beside_is_given_up(folder, alone, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_sizes(folder, out, SIZES, IN_MEMORY)

    def stop(_):
        raise ShardmillError("killed")

    other = [dataclasses.replace(size, seed=1) for size in SIZES]
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.jobs.convert.replace_dataset", stop)
        with pytest.raises(ShardmillError, match="killed"):
            run_sizes(folder, out, other, IN_MEMORY, mode="overwrite")
    assert read_all(out).keys() == {*alone, *(f".{name}.shardmill-new" for name in alone)}
    found = run_sizes(folder, out, SIZES, IN_MEMORY, mode="overwrite")
    assert read_all(out) == alone
    assert not any(conversion.unchanged for conversion in found.values())


def occupy(out: Path, how: str, folder: Path) -> None:
    """Makes one of several sizes impossible."""
    if how == "strange":
        out.mkdir(parents=True)
        (out / "diary.txt").write_text("dear diary")
    if how == "file":
        out.parent.mkdir(parents=True)
        out.write_text("dear diary")
    if how == "finished":
        run_conversion(folder, out, dataclasses.replace(SIZES[2], seed=1), IN_MEMORY)
    if how == "unfinished":
        options = dataclasses.replace(SIZES[2], seed=1)
        draft = propose(folder, options, always_sample=False).draft
        write_plan(draft, options, images=folder, out=out)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("strange", "12x12 is not empty and not ours"),
        ("file", "12x12 is a file"),
        ("finished", "12x12 holds a finished data set"),
        ("unfinished", "12x12 holds an unfinished conversion of other options"),
        ("locked", "12x12"),
    ],
)
def test_one_size_that_is_impossible_costs_no_work(folder, tmp_path, monkeypatch, how, message):
    out = tmp_path / "out"
    occupy(out / "12x12", how, folder)
    kept = read_all(out) if how != "file" and out.exists() else {}
    seen = count_reads(monkeypatch)
    with contextlib.ExitStack() as stack:
        if how == "locked":
            stack.enter_context((out / "12x12").lock())
        with pytest.raises(ShardmillError, match=message):
            run_sizes(folder, out, SIZES, IN_MEMORY)
    assert not seen
    assert [path.name for path in tmp_path.glob("out/*")] == ([] if how == "locked" else ["12x12"])
    assert how in ("file", "locked") or read_all(out) == kept


@pytest.mark.parametrize("how", ["missing", "options", "locked", "columns"])
def test_an_update_that_one_size_does_not_allow_changes_none(folder, tmp_path, how):
    images, out = shutil.copytree(folder, tmp_path / "images"), tmp_path / "out"
    run_sizes(images, out, SIZES[:2], IN_MEMORY)
    if how == "missing":
        shutil.rmtree(out / "24x24")
    if how in ("options", "columns"):
        shutil.rmtree(out / "24x24")
        change = {"seed": 1} if how == "options" else {"label_from": "none"}
        run_conversion(images, out / "24x24", dataclasses.replace(SIZES[1], **change), IN_MEMORY)
    before = read_all(out)
    write_image(images / "a" / "new.jpg", 99, "JPEG")
    with contextlib.ExitStack() as stack:
        if how == "locked":
            stack.enter_context((out / "24x24").lock())
        with pytest.raises(ShardmillError, match="24x24"):
            run_sizes(images, out, SIZES[:2], IN_MEMORY, mode="update")
    assert read_all(out) == before
