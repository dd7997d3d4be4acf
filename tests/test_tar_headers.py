"""Headers of tars are read as `tarfile` reads them, also if any of their bytes is another."""

import io
import random
import struct
import tarfile
import time

import pytest

from converter.sources.tar_headers import Header

CODING = ("utf-8", "surrogateescape")
NAMES = ["a.jpg", "d/" * 60 + "deep.jpg", "é/ü.png", "x" * 100, "dir/", "b\udcff.jpg", "n\n.jpg"]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
# Where a header says how a file is to be made, which no one asks for.
IGNORED = [*range(100, 124), *range(136, 148), *range(157, 345)]


def make_header(name="a.jpg", kind=tarfile.USTAR_FORMAT, **traits):
    info = tarfile.TarInfo(name)
    info.size = traits.pop("size", 1_234)
    for trait, value in traits.items():
        setattr(info, trait, value)
    return info.tobuf(kind, *CODING)[-tarfile.BLOCKSIZE :]


def sign(data):
    """Gives a header the checksum of its bytes."""
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % (sum(data) & 0o777777)
    return bytes(data)


def read(data, reader):
    """Name, size and type, or the kind of the error."""
    try:
        found = reader.frombuf(data, *CODING)
    except (tarfile.TarError, ValueError, struct.error) as error:
        return type(error)
    return found.name, found.size, found.type, found.isreg(), found.issparse(), found.isdir()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 8**11 - 1])
def test_what_a_header_says_is_what_tarfile_reads(name, kind, size):
    data = make_header(name, kind, size=size)
    assert read(data, Header) == read(data, tarfile.TarInfo)


@pytest.mark.parametrize("letter", "0\x001234567LKSgxXVA")
def test_every_kind_of_member_is_what_it_is_to_tarfile(letter):
    data = bytearray(make_header("a/b.jpg"))
    data[156] = ord(letter)
    assert read(sign(data), Header) == read(sign(data), tarfile.TarInfo)


@pytest.mark.parametrize("signed", [True, False])
def test_no_other_byte_is_read_in_another_way(signed):
    chance = random.Random(0)
    base = make_header("some/where.jpg")
    for place in range(tarfile.BLOCKSIZE):
        for value in {0, 32, 47, 55, 56, 0x80, 0xFF, chance.randrange(256)}:
            data = bytearray(base)
            data[place] = value
            found = sign(data) if signed else bytes(data)
            expected = read(found, tarfile.TarInfo)
            if place in IGNORED and isinstance(expected, type):
                continue
            assert read(found, Header) == expected, (place, value)


@pytest.mark.parametrize("data", [b"", b"x", bytes(512), b"x" * 511, b"\xff" * 512, bytes(513)])
def test_what_is_no_header_raises_what_tarfile_raises(data):
    assert read(data, Header) == read(data, tarfile.TarInfo)
    assert isinstance(read(data, Header), type)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_tar_reads_alike(kind):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for number, name in enumerate(NAMES):
            repeated = 3 if number % 2 and kind != tarfile.USTAR_FORMAT else 1
            info = tarfile.TarInfo(f"{name.strip('/')[-60:]}{number}" * repeated)
            info.size, info.mtime = number * 100, 1.5 if kind == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    found = []
    for reader in (tarfile.TarInfo, Header):
        file.seek(0)
        with tarfile.open(
            fileobj=file, tarinfo=reader, encoding=CODING[0], errors=CODING[1]
        ) as tar:
            found.append([(info.name, info.size, info.offset_data, info.type) for info in tar])
    assert found[0] == found[1]
    assert len(found[0]) == len(NAMES)


def pack_records(*records):
    return b"".join(b"%d %b\n" % (len(record) + 4, record) for record in records)


@pytest.mark.parametrize(
    "said",
    [
        pack_records(b"mtime=1.5", b"uname=someone"),
        pack_records(b"mtime=1.5", b"path=other"),
        pack_records(b"size=00000003"),
        pack_records(b"uname=a\n13 path=other"),
        b"13 mtime=1.515 path=other\n",  # a record that ends without a line
        b"99 mtime=1.5\n",
        b"12 mtime=1.5\n",
        b"nonsense",
        b"",
        pack_records(b"GNU.sparse.size=1", b"GNU.sparse.map=0,0"),
        pack_records(*[b"uname=someone"] * 400),
        pack_records(b"hdrcharset=BINARY", b"mtime=1.5"),
    ],
)
@pytest.mark.parametrize("end", ["member", "zeros", "nothing", "damage"])
def test_what_pax_says_is_heard_as_tarfile_hears_it(said, end):
    info = tarfile.TarInfo("x")
    info.size, info.type = len(said), tarfile.XHDTYPE
    data = info.tobuf(tarfile.USTAR_FORMAT) + said + bytes(-len(said) % 512)
    content = b"content"
    after = make_header("some/where.jpg", size=len(content)) + content.ljust(512, b"\0")
    data += {
        "member": after + bytes(1_024), "zeros": bytes(1_024), "nothing": b"",
        "damage": b"x" * 512 + after,
    }[end]  # fmt: skip
    data = make_header("first.jpg", size=0) + data

    def read_all(reader):
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:", tarinfo=reader) as tar:
                return [(i.name, i.size, i.offset, i.offset_data, i.issparse()) for i in tar]
        except (tarfile.TarError, ValueError) as error:
            return type(error), str(error)

    assert read_all(Header) == read_all(tarfile.TarInfo)


def test_it_takes_half_the_time_at_most():
    data = make_header()
    taken = []
    for reader in (Header, tarfile.TarInfo) * 3:
        begun = time.process_time()
        for _ in range(3_000):
            reader.frombuf(data, *CODING)
        taken.append(time.process_time() - begun)
    assert min(taken[::2]) < 0.6 * min(taken[1::2])
