"""Hostile Parquet: one line or rejects for each, in bounded memory and time."""

import contextlib
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import convert_folder, encode_image, make_environment, make_image
from parquet_making import describe_column, encode_varint, forge_file, forge_page, write_plain

from converter.errors import UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.sources.parquet_files import read_metadata
from converter.sources.parquet_headers import (
    check_footer,
    check_pages,
    check_sizes,
    find_footer,
    read_page,
)
from converter.sources.scan import scan_images
from converter.storage.locate import locate

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

IMAGES = ConvertOptions(source="parquet", image_column="image")
PHOTOS = [encode_image(make_image(n)) for n in range(40)]


def scan(path: Path) -> str:
    """What becomes of a file: one line that refuses it, or how many rows are what."""
    try:
        inventory = scan_images(path, IMAGES)
    except UsageError as error:
        message = str(error)
        assert "\n" not in message
        return message
    codes = sorted({file.code for file in inventory.rejected})
    return f"{len(inventory.entries)} images, {len(inventory.rejected)} rejected {codes}"


def read_peak() -> int:
    """The most memory that this process had so far, in kB, not counting what started it."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def read_pages(path: Path, group: int, column: int) -> list[tuple[bool, int, int]]:
    data, chunk = path.read_bytes(), parquet.read_metadata(path).row_group(group).column(column)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    end, found = begin + chunk.total_compressed_size, []
    while begin < end:
        page = read_page(lambda at, size: data[at : at + size], begin, end)
        found.append((page.is_dictionary, page.plain_bytes, page.end - begin))
        begin = page.end
    assert begin == end
    return found


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("index", [True, False])
def test_the_headers_of_real_pages_are_read(tmp_path, version, compression, index):
    rows = {"image": [bytes([n]) * 3000 for n in range(64)], "n": range(64), "s": ["a", None] * 32}
    path = write_plain(
        tmp_path / "a.parquet", rows, data_page_version=version, compression=compression,
        data_page_size=9_000, write_batch_size=2, row_group_size=32, write_page_index=index,
        write_page_checksum=True, use_dictionary=["n", "s"],
    )  # fmt: skip
    metadata = parquet.read_metadata(path)
    for group in range(2):
        for column in range(3):
            pages = read_pages(path, group, column)
            chunk = metadata.row_group(group).column(column)
            assert pages[0][0] == chunk.has_dictionary_page
            assert sum(size for *_, size in pages) == chunk.total_compressed_size
            assert sum(plain for _, plain, _ in pages) <= chunk.total_uncompressed_size
    assert len(read_pages(path, 0, 0)) > 2


@pytest.mark.parametrize("columns", [1, 20, 3000])
def test_the_footers_of_real_files_pass(tmp_path, columns):
    kind = pa.struct([("x", pa.list_(pa.map_(pa.string(), pa.timestamp("us", "UTC"))))])
    schema = {f"c{n}": pa.array([None], kind) for n in range(columns)}
    path = write_plain(tmp_path / "a.parquet", schema, features={"c0": {"_type": "Value"}})
    assert read_metadata(locate(path)).num_columns == 2 * columns


@pytest.mark.parametrize(
    ("tail", "size", "words"),
    [
        (struct.pack("<I", 99) + b"PAR1", 50, "more than there are"),
        (struct.pack("<I", 2**32 - 1) + b"PAR1", 50, "more than there are"),
        (struct.pack("<I", 1 << 25) + b"PAR1", 1 << 30, "at most 16,777,216"),
        (struct.pack("<I", 5) + b"PARE", 50, "encrypted"),
        (struct.pack("<I", 5) + b"junk", 50, "cut off, or something else"),
    ],
)
def test_the_end_of_a_file_is_not_believed(tail, size, words):
    with pytest.raises(ValueError, match=words):
        find_footer(tail, size)
    assert find_footer(struct.pack("<I", 5) + b"PAR1", 17) == 5


@pytest.mark.parametrize("data", [b"", b"\x15", b"\x15\x04\x19\xfc\xff\xff\xff\x7f", b"\xff" * 40])
def test_a_footer_that_ends_too_early_is_damaged(data):
    with pytest.raises(ValueError, match="damaged"):
        check_footer(data)


def test_any_footer_passes_or_is_a_value_error():
    generator = random.Random(0)
    for size in range(400):
        data = bytearray(generator.randbytes(size))
        if size % 2:
            data[:4] = b"\x15\x04\x19\x3c"
        with contextlib.suppress(ValueError):
            check_footer(bytes(data))


def test_sizes_of_images_pass_and_those_of_bombs_do_not():
    check_sizes(100_000_000, 50_000_000)
    check_sizes(1000, 0)
    for plain, packed in ((10_000_000_000, 1000), (70 << 20, -5)):
        with pytest.raises(ValueError, match="a bomb"):
            check_sizes(plain, packed)


def test_a_page_without_a_header_is_named_by_its_place():
    for data in (b"", b"\x15\x00\x15", b"\xff" * 3000):
        with pytest.raises(ValueError, match="at byte 4"):
            check_pages(lambda at, size, data=data: data[at - 4 : at - 4 + size], 4, 100)


def make_hostile(folder: Path) -> dict[str, Path]:
    """Files that no library would write, by what is wrong with them."""
    deep = [describe_column("root", 1), *(describe_column("a", 1) for _ in range(50_000))]
    wide = [describe_column("root", 1_000_000), *(describe_column("a") for _ in range(1_000_000))]
    zeros = struct.pack("<I", 1 << 30) + bytes(1 << 30)
    bomb = pa.compress(zeros, "zstd", asbytes=True)
    small = struct.pack("<I", 3) + b"abc"
    made = {
        "deep": forge_file(folder / "deep.parquet", [*deep, describe_column("x")]),
        "wide": forge_file(folder / "wide.parquet", wide),
        "no columns": forge_file(folder / "none.parquet", []),
        "bomb": forge_page(folder / "bomb.parquet", bomb, plain_bytes=len(zeros), codec=6),
        "hidden bomb": forge_page(
            folder / "hidden.parquet", bomb, plain_bytes=len(zeros), codec=6, stated=1000
        ),
        "claims 10 GB": forge_page(
            folder / "claim.parquet", small, plain_bytes=7, stated=10_000_000_000
        ),
        "snappy claims 2 GB": forge_page(
            folder / "snappy.parquet", encode_varint(2**31 - 1) + b"\0a",
            plain_bytes=2**31 - 1, codec=1, stated=9,
        ),
        "longer than its page": forge_page(
            folder / "long.parquet", struct.pack("<I", 2**31 - 1) + b"abc", plain_bytes=7
        ),
        "of negative length": forge_page(
            folder / "negative.parquet", struct.pack("<i", -5) + b"abc", plain_bytes=7
        ),
        "page of negative size": forge_page(folder / "page.parquet", small, plain_bytes=-7),
        "unknown codec": forge_page(folder / "codec.parquet", small, plain_bytes=7, codec=3),
        "claims a trillion rows": forge_page(
            folder / "trillion.parquet", small, plain_bytes=7, rows=10**12
        ),
        "claims 19 million rows": forge_page(
            folder / "million.parquet", small, plain_bytes=7, rows=19_000_000
        ),
        "good": forge_page(folder / "good.parquet", small, plain_bytes=7),
    }  # fmt: skip
    for name, data in (("empty", b""), ("text", b"no Parquet at all\n"), ("short", b"PAR1PAR1")):
        made[name] = folder / f"{name}.parquet"
        made[name].write_bytes(data)
    return made


OUTCOMES = {
    "deep": "it has over 50,000 columns, or nests them over 100 deep",
    "wide": "it has over 50,000 columns, or",
    "no columns": "cannot be read as Parquet",
    "bomb": "all 1 are null or damaged",
    "hidden bomb": "all 1 are null or damaged",
    "claims 10 GB": "all 1 are null or damaged",
    "snappy claims 2 GB": "all 1 are null or damaged",
    "longer than its page": "all 1 are null or damaged",
    "of negative length": "all 1 are null or damaged",
    "page of negative size": "all 1 are null or damaged",
    "unknown codec": "all 1 are null or damaged",
    "claims a trillion rows": "at most 20,000,000: write several files",
    "claims 19 million rows": "rejected one by one",
    "good": "1 images, 0 rejected []",
    "empty": "it has 0 bytes",
    "text": "cut off, or something else",
    "short": "it has 8 bytes",
}


def test_hostile_files_take_one_line_and_little_memory(tmp_path):
    files = make_hostile(tmp_path)
    assert set(files) == set(OUTCOMES)
    code = (
        "import sys, test_parquet_headers as t\n"
        "from pathlib import Path\n"
        "for name in sys.argv[1:]: print(t.scan(Path(name)), flush=True)\n"
        "print(t.read_peak())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, files.values())],
        capture_output=True, text=True, check=False, timeout=120, env=make_environment(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    *lines, peak = run.stdout.splitlines()
    for name, line in zip(files, lines, strict=True):
        assert OUTCOMES[name] in line, (name, line)
    assert int(peak) < 800_000  # kB


def write_groups(path: Path, **options: object) -> Path:
    return write_plain(
        path, {"image": PHOTOS, "label": [f"l{n % 3}" for n in range(40)]}, row_group_size=10,
        use_dictionary=False, write_page_checksum=True, **options,
    )  # fmt: skip


def test_of_a_damaged_page_only_what_follows_in_its_row_group_is_lost(tmp_path):
    path = write_plain(
        tmp_path / "a.parquet", {"image": [PHOTOS[0]] * 600}, row_group_size=200,
        use_dictionary=False, data_page_size=100, write_batch_size=50,
    )  # fmt: skip
    data, chunk = bytearray(path.read_bytes()), parquet.read_metadata(path).row_group(1).column(0)
    at = chunk.data_page_offset
    for _ in range(3):
        at = read_page(lambda at, size: data[at : at + size], at, len(data)).end
    data[at] = 0  # the page of the rows from 350 on
    path.write_bytes(data)
    inventory = scan_images(path, IMAGES)
    read = {entry.place for entry in inventory.entries}
    assert {*range(200), *range(400, 600)} <= read
    lost = {f"a/{row}" for row in {*range(600)} - read}
    assert {file.path for file in inventory.rejected} == lost
    assert {file.code for file in inventory.rejected} == {"unreadable"}
    convert_folder(path, tmp_path / "out", ConvertOptions(image_size=(4, 4), dedupe="off"))
    totals = read_manifest(tmp_path / "out").totals
    assert (totals.written, totals.rejected) == (len(read), {"unreadable": 600 - len(read)})


def test_of_damaged_labels_the_rows_of_their_row_group_are_lost(tmp_path):
    path = write_groups(tmp_path / "a.parquet")
    data, chunk = bytearray(path.read_bytes()), parquet.read_metadata(path).row_group(1).column(1)
    data[chunk.data_page_offset] = 0
    path.write_bytes(data)
    inventory = scan_images(path, IMAGES)
    assert [file.code for file in inventory.rejected] == ["unreadable"] * 10
    assert len(inventory.entries) == 30


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, share):
    path = write_groups(tmp_path / "a.parquet")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "cut off" in scan(path)
    path.write_bytes(data[:100] + data[-10_000:])  # without the middle
    assert "all 40 are null or damaged" in scan(path)


@pytest.mark.parametrize("plain_footer", [True, False])
def test_an_encrypted_file_is_one_line(tmp_path, plain_footer):
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Client(encryption.KmsClient):
        def wrap_key(self, key, _):
            return key.hex()

        def unwrap_key(self, key, _):
            return bytes.fromhex(key)

    factory = encryption.CryptoFactory(lambda _: Client())
    settings = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["image"]}, plaintext_footer=plain_footer
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"image": PHOTOS})
    with parquet.ParquetWriter(
        tmp_path / "a.parquet", table.schema, encryption_properties=properties
    ) as writer:
        writer.write_table(table)
    assert "it is encrypted" in scan(tmp_path / "a.parquet")


def test_a_list_that_repeats_itself_is_no_bomb(tmp_path):
    label = pa.DictionaryArray.from_arrays(pa.array([0] * 30_000_000, pa.int32()), ["x"])
    lists = pa.ListArray.from_arrays([0, 30_000_000], label.dictionary_decode())
    path = write_plain(tmp_path / "a.parquet", {"image": PHOTOS[:1], "labels": lists})
    assert path.stat().st_size < 100_000
    assert "damaged: " in scan(path)


def test_bytes_that_change_anywhere_never_end_in_a_traceback(tmp_path):
    path = write_groups(tmp_path / "a.parquet", compression="snappy")
    data = path.read_bytes()
    generator = random.Random(1)
    for _ in range(150):
        changed = bytearray(data)
        # Headers and footer: a changed byte of an image is found when it is decoded.
        place = generator.choice([generator.randrange(400), -generator.randrange(1, 2500)])
        changed[place] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        assert scan(path)


def test_a_row_group_is_read_in_pieces(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [os.urandom(100_000) for _ in range(20)] * 150
    write_plain(path, {"image": rows}, use_dictionary=False, write_batch_size=8)
    assert parquet.read_metadata(path).num_row_groups == 1
    code = (
        "import sys, test_parquet_headers as t\n"
        "from pathlib import Path\n"
        "before = t.read_peak()\n"
        "print(t.scan(Path(sys.argv[1])))\n"
        "print(t.read_peak() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, check=True, timeout=120, env=make_environment(),
    )  # fmt: skip
    line, grown = run.stdout.splitlines()
    assert line == "3000 images, 0 rejected []"
    assert int(grown) < 130_000  # kB, of 300,000, with Arrow itself
