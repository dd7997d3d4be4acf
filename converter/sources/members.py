"""What is known of one member of an archive before it is read; nothing in a header is believed."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """One member of an archive.

    Attributes:
        path: its name; that of an inner tar, without its suffix, is a folder before it.
        size: in bytes.
        place: where its header begins in the file.
        code: of the rule by which it is left out, or nothing.
        detail: about that.
        is_folder: whether it is one.
    """

    path: str
    size: int = 0
    place: int = 0
    code: str = ""
    detail: str = ""
    is_folder: bool = False


def clean_name(name: str) -> tuple[str, str]:
    """A name without what means nothing in it, and the code of what is wrong with it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = name.startswith("/") or ".." in parts or "\0" in name
    return "/".join(parts), "skipped_outside" if outside else ""
