"""What happens when a record is damaged: it ends the reading, or is left out and counted."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Final

from converter.errors import DatasetError, RecordError, ShardmillError

POLICIES: Final = ("raise", "skip")
_REMEMBERED: Final = 64
_MARK: Final = "ShardmillError: "

_log = logging.getLogger("shardmill.reader")
_raised: dict[str, ShardmillError] = {}


class DamageLog:
    """Takes note of damaged records.

    Args:
        policy: `raise`, or `skip`: each is logged once and left out, in every epoch.
        limit: how many different records may be skipped.

    Attributes:
        errors: what was skipped, by shard and number.
    """

    def __init__(self, policy: str = "raise", limit: int = 100) -> None:
        self.errors: dict[tuple[str, int | None], RecordError] = {}
        self._policy = policy
        self._limit = limit
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.errors)

    def report(self, error: RecordError) -> None:
        """Raises `error`, or logs it if it is new.

        Raises:
            RecordError: the policy is to raise.
            DatasetError: it is one more than the limit.
        """
        if self._policy == "raise":
            raise error
        with self._lock:
            key = (error.shard, error.record)
            if key in self.errors:
                return
            if len(self.errors) >= self._limit:
                raise DatasetError(
                    f"more than {self._limit} damaged records, the last one is {error}; "
                    "run shardmill verify, or raise max_damaged"
                ) from error
            self.errors[key] = error
        _log.warning("skipped: %s", error)


@contextlib.contextmanager
def keep_errors() -> Iterator[None]:
    """Lets `typed_errors` find an error that is raised inside TensorFlow."""
    try:
        yield
    except ShardmillError as error:
        while len(_raised) >= _REMEMBERED:
            _raised.pop(next(iter(_raised)), None)
        _raised[str(error)] = error
        # TensorFlow turns a ValueError into an InvalidArgumentError with its text.
        raise ValueError(f"{_MARK}{error}") from None


@contextlib.contextmanager
def typed_errors() -> Iterator[None]:
    """Raises as a `RecordError` or `DatasetError` what TensorFlow reports as an error of its own.

    TensorFlow's operations can only fail with TensorFlow's errors. Their text says which shard,
    record and offset is concerned; in here, it becomes the error again that it was:

        with typed_errors():
            model.fit(train)
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        if _MARK not in text:
            raise
        for known, original in reversed(_raised.items()):
            if f"{_MARK}{known}" in text:
                raise original from error
        raise
