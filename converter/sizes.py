"""Numbers of bytes and of other things, as people write them."""

import re
from typing import Final

from converter.errors import UsageError

_UNITS: Final = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Reads a number of bytes: `128MB` is 128,000,000, `128MiB` is 134,217,728.

    >>> parse_bytes("1.5kB")
    1500

    Raises UsageError for other units than B, kB, MB, GB, KiB, MiB and GiB.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise UsageError(
            f"{text!r} is not a size: write a number and a unit, such as 128MB or 1GiB"
        )
    return round(float(match[1]) * _UNITS[match[2].lower()])


def format_bytes(count: float) -> str:
    """Writes a number of bytes for a person.

    >>> format_bytes(127_900_000)
    '127.9 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> format_count(1, "shard"), format_count(1200, "class")
    ('1 shard', '1,200 classes')
    """
    plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"
