"""Folders that TensorFlow Datasets wrote, compared element by element with what it reads itself."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, make_image
from PIL import Image

from converter.errors import DatasetError, UsageError
from converter.format import schema
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.upkeep.verification import verify_dataset
from pipelines.cli.commands import main
from reader import open_shards

tfds = pytest.importorskip("tensorflow_datasets", reason="there is none for Python 3.10")

# TFDS itself calls what protobuf has deprecated, and leaves a file to be closed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

COUNTS = {"train": 20, "test": 5}
KEPT = ("age", "good", "score", "vector", "tags")
OPTIONS = ConvertOptions(resize="none", encoding="keep", mask_column="mask", keep_columns=KEPT)


class Things(tfds.core.GeneratorBasedBuilder):
    """Pictures with all features that a conversion takes."""

    VERSION = tfds.core.Version("1.2.0")
    pkg_dir_path = Path(__file__).parent  # TFDS expects a builder to be in a package

    def _info(self):
        thing = tfds.features.ClassLabel(names=["wheel", "ant"])
        box = {"bbox": tfds.features.BBoxFeature(), "label": thing, "crowd": np.bool_}
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["zebra", "ant", "wild boar", "none"]),
            "caption": tfds.features.Text(), "image/filename": tfds.features.Text(),
            "age": np.int64, "good": np.bool_, "score": tfds.features.Scalar(np.float32),
            "vector": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "tags": tfds.features.Sequence(tfds.features.Text()),
            "objects": tfds.features.Sequence(box),
        }  # fmt: skip
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        del manager
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for n in range(COUNTS[split]):
            box = tfds.features.BBox(0.1, 0.25, 0.5, 0.75 + n / 100)
            yield n, {
                "image": np.asarray(make_image(n + len(split), 12 + n, 10)),
                "mask": np.full((12 + n, 10, 1), n % 3, np.uint8),
                "label": n % 3, "caption": f"Bild {n} ü",
                "image/filename": f"{split}/{n}.jpg", "age": n, "good": n % 2 == 0,
                "score": n / 3, "vector": [n, 0.5, -1], "tags": ["x"] * (n % 3),
                "objects": [{"bbox": box, "label": i, "crowd": False} for i in range(n % 3)],
            }  # fmt: skip


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    built = Things(data_dir=tmp_path_factory.mktemp("tfds"))
    config = tfds.download.DownloadConfig(num_shards=2, try_download_gcs=False)
    built.download_and_prepare(download_config=config)
    return built


@pytest.fixture
def folder(builder, tmp_path):
    return shutil.copytree(builder.data_path, tmp_path / "things" / "1.2.0")


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_every_element_is_what_tfds_reads(builder, tmp_path):
    folder = type(tmp_path)(builder.data_path)
    convert_folder(folder, tmp_path / "out", OPTIONS)
    assert verify_dataset(tmp_path / "out", originals=folder) == []
    shards = open_shards(tmp_path / "out")
    assert shards.class_names == ["zebra", "ant", "wild boar", "none", "wheel"]
    assert {name: split.records for name, split in shards.splits.items()} == COUNTS
    for split in COUNTS:
        records = {record.source_id: record for record in shards.source(split)}
        theirs = builder.as_dataset(split, shuffle_files=False).as_numpy_iterator()
        for example in theirs:
            record = records.pop(example["image/filename"].decode())
            np.testing.assert_array_equal(decode(record.encoded), example["image"], strict=True)
            mask = example["mask"][..., 0]
            np.testing.assert_array_equal(decode(record.mask), mask, strict=True)
            check_values(record, example, shards.class_names)
        assert not records


def check_values(record, example, names):
    labels = builder_names("objects", example)
    assert names[record.label] == ["zebra", "ant", "wild boar", "none"][example["label"]]
    values = record.values
    assert values[schema.CAPTION] == example["caption"].decode()
    np.testing.assert_allclose(
        np.reshape(values[schema.BOXES], (-1, 4)), example["objects"]["bbox"], rtol=1e-6
    )
    assert [names[label] for label in values[schema.BOX_LABELS]] == labels
    assert (values["age"], values["good"]) == (example["age"], example["good"])
    assert values["score"] == example["score"]
    np.testing.assert_array_equal(values["vector"], example["vector"])
    assert values["tags"] == [tag.decode() for tag in example["tags"]]


def builder_names(feature, example):
    return [["wheel", "ant"][label] for label in example[feature]["label"]]


def test_the_folder_may_be_one_or_two_above(folder, tmp_path):
    found = [scan_images(place) for place in (folder, folder.parent, tmp_path)]
    assert [inventory.classes for inventory in found] == [found[0].classes] * 3
    assert found[2].entries[0].file.startswith("things/1.2.0/things-")
    shutil.copytree(folder, folder.parent / "1.3.0")
    with pytest.raises(UsageError, match=r"several versions.*1\.2\.0, .*1\.3\.0"):
        scan_images(folder.parent)


def test_what_follows_from_the_features_is_implied(folder, tmp_path, capsys):
    implied = resolve_options(folder, ConvertOptions())
    assert (implied.source, implied.image_column, implied.label_column) == (
        "tfds", "image", "label",
    )  # fmt: skip
    assert (implied.boxes_column, implied.box_labels_column, implied.box_format) == (
        "objects/bbox", "objects/label", "yxyx",
    )  # fmt: skip
    assert resolve_options(folder, implied) == implied
    given = resolve_options(folder, ConvertOptions(label_column="age", box_format="xyxy"))
    assert given.label_column == "age"
    assert main(["plan", str(folder), str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "tfds, 4 files, image 'image', label 'label', caption 'caption', " in shown
    assert "; leaves out age, " in shown


def test_new_splits_are_drawn_on_request(folder):
    assert {entry.split for entry in scan_images(folder).entries} == {"train", "test"}
    drawn = scan_images(folder, ConvertOptions(split_folders="no"))
    assert {entry.split for entry in drawn.entries} == {""}


def test_our_own_folders_are_looked_for_first(folder, tmp_path):
    convert_folder(folder, tmp_path / "out", OPTIONS)
    assert resolve_options(tmp_path / "out", ConvertOptions()).source == "shardmill"
    as_tfds = resolve_options(tmp_path / "out", ConvertOptions(source="tfds"))
    assert (as_tfds.image_column, as_tfds.boxes_column) == ("image/encoded", schema.BOXES)
    shutil.rmtree(tmp_path / "out" / "x", ignore_errors=True)
    (tmp_path / "out" / "manifest.json").unlink()
    assert scan_images(tmp_path / "out").classes == read_classes(folder)


def read_classes(folder):
    return scan_images(folder).classes


def change_json(path: Path, change) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dataset_info.json", lambda c: c.update(fileFormat="array_record"), "array_record"),
        ("dataset_info.json", lambda c: c["splits"][0].update(name="extra"), "split 'extra'"),
        ("dataset_info.json", lambda c: c.pop("splits"), "is damaged"),
        ("dataset_info.json", lambda c: c.update(splits=7), "is damaged"),
        ("dataset_info.json", lambda c: c["splits"][0].update(shardLengths=["9"] * 2), "stated"),
        ("dataset_info.json", lambda c: c["splits"][0].update(shardLengths=["1"]), "is missing"),
        ("dataset_info.json", lambda c: c["splits"][0].update(shardLengths=["1"] * 100_001),
         "at most 100,000"),
        ("dataset_info.json", lambda c: c["splits"][0].update(filepathTemplate="../{SPLIT}"),
         "safe file name"),
        ("dataset_info.json", lambda c: c.update(name="/etc"), "safe file name"),
        ("features.json", lambda c: list(map(c["featuresDict"]["features"].pop, ("image", "mask"))),
         "--image-column"),
        ("features.json", lambda c: c["featuresDict"].pop("features"), "is damaged"),
        ("features.json", lambda c: c["featuresDict"]["features"].update(label=7), "is damaged"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(folder, name, change, message):
    change_json(folder / name, change)
    with pytest.raises((DatasetError, UsageError), match=message) as caught:
        scan_images(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"a": NaN}', b"[" * 100_000, b"\xff"])
def test_damaged_metadata_is_one_line(folder, content):
    (folder / "features.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"features\.json is damaged"):
        scan_images(folder)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_pipe_in_place_of_metadata_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DatasetError, match="is not a file"):
        scan_images(folder)


def test_features_that_are_nested_for_ever_are_refused(folder):
    deep = '{"sequence": {"feature": ' * 600 + "{}" + "}}" * 600
    (folder / "features.json").write_text(f'{{"featuresDict": {{"features": {{"a": {deep}}}}}}}')
    with pytest.raises((DatasetError, UsageError)):
        scan_images(folder)


def test_labels_without_names_are_numbers(folder):
    (folder / "label.labels.txt").unlink()
    assert scan_images(folder).classes == ("0", "1", "2", "3", "wheel", "ant")


def test_names_that_are_not_unique_give_way_to_places(builder, tmp_path):
    folder = shutil.copytree(builder.data_path, tmp_path / "data")
    change_json(
        folder / "features.json", lambda c: c["featuresDict"]["features"].pop("image/filename")
    )
    paths = [entry.path for entry in scan_images(folder).entries]
    assert paths[0] == "things-test.tfrecord-00000-of-00002/00000000"
    assert len({*paths}) == 25


def test_other_files_are_accounted_for(folder):
    (folder / "README.md").write_text("mine")
    assert [s.path for s in scan_images(folder).skipped] == ["README.md"]


def test_a_damaged_record_is_a_reject(folder, tmp_path):
    (file,) = folder.glob("*-test.tfrecord-00000-of-*")
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    convert_folder(folder, tmp_path / "out", ConvertOptions(image_size=8))
    totals = read_manifest(tmp_path / "out").totals
    assert (totals.written, totals.rejected) == (24, {"decode_error": 1})
