"""Masks: class numbers that go wherever their image goes, and come out as they went in."""

import dataclasses
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    convert_folder,
    encode_image,
    make_image,
    make_record,
    run_conversion,
    write_image,
)
from PIL import Image

from converter.errors import ImageError, UsageError
from converter.format.examples import decode_example
from converter.format.manifest import read_manifest
from converter.format.schema import MASK
from converter.format.tfrecords import frame_record
from converter.images.conversion import convert_image
from converter.images.isolation import convert_mask_isolated
from converter.images.masks import convert_mask
from converter.options import RESIZES, ConvertOptions
from converter.sources.scan import scan_images
from converter.upkeep.contents import read_sources
from converter.upkeep.verification import verify_dataset
from pipelines.jobs.upkeep import repair

OPTIONS = ConvertOptions(
    image_size=(16, 20), encoding="png", label_from="none", mask_dir="../masks", num_shards=2
)
IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


def make_numbers(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    """Class numbers in blocks: 0 to 11, each with an edge to others."""
    rows, columns = np.mgrid[:height, :width]
    return ((rows // 6 + columns // 8 * 4 + seed) % 12).astype(np.uint8)


def encode_mask(numbers: np.ndarray, mode: str = "L", file_format: str = "PNG", **options) -> bytes:
    image = Image.fromarray(numbers)
    if mode == "P":
        image.putpalette([200, 30, 7] * 256)
    return encode_image(image, file_format, **options)


def read_mask(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        assert image.mode == "L"
        return np.asarray(image)


def convert(mask: bytes, image: bytes, options: ConvertOptions) -> np.ndarray:
    (data,) = convert_mask(mask, convert_image(image, options).origin, [options])
    return read_mask(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures and their masks, of which half are palettes."""
    for seed in range(12):
        folder = "deep/er" if seed % 4 == 0 else "."
        write_image(tmp_path / "images" / folder / f"{seed}.jpg", seed, "JPEG")
        path = tmp_path / "masks" / folder / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_mask(make_numbers(seed), "LP"[seed % 2]))
    return tmp_path


def read_records(out: Path) -> dict[str, dict]:
    manifest = read_manifest(out)
    return {
        source.path: decode_example(source.details)
        for shard in manifest.shards
        for source in read_sources(out, shard, labelled=manifest.labelled, detailed=True)
    }


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("resize", RESIZES)
def test_a_mask_moves_as_its_image_does(resize, orientation):
    # An image that shows its own mask: where they differ, one was moved otherwise.
    numbers = make_numbers(height=60, width=96) % 2 * 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode_image(Image.fromarray(np.stack([numbers] * 3, -1)), "PNG", exif=exif)
    side = (40, 40) if resize in ("shorter", "longer") else (40, 48)
    options = ConvertOptions(image_size=side, resize=resize, interpolation="nearest")
    options = dataclasses.replace(options, encoding="png")
    shown = np.asarray(Image.open(io.BytesIO(convert_image(image, options).data)))[..., 0]
    np.testing.assert_array_equal(convert(encode_mask(numbers), image, options), shown)


def test_what_is_padded_has_a_number_of_its_own():
    image = encode_image(make_image(1, 10, 40), "PNG")
    options = ConvertOptions(image_size=(20, 20), resize="pad", mask_padding=255)
    mask = convert(encode_mask(np.full((10, 40), 7, np.uint8)), image, options)
    assert set(mask[:7].flat) == set(mask[-7:].flat) == {255}
    assert set(mask[8:12].flat) == {7}
    small = dataclasses.replace(options, enlarge=False, image_size=(50, 60))
    mask = convert(encode_mask(np.full((10, 40), 7, np.uint8)), image, small)
    assert (mask == 7).sum() == 400
    assert set(mask[20:30, 10:50].flat) == {7}


@pytest.mark.parametrize("resize", ["none", "stretch"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_numbers_stay_what_they_are_in_the_file(mode, bits, resize):
    numbers = make_numbers() & ((1 << bits) - 1)
    if mode == "P":
        data = encode_mask(numbers, "P", bits=bits)
    elif bits == 1:
        data = encode_image(Image.fromarray(numbers.astype(bool)), "PNG")
    else:
        data = write_grey(numbers, bits)
    options = ConvertOptions(image_size=(12, 16), resize=resize)
    mask = convert(data, encode_image(make_image(1)), options)
    expected = numbers if resize == "none" else numbers[1::2, 1::2]
    np.testing.assert_array_equal(mask, expected)


def write_grey(numbers: np.ndarray, bits: int) -> bytes:
    """A grey PNG of few bits a sample, which Pillow does not write: made of one with a palette."""
    data = encode_mask(numbers, "P", bits=bits)
    chunks, at = data[:8], 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size
        if name == b"PLTE":
            continue
        if name == b"IHDR":
            body = body[:9] + b"\0" + body[10:]
        chunks += struct.pack(">I", size) + name + body + struct.pack(">I", zlib.crc32(name + body))
    assert Image.open(io.BytesIO(chunks)).mode == "L"
    return chunks


def test_masks_of_sixteen_bits_hold_numbers_too():
    image = encode_image(make_image(1))
    mask = encode_image(Image.fromarray(make_numbers().astype(np.uint16)), "PNG")
    options = ConvertOptions(resize="none")
    np.testing.assert_array_equal(convert(mask, image, options), make_numbers())
    many = encode_image(Image.fromarray(make_numbers().astype(np.uint16) * 30), "PNG")
    with pytest.raises(ImageError, match=r"^mask_unreadable: .* 0 to 330, not 0 to 255$"):
        convert(many, image, options)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_numbers_stay_also_where_white_is_zero(mode):
    numbers = make_numbers() & (1 if mode == "1" else 255)
    stored = Image.fromarray(numbers.astype(bool) if mode == "1" else numbers)
    data = bytearray(encode_image(stored, "TIFF"))
    at = data.index(struct.pack("<HHL", 262, 3, 1)) + 8
    assert data[at] == 1
    data[at] = 0
    mask = convert(bytes(data), encode_image(make_image(1)), ConvertOptions(resize="none"))
    np.testing.assert_array_equal(mask, numbers)


def test_a_damaged_mask_is_refused_though_it_can_be_decoded():
    data = bytearray(encode_mask(make_numbers()))
    data[data.index(b"IEND") - 5] ^= 1  # the checksum of the pixels
    with pytest.raises(ImageError, match="mask_unreadable: decode_error, "):
        convert(bytes(data), encode_image(make_image(1)), ConvertOptions(resize="none"))


def test_a_mask_is_turned_by_its_own_orientation_or_is_upright_already():
    numbers, exif = make_numbers(), Image.Exif()
    exif[0x0112] = 6
    image = encode_image(make_image(1), exif=exif)  # 32 high and 24 wide, as a person sees it
    options = ConvertOptions(resize="none")
    expected = np.rot90(numbers, -1)
    for mask in (
        encode_mask(numbers),
        encode_mask(numbers, exif=exif),
        encode_mask(np.ascontiguousarray(expected)),
    ):
        np.testing.assert_array_equal(convert(mask, image, options), expected)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (encode_mask(make_numbers(0, 24, 31)), "mask_size: 24x31 pixels, its image has 24x32"),
        (encode_mask(make_numbers(0, 32, 24)), "mask_size: 32x24 pixels, its image has 24x32"),
        (encode_image(make_image(1), "PNG"), "mask_unreadable: mode RGB: "),
        (b"no image", "mask_unreadable: not_an_image, "),
        (encode_mask(make_numbers())[:60], "mask_unreadable: decode_error, "),
        (b"", "mask_unreadable: not_an_image"),
    ],
)
def test_what_is_no_mask_is_refused(mask, reason):
    options = ConvertOptions(resize="none")
    image = encode_image(make_image(1), "PNG")
    with pytest.raises(ImageError, match=f"^{reason}"):
        convert(mask, image, options)
    with pytest.raises(ImageError, match=f"^{reason}"):
        convert_mask_isolated(mask, convert_image(image, options).origin, [options])


def test_an_isolated_mask_is_the_same_mask():
    options = ConvertOptions(image_size=(7, 9), resize="pad", isolate=True)
    origin = convert_image(encode_image(make_image(1)), options).origin
    masks = [encode_mask(make_numbers(seed), "LP"[seed % 2]) for seed in range(4)]
    for mask in masks:
        assert convert_mask_isolated(mask, origin, [options]) == convert_mask(
            mask, origin, [options]
        )


def test_an_isolated_conversion_writes_the_same_shards(root: Path):
    convert_folder(root / "images", root / "plain", OPTIONS)
    isolated = dataclasses.replace(OPTIONS, isolate=True)
    convert_folder(root / "images", root / "isolated", isolated)
    shards = sorted((root / "plain").glob("*.tfrecord"))
    assert shards
    for shard in shards:
        assert (root / "isolated" / shard.name).read_bytes() == shard.read_bytes()


def test_records_hold_masks_and_all_is_accounted_for(root: Path):
    (root / "masks" / "1.png").unlink()
    (root / "masks" / "2.png").write_bytes(encode_mask(make_numbers(0, 5, 5)))
    (root / "masks" / "3.png").write_bytes(b"no image")
    (root / "masks" / "5.gif").write_bytes(encode_mask(make_numbers(5), "P", "GIF"))
    (root / "masks" / "without.png").write_bytes(encode_mask(make_numbers()))
    convert_folder(root / "images", root / "out", OPTIONS)
    records = read_records(root / "out")
    assert set(records) == {
        "deep/er/0.jpg", "deep/er/4.jpg", "deep/er/8.jpg", "6.jpg", "7.jpg", "9.jpg", "10.jpg",
        "11.jpg",
    }  # fmt: skip
    for path, features in records.items():
        number = int(Path(path).stem)
        mask = read_mask(features[MASK][0])
        full = make_numbers(number)
        rows, columns = ((np.arange(16) + 0.5) * 1.5).astype(int), ((np.arange(20) + 0.5) * 1.6)
        np.testing.assert_array_equal(mask, full[rows][:, columns.astype(int)])
        assert features["image/segmentation/class/format"] == [b"png"]
    manifest = read_manifest(root / "out")
    assert manifest.totals.rejected == {"mask_missing": 2, "mask_size": 1, "mask_unreadable": 1}
    lines = (root / "out" / "rejects.jsonl").read_text()
    assert '"detail":"5.gif, 5.png"' in lines
    assert '"code":"unused_mask"' in (root / "out" / "notes.jsonl").read_text()
    assert verify_dataset(root / "out", originals=root / "images") == []


def test_verify_finds_a_mask_that_is_none(root: Path):
    convert_folder(root / "images", root / "out", dataclasses.replace(OPTIONS, num_shards=1))
    (shard,) = read_manifest(root / "out").shards
    path = root / "out" / shard.name
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    record = data[12 : 12 + size]
    at = record.index(b"\x89PNG", record.index(MASK.encode())) + 40  # within the mask's pixels
    damaged = record[:at] + b"\0\1\2\3" + record[at + 4 :]
    path.write_bytes(frame_record(damaged) + data[16 + size :])
    details = [fault.detail for fault in verify_dataset(root / "out")]
    assert any("record at byte 0: mask does not decode" in detail for detail in details)


def test_repair_brings_masks_back(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    shard = read_manifest(root / "out").shards[0]
    whole = (root / "out" / shard.name).read_bytes()
    (root / "out" / shard.name).write_bytes(whole[:-40])
    found = repair(root / "out", root / "images", IN_MEMORY)
    assert found.left == ()
    assert (root / "out" / shard.name).read_bytes() == whole


def test_update_sees_masks(root: Path):
    run_conversion(root / "images", root / "out", OPTIONS, IN_MEMORY)
    again = run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    assert again.unchanged
    (root / "masks" / "1.png").write_bytes(encode_mask(make_numbers(9), "P"))
    (root / "masks" / "2.png").unlink()
    update = run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update").update
    assert (update.added, update.changed, update.removed) == (0, 1, 1)
    assert verify_dataset(root / "out") == []
    (root / "masks" / "2.png").write_bytes(encode_mask(make_numbers(2)))
    update = run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update").update
    assert (update.added, update.changed, update.removed) == (1, 0, 0)
    assert len(read_records(root / "out")) == 12


def test_a_column_of_a_table_names_masks(root: Path):
    rows = [f"images/{seed}.jpg,masks/{seed}.png\n" for seed in (1, 2, 3, 5)]
    rows += ["images/6.jpg,\n", "images/7.jpg,masks/none.png\n", "images/9.jpg,../x.png\n"]
    (root / "t.csv").write_text("path,mask\n" + "".join(rows))
    options = ConvertOptions(image_size=(16, 20), mask_column="mask", num_shards=1)
    convert_folder(root / "t.csv", root / "out", options)
    assert set(read_records(root / "out")) == {f"images/{seed}.jpg" for seed in (1, 2, 3, 5)}
    manifest = read_manifest(root / "out")
    assert manifest.totals.rejected == {"mask_missing": 3}
    assert verify_dataset(root / "out", originals=root) == []


def test_images_and_masks_may_lie_in_archives(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    for name in ("images", "masks"):
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            tar.add(root / name, ".")
    options = dataclasses.replace(OPTIONS, mask_dir="masks.tar")
    convert_folder(root / "images.tar", root / "archived", options)
    assert read_records(root / "archived") == read_records(root / "out")
    with tarfile.open(root / "masks.tar.gz", "w:gz") as tar:
        tar.add(root / "masks", ".")
    with pytest.raises(UsageError, match=r"masks\.tar\.gz .* is compressed"):
        scan_images(root / "images", dataclasses.replace(OPTIONS, mask_dir="../masks.tar.gz"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mask_dir": "deep"}, "lie among the images .*, where they would be taken for images"),
        ({"mask_dir": "../none"}, "none does not exist"),
        ({"mask_dir": "../empty"}, "has no mask for any image: looked for '1', with the suffix"),
        ({"mask_column": "m"}, "mask dir and mask column exclude each other"),
        ({"mask_padding": 256}, "mask padding 256 is out of range: 0 to 255"),
        ({"frames": "all"}, "frames all makes several images of a file, and a mask is of one"),
    ],
)
def test_masks_that_make_no_sense_are_refused(root: Path, values, message):
    (root / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        scan_images(root / "images", dataclasses.replace(OPTIONS, **values))


def test_a_mask_that_goes_after_the_plan_is_a_reject(root: Path, monkeypatch):
    inventory = scan_images(root / "images", OPTIONS)
    assert all(entry.mask is not None for entry in inventory.entries)
    (root / "masks" / "1.png").unlink()
    entry = next(entry for entry in inventory.entries if entry.path == "1.jpg")
    with pytest.raises(ImageError, match=r"^mask_missing: vanished, "):
        make_record(entry, "", root / "images", OPTIONS, inventory.columns)
