"""Tables, archives and masks in object stores: the same data set as from here, byte for byte."""

import dataclasses
import io
import json
import os
import shutil
import tarfile
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import (
    convert_folder,
    encode_image,
    limit_memory,
    make_image,
    read_tree,
    run_conversion,
    write_folder,
    write_image,
)
from servers import Server, upload_tree

from converter.commits.commit import list_finished
from converter.errors import ImageError, UsageError
from converter.options import ConvertOptions
from converter.planning.plan import read_entries, read_plan
from converter.sources import recognition
from converter.sources.archives import index_archive, list_archive, read_members
from converter.sources.inputs import locate_masks
from converter.sources.originals import read_ahead, read_entry, read_source
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.object_requests import put_object
from converter.storage.objects import ObjectPath
from pipelines import convert
from pipelines.cli.commands import main
from pipelines.jobs.upkeep import verify

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3, validation_split=0.25)
TABLE_OPTIONS = dataclasses.replace(OPTIONS, caption_column="inner", mask_column="mask")
INNER_OPTIONS = dataclasses.replace(OPTIONS, path_column="inner")
MASK_OPTIONS = dataclasses.replace(OPTIONS, label_from="none", mask_dir="../masks")
IN_MEMORY = ["--direct_running_mode=in_memory"]
ARCHIVES = [
    "photos.tar", "nested.tar", "photos.tar.gz", "photos.tar.xz", "photos.zip", "photos-stored.zip",
]  # fmt: skip
MASK_ARCHIVES = ["masks.tar", "masks.zip", "masks.tar.gz"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with their masks, archives and tables of them, as they are uploaded."""
    root = tmp_path_factory.mktemp("world")
    for seed in range(12):
        name = f"{'ant' if seed % 2 else 'bee é'}/deep #%/{seed} ü"
        write_image(root / "photos" / f"{name}.png", seed)
        write_mask(root / "masks" / f"{name}.png", seed)
    write_image(root / "photos" / "ant" / "twin.png", 3)
    write_mask(root / "masks" / "ant" / "twin.png", 3)
    (root / "photos" / "ant" / "bad.png").write_bytes(b"bad")
    (root / "photos" / "ant" / "letter.txt").write_bytes(b"text")
    (root / "photos" / "ant" / ".hidden.png").write_bytes(b"")
    write_archives(root)
    write_tables(root)
    return root


def write_mask(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(make_image(seed, mode="L"), "PNG"))


def pack(folder: Path, archive: Path) -> Path:
    if ".tar" in archive.name:
        kind = archive.suffix.removeprefix(".")
        with tarfile.open(archive, "w" if kind == "tar" else f"w:{kind}") as tar:
            tar.add(folder, ".")
        return archive
    method = zipfile.ZIP_STORED if "stored" in archive.name else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(archive, "w", method) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
    return archive


def write_archives(root: Path) -> None:
    for name in (*ARCHIVES, *MASK_ARCHIVES):
        if name != "nested.tar":
            pack(root / name.partition(".")[0].partition("-")[0], root / name)
    with tarfile.open(root / "nested.tar", "w") as tar:
        for folder in sorted((root / "photos").iterdir()):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as file:
                file.add(folder, ".")
            info = tarfile.TarInfo(f"{folder.name}.tar")
            info.size = len(inner.getvalue())
            tar.addfile(info, io.BytesIO(inner.getvalue()))


def write_tables(root: Path) -> None:
    names = sorted(
        path.relative_to(root / "photos").as_posix() for path in root.glob("photos/**/[0-9]*.png")
    )
    rows = [
        {"path": f"photos/{name}", "inner": name, "label": name[:3], "mask": f"masks/{name}"}
        for name in names
    ]
    for path in ("photos/ant/none.png", "photos/../x.png", "/etc/passwd", "s3://bucket/x.png"):
        rows.append({**rows[0], "path": path, "inner": path})
    rows.append({**rows[0], "path": "photos//./ant/twin.png", "inner": "./ant/twin.png"})
    rows.append({**rows[1], "path": "photos/ant/bad.png", "mask": "masks/none.png"})
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        text = "".join(f"{mark.join(line)}\n" for line in lines)
        (root / f"rows{suffix}").write_text(text, "utf-8")
    (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(pa.Table.from_pylist(rows), root / "rows.parquet")


@pytest.fixture(scope="module")
def place() -> Callable[[Server, Path], ObjectPath]:
    """Where the world lies in a store; it is uploaded once."""
    known: dict[str, ObjectPath] = {}

    def find(server: Server, world: Path) -> ObjectPath:
        if server.scheme not in known:
            known[server.scheme] = upload_tree(world, server.path(f"world {uuid.uuid4().hex}"))
        return known[server.scheme]

    return find


@pytest.fixture
def far(server: Server, world: Path, place: Callable[[Server, Path], ObjectPath]) -> ObjectPath:
    """The world in each kind of store."""
    return place(server, world)


@pytest.fixture
def s3_far(s3_server: Server, world: Path, place) -> ObjectPath:
    """The world in one kind of store."""
    s3_server.set_faults()
    return place(s3_server, world)


def check_alike(far: ObjectPath, near: Path, options: ConvertOptions, folder: Path) -> None:
    """Converts both, and compares every byte."""
    convert_folder(far, folder / "far", options)
    convert_folder(near, folder / "near", options)
    assert read_tree(folder / "far") == read_tree(folder / "near")
    assert verify(folder / "far", sources=far) == []


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_the_data_set_that_it_gives_here(far, world, tmp_path, name):
    assert scan_images(far / name, OPTIONS) == scan_images(world / name, OPTIONS)
    check_alike(far / name, world / name, OPTIONS, tmp_path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_a_table_gives_the_data_set_that_it_gives_here(far, world, tmp_path, name):
    inventory = scan_images(far / name, TABLE_OPTIONS)
    assert inventory == scan_images(world / name, TABLE_OPTIONS)
    codes = {skip.path: skip.code for skip in inventory.rejected}
    assert codes == {
        "photos/ant/none.png": "missing",
        "photos/ant/bad.png": "mask_missing",
        "photos/../x.png": "outside",
        "/etc/passwd": "outside",
        "s3://bucket/x.png": "outside",
    }
    check_alike(far / name, world / name, TABLE_OPTIONS, tmp_path)


@pytest.mark.parametrize("root", ["photos.tar", "photos.zip", "photos.tar.gz"])
def test_a_table_names_images_of_an_archive(s3_far, world, tmp_path, root):
    options = dataclasses.replace(INNER_OPTIONS, table_root=root)
    check_alike(s3_far / "rows.csv", world / "rows.csv", options, tmp_path)


def test_a_table_and_its_images_may_lie_apart(s3_far, world, tmp_path):
    expected = convert_tables(world / "rows.csv", "photos", tmp_path / "expected")
    assert convert_tables(world / "rows.csv", f"{s3_far}/photos", tmp_path / "one") == expected
    assert convert_tables(s3_far / "rows.csv", f"{world}/photos", tmp_path / "two") == expected


def convert_tables(table: Path | ObjectPath, root: str, out: Path) -> dict[str, bytes]:
    convert_folder(table, out, dataclasses.replace(INNER_OPTIONS, table_root=root))
    return {name: data for name, data in read_tree(out).items() if "tf" in name}


@pytest.mark.parametrize("masks", ["masks", "masks.tar", "masks.zip"])
def test_masks_lie_beside_the_images(far, world, tmp_path, masks):
    options = dataclasses.replace(MASK_OPTIONS, mask_dir=f"../{masks}")
    check_alike(far / "photos", world / "photos", options, tmp_path)


def test_masks_lie_beside_an_archive_of_images(s3_far, world, tmp_path):
    options = dataclasses.replace(MASK_OPTIONS, mask_dir="masks")
    check_alike(s3_far / "photos.zip", world / "photos.zip", options, tmp_path)
    check_alike(s3_far / "photos.tar.gz", world / "photos.tar.gz", options, tmp_path / "packed")


def test_masks_in_a_store_serve_images_here(s3_far, world, tmp_path):
    flags = ["--image-size=16x20", "--label-from=none", "--num-shards=2", "--no-progress"]
    shards = []
    for number, (images, masks) in enumerate(
        [
            (world / "photos", world / "masks"),
            (world / "photos", s3_far / "masks"),
            (s3_far / "photos", world / "masks"),
            (s3_far / "photos", s3_far / "masks"),
        ]
    ):
        out = tmp_path / str(number)
        flags = [*flags[:4], f"--mask-dir={masks}", *IN_MEMORY]
        assert main(["convert", str(images), str(out), *flags]) == 0
        assert verify(out, sources=images) == []
        shards.append({name: data for name, data in read_tree(out).items() if "tf" in name})
    assert shards[1:] == shards[:1] * 3
    manifest = json.loads((tmp_path / "3" / "manifest.json").read_bytes())
    assert manifest["options"]["mask_dir"] == "../masks"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("photos", {"mask_dir": "ant"}, "lie among the images"),
        ("photos", {"mask_dir": "../nowhere"}, "nowhere does not exist"),
        ("photos", {"mask_dir": "../masks.tar.gz"}, "is compressed as a whole"),
        ("photos", {"mask_dir": "../../../../x"}, "leads from .* out of the bucket"),
        ("rows.csv", {"table_root": "nowhere"}, "nowhere does not exist: its images are those"),
        ("nowhere.csv", {}, "nowhere.csv does not exist, or is not a file"),
        ("nowhere.zip", {}, "nowhere.zip does not exist: give an archive"),
        ("letter.zip", {}, "cannot be read as an archive: it has no list of members"),
        ("letter.tar", {}, "cannot be read as an archive"),
        ("letter.tar.gz", {}, "cannot be read as an archive"),
        ("letter.parquet", {}, "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(s3_far, name, options, message):
    put_object(s3_far / name, b"a letter") if name.startswith("letter") else None
    with pytest.raises(UsageError, match=message) as caught:
        scan_images(s3_far / name, ConvertOptions(**options))
    assert "\n" not in str(caught.value)


def test_a_prefix_that_is_called_like_an_archive_is_one(s3_server, world, tmp_path):
    prefix = upload_tree(world / "photos", s3_server.path(f"{uuid.uuid4().hex}.zip"))
    assert scan_images(prefix, OPTIONS) == scan_images(world / "photos", OPTIONS)


@pytest.mark.parametrize("name", ["photos.tar", "photos.zip", "photos.tar.gz", "rows.csv"])
def test_faults_on_the_way_change_no_byte(server, far, world, tmp_path, name):
    options = TABLE_OPTIONS if name == "rows.csv" else OPTIONS
    convert_folder(world / name, tmp_path / "near", options)
    server.set_faults(faults=0.3, kinds="refuse,reset,cut,short", seed=4)
    convert_folder(far / name, tmp_path / "far", options)
    counts = server.set_faults()
    assert any(counts[kind] for kind in ("refuse", "reset", "cut", "short"))
    assert read_tree(tmp_path / "far") == read_tree(tmp_path / "near")


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "rows.csv"])
def test_an_interrupted_conversion_goes_on(s3_server, s3_far, world, tmp_path, name):
    options = TABLE_OPTIONS if name == "rows.csv" else OPTIONS
    convert_folder(world / name, tmp_path / "near", options)
    out = s3_server.path(uuid.uuid4().hex)
    plan = write_folder(s3_far / name, out, options)
    lost = plan.shards[1]
    (out / lost.name).unlink()
    assert lost not in list_finished(read_plan(out))
    convert(s3_far / name, out, options, IN_MEMORY)
    assert verify(out, sources=s3_far / name) == []
    for path in (tmp_path / "near").iterdir():
        if path.is_file():
            assert (out / path.name).read_bytes() == path.read_bytes()


def test_a_data_set_here_is_updated_from_a_store(s3_server, world, tmp_path):
    far, out = upload_tree(world, s3_server.path(uuid.uuid4().hex)), tmp_path / "out"
    options = dataclasses.replace(OPTIONS, label_from="none", mask_dir="masks")
    convert(far / "photos.zip", out, options, IN_MEMORY)
    shutil.copytree(world / "photos", tmp_path / "photos")
    write_image(tmp_path / "photos" / "ant" / "new.png", 77)
    write_image(tmp_path / "photos" / "ant" / "twin.png", 78)
    put_object(far / "photos.zip", pack(tmp_path / "photos", tmp_path / "p.zip").read_bytes())
    put_object(far / "masks" / "ant" / "new.png", encode_image(make_image(7, mode="L"), "PNG"))
    other = "masks/bee é/deep #%/0 ü.png"
    put_object(far / other, encode_image(make_image(70, mode="L"), "PNG"))
    update = run_conversion(far / "photos.zip", out, options, IN_MEMORY, mode="update").update
    assert (update.added, update.changed, update.removed) == (1, 2, 0)
    assert verify(out, sources=far / "photos.zip") == []


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "rows.csv"])
def test_many_originals_are_asked_for_at_the_same_time(s3_server, s3_far, tmp_path, name):
    options = TABLE_OPTIONS if name == "rows.csv" else OPTIONS
    options = dataclasses.replace(options, num_shards=1, validation_split=0.0)
    plan = write_folder(s3_far / name, tmp_path / "out", options)
    entries = read_entries(plan.out, plan.shards[0])
    masks = locate_masks(plan.images, options)
    s3_server.set_faults(latency=0.2)
    begun = time.monotonic()
    read = [
        (reads.image(), reads.mask() if reads.mask else b"")
        for _, reads in read_ahead(entries, plan.images, masks, options.max_file_bytes)
    ]
    seconds = time.monotonic() - begun
    counts = s3_server.set_faults()
    requests = len(read) * (2 if name == "rows.csv" else 1)
    assert counts["GET"] == requests
    assert seconds < 0.5 * 0.2 * requests


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_that_is_replaced_is_noticed(s3_server, tmp_path, name):
    folder = tmp_path / "folder" / "a"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(os.urandom(300_000))
    pack(folder.parent, tmp_path / name)
    archive = s3_server.path(f"{uuid.uuid4().hex}/{name}")
    put_object(archive, (tmp_path / name).read_bytes())
    entries = sorted(list_archive(archive, [])[0], key=lambda entry: entry.place)
    # What lies behind is requested again, also where all of it is one stream that is on its way.
    read_entry(entries[-1], archive)
    put_object(archive, os.urandom(1 << 21))
    with pytest.raises(ImageError, match=r"^changed: the archive"):
        read_entry(entries[0], archive)
    archive.unlink()
    with pytest.raises(ImageError, match=r"vanished|changed"):
        read_entry(entries[0], archive)


def test_members_with_odd_headers_are_read_all_the_same(s3_server, tmp_path):
    data = encode_image(make_image(1), "PNG")
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        info = zipfile.ZipInfo("a/1.png")
        info.extra = b"\xff\xff" + (3000).to_bytes(2, "little") + bytes(3000)
        packed.writestr(info, data)
        packed.writestr("a/2.png", os.urandom(5000))
    archive = s3_server.path(f"{uuid.uuid4().hex}/odd.zip")
    put_object(archive, (tmp_path / "odd.zip").read_bytes())
    entries, _ = list_archive(archive, [])
    assert read_entry(entries[0], archive) == data == read_source("a/1.png", archive)


def test_a_zip_is_listed_by_the_list_at_its_end_alone(s3_server, tmp_path):
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_STORED) as packed:
        for number in range(300):
            packed.writestr(f"a/{number}.png", bytes(1 << 17))
    archive = s3_server.path(f"{uuid.uuid4().hex}/large.zip")
    with open(tmp_path / "large.zip", "rb") as file:
        put_object(archive, file)
    s3_server.set_faults()
    with limit_memory(4 << 20):
        members = index_archive(archive)
    assert len(members) == 300
    assert s3_server.set_faults()["GET"] <= 4


def test_a_tar_of_many_small_members_is_listed_in_few_requests(s3_server, tmp_path):
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for number in range(400):
            info = tarfile.TarInfo(f"a/{number}.png")
            info.size = 50_000
            tar.addfile(info, io.BytesIO(bytes(50_000)))
        info = tarfile.TarInfo("film.mp4")
        info.size = 60 << 20
        tar.addfile(info, io.BytesIO(bytes(60 << 20)))
        tar.addfile(tarfile.TarInfo("a/last.png"))
    archive = s3_server.path(f"{uuid.uuid4().hex}/many.tar")
    with open(tmp_path / "many.tar", "rb") as file:
        put_object(archive, file)
    s3_server.set_faults()
    members = list(read_members(archive))
    counts = s3_server.set_faults()
    assert [member.path for member in members][-2:] == ["film.mp4", "a/last.png"]
    assert counts["GET"] < 30


def test_more_names_side_by_side_than_can_be_looked_through_are_one_line(server, monkeypatch):
    images = server.path("flat")
    for seed in range(4):
        put_object(images / f"{seed}.png", encode_image(make_image(seed), "PNG"))
    monkeypatch.setattr(recognition, "_MAX_NAMES", 4)
    assert resolve_options(images, ConvertOptions(label_from="none")).source == "folders"
    monkeypatch.setattr(recognition, "_MAX_NAMES", 3)
    with pytest.raises(UsageError, match="over 3 names") as caught:
        resolve_options(images, ConvertOptions(label_from="none"))
    assert "--source" in str(caught.value)
    named = ConvertOptions(label_from="none", source="folders")
    assert resolve_options(images, named) == named
