"""COCO: images, boxes and the names of their classes in one JSON file for each split.

    annotations/instances_train2017.json   with the images in train2017/ or images/train2017/
    train/_annotations.coco.json           with the images beside it, as Roboflow writes it
    annotations.json                       beside a folder of images
    any.json                               alone, with the images where they can be found

https://cocodataset.org/#format-data defines it. A box is left, top, width, height in pixels of the
file, from 0. Segmentations and keypoints are not read.
"""

import functools
import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import ImageError, UsageError
from converter.images.geometry import Size
from converter.options import ConvertOptions
from converter.sources import rows
from converter.sources.column_notes import list_used
from converter.sources.detections import Detections, Picture, imply_columns, list_files
from converter.sources.folders import clean_name
from converter.sources.inputs import DEFAULTS, is_folder, locate_base, locate_root
from converter.sources.json_streams import read_lists
from converter.sources.row_sources import RowSource, sort_name
from converter.sources.split_names import find_first_word
from converter.storage.locate import join
from converter.storage.location import Location

_FOLDER: Final = "annotations"
_INSTANCES: Final = "instances_"
_ROBOFLOW: Final = "_annotations.coco.json"
_ALONE: Final = "annotations.json"  # as tools for labelling export it
_SPLITS: Final = ("train", "valid", "val", "test")  # folders of Roboflow
_FLAG: Final = "is_crowd"
_CAPTIONS: Final = frozenset(("caption", "captions"))

_LISTS: Final = ("images", "annotations", "categories")
_KEYS: Final = frozenset((*_LISTS, "info", "licenses", "type"))
_PROBES: Final = 3  # images of a file that are looked for to find their folder


class _Document(NamedTuple):
    """One of the JSON files."""

    path: str  # relative to IMAGES, or its name alone
    file: Location

    @property
    def split(self) -> str:
        words = re.split("[/_.-]", self.path)
        return next(filter(None, map(find_first_word, words)), "")

    @property
    def folders(self) -> list[str]:
        """Where its images may lie, in the order of looking."""
        beside, _, name = self.path.rpartition("/")
        if name == _ROBOFLOW:
            return [beside]
        name = name.removesuffix(".json").removeprefix(_INSTANCES)
        names = filter(None, (name, name.rpartition("_")[2], name.rstrip("0123456789")))
        inner = [path for name in names for path in (name, f"images/{name}")]
        return list(dict.fromkeys((*inner, "images", "", beside)))


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether this is a JSON file with lists as COCO has them, or a folder with such files."""
    if is_folder(images):
        return bool(_find_documents(images, names))
    return images.name.lower().endswith(".json") and _looks_like_coco(images)


def imply_options(images: Location, options: ConvertOptions) -> dict[str, Any]:
    """The columns of `open_rows`, and where the images of a single file lie."""
    implied = imply_columns(options, box_format="xywh", box_columns=(_FLAG,))
    if is_folder(images) or options.table_root != DEFAULTS.table_root:
        return implied
    if not images.is_file():
        raise UsageError(f"{images} does not exist: give a JSON file of COCO, or its folder")
    inside = [folder or "." for folder in _Document(images.name, images).folders]
    names = _peek_names(images, images.read_version())
    for folder in (*inside, *(posixpath.normpath(f"../{folder}") for folder in inside)):
        if _has_any(locate_base(images), folder, names):
            return {**implied, "table_root": folder}
    return implied


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens COCO's annotations; boxes come as `boxes`, `box_labels` and `is_crowd`.

    The columns `image_id`, and `caption` and `captions` from the file captions_… beside, are there
    if asked for. Takes about 60 bytes of memory for each box and 2,000 for each image. Raises
    UsageError if there is no such file, or one is damaged.
    """
    root, in_folder = locate_root(images, options), is_folder(images)
    documents = [_Document(images.name, images)]
    if in_folder:
        documents = _find_documents(images, images.list_names())
    if not documents:
        raise UsageError(
            f"{images} has no annotations of COCO: looked for {_FOLDER}/{_INSTANCES}*.json, "
            f"{_SPLITS[0]}/{_ROBOFLOW} and {_ALONE}"
        )
    found = Detections(options, (_FLAG,))
    readers = [_Reader(document, found) for document in documents]
    captioned = not _CAPTIONS.isdisjoint(list_used(options))
    used = {document.path for document in documents}
    for reader in readers:
        reader.read()
        used.update(reader.add_images(root, captioned=captioned))
    classes = dict.fromkeys(itertools.chain(*(reader.list_classes() for reader in readers)))
    more = f" and {len(documents) - 1} more" if documents[1:] else ""
    return found.make_source(
        images=images,
        root=root,
        classes=tuple(classes),
        skipped=list_files(root).skip_unused(used) if in_folder and root == images else (),
        recognized=f"{documents[0].path}{more} with {len(classes)} categories; segmentations and "
        "keypoints are left out",
    )


class _Reader:
    """Reads one file. In `Detections`, the keys are its path with an id as text."""

    def __init__(self, document: _Document, found: Detections) -> None:
        self._document, self._found = document, found
        self._images: list[tuple[Any, Any, Size]] = []  # id, name and stated size
        self._names: dict[str, str] = {}  # of categories, by id
        self._known: set[str] = set()  # these names

    def read(self) -> None:
        """Reads boxes and categories; the images wait for `add_images`."""
        file, seen = self._document.file, set[str]()
        for key, item in _read_objects(file, seen):
            match key:
                case "images":
                    size = _read_side(item.get("height")), _read_side(item.get("width"))
                    self._images.append((item.get("id"), item.get("file_name"), size))
                case "annotations":
                    image, label = self._key(item, "image_id"), self._key(item, "category_id")
                    crowd = item.get("iscrowd") in (1, "1")
                    self._found.add_box(image, item.get("bbox"), label, (crowd,))
                case "categories":
                    self._add_category(item)
        for key in _LISTS:
            if key not in seen:
                known = ", ".join(sorted(seen)) or "nothing"
                raise UsageError(f"{file} is not of COCO, as it has no {key!r}: there is {known}")

    def add_images(self, root: Location, *, captioned: bool) -> Iterator[str]:
        """Adds the images, and gives their paths relative to the root."""
        names = tuple(name for _, name, _ in self._images[:_PROBES])
        folders = (folder for folder in self._document.folders if _has_any(root, folder, names))
        folder = next(folders, "")
        captions = self._read_captions() if captioned else {}
        for number, (key, name, size) in enumerate(self._images):
            picture = Picture(
                path=_join(folder, name),
                place=f"{self._document.path} image {key!s:.60}",
                split=self._document.split,
                size=size,
                cells={"image_id": key},
            )
            if captioned:
                texts = captions.get(str(key), [])
                picture.cells = {**picture.cells, "caption": [*texts, ""][0], "captions": texts}
            try:
                self._found.add_image((self._document.path, rows.read_name(key)), picture)
            except ValueError as error:
                picture.error = ImageError("bad_row", f"its id: {error}")
                self._found.add_image((self._document.path, number, "no id"), picture)
            yield str(picture.path)

    def list_classes(self) -> list[str]:
        """The names of the categories, ordered by their ids."""
        return [self._names[key] for key in sorted(self._names, key=sort_name)]

    def _add_category(self, item: Mapping[str, Any]) -> None:
        file = self._document.file
        try:
            key, name = rows.read_name(item.get("id")), rows.read_name(item.get("name"))
        except ValueError as error:
            raise UsageError(f"{file}: id or name of a category: {error}") from error
        if key in self._names or name in self._known:
            raise UsageError(f"{file}: category {key!r}, {name!r}, has the id or name of another")
        self._names[key] = name
        self._known.add(name)
        self._found.name_class((self._document.path, key), name)

    def _key(self, item: Mapping[str, Any], name: str) -> tuple[str, str]:
        # 1, 1.0 and "1" are the same id. What is none is known to nothing.
        try:
            return self._document.path, rows.read_name(item.get(name))
        except ValueError:
            return "", f"{item.get(name)!r:.60}"

    def _read_captions(self) -> dict[str, list[str]]:
        """The texts about each image, by its id, from the file beside that has them."""
        path = self._document.file
        file = path.with_name(path.name.replace(_INSTANCES, "captions_", 1))
        if file == path or not file.is_file():
            raise UsageError(f"{path} has no file captions_… beside it: leave the captions out")
        texts: dict[str, list[str]] = {}
        for key, item in _read_objects(file, set()):
            if key == "annotations" and isinstance(item.get("caption"), str):
                texts.setdefault(str(item.get("image_id")), []).append(item["caption"])
        return texts


def _read_objects(file: Location, seen: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The items of the lists that are read, each with its key; all keys are added to `seen`."""
    for key, items in read_lists(file):
        seen.add(key)
        for number, item in enumerate(items if key in _LISTS else ()):
            if not isinstance(item, dict):
                raise UsageError(f"{file}: {key}[{number}] is not an object of JSON")
            yield key, item


def _find_documents(images: Location, names: Sequence[str]) -> list[_Document]:
    paths = [path for path in (_ROBOFLOW,) if path in names]
    if _FOLDER in names:
        found = [name for name in (images / _FOLDER).list_names() if name.endswith(".json")]
        usual = [name for name in found if name.startswith(_INSTANCES)]
        others = (name for name in found if _looks_like_coco(images / _FOLDER / name))
        paths += [f"{_FOLDER}/{name}" for name in usual or others]
    for name in _SPLITS:
        if name in names and (images / name / _ROBOFLOW).is_file():
            paths.append(f"{name}/{_ROBOFLOW}")
    if not paths and _ALONE in names and _looks_like_coco(images / _ALONE):
        paths.append(_ALONE)
    return [_Document(path, images.child(path)) for path in paths]


def _looks_like_coco(file: Location) -> bool:
    try:
        return file.is_file() and next(read_lists(file), ("", ()))[0] in _KEYS
    except UsageError:
        return False


@functools.lru_cache(maxsize=16)
def _peek_names(file: Location, _version: tuple[int, str]) -> tuple[str, ...]:
    """The names of the first images. Usually they come early, but need not."""
    images = (item for key, item in _read_objects(file, set()) if key == "images")
    return tuple(item.get("file_name", "") for item in itertools.islice(images, _PROBES))


def _has_any(root: Location, folder: str, names: Sequence[Any]) -> bool:
    """Whether one of these images lies in a folder, which may be one above the root."""
    try:
        place = join(root, folder or ".")
        paths = [clean_name(name) for name in names if isinstance(name, str)]
        return any(place.child(path).is_file() for path, is_outside in paths if not is_outside)
    except (UsageError, OSError, ValueError):  # out of a bucket, or no name of a file
        return False


def _join(folder: str, name: Any) -> Any:
    # An absolute name stays what it is, and is rejected.
    return f"{folder}/{name}" if folder and isinstance(name, str) and name[:1] != "/" else name


def _read_side(value: Any) -> int:
    return value if type(value) is int and 0 < value < 1 << 31 else 0
