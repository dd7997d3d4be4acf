"""Files that were left out: the first of each reason, and small pictures of those that decode."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Final

from converter.errors import DatasetError, ImageError, ShardmillError
from converter.images.conversion import StoredImage
from converter.images.isolation import convert_isolated
from converter.inventory import REJECT_CODES
from converter.names import find_file
from converter.options import IN_FILES, ConvertOptions
from converter.sources.inputs import is_archive
from converter.sources.originals import make_lookup, read_original
from converter.sources.scan import Originals
from converter.storage.files import REJECTS
from converter.storage.location import Location
from pipelines.pages.contact_sheet import SIDE_PIXELS, encode_address
from pipelines.pages.survey import MAX_EXAMPLES, LeftOut

MAX_PICTURES: Final = 24
_PER_REASON: Final = 6
_MAX_SECONDS: Final = 5.0
_MAX_READ_BYTES: Final = 1 << 24  # of rejects.jsonl: 100,000 lines or more
_MAX_FILE_BYTES: Final = 1 << 25
_MAX_SCANNED: Final = 20_000  # images in few files, which are all listed to find one

# As much of a file as can be shown: whatever was refused, within the usual limits.
_SMALL: Final = ConvertOptions(
    image_size=(SIDE_PIXELS, SIDE_PIXELS), resize="longer", enlarge=False, encoding="webp",
    quality=75, truncated="fill", min_decoded=0.0, isolate=True, max_seconds=5,
    max_file_bytes=_MAX_FILE_BYTES,
)  # fmt: skip

Examples = dict[str, list[tuple[str, str]]]


def read_rejects(folder: Location) -> Examples:
    """Path and detail of the first files that were left out, by code.

    Reads 16 MiB at most. Raises DatasetError if the file is missing or damaged.
    """
    path = folder / REJECTS
    try:
        if (size := path.measure()) is None:  # of a pipe, too, which would be waited for
            raise DatasetError(f"{path} is missing, or no file")
        data = path.read_range(0, max(1, min(size, _MAX_READ_BYTES)))
        lines = data.splitlines()[: -1 if size > _MAX_READ_BYTES else None]
        found: Examples = {}
        for line in map(json.loads, lines):
            known = found.setdefault(line["code"], [])
            if len(known) < MAX_EXAMPLES:
                known.append((str(line["path"]), str(line["detail"])))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    return found


def draw_rejects(
    left_out: Sequence[LeftOut], images: Location, options: ConvertOptions, scanned: int
) -> dict[str, str]:
    """Pictures of rejected files by path, as data: addresses, where they are there and decode.

    Each is decoded in a process of its own. A path that leads out of `images` is not followed.
    """
    pictures: dict[str, str] = {}
    ends = time.monotonic() + _MAX_SECONDS
    if not (chosen := [*_choose_paths(left_out)]):
        return pictures
    with contextlib.suppress(ShardmillError, OSError):  # the images are gone, or others
        originals = Originals.locate(images, options)
        read = _Reader(originals, scanned)
        for path in chosen:
            if time.monotonic() > ends:
                break
            with contextlib.suppress(ShardmillError, OSError, MemoryError):
                pictures[path] = _draw(read(find_file(path, options.frames)))
    return pictures


def _choose_paths(left_out: Sequence[LeftOut]) -> Iterator[str]:
    rejected = [each for each in left_out if each.code in REJECT_CODES]
    each = max(1, min(_PER_REASON, MAX_PICTURES // max(1, len(rejected))))
    chosen = [path for reason in rejected for path, _ in reason.examples[:each]]
    yield from dict.fromkeys(chosen[:MAX_PICTURES])


class _Reader:
    """Reads originals by path; what leads out of the images is an error."""

    def __init__(self, originals: Originals, scanned: int) -> None:
        self._originals, self._root = originals, originals.root
        options = originals.options
        are_in_files = options.source in IN_FILES or bool(options.members)
        if (are_in_files or is_archive(self._root)) and scanned > _MAX_SCANNED:
            raise ShardmillError("too many images to list all of them")
        local = not (are_in_files or self._root.is_remote)
        self._find = make_lookup(self._root) if local else originals.find

    def __call__(self, path: str) -> bytes:
        if ".." in path.split("/") or path.startswith("/"):
            raise ImageError("outside", "its path leads out of the folder")
        return read_original(self._find(path), self._root, _MAX_FILE_BYTES)


def _draw(data: bytes) -> str:
    ((_, (image,)),) = convert_isolated(data, [_SMALL])
    if not isinstance(image, StoredImage):
        raise image
    return encode_address(image.data, "image/webp")
