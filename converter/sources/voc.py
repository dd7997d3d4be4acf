"""Pascal VOC: an XML file with the objects of each image, and lists of the images of each split.

    VOC2012/JPEGImages/2008_000008.jpg     the image; other suffixes are fine, too
    VOC2012/Annotations/2008_000008.xml    its objects; an image without one has none
    VOC2012/ImageSets/Main/train.txt       the images of a split, one a line, without a suffix

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/ defines it. The first pixel of a file is 1,
and a box contains its last pixels, so xmin 1 and xmax WIDTH are the whole width: 1 is taken away
from xmin and ymin alone, as detectron2 does. TFDS takes nothing away, so its boxes begin a pixel
further right and below.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET
from xml.parsers import expat

from converter.errors import ImageError, UsageError
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.detections import (
    Detections,
    Files,
    Key,
    Picture,
    imply_columns,
    list_files,
    read_lines,
    read_texts,
)
from converter.sources.inputs import is_folder, list_names, locate_root
from converter.sources.row_sources import RowSource
from converter.sources.split_names import find_first_word
from converter.storage.location import Location

_IMAGES: Final = "JPEGImages"
_OBJECTS: Final = "Annotations"
_LISTS: Final = "ImageSets/Main"
_KIT: Final = "VOCdevkit"
_YEAR: Final = re.compile(r"VOC\d{4}")
_FLAGS: Final = ("difficult", "truncated")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")

# `trainval` is both of the first two. It decides only about images that no other list names, and
# puts them into `train`.
_BOTH: Final = "trainval"
_SETS: Final = ("train", "val", "test", _BOTH)

_MAX_DEPTH: Final = 100  # of elements in each other


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether this is a folder with images and annotations of VOC, or with such folders."""
    return is_folder(images) and bool(_find_years(images, names))


def imply_options(_images: Location, options: ConvertOptions) -> dict[str, Any]:
    """The columns of `open_rows`."""
    return imply_columns(options, box_columns=_FLAGS)


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens a folder of VOC; boxes come as `boxes`, `box_labels`, `difficult` and `truncated`.

    If there are lists, the images in them are taken, also those without an XML file, and no others;
    else those that have an XML file. Takes about 60 bytes of memory for each box and 2,000 for each
    image. Raises UsageError if there is no such folder.
    """
    root = locate_root(images, options)
    years = _find_years(root, list_names(root))
    if not years:
        raise UsageError(
            f"{root} has no annotations of VOC: looked for {_IMAGES} and {_OBJECTS}, also in "
            f"{_KIT}/VOC2012"
        )
    files, found = list_files(root), Detections(options, _FLAGS)
    used: set[str] = set()
    lists = 0
    for year in years:
        splits = _read_splits(root, year, files)
        lists += bool(splits)
        used.update(f"{year}{_LISTS}/{name}.txt" for name in _SETS)
        used.update(_add_images(_Year(root, year, files), splits, found))
    return found.make_source(
        images=images,
        root=root,
        skipped=files.skip_unused(used),
        recognized=f"{', '.join(year + _OBJECTS for year in years)}, "
        + (f"images as listed in {_LISTS}" if lists else "no lists of splits"),
    )


class _Year(NamedTuple):
    """One folder with images and annotations; its name ends in a slash, or is empty."""

    root: Location
    name: str
    files: Files

    def find(self, folder: str, suffix: str = "") -> dict[str, list[str]]:
        """The files below a folder with a suffix, or the images, by path in it without suffix."""
        begin, found = f"{self.name}{folder}/", defaultdict[str, list[str]](list)
        for path in self.files.others if suffix else self.files.images:
            stem, end = os.path.splitext(path)
            if path.startswith(begin) and end.lower() == (suffix or end.lower()):
                found[stem[len(begin) :]].append(path)
        return found


def _find_years(folder: Location, names: Sequence[str], prefix: str = "") -> list[str]:
    if {_IMAGES, _OBJECTS} <= {*names}:
        return [prefix]
    if _KIT in names and not prefix:
        return _find_years(folder / _KIT, list_names(folder / _KIT), f"{_KIT}/")
    years = (name for name in names if _YEAR.fullmatch(name))
    return [
        f"{prefix}{name}/" for name in years if {_IMAGES, _OBJECTS} <= {*list_names(folder / name)}
    ]


def _read_splits(root: Location, year: str, files: Files) -> dict[str, list[str]]:
    """The lists that name an image, by its path without suffix."""
    found: dict[str, list[str]] = {}
    for name in _SETS:
        path = f"{year}{_LISTS}/{name}.txt"
        for line in read_lines(root, path) if path in files.others else ():
            lists = found.setdefault(line, [])
            if name not in lists:
                lists.append(name)
    return found


def _add_images(year: _Year, splits: Mapping[str, list[str]], found: Detections) -> Iterator[str]:
    """Adds the images of a year with their objects, and gives the files that they are in."""
    images, objects = year.find(_IMAGES), year.find(_OBJECTS, ".xml")
    listed = sorted(splits or objects, key=to_bytes)
    texts = read_texts(year.root, [objects[name][0] for name in listed if name in objects])
    for name in listed:
        paths = sorted(images.get(name, ()), key=to_bytes)
        path = paths[0] if paths else f"{year.name}{_IMAGES}/{name}.jpg"
        # Also images without a file of objects have boxes in pixels of the file.
        picture = Picture(path=path, place=f"{year.name}{_LISTS}", size=(0, 0))
        if name in objects:
            picture.place = objects[name][0]
            yield picture.place
        try:
            if name in objects:
                _read_objects(next(texts), picture, (year.name, name), found)
            picture.split = _choose_split(splits.get(name, ()), paths)
        except ValueError as error:
            picture.error = ImageError("bad_row", str(error))
        found.add_image((year.name, name), picture)
        yield from paths


def _choose_split(lists: Sequence[str], paths: Sequence[str]) -> str:
    """The split of an image in these lists and files; a `ValueError` if there are several."""
    sure = [name for name in lists if name != _BOTH]
    if len(sure) > 1:
        raise ValueError(f"it is in the lists {' and '.join(sure)}")
    if len(paths) > 1:
        raise ValueError(f"it may be any of {', '.join(paths)}")
    return find_first_word(sure[0]) if sure else "train" if lists else ""


def _read_objects(text: bytes | ImageError, picture: Picture, key: Key, found: Detections) -> None:
    """Adds the boxes in an XML file; raises a `ValueError` if it is not of VOC."""
    if isinstance(text, ImageError):
        raise ValueError(text.detail)  # noqa: TRY004 (the same as of a file that makes no sense)
    tree = _parse_xml(text)
    if tree.tag != "annotation":
        raise ValueError(f"its outermost element is {tree.tag!r:.60}, not 'annotation'")
    picture.size = _read_side(tree, "height"), _read_side(tree, "width")
    for item in tree.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if name:
            found.name_class(name, name)
        flags = [(item.findtext(flag) or "").strip() == "1" for flag in _FLAGS]
        found.add_box(key, _read_box(item), name, flags)


def _read_box(item: ET.Element) -> list[float] | None:
    try:
        corners = [float(item.findtext(f"bndbox/{corner}") or "") for corner in _CORNERS]
    except ValueError:
        return None
    left, top, right, bottom = corners
    return [left - 1, top - 1, right, bottom]


def _read_side(tree: ET.Element, name: str) -> int:
    text = (tree.findtext(f"size/{name}") or "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _parse_xml(data: bytes) -> ET.Element:
    """Parses XML without a document type; raises a `ValueError` for any other."""
    tree, parser = _Tree(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = tree.refuse_type
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from error
    return tree.close()


class _Tree(ET.TreeBuilder):
    """Builds elements, and refuses what could take any amount of memory."""

    _depth = 0

    def refuse_type(self, *_: object) -> None:
        # Entities that name each other make gigabytes of a few lines.
        raise ValueError("it has a DOCTYPE, which could define entities")

    def start(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"its elements lie more than {_MAX_DEPTH} deep in each other")
        return super().start(tag, attributes)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return super().end(tag)
