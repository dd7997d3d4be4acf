"""Which records of a split are read, and which labels they are given."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from converter.errors import UsageError
from converter.format.manifest import Manifest
from converter.sizes import format_count
from reader.arrays import Numbers
from reader.examples.columns import FilePaths, read_labels
from reader.plan.element_spec import Given, choose_given
from reader.plan.read_options import ReadOptions
from reader.records.record_files import RecordFiles
from reader.sampling.selection import Selection, choose_labels, divide, select_all, select_chosen


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which records, with which labels.

    Attributes:
        class_names: in the order of the labels that are given.
        stored_classes: how many labels are stored.
        selection: which records.
        given: what is given besides the images.
        labels: int32 (stored_classes,), the label to give for each stored one.
        record_labels: int32 (records,), labels instead of the stored ones.
    """

    class_names: list[str]
    stored_classes: int
    selection: Selection
    given: Given
    labels: npt.NDArray[np.int32] | None = None
    record_labels: npt.NDArray[np.int32] | None = None


def choose_records(
    files: RecordFiles, manifest: Manifest, split: str, options: ReadOptions
) -> Choice:
    """Decides which records are read, and which labels they have.

    Raises:
        RecordError: a record is damaged that had to be looked at.
        UsageError: the options do not fit the data set.
    """
    choice = Choice(
        class_names=list(manifest.classes),
        stored_classes=len(manifest.classes),
        selection=select_all(len(files)),
        given=choose_given(manifest, options),
    )
    paths: list[str] = []
    if options.order == "path" or isinstance(options.labels, Mapping):
        paths = list(FilePaths(files, choice.selection))  # every record is read for it
    by_path = sort_paths(paths) if options.order == "path" else None
    if options.labels is not None:
        choice = _replace_labels(choice, options.labels, paths, by_path)
    elif options.class_names is not None:
        counts = manifest.splits[split].labels
        choice = _choose_classes(choice, files, counts, options.class_names)
    selection = choice.selection
    if options.validation_split is not None and options.subset is not None:
        if len(manifest.splits) > 1:
            raise UsageError(
                f"this data set was converted with splits, {', '.join(manifest.splits)}: read "
                "those instead of drawing a validation_split"
            )
        parts = divide(selection, options.validation_split, options.seed or 0)
        selection = parts[options.subset]
    if by_path is not None:
        wanted = np.zeros(len(files), np.bool_)
        wanted[selection.find_records(np.arange(selection.count))] = True
        selection = select_chosen(by_path[wanted[by_path]])
    return dataclasses.replace(choice, selection=selection)


def sort_paths(paths: Sequence[str]) -> Numbers:
    """The numbers of all records in the order of their originals' paths: int64 (records,).

    It is the order of `keras.utils.image_dataset_from_directory`: folder by folder, as `os.walk`
    lists them.
    """
    names = [os.path.split(path) for path in paths]
    return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)


def map_classes(stored: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.int32]:
    """The label to give for each stored one, int32 (stored,); -1 where its records are left out.

    Raises:
        UsageError: there is no such class, or one is named twice.
    """
    unknown = [name for name in wanted if name not in stored]
    if unknown or len(set(wanted)) != len(wanted) or not wanted:
        problem = "a class is named twice" if wanted else "no class is named"
        problem = f"{unknown[0]!r} is none of the classes" if unknown else problem
        raise UsageError(f"class_names: {problem}: there are {', '.join(stored)}")
    table = np.full(len(stored), -1, np.int32)
    table[[stored.index(name) for name in wanted]] = np.arange(len(wanted))
    return table


def _choose_classes(
    choice: Choice, files: RecordFiles, counts: Sequence[int], wanted: tuple[str, ...]
) -> Choice:
    labels, selection = map_classes(choice.class_names, wanted), choice.selection
    if len(wanted) < len(labels):
        selection = select_chosen(choose_labels(read_labels(files, counts), labels >= 0))
    return dataclasses.replace(choice, class_names=list(wanted), selection=selection, labels=labels)


def _replace_labels(
    choice: Choice,
    labels: Mapping[str, int] | Sequence[int],
    paths: Sequence[str],
    by_path: Numbers | None,
) -> Choice:
    records = choice.selection.count
    by_record = np.empty(records, np.int32)
    if isinstance(labels, Mapping):
        missing = [path for path in paths if path not in labels]
        if missing:
            raise UsageError(
                f"labels has no label for {missing[0]!r:.122} and {len(missing) - 1:,} others of "
                f"{format_count(records, 'record')}: give one for each path of file_paths"
            )
        by_record[:] = [labels[path] for path in paths]
    elif by_path is None:
        raise UsageError(
            "labels is a list, and records do not lie in the order of their paths: give "
            "order='path' too, which file_paths then has as well, or a dict from path to label"
        )
    elif len(labels) != records:
        raise UsageError(
            f"labels has {len(labels)} entries for {format_count(records, 'record')}: give one "
            "for each, in the order of the originals' paths"
        )
    else:
        by_record[by_path] = labels
    names = [str(label) for label in np.unique(by_record).tolist()]
    return dataclasses.replace(choice, class_names=names, record_labels=by_record)
