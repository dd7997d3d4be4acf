"""Fills the pages of the reference that are made from declarations, while the site is built.

A line `<!-- Sphinx: every command -->` or `<!-- Sphinx: every option -->` becomes what the parser
and `ConvertOptions` say, so that neither page can be out of date.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from converter.option_fields import GROUPS, Option, list_options, read_meanings
from converter.options import ConvertOptions
from pipelines.cli.declarations import COMMANDS, CONVERSIONS
from pipelines.cli.parsers import Parser, make_parser

_SIGNS: Final = re.compile(r"([\\`*_{}\[\]<>#|$~])")


def setup(app: Any) -> dict[str, bool]:
    """Registers this as an extension of Sphinx."""
    app.connect("source-read", _fill)
    # Before napoleon, which turns sections of Google's style into fields.
    app.connect("autodoc-process-docstring", _mark_code, priority=400)
    return {"parallel_read_safe": True}


def _fill(_app: Any, _name: str, source: list[str]) -> None:
    for mark, write in (
        ("<!-- Sphinx: every command -->", write_commands),
        ("<!-- Sphinx: every option -->", write_options),
    ):
        if mark in source[0]:
            source[0] = source[0].replace(mark, "\n".join(write()))


def write_commands() -> Iterator[str]:
    """Every command with its examples and arguments, as Markdown."""
    for name, command in COMMANDS.items():
        yield from (f"## {name}", "", _escape(command.text or f"{command.line}."), "", "```sh")
        for arguments, meaning in command.examples:
            yield from (f"# {meaning}", f"shardmill {name} {arguments}")
        yield from ("```", "")
        if name == CONVERSIONS[1]:
            yield from (
                "It takes the options of [convert](#convert) that concern what is made.",
                "",
            )
        else:
            yield from _write_arguments(name)


def _write_arguments(name: str) -> Iterator[str]:
    page = find_parser(name).page
    for heading, rows in page.sections.items() if page else ():
        if rows:
            yield from (f"**{heading[0].upper()}{heading[1:]}**", "")
        for row in rows:
            yield from (f"`{row.names}`", f": {_escape(row.text)}", "")


def find_parser(name: str) -> Parser:
    """Finds the parser of a command."""
    # argparse has no public list of them.
    commands = next(action for action in make_parser()._actions if action.dest == "command")  # noqa: SLF001
    return commands.choices[name]


def write_options() -> Iterator[str]:
    """Every field of `ConvertOptions`, as Markdown."""
    meanings = read_meanings(ConvertOptions)
    for group in GROUPS:
        yield from (f"## {group[0].upper()}{group[1:]}", "")
        for name, default, option in list_options(ConvertOptions):
            if option.group == group and not option.hidden:
                text = _escape(meanings[name][0].upper() + meanings[name][1:])
                yield from (f"`{name}` = `{default!r}`", f": {text}{_name_values(option)}", "")


def _name_values(option: Option) -> str:
    if option.choices:
        return " One of " + ", ".join(f"`{choice}`" for choice in option.choices) + "."
    if option.limits:
        low, high = option.limits
        return f" {low:,} or more." if high is None else f" From {low:,} to {high:,}."
    return ""


def _escape(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part[:1] == "`" else _SIGNS.sub(r"\\\1", part) for part in parts)


def _mark_code(
    _app: Any, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]
) -> None:
    """Shows indented lines behind an empty one as code, as docstrings here mean them."""
    found: list[str] = []
    for line in lines:
        before = found[-2] if len(found) > 1 and not found[-1].strip() else ""
        if before.strip() and _measure_indent(line) >= _measure_indent(before) + 4:
            if before.endswith(":") and not before.endswith("::"):
                found[-2] += ":"
            elif not before.endswith("::"):
                found += [f"{' ' * _measure_indent(before)}::", ""]
        found.append(line)
    lines[:] = found


def _measure_indent(line: str) -> int:
    return len(line) - len(line.lstrip())
