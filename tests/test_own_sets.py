"""A data set of our own as IMAGES: another size, encoding, sharding, split, without originals."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_image, run_conversion, write_image
from forging import forge as forge_set
from forging import make_payload

from converter.errors import DatasetError, ImageError, UsageError
from converter.format import examples, schema
from converter.format.manifest import FORMAT_VERSION, read_manifest
from converter.format.metadata import METADATA
from converter.images import openers
from converter.images.geometry import fit_image, move_box
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.sources.originals import hash_original, read_entry
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.files import REJECTS, hash_bytes, name_index
from converter.upkeep.verification import verify_dataset
from pipelines import convert
from pipelines.cli.commands import main
from pipelines.jobs.preview import propose
from pipelines.jobs.upkeep import repair, verify
from reader import open_shards

BOX = (0.25, 0.125, 0.75, 0.5)  # top, left, bottom, right
TABLE = ConvertOptions(
    image_size=(20, 28), encoding="png", num_shards=2, label_column="label",
    caption_column="text", target_column="price", boxes_column="boxes", box_format="yxyx",
    box_labels_column="things", mask_column="mask", split_column="split",
    keep_columns=("age", "zip", "scores", "tags", "height"),
)  # fmt: skip
SAME = ConvertOptions(image_size=(20, 28), encoding="png", num_shards=3)
IN_MEMORY = ["--direct_running_mode=in_memory"]


def write_rows(root: Path, count: int = 12) -> Path:
    rows = []
    for n in range(count):
        write_image(root / f"{'ab'[n % 2]}/{n} ü.png", n)
        mask = root / "masks" / f"{n}.png"
        mask.parent.mkdir(exist_ok=True)
        mask.write_bytes(encode_image(make_image(n, mode="L"), "PNG"))
        rows.append(
            {"path": f"{'ab'[n % 2]}/{n} ü.png", "label": "dcb"[n % 3], "text": f"Bild {n} ü",
             "price": n / 3, "boxes": [list(BOX)] * (n % 3), "things": ["d", "x"][: n % 3],
             "mask": f"masks/{n}.png", "split": ("train", "val")[n % 4 == 0], "age": n,
             "zip": f"0{n}", "scores": [n, 0.1], "tags": ["x"] * (n % 2), "height": float(n)}
        )  # fmt: skip
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "rows.jsonl"


@pytest.fixture(scope="module")
def table_set(tmp_path_factory):
    """A data set with everything that a record can hold; its originals are gone."""
    root = tmp_path_factory.mktemp("own")
    convert_folder(write_rows(root / "rows"), root / "old", TABLE)
    shutil.rmtree(root / "rows")
    return root / "old"


@pytest.fixture(scope="module")
def old(image_folder, tmp_path_factory):
    """`image_folder` at 40x40, with splits; its originals are elsewhere."""
    out = tmp_path_factory.mktemp("old") / "set"
    options = ConvertOptions(image_size=(40, 40), num_shards=2, validation_split=0.25)
    convert_folder(image_folder, out, options)
    return out


def read_features(folder: Path) -> dict[str, dict]:
    """The features of all records, by path, with their split."""
    shards, found = open_shards(folder), {}
    for split in shards.splits:
        for record in shards.source(split):
            found[record.source_id] = {"record": record, "split": split}
    return found


def read_payloads(folder: Path) -> set[bytes]:
    from converter.format.tfrecords import read_records

    payloads = set()
    for shard in read_manifest(folder).shards:
        with open(folder / shard.name, "rb") as file:
            payloads |= {payload for _, payload in read_records(file, shard.name, shard.bytes)}
    return payloads


def test_nothing_is_lost_where_nothing_changes(table_set, tmp_path, monkeypatch):
    monkeypatch.setattr(openers, "open_image", None)  # no image is opened
    convert_folder(table_set, tmp_path / "new", SAME)
    assert read_payloads(tmp_path / "new") == read_payloads(table_set)
    before, now = read_manifest(table_set), read_manifest(tmp_path / "new")
    assert (now.columns, now.classes, now.labelled) == (before.columns, before.classes, True)
    assert {n: s.labels for n, s in now.splits.items()} == {
        n: s.labels for n, s in before.splits.items()
    }
    assert (now.totals.written, now.totals.rejected, now.totals.skipped) == (12, {}, {})


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_boxes_and_masks_move_with_the_image_again(table_set, tmp_path, resize):
    options = ConvertOptions(image_size=(10, 10), resize=resize, encoding="raw")
    convert_folder(table_set, tmp_path / "new", options)
    before, now = read_features(table_set), read_features(tmp_path / "new")
    assert now.keys() == before.keys()
    geometry = fit_image((20, 28), options)
    for path, found in now.items():
        old_values, values = before[path]["record"].values, found["record"].values
        assert found["split"] == before[path]["split"]
        with openers.open_image(found["record"].mask, ("png",)) as mask:
            assert mask.size == (10, 10)
        moved = [
            move_box(b, (20, 28), geometry, in_fractions=True) for b in old_values[schema.BOXES]
        ]
        kept = [box for box in moved if box]
        np.testing.assert_allclose(values[schema.BOXES], kept, rtol=1e-6)
        for name in (schema.CAPTION, schema.TARGET, *TABLE.keep_columns):
            assert values[name] == old_values[name]
        assert found["record"].label == before[path]["record"].label


def test_the_kinds_of_columns_stay(table_set):
    kept = {column.name: column.kind for column in scan_images(table_set).columns}
    assert kept == {column.name: column.kind for column in read_manifest(table_set).columns}
    assert (kept["zip"], kept["height"], kept["tags"]) == ("text", "float", "texts")


def test_options_given_are_not_implied(table_set):
    implied = resolve_options(table_set, ConvertOptions())
    assert implied.source == "shardmill"
    assert (implied.label_column, implied.boxes_column) == (examples.TEXT, schema.BOXES)
    assert resolve_options(table_set, implied) == implied
    options = resolve_options(table_set, ConvertOptions(label_column="zip", keep_columns=("age",)))
    assert (options.label_column, options.keep_columns) == ("zip", ("age",))
    inventory = scan_images(table_set, options)
    assert "07" in inventory.classes
    assert len(inventory.entries) == 12


def test_splits_stay_and_new_ones_are_drawn_on_request(old, image_folder, tmp_path):
    kept = {path: found["split"] for path, found in read_features(old).items()}
    convert_folder(old, tmp_path / "kept", ConvertOptions(image_size=16, test_split=0.2))
    now = {path: found["split"] for path, found in read_features(tmp_path / "kept").items()}
    assert {p for p, s in kept.items() if s == "validation"} == {
        p for p, s in now.items() if s == "validation"
    }
    # Drawn by another seed, or none of `train` would be under a fraction that it has passed.
    assert 5 <= sum(split == "test" for split in now.values()) <= 18
    assert read_manifest(tmp_path / "kept").options["seed"] == 1
    options = ConvertOptions(image_size=16, split_folders="no", validation_split=0.25, seed=0)
    convert_folder(old, tmp_path / "drawn", options)
    again = {path: found["split"] for path, found in read_features(tmp_path / "drawn").items()}
    assert again == kept  # the same seed and the same paths: what the originals gave
    options = dataclasses.replace(options, seed=1)
    convert_folder(old, tmp_path / "other", options)
    assert {p: f["split"] for p, f in read_features(tmp_path / "other").items()} != kept
    with pytest.raises(UsageError, match="validation"):
        scan = ConvertOptions(image_size=16, validation_split=0.5)
        propose(old, resolve_options(old, scan), always_sample=False)


def test_classes_keep_their_order_and_can_be_chosen(table_set, tmp_path):
    assert scan_images(table_set).classes == ("b", "c", "d", "x")  # no image is an x
    chosen = ConvertOptions(image_size=16, class_names=("d", "x", "b"))
    inventory = scan_images(table_set, chosen)
    assert inventory.classes == ("d", "x", "b")
    assert {line.code for line in inventory.skipped} == {"skipped_no_label"}
    assert len(inventory.entries) + len(inventory.skipped) + len(inventory.rejected) == 12


def test_records_state_the_first_original(old, image_folder, tmp_path):
    convert_folder(old, tmp_path / "new", ConvertOptions(image_size=16, encoding="webp"))
    before, now = read_features(old), read_features(tmp_path / "new")
    assert {p: f["record"].sha256 for p, f in now.items()} == {
        p: f["record"].sha256 for p, f in before.items()
    }
    assert verify(tmp_path / "new", sources=old) == []
    assert verify(tmp_path / "new", sources=image_folder) == []
    assert json.loads((tmp_path / "new" / "notes.jsonl").read_bytes() or "null") is None


def test_originals_that_changed_since_are_found(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "images")
    convert_folder(tmp_path / "images", tmp_path / "old", ConvertOptions(image_size=20))
    convert_folder(tmp_path / "old", tmp_path / "new", ConvertOptions(image_size=16))
    write_image(tmp_path / "images" / "bee" / "bild 1 ü.JPG", 99)
    (fault,) = verify_dataset(tmp_path / "new", originals=tmp_path / "images")
    assert (fault.file, fault.original) == ("bee/bild 1 ü.JPG", True)


@pytest.mark.parametrize("mode", ["rgb", "grayscale", "rgba"])
@pytest.mark.parametrize("encoding", ["png", "raw", "keep"])
def test_raw_pixels_are_read(image_folder, tmp_path, mode, encoding):
    raw = ConvertOptions(image_size=(16, 20), encoding="raw", color_mode=mode)
    convert_folder(image_folder, tmp_path / "old", raw)
    options = dataclasses.replace(raw, encoding=encoding, num_shards=2)
    convert_folder(tmp_path / "old", tmp_path / "new", options)
    assert verify_dataset(tmp_path / "new", originals=tmp_path / "old") == []
    before, now = read_features(tmp_path / "old"), read_features(tmp_path / "new")
    for path, found in now.items():
        record = found["record"]
        assert record.format == ("png" if encoding == "png" else "raw")
        pixels = before[path]["record"].encoded
        if encoding == "png":
            with openers.open_image(record.encoded, ("png",)) as image:
                assert image.tobytes() == pixels
        else:
            assert record.encoded == pixels
    smaller = dataclasses.replace(raw, encoding=encoding, image_size=(8, 8))
    convert_folder(tmp_path / "old", tmp_path / "small", smaller)
    assert verify_dataset(tmp_path / "small") == []


def test_metadata_goes_unless_it_is_kept(tmp_path):
    for seed in range(4):
        write_image(tmp_path / "images" / "a" / f"{seed}.jpg", seed, "JPEG", comment=b"secret")
    keep = ConvertOptions(resize="none", encoding="keep")
    convert_folder(tmp_path / "images", tmp_path / "old", keep)
    convert_folder(tmp_path / "old", tmp_path / "kept", keep)
    convert_folder(tmp_path / "old", tmp_path / "clean", dataclasses.replace(keep, encoding="jpeg"))
    assert read_payloads(tmp_path / "kept") == read_payloads(tmp_path / "old")
    assert all(b"secret" in payload for payload in read_payloads(tmp_path / "kept"))
    assert not any(b"secret" in payload for payload in read_payloads(tmp_path / "clean"))


def test_how_much_of_an_original_is_real_stays_known(tmp_path):
    for seed in range(3):
        write_image(tmp_path / "images" / "a" / f"{seed}.jpg", seed, "JPEG", quality=99)
    cut = tmp_path / "images" / "a" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:-150])
    fill = ConvertOptions(image_size=(24, 32), truncated="fill")
    convert_folder(tmp_path / "images", tmp_path / "old", fill)
    before = read_features(tmp_path / "old")["a/1.jpg"]["record"].values
    assert 12 <= before[schema.DECODED_ROWS] < before[schema.ORIGINAL_ROWS] == 24
    for side in (8, 24):
        options = ConvertOptions(image_size=(side, 32))
        convert_folder(tmp_path / "old", tmp_path / str(side), options)
        assert read_features(tmp_path / str(side))["a/1.jpg"]["record"].values == before
    assert read_payloads(tmp_path / "24") == read_payloads(tmp_path / "old")


def test_images_over_a_limit_are_not_copied(old, tmp_path):
    options = ConvertOptions(image_size=(40, 40), min_side=41)
    inventory = scan_images(old, options)
    with pytest.raises(Exception, match="filtered_side"):
        convert_folder(old, tmp_path / "new", options)
    assert len(inventory.entries) == 72


def test_several_sizes_and_isolation_give_the_same(old, tmp_path):
    sizes = [f"--image-size={side}" for side in (40, 16)]
    flags = [*sizes, "--num-shards=2", "--no-progress", "--quiet", *IN_MEMORY]
    assert main(["convert", str(old), str(tmp_path / "both"), *flags]) == 0
    for side in (40, 16):
        options = ConvertOptions(image_size=(side, side), num_shards=2)
        convert_folder(old, tmp_path / str(side), options)
        both = tmp_path / "both" / f"{side}x{side}"
        assert read_payloads(both) == read_payloads(tmp_path / str(side))
        assert (both / "manifest.json").read_bytes() == (
            tmp_path / str(side) / "manifest.json"
        ).read_bytes()
    options = ConvertOptions(image_size=(16, 16), num_shards=2, isolate=True)
    convert_folder(old, tmp_path / "isolated", options)
    assert read_payloads(tmp_path / "isolated") == read_payloads(tmp_path / "16")


def test_an_update_follows_the_other_data_set(image_folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(image_folder, images)
    base = ConvertOptions(image_size=24, num_shards=3)
    convert(images, tmp_path / "old", base, IN_MEMORY)
    convert(tmp_path / "old", tmp_path / "new", ConvertOptions(image_size=16), IN_MEMORY)
    write_image(images / "ant" / "more.png", 101)
    write_image(images / "bee" / "bild 1 ü.JPG", 102, "JPEG")
    (images / "ant" / "bild 3 ü.JPG").unlink()
    convert(images, tmp_path / "old", None, IN_MEMORY, mode="update")
    done = run_conversion(tmp_path / "old", tmp_path / "new", None, IN_MEMORY, mode="update")
    assert (done.update.added, done.update.changed, done.update.removed) == (1, 1, 1)
    assert verify(tmp_path / "new", sources=tmp_path / "old") == []
    assert verify(tmp_path / "new", sources=images) == []
    again = run_conversion(tmp_path / "old", tmp_path / "new", None, IN_MEMORY, mode="update")
    assert again.unchanged


def test_columns_do_not_count_as_changes_in_an_update(table_set, tmp_path):
    flags = [str(table_set), str(tmp_path / "new"), "--no-progress", "--quiet", *IN_MEMORY]
    assert main(["convert", *flags, "--image-size=16"]) == 0
    assert run_conversion(table_set, tmp_path / "new", None, IN_MEMORY, mode="update").unchanged


def test_a_lost_shard_is_rebuilt_from_the_other_data_set(table_set, tmp_path):
    convert(table_set, tmp_path / "new", ConvertOptions(image_size=16, num_shards=2), IN_MEMORY)
    shards = read_manifest(tmp_path / "new").shards
    (tmp_path / "new" / shards[0].name).unlink()
    (tmp_path / "new" / name_index(shards[1].name)).write_bytes(b"0 1\n")
    result = repair(tmp_path / "new", table_set, IN_MEMORY)
    assert (result.left, result.unknown) == ((), ())
    assert verify(tmp_path / "new") == []


def test_an_interrupted_run_goes_on(old, tmp_path):
    options = resolve_options(old, ConvertOptions(image_size=(16, 16), num_shards=2))
    draft = propose(old, options, always_sample=False).draft
    plan = write_plan(draft, options, images=old, out=tmp_path / "new")
    convert(old, tmp_path / "new", options, IN_MEMORY)
    assert read_manifest(tmp_path / "new").plan == plan.digest
    convert_folder(old, tmp_path / "alone", options)
    assert (tmp_path / "alone" / "manifest.json").read_bytes() == (
        tmp_path / "new" / "manifest.json"
    ).read_bytes()


def test_equal_images_are_noted_and_frames_are_not(tmp_path):
    images = tmp_path / "images" / "a"
    for seed in (1, 2, 3):
        write_image(images / f"{seed}.png", seed)
    write_image(images / "twin.png", 1)
    frames = [make_image(seed) for seed in (5, 6)]
    data = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    (images / "two.gif").write_bytes(data)
    options = ConvertOptions(image_size=16, encoding="raw", frames="all")
    convert_folder(tmp_path / "images", tmp_path / "old", options)
    inventory = scan_images(tmp_path / "old", ConvertOptions(dedupe="drop"))
    assert [line.path for line in inventory.skipped] == ["a/twin.png"]
    assert "a/two.gif#1" in {entry.path for entry in inventory.entries}
    with pytest.raises(UsageError, match="frames all"):
        scan_images(tmp_path / "old", ConvertOptions(frames="all"))


def copy_set(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_damaged_record_is_a_reject(old, tmp_path):
    damaged = copy_set(old, tmp_path / "old")
    shard = read_manifest(damaged).shards[0]
    data = bytearray((damaged / shard.name).read_bytes())
    lines = (damaged / name_index(shard.name)).read_text().splitlines()
    bounds = [int(line.split()[0]) for line in lines]
    data[bounds[3] + 600] ^= 1  # within an image
    data[bounds[5] + 2] ^= 1  # a length
    data[bounds[7] + 14] ^= 0xFF  # the features
    (damaged / shard.name).write_bytes(data)
    convert_folder(damaged, tmp_path / "new", ConvertOptions(image_size=16))
    totals = read_manifest(tmp_path / "new").totals
    assert (totals.scanned, totals.written, totals.rejected) == (72, 69, {"decode_error": 3})
    lines = (tmp_path / "new" / REJECTS).read_text().splitlines()
    details = [json.loads(line)["detail"] for line in lines]
    for number in (3, 5, 7):
        assert any(shard.name in line and f"byte {bounds[number]}:" in line for line in details)


def forge(folder: Path, name: str, change) -> Path:
    path = folder / name
    data = change(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("train-00000-of-00002.tfindex", lambda _: None, DatasetError, "tfindex is gone"),
        ("train-00000-of-00002.tfindex", lambda d: d.replace(b"0", b"1", 1), DatasetError,
         "tfindex is damaged"),
        ("train-00001-of-00002.tfrecord", lambda _: None, DatasetError, "tfrecord is gone"),
        ("train-00001-of-00002.tfrecord", lambda d: d[:-1], DatasetError, "bytes, stated are"),
        ("manifest.json", lambda d: d.replace(b'"1.0"', b'"9.0"'), DatasetError, "version 9.0"),
        ("manifest.json", lambda d: d[:-9], DatasetError, "is damaged"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_said_in_one_line(old, tmp_path, name, change, error, message):
    assert FORMAT_VERSION == (1, 0)
    damaged = forge(copy_set(old, tmp_path / "old"), name, change)
    with pytest.raises(error, match=message) as caught:
        scan_images(damaged)
    assert "\n" not in str(caught.value)


def test_an_unfinished_or_ambiguous_data_set_is_refused(old, image_folder, tmp_path):
    options = ConvertOptions(image_size=16)
    draft = propose(image_folder, options, always_sample=False).draft
    write_plan(draft, options, images=image_folder, out=tmp_path / "half")
    with pytest.raises(UsageError, match="unfinished conversion"):
        scan_images(tmp_path / "half")
    for size in ("16x16", "40x40"):
        copy_set(old, tmp_path / "sizes" / size)
    with pytest.raises(UsageError, match=r"several sizes.*sizes/16x16, .*sizes/40x40"):
        scan_images(tmp_path / "sizes")
    with pytest.raises(DatasetError, match="no finished data set"):
        scan_images(image_folder, ConvertOptions(source="shardmill"))


@pytest.mark.parametrize("out", ["old", "old/new", "."])
def test_neither_may_lie_in_the_other(old, tmp_path, out, capsys):
    copy_set(old, tmp_path / "old")
    flags = ["--image-size=16", "--quiet", *IN_MEMORY]
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / out), *flags]) == 2
    assert "lie" in capsys.readouterr().err


def test_class_folders_are_not_taken_for_a_data_set(tmp_path):
    for name in ("16x16", "train-00000-of-00001.tfrecord", "manifest.json"):
        write_image(tmp_path / "images" / name / "1.png", 1)
    inventory = scan_images(tmp_path / "images", ConvertOptions(source="folders"))
    assert len(inventory.classes) == 3
    shutil.rmtree(tmp_path / "images" / "manifest.json")
    assert len(scan_images(tmp_path / "images").classes) == 2


def test_other_files_are_accounted_for(old, tmp_path):
    place = copy_set(old, tmp_path / "old")
    (place / "README.md").write_text("mine")
    (place / ".hidden").write_text("mine")
    inventory = scan_images(place)
    assert [(s.path, s.code) for s in inventory.skipped] == [
        (".hidden", "skipped_hidden"), ("README.md", "skipped_extension"),
    ]  # fmt: skip
    assert inventory.scanned == 74
    assert {*METADATA} - {"image.class.labels.labels.txt"}  # which are no strangers


def test_plan_says_what_was_found(old, tmp_path, capsys):
    assert main(["plan", str(old), str(tmp_path / "new"), "--image-size=16"]) == 0
    assert "source: shardmill, 3 shards, train 5" in capsys.readouterr().out


def test_a_record_that_was_replaced_is_not_taken_for_another(old, tmp_path):
    place = copy_set(old, tmp_path / "old")
    one, other = scan_images(place).entries[:2]
    mixed = other._replace(path=one.path)
    assert hash_original(one, place, 1 << 20) == read_features(old)[one.path]["record"].sha256
    assert hash_original(one, place, 1 << 20) != hash_bytes(read_entry(one, place))
    with pytest.raises(ImageError) as caught:
        read_entry(mixed, place)
    assert caught.value.code == "changed"


def test_several_data_sets_become_one(old, table_set, tmp_path):
    other = tmp_path / "other"
    convert_folder(old, other, ConvertOptions(image_size=20, encoding="raw"))
    convert([old, other], tmp_path / "new", ConvertOptions(image_size=(40, 40)), IN_MEMORY)
    manifest = read_manifest(tmp_path / "new")
    assert (manifest.totals.written, manifest.classes) == (144, ("ant", "bee", "cat with hat"))
    assert verify(tmp_path / "new", sources=[old, other]) == []
    with pytest.raises(UsageError, match="mask column differs"):
        convert([old, table_set], tmp_path / "mixed", ConvertOptions(image_size=20), IN_MEMORY)


def test_a_list_that_is_too_large_is_a_reject(tmp_path):
    rows = []
    for n, count in enumerate((3, 300_000)):
        write_image(tmp_path / f"rows/{n}.png", n)
        rows.append(json.dumps({"path": f"{n}.png", "scores": [0.5] * count}) + "\n")
    (tmp_path / "rows/rows.jsonl").write_text("".join(rows))
    options = ConvertOptions(image_size=8, keep_columns=("scores",))
    convert_folder(tmp_path / "rows/rows.jsonl", tmp_path / "old", options)
    found = scan_images(tmp_path / "old")
    assert [entry.path for entry in found.entries] == ["0.png"]
    ((code, detail),) = [(skip.code, skip.detail) for skip in found.rejected]
    assert code == "decode_error"
    assert "scores has more than 1,048,576 bytes" in detail


PNG = encode_image(make_image(1), "PNG")
SHA256 = hash_bytes(PNG).encode()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"height": 2**40}, None), ({"height": -1}, "decode_error"),
        ({"source_id": b"../../etc/passwd"}, "outside"), ({"source_id": b"/etc/passwd"}, "outside"),
        ({"source_id": b""}, "decode_error"), ({"source_id": [b"a", b"b"]}, "decode_error"),
        ({"encoded": b"x"}, "not_an_image"),
        ({"class_label": 2}, "decode_error"), ({"class_label": -1}, "decode_error"),
        ({"class_label": 0.5}, "decode_error"), ({"format": b"raw"}, "decode_error"),
        ({"format": 7}, "decode_error"), ({"key/sha256": b"zz"}, "decode_error"),
        ({"format": b"exe"}, None), ({"key/sha256": b"0" * 64}, None), ({"width": 7}, None),
    ],
)  # fmt: skip
def test_forged_records_are_typed_rejects_or_images(tmp_path, changes, code):
    encoded = changes.get("encoded", PNG)
    others = {name: value for name, value in changes.items() if name != "encoded"}
    payloads = [make_payload(PNG, 1), make_payload(encoded, 0, **{"key/sha256": SHA256, **others})]
    forge_set(tmp_path / "old", {"train-00000-of-00001": payloads})
    options = ConvertOptions(image_size=(8, 8), dedupe="off", encoding="png")
    convert_folder(tmp_path / "old", tmp_path / "new", options)
    totals = read_manifest(tmp_path / "new").totals
    assert (totals.scanned, totals.written) == (2, 1 + (code is None))
    # What a header claims is read from the image itself where it has to be made again.
    assert totals.rejected == (
        {} if code is None else {code.replace("implausible", "decode_error"): 1}
    )
    assert verify_dataset(tmp_path / "new") == []
