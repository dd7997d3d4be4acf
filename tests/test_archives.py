"""Archives are read where they lie: the same data set as from a folder, and nothing believed."""

import dataclasses
import gzip
import io
import os
import re
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import convert_folder, encode_image, make_image, run_conversion, write_image

from converter.errors import ImageError, UsageError
from converter.format.manifest import read_manifest
from converter.inventory import Skipped
from converter.names import to_system
from converter.options import ConvertOptions
from converter.planning.plan import Shard, write_plan
from converter.sources.archives import CURSOR, OPENERS, Cursor, list_archive, start_member
from converter.sources.originals import read_entry, read_source
from converter.sources.scan import scan_images
from converter.storage.files import Layout
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_groups import deal_shards, write_together
from converter.writing.shard_writer import Job
from pipelines.jobs.preview import propose
from pipelines.jobs.upkeep import repair, verify

OPTIONS = ConvertOptions(
    image_size=(8, 10), encoding="png", num_shards=3, validation_split=0.3, seed=3
)
IN_MEMORY = ["--direct_running_mode=in_memory"]


def pack(folder: Path, archive: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of a folder: a tar of tars, one for each class, if it is called so."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", method) as file:
            for path in paths:
                file.write(path, path.relative_to(folder))
        return archive
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as tar:
        if archive.name != "nested.tar":
            tar.add(folder, ".")
            return archive
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            memory = io.BytesIO()
            with tarfile.open(fileobj=memory, mode="w", format=tarfile.GNU_FORMAT) as file:
                file.add(inner, ".")
            add(tar, f"{inner.name}.tar", memory.getvalue())
    return archive


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "images"
    for seed in range(40):
        write_image(root / "bd"[seed % 2] / ("deep " * 30) / f"{seed} ü.png", seed)
    write_image(root / "b" / os.fsdecode(b"\xff\n.png"), 50)
    (root / "b" / "bad.png").write_bytes(b"bad")
    (root / "b" / "notes.txt").write_bytes(b"")
    (root / "b" / ".hidden.png").write_bytes(b"")
    return root


ARCHIVES = ["plain.tar", "nested.tar", "packed.tar.gz", "deflated.zip", "stored.zip"]


@pytest.fixture(scope="module")
def archives(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("archives")
    methods = {"stored.zip": zipfile.ZIP_STORED}
    found = {}
    for name in ARCHIVES:
        # `zipfile` cannot write names that are not UTF-8.
        source = folder
        if name.endswith(".zip"):
            source = root / f"copy for {name}"
            for path in (path for path in folder.rglob("*") if path.is_file()):
                if path.name.isprintable():
                    target = source / path.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.hardlink_to(path)
        found[name] = pack(source, root / name, methods.get(name, zipfile.ZIP_DEFLATED))
        found[f"folder of {name}"] = source
    return found


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_the_data_set_of_its_folder(archives, tmp_path, name):
    one, two = tmp_path / "one", tmp_path / "two"
    convert_folder(archives[name], one, OPTIONS)
    convert_folder(archives[f"folder of {name}"], two, OPTIONS)
    assert verify_dataset(one) == []
    for path in two.iterdir():
        if path.suffix in (".tfrecord", ".tfindex", ".txt", ".jsonl"):
            assert (one / path.name).read_bytes() == path.read_bytes()
    assert read_manifest(one).totals == read_manifest(two).totals


@pytest.mark.parametrize("name", ["nested.tar", "deflated.zip"])
def test_members_are_found_by_place_and_by_path(archives, name):
    inventory = scan_images(archives[name], OPTIONS)
    assert len({entry.place for entry in inventory.entries}) == len(inventory.entries)
    for entry in inventory.entries:
        data = (archives[f"folder of {name}"] / to_system(entry.path)).read_bytes()
        assert read_entry(entry, archives[name]) == data
        assert read_source(entry.path, archives[name]) == data
    with pytest.raises(ImageError, match="vanished"):
        read_source("b/none.png", archives[name])


@pytest.mark.parametrize("name", ["nested.tar", "stored.zip"])
def test_it_is_updated_verified_and_repaired(archives, tmp_path, name):
    archive, out = tmp_path / name, tmp_path / "out"
    archive.write_bytes(archives[name].read_bytes())
    run_conversion(archive, out, OPTIONS, IN_MEMORY)
    assert verify(out, sources=archive) == []
    shard = read_manifest(out).shards[1]
    (out / shard.name).write_bytes(b"damaged")
    assert shard.name in repair(out, archive, IN_MEMORY).repaired
    more = tmp_path / "more" / "b" / "new.png"
    write_image(more, 77)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "a") as file:
            file.write(more, "b/new.png")
    else:
        with tarfile.open(archive, "a") as tar:
            tar.add(more, "b/new.png")
    conversion = run_conversion(archive, out, None, IN_MEMORY, mode="update")
    assert (conversion.update.added, conversion.update.changed, conversion.written) == (1, 0, 1)
    assert verify(out, sources=archive) == []


def test_a_table_can_be_of_an_archive(archives, tmp_path):
    rows = "path,label\nb/deep/none.png,x\n" + "".join(
        f"{entry.path},{entry.size_bytes % 2}\n"
        for entry in scan_images(archives["stored.zip"], OPTIONS).entries
    )
    (tmp_path / "t.csv").write_text(rows)
    root = os.path.relpath(archives["stored.zip"], tmp_path)
    options = dataclasses.replace(OPTIONS, table_root=root)
    convert_folder(tmp_path / "t.csv", tmp_path / "out", options)
    assert read_manifest(tmp_path / "out").totals.rejected == {"missing": 1, "not_an_image": 1}
    assert verify(tmp_path / "out", sources=tmp_path / "t.csv") == []


def test_names_links_and_devices_in_a_tar_are_not_believed(tmp_path):
    image = encode_image(make_image(1), "PNG")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "a/1.png", image)
        add(tar, "./a//2.png", image)
        add(tar, "../3.png", image)
        add(tar, "/etc/4.png", image)
        add(tar, "a/../../5.png", image)
        add(tar, "a/6.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "a/7.png", type=tarfile.LNKTYPE, linkname="a/1.png")
        add(tar, "a/8.png", type=tarfile.FIFOTYPE)
        add(tar, "a/9.png", type=tarfile.CHRTYPE)
        add(tar, "a/1.png", image + b"later")
        add(tar, "__MACOSX/a/._1.png", image)
        add(tar, "b", type=tarfile.DIRTYPE)
        add(tar, "a/inner.zip", image)
    inventory = scan_images(tmp_path / "t.tar", ConvertOptions(dedupe="off"))
    assert inventory.classes == ("a", "b")
    assert [(entry.path, entry.size_bytes) for entry in inventory.entries] == [
        ("a/1.png", len(image) + 5), ("a/2.png", len(image))
    ]  # fmt: skip
    assert {(skip.path, skip.code) for skip in inventory.skipped} == {
        ("../3.png", "skipped_outside"), ("etc/4.png", "skipped_outside"),
        ("a/../../5.png", "skipped_outside"), ("a/6.png", "skipped_link"),
        ("a/7.png", "skipped_link"), ("a/8.png", "skipped_special"), ("a/9.png", "skipped_special"),
        ("a/1.png", "skipped_repeated"), ("__MACOSX/a/._1.png", "skipped_hidden"),
        ("a/inner.zip", "skipped_extension"),
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["t.tar"]


def test_names_links_and_secrets_in_a_zip_are_not_believed(tmp_path):
    image = encode_image(make_image(1), "PNG")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as file:
        for name in ("a/1.png", "../2.png", "/3.png", "a/b/", "a/4.bz2.png"):
            method = zipfile.ZIP_BZIP2 if "bz2" in name else zipfile.ZIP_DEFLATED
            file.writestr(name, b"" if name.endswith("/") else image, method)
        link = zipfile.ZipInfo("a/5.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    data = bytearray((tmp_path / "t.zip").read_bytes())
    at = data.rfind(b"PK\1\2", 0, data.rfind(b"a/1.png"))
    skipped: list[Skipped] = []
    entries, folders = list_archive(tmp_path / "t.zip", skipped)
    assert [entry.path for entry in entries] == ["a/1.png"]
    assert folders == {"a": {"b"}}
    assert [(skip.path, skip.code) for skip in skipped] == [
        ("../2.png", "skipped_outside"), ("3.png", "skipped_outside"),
        ("a/4.bz2.png", "unreadable"), ("a/5.png", "skipped_link"),
    ]  # fmt: skip
    data[at + 8] |= 1  # encrypted
    (tmp_path / "t.zip").write_bytes(data)
    skipped.clear()
    assert list_archive(tmp_path / "t.zip", skipped)[0] == []
    assert Skipped("a/1.png", "unreadable", "encrypted") in skipped


@pytest.mark.parametrize("name", ["pipe.tar", "pipe.tar.gz", "pipe.zip"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} is no file"):
        scan_images(tmp_path / name, ConvertOptions())


def test_a_bomb_is_not_inflated(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.png", bytes(300_000_000))
    data = bytearray((tmp_path / "t.zip").read_bytes())
    (entry,), _ = list_archive(tmp_path / "t.zip", [])
    with pytest.raises(
        ImageError, match=r"^too_many_bytes: 300,000,000 bytes, at most 268,435,456$"
    ):
        read_source("a/1.png", tmp_path / "t.zip")
    with pytest.raises(
        ImageError, match=r"^too_many_bytes: 300,000,000 bytes, at most 299,999,999"
    ):
        read_source("a/1.png", tmp_path / "t.zip", 299_999_999)
    assert len(read_source("a/1.png", tmp_path / "t.zip", 300_000_000)) == entry.size_bytes
    # The same, that says of itself to be small.
    at = data.rfind(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<L", 1000)
    (tmp_path / "t.zip").write_bytes(data)
    (entry,), _ = list_archive(tmp_path / "t.zip", [])
    assert entry.size_bytes == 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"^decode_error: .* 1000 bytes"):
        start_member(tmp_path / "t.zip", entry.place, entry.size_bytes)()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_header_that_claims_a_name_of_gigabytes_is_refused(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8_000_000_000
    path = tmp_path / "t.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 9_000_000_000)  # a hole
    script = (
        "import re, sys\nfrom converter.storage.disk import DiskPath as Path\n"
        "from converter.sources.archives import list_archive\n"
        "from converter.errors import UsageError\n"
        "try: list_archive(Path(sys.argv[1]), [])\n"
        "except UsageError as error: print(error)\n"
        # ru_maxrss would be that of the process that started this one.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(int(peak[1]) < 200_000)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert "a header of 8,000,000,000 bytes, at most 1,048,576" in run.stdout
    assert run.stdout.endswith("True\n")


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_cut_of_an_archive_is_an_error_or_a_reject(archives, tmp_path, name):
    data = archives[name].read_bytes()
    path = tmp_path / name
    whole = [entry.path for entry in list_archive(archives[name], [])[0]]
    for size in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:size])
        try:
            entries, _ = list_archive(path, [])
        except UsageError as error:
            assert re.fullmatch(r"[^\n]*", str(error))  # noqa: PT017 (one line, whatever it says)
            continue
        assert not name.endswith(".zip"), size
        assert [entry.path for entry in entries] == whole  # cut behind them, or in an inner one
        if name.endswith("gz"):
            CURSOR.close()
        for entry in entries:
            assert len(read_entry(entry, path)) == entry.size_bytes


def change_header(tar: bytes, place: int, at: int, value: bytes) -> bytes:
    """A tar with another value in a header, and the right checksum for it."""
    header = bytearray(tar[place : place + 512])
    header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:place] + bytes(header) + tar[place + 512 :]


def test_a_damaged_header_does_not_pass_for_the_end_of_a_tar(tmp_path):
    path, names = tmp_path / "t.tar", ("a/1.png", "a/2.png", "a/3.png")
    with tarfile.open(path, "w") as tar:
        for name in names:
            add(tar, name, b"x" * 600)
    data, second = path.read_bytes(), 1536
    backward = b"\xff" + (-1024).to_bytes(11, "big", signed=True)
    for changed in (
        data[: second + 3] + b"!" + data[second + 4 :],
        data[:second],
        data[: second + 100],
        change_header(data, second, 124, backward),
        change_header(change_header(data, second, 124, backward), second, 156, b"Z"),
    ):
        path.write_bytes(changed)
        with pytest.raises(UsageError, match="read as an archive"):
            list_archive(path, [])
    path.write_bytes(data[: 3 * second + 512])  # one block of zeros will do
    assert [entry.path for entry in list_archive(path, [])[0]] == [*names]


def test_a_damaged_tar_in_a_tar_costs_no_other(tmp_path):
    inner = tmp_path / "inner.tar"
    with tarfile.open(inner, "w") as tar:
        add(tar, "1.png", b"one")
        add(tar, "2.png", b"two")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "cut.tar", inner.read_bytes()[:1024])
        add(tar, "none.tar", b"no tar" * 200)
        add(tar, "whole.tar", inner.read_bytes())
    skipped: list[Skipped] = []
    entries, _ = list_archive(tmp_path / "t.tar", skipped)
    assert [entry.path for entry in entries] == ["cut/1.png", "whole/1.png", "whole/2.png"]
    assert [(skip.path, skip.code) for skip in skipped] == [
        ("cut.tar", "unreadable"), ("none.tar", "unreadable"),
    ]  # fmt: skip
    assert skipped[0].detail.endswith("no header and no end at byte 1,536: damaged or cut off")


@pytest.mark.parametrize(
    ("size", "place", "numbers", "message"),
    [
        (2**32 - 1, 0, [], "a member of 9,223,372,036,854,775,808 bytes at byte 0: damaged"),
        (2**32 - 1, 0, [2**64 - 1], "a member of 18,446,744,073,709,551,615 bytes"),
        (3, 2**32 - 1, [2**64 - 1], "a member of 3 bytes at byte 18,446,744,073,709,551,615"),
    ],
)
def test_numbers_of_64_bits_in_a_zip_are_not_believed(tmp_path, size, place, numbers, message):
    extra = struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers)
    fields = (45, 45, 0, 0, 0, 0, 0, 3, size, 7, len(extra), 0, 0, 0, 0, place)
    member = struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + b"a/1.png" + extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(member), 0, 0)
    (tmp_path / "t.zip").write_bytes(member + end)
    with pytest.raises(UsageError, match=message):
        list_archive(tmp_path / "t.zip", [])


def test_a_zip_with_fewer_members_than_it_says_is_refused(archives, tmp_path):
    data = bytearray(archives["stored.zip"].read_bytes())
    data[-14:-10] = struct.pack("<2H", 999, 999)
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UsageError, match=r"999 are stated: t\.zip"):
        list_archive(tmp_path / "t.zip", [])


@pytest.mark.parametrize("name", ["plain.tar", "packed.tar.gz", "deflated.zip", "stored.zip"])
def test_flipped_bits_escape_as_nothing_but_our_errors(archives, tmp_path, name):
    import random

    data = archives[name].read_bytes()
    path, chance = tmp_path / name, random.Random(0)
    for _ in range(20):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            entries, _ = list_archive(path, [])
        except UsageError:
            continue
        for entry in entries[:50]:
            try:
                read_entry(entry, path)
            except ImageError as error:  # noqa: PERF203 (each may be one)
                assert error.code in ("changed", "decode_error", "too_large")  # noqa: PT017


def test_a_changed_zip_member_is_noticed(archives, tmp_path):
    path = tmp_path / "t.zip"
    data = bytearray(archives["stored.zip"].read_bytes())
    path.write_bytes(data)
    entries, _ = list_archive(path, [])
    data[entries[5].place + 30 + len(entries[5].path.encode()) + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"^decode_error: its checksum"):
        read_entry(entries[5], path)
    path.write_bytes(b"PK")
    with pytest.raises(ImageError, match="changed"):
        read_entry(entries[5], path)


def test_a_zip_whose_sizes_come_behind_the_data_is_read(tmp_path):
    image = encode_image(make_image(1), "PNG")
    with open(tmp_path / "t.zip", "wb") as raw:
        pipe = io.BufferedWriter(_Unseekable(raw))
        with zipfile.ZipFile(pipe, "w") as file:
            file.writestr("a/1.png", image, zipfile.ZIP_DEFLATED)
            file.writestr("a/2.png", image, zipfile.ZIP_STORED)
        pipe.flush()
    entries, _ = list_archive(tmp_path / "t.zip", [])
    assert [read_entry(entry, tmp_path / "t.zip") for entry in entries] == [image, image]


class _Unseekable(io.RawIOBase):
    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        return self._file.write(data)


def test_duplicates_in_a_zip_are_found_however_long_their_headers_are(tmp_path):
    content = bytes(range(256)) * 80
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for name, extra_bytes in (("one", 0), ("two", 5_000), ("three", 0)):
            info = zipfile.ZipInfo(f"cats/{name}.png")
            info.extra = struct.pack("<2H", 0x9999, extra_bytes) + bytes(extra_bytes)
            file.writestr(info, content)
    inventory = scan_images(tmp_path / "images.zip")
    assert [places.tolist() for places in inventory.duplicates] == [[0, 1, 2]]


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_what_is_compressed_as_a_whole_is_written_in_one_reading(
    folder, tmp_path, monkeypatch, suffix
):
    archive = tmp_path / f"t.{suffix}"
    with tarfile.open(archive, f"w:{suffix[-3:].strip('.').replace('tgz', 'gz')}") as tar:
        tar.add(folder, ".")
    opened, places = [], []
    read = Cursor.read
    for name, opener in OPENERS.items():
        monkeypatch.setitem(OPENERS, name, lambda path, o=opener: opened.append(path) or o(path))
    draft = propose(archive, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=archive, out=tmp_path / "out")
    CURSOR.close()
    monkeypatch.setattr(Cursor, "read", lambda *given: places.append(given[2]) or read(*given))
    opened.clear()
    receipts = write_together(plan.shards, Job.of_plan(plan))
    assert opened == [str(archive)]
    assert places == sorted(places)
    assert {receipt.name for receipt in receipts} == {shard.name for shard in plan.shards}
    CURSOR.close()
    convert_folder(folder, tmp_path / "other", OPTIONS)
    for shard in plan.shards:
        assert (tmp_path / "out" / shard.name).read_bytes() == (
            tmp_path / "other" / shard.name
        ).read_bytes()
    assert list(Layout(tmp_path / "out").scratch.iterdir()) == []


def test_a_compressed_archive_is_converted_verified_updated_and_repaired(archives, tmp_path):
    archive, out = archives["packed.tar.gz"], tmp_path / "out"
    conversion = run_conversion(archive, out, OPTIONS, IN_MEMORY)
    assert conversion.written == 4
    assert verify(out, sources=archive) == []
    assert run_conversion(archive, out, OPTIONS, IN_MEMORY).unchanged
    assert run_conversion(archive, out, None, IN_MEMORY, mode="update").unchanged
    shard = read_manifest(out).shards[1]
    (out / shard.name).write_bytes(b"damaged")
    assert shard.name in repair(out, archive, IN_MEMORY).repaired
    CURSOR.close()


def test_shards_are_dealt_out_by_weight():
    shards = [
        Shard(split="train", index=n, count=9, records=1, offset=0, size=1, source_bytes=n)
        for n in range(9)
    ]
    groups = deal_shards(shards, 2)
    assert [[shard.index for shard in group] for group in groups] == [[8, 6, 4, 2, 0], [7, 5, 3, 1]]
    assert len(deal_shards(shards[:1], 4)) == 1


def test_a_compressed_bomb_is_refused_by_its_first_header(tmp_path):
    info = tarfile.TarInfo("a/1.png")
    info.size = 1 << 40
    with gzip.open(tmp_path / "t.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UsageError, match=r"t\.tgz .* past"):
        scan_images(tmp_path / "t.tgz", OPTIONS)


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"t\.zip does not exist"):
        scan_images(tmp_path / "t.zip", OPTIONS)


def test_a_tar_without_classes_and_samples_says_what_is_in_it(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "1.png").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "notes.md", "notes.md")
        tar.add(tmp_path / "1.png", "1.png")
    with pytest.raises(UsageError, match=r"its members are '1\.png', 'notes\.md'"):
        scan_images(tmp_path / "a.tar")
