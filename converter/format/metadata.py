"""The files that let TensorFlow Datasets open the folder: `tfds.builder_from_directory(OUT)`.

`tensorflow_datasets/core/proto/dataset_info.proto` and `feature.proto` define them, in protobuf's
JSON, where an int64 is a string. TFDS refuses files with unknown keys, so we add none.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter.format import examples, schema
from converter.format.manifest import ImageInfo, ShardInfo
from converter.format.schema import Column
from converter.format.typed_json import dump_json
from converter.names import to_bytes
from converter.storage.files import LABELS

_INFO: Final = "dataset_info.json"
_FEATURES: Final = "features.json"

# The files where TFDS looks for the class names of these features.
_LABEL_FILES: Final = {
    name: f"{name.replace('/', '.')}.labels.txt"
    for name in (examples.LABEL, schema.LABELS, schema.BOX_LABELS)
}

METADATA: Final = (LABELS, *_LABEL_FILES.values(), _INFO, _FEATURES)
"""The names of these files; a data set need not have all of them."""

# What a model may predict: the first of these that a record has.
_TARGETS: Final = (schema.MASK, examples.LABEL, schema.LABELS, schema.TARGET)


def _feature(name: str, **content: Mapping[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": f"tensorflow_datasets.core.features.{name}", **content}


_TEXT: Final = _feature("text_feature.Text", text={})


def describe_dataset(
    image: ImageInfo,
    classes: Sequence[str],
    shards: Sequence[ShardInfo],
    columns: Sequence[Column] = (),
    *,
    labelled: bool = True,
) -> dict[str, bytes]:
    """The content of each metadata file, by file name; `classes` are in label order."""
    labels = to_bytes("".join(f"{label}\n" for label in classes))
    label = [Column(examples.LABEL, "label")] if labelled else []
    features = _describe_features(image, len(classes), [*label, *columns])
    named = [column.name for column in (*label, *columns) if column.kind in ("label", "labels")]
    return {
        **({LABELS: labels} if classes else {}),
        **{_LABEL_FILES[name]: labels for name in named},
        _INFO: dump_json(_describe_info(shards, features)),
        _FEATURES: dump_json(_feature("features_dict.FeaturesDict", featuresDict=features)),
    }


def _describe_info(
    shards: Sequence[ShardInfo], features: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    splits: dict[str, list[ShardInfo]] = {}
    for shard in shards:
        splits.setdefault(shard.split, []).append(shard)
    targets = [name for name in _TARGETS if name in features["features"]]
    supervised = [{"featureKey": name} for name in (examples.ENCODED, *targets[:1])]
    return {
        "name": "shardmill",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        **({"supervisedKeys": {"tuple": {"items": supervised}}} if targets else {}),
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


def _describe_features(
    image: ImageInfo, classes: int, columns: Sequence[Column]
) -> dict[str, dict[str, Any]]:
    texts = [
        examples.COLORSPACE, examples.FILENAME, examples.FORMAT, examples.SHA256, examples.SOURCE_ID
    ]  # fmt: skip
    numbers = (examples.CHANNELS, examples.HEIGHT, examples.WIDTH)
    features = {column.name: _describe_column(column, classes) for column in columns}
    features[examples.ENCODED] = _describe_image(image)
    if examples.LABEL in features:
        texts.append(examples.TEXT)
    if schema.MASK in features:
        texts += [examples.MASK_FORMAT, examples.MASK_SHA256]
        mask = dataclasses.replace(image, channels=1, formats={"png": 1})
        features[schema.MASK] = _describe_image(mask)
    features |= dict.fromkeys(texts, _TEXT) | dict.fromkeys(numbers, _describe_scalar("int64"))
    return {"features": dict(sorted(features.items()))}


def _describe_column(column: Column, classes: int) -> dict[str, Any]:
    label = _feature("class_label_feature.ClassLabel", classLabel={"numClasses": str(classes)})
    box = {"shape": {"dimensions": ["4"]}, "dtype": "float32", "bboxFormat": "REL_YXYX"}
    value = {
        "label": label,
        "labels": label,
        "boxes": _feature("bounding_boxes.BBoxFeature", boundingBox=box),
        "int": _describe_scalar("int64"),
        "float": _describe_scalar("float32"),
        "text": _TEXT,
        "mask": {},  # described as an image
    }
    if column.kind == "label" or column.is_scalar:
        return value[column.kind]
    inner = value[column.kind if column.kind in value else column.kind[:-1]]
    return _feature("sequence_feature.Sequence", sequence={"feature": inner, "length": "-1"})


def _describe_scalar(dtype: str) -> dict[str, Any]:
    return _feature("scalar.Scalar", tensor={"shape": {}, "dtype": dtype, "encoding": "none"})


def _describe_image(image: ImageInfo) -> dict[str, Any]:
    # TFDS gets bytes for WebP, which it decodes to four dimensions, as an animation, and then
    # refuses; and for raw images of several shapes, because it has no feature for them.
    if "webp" in image.formats or (image.is_raw and image.height is None):
        return _TEXT
    sides = [image.height or -1, image.width or -1, image.channels]
    shape = {"dimensions": [str(side) for side in sides]}
    if not image.is_raw:
        # No encodingFormat: TFDS then decodes by content, which may differ from image to image.
        return _feature("image_feature.Image", image={"dtype": "uint8", "shape": shape})
    tensor = {"shape": shape, "dtype": "uint8", "encoding": "bytes"}
    return _feature("tensor_feature.Tensor", tensor=tensor)
