"""What is exported is what other libraries read: `datasets` of Hugging Face, and WebDataset."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import convert_folder, write_image
from exported import (
    COUNT,
    ENCODINGS,
    TABLE,
    bring_back,
    decode_pixels,
    describe_dataset,
    list_tree,
    make_folder,
    make_table,
    read_features,
)
from PIL import Image

from converter.errors import UsageError
from converter.format import examples, schema
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from pipelines import export

# Both libraries leave the closing of files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LABELS = {**TABLE, "label_column": None, "labels_column": "tags", "keep_columns": ("age", "height")}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("table"))


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Hugging Face's library, without a network, and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return library


def load_parquet(datasets: Any, folder: Path, split: str) -> Any:
    files = sorted(str(path) for path in folder.glob(f"{split}-*.parquet"))
    return datasets.load_dataset("parquet", data_files={split: files}, split=split)


def list_features(out: Path, split: str) -> list[dict[str, list]]:
    return [features for name, features in read_features(out) if name == split]


def get_pixels(image: Image.Image) -> bytes:
    """What `decode_pixels` gives of a record."""
    pixels = np.asarray(image)
    height, width, channels = (*pixels.shape, 1)[:3]
    return repr((height, width, channels)).encode() + pixels.tobytes()


@pytest.mark.parametrize("name", ENCODINGS)
def test_datasets_decodes_the_images_of_parquet(name, datasets, tmp_path):
    out = make_folder(tmp_path, **ENCODINGS[name])
    export(out, tmp_path / "export", kind="parquet", shard_bytes=8_000)
    for split in ("train", "validation"):
        loaded = load_parquet(datasets, tmp_path / "export", split)
        expected = list_features(out, split)
        assert loaded.features["label"].names == ["a cat", "dog"]
        assert isinstance(loaded.features["image"], datasets.Image)
        assert [row["label"] for row in loaded] == [row[examples.LABEL][0] for row in expected]
        assert [get_pixels(row["image"]) for row in loaded] == [*map(decode_pixels, expected)]


def test_parquet_has_all_columns_with_their_types(table, datasets, tmp_path):
    export(table, tmp_path / "export", kind="parquet")
    loaded, expected = (
        load_parquet(datasets, tmp_path / "export", "train"),
        list_features(table, "train"),
    )
    classes = read_manifest(table).classes
    assert loaded.features["box_labels"].feature.names == list(classes)
    assert loaded.features["target"].dtype == loaded.features["height"].dtype == "float32"
    assert (loaded.features["age"].dtype, loaded.features["caption"].dtype) == ("int64", "string")
    assert set(loaded.features) == {
        "image", "label_", "target", "caption", "boxes", "box_labels", "is_crowd", "weights",
        "mask", "age", "height", "name", "scores", "codes", "words", "file_name", "label",
    }  # fmt: skip
    for row, features in zip(loaded, expected, strict=True):
        assert [row["label_"]] == features[examples.LABEL]
        assert [row["caption"].encode()] == features[schema.CAPTION]
        assert [side for box in row["boxes"] for side in box] == features[schema.BOXES]
        assert all(len(box) == 4 for box in row["boxes"])
        assert row["box_labels"] == features[schema.BOX_LABELS]
        assert row["is_crowd"] == features["image/object/is_crowd"]
        assert [word.encode() for word in row["words"]] == features["words"]
        assert (row["codes"], row["scores"]) == (features["codes"], features["scores"])
        np.testing.assert_equal(row["height"], features["height"][0])
        mask = Image.open(io.BytesIO(features[schema.MASK][0]))
        np.testing.assert_array_equal(row["mask"], mask)


def test_parquet_has_several_labels(datasets, tmp_path):
    out = make_table(tmp_path, **LABELS)
    export(out, tmp_path / "export", kind="parquet")
    loaded = load_parquet(datasets, tmp_path / "export", "test")
    assert "label" not in loaded.features
    assert loaded.features["labels"].feature.names == list(read_manifest(out).classes)
    expected = [row[schema.LABELS] for row in list_features(out, "test")]
    assert [row["labels"] for row in loaded] == expected


def test_parquet_has_small_row_groups_and_no_absolute_paths(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for seed in range(230):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    options = ConvertOptions(image_size=(24, 32), encoding="png")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    export(tmp_path / "out", tmp_path / "export", kind="parquet")
    file = parquet.ParquetFile(tmp_path / "export" / "train-00000-of-00001.parquet")
    rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert rows == [100, 100, 30]
    paths = {cell["path"] for cell in file.read()["image"].to_pylist()}
    assert paths == {f"a/{seed}.png" for seed in range(230)}


def test_parquet_has_groups_of_few_large_images(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    from converter.exports import parquet_shards

    monkeypatch.setattr(parquet_shards, "_GROUP_BYTES", 5_000)
    out = make_folder(tmp_path, encoding="png")
    export(out, tmp_path / "export", kind="parquet", split="train")
    file = parquet.ParquetFile(tmp_path / "export" / "train-00000-of-00001.parquet")
    assert 2 < file.num_row_groups < file.metadata.num_rows


def test_without_pyarrow_it_says_what_to_install(table, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        export(table, tmp_path / "export", kind="parquet")
    assert not (tmp_path / "export").exists()


def load_tars(folder: Path, split: str, decode: str = "pil") -> list[dict[str, Any]]:
    wds = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
    return list(wds.WebDataset(tars, shardshuffle=False).decode(decode))


@pytest.mark.parametrize("name", ENCODINGS)
def test_webdataset_reads_the_images_of_tars(name, tmp_path):
    out = make_folder(tmp_path, **ENCODINGS[name])
    export(out, tmp_path / "export", kind="webdataset", shard_bytes=8_000)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[read_manifest(out).image.channels]
    for split in ("train", "validation"):
        samples, expected = load_tars(tmp_path / "export", split), list_features(out, split)
        suffix = {"jpeg": "jpg", "raw": "png"}
        for sample, features in zip(samples, expected, strict=True):
            form = features[examples.FORMAT][0].decode()
            path = features[examples.SOURCE_ID][0].decode()
            image = sample[suffix.get(form, form)].convert(mode)
            assert get_pixels(image) == decode_pixels(features)
            assert sample["cls"] == features[examples.LABEL][0]
            assert sample["json"]["label"] == features[examples.TEXT][0].decode()
            assert (sample["json"]["source_id"], sample["json"]["split"]) == (path, split)
            # 7.v1.PNG: the key of WebDataset ends at the first dot.
            assert sample["__key__"] == path.rpartition(".")[0].replace(".", "_")


def test_tars_have_all_columns(table, tmp_path):
    export(table, tmp_path / "export", kind="webdataset")
    samples, expected = load_tars(tmp_path / "export", "train"), list_features(table, "train")
    classes = read_manifest(table).classes
    for sample, features in zip(samples, expected, strict=True):
        row = sample["json"]
        assert [sample["txt"].encode()] == features[schema.CAPTION]
        assert row["caption"] == sample["txt"]
        assert [side for box in row["boxes"] for side in box] == features[schema.BOXES]
        assert row["box_labels"] == [classes[label] for label in features[schema.BOX_LABELS]]
        assert (row["age"], row["codes"]) == (features["age"][0], features["codes"])
        mask = np.asarray(sample["mask.png"].convert("L"))
        np.testing.assert_array_equal(mask, Image.open(io.BytesIO(features[schema.MASK][0])))


def test_tars_hold_nothing_of_this_machine(table, tmp_path):
    export(table, tmp_path / "export", kind="webdataset")
    with tarfile.open(tmp_path / "export" / "train-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname, member.isfile()) == ("", "", True)


def test_images_lie_in_the_order_of_their_records(table, tmp_path):
    export(table, tmp_path / "export", kind="webdataset", shard_bytes=3_000)
    paths = [sample["json"]["source_id"] for sample in load_tars(tmp_path / "export", "train")]
    expected = list_features(table, "train")
    assert paths == [features[examples.SOURCE_ID][0].decode() for features in expected]


def test_datasets_reads_tars_too(table, datasets, tmp_path):
    export(table, tmp_path / "export", kind="webdataset")
    files = [str(tmp_path / "export" / "train-000000.tar")]
    loaded = datasets.load_dataset("webdataset", data_files={"train": files}, split="train")
    assert len(loaded) == len(list_features(table, "train"))
    assert get_pixels(loaded[0]["png"]) == decode_pixels(list_features(table, "train")[0])


def test_imagefolder_reads_class_folders(datasets, tmp_path):
    out = make_folder(tmp_path, encoding="png")
    export(out, tmp_path / "export")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "export"))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: info.records for split, info in read_manifest(out).splits.items()
    }
    assert loaded["train"].features["label"].names == ["a cat", "dog"]
    found = sorted((row["label"], get_pixels(row["image"])) for row in loaded["train"])
    expected = list_features(out, "train")
    assert found == sorted((row[examples.LABEL][0], decode_pixels(row)) for row in expected)


def test_imagefolder_reads_the_tables(datasets, tmp_path):
    keep = {"keep_columns": ("age", "words")}
    out = make_table(tmp_path, **keep)
    export(out, tmp_path / "export")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "export"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 16, "test": 8}
    expected = {row["age"][0]: row for row in list_features(out, "test")}
    for row in loaded["test"]:
        features = expected.pop(row["age"])
        assert get_pixels(row["image"]) == decode_pixels(features)
        assert row["label"].encode() == features[examples.TEXT][0]
        assert row["caption"].encode() == features[schema.CAPTION][0]
        mask = Image.open(io.BytesIO(features[schema.MASK][0]))
        np.testing.assert_array_equal(np.asarray(row["mask"].convert("L")), mask)
    assert not expected


def test_the_tables_of_splits_say_what_the_one_for_all_says(table, tmp_path):
    export(table, tmp_path / "export")
    tree = list_tree(tmp_path / "export")
    rows = [json.loads(line) for line in tree["metadata.jsonl"].splitlines()]
    assert len(rows) == COUNT
    for split in ("train", "test"):
        own = [json.loads(line) for line in tree[f"{split}/metadata.jsonl"].splitlines()]
        for row in own:
            assert f"{split}/{row['file_name_']}" in tree
            row |= {name: f"{split}/{row[name]}" for name in ("file_name_", "mask_file_name")}
        assert own == [row for row in rows if row["split"] == split]


KINDS = ("webdataset", "parquet")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENCODINGS)
def test_what_is_exported_converts_to_the_same_pixels(kind, name, tmp_path):
    out = make_folder(tmp_path, **ENCODINGS[name])
    again = bring_back(out, tmp_path, kind=kind, shard_bytes=9_000)
    assert describe_dataset(again) == describe_dataset(out)
    assert read_manifest(again).classes == read_manifest(out).classes


@pytest.mark.parametrize("kind", KINDS)
def test_all_columns_come_back(kind, table, tmp_path):
    again = bring_back(table, tmp_path, kind=kind)
    assert describe_dataset(again) == describe_dataset(table)
    assert read_manifest(again).classes == read_manifest(table).classes


@pytest.mark.parametrize("kind", KINDS)
def test_several_labels_come_back(kind, tmp_path):
    out = make_table(tmp_path, **LABELS)
    again = bring_back(out, tmp_path, kind=kind)
    assert describe_dataset(again) == describe_dataset(out)
    assert not read_manifest(again).labelled


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_labels_come_back(kind, tmp_path):
    out = make_folder(tmp_path, label_from="none")
    again = bring_back(out, tmp_path, kind=kind)
    assert describe_dataset(again) == describe_dataset(out)
    assert not read_manifest(again).labelled


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_is_not_utf_8_is_lost_by_parquet_alone(kind, tmp_path):
    out = make_bytes(tmp_path)
    again = bring_back(out, tmp_path, kind=kind)
    found = [features[schema.CAPTION][0] for _, features in read_features(again)]
    assert found == [b"a\xff" if kind == "webdataset" else b"a\\xff"] * 4


def make_bytes(root: Path) -> Path:
    """A data set with captions that are not UTF-8."""
    with open(root / "table.jsonl", "w", encoding="ascii") as file:
        for seed in range(4):
            write_image(root / f"{seed}.png", seed)
            row = {"path": f"{seed}.png", "label": "ab"[seed % 2], "text": "a\udcff"}
            file.write(json.dumps(row) + "\n")
    options = ConvertOptions(image_size=(12, 16), caption_column="text")
    convert_folder(root / "table.jsonl", root / "out", options)
    return root / "out"
