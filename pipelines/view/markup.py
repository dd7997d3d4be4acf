"""Values as a page can hold them: text that is safe, colours, and a picture of what is damaged."""

import textwrap
from typing import Any, Final

from markupsafe import Markup

from converter.names import from_bytes
from pipelines.pages.texts import show_char
from pipelines.pages.thumbnails import VOID, Picture, choose_color

MAX_SHOWN: Final = 600  # characters of a value
MAX_VALUES: Final = 24

_FAULT: Final = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="320" viewBox="0 0 160 160">'
    '<rect width="160" height="160" fill="#fdeceb"/>'
    '<g fill="#8f1d17" font-family="sans-serif" font-size="12" text-anchor="middle">{}</g></svg>'
)
_LINE: Final = Markup('<text x="80" y="{}"{}>{}</text>')


def clean(value: Any) -> Any:
    """Text as a page can hold it: what does not show, or turns a line around, as escapes."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(char if char in "\n\t" else show_char(char) for char in value)


def paint(label: int | None) -> str:
    """The colour of a class as in HTML."""
    color = (128, 128, 128) if label == VOID else choose_color(label or 0)
    return "#{:02x}{:02x}{:02x}".format(*color)


def break_name(name: str) -> Markup:
    """The name of a feature, which may be broken behind a slash."""
    return Markup("/<wbr>").join(name.split("/"))


def describe_feature(name: str, values: Any) -> tuple[str, str]:
    """A feature and its values as text; long bytes as their length."""
    shown = ", ".join(map(_show_value, values[:MAX_VALUES])) or "none"
    more = f" and {len(values) - MAX_VALUES:,} more" if len(values) > MAX_VALUES else ""
    return name, (shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…") + more


def _show_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, bytes):
        return str(value)
    is_text = len(value) <= MAX_SHOWN and all(byte > 8 for byte in value)
    return from_bytes(value) if is_text else f"{len(value):,} bytes"


def draw_fault(place: str, reason: str = "") -> Picture:
    """A picture in place of one that is damaged: it says where that is, and why if there is room.

    Args:
        place: parts with commas between them, each a line.
        reason: in small letters.
    """
    lines = [line for part in place.split(", ") for line in textwrap.wrap(part, 22)][:6]
    small = textwrap.wrap(reason, 44)[:5]
    top = 84 - 8 * len(lines) - 5 * len(small)
    texts = [_LINE.format(top, Markup(' font-weight="bold"'), "damaged")]
    texts += [_LINE.format(top + 16 * row, "", clean(line)) for row, line in enumerate(lines, 1)]
    top += 16 * len(lines) + 6
    size = Markup(' font-size="6.5"')
    texts += [_LINE.format(top + 9 * row, size, clean(line)) for row, line in enumerate(small, 1)]
    return Picture(_FAULT.format(Markup("").join(texts)).encode(), "image/svg+xml", 320, 320)
