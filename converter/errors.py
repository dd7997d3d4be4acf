"""The errors that this project raises on purpose.

    ShardmillError            exit code 1: the work could not be done
    ├── UsageError            exit code 2: an argument or an input makes no sense
    ├── WorkerError           a local worker process died before its work was done
    ├── OutputError           the output could not be written as asked
    ├── StoreError            an object store does not answer, or refuses
    ├── LockedError           someone else may be writing to the same data set
    ├── DatasetError          a data set on disk is damaged, incomplete or of a newer format
    │   └── RecordError       one record is: carries the shard, its number and its offset
    └── ImageError            one image cannot become a record: carries a reason code

A message is one line: what is wrong, the value received, the limit, the way out. However long or
odd the values in it are, it is short and printable: see `converter.names.fit_message`.
"""

from __future__ import annotations

from converter.names import fit_message


class ShardmillError(Exception):
    """Base of every error raised on purpose; `exit_code` is what a command ends with."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(fit_message(message))


class ShardmillWarning(UserWarning):
    """Base of every warning that a command shows as one line: nothing has failed yet."""


class UsageError(ShardmillError):
    """An argument, or the combination of arguments, makes no sense."""

    exit_code = 2


class WorkerError(ShardmillError):
    """A worker process ended although it still had work."""


class OutputError(ShardmillError):
    """The output could not be written, or reads back differently."""


class StoreError(ShardmillError):
    """An object store does not answer, or refuses what it is asked for."""


class LockedError(ShardmillError):
    """Someone else is writing to the same data set, or may be."""


class DatasetError(ShardmillError):
    """A data set on disk is damaged, incomplete, or of a format this version does not know."""


class RecordError(DatasetError):
    """One record of a shard is damaged.

    Attributes:
        shard: file name of the shard.
        offset: where the record begins in that file, in bytes.
        record: number of the record in the shard from 0, or None if unknown.
        source: path of the original image, or None if it cannot be read.
    """

    def __init__(
        self,
        shard: str,
        offset: int,
        detail: str,
        record: int | None = None,
        source: str | None = None,
    ) -> None:
        self.shard, self.offset, self.detail = shard, offset, detail
        self.record, self.source = record, source
        known = [] if record is None else [f"record {record}"]
        if source is not None:
            known.append(f"from {source!r}")
        number = f" ({', '.join(known)})" if known else ""
        super().__init__(f"{shard}: damaged record at byte {offset}{number}: {detail}")

    def __reduce__(self) -> tuple[type[RecordError], tuple[object, ...]]:
        # Exceptions are pickled with their message, which `__init__` does not take.
        return RecordError, (self.shard, self.offset, self.detail, self.record, self.source)


class ImageError(ShardmillError):
    """One image cannot become a record.

    Attributes:
        code: one of `converter.inventory.REJECT_CODES`.
        detail: what the decoder said, for a person.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, fit_message(detail)
        super().__init__(f"{code}: {detail}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.code, self.detail)

    def strip(self) -> ImageError:
        """A copy without the traceback, which would keep the content of the file in memory."""
        return ImageError(self.code, self.detail)
