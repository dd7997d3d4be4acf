"""A data set takes the place of another in one step, and nothing that is not of it is lost."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import convert_folder, write_folder, write_image

from converter.commits.commit import commit
from converter.commits.replacements import (
    discard_dataset,
    list_own_files,
    list_strangers,
    replace_dataset,
    restore_folder,
    settle_folder,
)
from converter.errors import OutputError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.storage import disk
from converter.storage.files import Layout
from converter.upkeep.verification import verify_dataset

OLD = ConvertOptions(source="folders", image_size=(8, 10), encoding="png", num_shards=2)
NEW = ConvertOptions(source="folders", image_size=(6, 6), encoding="png", num_shards=3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished data set, and beside it the complete one that is to replace it."""
    for seed in range(6):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    convert_folder(tmp_path / "images", tmp_path / "out", OLD)
    stage_dataset(tmp_path / "images", tmp_path / "out")
    return tmp_path / "out"


def stage_dataset(images: Path, out: Path) -> None:
    commit(write_folder(images, Layout(out).stage, NEW), keep_work=True)


def is_new(out: Path, *, strangers: frozenset[str] = frozenset()) -> bool:
    """Whether the new data set lies there; it or the old one has to, whole."""
    strangers |= {".shardmill"}
    assert [fault for fault in verify_dataset(out) if fault.file not in strangers] == []
    manifest = read_manifest(out)
    assert manifest.options in (OLD.to_json(), NEW.to_json())
    return manifest.options == NEW.to_json()


def assert_replaced(out: Path, *, strangers: frozenset[str] = frozenset()) -> None:
    assert [fault for fault in verify_dataset(out) if fault.file not in strangers] == []
    assert read_manifest(out).options == NEW.to_json()
    assert {path.name for path in out.parent.iterdir()} == {"images", "out"}


def test_the_new_one_takes_the_place_of_the_old_one(out: Path) -> None:
    out.chmod(0o750)
    replace_dataset(out)
    assert_replaced(out)
    assert out.stat().st_mode & 0o777 == 0o750


def test_what_is_not_of_the_old_one_survives(out: Path) -> None:
    (out / "notes").mkdir()
    (out / "notes" / "todo.txt").write_text("more cats")
    (out / "train-00000-of-00009.tfrecord").write_text("of nobody knows what")
    replace_dataset(out)
    assert_replaced(out, strangers=frozenset({"notes", "train-00000-of-00009.tfrecord"}))
    assert (out / "notes" / "todo.txt").read_text() == "more cats"
    assert (out / "train-00000-of-00009.tfrecord").exists()


def test_a_stranger_that_is_in_the_way_is_named_and_nothing_changes(out: Path) -> None:
    name = "train-00002-of-00003.tfrecord"
    (out / name).write_text("mine")
    with pytest.raises(OutputError, match=f"^{re.escape(str(out / name))} does not belong"):
        replace_dataset(out)
    assert read_manifest(out).options == OLD.to_json()
    assert (out / name).read_text() == "mine"
    (out / name).unlink()
    replace_dataset(out)
    assert_replaced(out)


def test_a_folder_is_never_a_file_of_the_old_one(out: Path) -> None:
    (out / "report.html").mkdir()
    (out / "report.html" / "mine").touch()
    replace_dataset(out)
    assert_replaced(out)
    assert (out / "report.html" / "mine").exists()


def test_a_folder_that_is_in_the_way_is_named_and_nothing_changes(out: Path) -> None:
    (out / "labels.txt").unlink()
    (out / "labels.txt").mkdir()
    with pytest.raises(OutputError, match=r"labels\.txt does not belong"):
        replace_dataset(out)
    assert read_manifest(out).options == OLD.to_json()
    (out / "labels.txt").rmdir()
    replace_dataset(out)
    assert_replaced(out)


class Killed(BaseException):
    """Ends a step as a kill would: nothing that comes after is done."""


def kill_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """Lets `count` changes of the file system happen, and kills at the next one."""
    left = iter(range(count))

    def watch(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def step(*args: object, **kwargs: object) -> object:
            if next(left, None) is None:
                raise Killed
            return real(*args, **kwargs)

        patch.setattr(owner, name, step)

    for name in ("rename", "replace", "unlink", "rmdir", "chmod"):
        watch(Path, name)
    watch(disk, "exchange_names")
    watch(shutil, "rmtree")


@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "in two steps"])
def test_a_kill_at_any_step_leaves_one_of_the_two_and_the_next_run_ends_it(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchange: bool
) -> None:
    mine = frozenset({"notes.txt"})
    (out / "notes.txt").write_text("mine")
    kept = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-kept"))
    states = []
    killed = True
    while killed:
        shutil.rmtree(tmp_path)
        shutil.copytree(kept, tmp_path)
        with monkeypatch.context() as patch:
            if not exchange:
                patch.setattr(disk, "exchange_names", lambda *_: False)
            kill_at(patch, len(states))
            try:
                replace_dataset(out)
                killed = False
            except Killed:
                pass
        restore_folder(out, break_lock=False)
        states.append(is_new(out, strangers=mine))
        with out.lock():
            settle_folder(out)
            if not is_new(out, strangers=mine):
                replace_dataset(out)
        assert_replaced(out, strangers=mine)
        assert (out / "notes.txt").read_text() == "mine"
    assert len(states) > 15
    assert states == sorted(states)


def test_a_replacement_that_is_not_complete_is_left_alone(out: Path) -> None:
    (Layout(out).stage / "manifest.json").unlink()
    assert settle_folder(out) is False
    assert not is_new(out)
    assert Layout(out).plan.exists() is False
    assert Layout(Layout(out).stage).plan.exists()


def test_a_work_folder_of_a_finished_data_set_is_removed(out: Path) -> None:
    shutil.copytree(Layout(out).stage / ".shardmill", Layout(out).work)
    assert settle_folder(out) is True
    assert not Layout(out).work.exists()
    assert not is_new(out)


@pytest.mark.parametrize("damage", ["", "manifest", "plan"])
def test_own_files_are_known_also_without_a_manifest(tmp_path: Path, damage: str) -> None:
    for seed in (1, 2):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    plan = write_folder(tmp_path / "images", tmp_path / "out", OLD)
    if damage != "plan":
        commit(plan)
    if damage == "manifest":
        (plan.out / "manifest.json").write_bytes(b"{")
    if damage == "plan":
        Layout(plan.out).plan.write_bytes(b"{")
    (plan.out / "train.tfrecord").touch()
    (plan.out / "letter.txt").touch()
    present = {path.name for path in plan.out.iterdir()} - {".shardmill"}
    assert present - list_own_files(plan.out) == {"train.tfrecord", "letter.txt"}
    assert list_strangers(plan.out, list_own_files(plan.out)) == ["letter.txt", "train.tfrecord"]
    discard_dataset(plan.out)
    assert {path.name for path in plan.out.iterdir()} == {"train.tfrecord", "letter.txt"}
