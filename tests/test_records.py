"""Records: what ends a conversion before it begins."""

from pathlib import Path

import pytest
from conftest import write_image

from converter.errors import ShardmillError, UsageError
from converter.inventory import Inventory, Skipped
from converter.options import ConvertOptions
from converter.writing.records import check_scan
from pipelines.cli.commands import main
from pipelines.jobs.preview import propose

STRICT = ConvertOptions(strict=True, num_shards=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(4):
        write_image(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed)
    return tmp_path


def test_what_is_sound_passes(root: Path):
    write_image(root / "a" / "copy.png", 0)  # the same, in the same class
    assert len(propose(root, STRICT).draft.inventory.entries) == 5


@pytest.mark.parametrize(
    ("name", "seed", "message"),
    [
        (
            "B/9.png",
            9,
            r"^twin_class, names that look the same, or are .*: 'B', 'b': rename",
        ),
        ("a/0.PNG", 9, r"^twin_path, .*: 'a/0.PNG', 'a/0.png': rename or remove one, or leave out"),
        ("b/9.png", 0, r"^duplicate_class, the same content under different labels: 'a/0.png', "),
    ],
)
def test_what_is_odd_is_refused(root: Path, name, seed, message):
    write_image(root / name, seed)
    with pytest.raises(UsageError, match=message):
        propose(root, STRICT)
    assert propose(root, ConvertOptions(num_shards=1)).draft.inventory.notes


def test_what_cannot_be_read_is_refused():
    skipped = (Skipped("a/", "unreadable", "Permission denied"),)
    inventory = Inventory(classes=("a",), entries=(), skipped=skipped)
    check_scan(inventory, ConvertOptions())
    with pytest.raises(UsageError, match=r"^a/ .*\(Permission denied\), one of 1"):
        check_scan(inventory, STRICT)


def test_rows_that_are_rejected_fail_if_that_is_asked_for(root: Path):
    (root / "t.csv").write_text("path\na/0.png\na/none.png\n")
    assert propose(root / "t.csv", ConvertOptions(num_shards=1)).draft.inventory.rejected
    with pytest.raises(ShardmillError, match=r"^a/none\.png .*: missing: row 2: "):
        propose(root / "t.csv", ConvertOptions(num_shards=1, on_error="fail"))


def test_the_command_line_ends_with_one_line_and_nothing_is_written(root: Path, tmp_path, capsys):
    write_image(root / "B" / "9.png", 9)
    assert main(["convert", str(root), str(tmp_path.parent / "out"), "--strict"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("shardmill: error: twin_class, ")
    assert told.count("\n") == 1
    assert not list(tmp_path.parent.glob("out/*.json"))
