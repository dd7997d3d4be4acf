"""Estimates: the sizes of records and of originals, as a sample tells them."""

import dataclasses
import json
import math
import random
from pathlib import Path

import pytest
from conftest import encode_image, make_image, make_record, write_image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from converter.format.tfrecords import FRAMING_BYTES
from converter.inventory import Entry, Inventory
from converter.options import ENCODINGS, RESIZES, ConvertOptions
from converter.writing.estimates import (
    MAX_SAMPLES,
    bound_record_bytes,
    compare_sizes,
    estimate_records,
)
from pipelines.cli.commands import main

RAW = ConvertOptions(resize="none", encoding="raw")


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
    assert dataclasses.asdict(found.sizes) == {
        "read": 3, "original": (2, 2), "stored": (2, 2), "alike": False, "enlarged": 0,
    }  # fmt: skip


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
    assert found.sizes is None


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


PHOTOS = [(375, 500), (500, 375), (3000, 4000)]


@pytest.mark.parametrize(
    ("originals", "resize", "middle", "stored"),
    [
        (PHOTOS, "stretch", (500, 375), (256, 256)),  # one of them, no square of two medians
        (PHOTOS, "shorter", (500, 375), (341, 256)),
        (PHOTOS, "longer", (500, 375), (256, 192)),
        (PHOTOS, "none", (500, 375), (500, 375)),
        ([(28, 28)], "pad", (28, 28), (256, 256)),
    ],
)
def test_the_original_in_the_middle_stands_for_all(originals, resize, middle, stored):
    found = compare_sizes(originals, ConvertOptions(resize=resize))
    assert (found.read, found.original, found.stored) == (len(originals), middle, stored)
    assert found.alike is (len(originals) == 1)


@pytest.mark.parametrize(
    ("original", "options", "enlarged"),
    [
        ((28, 28), {}, True),
        ((256, 255), {}, True),
        ((256, 256), {}, False),
        ((100, 400), {}, False),  # more rows, but fewer columns
        ((200, 300), {"resize": "crop"}, True),
        ((200, 300), {"resize": "pad"}, False),
        ((100, 100), {"resize": "pad"}, True),
        ((100, 100), {"resize": "pad", "enlarge": False}, False),
        ((200, 300), {"resize": "shorter"}, True),
        ((200, 300), {"resize": "longer"}, False),
        ((2, 2), {"resize": "none"}, False),
    ],
)
def test_an_original_is_enlarged_that_gets_more_pixels(original, options, enlarged):
    found = compare_sizes([original], ConvertOptions(**options))
    assert found.enlarged == enlarged


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            [],
            [
                "originals 20x30 (3 read), height x width, stored as 256x256 (stretch)",
                "  note: most originals are 20x30: 256x256 enlarges them; try --image-size 20x30",
            ],
        ),
        (
            ["--resize=longer"],
            [
                "originals 20x30 (3 read), height x width, stored as 171x256 (longer)",
                "  note: most originals are 20x30: 171x256 enlarges them; try --image-size 30",
            ],
        ),
        (
            ["--image-size=20"],
            ["originals 20x30 (3 read), height x width, stored as 20x20 (stretch)"],
        ),
        (["--resize=none"], ["originals 20x30 (3 read), height x width, stored as they are"]),
    ],
)
def test_plan_says_how_large_originals_are_and_warns_of_enlarging(
    tmp_path, capsys, arguments, lines
):
    (tmp_path / "images" / "a").mkdir(parents=True)
    for seed in range(3):
        data = encode_image(make_image(seed, 20, 30), "PNG")
        (tmp_path / "images" / "a" / f"{seed}.png").write_bytes(data)
    assert main(["plan", str(tmp_path / "images"), str(tmp_path / "out"), *arguments]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "originals" in line] == lines


def test_plan_says_about_of_different_sizes_and_numbers_as_json(images, tmp_path, capsys):
    command = ["plan", str(images), str(tmp_path / "out"), "--image-size=100"]
    command += ["--label-from=none"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "originals about 2x2 (median of 2 read), height x width, stored as 100x100" in said
    assert "most originals are about 2x2: 100x100 enlarges them; try --image-size 2\n" in said
    assert main([*command, "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["datasets"]
    assert planned["proposal"]["sizes"] == {
        "read": 2, "original": [2, 2], "stored": [100, 100], "alike": False, "enlarged": 2,
    }  # fmt: skip
