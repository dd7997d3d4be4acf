"""Lines that fit a terminal: texts are measured in columns, cut, wrapped and put into tables."""

import itertools
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, TextIO

_GAP: Final = "…"

# What stands before the text of a line: blanks, and cells of a table, with two blanks behind.
_HEAD: Final = re.compile(r"( *)((?:\S+(?: \S+)*  +)*)")


def measure_text(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> measure_text("cat"), measure_text("猫"), measure_text("e\u0301")
    (3, 2, 1)
    """
    return len(text) if text.isascii() else sum(map(_measure, text))


def _measure(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut_text(text: str, width: int) -> str:
    """The beginning of a text that fits into so many columns; all of it, if it does.

    >>> cut_text("elephants", 5), cut_text("猫猫猫", 5)
    ('elep…', '猫猫…')
    """
    if measure_text(text) <= width:
        return text
    used = itertools.accumulate(map(_measure, text))
    return text[: sum(columns < width for columns in used)] + _GAP


def find_width(stream: TextIO) -> int | None:
    """The columns of the terminal that a stream writes to; None if that is a file or a pipe."""
    # What reads a pipe expects one thing a line, so lines are broken for people alone.
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrap_line(line: str, width: int | None) -> Iterator[str]:
    """Breaks a line between words; what follows is indented like its text.

    >>> list(wrap_line("  train  four words of text", 20))
    ['  train  four words', '         of text']
    """
    if width is None or measure_text(line) <= width:
        yield line
        return
    blanks, cells = _HEAD.match(line).groups()  # type: ignore[union-attr]  # it always matches
    indent = len(blanks) + measure_text(cells)
    if not cells or indent > 0.6 * width:
        indent = min(len(blanks) + 2, width // 2)
    text = ""
    for word in re.findall(r" *[^ ]+", line):
        # A word that fits on no line stays where it is.
        fits = measure_text(word.lstrip(" ")) <= width - indent
        if fits and text.strip() and measure_text(text + word) > width:
            yield text
            text, word = " " * indent, word.lstrip(" ")  # noqa: PLW2901
        text += word
    yield text


def format_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 0, width: int | None = None
) -> Iterator[str]:
    """Lays out rows under their heads: numbers to the right, the last column as it is.

    Names stand last: then columns stay in line whatever a terminal makes of Arabic or of emoji.

    Args:
        head: one word for each column.
        rows: their cells.
        left: how many columns, from the first, are texts.
        width: columns of the terminal, to which the last cell is cut; None for no limit.
    """
    table = [head, *rows]
    sizes = [max(measure_text(row[n]) for row in table) for n in range(len(head) - 1)]
    for row in table:
        cells = [
            cell.ljust(size) if n < left else cell.rjust(size)
            for n, (cell, size) in enumerate(zip(row, sizes, strict=False))
        ]
        line = "  ".join(["", *cells, row[-1]])
        yield (line if width is None else cut_text(line, width)).rstrip()
