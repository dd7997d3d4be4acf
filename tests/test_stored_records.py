"""Records in object stores as IMAGES: the same data set as from here, a request for each record."""

import dataclasses
import json
import uuid

import pytest
from conftest import convert_folder, encode_image, make_image, run_conversion, write_folder
from servers import upload_tree
from test_own_sets import SAME, TABLE, write_rows
from test_stored_sources import read_tree
from test_tfrecord_sets import make_features, write_file

from converter.errors import DatasetError, ImageError, UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import read_entries
from converter.sources.inputs import locate_masks
from converter.sources.originals import read_ahead
from converter.sources.scan import scan_images
from converter.storage.object_requests import put_object
from pipelines.jobs.upkeep import verify

IN_MEMORY = ["--direct_running_mode=in_memory"]
SMALL = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set of ours, one of TensorFlow Datasets in miniature, and records of anyone."""
    root = tmp_path_factory.mktemp("records")
    convert_folder(write_rows(root / "rows"), root / "far" / "old", TABLE)
    records = [make_features(n, filename=b"%d.png" % n) for n in range(10)]
    write_file(root / "far" / "anyone" / "train-00000-of-00001", records[:6])
    write_file(root / "far" / "anyone" / "test-00000-of-00001", records[6:])
    write_tfds(root / "far" / "tfds" / "1.0.0", records)
    return root / "far"


def write_tfds(folder, records):
    write_file(folder / "small-train.tfrecord-00000-of-00001", records)
    kinds = {"image_raw": {"image": {}}, "label": {"classLabel": {"numClasses": "3"}},
             "filename": {"text": {}}}  # fmt: skip
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": kinds}}))
    split = {"name": "train", "shardLengths": [str(len(records))]}
    (folder / "dataset_info.json").write_text(json.dumps({"name": "small", "splits": [split]}))


@pytest.fixture
def far(server, world):
    return upload_tree(world, server.path(f"records {uuid.uuid4().hex}"))


@pytest.fixture
def s3_far(s3_server, world):
    s3_server.set_faults()
    return upload_tree(world, s3_server.path(f"records {uuid.uuid4().hex}"))


@pytest.mark.parametrize("name", ["old", "anyone", "tfds", "tfds/1.0.0", "anyone/t*-00000-of-*"])
def test_records_give_the_data_set_that_they_give_here(far, world, tmp_path, name):
    there, here = far.join(name), world.join(name)
    assert scan_images(there) == scan_images(here)
    options = SAME if name == "old" else SMALL
    convert_folder(there, tmp_path / "far", options)
    convert_folder(here, tmp_path / "near", options)
    assert read_tree(tmp_path / "far") == read_tree(tmp_path / "near")
    assert verify(tmp_path / "far", sources=there) == []


@pytest.mark.parametrize("name", ["old", "anyone"])
def test_a_record_takes_one_request_and_its_mask_another(s3_server, s3_far, tmp_path, name):
    options = dataclasses.replace(SMALL, num_shards=1, split_folders="no")
    plan = write_folder(s3_far / name, tmp_path / "out", options)
    entries = [*read_entries(plan.out, plan.shards[0])]
    masks = locate_masks(plan.images, plan.options)
    s3_server.set_faults()
    read = [
        (reads.image(), reads.mask() if reads.mask else b"")
        for _, reads in read_ahead(entries, plan.images, masks, options.max_file_bytes)
    ]
    counts = s3_server.set_faults()
    assert counts["GET"] == len(entries) * (2 if name == "old" else 1)
    assert all(image for image, _ in read)


def test_a_scan_reads_each_shard_in_few_requests(s3_server, tmp_path):
    records = [make_features(n % 5, filename=b"%d.png" % n) for n in range(400)]
    write_file(tmp_path / "many.tfrecord", records)
    place = s3_server.path(f"{uuid.uuid4().hex}/many.tfrecord")
    put_object(place, (tmp_path / "many.tfrecord").read_bytes())
    s3_server.set_faults()
    assert len(scan_images(place, ConvertOptions(dedupe="off")).entries) == 400
    assert s3_server.set_faults()["GET"] < 30


@pytest.mark.parametrize("name", ["old", "anyone"])
def test_faults_on_the_way_change_no_byte(server, far, world, tmp_path, name):
    options = SAME if name == "old" else SMALL
    convert_folder(world / name, tmp_path / "expected", options)
    server.set_faults(errors=0.1, seed=3)
    convert_folder(far / name, tmp_path / "out", options)
    server.set_faults()
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "expected")


def test_a_data_set_in_a_store_is_updated_from_another(s3_far, world, tmp_path):
    run_conversion(s3_far / "old", s3_far / "new", SMALL, IN_MEMORY)
    write_rows(tmp_path / "rows", 14)
    convert_folder(tmp_path / "rows" / "rows.jsonl", tmp_path / "old", TABLE)
    for file in (tmp_path / "old").iterdir():
        put_object(s3_far / "old" / file.name, file.read_bytes())
    done = run_conversion(s3_far / "old", s3_far / "new", None, IN_MEMORY, mode="update")
    assert (done.update.added, done.update.changed, done.update.removed) == (2, 0, 0)
    assert verify(s3_far / "new", sources=s3_far / "old") == []
    assert read_manifest(s3_far / "new").totals.written == 14


def test_what_is_missing_in_a_store_is_one_line(s3_far):
    (s3_far / "old" / "train-00000-of-00002.tfindex").unlink()
    with pytest.raises(DatasetError, match="tfindex is gone"):
        scan_images(s3_far / "old")
    with pytest.raises(UsageError, match="does not exist"):
        scan_images(s3_far / "none.tfrecord", ConvertOptions(source="tfrecord"))


def test_files_that_change_meanwhile_are_rejects(s3_far, tmp_path):
    plan = write_folder(s3_far / "anyone", tmp_path / "out", SMALL)
    other = encode_image(make_image(99), "PNG")
    data = [make_features(n, image_raw=other) for n in range(6)]
    write_file(tmp_path / "x", data)
    put_object(s3_far / "anyone" / "train-00000-of-00001", (tmp_path / "x").read_bytes())
    entries = [entry for shard in plan.shards for entry in read_entries(plan.out, shard)]
    pending = read_ahead(entries, plan.images, plan.images, 1 << 20)
    outcomes = {read_outcome(reads.image) for _, reads in pending}
    assert "decode_error" in outcomes
    assert outcomes <= {"decode_error", "image"}


def read_outcome(read) -> str:
    try:
        return "image" if read() else "nothing"
    except ImageError as error:
        return error.code
