"""Patterns that stand for several files: what the shell would give for them, or one line."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import limit_memory

from converter.errors import UsageError
from converter.options import ConvertOptions
from converter.sources import patterns
from converter.sources.inputs import locate_base
from converter.sources.patterns import is_pattern, list_pattern, overlaps
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.disk import DiskPath
from converter.storage.locate import locate, parse_location
from converter.storage.objects import ObjectPath
from pipelines.cli.commands import main
from pipelines.jobs import outputs

NAMES = [
    "train/a-000.tar", "train/a-001.tar", "train/a-010.tar", "train/.a-002.tar", "train/b.tar",
    "val/a-000.tar", "val/Z.tar", "val/é.tar", "val/a.tar.gz", "test/sub/a-000.tar", "a-000.tar",
    "a-9.tar", "a-10.tar", "{x}.tar", "odd[1]/a-000.tar", "odd1/b-000.tar",
]  # fmt: skip
PATTERNS = [
    "*.tar", "*/a-*.tar", "*/*", "train/a-0?0.tar", "train/a-00[01].tar", "val/[!a]*.tar",
    "train/.*.tar", "*/*/*.tar", "{train,val}/a-000.tar", "train/a-{000..001}.tar",
    "a-{9..10}.tar", "{train/b,val/Z}.tar", "{train/{a-000,b},val/Z}.tar", "{t,v}*/a-000.tar",
    "train/a-{0{00,01,10},000}.tar", "{x}.t*", "a-{10..9}.tar", "{train,train}/b.tar",
    "va[l]/?.tar", "odd[[]1]/*.tar", "train/a-{000..01,010}.tar",
]  # fmt: skip


@pytest.fixture
def shards(tmp_path: DiskPath) -> DiskPath:
    """Empty files of many names."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def list_names(folder: DiskPath, pattern: str) -> list[str]:
    return [str(file)[len(str(folder)) + 1 :] for file in list_pattern(folder / pattern)]


def ask_bash(folder: DiskPath, pattern: str) -> list[str]:
    """What bash makes of it, the files alone."""
    command = ["bash", "-c", f"shopt -s nullglob; printf '%s\\n' {pattern}"]
    found = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    files = {name for name in found.stdout.splitlines() if (folder / name).is_file()}
    return sorted(files, key=os.fsencode)


@pytest.mark.parametrize("pattern", PATTERNS[:-1])
def test_a_pattern_stands_for_the_files_that_a_shell_gives(pattern, shards):
    assert list_names(shards, pattern) == ask_bash(shards, pattern) != []
    assert is_pattern(shards / pattern)


def test_the_fixture_has_files_that_each_pattern_leaves_out(shards):
    assert not any(len(list_names(shards, pattern)) == len(NAMES) for pattern in PATTERNS[:-1])


def test_files_come_in_the_order_of_their_bytes(shards):
    assert list_names(shards, "val/*") == [
        "val/Z.tar",
        "val/a-000.tar",
        "val/a.tar.gz",
        "val/é.tar",
    ]


def test_a_name_of_braces_that_no_file_has_is_named(shards):
    with pytest.raises(UsageError, match="3 of 5 names") as caught:
        list_pattern(shards / "train/a-{000..004}.tar")
    assert "'a-002.tar', 'a-003.tar', 'a-004.tar'" in str(caught.value)
    with pytest.raises(UsageError, match=r"'nothing/\*.tar'"):
        list_pattern(shards / "{train,nothing}/*.tar")


def test_a_range_has_as_many_digits_as_its_ends(shards):
    for name in ("7", "8", "09", "10"):
        (shards / name).touch()
    assert list_names(shards, "{09..10}") == ["09", "10"]
    with pytest.raises(UsageError, match="'08'"):
        list_pattern(shards / "{08..10}")
    with pytest.raises(UsageError, match="'9'"):
        list_pattern(shards / "{7..10}")


@pytest.mark.parametrize("pattern", ["*.zip", "none/*.tar", "train/b.tar/*", "{a,b}", "*/none/*"])
def test_a_pattern_for_nothing_is_one_line(pattern, shards):
    with pytest.raises(UsageError, match="matches no file"):
        list_pattern(shards / pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..100000}", "{1..999999999999999999}", "{0..999}{0..999}", "{a" + ",b" * 9 + "}",
        "{" * 500 + "a" + ",b}" * 500, "[" * 900, "[z-a]", "{" * 900, "x{0..9}" * 200,
        "a" + "{,b}" * 17,
    ],
)  # fmt: skip
def test_hostile_patterns_are_one_line_and_little_memory(pattern, shards):
    with limit_memory(150_000_000), pytest.raises(UsageError):
        list_pattern(shards / pattern)


def test_braces_may_stand_for_so_many_names_and_no_more(shards, monkeypatch):
    monkeypatch.setattr(patterns, "_MAX_NAMES", 2)
    assert len(list_pattern(shards / "train/a-{000..001}.tar")) == 2
    with pytest.raises(UsageError, match="over 2 names"):
        list_pattern(shards / "train/a-{000..002}.tar")


def test_many_levels_at_once_are_refused_and_not_looked_up_as_one(shards):
    with pytest.raises(UsageError, match=r"\*\* in it"):
        list_pattern(shards / "**/*.tar")


def test_what_exists_under_its_name_is_no_pattern(shards):
    assert not is_pattern(shards / "odd[1]")
    assert not is_pattern(shards / "{x}.tar")
    assert list_names(shards, "odd[1]/*.tar") == ["odd[1]/a-000.tar"]
    assert list_names(shards, "*/a-000.tar").count("odd[1]/a-000.tar") == 1
    assert locate_base(shards / "odd[1]" / "*.tar") == shards / "odd[1]"
    assert locate_base(shards / "odd[1]") == shards / "odd[1]"


def test_the_base_is_what_stands_before_the_first_wildcard(shards):
    assert locate_base(shards / "{train,val}" / "a-*.tar") == shards
    assert locate_base(shards / "train" / "a-*.tar") == shards / "train"
    assert locate_base(shards / "{train/a,val/b}.tar") == shards


def test_relative_patterns_are_relative_to_the_current_folder(shards, monkeypatch):
    monkeypatch.chdir(shards / "train")
    assert list_pattern(parse_location("a-*1.tar")) == [shards / "train" / "a-001.tar"]
    assert list_pattern(parse_location("../val/Z*")) == [shards / "train" / "../val/Z.tar"]
    monkeypatch.setenv("HOME", str(shards))
    assert list_pattern(locate("~/val/Z*")) == [shards / "val" / "Z.tar"]


def test_a_store_gives_the_same_files(server, shards):
    far = server.path("patterns")
    for name in NAMES:
        (far / name).create(far)
        with (far / name).create(far) as file:
            file.write(b"x")
    for pattern in PATTERNS[:-1]:
        found = [file.relative_to(far) for file in list_pattern(far / pattern)]
        assert found == list_names(shards, pattern)
    with pytest.raises(UsageError, match=r"^(s3|gs)://.* matches no file"):
        list_pattern(far / "none-*.tar")


def test_a_range_in_a_store_is_listed_once(s3_server, monkeypatch):
    far = s3_server.path("ranges")
    for number in range(12):
        with (far / f"train-{number:03}.tar").create(far) as file:
            file.write(b"x")
    asked = []
    original = ObjectPath.list_sizes

    def count(folder: ObjectPath, prefix: str = "") -> dict[str, int]:
        asked.append((folder, prefix))
        return original(folder, prefix)

    monkeypatch.setattr(ObjectPath, "list_sizes", count)
    assert len(list_pattern(far / "train-{000..011}.tar")) == 12
    assert asked == [(far, "train-0")]


@pytest.mark.parametrize(
    ("out", "is_refused"),
    [("train", True), ("train/new", True), ("out", False), ("a-1/out", False), ("", True)],
)
def test_an_output_may_lie_beside_the_files_and_not_among_them(out, is_refused, shards):
    pattern = shards / "{train,val}" / "*"
    assert overlaps(pattern, shards / out) == is_refused
    if is_refused:
        with pytest.raises(UsageError, match="output"):
            outputs.check_folders(pattern, shards / out)
    else:
        outputs.check_folders(pattern, shards / out)


def test_a_pattern_here_and_an_output_there_do_not_overlap(shards):
    assert not overlaps(shards / "*", ObjectPath("s3", "bucket", "out"))
    assert overlaps(ObjectPath("s3", "bucket", "*"), ObjectPath("s3", "bucket", "out"))


def test_a_folder_with_such_a_name_converts_as_any_other(image_folder, tmp_path):
    images = shutil.copytree(image_folder, tmp_path / "odd[1]{a,b}*")
    assert scan_images(DiskPath(images)).classes
    assert resolve_options(DiskPath(images), ConvertOptions()).source == "folders"


@pytest.mark.parametrize("images", ["*.tar", "none-*.tar", "{train,val}/a-{000..009}.tar"])
def test_the_command_line_says_in_one_line_what_is_wrong_with_a_pattern(images, shards, capsys):
    arguments = [str(shards / images), str(shards / "out")]
    assert main(["plan", *arguments]) == main(["convert", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(re.search("pattern|matches|empty file", line) for line in lines)
    assert not (shards / "out").exists()
