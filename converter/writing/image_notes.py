"""Notes what is odd about images and their boxes, as shows only when they are read."""

import json
from collections.abc import Iterable, Sequence

from converter.format.schema import BOXES, FROM_FILES, Column, find_column
from converter.images.geometry import find_odd_boxes
from converter.images.opened_images import Origin, examine_image, list_traits
from converter.inventory import Entry, NoteTally
from converter.options import ConvertOptions


def note_image(
    entry: Entry,
    columns: Sequence[Column],
    origin: Origin,
    options: ConvertOptions,
    tally: NoteTally,
) -> None:
    """Adds what is odd about an image, or a frame, and its boxes to a tally."""
    for code in list_traits(entry.path, origin, options):
        tally.add(code, entry.path)
    if find_column(columns, BOXES):
        valued = [column for column in columns if column.name not in FROM_FILES]
        values, turned = json.loads(entry.values), origin.orientation
        odd = find_odd_boxes(valued, values, origin.size, options, turned)
        for code, count in odd.items():
            tally.add(code, entry.path, total=count)


def note_original(
    entry: Entry,
    paths: Iterable[str],
    data: bytes,
    options: ConvertOptions,
    columns: Sequence[Column],
    *,
    tally: NoteTally,
) -> None:
    """Adds what is odd about an original under the path of each frame; raises an `ImageError`."""
    origin = examine_image(data, options)
    for path in paths:
        note_image(entry._replace(path=path), columns, origin, options, tally)
