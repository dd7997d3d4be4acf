"""Writes the report on a data set: `pipelines.report`, and at the end of each conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter import progress
from converter.commits.receipts import open_receipts
from converter.errors import DatasetError, UsageError
from converter.format.manifest import read_manifest
from converter.names import fit_message
from converter.options import ConvertOptions
from converter.planning.plan import read_plan
from converter.sources.joined import Images, locate_images, locate_originals
from converter.storage.files import REPORT, Layout, write_file, write_named
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location

if TYPE_CHECKING:
    from pipelines.pages.report import Report


def report(
    out: AnyPath,
    file: AnyPath | None = None,
    *,
    images: Images | None = None,
    break_lock: bool = False,
) -> Report:
    """Writes `report.html` again: what a data set holds, for people, in one file.

    Args:
        out: the data set's folder, on a disk or in an object store.
        file: where to write; None for `report.html` in the data set's folder.
        images: what was converted, to show pictures of the files that were rejected.
        break_lock: treat a lock held by another machine as stale.

    Returns:
        What the report says.

    Raises:
        DatasetError: the data set is unfinished, or its manifest is damaged or of a newer version.
            Other damage is part of the report.
        LockedError: someone else is writing to `out`, where the report would be written.
        OutputError: the report cannot be written.
    """
    folder = locate(out)
    refuse_unfinished(folder)
    made = _make(folder, _locate(folder, images))
    if file is None:
        place = locate_output(out)
        with place.lock(break_lock=break_lock):
            _write(place, made)
    else:
        write_named(locate(file), made.to_html())
    return made


def write_report(folder: Location, images: Location) -> str:
    """Writes the report of a data set whose lock is held; returns why not, if it cannot."""
    try:
        _write(folder, _make(folder, images))
    except Exception as error:  # noqa: BLE001 (nothing about a report may fail a conversion)
        return fit_message(f"{folder / REPORT} was not written: {error}")
    return ""


def refuse_unfinished(folder: Location) -> None:
    """Raises a DatasetError for a conversion that is not finished, with what is missing."""
    layout = Layout(folder)
    if layout.manifest.is_file() or not layout.plan.is_file():
        return
    total = len(read_plan(folder).shards)
    with open_receipts(layout) as receipts:
        done = len(receipts)
    raise DatasetError(
        f"{folder} is not finished: {done:,} of {total:,} shards are; run the same convert command "
        "again, and then report"
    )


def _make(folder: Location, images: Location | None) -> Report:
    progress.begin("report", note="drawing samples")
    # NumPy, Pillow and Jinja2, which a conversion does not wait for at its start.
    from pipelines.pages.report import make_report  # noqa: PLC0415

    return make_report(folder, images)


def _write(folder: Location, made: Report) -> None:
    write_file(folder / REPORT, made.to_html(), Layout(folder).work)


def _locate(folder: Location, images: Images | None) -> Location | None:
    if images is None:
        return None
    for place in locate_images(images):
        if not place.exists():
            raise UsageError(f"{place} does not exist: give the images that were converted")
    return locate_originals(images, ConvertOptions.from_json(read_manifest(folder).options))
