"""Images that are parts of files: which module reads a part, by the name of its file."""

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from converter.entries import list_files
from converter.errors import ImageError
from converter.inventory import Entry
from converter.sources import archives, example_files, parquet_images
from converter.sources.inputs import COMPRESSED_SUFFIXES, is_compressed
from converter.storage.location import Location


class Container(NamedTuple):
    """A kind of file that holds images."""

    # Begins to read a part, and returns a function that waits for its content; see `start_part`.
    start: Callable[[Location, Entry], Callable[[], bytes]]
    in_order: bool = False  # a part can only be read with what stands before it
    # The SHA-256 of a part that is read in order; empty if it cannot be read.
    digest: Callable[[Location, Entry], bytes] | None = None
    # The first bytes of a part, at most so many, if they take less than all of it.
    peek: Callable[[Location, Entry, int], bytes] | None = None


def _start_member(file: Location, entry: Entry) -> Callable[[], bytes]:
    return archives.start_member(file, entry.place, entry.size_bytes)


def _peek_member(file: Location, entry: Entry, size: int) -> bytes:
    return archives.peek_member(file, entry.place, size)


def _start_row(file: Location, entry: Entry) -> Callable[[], bytes]:
    return lambda: parquet_images.read_image(file, entry)


def _digest_member(file: Location, entry: Entry) -> bytes:
    path = entry.path.removeprefix(f"{entry.file}/")
    return bytes.fromhex(archives.digest_members(file).get(path, ""))


# By how the name of the file ends; any other name is that of a file of records.
CONTAINERS: Final[dict[str, Container]] = {
    ".tar": Container(_start_member, peek=_peek_member),
    ".zip": Container(_start_member, peek=_peek_member),
    ".parquet": Container(_start_row, in_order=True, digest=parquet_images.MEASURED.digest),
    **dict.fromkeys(
        COMPRESSED_SUFFIXES, Container(_start_member, in_order=True, digest=_digest_member)
    ),
}

# Records lie in files that are called `x.tfrecord`, `x.tfrecord-00000-of-00010`, `x-00000-of-00010`
# and anything else.
_RECORDS: Final = Container(example_files.start_record)


def start_part(root: Location, entry: Entry) -> Callable[[], bytes]:
    """Begins to read an image that is a part of a file in `root`.

    From a store this is one request, which is not waited for. The function that is returned waits,
    and raises `ImageError` if the part is damaged or another one now, and `OSError` if the file
    cannot be read.
    """
    return _find_container(entry.file).start(_locate_file(root, entry.file), entry)


def digest_part(root: Location, entry: Entry, end_bytes: int) -> bytes:
    """The SHA-256 of the first `end_bytes` of a part, or of all of it, as for 0 bytes.

    It is empty if the part cannot be read now.
    """
    container, file = _find_container(entry.file), root.child(entry.file)
    if container.digest:
        return container.digest(file, entry)
    try:
        if container.peek and end_bytes and entry.size_bytes > 2 * end_bytes:
            return hashlib.sha256(container.peek(file, entry, end_bytes)).digest()
        return hashlib.sha256(start_part(root, entry)()).digest()
    except (ImageError, OSError):
        return b""


def are_read_in_order(entries: Iterable[Entry], root: Location) -> bool:
    """Whether images can only be read one after another, in the order of file and place."""
    if is_compressed(root):
        return True
    return any(_find_container(file).in_order for file in list_files(entries))


def locate_part(entry: Entry) -> tuple[str, int]:
    """What images that are read in order are ordered by."""
    return entry.file, entry.place


@functools.lru_cache(maxsize=256)
def _locate_file(root: Location, file: str) -> Location:
    # Many parts lie in one file, and a path takes as long to make as a part to read.
    return root.child(file)


@functools.lru_cache(maxsize=256)
def _find_container(file: str) -> Container:
    name = file.lower()
    known = (found for suffix, found in CONTAINERS.items() if name.endswith(suffix))
    return next(known, _RECORDS)
