"""TFRecord files from anyone: which there are, and which features of a record mean what.

What is not said by options is guessed from the first record that can be read.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import ImageError, UsageError
from converter.format.features import Features
from converter.format.indexing import refuse_compressed
from converter.format.tfrecords import HEADER_BYTES
from converter.images.openers import is_image
from converter.inventory import Skipped, leave_out
from converter.options import ConvertOptions
from converter.sources.column_notes import describe_columns, list_used
from converter.sources.example_files import scan_file
from converter.sources.example_rows import ExampleLayout, ExampleRows, RecordFile
from converter.sources.folders import spell_path
from converter.sources.inputs import is_folder, leave_given, locate_base
from converter.sources.patterns import is_pattern, list_pattern
from converter.sources.row_sources import RowSource
from converter.sources.split_names import find_split_word
from converter.storage.files import INDEX_SUFFIX
from converter.storage.location import Location

_SUFFIX: Final = re.compile(
    r"\.(tfrecords?|tfrec|tfr)(-?\d+)?(-of-\d+)?(\.(gz|gzip|zlib))?$", re.IGNORECASE
)
_NUMBERED: Final = re.compile(r"-\d{5}-of-\d{5}$")

# Names of features in the order in which they are looked for, those of the TensorFlow Models first.
_IMAGES: Final = ("image/encoded", "image_raw", "image", "encoded", "img", "jpg", "jpeg", "png")
_LABELS: Final = ("image/class/label", "label", "class", "class_id", "label_id", "category")
_TEXTS: Final = ("image/class/text", "label", "class", "class_name", "label_name", "category")
_CAPTIONS: Final = ("image/caption", "caption", "text")
_PATHS: Final = (
    "image/source_id", "image/filename", "filename", "file_name", "path", "image/path",
)  # fmt: skip
_BOXES: Final = "image/object/bbox"
_BOX_LABELS: Final = ("image/object/class/text", "image/object/class/label")
_NAMES_OF: Final = {
    "image/class/label": ("image/class/text",), "label": ("label_name", "class_name"),
    "class": ("class_name",), "class_id": ("class_name",), "label_id": ("label_name",),
}  # fmt: skip
_HEAD_BYTES: Final = 32


class _First(NamedTuple):
    """The first record that can be read, and how each of its single values of bytes begins."""

    features: Features
    heads: Mapping[str, bytes]


def is_record_file(name: str) -> bool:
    """Whether a file of records would be called like that."""
    is_index = INDEX_SUFFIX in name or name.endswith(".idx")
    return not is_index and bool(_SUFFIX.search(name) or _NUMBERED.search(name))


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether IMAGES is a file, a pattern or a folder of records: no folder lies beside them."""
    if is_pattern(images):
        return all(is_record_file(file.name) for file in list_pattern(images))
    if not names:
        return bool(_SUFFIX.search(images.name)) and not is_folder(images)
    if not any(map(is_record_file, names)):
        return False
    files = images.list_sizes()
    shown = (name for name in names if not name.startswith("."))
    return all(name in files for name in shown) and any(map(is_record_file, files))


def imply_options(images: Location, options: ConvertOptions) -> Mapping[str, Any]:
    """The options that name the features of the image, its label, its caption and its boxes."""
    first = _read_first(images, _list_files(images)[0])
    implied: dict[str, Any] = {"image_column": _choose_image(images, first, options)}
    single = {name for name in first.features.message if len(first.features.read(name)) == 1}
    used = {implied["image_column"], *list_used(options)}
    free = single - used
    numbers = {name for name in free if isinstance(first.features.read(name)[0], int)}
    texts = {name for name in free if isinstance(first.features.read(name)[0], bytes)}
    if not options.names_labels:
        label = _find(_LABELS, numbers) or _find(_TEXTS, texts)
        implied["label_column"] = label
        texts -= {label, *_NAMES_OF.get(label or "", ())}
    implied["caption_column"] = _find(_CAPTIONS, texts)
    if f"{_BOXES}/ymin" in first.features.message:
        implied |= {"boxes_column": _BOXES, "box_format": "yxyx"}
        if not options.boxes_column:
            implied["box_labels_column"] = _find(_BOX_LABELS, {*first.features.message})
    return leave_given({name: value for name, value in implied.items() if value}, options)


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens files of records; raises a UsageError if no record of theirs holds an image."""
    files, skipped = _list_files(images)
    root, first = locate_base(images), _read_first(images, files)
    label = options.label_column or ""
    layout = ExampleLayout(
        files=tuple(_find_splits(files, root, options)),
        image=options.image_column or _choose_image(images, first, options),
        names={},
        path=_find(_PATHS, {*first.heads}),
        text=_find(_NAMES_OF.get(label, ()), {*first.heads}),
    )
    return ExampleRows(root, layout, options).make_source(
        images, skipped=skipped, recognized=_describe(first, layout, options)
    )


def _list_files(images: Location) -> tuple[list[Location], tuple[Skipped, ...]]:
    if is_pattern(images):
        return [file for file in list_pattern(images) if INDEX_SUFFIX not in file.name], ()
    if not is_folder(images):
        if not images.is_file():  # a pipe would be waited for
            raise UsageError(f"{images} does not exist, or is not a file: give files of records")
        return [images], ()
    names = [name for name in images.list_names() if not name.endswith(INDEX_SUFFIX)]
    files = images.list_sizes()
    found = {name: images / name for name in names if is_record_file(name) and name in files}
    skipped = (leave_out(name, _judge(name, files)) for name in names if name not in found)
    if not found:
        raise UsageError(f"{images} has no file of records: name them, in a pattern in quotes")
    return [*found.values()], tuple(skipped)


def _judge(name: str, files: Mapping[str, int]) -> str:
    if name.startswith("."):
        return "skipped_hidden"
    return "skipped_extension" if name in files else "skipped_special"


def _find_splits(
    files: Sequence[Location], root: Location, options: ConvertOptions
) -> Iterator[RecordFile]:
    """The files with the splits that their names say, if all of them say one or it is asked for."""
    found = [find_split_word(file.name) for file in files]
    used = all(found) or options.split_folders == "yes"
    for file, split in zip(files, found, strict=True):
        path = file.name if file == root else spell_path(file, root)
        yield RecordFile(path=path, split=split if used else "")


def _read_first(images: Location, files: Iterable[Location]) -> _First:
    reasons = []
    for file in files:
        found = next(scan_file(file), None)
        if found is None:
            continue
        if not isinstance(found.features, ImageError):
            return _First(found.features, _read_heads(file, found.place, found.features))
        with file.open_read() as stream:
            refuse_compressed(stream, file)
        reasons.append(f"{file.name}, {found.features.detail}")
    reason = f": {reasons[0]}" if reasons else ""
    raise UsageError(f"{images} has no record of a tf.train.Example at its beginning{reason}")


def _read_heads(file: Location, place: int, features: Features) -> dict[str, bytes]:
    heads = {}
    for name in features.message:
        values: Sequence[Any] = features.read(name)
        if len(values) == 1 and isinstance(values[0], bytes):
            heads[name] = values[0][:_HEAD_BYTES]
    for name, lies in features.held.items():
        if lies is not None:
            heads[name] = file.read_range(place + HEADER_BYTES + lies[0], min(_HEAD_BYTES, lies[1]))
    return heads


def _choose_image(images: Location, first: _First, options: ConvertOptions) -> str:
    if options.image_column:
        if options.image_column not in first.features.names:
            raise UsageError(
                f"{images} has no feature {options.image_column!r}: there are "
                f"{first.features.describe()}"
            )
        return options.image_column
    found = sorted(name for name, head in first.heads.items() if is_image(head))
    if options.mask_column in found:
        found.remove(options.mask_column)
    chosen = _find(_IMAGES, {*found}) or (found[0] if len(found) == 1 else None)
    if chosen is None:
        what = f"{len(found)} features that begin like an image" if found else (
            "no feature that begins like an image: pixels without a format cannot be read"
        )  # fmt: skip
        raise UsageError(
            f"{images} has {what}; name it with --image-column; found: {first.features.describe()}"
        )
    return chosen


def _find(names: Sequence[str], found: set[str]) -> str | None:
    return next((name for name in names if name in found), None)


def _describe(first: _First, layout: ExampleLayout, options: ConvertOptions) -> str:
    known = {layout.image, layout.path, layout.text, *list_used(options)}
    boxes = f"{options.boxes_column}/"
    left = [
        name for name in first.features.names if name not in known and not name.startswith(boxes)
    ]
    return describe_columns(options, layout.image, left)
