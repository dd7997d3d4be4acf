"""The files for TensorFlow Datasets, as JSON."""

import json

import pytest

from converter.format.manifest import ImageInfo, ShardInfo
from converter.format.metadata import describe_dataset

SHARDS = [
    ShardInfo(
        name=f"{split}.tfrecord", split=split, records=records, bytes=100 * records, sha256="",
        index_bytes=10, index_sha256="", max_record_bytes=100,
    )
    for split, records in [("train", 4), ("train", 3), ("validation", 2)]
]  # fmt: skip
FEATURE = "tensorflow_datasets.core.features."
TEXT = {"pythonClassName": FEATURE + "text_feature.Text", "text": {}}
NUMBER = {
    "pythonClassName": FEATURE + "scalar.Scalar",
    "tensor": {"shape": {}, "dtype": "int64", "encoding": "none"},
}


def describe(*, fixed: bool = True, formats: tuple[str, ...] = ("png",)) -> dict[str, bytes]:
    side = 24 if fixed else None
    image = ImageInfo(
        height=side, width=side and 32, max_height=24, max_width=32, channels=3,
        formats=dict.fromkeys(formats, 1),
    )  # fmt: skip
    return describe_dataset(image, ("ant", "bee ü", "caf\udce9"), SHARDS)


def test_these_files_are_written():
    assert list(describe()) == [
        "labels.txt",
        "image.class.label.labels.txt",
        "dataset_info.json",
        "features.json",
    ]


def test_labels_are_lines_in_the_bytes_of_the_folders():
    files = describe()
    assert files["labels.txt"] == "ant\nbee ü\n".encode() + b"caf\xe9\n"
    assert files["image.class.label.labels.txt"] == files["labels.txt"]


def test_splits_list_the_records_of_their_shards():
    template = "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}"
    assert json.loads(describe()["dataset_info.json"]) == {
        "name": "shardmill",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "supervisedKeys": {
            "tuple": {
                "items": [{"featureKey": "image/encoded"}, {"featureKey": "image/class/label"}]
            }
        },
        "splits": [
            {
                "name": "train",
                "filepathTemplate": template,
                "shardLengths": ["4", "3"],
                "numBytes": "700",
            },
            {
                "name": "validation",
                "filepathTemplate": template,
                "shardLengths": ["2"],
                "numBytes": "200",
            },
        ],
    }


@pytest.mark.parametrize(
    ("fixed", "formats", "image"),
    [
        (
            True,
            ("png", "jpeg"),
            {
                "pythonClassName": FEATURE + "image_feature.Image",
                "image": {"dtype": "uint8", "shape": {"dimensions": ["24", "32", "3"]}},
            },
        ),
        (
            False,
            ("jpeg",),
            {
                "pythonClassName": FEATURE + "image_feature.Image",
                "image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}},
            },
        ),
        (
            True,
            ("raw",),
            {
                "pythonClassName": FEATURE + "tensor_feature.Tensor",
                "tensor": {
                    "dtype": "uint8",
                    "encoding": "bytes",
                    "shape": {"dimensions": ["24", "32", "3"]},
                },
            },
        ),
        (False, ("raw",), TEXT),
    ],
)
def test_features_describe_the_image_as_it_is_stored(fixed, formats, image):
    assert json.loads(describe(fixed=fixed, formats=formats)["features.json"]) == {
        "pythonClassName": FEATURE + "features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image/channels": NUMBER,
                "image/class/label": {
                    "pythonClassName": FEATURE + "class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "3"},
                },
                "image/class/text": TEXT,
                "image/colorspace": TEXT,
                "image/encoded": image,
                "image/filename": TEXT,
                "image/format": TEXT,
                "image/height": NUMBER,
                "image/key/sha256": TEXT,
                "image/source_id": TEXT,
                "image/width": NUMBER,
            }
        },
    }
