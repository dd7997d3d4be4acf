"""The options of a conversion, as a command line gives them."""

import argparse
from collections.abc import Mapping
from typing import Any

from converter.option_fields import list_options
from converter.options import ConvertOptions
from converter.sources.inputs import is_archive, locate_base, locate_mask_base, locate_root
from converter.sources.joined import join_images, locate_images
from converter.storage.locate import locate, parse_location


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
