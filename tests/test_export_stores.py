"""Exports of data sets in object stores, and to object stores, are those of disks."""

import errno
import os
import tempfile
import uuid
from pathlib import Path

import pytest
from exported import convert_again, describe_dataset, list_tree, make_folder, make_table
from servers import KilledError, Server, count_writes, kill_at, upload

from converter.errors import OutputError, StoreError, UsageError
from converter.exports.targets import MARKER
from converter.storage.object_requests import list_objects, put_object
from converter.storage.objects import ObjectPath
from pipelines import export

KINDS = ("folders", "webdataset", "parquet")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("data"))


def read_stored(address: ObjectPath) -> dict[str, bytes]:
    """The objects of an export but its marker."""
    found = {path.relative_to(address): path.read_bytes() for path, _ in list_objects(address)}
    assert MARKER in found
    return {name: data for name, data in found.items() if name != MARKER}


def find_place(server: Server) -> ObjectPath:
    return server.path(f"exports/{uuid.uuid4().hex}")


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_from_a_store_to_a_store_is_that_of_a_disk(kind, server, out, tmp_path):
    stored, place = upload(out, find_place(server)), find_place(server)
    here = export(out, tmp_path / "here", kind=kind)
    there = export(str(stored), str(place), kind=kind)
    assert read_stored(place) == list_tree(tmp_path / "here")
    assert there.splits == here.splits


def test_an_export_of_a_stored_data_set_to_a_disk(server, tmp_path):
    out = make_folder(tmp_path, encoding="raw")
    stored = upload(out, find_place(server))
    export(stored, tmp_path / "there")
    export(out, tmp_path / "here")
    assert list_tree(tmp_path / "there") == list_tree(tmp_path / "here")


def test_an_export_in_a_store_converts_again(server, out, tmp_path):
    place = find_place(server)
    result = export(out, place)
    assert "--labels" not in result.command
    again = convert_again(result.command, tmp_path / "again")
    assert describe_dataset(again) == describe_dataset(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 2, 4, -4, -3, -2, -1])
def test_after_a_kill_it_starts_over(kind, step, server, out, tmp_path):
    place = find_place(server)
    with pytest.MonkeyPatch.context() as patch:
        count = count_writes(patch, lambda: export(out, find_place(server), kind=kind))
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step % count)
        with pytest.raises(KilledError):
            export(out, place, kind=kind)
    # The lock is one of a process that is still there.
    (place / ".shardmill" / "lock").unlink(missing_ok=True)
    assert (place / MARKER).is_file() == (step == -1)  # then only its note is left to remove
    export(out, place, kind=kind)
    export(out, tmp_path / "here", kind=kind)
    assert read_stored(place) == list_tree(tmp_path / "here")


def test_what_is_in_a_store_already_is_not_touched(server, out):
    place = find_place(server)
    put_object(place / "mine.txt", b"mine")
    with pytest.raises(UsageError, match="is not empty"):
        export(out, place)
    assert (place / "mine.txt").read_bytes() == b"mine"
    finished = find_place(server)
    export(out, finished, kind="webdataset")
    with pytest.raises(UsageError, match="holds a finished export"):
        export(out, finished, kind="webdataset")


def test_a_folder_inside_the_stored_data_set_or_around_it_is_refused(server, out):
    stored = upload(out, find_place(server))
    for folder in (stored / "export", stored, stored.parent):
        with pytest.raises(UsageError, match="data set"):
            export(stored, folder)


def test_a_full_temporary_folder_is_named(server, out, monkeypatch):
    def fill(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", fill)
    place = find_place(server)
    with pytest.raises(OutputError, match="set TMPDIR"):
        export(out, place, kind="webdataset")
    assert list(list_objects(place)) == []


def test_a_store_that_refuses_is_one_line(out, monkeypatch, server):
    with pytest.raises(StoreError):
        export(out, f"{server.scheme}://no-such-bucket-of-tests/export")
