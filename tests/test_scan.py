"""Scanning: every file becomes an entry or a line that says why not."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import make_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.inventory import SKIP_RULES, Entry, Inventory, Note, Skipped
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.scan import scan_folder, scan_images
from converter.storage.disk import DiskPath


def fill(root: Path, *paths: str, size: int = 3) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * size)


def test_entries_are_relative_labelled_and_sized(tmp_path):
    fill(tmp_path, "dog/1.png", "cat/deep/er/2.JPG", "cat/a b.webp")
    fill(tmp_path, "cat/empty.gif", size=0)
    (tmp_path / "no image").mkdir()
    assert scan_folder(tmp_path) == Inventory(
        classes=("cat", "dog", "no image"),
        notes=(Note("empty_class", ("no image",), 1),),
        entries=(
            Entry("cat/a b.webp", 0, 3),
            Entry("cat/deep/er/2.JPG", 0, 3),
            Entry("cat/empty.gif", 0, 0),
            Entry("dog/1.png", 1, 3),
        ),
        skipped=(),
    )


@pytest.mark.parametrize(
    "suffix",
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "mpo",
        "png",
        "apng",
        "webp",
        "gif",
        "bmp",
        "dib",
        "tif",
        "tiff",
        "avif",
    ],
)
def test_every_suffix_counts_in_any_case(tmp_path, suffix):
    fill(tmp_path, f"cat/1.{suffix}", f"cat/2.{suffix.upper()}")
    assert len(scan_folder(tmp_path).entries) == 2


def test_every_skip_rule_for_files(tmp_path):
    fill(
        tmp_path,
        "cat/kept.png",
        "cat/.hidden.png",
        "cat/.git/1.png",
        "cat/Thumbs.db",
        "cat/@eaDir/1.png",
        "cat/notes.txt",
        "cat/png",
        "beside.png",
        ".DS_Store",
        "__MACOSX/cat/1.png",
    )
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert scan_folder(tmp_path) == Inventory(
        classes=("cat",),
        entries=(Entry("cat/kept.png", 0, 3),),
        skipped=tuple(
            Skipped(path, code, SKIP_RULES[code])
            for path, code in (
                (".DS_Store", "skipped_hidden"),
                ("__MACOSX/", "skipped_hidden"),
                ("beside.png", "skipped_no_class"),
                ("cat/.git/", "skipped_hidden"),
                ("cat/.hidden.png", "skipped_hidden"),
                ("cat/@eaDir/", "skipped_hidden"),
                ("cat/Thumbs.db", "skipped_hidden"),
                ("cat/notes.txt", "skipped_extension"),
                ("cat/pipe.png", "skipped_special"),
                ("cat/png", "skipped_extension"),
            )
        ),
    )


def test_links_are_followed_only_to_files_inside(tmp_path):
    root = tmp_path / "images"
    fill(root, "cat/kept.png")
    fill(tmp_path, "outside.png")
    for name, target in {
        "cat/absolute.png": root / "cat" / "kept.png",
        "cat/relative.png": "kept.png",
        "cat/dangling.png": "nowhere.png",
        "cat/folder": root / "cat",
        "cat/itself.png": "itself.png",
        "cat/ping.png": "pong.png",
        "cat/pong.png": "ping.png",
        "cat/outside.png": tmp_path / "outside.png",
        "cat/up.png": "../../outside.png",
        "dog": root / "cat",
        "dog.png": root / "cat" / "kept.png",
    }.items():
        (root / name).symlink_to(target)
    links = ("dangling.png", "folder", "itself.png", "outside.png", "ping.png", "pong.png")
    assert scan_folder(root) == Inventory(
        classes=("cat",),
        entries=tuple(
            Entry(f"cat/{name}", 0, 3) for name in ("absolute.png", "kept.png", "relative.png")
        ),
        skipped=(
            *(
                Skipped(f"cat/{name}", "skipped_link", SKIP_RULES["skipped_link"])
                for name in (*links, "up.png")
            ),
            Skipped("dog", "skipped_link", SKIP_RULES["skipped_link"]),
            Skipped("dog.png", "skipped_no_class", SKIP_RULES["skipped_no_class"]),
        ),
    )


def test_a_root_that_is_a_link_is_like_its_target(tmp_path):
    fill(tmp_path / "images", "cat/kept.png")
    (tmp_path / "images" / "cat" / "link.png").symlink_to(tmp_path / "images" / "cat" / "kept.png")
    (tmp_path / "link").symlink_to("images")
    assert scan_folder(tmp_path / "link") == scan_folder(tmp_path / "images")


@pytest.mark.parametrize("root", [".", "images", "./images", "../{}/images", "images/../images"])
def test_a_relative_root_gives_the_same_paths(tmp_path, monkeypatch, root):
    folder = tmp_path / "images"
    fill(folder, "cat/deep/1.png", "cat/notes.txt", "beside.png")
    monkeypatch.chdir(folder if root == "." else tmp_path)
    assert scan_folder(DiskPath(root.format(tmp_path.name))) == scan_folder(folder)


def test_names_that_are_not_utf8_pass_through(tmp_path):
    fill(tmp_path, os.fsdecode(b"caf\xe9/\xff\xfe.png"))
    inventory = scan_folder(tmp_path)
    assert [os.fsencode(name) for name in inventory.classes] == [b"caf\xe9"]
    assert [os.fsencode(entry.path) for entry in inventory.entries] == [b"caf\xe9/\xff\xfe.png"]


def test_a_folder_too_deep_to_be_read_is_accounted_for(tmp_path):
    # Also root cannot open a path of more than 4096 bytes; deeper levels are made step by step.
    fill(tmp_path, "cat/kept.png")
    folder = os.open(tmp_path / "cat", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    inventory = scan_folder(tmp_path)
    assert inventory.entries == (Entry("cat/kept.png", 0, 3),)
    [skip] = inventory.skipped
    assert re.fullmatch(r"cat/(d{250}/)+", skip.path)
    assert (skip.code, skip.detail) == ("unreadable", "File name too long")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_a_folder_without_permission_is_accounted_for(tmp_path):
    fill(tmp_path, "cat/kept.png", "cat/secret/1.png")
    (tmp_path / "cat" / "secret").chmod(0)
    try:
        inventory = scan_folder(tmp_path)
    finally:
        (tmp_path / "cat" / "secret").chmod(0o700)
    assert inventory.entries == (Entry("cat/kept.png", 0, 3),)
    assert inventory.skipped == (Skipped("cat/secret/", "unreadable", "Permission denied"),)


def test_the_order_is_that_of_bytes(tmp_path):
    names = ["B", "a", "a b", "a/x", "Ä", "é", "z", "日本", "😀", os.fsdecode(b"\xff")]
    fill(tmp_path, *(f"cat/{name}.png" for name in names), "Zoo/1.png", "élan/1.png", "zoo/1.png")
    inventory = scan_folder(tmp_path)
    paths = [os.fsencode(entry.path) for entry in inventory.entries]
    assert paths == sorted(paths)
    assert len(paths) == 13
    assert inventory.classes == ("Zoo", "cat", "zoo", "élan")


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_the_locale_does_not_show(image_folder, locale):
    script = """
import sys
from converter.storage.disk import DiskPath as Path
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.scan import scan_folder, scan_images
for entry in scan_folder(Path(sys.argv[1])).entries:
    print(to_bytes(entry.path), entry.label, entry.size_bytes)
"""
    environment = make_environment(**locale)
    printed = subprocess.run(
        [sys.executable, "-c", script, image_folder],
        env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert printed.splitlines() == [
        f"{to_bytes(path)} {label} {size}"
        for path, label, size, *_ in scan_folder(image_folder).entries
    ]


NAMES = st.sampled_from(["cat", "dog", ".cache", "a.png", "b.JPG", "c.txt", "Thumbs.db", "d.webp"])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=12))
def test_every_file_is_an_entry_or_a_skip(paths):
    with tempfile.TemporaryDirectory() as folder:
        root = DiskPath(folder)
        fill(root, "cat/always.png")
        for path in paths:
            # Where a file and a folder want the same name, whichever came first keeps it.
            with contextlib.suppress(OSError):
                root.joinpath(*path[:-1]).mkdir(parents=True, exist_ok=True)
                root.joinpath(*path).write_bytes(b"x")
        expected = list(_list_visible(root, ""))
        inventory = scan_folder(root)
    found = [entry.path for entry in inventory.entries] + [skip.path for skip in inventory.skipped]
    assert sorted(found) == sorted(expected)
    assert inventory.scanned == len(expected)


def _list_visible(folder: Path, prefix: str):
    """All files, and hidden folders as one."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in (".cache", "Thumbs.db"):
            yield from _list_visible(path, f"{prefix}{path.name}/")
        else:
            yield prefix + path.name + ("/" if path.is_dir() else "")


def test_a_root_without_class_folders_is_refused(tmp_path):
    fill(tmp_path, "1.png", ".hidden/1.png")
    with pytest.raises(
        UsageError, match=f"^{re.escape(str(tmp_path))} has no class .* --label-from none$"
    ):
        scan_folder(tmp_path)


def test_a_root_without_images_is_refused(tmp_path):
    fill(tmp_path, "cat/notes.txt", "dog/.hidden.png")
    with pytest.raises(UsageError, match=f"^{re.escape(str(tmp_path))} has 2 class .* \\.apng, "):
        scan_folder(tmp_path)


def test_a_root_that_is_missing_or_a_file_is_refused(tmp_path):
    fill(tmp_path, "file")
    with pytest.raises(UsageError, match="/missing does not exist"):
        scan_folder(tmp_path / "missing")
    with pytest.raises(UsageError, match="/file is a file"):
        scan_folder(tmp_path / "file")


@pytest.mark.parametrize("name", ["a\nb", "a\rb"])
def test_a_class_whose_name_breaks_the_line_is_refused(tmp_path, name):
    fill(tmp_path, f"{name}/1.png")
    with pytest.raises(UsageError, match=re.escape(f"class {name!r} has a line break")):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("images", {"mask_column": "mask"}, "mask column: for a table alone, and "),
        ("images", {"keep_columns": ("age",)}, "keep columns: for a table alone, and "),
        ("images", {"table_root": ".."}, "table root: for a table alone, and "),
        ("t.csv", {"label_from": "none"}, "label from: for folders alone, and "),
        ("t.csv", {"split_folders": "yes"}, "split folders: for folders alone, and "),
    ],
)
def test_nothing_is_asked_in_vain(tmp_path, name, values, message):
    fill(tmp_path, "images/a/1.png")
    (tmp_path / "t.csv").write_text("path\nimages/a/1.png\n")
    assert scan_images(tmp_path / name).entries
    with pytest.raises(UsageError, match=f"^{message}"):
        scan_images(tmp_path / name, ConvertOptions(**values))
