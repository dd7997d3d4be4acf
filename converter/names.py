"""Names of files as text that is the same in every locale, and paths of frames.

A name is bytes. Python decodes it by the locale's encoding, so the same file has one name under
UTF-8 and another under Latin-1. Here a name is always those bytes read as UTF-8. Bytes that are
not UTF-8 become lone surrogates, so that nothing is lost on the way back.
"""

from __future__ import annotations

import os
from typing import Final

MAX_SHOWN: Final = 120
"""Characters of a name, a path or a detail that a message shows."""


def from_system(name: str) -> str:
    """The portable spelling of a name from the operating system."""
    return from_bytes(os.fsencode(name))


def to_system(name: str) -> str:
    """The spelling by which this process can open a file of that portable name."""
    return os.fsdecode(to_bytes(name))


def from_bytes(name: bytes) -> str:
    """The portable spelling of a name's bytes."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """The bytes of a portable name, which also order names independently of the locale."""
    return name.encode("utf-8", "surrogateescape")


def name_frame(path: str, number: int | None) -> str:
    """The path of a frame, `cats/one.gif#3`; that of the file if the image is alone in it."""
    return path if number is None else f"{path}#{number}"


def find_file(path: str, frames: str) -> str:
    """The path of the file that a record is from; the inverse of `name_frame`.

    `frames` is the option: only with `all`, a path may be that of a frame.
    """
    file, mark, number = path.rpartition("#")
    return file if frames == "all" and mark and number.isdecimal() else path


def show_name(name: str, most: int = MAX_SHOWN) -> str:
    r"""A name on one line, without control characters; of a long one, its end.

    >>> show_name("photos\n"), show_name("a-rather-long-name", 8)
    ('photos\\n', '…ng-name')
    """
    end = name[-most:]
    shown = end if end.isprintable() else repr(end)[1:-1]
    return shown if len(name) <= most and len(shown) <= most else f"…{shown[1 - most :]}"
