"""Notes what is odd about images and their boxes, and counts them, as they are read."""

import json
from collections.abc import Iterable, Sequence

from converter.costs import count_original
from converter.format.schema import BOXES, FROM_FILES, Column, find_column
from converter.images.conversion import Converted, StoredImage
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


def count_converted(
    path: str, converted: Sequence[Converted], size_bytes: int, options: ConvertOptions
) -> None:
    """Counts an original of so many bytes for the histograms; of several sizes, by the first."""
    for image in converted:
        if isinstance(image, StoredImage):
            origin = image.origin
            grown = image.height > origin.height, image.width > origin.width
            enlarged = all(grown) if options.resize == "pad" else any(grown)  # or only padded
            count_original(path, origin.format, origin.size, size_bytes, enlarged=enlarged)
            return
