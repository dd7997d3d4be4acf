"""Archives that are compressed as a whole: nothing in them is to be had without all before it.

So what has to be read is asked for in the order in which it lies there: one reading of the archive
for the list, one for the hashes of all images if they are wanted, part of one for the sample, and
one for each worker that writes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

from converter.sources.folders import is_named
from converter.storage.location import Location

OPENERS: Final[dict[str, Callable[[Any], object]]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
"""By how the name of an archive ends."""

MAX_RATIO: Final = 200
"""An archive of images becomes no more times larger than this …"""

FREE_BYTES: Final = 1 << 30
"""… beyond these."""

BROKEN: Final = (EOFError, OSError, lzma.LZMAError)
"""What a damaged stream raises; of `zlib`, an error of its own."""


def is_compressed(path: Location) -> bool:
    """Whether a path is that of an archive which is compressed as a whole."""
    return is_named(path, tuple(OPENERS))


def open_stream(archive: Location) -> BinaryIO:
    """Opens an archive for reading forward.

    Raises:
        OSError: it cannot be opened.
        StoreError: the store does not answer, or refuses.
    """
    suffix = next(suffix for suffix in OPENERS if archive.name.lower().endswith(suffix))
    packed = archive.open_read() if archive.is_remote else str(archive)
    return cast("BinaryIO", OPENERS[suffix](packed))


class Cursor:
    """A place in an archive that moves forward as it is asked for; backward is from the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[Location, tuple[int, str] | None] | None = None
        self._file: BinaryIO | None = None

    def read(self, archive: Location, place: int, size: int) -> bytes:
        """Reads so many bytes of what an archive is decompressed to; fewer where it ends.

        Raises:
            OSError: it cannot be read.
        """
        # Of an object, no other version than the one that was opened can be read.
        known = archive, None if archive.is_remote else archive.read_version()
        with self._lock:
            if self._file is None or self._known != known:
                self._close()
                self._file, self._known = open_stream(archive), known
            self._file.seek(place)
            return self._file.read(size)

    def close(self) -> None:
        """Closes what is open: an archive that is opened again may be another one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._known = None


CURSOR: Final = Cursor()
"""That of this process."""
