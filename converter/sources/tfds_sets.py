"""A data set that TensorFlow Datasets prepared: its folder says what its features are.

`features.json` and `dataset_info.json` are those of `converter.format.metadata`; classes lie in
`FEATURE.labels.txt`, where `/` is `.` and the names of nested features are joined by `-`. On the
disk nested features are flat: `objects/bbox` holds the sides of all boxes, one after another.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import DatasetError, UsageError
from converter.format.typed_json import load_json
from converter.inventory import Skipped
from converter.names import from_bytes
from converter.options import ConvertOptions
from converter.sizes import format_count
from converter.sources.column_notes import describe_columns, list_used
from converter.sources.example_rows import ExampleLayout, ExampleRows, RecordFile
from converter.sources.folders import leave_other
from converter.sources.inputs import is_folder, leave_given
from converter.sources.row_sources import RowSource
from converter.sources.split_names import SPLIT_FOLDERS
from converter.storage.files import COMPANIONS
from converter.storage.location import Location

_INFO, _FEATURES = METADATA = "dataset_info.json", "features.json"
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")
_SAFE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_DOWNLOADS: Final = "downloads"  # which TFDS puts beside the data sets
_TEMPLATE: Final = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MAX_BYTES: Final = 1 << 24  # of a file of metadata
_MAX_FEATURES: Final = 4_096
_MAX_SHARDS: Final = 100_000
_PATHS: Final = ("image/filename", "filename", "file_name", "image/source_id")

# The key of a feature's content in `features.json`, and what it is.
_KINDS: Final = {
    "image": "image", "classLabel": "label", "boundingBox": "box", "text": "text",
    "tensor": "tensor",
}  # fmt: skip


class _Feature(NamedTuple):
    """A feature as it lies on the disk."""

    kind: str  # one of `_KINDS`, or `other`
    plural: bool  # any number of it in a record
    file: str  # how the name of the file with its classes begins
    classes: int


class _Dataset(NamedTuple):
    """The folder of one version, and what its files of metadata say."""

    folder: Location
    prefix: str  # of paths from IMAGES to it, with a slash; empty if IMAGES is that folder
    info: Mapping[str, Any]
    features: Mapping[str, _Feature]

    def choose(self, kind: str, *, plural: bool = False, names: Sequence[str] = ()) -> str | None:
        """The feature of a kind with the first of these names, or the only one of its kind."""
        found = [n for n, f in self.features.items() if (f.kind, f.plural) == (kind, plural)]
        named = next((name for name in names if name in found), None)
        return named or (found[0] if len(found) == 1 else None)


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether a folder is that of a version, or one or two above it."""
    return any(True for _ in _find_versions(images, names))


def imply_options(images: Location, options: ConvertOptions) -> Mapping[str, Any]:
    """The options that name the features of the image, its label, its caption and its boxes."""
    found = _read_dataset(images)
    implied: dict[str, Any] = {"image_column": _choose_image(images, found, options)}
    if not options.names_labels:
        implied["label_column"] = found.choose("label", names=("label",))
        if implied["label_column"] is None:
            many = [n for n, f in found.features.items() if f.kind == "label" and "/" not in n]
            implied["labels_column"] = many[0] if len(many) == 1 else None
    captions = ("caption", "captions", "text")
    caption = found.choose("text", names=captions)
    implied["caption_column"] = caption if caption in captions else None
    boxes = found.choose("box", plural=True, names=("objects/bbox",))
    if boxes and options.boxes_column in (None, boxes):
        implied |= {"boxes_column": boxes, "box_format": "yxyx"}
        label = f"{boxes.rpartition('/')[0]}/label"
        implied["box_labels_column"] = label if label in found.features else None
    return leave_given({name: value for name, value in implied.items() if value}, options)


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens a folder; raises a UsageError if it holds no images, or no TFRecords.

    Raises a DatasetError if a file is missing, damaged, or has another number of records.
    """
    found = _read_dataset(images)
    files = tuple(_list_files(found, options))
    layout = ExampleLayout(
        files=files,
        image=_choose_image(images, found, options),
        names={
            name: _read_classes(found, feature)
            for name, feature in found.features.items()
            if feature.kind == "label"
        },
        path=next((name for name in _PATHS if name in found.features), None),
    )
    return ExampleRows(images, layout, options).make_source(
        images,
        skipped=tuple(_list_strangers(found, files)),
        recognized=_describe(found, layout, options),
    )


def _find_versions(images: Location, names: Sequence[str]) -> Iterator[tuple[Location, str]]:
    """The folders of versions: IMAGES, or those in it, or those in its only folder."""
    if {*METADATA} <= {*names}:
        yield images, ""
        return
    shown = [name for name in names if name != _DOWNLOADS and not name.startswith(".")]
    inner = images
    prefix = ""
    if len(shown) == 1 and not _VERSION.fullmatch(shown[0]) and is_folder(images / shown[0]):
        inner, prefix = images / shown[0], f"{shown[0]}/"
        shown = [name for name in inner.list_names() if not name.startswith(".")]
    for name in shown if all(map(_VERSION.fullmatch, shown)) else ():
        if (inner / name / _FEATURES).is_file() and (inner / name / _INFO).is_file():
            yield inner / name, f"{prefix}{name}/"


def _read_dataset(images: Location) -> _Dataset:
    found = [*_find_versions(images, images.list_names())]
    if len(found) != 1:
        versions = ", ".join(str(folder) for folder, _ in found[:4])
        what = f"several versions: give one of {versions}" if found else (
            f"no {_FEATURES} and {_INFO}, also not one or two folders below"
        )  # fmt: skip
        raise UsageError(f"{images} holds {what}")
    folder, prefix = found[0]
    info, features = (_read_json(folder / name) for name in METADATA)
    try:
        listed = dict(_list_features(features, "", None, plural=False))
        if len(listed) > _MAX_FEATURES:
            raise ValueError(f"{len(listed):,} features, at most {_MAX_FEATURES:,}")  # noqa: TRY301
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{folder / _FEATURES} is damaged: {error!r:.100}") from error
    kind = info.get("fileFormat", "tfrecord")
    if kind != "tfrecord":
        raise UsageError(
            f"{folder} has files of format {kind!r:.60}: prepare it again with "
            "file_format='tfrecord'"
        )
    return _Dataset(folder, prefix, info, listed)


def _read_small(path: Location) -> bytes:
    size = path.measure()
    if size is None:  # a pipe would be waited for
        raise DatasetError(f"{path} is gone, or is not a file")
    if size > _MAX_BYTES:
        raise DatasetError(f"{path} has {size:,} bytes, at most {_MAX_BYTES:,}")
    return path.read_bytes()


def _read_json(path: Location) -> dict[str, Any]:
    try:
        content = load_json(_read_small(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is damaged: no JSON object")
    return content


def _list_features(
    content: Mapping[str, Any], name: str, file: str | None, *, plural: bool
) -> Iterator[tuple[str, _Feature]]:
    """All features below one, by the names that they have on the disk."""
    if "featuresDict" in content:
        for key, feature in content["featuresDict"]["features"].items():
            named = key.replace("/", ".")
            label = named if file is None else f"{file}-{named}"
            path = f"{name}/{key}" if name else key
            yield from _list_features(feature, path, label, plural=plural)
    elif "sequence" in content:
        yield from _list_features(content["sequence"]["feature"], name, file, plural=True)
    else:
        kind = next((_KINDS[key] for key in _KINDS if key in content), "other")
        classes = content["classLabel"].get("numClasses", 0) if kind == "label" else 0
        yield name, _Feature(kind, plural, file or "", int(classes))


def _choose_image(images: Location, found: _Dataset, options: ConvertOptions) -> str:
    kinds = {name: feature.kind for name, feature in found.features.items()}
    chosen = options.image_column or found.choose("image", names=("image", "image/encoded"))
    if chosen is None or kinds.get(chosen) not in ("image", "text", "tensor"):
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        what = f"no feature {chosen!r}" if options.image_column else "no single feature of an image"
        raise UsageError(f"{images} has {what}; name it with --image-column; found: {listed}")
    return chosen


def _read_classes(found: _Dataset, feature: _Feature) -> tuple[str, ...]:
    path = found.folder / f"{feature.file}.labels.txt"
    if not path.is_file():
        return tuple(map(str, range(feature.classes)))
    lines = (from_bytes(line).strip() for line in _read_small(path).split(b"\n"))
    return tuple(line for line in lines if line)


def _list_files(found: _Dataset, options: ConvertOptions) -> Iterator[RecordFile]:
    there = found.folder.list_sizes()  # not one request to a store for each shard
    try:
        for split in found.info["splits"]:
            yield from _list_shards(found, split, there, options)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DatasetError(f"{found.folder / _INFO} is damaged: {error!r:.100}") from error


def _list_shards(
    found: _Dataset, split: Mapping[str, Any], there: Collection[str], options: ConvertOptions
) -> Iterator[RecordFile]:
    lengths, name = [*map(int, split.get("shardLengths", ()))], split["name"]
    known = SPLIT_FOLDERS.get(name.lower(), "")
    if not known and lengths and options.split_folders != "no":
        raise UsageError(
            f"{found.folder} has a split {name!r}, which is not one of "
            f"{', '.join(sorted(SPLIT_FOLDERS))}: draw new ones with --split-folders no"
        )
    if len(lengths) > _MAX_SHARDS:
        raise ValueError(f"{len(lengths):,} shards, at most {_MAX_SHARDS:,}")
    for number, records in enumerate(lengths):
        values = {
            "DATASET": found.info.get("name", ""), "SPLIT": name, "FILEFORMAT": "tfrecord",
            "SHARD_INDEX": f"{number:05}", "NUM_SHARDS": f"{len(lengths):05}",
            "SHARD_X_OF_Y": f"{number:05}-of-{len(lengths):05}",
        }  # fmt: skip
        file = split.get("filepathTemplate") or _TEMPLATE
        for key, value in values.items():
            file = file.replace(f"{{{key}}}", value)
        if not _SAFE.fullmatch(file):
            raise ValueError(f"{file!r:.60} is not a safe file name")
        if file not in there:
            raise DatasetError(f"{found.folder / file} is missing: copy the data set again")
        yield RecordFile(path=f"{found.prefix}{file}", split=known, records=records)


def _list_strangers(found: _Dataset, files: Sequence[RecordFile]) -> Iterator[Skipped]:
    known = {file.path for file in files}
    for name in found.folder.list_names():
        path = f"{found.prefix}{name}"
        # Also what Shardmill puts beside a data set that it wrote in this format.
        is_metadata = name in (*METADATA, *COMPANIONS)
        is_metadata |= name.endswith((".labels.txt", ".tfindex"))
        if path not in known and not is_metadata:
            yield leave_other(path)


def _describe(found: _Dataset, layout: ExampleLayout, options: ConvertOptions) -> str:
    used = {layout.image, layout.path, *list_used(options)}
    left = [name for name in found.features if name not in used]
    count = format_count(len(layout.files), "file")
    return f"{count}, {describe_columns(options, layout.image, left)}"
