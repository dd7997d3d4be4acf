"""What killed runs leave behind is named, and removed only when asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import convert_folder, mill_folder, write_image

from converter.commits.commit import commit, list_finished
from converter.commits.leftovers import clean_folder
from converter.errors import LockedError, UsageError
from converter.options import ConvertOptions
from converter.storage.layout import Layout
from converter.storage.locks import lock_folder
from converter.upkeep.verification import verify_dataset

OPTIONS = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=2)
HEX = "0123456789abcdef" * 2


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(4):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    return tmp_path / "images"


def list_tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def leave_temporaries(out: Path) -> list[Path]:
    """What a kill leaves among what is being written, and two files that are not ours."""
    Layout(out).make_work_folders()
    scratch = Layout(out).scratch
    ours = [scratch / f"{name}.{HEX}" for name in ("lock", "train-00000-of-00002.tfrecord")]
    for path in (*ours, scratch / "notes.txt", scratch / f"short.{HEX[1:]}"):
        path.touch()
    return ours


def test_temporaries_go_and_the_unfinished_conversion_stays(images: Path, tmp_path: Path) -> None:
    plan = mill_folder(images, tmp_path / "out", OPTIONS)
    (plan.out / "letter.txt").touch()
    before = list_tree(plan.out)
    ours = leave_temporaries(plan.out)
    littered = list_tree(plan.out)

    found = clean_folder(plan.out, dry_run=True)
    assert list_tree(plan.out) == littered
    assert found == [(path, "a file that was being written") for path in ours]
    assert clean_folder(plan.out) == found
    assert sorted(set(list_tree(plan.out)) - set(before)) == [
        ".shardmill/tmp/notes.txt",
        f".shardmill/tmp/short.{HEX[1:]}",
    ]
    assert list_finished(plan) == list(plan.shards)
    assert clean_folder(plan.out) == []


def test_an_unfinished_conversion_is_given_up_only_when_asked_for(
    images: Path, tmp_path: Path
) -> None:
    plan = mill_folder(images, tmp_path / "out", OPTIONS)
    (plan.out / "letter.txt").touch()
    found = {path.name for path, _ in clean_folder(plan.out, unfinished=True, dry_run=True)}
    assert found == {path.name for path in plan.out.iterdir()} - {"letter.txt"}
    clean_folder(plan.out, unfinished=True)
    assert list_tree(plan.out) == ["letter.txt"]


def test_a_finished_data_set_loses_nothing_but_its_work_folder(
    images: Path, tmp_path: Path
) -> None:
    commit(mill_folder(images, tmp_path / "out", OPTIONS), keep_work=True)
    for unfinished in (True, False):
        found = clean_folder(tmp_path / "out", unfinished=unfinished)
        assert [path.name for path, _ in found] == ([".shardmill"] if unfinished else [])
        assert verify_dataset(tmp_path / "out") == []


def test_what_was_replaced_goes_and_what_is_to_replace_stays(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    shutil.copytree(out, Layout(out).retired)
    mill_folder(images, Layout(out).stage, OPTIONS)
    ours = leave_temporaries(Layout(out).stage)

    found = clean_folder(out)
    assert [path for path, _ in found] == [*ours, Layout(out).retired]
    assert not Layout(out).retired.exists()
    assert Layout(Layout(out).stage).plan.exists()

    (Layout(out).stage / ".shardmill" / "tmp" / "notes.txt").unlink()
    clean_folder(out, unfinished=True)
    assert not Layout(out).stage.exists()
    assert verify_dataset(out) == []


def test_a_stale_lock_is_named_and_a_held_one_protects_everything(
    images: Path, tmp_path: Path
) -> None:
    plan = mill_folder(images, tmp_path / "out", OPTIONS)
    ours = leave_temporaries(plan.out)
    with lock_folder(plan.out):
        for dry_run in (True, False):
            with pytest.raises(LockedError, match=r"being written by process .* when that has"):
                clean_folder(plan.out, dry_run=dry_run)
        shutil.copy(Layout(plan.out).lock, tmp_path / "lock")
    assert all(path.exists() for path in ours)
    shutil.copy(tmp_path / "lock", Layout(plan.out).lock)
    found = clean_folder(plan.out)
    assert found[0] == (Layout(plan.out).lock, "the lock of a process that is gone")
    assert not Layout(plan.out).lock.exists()


def test_a_data_set_that_a_kill_took_the_name_of_gets_it_back(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    out.rename(Layout(out).retired)
    assert clean_folder(out) == []
    assert verify_dataset(out) == []


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="is neither a data set nor an unfinished conversion"):
            clean_folder(folder)
    assert list_tree(tmp_path) == ["letter.txt"]
