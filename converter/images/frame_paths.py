"""The paths of frames, by which records are known whose file has several: `cats/one.gif#3`."""

from __future__ import annotations

from typing import Final

MARK: Final = "#"
"""Stands between the path of a file and the number of a frame, from 0."""


def name_frame(path: str, number: int | None) -> str:
    """The path of a frame; that of the file if it is alone in it."""
    return path if number is None else f"{path}{MARK}{number}"


def find_file(path: str, frames: str) -> str:
    """The path of the file that a record is from; the inverse of `name_frame`.

    Args:
        path: of a record.
        frames: as in `ConvertOptions`: only with `all`, a path may be that of a frame.
    """
    file, mark, number = path.rpartition(MARK)
    return file if frames == "all" and mark and number.isdecimal() else path
