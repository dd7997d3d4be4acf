"""The pages of `--help`: all commands in groups, and one page for each command."""

import dataclasses
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from converter.option_fields import GROUPS as OPTION_GROUPS
from pipelines.cli.declarations import COMMANDS, GROUPS, MODE, OWN, PLACES, PRINT, RUN

_MAX_WIDTH: Final = 110  # longer lines are hard to read
_MIN_WIDTH: Final = 40
_PROGRAM: Final = "shardmill"

SECTIONS: Final = (PLACES, OWN, *OPTION_GROUPS, MODE, RUN, PRINT)
"""The headings of a page, in order."""

_ABOUT: Final = (
    "Turns images into sharded, resized TFRecords with Apache Beam, and shows, checks, mends and "
    "exports them. `reader` reads them back."
)
_EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over --max-rejects, "
    "130 interrupted."
)


class Row(NamedTuple):
    """An argument on a page: how it is spelled, what it means, and the same in a few words."""

    names: str
    text: str
    brief: str  # empty if only the whole page has it


@dataclasses.dataclass(kw_only=True, slots=True)
class Page:
    """What the help of a command shows."""

    command: str
    usage: str = ""
    sections: dict[str, list[Row]] = dataclasses.field(
        default_factory=lambda: {title: [] for title in SECTIONS}
    )
    footer: str = ""
    whole: bool = True  # whether all arguments are shown, with all they mean

    def add(self, section: str, row: Row) -> None:
        """Appends a row to the section of that heading."""
        self.sections[section].append(row)


def measure_width() -> int:
    """The columns of the terminal that a page fills: 80 where there is no terminal."""
    return max(_MIN_WIDTH, min(_MAX_WIDTH, shutil.get_terminal_size().columns))


def format_overview() -> str:
    """All commands, each with a line and an example."""
    width, names = measure_width(), max(map(len, COMMANDS)) + 4
    lines = [f"usage: {_PROGRAM} COMMAND [options]", "", *_wrap(_ABOUT, width)]
    for group, purpose in GROUPS.items():
        lines += ["", f"{group}: {purpose}"]
        for name, command in COMMANDS.items():
            if command.group == group:
                lines += _wrap(command.line, width, f"  {name:<{names - 2}}", " " * names)
                lines.append(f"{'':{names}}{_PROGRAM} {name} {command.examples[0][0]}")
    lines += ["", *_wrap(f"More on each: {_PROGRAM} COMMAND --help. {_EXIT_CODES}", width)]
    return "\n".join(lines) + "\n"


def format_page(page: Page) -> str:
    """The help of a command."""
    width, command = measure_width(), COMMANDS[page.command]
    lines = [f"usage: {_PROGRAM} {page.command} {page.usage}", ""]
    lines += [*_wrap(command.text or f"{command.line[0].upper()}{command.line[1:]}.", width), ""]
    lines.append("examples:" if command.examples[1:] else "example:")
    for example, meaning in command.examples:
        lines.append(f"  {_PROGRAM} {page.command} {example}")
        lines += _wrap(meaning, width, " " * 6)
    hidden = 0
    for section, rows in page.sections.items():
        shown = [row for row in rows if page.whole or row.brief]
        hidden += len(rows) - len(shown)
        if shown:
            lines += [
                "",
                *_wrap(f"{section}:", width),
                *_format_rows(shown, width, whole=page.whole),
            ]
    if hidden:
        more = f"{hidden} more options are in {_PROGRAM} {page.command} --help-all."
        lines += ["", *_wrap(more, width)]
    lines += ["", *_wrap(page.footer, width)] if page.footer else []
    return "\n".join(lines) + "\n"


def _format_rows(rows: Iterable[Row], width: int, *, whole: bool) -> Iterator[str]:
    indent = min(30, width * 3 // 10)
    for row in rows:
        names = f"  {row.names}"
        text = row.text if whole else row.brief
        if len(names) > indent - 2:
            broken = _wrap(names.replace("|", "| "), width, indent=" " * 6)
            yield from [names] if len(names) <= width else (s.replace("| ", "|") for s in broken)
            names = ""
        yield from _wrap(text, width, f"{names:<{indent}}", " " * indent)


def _wrap(text: str, width: int, first: str = "", indent: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if indent is None else indent,
        break_long_words=False,
        break_on_hyphens=False,  # of flags
    )
