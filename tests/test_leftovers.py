"""What killed runs leave behind is named, and removed only when asked for."""

import dataclasses
import shutil
import uuid
from pathlib import Path

import pytest
from conftest import convert_folder, write_folder, write_image
from servers import KilledError, kill_at, upload_tree
from test_locks import write_owner
from test_stores import read_tree

from converter.commits.commit import commit, list_finished
from converter.commits.replacements import replace_dataset
from converter.errors import LockedError, UsageError
from converter.options import ConvertOptions
from converter.storage.disk import DiskPath
from converter.storage.files import Layout, write_file
from converter.storage.locks import dump_owner, parse_owner, sign_folder
from converter.storage.object_requests import put_object
from converter.upkeep.verification import verify_dataset
from pipelines import clean, convert

OPTIONS = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=2)
IN_MEMORY = ["--direct_running_mode=in_memory"]
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


def test_clean_asks_for_a_listing_and_not_for_each_file(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = write_folder(images, tmp_path / "out", dataclasses.replace(OPTIONS, num_shards=4))
    asked, exists = [], DiskPath.exists
    monkeypatch.setattr(DiskPath, "exists", lambda path: (asked.append(path.name), exists(path))[1])
    found = {left.path.name for left in clean(plan.out, unfinished=True)}
    assert {shard.name for shard in plan.shards} < found
    assert not found & {*asked} - {".shardmill"}
    assert list_tree(plan.out) == []


def test_temporaries_go_and_the_unfinished_conversion_stays(images: Path, tmp_path: Path) -> None:
    plan = write_folder(images, tmp_path / "out", OPTIONS)
    (plan.out / "letter.txt").touch()
    before = list_tree(plan.out)
    ours = leave_temporaries(plan.out)
    littered = list_tree(plan.out)

    found = clean(plan.out, dry_run=True)
    assert list_tree(plan.out) == littered
    assert found == [(path, "a file that was being written") for path in ours]
    assert clean(plan.out) == found
    assert sorted(set(list_tree(plan.out)) - set(before)) == [
        ".shardmill/tmp/notes.txt",
        f".shardmill/tmp/short.{HEX[1:]}",
    ]
    assert list_finished(plan) == list(plan.shards)
    assert clean(plan.out) == []


def test_an_unfinished_conversion_is_given_up_only_when_asked_for(
    images: Path, tmp_path: Path
) -> None:
    plan = write_folder(images, tmp_path / "out", OPTIONS)
    (plan.out / "letter.txt").touch()
    found = {path.name for path, _ in clean(plan.out, unfinished=True, dry_run=True)}
    assert found == {path.name for path in plan.out.iterdir()} - {"letter.txt"}
    clean(plan.out, unfinished=True)
    assert list_tree(plan.out) == ["letter.txt"]


def test_a_finished_data_set_loses_nothing_but_its_work_folder(
    images: Path, tmp_path: Path
) -> None:
    commit(write_folder(images, tmp_path / "out", OPTIONS), keep_work=True)
    for unfinished in (True, False):
        found = clean(tmp_path / "out", unfinished=unfinished)
        assert [path.name for path, _ in found] == ([".shardmill"] if unfinished else [])
        assert verify_dataset(tmp_path / "out") == []


def test_what_was_replaced_goes_and_what_is_to_replace_stays(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    shutil.copytree(out, Layout(out).retired)
    write_folder(images, Layout(out).stage, OPTIONS)
    ours = leave_temporaries(Layout(out).stage)

    found = clean(out)
    assert [path for path, _ in found] == [*ours, Layout(out).retired]
    assert not Layout(out).retired.exists()
    assert Layout(Layout(out).stage).plan.exists()

    (Layout(out).stage / ".shardmill" / "tmp" / "notes.txt").unlink()
    clean(out, unfinished=True)
    assert not Layout(out).stage.exists()
    assert verify_dataset(out) == []


def test_a_stale_lock_is_named_and_a_held_one_protects_everything(
    images: Path, tmp_path: Path
) -> None:
    plan = write_folder(images, tmp_path / "out", OPTIONS)
    ours = leave_temporaries(plan.out)
    with plan.out.lock():
        for dry_run in (True, False):
            with pytest.raises(LockedError, match="being written by process"):
                clean(plan.out, dry_run=dry_run)
        shutil.copy(Layout(plan.out).lock, tmp_path / "lock")
    assert all(path.exists() for path in ours)
    shutil.copy(tmp_path / "lock", Layout(plan.out).lock)
    found = clean(plan.out)
    assert found[0] == (Layout(plan.out).lock, "the lock of a process that is gone")
    assert not Layout(plan.out).lock.exists()


def test_a_data_set_that_a_kill_took_the_name_of_gets_it_back(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    out.rename(Layout(out).retired)
    assert clean(out) == []
    assert verify_dataset(out) == []


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="neither a data set"):
            clean(folder)
    assert list_tree(tmp_path) == ["letter.txt"]


def test_what_a_worker_writes_after_the_end_goes(images: Path, tmp_path: Path) -> None:
    plan = convert_folder(images, tmp_path / "out", OPTIONS)
    layout = Layout(plan.out)
    layout.make_work_folders()
    (layout.receipts / "train-00000-of-00002.json").write_text("{}")
    assert verify_dataset(plan.out) != []
    found = [(layout.work, "the plan and the receipts of a finished conversion")]
    assert clean(plan.out, dry_run=True) == found
    assert clean(plan.out) == found
    assert verify_dataset(plan.out) == []
    assert clean(plan.out) == []


@pytest.mark.parametrize("unfinished", [False, True])
def test_in_a_store_what_is_called_removed_is_gone(server, images, tmp_path, unfinished):
    convert_folder(images, tmp_path / "out", OPTIONS)
    out = upload_tree(tmp_path / "out", server.path(uuid.uuid4().hex))
    stage = Layout(Layout(out).stage)
    put_object(stage.lock, b"{}")
    work = Layout(out).costs if unfinished else Layout(out).planning / "1f"
    put_object(work / "hash-00000", b"{}")
    claim = Layout(out).work / f"lock.{HEX}"
    put_object(claim, b"{}")
    expected = [
        (claim, "a file that was being written"),
        (Layout(out).work, "the plan and the receipts of a finished conversion"),
        (stage.out, "the beginning of a replacement"),
    ]
    assert clean(out, unfinished=unfinished, dry_run=True) == expected
    assert clean(out, unfinished=unfinished) == expected
    assert verify_dataset(out) == []
    assert not stage.out.exists()
    assert clean(out, unfinished=unfinished) == []


def test_in_a_store_a_replacement_that_is_nearly_done_is_done(
    server, images, tmp_path, monkeypatch
):
    convert_folder(images, tmp_path / "old", OPTIONS)
    new = dataclasses.replace(OPTIONS, image_size=(9, 9))
    convert_folder(images, tmp_path / "new", new)
    out = upload_tree(tmp_path / "old", server.path(uuid.uuid4().hex))
    upload_tree(tmp_path / "new", Layout(out).stage)
    plan = write_folder(images, tmp_path / "plan", new)
    put_object(Layout(Layout(out).stage).plan, Layout(plan.out).plan.read_bytes())
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(patch, 4)  # a marker, no manifest, and one object copied
        replace_dataset(out)
    assert not Layout(out).manifest.is_file()
    assert clean(out, unfinished=True, dry_run=True) == []
    assert clean(out, unfinished=True) == []
    assert read_tree(out) == read_tree(tmp_path / "new")
    assert verify_dataset(out) == []


@pytest.mark.parametrize("unfinished", [False, True])
def test_the_stage_of_a_lost_machine_is_not_in_the_way(images, tmp_path, unfinished):
    """The lock of OUT has to be broken, and then that of what it made beside it is, too."""
    out = tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    write_folder(images, Layout(out).stage, OPTIONS)
    for place in (out, Layout(out).stage):
        write_owner(place, host="elsewhere", boot="its own")
    with pytest.raises(LockedError):
        clean(out, unfinished=unfinished)
    clean(out, unfinished=unfinished, break_lock=True)
    assert Layout(out).stage.exists() is not unfinished
    convert(images, out, OPTIONS, IN_MEMORY, mode="overwrite")
    assert not Layout(out).stage.exists()
    assert verify_dataset(out) == []


def test_a_data_set_between_two_names_is_left_to_who_moves_it(images, tmp_path):
    out = tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    retired = Layout(out).retired
    out.rename(retired)
    with retired.lock():
        for attempt in (clean, lambda out: convert(images, out, OPTIONS, IN_MEMORY)):
            with pytest.raises(LockedError, match="being written by process"):
                attempt(out)
        assert retired.exists()
    assert convert(images, out, OPTIONS, IN_MEMORY).totals.written == 4
    assert not retired.exists()


def test_a_link_to_a_data_set_is_cleaned_where_it_leads(images, tmp_path):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "out", tmp_path / "link"
    convert_folder(images, real, OPTIONS)
    link.symlink_to(real)
    shutil.copytree(real, Layout(real).retired)
    assert clean(link) == [(Layout(real).retired, "a data set that was replaced")]
    assert link.is_symlink()
    assert verify_dataset(real) == []


@pytest.mark.parametrize("far", [False, True])
def test_reports_of_a_check_that_was_killed_go_and_of_one_that_runs_stay(
    images, tmp_path, request, far
):
    convert_folder(images, tmp_path / "out", OPTIONS)
    out = tmp_path / "out"
    if far:
        out = upload_tree(out, request.getfixturevalue("s3_server").path(uuid.uuid4().hex))
    gone, alive, other = (out.with_name(f"{Layout(out).reports}{name}") for name in "abc")
    for folder in (gone, alive, other):
        if not far:
            folder.mkdir()
        sign_folder(folder)
    write_file(gone / "train-00000-of-00002.json", b"{}", gone)
    dead = dataclasses.replace(parse_owner((gone / "owner.json").read_bytes()), started="1")
    write_file(gone / "owner.json", dump_owner(dead), gone)
    write_file(other / "owner.json", b"not ours", other)
    assert clean(out) == [(gone, "the reports of a check that was not finished")]
    assert [folder.exists() for folder in (gone, alive, other)] == [False, True, True]
