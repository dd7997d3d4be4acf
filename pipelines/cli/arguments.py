"""Reads a command line: what was asked for, and the options of a conversion."""

import argparse
from collections.abc import Mapping
from typing import Any

from converter.errors import UsageError
from converter.option_fields import list_options, suggest
from converter.options import ConvertOptions
from converter.sources.inputs import is_archive, locate_base, locate_mask_base, locate_root
from converter.sources.joined import join_images, locate_images
from converter.storage.files import Layout, find_sizes
from converter.storage.locate import locate, parse_location
from pipelines.cli.declarations import BEAM_JOBS, COMMANDS, CONVERSIONS
from pipelines.cli.parsers import make_parser


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parses a command line; adds the `command`, the names of its `flags`, and `rest` for Beam."""
    # Here, because argparse would list the commands without the one that was meant.
    command = next((word for word in arguments if not word.startswith("-")), "convert")
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


def read_options(
    arguments: argparse.Namespace, defaults: Mapping[str, Any] | None = None
) -> list[ConvertOptions]:
    """Returns the options for each image size: those given, and `defaults` for the others."""
    names = {name for name, _, _ in list_options(ConvertOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    values = {**(defaults or {}), **given}
    # Stored relative to the table and the images, so that all of them can move together.
    images = locate_images(arguments.images)
    if "table_root" in given and len(images) == 1 and not is_archive(images[0]):
        base = locate_base(images[0])
        values["table_root"] = locate(parse_location(given["table_root"])).relate(base)
    if "mask_dir" in given:
        root = ConvertOptions(table_root=values.get("table_root", "."))
        base = locate_mask_base(locate_root(*join_images(images, root)))
        values["mask_dir"] = locate(parse_location(given["mask_dir"])).relate(base)
    sizes = given.get("image_size", [values.get("image_size", ConvertOptions().image_size)])
    return [ConvertOptions.from_json({**values, "image_size": size}) for size in sizes]


def refuse_sizes(arguments: argparse.Namespace) -> None:
    """Points to the data sets in a folder of several sizes."""
    folder = arguments.out
    if not Layout(locate(folder)).manifest.is_file() and (sizes := find_sizes(locate(folder))):
        several = ", ".join(str(folder / name) for name in sizes)
        raise UsageError(
            f"{folder} holds data sets of several sizes: {arguments.command} one of {several}"
        )
