"""Refusals before anything is touched."""

import dataclasses
import os
import shutil
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from conftest import convert_folder, write_folder, write_image
from faults.injected import mount_tmpfs
from servers import Server, upload

from converter.errors import OutputError, UsageError
from converter.options import ConvertOptions
from converter.storage.disk import DiskPath
from converter.storage.files import Layout
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import receipt_path
from pipelines import convert_sizes, repair, verify
from pipelines.cli.commands import main
from pipelines.jobs import outputs, preview, request
from pipelines.jobs.convert import convert

NEED_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting takes root"
)
RAW = ConvertOptions(image_size=(100, 100), encoding="raw", num_shards=4)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images that take 30 kB each when they are raw: 1.2 MB."""
    root = tmp_path_factory.mktemp("images")
    for seed in range(40):
        write_image(root / "ab"[seed % 2] / f"{seed}.png", seed)
    return root


def test_a_new_an_empty_and_an_unfinished_output_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / ".shardmill").mkdir(parents=True)
    (tmp_path / "unfinished" / "train-00000-of-00001.tfrecord").touch()
    for out in ("new/deep", "empty", "unfinished"):
        outputs.check_folders(tmp_path / "images", tmp_path / out)


def test_an_output_inside_a_data_set_is_refused(images: Path, tmp_path: Path) -> None:
    convert_folder(images, tmp_path / "out", RAW)
    for place in (tmp_path / "out" / "in", tmp_path / "out" / "a" / "b"):
        with pytest.raises(UsageError, match=r"out/\S+ lies inside .* \S+/out:"):
            convert(images, place, RAW, IN_MEMORY)
        assert not place.exists()
    assert verify_dataset(tmp_path / "out") == []


def test_an_output_inside_the_images_is_seen_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    with pytest.raises(UsageError, match="lies inside the images"):
        outputs.check_folders(tmp_path / "images", tmp_path / "link" / "out")


def test_folders_that_only_begin_alike_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    outputs.check_folders(tmp_path / "images", tmp_path / "images-256")


def test_this_environment_has_no_other_owner_of_the_import_names() -> None:
    request.check_import_names(*sys.path)


@pytest.mark.parametrize("manifest", ['{"name": "my app"}', "not JSON", "[]"])
def test_a_manifest_of_something_else_does_not_make_a_folder_ours(
    images: Path, tmp_path: Path, manifest: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(manifest)
    (out / "labels.txt").write_text("of somebody")
    for mode in ("new", "overwrite"):
        with pytest.raises(UsageError, match=r"not empty .*'labels\.txt'"):
            convert(images, out, RAW, IN_MEMORY, mode=mode)
    assert (out / "labels.txt").read_text() == "of somebody"
    # But one of ours may be damaged, and be replaced.
    (out / "train-00000-of-00004.tfrecord").touch()
    assert convert(images, out, RAW, IN_MEMORY, mode="overwrite").totals.written == 40


def test_a_folder_may_be_named_by_the_way_to_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_folder(images, tmp_path / "out", RAW)
    (tmp_path / "out" / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "out" / "mine")
    other = dataclasses.replace(RAW, seed=1)
    assert convert(images, "..", other, IN_MEMORY, mode="overwrite").options["seed"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert (tmp_path / "out" / "mine").is_dir()


@NEED_ROOT
def test_a_mount_point_in_a_data_set_is_told_of_before_anything_is_done(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    convert_folder(images, out, RAW)
    with mount_tmpfs(out / "cache", "size=100k"):
        for mode in ("update", "overwrite"):
            with pytest.raises(UsageError, match="cache is a mount point"):
                convert(images, out, None, IN_MEMORY, mode=mode)
    assert convert(images, out, None, IN_MEMORY, mode="update").totals.written == 40


def test_links_that_lead_nowhere_are_one_clear_line(images: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="loop is a loop"):
        convert(images, tmp_path / "loop", RAW, IN_MEMORY)
    for command in (convert, preview.plan):
        with pytest.raises(UsageError, match="loop does not exist"):
            command(tmp_path / "loop", tmp_path / "out", RAW)
    (tmp_path / "gone").symlink_to(tmp_path / "none")
    with pytest.raises(OutputError, match=r"gone is .* way"):
        convert(images, tmp_path / "gone" / "out", RAW, IN_MEMORY)


@pytest.mark.parametrize(
    ("folder", "file", "text"),
    [
        ("feeds-3.0.dist-info", "RECORD", "read.py,,\nreader/__init__.py,sha256=abc,12\n"),
        ("feeds-3.0.egg-info", "top_level.txt", "feed\nreader\n"),
    ],
)
def test_another_owner_of_an_import_name_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, file: str, text: str
) -> None:
    install(tmp_path, folder, "feeds", file, text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UsageError,
        match=r"package 'reader' .* distribution 'feeds'",
    ):
        request.check_import_names(*sys.path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shardmill", "reader/__init__.py,,\n"),
        ("feeds", "readers/__init__.py,,\nfeed/reader/__init__.py,,\nreader.py,,\n"),
    ],
)
def test_what_is_ours_and_what_only_looks_like_it_is_no_other_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    install(tmp_path, f"{name}-3.0.dist-info", name, "RECORD", text)
    monkeypatch.syspath_prepend(tmp_path)
    request.check_import_names(*sys.path)


def install(site: Path, folder: str, name: str, file: str, text: str) -> None:
    """What pip leaves of a distribution beside its files."""
    (site / folder).mkdir()
    (site / folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.0\n")
    (site / folder / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.0\n")
    (site / folder / file).write_text(text)


@NEED_ROOT
def test_a_disk_that_is_too_small_is_told_of_before_the_first_image(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mount_tmpfs(tmp_path / "disk", "size=1m"):
        out = tmp_path / "disk" / "out"
        options = ["--image-size=100", "--encoding=raw", "--num-shards=4", "--no-progress"]
        assert main(["convert", str(images), str(out), *options, *IN_MEMORY]) == 1
        warning, error = capsys.readouterr().err.splitlines()
        assert warning == (
            f"shardmill: warning: about 1.2 MB more will be written to {out}, where 1.0 MB are "
            "free: make room; on a full disk the conversion ends, finished shards are kept, and "
            "the same command resumes it"
        )
        assert error.startswith("shardmill: error: ")
        assert "No space left on device" in error
        assert main(["plan", str(images), str(tmp_path / "disk" / "other"), *options[:3]]) == 0
        assert "shardmill: warning: about 1.2 MB more" in capsys.readouterr().err


@NEED_ROOT
def test_what_is_finished_needs_no_room_any_more(images: Path, tmp_path: Path) -> None:
    with mount_tmpfs(tmp_path / "disk", "size=1400k"):
        out = tmp_path / "disk" / "out"
        plan = write_folder(images, out, RAW)
        for path in (out / plan.shards[3].name, receipt_path(Layout(out), plan.shards[3])):
            path.unlink()
        assert DiskPath(out).measure_room() < 600_000
        assert (
            convert(images, out, RAW, IN_MEMORY).plan == plan.digest
        )  # a warning is an error here


@NEED_ROOT
def test_shards_of_a_store_need_room_here_to_be_read(
    images: Path, tmp_path: Path, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.set_faults()
    convert_folder(images, tmp_path / "out", RAW)
    out = upload(tmp_path / "out", s3_server.path(uuid.uuid4().hex))
    with mount_tmpfs(tmp_path / "disk", "size=100k"):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
        with pytest.raises(OutputError, match=f"^{tmp_path}/disk cannot hold .* TMPDIR"):
            verify_dataset(out)
        assert list((tmp_path / "disk").iterdir()) == []
    monkeypatch.undo()
    assert verify_dataset(out) == []


@pytest.mark.parametrize(("name", "factor"), [("images", 1), ("images.tar.gz", 2)])
def test_records_that_wait_take_room_as_well(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, factor: int
) -> None:
    place = images
    if name.endswith(".gz"):
        place = DiskPath(shutil.make_archive(str(tmp_path / "images"), "gztar", images))
    needs = []
    monkeypatch.setattr(preview, "check_room", lambda _, needed: needs.append(needed))
    # Every size is so large that a sample has to tell how many shards there will be.
    size = dataclasses.replace(RAW, num_shards=None, shard_bytes=300_000)
    other = dataclasses.replace(size, image_size=(50, 50))
    convert(place, tmp_path / "one", size, IN_MEMORY)
    convert_sizes(place, tmp_path / "two", [size, other], IN_MEMORY)
    shards, small = 40 * 30_000, 40 * 7_500
    expected = [factor * shards, factor * (shards + small) + small]
    assert needs == pytest.approx(expected, rel=0.1)


def test_an_update_needs_room_for_what_is_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = DiskPath(shutil.copytree(images, tmp_path / "images"))
    convert_folder(root, tmp_path / "out", RAW)
    for seed in range(100, 180):
        write_image(root / "a" / f"{seed}.png", seed)
    needs = []
    monkeypatch.setattr(preview, "check_room", lambda _, needed: needs.append(needed))
    convert(root, tmp_path / "out", None, IN_MEMORY, mode="update")
    assert needs == [pytest.approx(120 * 30_000, rel=0.1)]


def test_room_is_looked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    room = DiskPath(tmp_path / "not" / "there").measure_room()
    assert abs(room - shutil.disk_usage(tmp_path).free) < 100_000_000
    outputs.check_room(tmp_path / "not" / "there", room / 2)
    with pytest.warns(outputs.SpaceWarning, match=r"more will .*/not/there"):
        outputs.check_room(tmp_path / "not" / "there", room * 2)


def test_an_argument_that_a_function_does_not_know_is_refused(image_folder, converted, tmp_path):
    for call in (
        lambda: convert(image_folder, tmp_path / "out", wrkers=2),
        lambda: preview.plan(image_folder, tmp_path / "out", wrkers=2),
        lambda: verify(converted, wrkers=2),
        lambda: repair(converted, image_folder, wrkers=2),
    ):
        with pytest.raises(UsageError, match="argument 'wrkers' is unknown"):
            call()
    with pytest.raises(UsageError, match=r"'mode' is unknown"):
        verify(converted, mode="update")
    with pytest.raises(UsageError, match="beam_args '--runner=x' is one text"):
        convert(image_folder, tmp_path / "out", beam_args="--runner=x")
    assert not (tmp_path / "out").exists()


def test_originals_to_verify_with_have_to_exist(converted, tmp_path):
    with pytest.raises(UsageError, match="missing does not exist"):
        verify(converted, sources=tmp_path / "missing")
