"""The store by which benchmarks count requests answers what the real ones are asked."""

from benchmarks.folder_store import serve_folder

from converter.storage import requests
from converter.storage.files import write_file
from converter.storage.locate import locate


def test_a_folder_is_written_listed_and_read_as_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "opened", {})
    monkeypatch.setattr(requests, "S3Store", None)
    counts, folder = serve_folder(tmp_path), locate("s3://bucket/out")
    (tmp_path / "bucket" / "out").mkdir(parents=True)
    for name in ("b", "a"):
        write_file(folder / name, name.encode(), folder)
    assert folder.list_names() == ["a", "b"]
    assert [*folder.read_files(["a", "b"])] == [b"a", b"b"]
    assert (counts["put"], counts["list"], counts["bytes"]) == (2, 1, 2)
