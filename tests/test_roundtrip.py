"""Convert and read back: every file, label and pixel, for every encoding and resize mode."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_image, write_image
from PIL import Image, ImageOps

from converter import ConvertOptions
from converter.format.manifest import Totals
from converter.options import ENCODINGS, RESIZES
from converter.upkeep.verification import verify_dataset
from reader import Record, load_dataset, open_shards

CLASSES = ("ant", "bee", "cat with hat")
HEIGHT, WIDTH = 16, 20
ORIENTATION = 0x0112

# Sizes that Pillow and we cannot round differently: it centres by other rules for odd remainders.
PICTURES = (
    ("plain.png", "PNG", "RGB", (24, 32)),
    ("as asked.png", "PNG", "RGB", (16, 20)),
    ("tall.jpg", "JPEG", "RGB", (40, 30)),
    ("as asked.JPG", "JPEG", "RGB", (16, 20)),
    ("narrow ü.webp", "WEBP", "RGB", (48, 20)),
    ("deep/er/small.webp", "WEBP", "RGB", (8, 10)),
    ("grey.png", "PNG", "L", (32, 40)),
    ("grey.jpeg", "JPEG", "L", (16, 20)),
    ("see-through.png", "PNG", "RGBA", (24, 32)),
    ("grey see-through.png", "PNG", "LA", (16, 20)),
    ("print.jpg", "JPEG", "CMYK", (24, 32)),
    ("wide.bmp", "BMP", "RGB", (16, 50)),
    ("turned.jpg", "JPEG", "RGB", (32, 24)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every picture of `PICTURES` in every class, no two of them alike."""
    root = tmp_path_factory.mktemp("pictures")
    for number, label in enumerate(CLASSES):
        for place, (name, file_format, mode, (height, width)) in enumerate(PICTURES):
            image = make_image(number * len(PICTURES) + place, height, width, mode)
            options = {}
            if name == "turned.jpg":
                options["exif"] = Image.Exif()
                options["exif"][ORIENTATION] = 6
            path = root / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(image, file_format, **options))
    return root


def flatten_image(image: Image.Image) -> Image.Image:
    """RGB on white, the way up that a person sees it."""
    image = ImageOps.exif_transpose(image)
    if "A" not in image.getbands():
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def resize_image(image: Image.Image, resize: str) -> Image.Image:
    """What Pillow makes of an image in each resize mode."""
    size, filter_ = (WIDTH, HEIGHT), Image.Resampling.BILINEAR
    match resize:
        case "stretch":
            return image.resize(size, filter_)
        case "crop":
            return crop_center(image).resize(size, filter_)
        case "pad":
            return ImageOps.pad(image, size, filter_)
        case "shorter":
            return ImageOps.cover(image, (HEIGHT, HEIGHT), filter_)
        case "longer":
            return ImageOps.contain(image, (HEIGHT, HEIGHT), filter_)
        case "none":
            return image
    raise ValueError(resize)


def crop_center(image: Image.Image) -> Image.Image:
    """The largest part of the asked aspect ratio, in the middle: Keras' crop_to_aspect_ratio."""
    width = min(image.width, image.height * WIDTH // HEIGHT)
    height = min(image.height, image.width * HEIGHT // WIDTH)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def is_unchanged(image: Image.Image, original: Image.Image) -> bool:
    """Whether the file itself shows the image, in a format that can be stored."""
    return (
        original.format in ("JPEG", "PNG", "WEBP")
        and (original.mode, original.size) == (image.mode, image.size)
        and original.getexif().get(ORIENTATION, 1) == 1
        and original.tobytes() == image.tobytes()
    )


def expect_record(path: Path, folder: Path, options: ConvertOptions) -> tuple[Record, np.ndarray]:
    """The record of one file and the pixels that it shows, by Pillow alone."""
    data = path.read_bytes()
    original = Image.open(io.BytesIO(data))
    image = resize_image(flatten_image(original), options.resize)
    kept = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}.get(original.format, "png")
    stored_format = kept if options.encoding == "keep" else options.encoding
    if stored_format == "raw":
        encoded = image.tobytes()
    elif options.encoding in ("keep", kept) and is_unchanged(image, original):
        encoded = data
    else:
        settings = {} if stored_format == "png" else {"quality": options.quality}
        encoded = encode_image(image, stored_format.upper(), **settings)
    if stored_format != "raw":
        image = Image.open(io.BytesIO(encoded))
    label = path.relative_to(folder).parts[0]
    record = Record(
        encoded=encoded,
        format=stored_format,
        height=image.height,
        width=image.width,
        label=CLASSES.index(label),
        text=label,
        source_id=str(path.relative_to(folder)),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return record, np.asarray(image)


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_everything_that_goes_in_comes_out(folder, tmp_path, encoding, resize):
    size = (HEIGHT, HEIGHT) if resize in ("shorter", "longer") else (HEIGHT, WIDTH)
    options = ConvertOptions(
        image_size=size, resize=resize, encoding=encoding, quality=90, num_shards=3
    )
    convert_folder(folder, tmp_path / "set", options)
    source = open_shards(tmp_path / "set").source("train")
    dataset = load_dataset(tmp_path / "set", batch_size=None, dtype="uint8", shuffle=False)
    for record, (pixels, label) in zip(source, dataset.as_numpy_iterator(), strict=True):
        expected, expected_pixels = expect_record(folder / record.source_id, folder, options)
        assert record == expected
        assert label == expected.label
        np.testing.assert_array_equal(pixels, expected_pixels, strict=True)
    assert sorted(record.source_id for record in source) == sorted(list_files(folder))


def test_every_image_is_in_one_split_and_once(folder, tmp_path):
    options = ConvertOptions(
        image_size=(8, 8), num_shards=3, validation_split=0.25, test_split=0.2, encoding="raw"
    )
    convert_folder(folder, tmp_path / "set", options)
    shards = open_shards(tmp_path / "set")
    assert list(shards.splits) == ["train", "validation", "test"]
    found = [record.source_id for split in shards.splits for record in shards.source(split)]
    assert sorted(found) == sorted(list_files(folder))
    for split in shards.splits:
        dataset = load_dataset(
            tmp_path / "set", split, batch_size=None, dtype="uint8", shuffle=False
        )
        for record, (pixels, label) in zip(
            shards.source(split), dataset.as_numpy_iterator(), strict=True
        ):
            assert (pixels.tobytes(), label) == (record.encoded, record.label)


def test_what_cannot_be_converted_is_named_and_costs_nothing_else(tmp_path):
    images, out = tmp_path / "images", tmp_path / "set"
    for seed in range(12):
        write_image(images / CLASSES[seed % 3] / f"{seed}.png", seed)
    whole = encode_image(make_image(99), "PNG")
    (images / "ant" / "cut off.png").write_bytes(whole[: len(whole) // 2])
    (images / "bee" / "empty.png").write_bytes(b"")
    (images / "cat with hat" / "text.jpg").write_bytes(b"remember the milk")
    (images / "bee" / "notes.txt").write_bytes(b"not looked at")
    convert_folder(images, out, ConvertOptions(image_size=(8, 8), num_shards=2))
    shards = open_shards(out)

    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert {line["path"]: line["code"] for line in rejects} == {
        "ant/cut off.png": "decode_error",
        "bee/empty.png": "empty",
        "cat with hat/text.jpg": "not_an_image",
        "bee/notes.txt": "skipped_extension",
    }
    assert len(rejects) == 4
    assert shards.manifest.totals == Totals(
        scanned=16,
        written=12,
        rejected={"decode_error": 1, "empty": 1, "not_an_image": 1},
        skipped={"skipped_extension": 1},
    )
    written = {record.source_id for record in shards.source("train")}
    assert len(load_dataset(out, batch_size=None)) == len(written) == 12
    assert written == list_files(images) - {line["path"] for line in rejects}


def test_a_split_and_the_order_in_it_stay_when_images_are_added(tmp_path):
    options = ConvertOptions(image_size=(8, 8), num_shards=1, validation_split=0.3, seed=3)
    order = {}
    for name, count in (("few", 20), ("more", 30)):
        for seed in range(count):
            write_image(tmp_path / name / CLASSES[seed % 3] / f"{seed}.png", seed)
        convert_folder(tmp_path / name, tmp_path / f"{name}-set", options)
        shards = open_shards(tmp_path / f"{name}-set")
        order[name] = {
            split: [record.source_id for record in shards.source(split)]
            for split in ("train", "validation")
        }
    before = {path for paths in order["few"].values() for path in paths}
    assert order["few"] == {
        split: [path for path in paths if path in before] for split, paths in order["more"].items()
    }


@pytest.mark.parametrize("encoding", ["jpeg", "keep"])
def test_real_images_come_out_as_pillow_shows_them(shared_images, tmp_path, encoding):
    options = ConvertOptions(image_size=(64, 64), resize="crop", encoding=encoding, num_shards=2)
    images = tmp_path / "images" / "all"
    images.mkdir(parents=True)
    for number, path in enumerate(sorted(shared_images.rglob("*.[jp][pn]g"))[::150]):
        (images / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    convert_folder(images.parent, tmp_path / "set", options)
    source = open_shards(tmp_path / "set").source("train")
    dataset = load_dataset(tmp_path / "set", batch_size=None, dtype="uint8", shuffle=False)
    for record, (pixels, _) in zip(source, dataset.as_numpy_iterator(), strict=True):
        stored = Image.open(io.BytesIO(record.encoded))
        np.testing.assert_array_equal(pixels, np.asarray(stored), strict=True)
    assert {record.source_id for record in source} == list_files(images.parent)


@pytest.mark.parametrize(("color_mode", "mode"), [("grayscale", "L"), ("rgba", "RGBA")])
@pytest.mark.parametrize("encoding", ["png", "raw", "keep"])
def test_other_channels_are_read_as_they_were_stored(tmp_path, encoding, color_mode, mode):
    image = make_image(1, 16, 20, "RGBA")
    for name in "ab":
        write_path = tmp_path / "images" / name / "one.png"
        write_path.parent.mkdir(parents=True)
        write_path.write_bytes(encode_image(image, "PNG"))
    options = ConvertOptions(image_size=(16, 20), encoding=encoding, color_mode=color_mode)
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    expected = np.asarray(image if mode == "RGBA" else white.convert("RGB").convert("L"))
    assert open_shards(tmp_path / "out").manifest.image.channels == len(mode)
    assert verify_dataset(tmp_path / "out") == []
    images, _ = next(iter(load_dataset(tmp_path / "out", color_mode=color_mode, dtype="uint8")))
    found = images.numpy()[0].reshape(expected.shape)
    np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=1)
