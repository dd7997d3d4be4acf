"""The files that let TensorFlow Datasets open the folder: `tfds.builder_from_directory(OUT)`.

Written as `tensorflow_datasets/core/proto/dataset_info.proto` and `feature.proto` define them, in
protobuf's JSON, where an int64 is a string. TFDS refuses a file with a key that it does not know,
so nothing of our own is added here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter import examples
from converter.layout import LABELS
from converter.manifest import ImageInfo, ShardInfo, dump_json
from converter.names import to_bytes

METADATA: Final = (
    LABELS,
    f"{examples.LABEL.replace('/', '.')}.labels.txt",
    "dataset_info.json",
    "features.json",
)
"""The names of these files."""

_FEATURES = "tensorflow_datasets.core.features."


def describe_dataset(
    image: ImageInfo, classes: Sequence[str], shards: Sequence[ShardInfo]
) -> dict[str, bytes]:
    """The content of each metadata file, by file name.

    Args:
        image: what the stored images have in common.
        classes: names in label order.
        shards: of all splits, in order.
    """
    labels = to_bytes("".join(f"{label}\n" for label in classes))
    info = dump_json(_describe_info(shards))
    features = dump_json(_describe_features(image, len(classes)))
    return dict(zip(METADATA, (labels, labels, info, features), strict=True))


def _describe_info(shards: Sequence[ShardInfo]) -> dict[str, Any]:
    splits: dict[str, list[ShardInfo]] = {}
    for shard in shards:
        splits.setdefault(shard.split, []).append(shard)
    supervised = [{"featureKey": examples.ENCODED}, {"featureKey": examples.LABEL}]
    return {
        "name": "shardmill",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "supervisedKeys": {"tuple": {"items": supervised}},
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
                "shardLengths": [str(shard.records) for shard in members],
                "numBytes": str(sum(shard.bytes for shard in members)),
            }
            for split, members in splits.items()
        ],
    }


def _describe_features(image: ImageInfo, classes: int) -> dict[str, Any]:
    label = {"numClasses": str(classes)}
    features = {
        examples.ENCODED: _describe_image(image),
        examples.LABEL: _feature("class_label_feature.ClassLabel", classLabel=label),
    }
    for text in (
        examples.COLORSPACE,
        examples.FILENAME,
        examples.FORMAT,
        examples.SHA256,
        examples.SOURCE_ID,
        examples.TEXT,
    ):
        features[text] = _feature("text_feature.Text", text={})
    for number in (examples.CHANNELS, examples.HEIGHT, examples.WIDTH):
        features[number] = _feature(
            "scalar.Scalar", tensor={"shape": {}, "dtype": "int64", "encoding": "none"}
        )
    ordered = dict(sorted(features.items()))
    return _feature("features_dict.FeaturesDict", featuresDict={"features": ordered})


def _describe_image(image: ImageInfo) -> dict[str, Any]:
    sides = [image.height or -1, image.width or -1, image.channels]
    shape = {"dimensions": [str(side) for side in sides]}
    if "webp" in image.formats:
        # TFDS decodes WebP to four dimensions, as an animation, and then refuses the shape; so it
        # is given the encoded bytes.
        return _feature("text_feature.Text", text={})
    if "raw" not in image.formats:
        # No encodingFormat: TFDS then decodes by content, which may differ from image to image.
        return _feature("image_feature.Image", image={"dtype": "uint8", "shape": shape})
    if image.height is None:
        return _feature("text_feature.Text", text={})  # bytes: no feature of TFDS takes its shape
    tensor = {"shape": shape, "dtype": "uint8", "encoding": "bytes"}
    return _feature("tensor_feature.Tensor", tensor=tensor)


def _feature(name: str, **content: Mapping[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": _FEATURES + name, **content}
