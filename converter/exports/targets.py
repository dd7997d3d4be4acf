"""A folder in which an export appears whole or not at all.

FOLDER/.shardmill/export.json    while it is written: what of, and how
FOLDER/.shardmill/export/        on a disk, everything that is written, until it is complete
FOLDER/.shardmill-export.json    last to appear: the export is complete

On a disk, what was written moves to its place by one rename for each split folder or file, once all
of it is on the disk. A store cannot rename, so there objects have their final names at once, and
only the last file says that they are all there. What a kill left is removed before the same export
starts over; an error removes it at once.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from converter.errors import OutputError, ShardmillError, UsageError
from converter.format.typed_json import dump_json
from converter.storage.files import WORK_FOLDER, HashedFile, Layout, describe_errors, write_file
from converter.storage.location import Location

MARKER: Final = ".shardmill-export.json"

_NOTE: Final = "export.json"
_STAGE: Final = "export"
_REQUESTS: Final = 16  # at the same time, to a store


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A folder for an export.

    Attributes:
        folder: where it will be.
        note: what it is of, to tell it from another one.
        owns: whether a name directly in the folder may be that of a file or folder of the export.
    """

    folder: Location
    note: Mapping[str, Any]
    owns: Callable[[str], bool]

    @property
    def stage(self) -> Location:
        """The folder to write to."""
        return self.folder if self.folder.is_remote else Layout(self.folder).work / _STAGE

    @property
    def scratch(self) -> Location:
        """The folder for temporary files."""
        return Layout(self.folder).scratch

    @property
    def threads(self) -> int:
        """How many images to work on at the same time."""
        cores = os.cpu_count() or 1
        return max(cores, _REQUESTS) if self.folder.is_remote else cores

    @contextlib.contextmanager
    def open(self, *, break_lock: bool = False) -> Iterator[None]:
        """Claims the folder for the block, which is to write all files and to `publish` them.

        Raises UsageError if it holds anything but what a killed run of the same export left,
        LockedError if someone is writing to it, and OutputError if it cannot be written.
        """
        with self.folder.lock(break_lock=break_lock):
            self._claim()
            try:
                with _explain_errors(self.folder):
                    yield
            except BaseException:
                with contextlib.suppress(OSError, ShardmillError):
                    self._discard()
                raise

    def publish(self, content: Mapping[str, Any]) -> None:
        """Lets everything appear, and in the end the marker with this content."""
        with describe_errors(self.folder):
            self.folder.flush_all()
            if self.stage != self.folder:
                self.stage.move_files(self.stage.list_names(), self.folder)
        write_file(self.folder / MARKER, dump_json(content), self.scratch)
        self._remove_work()

    def _claim(self) -> None:
        layout, note = Layout(self.folder), self._find_note()
        names = [name for name in self.folder.list_names() if name != WORK_FOLDER]
        if note is None and (names or layout.plan.is_file()):
            if MARKER in names:
                raise UsageError(
                    f"{self.folder} holds a finished export: choose a new folder, or remove it"
                )
            held = names[0] if names else "an unfinished conversion"
            raise UsageError(
                f"{self.folder} is not empty (it holds {held!r}): choose a new or an empty folder"
            )
        if note is not None:
            strange = [name for name in names if not self.owns(name) and name != MARKER]
            if note != self.note or strange:
                what = f"{strange[0]!r} beside" if strange else "of something else,"
                raise UsageError(
                    f"{self.folder} holds an unfinished export {what} what this one writes: "
                    "remove the folder, or choose another one"
                )
            self._discard()
        # A thread that is just being started outlives an interruption, and writes once more.
        self._remove_work()
        layout.scratch.make_folder()
        write_file(layout.work / _NOTE, dump_json(self.note), layout.scratch)
        with _explain_errors(self.folder):
            self.stage.make_folder()

    def _find_note(self) -> Any:
        try:
            return json.loads((Layout(self.folder).work / _NOTE).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _discard(self) -> None:
        """Removes what was written; the marker first, the note last."""
        names = [name for name in self.folder.list_names() if self.owns(name)]
        files = self.folder.list_sizes().keys()
        self.folder.remove_files([MARKER])
        self.folder.remove_files(name for name in names if name in files)
        for name in names:
            if name not in files:
                (self.folder / name).remove_folder()
        self._remove_work()

    def _remove_work(self) -> None:
        if self.stage != self.folder:
            self.stage.remove_folder()
            self.scratch.remove_tree()  # where a kill leaves temporary files
        (Layout(self.folder).work / _NOTE).unlink(missing_ok=True)


@contextlib.contextmanager
def _explain_errors(folder: Location) -> Iterator[None]:
    """Says of a file that could not be written what that means for an export."""
    try:
        yield
    except OutputError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise _describe(folder, cause) from error
    except OSError as error:
        raise _describe(folder, error) from error


def _describe(folder: Location, error: OSError) -> OutputError:
    # What goes to a store is built in a temporary file here.
    other = f"make room in {folder.temporary} or set TMPDIR" if folder.is_remote else ""
    return OutputError(
        f"{error.filename or folder} cannot be written: {error.strerror}; nothing is left in "
        f"{folder}: {other or 'make room or choose another folder'}, and run the same command again"
    )


class Sink:
    """A file that is being written, as `tarfile` and pyarrow take it."""

    closed = False

    def __init__(self, file: HashedFile) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return len(data)

    def tell(self) -> int:
        return self._file.size

    def flush(self) -> None: ...
    def close(self) -> None: ...
