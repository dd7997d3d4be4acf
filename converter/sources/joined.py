"""Several IMAGES as one data set: the same as one folder that holds them side by side.

The paths of images begin with where their IMAGES lie in that folder, which tells equal ones apart.
Equal class names become one class.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from converter.entries import Entries
from converter.errors import UsageError
from converter.format.schema import LABELS, Column
from converter.inventory import NO_LABEL, Entry, Inventory, Skipped, encode_values
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.inputs import is_archive, locate_base, locate_root
from converter.sources.recognition import resolve_options
from converter.storage.locate import locate
from converter.storage.location import AnyPath, Location

Images: TypeAlias = AnyPath | Sequence[AnyPath]
"""A folder, an archive, a table or other files of images, or several of them."""

# What workers read of the options has to be the same for all of IMAGES.
_SHARED: Final = ("box_format", "mask_column")


def locate_images(images: Images) -> tuple[Location, ...]:
    """Locates each of IMAGES."""
    return tuple(map(locate, images if isinstance(images, list | tuple) else [images]))


def join_images(
    images: Sequence[Location], options: ConvertOptions
) -> tuple[Location, ConvertOptions]:
    """The folder that holds all of IMAGES, and options that name each of them in it.

    Of one alone, itself and its completed options. Raises UsageError if they cannot be joined.
    """
    if not images:
        raise UsageError("there is nothing to convert: give a folder of images")
    if len(images) == 1:
        return images[0], resolve_options(images[0], options)
    for one, other in itertools.permutations(images, 2):
        if one.resolve().contains(other.resolve()):
            raise UsageError(f"{other} is given twice, as it lies in {one}: leave one of them out")
    alone = dataclasses.replace(options, members=())
    resolved = [resolve_options(place, alone) for place in images]
    roots = [locate_root(place, own) for place, own in zip(images, resolved, strict=True)]
    folder = _find_common(images, roots)
    members = (
        f"{own.source}:{place.relate(folder)}" for place, own in zip(images, resolved, strict=True)
    )
    shared = {name: _share(name, images, resolved) for name in _SHARED}
    return folder, dataclasses.replace(options, members=tuple(members), **shared)


def locate_originals(images: Images, options: ConvertOptions) -> Location:
    """Where the images of a data set with these options lie: one place also for several IMAGES."""
    alone = dataclasses.replace(options, source="auto", members=())
    places = locate_images(images)
    if len(places) > 1:
        return join_images(places, alone)[0]
    for member in options.members:
        if not (place := places[0].join(member.partition(":")[2])).exists():
            raise UsageError(
                f"{place} does not exist: give the same {len(options.members):,} IMAGES as before"
            )
    return places[0]


def open_members(
    folder: Location, options: ConvertOptions
) -> Iterator[tuple[Location, ConvertOptions]]:
    """Each of several IMAGES, and its own options."""
    for member in options.members:
        source, _, path = member.partition(":")
        place, own = folder.join(path), dataclasses.replace(options, source=source, members=())
        yield place, resolve_options(place, own)


def join_inventories(
    folder: Location, found: Sequence[tuple[Location, ConvertOptions, Inventory]]
) -> Inventory:
    """One inventory of several; the classes of the first come first, then new ones of the next."""
    place, _, first = found[0]
    for other, _, inventory in found:
        if (inventory.columns, inventory.labelled) != (first.columns, first.labelled):
            raise UsageError(
                f"{other} has {_describe_kind(inventory)}, {place} has {_describe_kind(first)}: "
                "join images with the same kind of labels and columns"
            )
    classes = tuple(dict.fromkeys(itertools.chain(*(each.classes for _, _, each in found))))
    moved = [
        _move(keep_labels(inventory, classes), folder, place, options)
        for place, options, inventory in found
    ]
    named = itertools.chain(*(each.found_classes for each in moved))
    entries = Entries(itertools.chain(*(each.entries for each in moved)))
    entries.sort()
    skipped = itertools.chain(*(each.skipped for each in moved))
    return Inventory(
        classes=classes,
        entries=entries,
        skipped=tuple(sorted(skipped, key=lambda file: to_bytes(file.path))),
        rejected=tuple(itertools.chain(*(each.rejected for each in moved))),
        notes=tuple(itertools.chain(*(each.notes for each in moved))),
        columns=first.columns,
        found_classes=tuple(dict.fromkeys(named)),
        labelled=first.labelled,
    )


def keep_labels(inventory: Inventory, classes: Sequence[str]) -> Inventory:
    """Gives the classes of a scan the labels that they have in `classes`; new ones come after."""
    merged = tuple(dict.fromkeys((*classes, *inventory.classes)))
    places = {name: label for label, name in enumerate(merged)}
    labels = {label: places[name] for label, name in enumerate(inventory.classes)}
    labels[NO_LABEL] = NO_LABEL
    if all(label == place for label, place in labels.items()):
        return dataclasses.replace(inventory, classes=merged)
    relabelled = (_relabel(entry, inventory.columns, labels) for entry in inventory.entries)
    return dataclasses.replace(inventory, classes=merged, entries=Entries(relabelled))


def _relabel(entry: Entry, columns: Sequence[Column], labels: Mapping[int, int]) -> Entry:
    entry = entry._replace(label=labels[entry.label])
    places = [place for place, column in enumerate(columns) if column.kind == "labels"]
    if not places:
        return entry
    values = json.loads(entry.values)
    for place in places:
        numbers = [labels[label] for label in values[place]]
        values[place] = sorted(numbers) if columns[place].name == LABELS else numbers
    return entry._replace(values=encode_values(values))


def _find_common(images: Sequence[Location], roots: Sequence[Location]) -> Location:
    """The lowest folder that holds all of IMAGES, and what their paths are relative to."""
    folder = locate_base(images[0])
    while not all(folder.contains(place) for place in (*images, *roots)):
        if folder == folder.parent:
            places = " and ".join(str(place) for place in images[:2])
            raise UsageError(f"{places} lie in different stores: copy them into one")
        folder = folder.parent
    return folder.parent if folder in images else folder


def _share(name: str, images: Sequence[Location], resolved: Sequence[ConvertOptions]) -> Any:
    # Without boxes, their format does not matter.
    concerned = [own for own in resolved if name != "box_format" or own.boxes_column]
    values = [getattr(own, name) for own in concerned or resolved]
    if len({*values}) > 1:
        raise UsageError(
            f"{name.replace('_', ' ')} differs between {' and '.join(map(str, images[:2]))}: "
            "convert one of them to a data set first, and join that"
        )
    return values[0]


def _describe_kind(inventory: Inventory) -> str:
    columns = ", ".join(column.name for column in inventory.columns)
    labels = "one label an image" if inventory.labelled else "no single labels"
    return f"{labels} and {f'the columns {columns}' if columns else 'no columns'}"


def _move(
    inventory: Inventory, folder: Location, place: Location, options: ConvertOptions
) -> Inventory:
    """An inventory with paths that are relative to another folder."""
    root = locate_root(place, options)
    prefix = "" if root == folder else f"{root.relate(folder)}/"
    # The members of an archive lie in it, and images of all other kinds beside or below it.
    archive = prefix[:-1] if is_archive(root) else ""

    def move(entry: Entry) -> Entry:
        file = archive or (entry.file and prefix + entry.file)
        mask = entry.mask and move(entry.mask)
        return entry._replace(path=prefix + entry.path, file=file, mask=mask)

    def rename(left_out: Skipped) -> Skipped:
        return left_out._replace(path=prefix + left_out.path)

    return dataclasses.replace(
        inventory,
        entries=Entries(map(move, inventory.entries)),
        skipped=tuple(map(rename, inventory.skipped)),
        rejected=tuple(map(rename, inventory.rejected)),
    )
