"""Lists images as a job, and finds their classes: a range of paths at a time.

launcher       list_top        folders in the root, and the ranges
each part      list_part       paths, sizes, and what is skipped
one            merge_folders   folders in the root of a store
each part      label_part      splits and classes by their folders, and `where` and `sample`
one            merge_labels    labels, shared sizes, the number of buckets
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from converter.class_names import parse_renames
from converter.entries import Entries
from converter.errors import UsageError
from converter.images.conversion import name_generator
from converter.inventory import NO_LABEL, Inventory, Note, Skipped, note_empty
from converter.names import from_bytes, to_bytes, to_system
from converter.options import ConvertOptions
from converter.planning.key_ranges import make_ranges
from converter.planning.part_files import (
    pack_entries,
    read_facts,
    read_pieces,
    to_numbers,
    unpack_entries,
    write_part,
)
from converter.planning.planning_job import LISTING, Found, PlanningJob, clear, name_part
from converter.sources.duplicates import Sizes, find_shared
from converter.sources.folder_labels import Labeller, number_names, order_classes
from converter.sources.folders import (
    Keys,
    check_folder,
    find_subfolders,
    list_keys,
    refuse_empty_prefix,
)
from converter.sources.image_choice import choose_part, note_unknown, refuse_choice
from converter.sources.name_notes import find_unused, note_folders, note_twins
from converter.sources.scan import assign_folders, label_images, refuse_empty, refuse_flat
from converter.sources.split_names import SPLIT_FOLDERS
from converter.storage.location import Location

_SIZES: Final = 6  # the piece that `label_part` leaves behind those of files and images


def list_top(job: PlanningJob, bounds: Sequence[str]) -> None:
    """Begins a listing, in place of that of an earlier run: writes what the launcher knows."""
    for name in job.folder.list_names(LISTING):
        clear(job.folder / name)
    job.listing.make_folder()
    ranges = [(from_bytes(k.after), k.until and from_bytes(k.until)) for k in make_ranges(bounds)]
    facts = {"ranges": ranges, "folders": {} if job.images.is_remote else _list_tops(job.images)}
    write_part(job.listing / "top", job.scratch, facts)


def _list_tops(images: Location) -> dict[str, list[str]]:
    """The folders in the root of a disk, which may be empty, and those in splits."""
    root, tops = check_folder(images), {}
    for top in sorted(find_subfolders(root), key=to_bytes):
        is_split = top.lower() in SPLIT_FOLDERS
        tops[top] = sorted(find_subfolders(root / to_system(top))) if is_split else []
    return tops


def list_part(job: PlanningJob, number: int) -> None:
    """Lists one range of paths."""
    path = job.listing / name_part("list", number)
    if path.exists():
        return
    after, until = next(read_facts([job.listing / "top"]))["ranges"][number]
    keys = Keys(to_bytes(after), None if until is None else to_bytes(until))
    skipped: list[Skipped] = []
    versions = hashlib.sha256()
    entries, folders = list_keys(
        job.images, keys, skipped, lambda version: versions.update(version.encode() + b"\n")
    )
    pieces = [_dump_skipped(skipped), *pack_entries(entries)]
    for piece in pieces:
        versions.update(piece)
    facts = {
        "images": len(entries),
        "skipped": len(skipped),
        "folders": {top: _keep_split(top, inner) for top, inner in sorted(folders.items())},
        "version": versions.hexdigest(),
    }
    write_part(path, job.scratch, facts, pieces)


def _keep_split(top: str, inner: Collection[str]) -> list[str]:
    return sorted(inner) if top.lower() in SPLIT_FOLDERS else []


def _dump_skipped(skipped: Iterable[Skipped]) -> bytes:
    ordered = sorted(skipped, key=lambda file: to_bytes(file.path))
    return b"".join(json.dumps(file).encode("ascii") + b"\n" for file in ordered)


def load_skipped(data: bytes) -> list[Skipped]:
    """What is skipped, from the first piece of a file."""
    return [Skipped(*json.loads(line)) for line in data.splitlines()]


def merge_folders(job: PlanningJob) -> None:
    """Finds the folders in the root, and whether they are splits."""
    path = job.listing / "folders"
    if path.exists():
        return
    listed = [*read_facts(job.locate_listed("list"))]
    folders: dict[str, set[str]] = {}
    (top,) = read_facts([job.listing / "top"])
    for found in (part["folders"] for part in [*listed, top]):
        for name, inner in found.items():
            folders.setdefault(name, set()).update(inner)
    listed_any = any(part["images"] + part["skipped"] for part in listed)
    facts = {
        "error": _find_fault(job, folders, empty=not listed_any),
        "folders": {name: sorted(inner) for name, inner in folders.items()},
    }
    write_part(path, job.scratch, facts)


def _find_fault(job: PlanningJob, folders: Mapping[str, set[str]], *, empty: bool) -> str | None:
    try:
        if job.images.is_remote and empty:
            raise refuse_empty_prefix(job.images)
        if not folders and job.options.label_from == "top":
            raise refuse_flat(job.images)
        Labeller(folders, job.options)
    except UsageError as error:
        return str(error)
    return None


def label_part(job: PlanningJob, number: int) -> None:
    """Gives the images of a part their splits and classes, and leaves out those not wanted."""
    path = job.listing / name_part("label", number)
    (shared,) = read_facts([job.listing / "folders"])
    if path.exists() or shared["error"]:
        return
    found, data = _read_images(job.listing / name_part("list", number))
    skipped = load_skipped(data)
    folders = {top: {*inner} for top, inner in shared["folders"].items()}
    entries, names, all_names = _label(found, Labeller(folders, job.options), job.options, skipped)
    renames = parse_renames(job.options.class_names) if job.options.class_names else {}
    labelled = len(entries)
    unused = find_unused(entries, folders)
    inventory, counts = choose_part(
        Inventory(
            classes=tuple(renames.get(name, name) for name in names),
            entries=entries,
            skipped=tuple(skipped),
            labelled=job.options.label_from != "none",
        ),
        job.options,
    )
    entries = Entries.of(inventory.entries)
    facts = {
        "labelled": labelled,
        "images": len(entries),
        "counts": counts,
        "names": names,
        "all_names": all_names,
        "used": np.unique(entries.labels).tolist(),
        "unused": sorted(unused),
        "codes": sorted({file.code for file in skipped}),
    }
    columns = [_dump_skipped(inventory.skipped), *pack_entries(entries)]
    write_part(path, job.scratch, facts, [*columns, _keep_two(entries.sizes).tobytes()])


def _read_images(path: Location) -> tuple[Entries, bytes]:
    """The images in a file of a listing, and what is skipped, as `load_skipped` takes it."""
    (pieces,) = read_pieces([path], 0, _SIZES)
    return unpack_entries(pieces[1:]), pieces[0]


def _label(
    found: Entries, labeller: Labeller, options: ConvertOptions, skipped: list[Skipped]
) -> tuple[Entries, list[str], list[str]]:
    """The images, labelled by place among the names that are taken; those, and all names."""
    assigned = assign_folders(found, labeller)
    given = parse_renames(options.class_names) if options.class_names else None
    all_names = assigned.list_names()
    taken = [name for name in all_names if given is None or name in given]
    places = {name: place for place, name in enumerate(taken)}
    return label_images(found, assigned, places, skipped), taken, all_names


class Part(NamedTuple):
    """The images of a part that are wanted, with labels, and what is not converted."""

    entries: Entries
    skipped: bytes  # as `load_skipped` takes it
    first: int  # the number of the first image among those of all parts


def read_part(job: PlanningJob, found: Found, number: int) -> Part:
    """Reads what `label_part` left, with the labels that are known since."""
    path = job.listing / name_part("label", number)
    entries, skipped = _read_images(path)
    (facts,) = read_facts([path])
    # One more at the end, for the number -1.
    labels = np.array([*(found.labels[name] for name in facts["names"]), NO_LABEL], np.int32)
    entries.assign(labels[entries.labels], entries.splits)
    return Part(entries, skipped, found.bases[number])


def _keep_two(sizes: Sizes) -> Sizes:
    """Sizes in order, each at most twice: enough to know which are shared."""
    distinct, counts = np.unique(sizes, return_counts=True)
    return np.repeat(distinct, np.minimum(counts, 2))


# What is found where there is nothing to plan.
_NOTHING: Final[dict[str, Any]] = {
    "key": "none", "classes": [], "labels": {}, "bases": [0], "bits": 0, "notes": [],
    "twins": [], "empty": [],
}  # fmt: skip


def merge_labels(job: PlanningJob) -> None:
    """Numbers classes, parts and buckets, and finds the sizes that files share."""
    if job.classes.exists():
        return
    (shared,) = read_facts([job.listing / "folders"])
    facts, sizes = {"error": shared["error"], **_NOTHING}, np.empty(0, np.int64)
    if not shared["error"]:
        paths = job.locate_listed("label")
        try:
            facts |= _merge_facts(job, shared["folders"], [*read_facts(paths)])
        except UsageError as error:
            facts["error"] = str(error)
        for pieces in read_pieces(paths, _SIZES):
            sizes = _keep_two(np.concatenate((sizes, to_numbers(pieces[0]))))
        (job.folder / facts["key"]).make_folder()
    shared_sizes = find_shared(sizes, job.options.max_file_bytes)
    write_part(job.classes, job.scratch, facts, [shared_sizes.tobytes()])


def _merge_facts(
    job: PlanningJob, folders: Mapping[str, Sequence[str]], parts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    options = job.options
    labeller = Labeller({top: {*inner} for top, inner in folders.items()}, options)
    all_names = {name for part in parts for name in part["all_names"]}
    named = sorted(labeller.list_classes() | all_names, key=to_bytes)
    classes = order_classes(named, options)
    labels = number_names(classes, options)
    _check_counts(job, classes, parts)
    bases = [0, *np.cumsum([part["images"] for part in parts]).tolist()]
    unused = set.intersection(*({*part["unused"]} for part in parts))
    versions = [part["version"] for part in read_facts(job.locate_listed("list"))]
    asked = [name_generator(), str(job.images), options.to_json(), options.policies_to_json()]
    bits = max(0, (max(bases[-1] - 1, 0) // job.bucket_images).bit_length())
    # Folders beside: one without an image is a class, and moves the labels of others.
    digest = hashlib.sha256(json.dumps([versions, asked, bases, bits, folders]).encode())
    return {
        "key": digest.hexdigest()[:32],
        "classes": classes,
        "labels": labels,
        "bases": bases,
        "bits": bits,
        "notes": [*note_folders(unused), *note_unknown(named, options)],
        "twins": note_twins(classes),
        "empty": _note_empty(classes, labels, parts),
    }


def _check_counts(
    job: PlanningJob, classes: Sequence[str], parts: Sequence[Mapping[str, Any]]
) -> None:
    if not any(part["labelled"] for part in parts):
        codes = {code for part in parts for code in part["codes"]}
        raise refuse_empty(job.images, classes, codes)
    for code in parts[0]["counts"]:
        before, left = (sum(part["counts"][code][n] for part in parts) for n in (0, 1))
        if not left:
            raise refuse_choice(code, before, job.options)


def _note_empty(
    classes: Sequence[str], labels: Mapping[str, int], parts: Sequence[Mapping[str, Any]]
) -> tuple[Note, ...]:
    used: set[int] = set()
    for part in parts:
        numbers = {NO_LABEL: NO_LABEL, **dict(enumerate(labels[name] for name in part["names"]))}
        used.update(numbers[number] for number in part["used"])
    return () if NO_LABEL in used else note_empty(classes, used)
