"""Leaves out images that a user does not want: `trim_labels`, `where`, `sample`, `take`, in order.

Classes come first, where a source labels its images: `folder_labels.number_names`. Duplicates,
masks and splits come after, so that images that are left out here are never opened.

`sample` and `take` go by a hash of seed and path, one image at a time: a group may lose images, and
what is left of it still stays together. It is another hash than the one that draws splits, or a
small sample would lie in one split.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.class_names import parse_renames
from converter.conditions import Field, bind_condition, parse_condition
from converter.entries import Entries
from converter.errors import UsageError
from converter.format import schema
from converter.format.schema import KINDS, Column
from converter.inventory import (
    NO_LABEL,
    Entry,
    Inventory,
    Note,
    NoteTally,
    Skipped,
    encode_values,
    leave_out,
    make_note,
    name_class,
)
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.split_names import SPLIT_FOLDERS

Chosen: TypeAlias = npt.NDArray[np.bool_]
"""Whether each image is taken: bool (images,)."""

# What a condition calls the columns with a meaning of their own; others have their own names.
_NAMES: Final = {
    schema.LABELS: "labels", schema.TARGET: "target", schema.CAPTION: "caption",
    schema.BOX_LABELS: "box_labels",
}  # fmt: skip
_WITHOUT_NAME: Final = ("boxes", "mask")  # kinds of columns that no condition is about


def choose_images(inventory: Inventory, options: ConvertOptions) -> Inventory:
    """Leaves out the images that `ChoiceOptions` do not take, but for classes.

    Raises UsageError if a condition does not fit the images, or none of them is left.
    """
    if notes := note_unknown(inventory.found_classes, options):
        inventory = dataclasses.replace(inventory, notes=(*inventory.notes, *notes))
    chosen = _trim_labels(inventory) if options.trim_labels else inventory
    for code, find in _STEPS.items():
        found = find(chosen, options)
        if found is not None:
            if not found.any():
                raise refuse_choice(code, len(found), options)
            chosen = _leave_out(chosen, found, code)
    if chosen is inventory:
        return inventory
    skipped = tuple(sorted(chosen.skipped, key=lambda file: to_bytes(file.path)))
    return dataclasses.replace(chosen, skipped=skipped)


def choose_part(
    inventory: Inventory, options: ConvertOptions
) -> tuple[Inventory, dict[str, tuple[int, int]]]:
    """Leaves out images of a part of all by `where` and `sample`, even if none is left.

    Also returns how many images there were before each step that was taken, and behind it, by its
    code. Raises UsageError if a condition does not fit the images.
    """
    counts = {}
    for code, find in _STEPS.items():
        found = find(inventory, options)
        if found is not None:
            counts[code] = len(found), int(found.sum())
            inventory = _leave_out(inventory, found, code)
    return inventory, counts


def refuse_choice(code: str, images: int, options: ConvertOptions) -> UsageError:
    """The error about a step that leaves out all images."""
    name = code.removeprefix("skipped_")
    return UsageError(
        f"{name} {getattr(options, name)!r} takes none of {images:,} images: there would "
        "be nothing to convert"
    )


def note_unknown(classes: Iterable[str], options: ConvertOptions) -> tuple[Note, ...]:
    """Notes classes that are to be renamed, and are not among those found: misspelt, perhaps."""
    renames, found = parse_renames(options.class_names or ()), {*classes}
    unknown = [old for old, new in renames.items() if old != new and old not in found]
    return (make_note("unknown_class", unknown),) if unknown else ()


def _leave_out(inventory: Inventory, chosen: Chosen, code: str) -> Inventory:
    entries = Entries.of(inventory.entries)
    left_out = (leave_out(entries.paths[n], code) for n in np.flatnonzero(~chosen).tolist())
    return dataclasses.replace(
        inventory,
        entries=entries.take(np.flatnonzero(chosen)),
        skipped=(*inventory.skipped, *left_out),
    )


def _find_fitting(inventory: Inventory, options: ConvertOptions) -> Chosen | None:
    if options.where is None:
        return None
    fits = bind_condition(parse_condition(options.where), list_fields(inventory))
    return np.fromiter(map(fits, inventory.entries), np.bool_, len(inventory.entries))


def _find_sampled(inventory: Inventory, options: ConvertOptions) -> Chosen | None:
    if options.sample is None:
        return None
    limit = int(options.sample * 2**64)  # of a share of 1, more than a uint64 can hold
    taken = (draw < limit for draw in _draw_choices(inventory, options))
    return np.fromiter(taken, np.bool_, len(inventory.entries))


def _find_taken(inventory: Inventory, options: ConvertOptions) -> Chosen | None:
    entries, count = Entries.of(inventory.entries), options.take
    if count is None:
        return None
    if isinstance(count, float):
        count = max(1, round(count * len(entries)))
    draws = np.fromiter(_draw_choices(inventory, options), np.uint64, len(entries))
    order = np.argsort(draws, kind="stable")
    taken = np.zeros(len(entries), np.bool_)
    taken[_put_classes_first(order, entries.labels, count)[:count]] = True
    return taken


def _draw_choices(inventory: Inventory, options: ConvertOptions) -> Iterator[int]:
    return (draw_choice(path, options) for path in Entries.of(inventory.entries).paths)


def _put_classes_first(
    order: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], count: int
) -> npt.NDArray[np.int64]:
    """Moves the first image of each class to the front, if there is room for all of them."""
    _, firsts = np.unique(labels[order], return_index=True)
    if len(firsts) > count:
        return order
    return np.concatenate((order[firsts], np.delete(order, firsts)))


# The codes of images that are left out, each with what finds those to take; None for all.
_STEPS: Final[dict[str, Callable[[Inventory, ConvertOptions], Chosen | None]]] = {
    "skipped_where": _find_fitting,
    "skipped_sample": _find_sampled,
    "skipped_take": _find_taken,
}


def draw_choice(path: str, options: ConvertOptions) -> int:
    """Hashes a path with the seed; uniform below 2**64."""
    key = options.seed.to_bytes(8, "little")
    digest = hashlib.blake2b(to_bytes(path), digest_size=8, key=key, person=b"choice").digest()
    return int.from_bytes(digest, "little")


def list_fields(inventory: Inventory) -> dict[str, Field]:
    """What a condition may name: facts about each entry, and the columns that it carries."""
    fields = {
        "path": Field(is_number=False, read=lambda entry: (entry.path,)),
        "bytes": Field(is_number=True, read=lambda entry: (entry.size_bytes,)),
        "group": Field(is_number=False, read=lambda entry: _list_present(entry.group)),
        "split": Field(
            is_number=False,
            read=lambda entry: _list_present(entry.split),
            spell=lambda name: SPLIT_FOLDERS.get(name.lower(), name),
        ),
    }
    if inventory.labelled:
        name = functools.partial(name_class, inventory)
        fields["label"] = Field(is_number=False, read=lambda entry: _list_present(name(entry)))
    for place, column in enumerate(inventory.columns):
        if column.kind not in _WITHOUT_NAME:
            called = _NAMES.get(column.name, column.name.removeprefix(schema.OBJECTS))
            fields.setdefault(called, _make_field(place, column, inventory.classes))
    return fields


def _make_field(place: int, column: Column, classes: Sequence[str]) -> Field:
    def read(entry: Entry) -> list[Any]:
        return _list_present(_parse_values(entry.values)[place])

    def read_names(entry: Entry) -> list[str]:
        return [classes[label] for label in _parse_values(entry.values)[place]]

    if column.kind == "labels":
        return Field(is_number=False, read=read_names)
    return Field(is_number=KINDS[column.kind] is not str, read=read)


# Of the last image, because a condition may ask for several of its values.
@functools.lru_cache(maxsize=1)
def _parse_values(values: str) -> list[Any]:
    found: list[Any] = json.loads(values)
    return found


def _list_present(value: Any) -> list[Any]:
    """The values that are not missing."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if each != "" and not _is_nan(each)]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _trim_labels(inventory: Inventory) -> Inventory:
    """Takes labels and boxes of other classes off images, and leaves out those without any left."""
    places = {
        column.name: place
        for place, column in enumerate(inventory.columns)
        if column.kind in ("labels", "boxes") or schema.is_of_boxes(column.name)
    }
    if not places.keys() & {schema.LABELS, schema.BOX_LABELS}:
        raise UsageError(
            "trim labels is for images with several labels, or boxes with labels, and these have "
            "neither: leave it out"
        )
    tally = NoteTally()
    skipped: list[Skipped] = []
    entries = Entries(_trim_entries(inventory.entries, places, tally, skipped))
    return dataclasses.replace(
        inventory,
        entries=entries,
        skipped=(*inventory.skipped, *skipped),
        notes=(*inventory.notes, *tally.list_notes()),
    )


def _trim_entries(
    entries: Iterable[Entry], places: Mapping[str, int], tally: NoteTally, skipped: list[Skipped]
) -> Iterator[Entry]:
    named = [places[name] for name in (schema.LABELS, schema.BOX_LABELS) if name in places]
    for entry in entries:
        values = json.loads(entry.values)
        labels = [label for place in named for label in values[place]]
        dropped = labels.count(NO_LABEL)
        if dropped and dropped == len(labels):
            skipped.append(leave_out(entry.path, "skipped_no_label"))
        elif dropped:
            tally.add("trimmed_labels", entry.path, total=dropped)
            yield entry._replace(values=_trim_values(values, places))
        else:
            yield entry


def _trim_values(values: list[Any], places: Mapping[str, int]) -> str:
    if (place := places.get(schema.BOX_LABELS)) is not None:
        known = [label != NO_LABEL for label in values[place]]
        for name, each in places.items():
            if name != schema.LABELS:
                values[each] = list(itertools.compress(values[each], known))
    if (place := places.get(schema.LABELS)) is not None:
        values[place] = [label for label in values[place] if label != NO_LABEL]
    return encode_values(values)
