"""Texts from a data set as a page shows them."""

from typing import Final

from converter.names import escape

MAX_NAME: Final = 80
"""Letters of a name."""

# Of Persian words and of emoji. Other marks that do not show could turn a line around.
_JOINERS: Final = "\u200c\u200d"


def show_text(text: str, most: int = MAX_NAME) -> str:
    r"""A text on one line and without marks that do not show; a long one loses its end.

    >>> show_text("photos\n"), show_text("a-rather-long-name", 8)
    ('photos\\n', 'a-rathe…')
    """
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    if cut.isprintable():
        return cut
    return "".join(char if char in _JOINERS else escape(char) for char in cut)


def show_path(path: str, most: int = MAX_NAME) -> str:
    """The same for a path, which loses its beginning.

    >>> show_path("cats/some/where/deep/one.jpg", 16)
    '…re/deep/one.jpg'
    """
    return show_text(path if len(path) <= most else f"…{path[1 - most :]}", most)
