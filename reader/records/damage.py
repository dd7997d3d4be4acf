"""What happens when a record is damaged: reading ends, or the record is skipped and counted."""

import contextlib
import itertools
import logging
import re
import threading
from collections.abc import Iterator
from typing import Final

from converter.errors import DatasetError, RecordError, ShardmillError

POLICIES: Final = ("raise", "skip")
REFUSAL: Final = "cannot be decoded: "  # prefix for what a decoder says of an image

_MAX_KEPT: Final = 64
_MARK: Final = re.compile(r"ShardmillError (\d+): ")

_log = logging.getLogger("shardmill.reader")
kept_errors: dict[int, ShardmillError] = {}
_numbers = itertools.count(1)


class DamageLog:
    """Collects damaged records: `policy` and `limit` are `ReadOptions.on_damage`, `max_damaged`."""

    def __init__(self, policy: str = "raise", limit: int = 100) -> None:
        self.errors: dict[tuple[str, int | None], RecordError] = {}  # by shard and number
        self._policy = policy
        self._limit = limit
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.errors)

    def report(self, error: RecordError) -> None:
        """Raises `error`, or logs it if it is new; a `DatasetError` if too many are damaged."""
        if self._policy == "raise":
            raise error
        key = (error.shard, error.record)
        with self._lock:
            if key in self.errors:
                return
            if len(self.errors) >= self._limit:
                raise DatasetError(
                    f"more than {self._limit} damaged records, the last one is {error}; "
                    "run shardmill verify, or raise max_damaged"
                ) from error
            self.errors[key] = error
        _log.warning("skipped: %s", error)


def keep_error(error: ShardmillError) -> str:
    """Returns the text for an error of TensorFlow from which `typed_errors` restores `error`."""
    number = next(_numbers)
    while len(kept_errors) >= _MAX_KEPT:
        kept_errors.pop(next(iter(kept_errors)), None)
    kept_errors[number] = error
    return f"ShardmillError {number}: {error}"


@contextlib.contextmanager
def typed_errors() -> Iterator[None]:
    """Raises a `RecordError` or `DatasetError` in place of the error that TensorFlow made of it.

    TensorFlow's operations can only fail with TensorFlow's own errors. Their text names the shard,
    record and offset; within this context, the original error is raised again.

        with typed_errors():
            model.fit(train)
    """
    try:
        yield
    except Exception as error:
        if (original := _find_original(error)) is None:
            raise
        raise original from error


def _find_original(error: Exception) -> ShardmillError | None:
    text = str(error)
    if mark := _MARK.search(text):
        return kept_errors.get(int(mark[1]))
    # In `fit`, the error of a sequence comes as text with a traceback.
    kept = tuple(kept_errors.values())
    return next((one for one in kept if f"{type(one).__name__}: {one}\n" in text), None)
