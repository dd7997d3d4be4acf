"""Records whose checksums are right, made to harm."""

import contextlib
import functools
import json
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from conftest import encode_image, make_image
from damaging import EXHAUSTIVE, MAX_GROWTH_MB, find_flaw, note_growth, run_apart
from forging import forge, make_payload, sign
from making import make_chunk
from PIL import Image

from converter import DatasetError, RecordError
from converter.format import examples
from converter.format.tfrecords import FRAMING_BYTES, frame_record
from reader import ReadOptions, load_dataset, open_shards
from reader.batches.batch_reader import BatchReader
from reader.plan.planning import plan_reading

PICTURE = encode_image(make_image(1), "PNG")


def claim_png(side: int) -> bytes:
    """A PNG whose header claims so many pixels a side, and is right in itself."""
    chunk = b"IHDR" + struct.pack(">II", side, side) + PICTURE[24:29]
    return PICTURE[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + PICTURE[33:]


def claim_jpeg(side: int) -> bytes:
    data = bytearray(encode_image(make_image(1), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def pack_png(side: int) -> bytes:
    """A PNG of so many black pixels a side, that are really in it."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    whole, rest = divmod(side * (1 + 3 * side), len(piece))
    head = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    # The packer has not seen all of them; but of zeros, the checksum depends on their number alone.
    tail = (packer.compress(bytes(rest)) + packer.flush())[:-4]
    adler = struct.pack(">HH", side * (1 + 3 * side) % 65_521, 1)
    pixels = head + again * (whole - 1) + tail + adler
    return claim_png(side)[:33] + make_chunk(b"IDAT", pixels) + PICTURE[-12:]


def behead(png: bytes) -> bytes:
    """A PNG whose second header is that of another one."""
    return PICTURE[:33] + png[8:]


def join_frames(side: int) -> bytes:
    """A JPEG with a second frame that claims so many pixels a side."""
    jpeg, claim = encode_image(make_image(1), "JPEG"), claim_jpeg(side)
    begin, end = claim.index(b"\xff\xc0"), claim.index(b"\xff\xc4")
    return jpeg[:end] + claim[begin:end] + jpeg[end:]


def pack_rows(count: int) -> bytes:
    """A PNG that has fewer rows than it claims."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(make_image(1))[:count])
    return PICTURE[:33] + make_chunk(b"IDAT", zlib.compress(rows)) + PICTURE[-12:]


JPEG = encode_image(make_image(1), "JPEG")
WEBP = encode_image(make_image(1), "WEBP")

HOSTILE_RECORDS = {
    "png of two headers": make_payload(behead(claim_png(20_000))),
    "png of few rows": make_payload(pack_rows(20)),
    "png without a row": make_payload(pack_rows(0)),
    "png without its last row": make_payload(pack_rows(23)),
    "png of a flipped bit": make_payload(PICTURE[:60] + bytes([PICTURE[60] ^ 1]) + PICTURE[61:]),
    "png that is cut off": make_payload(PICTURE[:-12]),
    "jpeg of two frames": make_payload(join_frames(20_000)),
    "jpeg that is cut off": make_payload(JPEG[: len(JPEG) * 3 // 4]),
    "jpeg without its end": make_payload(JPEG[:-2]),
    "webp that is cut off": make_payload(WEBP[: len(WEBP) * 3 // 4]),
    "webp with alpha": make_payload(encode_image(make_image(1, mode="RGBA"), "WEBP")),
    "png of 20000": make_payload(claim_png(20_000)),
    "jpeg of 20000": make_payload(claim_jpeg(20_000)),
    "png of 2**32": make_payload(claim_png(2**32 - 1)),
    "png of 0": make_payload(claim_png(0)),
    "gif": make_payload(encode_image(make_image(1), "GIF")),
    "no image": make_payload(b""),
    "label of another class": make_payload(PICTURE, class_label=2),
    "label of 32 bits": make_payload(PICTURE, class_label=2**31),
    "label of 63 bits": make_payload(PICTURE, class_label=2**63 - 1),
    "negative label": make_payload(PICTURE, class_label=-1),
    "no features": examples.encode_example({}),
    "nothing": b"",
    "zeros": bytes(1000),
    "noise": np.random.default_rng(0).bytes(1000),
    "a feature that does not end": b"\n\xff\xff\xff\xff\x0f" + make_payload(PICTURE)[6:],
}

PIXELS = bytes(36)

HOSTILE_PIXELS = {
    name: make_payload(image, 0, *size, format=b"raw", **changes)
    for name, image, size, changes in (
        ("too few bytes", PIXELS[1:], (3, 4), {}),
        ("too many bytes", PIXELS + b"\0", (3, 4), {}),
        ("sides exchanged", PIXELS, (4, 3), {}),
        ("a side of 0", b"", (0, 4), {}),
        ("sides of 2**63", PIXELS, (2**63 - 1, 2**63 - 1), {}),
        ("negative sides", PIXELS, (-3, -4), {}),
        ("label of another class", PIXELS, (3, 4), {"class_label": 2}),
        ("label of 32 bits", PIXELS, (3, 4), {"class_label": 2**31}),
        ("label of 36 bits", PIXELS, (3, 4), {"class_label": 2**35}),
        ("label of 63 bits", PIXELS, (3, 4), {"class_label": 2**63 - 1}),
        ("negative label", PIXELS, (3, 4), {"class_label": -1}),
    )
} | {"nothing": b"", "zeros": bytes(1000)}


@pytest.mark.parametrize("name", HOSTILE_RECORDS)
@pytest.mark.parametrize("shuffle", [False, "buffer"])
def test_a_record_that_lies_is_named_or_left_out(tmp_path, name, shuffle):
    good = make_payload(PICTURE, 1)
    folder = forge(tmp_path / "set", {"train-0": [good, HOSTILE_RECORDS[name], good]})
    judge_lie(folder, ("train-0.tfrecord", 1, len(good) + FRAMING_BYTES), shuffle)


@pytest.mark.parametrize("name", HOSTILE_PIXELS)
@pytest.mark.parametrize("shuffle", [False, "buffer"])
def test_a_raw_record_that_lies_is_named_or_left_out(tmp_path, name, shuffle):
    good = make_payload(PIXELS, 1, 3, 4, format=b"raw")
    folder = forge(tmp_path / "set", {"train-0": [good, HOSTILE_PIXELS[name], good]}, "raw", (3, 4))
    place = ("train-0.tfrecord", 1, len(good) + FRAMING_BYTES)
    judge_lie(folder, place, shuffle, random_flip=True)
    if "sides" not in name:  # of which nothing is believed, nor read, where the bytes are enough
        judge_lie(folder, place, shuffle, direct=True)


def judge_lie(folder, place, shuffle, *, direct=False, **more):
    """Reads all in one batch and each in a batch of its own, with both policies."""
    arguments = {"shuffle": shuffle, "seed": 1, "with_filename": True, "dtype": "uint8"} | more
    for batch_size in (1, 3):
        reader = open_engine(folder, batch_size=batch_size, **arguments)
        assert reader.plan.is_direct is direct
        with pytest.raises(RecordError) as caught:
            read_all(reader)
        errors = [caught.value]
        skipping = {"batch_size": batch_size, "on_damage": "skip", "remainder": "pad"}
        reader = open_engine(folder, **arguments | skipping)
        assert sum(int(batch.valid.sum()) for batch in read_all(reader)) == 2
        errors += reader.damage.errors.values()
        batches = open_shards(folder).batches("train", **arguments | skipping)
        for _, labels, weights, names in batches:
            assert names.tolist() == [b"bee/1.png" if weight else b"" for weight in weights]
            assert labels.tolist() == weights.tolist()
        errors += batches.damage.errors.values()
        assert len(errors) == 3
        for error in errors:
            assert (error.shard, error.record, error.offset) == place
            assert not find_flaw(str(error))


def open_engine(folder, **options):
    manifest = open_shards(folder).manifest
    return BatchReader(plan_reading(folder, manifest, "train", ReadOptions(**options)))


def read_all(reader):
    return [reader.read(0, [step]) for step in range(reader.plan.steps.count)]


@pytest.mark.parametrize("label", [2, 2**31, 2**32, 2**35, 2**63 - 1, -1])
def test_labels_that_no_class_has_are_refused(tmp_path, label):
    payloads = [make_payload(PICTURE, 1), make_payload(PICTURE, 2, class_label=label)]
    folder = forge(tmp_path / "set", {"train-0": payloads})
    with pytest.raises(DatasetError, match="label"):
        _ = open_shards(folder).source("train").labels
    options = ReadOptions(class_names=("ant",))
    with pytest.raises(DatasetError, match="label"):
        plan_reading(folder, open_shards(folder).manifest, "train", options)


def test_raw_images_with_much_beside_them_take_no_more_memory_than_one(tmp_path):
    payload = make_payload(PIXELS, 0, 3, 4, format=b"raw", zzz=bytes(12_000_000))
    folder = forge(tmp_path / "set", {"train-0": [payload] * 8}, "raw", (3, 4))
    said, grown = run_apart(note_growth, read_all_pixels, folder)
    assert said == "gives 8"
    assert int(grown) <= MAX_GROWTH_MB


def read_all_pixels(folder):
    reader = open_engine(folder, batch_size=8, max_ram=10**10, dtype="uint8")
    return int(reader.read(0, [0]).valid.sum())


def test_any_bit_of_a_record_may_be_anything_its_checksum_says(tmp_path):
    for image, image_format in ((PICTURE[:60], "png"), (b"\x80" * 36, "raw")):
        payload = make_payload(image, 0, 3, 4, format=image_format.encode())
        folder = forge(tmp_path / image_format, {"train-0": [payload]}, image_format, (3, 4))
        assert run_apart(try_payloads, folder, payload) == []


def try_payloads(at, folder, payload):
    options = {
        "batch_size": 1, "with_filename": True, "on_damage": "skip", "max_damaged": 10**6,
        "dtype": "uint8", "seed": 0,
    }  # fmt: skip
    shards = open_shards(folder)
    source, batches = shards.source("train"), shards.batches("train", **options)
    reads = [
        lambda: source[0],
        lambda: source.labels,
        lambda: list(source.file_paths),
        functools.partial(open_engine(folder, **options).read, 0, [0]),
        functools.partial(open_engine(folder, random_flip=True, **options).read, 0, [0]),
        lambda: list(batches),
    ]
    for bit in range(0, 8 * len(payload), 1 if EXHAUSTIVE else 23):
        at.value = bit
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / "train-0.tfrecord").write_bytes(frame_record(bytes(changed)))
        for read in reads:
            with contextlib.suppress(DatasetError):
                read()
    return ["TensorFlow is loaded"] * ("tensorflow" in sys.modules)


def make_bombs() -> dict[str, bytes]:
    texts = b"".join(
        make_chunk(b"zTXt", b"%d\0\0" % number + zlib.compress(bytes(1 << 20), 9))
        for number in range(200)
    )
    return {
        "pixels": pack_png(20_000),
        "pixels-behind-another-header": behead(pack_png(20_000)),
        "frame-behind-another": join_frames(60_000),
        "texts": PICTURE[:33] + texts + PICTURE[33:],
        "rows-too-many": PICTURE[:33] + pack_png(20_000)[33:],
    }


def test_no_image_takes_more_memory_or_time_than_the_manifest_allows(tmp_path):
    good, bombs = make_payload(PICTURE, 1), make_bombs()
    assert 1_000_000 < len(bombs["pixels"]) < 1_300_000
    usual = forge(tmp_path / "usual", {"train-0": [good] * len(bombs)})
    hostile = forge(
        tmp_path / "hostile",
        {f"train-{name}": [make_payload(bomb)] for name, bomb in bombs.items()},
    )
    skipped, grown = run_apart(read_bombs, usual, hostile, limit_s=60)
    # Texts are not looked at, and of too many rows the first ones are the image.
    taken = {f"train-{name}.tfrecord" for name in bombs} - {"train-texts.tfrecord"}
    assert set(skipped.split(", ")) == taken - {"train-rows-too-many.tfrecord"}
    assert int(grown) <= MAX_GROWTH_MB


def read_bombs(at, usual, hostile):
    for folder in (usual, hostile):  # Pillow's own memory comes with the first
        batches = open_shards(folder).batches(
            "train", batch_size=5, shuffle=False, on_damage="skip", remainder="pad"
        )
        _, grown = note_growth(at, list, batches)
    shards = [shard for shard, _ in batches.damage.errors]
    return [", ".join(shards), grown]


def test_a_jpeg_among_images_with_alpha_is_named(tmp_path):
    good = make_payload(encode_image(make_image(1, mode="RGBA"), "PNG"), 1)
    folder = forge(tmp_path / "set", {"train-0": [good, make_payload(JPEG), good]})
    content = json.loads((folder / "manifest.json").read_bytes())
    del content["digest"]
    content["image"]["channels"] = 4
    sign(folder / "manifest.json", content)
    place = ("train-0.tfrecord", 1, len(good) + FRAMING_BYTES)
    judge_lie(folder, place, False, color_mode="rgba")


def test_tensorflow_never_sees_what_would_take_its_memory(tmp_path):
    hidden = encode_image(Image.new("RGB", (5_000, 5_000)), "JPEG")[2:]
    frame = encode_image(make_image(1), "JPEG")
    begin = frame.index(b"\xff\xc0")
    images = [
        claim_png(20_000),
        claim_jpeg(20_000),
        b"\xff\xd8\xff\x00" + struct.pack(">H", 60_002) + hidden[:60_000] + frame[begin:],
    ]
    good = make_payload(PICTURE, 1)
    usual = forge(tmp_path / "usual", {"train-0": [good] * 5})
    hostile = forge(tmp_path / "hostile", {"train-0": [good, *map(make_payload, images), good]})
    said, skipped, grown = run_apart(read_with_tensorflow, usual, hostile)
    assert (said, skipped) == ("gives [2]", "3 skipped")
    assert int(grown) <= MAX_GROWTH_MB


def read_with_tensorflow(at, usual, hostile):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for folder in (usual, hostile):  # TensorFlow's own memory comes with the first
        dataset = load_dataset(folder, batch_size=5, shuffle=False, on_damage="skip")
        said, grown = note_growth(at, count_images, dataset)
    return [said, f"{len(dataset.damage)} skipped", grown]


def count_images(dataset):
    return [len(images) for images, _ in dataset]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("progressive", {"progressive": True}),
        ("restart markers", {"restart_marker_blocks": 1}),
        ("fill bytes", {}),
    ],
)
def test_unusual_jpegs_are_read_as_they_are(tmp_path, name, options):
    tf = pytest.importorskip("tensorflow")
    data = encode_image(make_image(1), "JPEG", **options)
    if name == "fill bytes":
        data = data[:2] + b"\xff" * 5 + data[2:]
    folder = forge(tmp_path / "set", {"train-0": [make_payload(data)]}, "jpeg")
    ((images, _),) = load_dataset(folder, batch_size=1, dtype="uint8")
    expected = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(images[0], expected)
