"""What all steps of planning as a job share: where files lie, and how the parts are numbered."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Final

from converter.options import ConvertOptions
from converter.planning.part_files import read_facts
from converter.storage.location import Location

BUCKET_IMAGES: Final = 100_000
"""Images whose hashes or lines a worker holds at once, about: 200 bytes each."""

LISTING: Final = "listing"
"""How the name of each folder of a listing begins."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlanningJob:
    """One planning: sent along with each step, so a few hundred bytes."""

    images: Location
    folder: Location  # for what the steps leave
    scratch: Location
    options: ConvertOptions
    parts: int  # ranges of the listing
    run: str = ""  # another text each time: workers of a dead launcher may still be at its listing
    bucket_images: int = BUCKET_IMAGES

    @property
    def listing(self) -> Location:
        """What this run has listed; each run lists again."""
        return self.folder / f"{LISTING}{self.run}"

    @property
    def classes(self) -> Location:
        """What is known once all parts are listed and labelled."""
        return self.listing / "classes"

    def locate_listed(self, step: str) -> list[Location]:
        """The files of a step of the listing, in the order of the parts."""
        return [self.listing / name_part(step, number) for number in range(self.parts)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the listing found, as far as each later step needs it."""

    key: str  # another one if anything was listed differently
    error: str | None  # why there is nothing to plan
    classes: tuple[str, ...]  # in label order
    labels: dict[str, int]  # by name in the source
    bases: tuple[int, ...]  # the number of the first image of each part, and that of all
    bits: int  # of hashes, by which images are dealt out to buckets

    @property
    def parts(self) -> int:
        """Those of the listing; 0 if there is nothing to plan."""
        return len(self.bases) - 1

    @property
    def buckets(self) -> int:
        return 1 << self.bits if self.parts else 0


def read_found(job: PlanningJob) -> Found:
    """Reads what `converter.planning.listing_parts.merge_labels` left."""
    facts: dict[str, Any] = next(read_facts([job.classes]))
    values = {field.name: facts[field.name] for field in dataclasses.fields(Found)}
    lists = {name: tuple(values[name]) for name in ("classes", "bases")}
    return Found(**{**values, **lists})


def remove_run(job: PlanningJob) -> None:
    """Removes what a planning has left, but not what others have."""
    if job.classes.exists():
        clear(job.folder / read_found(job).key)
    clear(job.listing)
    job.folder.remove_empty()


def clear(folder: Location) -> None:
    """Removes a folder, as far as workers of a dead launcher do not write to it at this moment."""
    with contextlib.suppress(OSError):
        folder.remove_folder()


def locate_steps(job: PlanningJob, found: Found, step: str) -> Iterator[Location]:
    """The files of a later step, in the order of its parts or buckets."""
    count = found.buckets if step in ("group", "order") else found.parts
    return (locate_step(job, found, step, number) for number in range(count))


def locate_step(job: PlanningJob, found: Found, step: str, number: int) -> Location:
    """The file that a later step leaves; the next run keeps it if it lists the same."""
    return job.folder / found.key / name_part(step, number)


def name_part(step: str, number: int) -> str:
    """Names the file of a part."""
    return f"{step}-{number:05d}"
