"""Ends a conversion before it begins, where it was asked not to go on with what is doubtful."""

from __future__ import annotations

from typing import Final

from converter.errors import ShardmillError, UsageError
from converter.inventory import NOTES, Inventory
from converter.options import ConvertOptions

STRICT_NOTES: Final = (
    "duplicate_split", "duplicate_class", "twin_class", "twin_path", "unused_mask",
)  # fmt: skip
"""What `strict` does not let pass, the gravest first."""


def check_scan(inventory: Inventory, options: ConvertOptions) -> None:
    """Refuses what was found, if that was asked for.

    Args:
        inventory: what was found.
        options: `strict` refuses what is else noted, or left out because it cannot be read;
            `on_error` what is else rejected.

    Raises:
        UsageError: `strict`, and something is odd or cannot be read.
        ShardmillError: `on_error` is `fail`, and something is rejected already.
    """
    if options.on_error == "fail" and inventory.rejected:
        first = inventory.rejected[0]
        raise ShardmillError(
            f"{ascii(first.path)[1:-1]} cannot be converted: {first.code}: {first.detail}: mend or "
            "remove it, or leave out --on-error fail"
        )
    if not options.strict:
        return
    unread = [skip for skip in inventory.skipped if skip.code == "unreadable"]
    if unread:
        raise UsageError(
            f"{unread[0].path} cannot be read ({unread[0].detail}), one of {len(unread):,}: "
            "make it readable or remove it, or leave out --strict"
        )
    for code in STRICT_NOTES:
        for note in inventory.notes:
            if note.code == code:
                names = ", ".join(map(repr, note.names[:2]))
                raise UsageError(
                    f"{code}, {NOTES[code]}: {names}: rename or remove one, or leave out --strict"
                )
