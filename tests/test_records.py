"""Records: their sizes as a sample tells them, and what ends a conversion before it begins."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
from conftest import encode_image, make_image, make_record, write_image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from converter.errors import ShardmillError, UsageError
from converter.format.tfrecords import FRAMING_BYTES
from converter.inventory import Entry, Inventory, Skipped
from converter.options import ENCODINGS, RESIZES, ConvertOptions
from converter.writing.records import (
    MAX_SAMPLES,
    bound_record_bytes,
    check_scan,
    estimate_records,
)
from pipelines.cli.commands import main
from pipelines.jobs.preview import propose

RAW = ConvertOptions(resize="none", encoding="raw")
STRICT = ConvertOptions(strict=True, num_shards=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 2x2 and of 60x60 pixels, and one that is none."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "small.png").write_bytes(encode_image(make_image(1, 2, 2), "PNG"))
    (folder / "large.png").write_bytes(encode_image(make_image(2, 60, 60), "PNG"))
    (folder / "none.png").write_bytes(b"no image")
    return folder


def list_entry(name: str, images: Path) -> Entry:
    return Entry(name, 0, (images / name).stat().st_size)


def measure(entry: Entry, images: Path) -> int:
    return len(make_record(entry, "ant", images, RAW).payload) + FRAMING_BYTES


def estimate(names: list[str], images: Path):
    entries = tuple(list_entry(name, images) for name in names)
    inventory = Inventory(classes=("ant",), entries=entries, skipped=())
    return estimate_records(entries, inventory, images, RAW)


def test_a_small_set_is_measured_exactly(images):
    names = ["small.png", "large.png", "small.png", "none.png"]
    found = estimate(names, images)
    sizes = [measure(list_entry(name, images), images) for name in names[:3]]
    assert found.record_bytes == sum(sizes) / 4
    assert (found.samples, found.rejected) == (4, 1)
    assert found.seconds_per_image > 0


def test_equal_images_need_few_samples(images):
    found = estimate(["small.png"] * 5000, images)
    assert found.record_bytes == measure(list_entry("small.png", images), images)
    assert (found.samples, found.rejected) == (64, 0)


def test_different_images_need_more_samples_up_to_the_limit(images):
    found = estimate((["small.png"] * 15 + ["large.png"]) * 200, images)
    assert found.samples == MAX_SAMPLES
    small, large = (
        measure(list_entry(f"{name}.png", images), images) for name in ("small", "large")
    )
    assert found.record_bytes == pytest.approx((15 * small + large) / 16)


def test_the_same_entries_give_the_same_estimate(images):
    names = (["small.png"] * 3 + ["large.png"]) * 100
    one, two = (dataclasses.replace(estimate(names, images), seconds_per_image=0) for _ in range(2))
    assert one == two


def test_nothing_but_bad_images_still_gives_a_size(images):
    found = estimate(["none.png"] * 3, images)
    assert (found.record_bytes, found.samples, found.rejected) == (FRAMING_BYTES, 3, 3)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (200, 150)])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_record_is_larger_than_the_bound(tmp_path, encoding, size):
    # Noise is what no encoding can make small.
    noise = Image.frombytes(
        "RGB", (size[1], size[0]), random.Random(0).randbytes(3 * size[0] * size[1])
    )
    (tmp_path / "noise.png").write_bytes(encode_image(noise, "PNG"))
    options = ConvertOptions(image_size=size, encoding=encoding, quality=100)
    record = make_record(list_entry("noise.png", tmp_path), "x" * 255, tmp_path, options)
    assert len(record.payload) + FRAMING_BYTES < bound_record_bytes(options)


def test_no_kept_file_is_larger_than_the_bound(tmp_path):
    text = PngInfo()
    text.add_text("comment", "x" * 100_000)
    write_image(tmp_path / "long.png", 1, pnginfo=text)
    options = ConvertOptions(image_size=(24, 32), encoding="keep")
    record = make_record(list_entry("long.png", tmp_path), "ant", tmp_path, options)
    assert len(record.payload) + FRAMING_BYTES < bound_record_bytes(options)


def test_there_is_a_bound_only_where_the_size_is_known():
    unbounded = [r for r in RESIZES if bound_record_bytes(ConvertOptions(resize=r)) == math.inf]
    assert unbounded == ["shorter", "longer", "none"]


# What ends a conversion


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
