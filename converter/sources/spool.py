"""Rows that are read once from their files, and then from a temporary file as often as needed."""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from converter.errors import ImageError
from converter.inventory import Entry
from converter.sources.row_sources import IMAGE
from converter.sources.rows import Row
from converter.storage.disk import DiskPath
from converter.storage.files import describe_errors


class Spool:
    """Rows in the order in which they came, each a line of JSON in a file without a name.

    It takes about as many bytes on the disk, in the folder that `TMPDIR` names, as the rows have
    characters. Without room there, it raises an `OutputError`.
    """

    def __init__(self, rows: Iterable[tuple[str, Row]]) -> None:
        place_of_file = DiskPath(tempfile.gettempdir(), "rows")  # it has no name
        with describe_errors(place_of_file):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
        for place, row in rows:
            line = json.dumps([place, _pack(row.pop(IMAGE, None)), row], separators=(",", ":"))
            with describe_errors(place_of_file):
                self._file.write(line.encode("ascii") + b"\n")
        with describe_errors(place_of_file):
            self._file.flush()

    def __del__(self) -> None:
        # A full disk, which was said when it was written to, does not take what is left either.
        with contextlib.suppress(AttributeError, OSError):
            self._file.close()

    def __call__(self) -> Iterator[tuple[str, Row]]:
        """The rows, from the first one on; of two that are under way, the first one ends."""
        self._file.seek(0)
        for line in self._file:
            place, image, row = json.loads(line)
            yield place, {IMAGE: _unpack(image), **row}


def _pack(image: Any) -> Any:
    return [image.code, image.detail] if isinstance(image, ImageError) else image


def _unpack(fields: list[Any]) -> Entry | ImageError:
    if len(fields) == 2:
        return ImageError(*fields)
    entry = Entry(*fields)
    return entry._replace(mask=Entry(*entry.mask)) if entry.mask else entry
