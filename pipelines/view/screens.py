"""What the pages show: thumbnails of a split, one record with all its features, the classes."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import numpy as np
from flask import abort, render_template, request

from converter.errors import ShardmillError
from converter.names import fold_name
from pipelines.pages import thumbnails
from pipelines.view.albums import WHOLE_PIXELS, Album, DataSet, describe_fault
from pipelines.view.listings import MAX_FOUND, Filter
from pipelines.view.markup import describe_feature

PAGE_RECORDS: Final = 60
PAGE_CLASSES: Final = 200
SMALL_PIXELS: Final = 320  # images of shorter sides are shown enlarged
PATIENCE_S: Final = 0.25
"""How long a page waits for a listing: a small one is complete by then."""


class View(NamedTuple):
    """What is looked at: a split, and which of its records."""

    album: Album
    wanted: Filter

    @classmethod
    def of_request(cls, data: DataSet, split: str) -> View:
        album = find_album(data, split)
        label = read_number(request.args.get("class", ""), len(album.classes))
        return cls(album, Filter(label, request.args.get("q", "").strip()))

    def address(self, number: int | None = None, **more: Any) -> str:
        """The address of one record, or of a page of thumbnails, with the same filter."""
        told = {"class": self.wanted.label, "q": self.wanted.text or None, **more}
        query = urlencode({name: value for name, value in told.items() if value is not None})
        place = f"/s/{self.album.split}/" + ("" if number is None else str(number))
        return f"{place}?{query}" if query else place

    def find(self) -> Any:
        """The numbers of the records, as far as they are known."""
        if not self.wanted:
            return range(len(self.album))
        self.album.listing.start(PATIENCE_S)
        return self.album.listing.find(self.wanted)

    @property
    def needs_consent(self) -> bool:
        """Whether a search would first have to fetch all shards from a store."""
        listing = self.album.listing
        return self.album.is_remote and not listing.started and "fetch" not in request.args


def show_page(view: View) -> str:
    """A page of thumbnails."""
    if view.wanted and view.needs_consent:
        return render_template("consent.html", view=view, address=view.address(fetch="yes"))
    numbers = view.find()
    page, pages = _choose_page(len(numbers), PAGE_RECORDS)
    shown = [int(n) for n in numbers[(page - 1) * PAGE_RECORDS : page * PAGE_RECORDS]]
    return render_template(
        "page.html",
        view=view,
        tiles=list(zip(shown, view.album.summarize(shown), strict=True)) if shown else [],
        found=len(numbers),
        at_limit=bool(view.wanted.text) and len(numbers) >= MAX_FOUND,
        progress=view.album.listing.progress if view.wanted else None,
        page=page,
        pages=pages,
    )


def list_classes(view: View) -> str:
    """The classes, a page of them, with counts where records have one class each."""
    wanted, counts = fold_name(view.wanted.text), view.album.counts
    chosen = [
        (label, name, counts[label] if label < len(counts) else None)
        for label, name in enumerate(view.album.classes)
        if wanted in fold_name(name)
    ]
    page, pages = _choose_page(len(chosen), PAGE_CLASSES)
    base = View(view.album, Filter()).address() + "classes"
    text = {"q": view.wanted.text} if view.wanted.text else {}

    def address(page: int) -> str:
        return f"{base}?{urlencode({**text, 'page': page})}"

    return render_template(
        "classes.html", view=View(view.album, Filter()), q=view.wanted.text, found=len(chosen),
        address=address,
        chosen=chosen[(page - 1) * PAGE_CLASSES : page * PAGE_CLASSES], page=page, pages=pages,
    )  # fmt: skip


def _choose_page(count: int, size: int) -> tuple[int, int]:
    """The page that is asked for, and how many there are, of so many things with `size` on each."""
    pages = max(1, math.ceil(count / size))
    return min(read_number(request.args.get("page", ""), 10**9) or 1, pages), pages


def find_target(view: View, text: str) -> str:
    """Where a jump leads: to the record of that number, else to what has that name."""
    text = text.strip()
    digits = text.replace(",", "")
    number = read_number(digits, 10**12)
    if number is not None and number < len(view.album):
        return view.address(number)
    if not text:
        return view.address()
    search = View(view.album, Filter(None, text))
    if not search.needs_consent and search.album.listing.start(PATIENCE_S).done:
        found = search.album.listing.find(search.wanted)
        if len(found) == 1:
            return View(view.album, Filter()).address(int(found[0]))
    return search.address()


def show_record(view: View, number: int) -> str:
    """One record: its picture, what is drawn over it, and all its features."""
    numbers = view.find() if not view.needs_consent else range(len(view.album))
    before, after = find_neighbours(numbers, number)
    shown = {"view": view, "number": number, "before": before, "after": after,
             "place": view.album.find_place(number)}  # fmt: skip
    shown["page"] = 1 + _find_row(numbers, number) // PAGE_RECORDS
    try:
        record = view.album.read(number)
        features = view.album.read_features(number)
    except (ShardmillError, OSError) as error:
        return render_template("record.html", **shown, record=None, fault=describe_fault(error))
    shown |= {
        "record": record,
        "features": [describe_feature(*feature) for feature in sorted(features.items())],
    }
    try:
        labels = []
        if record.mask is not None:
            labels = thumbnails.list_mask_labels(record, view.album.classes)
    except ShardmillError as error:
        shown["fault"] = describe_fault(error)
    enlarged = max(record.height, record.width) < SMALL_PIXELS
    return render_template(
        "record.html", **shown, boxes=thumbnails.list_boxes(record), mask_labels=labels,
        enlarged=enlarged,
        is_reduced=max(record.height, record.width) > WHOLE_PIXELS, whole_pixels=WHOLE_PIXELS,
    )  # fmt: skip


def find_neighbours(numbers: Any, number: int) -> tuple[int | None, int | None]:
    """The records before and after one, among those shown."""
    row = _find_row(numbers, number)
    before = int(numbers[row - 1]) if row > 0 else None
    next_row = row + (row < len(numbers) and int(numbers[row]) == number)
    return before, int(numbers[next_row]) if next_row < len(numbers) else None


def _find_row(numbers: Any, number: int) -> int:
    if isinstance(numbers, range):
        return min(number, len(numbers))
    return int(np.searchsorted(numbers, number))


def find_album(data: DataSet, split: str) -> Album:
    """The split of that name; ends the request if there is none."""
    if (album := data.albums.get(split)) is None:  # an empty one counts as false
        abort(404)
    return album


def read_number(text: str, limit: int) -> int | None:
    """The number that a text is, if it is one below a limit."""
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        return None
    return int(text) if int(text) < limit else None
