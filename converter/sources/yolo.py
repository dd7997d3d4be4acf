"""YOLO: a text file with the objects of each image, and a YAML file that names classes and splits.

    data.yaml              `names`, and `train`, `val`, `test`: folders of images, or lists of paths
    images/train/1.jpg     the image; also train/images/1.jpg
    labels/train/1.txt     its objects, one a line; an image without a file has none

https://docs.ultralytics.com/datasets/detect defines it. A line is the number of a class, and x and
y of the centre, width and height of a box in fractions of the upright image; a confidence may
follow. More numbers are the corners of a polygon, whose bounds are the box, as for Ultralytics;
with `kpt_shape` in the YAML file they are keypoints, which are left out. Without a YAML file,
classes are those of classes.txt, or are called by their numbers.
"""

import itertools
import math
import os
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import ImageError, UsageError
from converter.inventory import make_note
from converter.names import from_bytes, to_bytes
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
from converter.sources.folders import clean_name, has_image_suffix
from converter.sources.inputs import is_folder, list_names, locate_root
from converter.sources.row_sources import RowSource
from converter.sources.split_names import find_first_word
from converter.sources.yolo_configs import SUFFIXES, Config, find_config, read_config
from converter.storage.location import Location

_IMAGES: Final = "images"
_LABELS: Final = "labels"
_CLASSES: Final = ("classes.txt", f"{_LABELS}/classes.txt")

MAX_CLASSES: Final = 10_000  # that have no names


class _Member(NamedTuple):
    """An image, the split that it is in, and what says so."""

    path: str
    split: str
    place: str


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether this is a YAML file, or a folder whose images have text files with boxes."""
    if not is_folder(images):
        return images.name.lower().endswith(SUFFIXES) and images.is_file()
    places = [images] if {_IMAGES, _LABELS} <= {*names} else []
    splits = (images / name for name in names if find_first_word(name))
    places += [place for place in splits if {_IMAGES, _LABELS} <= {*list_names(place)}]
    return any(_has_texts(place / _LABELS) for place in places) or _is_configured(images, names)


def imply_options(_images: Location, options: ConvertOptions) -> dict[str, Any]:
    """The columns of `open_rows`."""
    return imply_columns(options, box_format="yolo")


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens a folder of YOLO or its YAML file; boxes come as `boxes` and `box_labels`.

    Takes about 60 bytes of memory for each box and 2,000 for each image. Raises UsageError if there
    are no images, or if the YAML file makes no sense.
    """
    in_folder, root = is_folder(images), locate_root(images, options)
    config = find_config(images, images.list_names()) if in_folder else read_config(images)
    files, found = list_files(root), Detections(options)
    listing = _list_members(config, root, files) if config else _sort_members(files)
    if not listing.members:
        looked = ", ".join(listing.absent) or f"{_IMAGES}/ beside {_LABELS}/, or a YAML file"
        raise UsageError(f"{root} has no images of YOLO: looked for {looked}; see --table-root")
    names, named_in = _name_classes(config, root, files)
    reader = _Reader(root, names, found, is_pose=config is not None and config.is_pose)
    reader.read(listing.members, files)
    classes = reader.list_classes()
    used = {member.path for member in listing.members} | {*listing.lists, named_in, *reader.paths}
    notes = [make_note("missing_list", listing.absent)] if listing.absent else []
    if not named_in:
        notes.append(make_note("class_numbers", classes))
    return found.make_source(
        images=images,
        root=root,
        classes=tuple(classes),
        skipped=files.skip_unused(used) if in_folder and root == images else (),
        notes=notes,
        recognized=f"{len(reader.paths)} files of boxes, {len(classes)} classes "
        + (f"as named in {named_in}" if named_in else "that are called by their numbers"),
    )


class _Listing(NamedTuple):
    """The images that are taken, the lists that name them, and what is named and not there."""

    members: list[_Member]
    lists: list[str]
    absent: list[str]


def _list_members(config: Config, root: Location, files: Files) -> _Listing:
    """The images in the folders and lists of a YAML file."""
    listing, folders = _Listing([], [], []), _list_folders(files.images)
    base = _resolve(config.folder, "", root, folders) or ""
    for split, paths in config.splits.items():
        for path in paths:
            place = _resolve(path, base, root, folders | files.others)
            if place is None:
                listing.absent.append(path)
            elif place in files.others:
                listing.lists.append(place)
                lines = enumerate(read_lines(root, place), 1)
                listed = ((_find_line(line, place, root), number) for number, line in lines)
                listing.members.extend(_Member(p, split, f"{place} line {n}") for p, n in listed)
            else:
                begin = f"{place}/" if place else ""
                found = (image for image in files.images if image.startswith(begin))
                listing.members.extend(
                    _Member(image, split, place or ".") for image in sorted(found, key=to_bytes)
                )
    return listing


def _sort_members(files: Files) -> _Listing:
    """The images in folders that are called so, in or around those of splits."""
    members = []
    for path in sorted(files.images, key=to_bytes):
        top, inner, *_ = (*path.split("/"), "")
        if top == _IMAGES:
            members.append(_Member(path, find_first_word(inner), top))
        elif inner == _IMAGES and find_first_word(top):
            members.append(_Member(path, find_first_word(top), f"{top}/{inner}"))
    return _Listing(members, [], [])


def _list_folders(paths: Iterable[str]) -> set[str]:
    folders = {""}
    for path in paths:
        folder = path
        while (folder := folder.rpartition("/")[0]) not in folders:
            folders.add(folder)
    return folders


def _resolve(path: str, base: str, root: Location, known: Collection[str]) -> str | None:
    """What a path in a YAML file stands for; None if it is not there, or outside."""
    # Roboflow writes ../train/images where train/images is meant.
    for spelled in (path, path.removeprefix("../")):
        place = _relate(spelled, base, root)
        if place in known:
            return place
    return None


def _find_line(line: str, place: str, root: Location) -> str:
    """The path that a line of a list stands for; as it is if it leads out, to be rejected."""
    found = _relate(line, posixpath.dirname(place), root)
    return line if found.startswith(("/", "..")) else found


def _relate(path: str, base: str, root: Location) -> str:
    """A path relative to the root, if it is not outside."""
    inner = path.removeprefix(f"{root}/")
    joined = posixpath.normpath(posixpath.join(base if inner == path else "", inner))
    return "" if joined == "." else joined


def _name_classes(
    config: Config | None, root: Location, files: Files
) -> tuple[Mapping[int, str], str]:
    """The names of classes by number, and the file that has them; empty if there is none."""
    if config and config.names:
        return config.names, config.file.name
    for path in _CLASSES:
        if path in files.others:
            return dict(enumerate(read_lines(root, path))), path
    return {}, ""


class _Reader:
    """Reads the files of boxes; the key of a class is its number."""

    def __init__(
        self, root: Location, names: Mapping[int, str], found: Detections, *, is_pose: bool
    ) -> None:
        self._root, self._names, self._found, self._is_pose = root, names, found, is_pose
        self._highest = -1  # number of a class without a name
        self.paths: list[str] = []  # of the files that there are
        for number, name in names.items():
            found.name_class(number, name)

    def read(self, members: Sequence[_Member], files: Files) -> None:
        """Adds images with their boxes."""
        paths = [locate_labels(member.path) for member in members]
        self.paths = [path for path in paths if path in files.others and path not in _CLASSES]
        there, texts = {*self.paths}, read_texts(self._root, self.paths)
        for number, (member, path) in enumerate(zip(members, paths, strict=True)):
            key = (number, member.path)
            picture = Picture(path=member.path, place=member.place, split=member.split)
            if path in there:
                text = next(texts)
                if isinstance(text, ImageError):
                    picture.error = text
                else:
                    self._add_boxes(key, text)
            self._found.add_image(key, picture)

    def list_classes(self) -> list[str]:
        """The names of the classes in the order of their numbers."""
        return [*self._names.values()] or [str(number) for number in range(self._highest + 1)]

    def _add_boxes(self, key: Key, text: bytes) -> None:
        for line in from_bytes(text).splitlines():
            if numbers := line.split():
                label, box = parse_line(numbers, is_pose=self._is_pose)
                self._found.add_box(key, box, self._find_class(label))

    def _find_class(self, number: float) -> int:
        """The key of a class; -1 for none."""
        if self._names or not (0 <= number < MAX_CLASSES and number.is_integer()):
            return int(number) if number in self._names else -1
        self._highest = max(self._highest, int(number))
        self._found.name_class(int(number), str(int(number)))
        return int(number)


def locate_labels(path: str) -> str:
    """Where the boxes of an image are: the rule of Ultralytics.

    >>> locate_labels("images/train/1.jpg"), locate_labels("train/1.jpg")
    ('labels/train/1.txt', 'train/1.txt')
    """
    head, mark, tail = f"/{path}".rpartition(f"/{_IMAGES}/")
    place = f"{head}/{_LABELS}/{tail}"[1:] if mark else path
    return f"{os.path.splitext(place)[0]}.txt"


def parse_line(numbers: Sequence[str], *, is_pose: bool) -> tuple[float, list[float] | None]:
    """The class and the box of an object: x, y, width and height; None if it makes no sense.

    >>> parse_line("3 0.5 0.5 0.2 0.4".split(), is_pose=False)
    (3.0, [0.5, 0.5, 0.2, 0.4])
    """
    try:
        label, *sides = map(float, numbers)
    except ValueError:
        return -1.0, None
    if not all(map(math.isfinite, (label, *sides))):
        return -1.0, None
    if len(sides) in (4, 5) or (is_pose and len(sides) > 5):
        return label, sides[:4]
    if len(sides) < 6 or len(sides) % 2:
        return label, None
    left, right = min(sides[::2]), max(sides[::2])
    top, bottom = min(sides[1::2]), max(sides[1::2])
    return label, [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def _has_texts(folder: Location) -> bool:
    names = list_names(folder)
    if any(map(has_image_suffix, names)):
        return False
    inner = (list_names(folder / name) for name in names if "." not in name)
    return any(name.endswith(".txt") for group in (names, *inner) for name in group)


def _is_configured(images: Location, names: Sequence[str]) -> bool:
    """Whether there is a YAML file that names lists, or folders whose images have texts."""
    try:
        config = find_config(images, names)
    except UsageError:
        return False
    paths = itertools.chain(*config.splits.values()) if config else ()
    for path, is_outside in (clean_name(path.removeprefix("../")) for path in paths):
        if is_outside or not path:
            continue
        texts = list_names(images.child(posixpath.dirname(locate_labels(f"{path}/_"))))
        if images.child(path).is_file() or any(name.endswith(".txt") for name in texts):
            return True
    return False
