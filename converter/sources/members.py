"""What the header of an archive's member states; nothing in it is believed."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """One member: its path, size and the offset of its header, or why it is skipped.

    The name of an inner tar, without its suffix, is a folder in the paths of its members.
    """

    path: str
    size: int = 0
    place: int = 0
    code: str = ""
    detail: str = ""
    is_folder: bool = False


def clean_name(name: str) -> tuple[str, str]:
    """A name without empty parts and dots, and the code of the rule that skips it, or nothing."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = name.startswith("/") or ".." in parts or "\0" in name
    return "/".join(parts), "skipped_outside" if outside else ""
