"""The steps of planning as a job, in order: what is done before each, of how many parts, by what.

Each is a plain function of a `PlanningJob` and the number of a part. It reads files of the steps
before, writes one file, and does nothing if that is there: so parts may run anywhere, in any order,
twice or at the same time.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from converter.planning.hash_parts import group_bucket, hash_part
from converter.planning.listing_parts import label_part, list_part, merge_folders, merge_labels
from converter.planning.planning_job import PlanningJob, read_found
from converter.planning.ranked_parts import assign_part, order_bucket


class Step(NamedTuple):
    """A step, which begins when that before it is done."""

    name: str
    doing: str  # what a bar says meanwhile
    merge: Callable[[PlanningJob], None] | None  # by one process, before the parts
    count: Callable[[PlanningJob], int]  # parts, once that is done
    work: Callable[[PlanningJob, int], None]

    @property
    def file(self) -> str:
        """How the names of the files begin that it leaves."""
        return self.name.lower()


def _count_listed(job: PlanningJob) -> int:
    return job.parts


def _count_parts(job: PlanningJob) -> int:
    return read_found(job).parts


def _count_buckets(job: PlanningJob) -> int:
    return read_found(job).buckets


STEPS: Final = (
    Step("List", "listing", None, _count_listed, list_part),
    Step("Label", "labelling", merge_folders, _count_listed, label_part),
    Step("Hash", "hashing", merge_labels, _count_parts, hash_part),
    Step("Group", "comparing hashes", None, _count_buckets, group_bucket),
    Step("Assign", "assigning splits", None, _count_parts, assign_part),
    Step("Order", "ordering", None, _count_buckets, order_bucket),
)


def begin_step(job: PlanningJob, step: Step) -> int:
    """Does what comes before the parts of a step; returns their number."""
    if step.merge is not None:
        step.merge(job)
    return step.count(job)
