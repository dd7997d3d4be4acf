"""Ends a conversion before it begins, if the options ask to stop at anything doubtful."""

from __future__ import annotations

from typing import Final

from converter.errors import ShardmillError, UsageError
from converter.inventory import NOTES, Inventory
from converter.options import ConvertOptions

STRICT_NOTES: Final = (
    "duplicate_split", "duplicate_class", "twin_class", "twin_path", "unused_mask",
)  # fmt: skip
"""The notes that `strict` refuses, the gravest first."""


def check_scan(inventory: Inventory, options: ConvertOptions) -> None:
    """Refuses an inventory that the options do not accept.

    Raises:
        UsageError: with `strict`, one of `STRICT_NOTES` applies, or a file cannot be read.
        ShardmillError: with `on_error` `fail`, an image is rejected already.
    """
    if options.on_error == "fail" and inventory.rejected:
        first = inventory.rejected[0]
        raise describe_failure(first.path, f"{first.code}: {first.detail}")
    if not options.strict:
        return
    unread = [skip for skip in inventory.skipped if skip.code == "unreadable"]
    if unread:
        raise UsageError(
            f"{unread[0].path} cannot be read ({unread[0].detail}), one of {len(unread):,}: "
            "make it readable or remove it, or leave out --strict"
        )
    notes = [note for note in inventory.notes if note.code in STRICT_NOTES]
    if notes:
        gravest = min(notes, key=lambda note: STRICT_NOTES.index(note.code))
        names = ", ".join(map(repr, gravest.names[:2]))
        raise UsageError(
            f"{gravest.code}, {NOTES[gravest.code]}: {names}: rename or remove one, or leave out "
            "--strict"
        )


def describe_failure(path: str, reason: str) -> ShardmillError:
    """Makes the error that ends a conversion with `on_error` `fail`."""
    return ShardmillError(
        f"{ascii(path)[1:-1]} cannot be converted: {reason}: mend or remove it, or leave out "
        "--on-error fail"
    )
