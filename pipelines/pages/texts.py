"""Texts from a data set as a page shows them."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from converter.names import escape

MAX_NAME: Final = 80
"""Letters of a name."""

# Of Persian words and of emoji. Other marks that do not show could turn a line around.
_JOINERS: Final = "\u200c\u200d"

_EXCEPTION: Final = re.compile(r"[A-Z]\w{0,40}Error: (?=.)")


def show_text(text: str, most: int = MAX_NAME) -> str:
    r"""A text on one line and without marks that do not show; a long one loses its end.

    >>> show_text("photos\n"), show_text("a-rather-long-name", 8)
    ('photos\\n', 'a-rathe…')
    """
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut if cut.isprintable() else "".join(map(show_char, cut))


def show_char(char: str) -> str:
    r"""A character, or its escape if it does not show; blanks of all widths do.

    >>> show_char("é"), show_char("\u202e")
    ('é', '\\u202e')
    """
    is_fine = char in _JOINERS or unicodedata.category(char) == "Zs"
    return char if is_fine else escape(char)


def show_path(path: str, most: int = MAX_NAME) -> str:
    """The same for a path, which loses its beginning.

    >>> show_path("cats/some/where/deep/one.jpg", 16)
    '…re/deep/one.jpg'
    """
    return show_text(path if len(path) <= most else f"…{path[1 - most :]}", most)


def show_reason(detail: str, most: int = MAX_NAME) -> str:
    """Why a file was left out, without the kind of exception, which a person takes for a bug.

    >>> show_reason("SyntaxError: broken PNG file"), show_reason("IndexError: ")
    ('broken PNG file', 'IndexError: ')
    """
    found = _EXCEPTION.match(detail)
    return show_text(detail[found.end() :] if found else detail, most)


def name_class(label: int, classes: Sequence[str]) -> str:
    """The name of a class, or its number where it has none."""
    return classes[label] if 0 <= label < len(classes) else str(label)


def format_time(msec: float) -> str:
    """Milliseconds as people say them.

    >>> format_time(1500), format_time(125_000)
    ('1.5 s', '2 min 5 s')
    """
    seconds = msec / 1000
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_percent(part: float, whole: float = 1) -> str:
    """A share with as many digits as mean something.

    >>> format_percent(1, 3), format_percent(1, 30), format_percent(1, 3000)
    ('33%', '3.3%', '<0.1%')
    >>> format_percent(999, 1000)
    '>99%'
    """
    share = 100 * part / max(1, whole)
    if 0 < share < 0.1:
        return "<0.1%"
    if 99 < share < 100:
        return ">99%"  # what is left may be what matters
    return f"{share:.1f}%" if 0 < share < 9.95 else f"{share:.0f}%"
