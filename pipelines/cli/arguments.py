"""Reads a command line: which command, and what was given to it."""

import argparse

from converter.errors import UsageError
from converter.option_fields import suggest
from converter.storage.files import Layout, find_sizes
from converter.storage.locate import locate
from pipelines.cli.declarations import BEAM_JOBS, COMMANDS, CONVERSIONS
from pipelines.cli.parsers import make_parser


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parses a command line; adds the `command`, the names of its `flags`, and `rest` for Beam."""
    # Here, because argparse would list the commands without the one that was meant.
    command = next((word for word in arguments if not word.startswith("-")), "convert")
    first = arguments[0].split("=", 1)[0]
    if first.startswith("--") and first not in ("--help", "--version") and command in arguments:
        raise UsageError(f"{first} stands before the command: write it after {command}")
    if command not in COMMANDS:
        near = suggest(command, COMMANDS)
        hint = f"did you mean {near}?" if near else f"choose one of {', '.join(COMMANDS)}"
        raise UsageError(f"{command!r} is not a command: {hint}")
    parsed, rest = make_parser().parse_known_args(arguments)
    if rest and parsed.command in CONVERSIONS and not rest[0].startswith("-"):
        raise UsageError(
            f"{rest[0]!r} comes after an option: write IMAGES and OUT side by side, before options"
        )
    if rest and parsed.command not in BEAM_JOBS:
        name = rest[0].split("=", 1)[0]
        near = suggest(name, parsed.flags)
        hint = f"did you mean {near}?" if near else f"see shardmill {parsed.command} --help"
        raise UsageError(f"{name} is not known: {hint}")
    parsed.rest = rest
    return parsed


def refuse_sizes(arguments: argparse.Namespace) -> None:
    """Points to the data sets in a folder of several sizes."""
    folder = arguments.out
    if not Layout(locate(folder)).manifest.is_file() and (sizes := find_sizes(locate(folder))):
        several = ", ".join(str(folder / name) for name in sizes)
        raise UsageError(
            f"{folder} holds data sets of several sizes: {arguments.command} one of {several}"
        )


def has_bar(arguments: argparse.Namespace) -> bool:
    """Whether a command shows how far it is."""
    return not any(getattr(arguments, name, False) for name in ("no_progress", "quiet", "json"))
