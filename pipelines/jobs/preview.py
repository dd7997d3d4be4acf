"""What a conversion would do: its shards, proposed from a scan and a sample, and its output.

Nothing here writes a byte or imports Beam.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from converter import progress
from converter.commits.commit import list_finished
from converter.entries import Entries
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.images.openers import register_formats
from converter.inventory import Inventory, Note
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, read_plan, refuse_other_plan
from converter.planning.splits import assign_splits, plan_shards
from converter.sources.inputs import locate_root
from converter.sources.joined import Images
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.files import SHARD_SUFFIX, Layout
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.locks import check_broken
from converter.upkeep.comparisons import ClassChanges, compare_classes
from converter.upkeep.contents import OnShard
from converter.upkeep.updates import Update, plan_update
from converter.writing.estimates import Estimate, bound_record_bytes, estimate_records
from converter.writing.records import check_scan
from pipelines.jobs.bars import follow
from pipelines.jobs.outputs import check_room, locate_sizes
from pipelines.jobs.request import SETTINGS, Request, make_requests, make_settings


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """The plan of a conversion, and sizes measured on a sample, or None if none was needed."""

    draft: Draft
    estimate: Estimate | None

    @property
    def bytes(self) -> float:
        """About how many bytes the shards take; 0 if no sample was needed."""
        return self.estimate.record_bytes * self.draft.images if self.estimate else 0.0

    @property
    def source_bytes(self) -> int:
        return int(Entries.of(self.draft.inventory.entries).sizes.sum())

    def count_labels(self) -> list[int]:
        """Counts the images of each class, in label order."""
        inventory = self.draft.inventory
        return Entries.of(inventory.entries).count_labels(len(inventory.classes))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What `pipelines.convert` would do to one data set.

    Attributes:
        out: the data set's folder.
        options: of the conversion.
        action: `write` a new data set, `resume` an interrupted conversion, `replace` a finished
            data set, `update` it, or do `nothing`.
        manifest: of the data set as it is now, or None.
        proposal: images and shards of the new data set; None for `update` and `nothing`.
        finished: number of shards that an interrupted run finished and that would be kept.
        discards: whether an unfinished conversion of something else would be given up.
        update: the difference that an update finds, or None.
        classes: what that means for the classes.
    """

    out: Location
    options: ConvertOptions
    action: str
    manifest: Manifest | None = None
    proposal: Proposal | None = None
    finished: int = 0
    discards: bool = False
    update: Update | None = None
    classes: ClassChanges = dataclasses.field(default_factory=ClassChanges)

    @property
    def _draft(self) -> Draft | None:
        if self.update:
            return self.update.draft
        return self.proposal.draft if self.proposal else None

    @property
    def shards(self) -> tuple[int, int]:
        """How many shards would be written, and how many kept."""
        if self.action == "nothing":
            return 0, len(self.manifest.shards) if self.manifest else 0
        total = sum(map(len, self._draft.shard_records.values())) if self._draft else 0
        kept = len(self.update.kept) if self.update else self.finished
        return total - kept, kept

    @property
    def recognized(self) -> str:
        """What the images were taken for, in words; empty if `options.source` says it all."""
        return self._draft.inventory.recognized if self._draft else ""

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is odd about the images, as far as a scan shows."""
        return self._draft.inventory.notes if self._draft else ()


Planner: TypeAlias = Callable[[Sequence[Request], float], dict[Location, Proposal]]
"""Proposes shards for each request, if their room in bytes is that."""


def plan(
    images: Images, out: AnyPath, options: ConvertOptions | None = None, **settings: Any
) -> Preview:
    """Finds out what `pipelines.convert` would do, without writing a byte or taking a lock.

    The arguments are those of `convert`; of the settings, only `mode` matters.

    Raises:
        UsageError: `convert` would refuse, with the same words.
        LockedError: someone else is writing to `out`.
        ShardmillError: an image or a data set cannot be read.
    """
    (preview,) = preview_outputs(images, {locate_output(out): options}, **settings)
    return preview


def plan_sizes(
    images: Images, out: AnyPath, sizes: Sequence[ConvertOptions], **settings: Any
) -> dict[str, Preview]:
    """Does for `pipelines.convert_sizes` what `plan` does for `convert`.

    Returns:
        A preview for each size, by the name of its folder in `out`.
    """
    outs = locate_sizes(locate_output(out), sizes)
    return {preview.out.name: preview for preview in preview_outputs(images, outs, **settings)}


def preview_outputs(
    images: Images, outs: Mapping[Location, ConvertOptions | None], **settings: Any
) -> list[Preview]:
    """Does what `plan` and `plan_sizes` do; a preview for each output, in order."""
    run = make_settings(SETTINGS, **settings)
    requests = make_requests(images, outs, run)
    for request in requests:
        if request.needs_lock and (owner := request.out.find_owner()):
            check_broken(request.out, owner, break_lock=run.break_lock)
    with follow(shown=run.progress):
        if run.mode == "update":
            inventory = scan_images(requests[0].images, requests[0].options)
            return [_preview_update(request, inventory) for request in requests]
        ended = any(request.is_ending for request in requests)
        finished, proposals = compare(requests, ended=ended, always_sample=True)
        return [
            _preview(request, finished.get(request.out), proposals.get(request.out))
            for request in requests
        ]


def _preview(request: Request, manifest: Manifest | None, proposal: Proposal | None) -> Preview:
    out, options, target = request.out, request.options, request.target
    if proposal is None:
        return Preview(out=out, options=options, action="nothing", manifest=manifest)
    replaces = target != out
    if replaces:
        with contextlib.suppress(DatasetError):  # a damaged one can be replaced, too
            manifest = read_manifest(request.current)
    resumed = request.has_plan(proposal.draft)
    return Preview(
        out=out,
        options=options,
        action="replace" if replaces else "resume" if resumed else "write",
        manifest=manifest,
        proposal=proposal,
        finished=len(list_finished(read_plan(target))) if resumed else 0,
        discards=Layout(target).plan.is_file() and not resumed,
    )


def _preview_update(request: Request, inventory: Inventory) -> Preview:
    request.check_update(inventory)
    manifest = read_manifest(request.current)
    update, classes = compare_update(request, manifest, inventory)
    return Preview(
        out=request.out,
        options=request.options,
        action="update" if update.needed else "nothing",
        manifest=manifest,
        update=update,
        classes=classes,
    )


def compare_update(
    request: Request, manifest: Manifest, inventory: Inventory, on_shard: OnShard | None = None
) -> tuple[Update, ClassChanges]:
    """Compares a finished data set with its images."""
    folder, root = request.current, request.root
    update = plan_update(folder, manifest, root, inventory, on_shard)
    if update.needed:
        check_room(request.out, update.records * manifest.total_bytes / manifest.totals.written)
    lost = bool(update.removed or update.changed)
    return update, compare_classes(folder, manifest, root, update.draft, lost=lost)


def compare(
    requests: Sequence[Request],
    *,
    ended: bool,
    always_sample: bool = False,
    planner: Planner | None = None,
) -> tuple[dict[Location, Manifest], dict[Location, Proposal]]:
    """Scans once; gives manifests of what is finished as requested, and proposals for the others.

    `ended` says that a killed run left something to complete in one of the outputs. `planner` is
    what scans and proposes, if it is not this process.
    """
    overwrite = requests[0].run.mode == "overwrite"
    finished = [request for request in requests if request.is_finished]
    # Options first, because a scan may take minutes.
    done = {} if overwrite else {request.out: request.check_options() for request in finished}
    # A record may be stored three times: in its shard, and while it waits for two others.
    room = requests[0].out.measure_room() / (3 * len(requests))
    if planner is None:
        planner = functools.partial(_propose_all, always_sample=always_sample)
    proposals = planner(requests, room)
    if overwrite:
        done = _find_replaced(finished, proposals, ended=ended)
    else:
        for request in requests:
            _check_output(request, proposals[request.out].draft, done.get(request.out))
    left = [request for request in requests if request.out not in done]
    if left:
        _check_room(left, [proposals[request.out] for request in left])
    return done, {request.out: proposals[request.out] for request in left}


def _propose_all(
    requests: Sequence[Request], room: float, *, always_sample: bool
) -> dict[Location, Proposal]:
    inventory = scan_images(requests[0].images, requests[0].options)
    propose_one = functools.partial(
        propose, always_sample=always_sample, room=room, inventory=inventory
    )
    return {request.out: propose_one(request.images, request.options) for request in requests}


def propose(
    images: AnyPath,
    options: ConvertOptions,
    *,
    always_sample: bool = True,
    room: float = math.inf,
    inventory: Inventory | None = None,
) -> Proposal:
    """Plans the shards of a conversion, whatever the output; scans if there is no `inventory` yet.

    If there is one, the options have to be those of that scan: completed by `resolve_options`.

    Without `always_sample`, a sample is converted only if the number of shards depends on it, or if
    the shards might not fit into `room`, in bytes.
    """
    folder = locate(images)
    register_formats(options.formats)  # a missing extra shows here, not in every worker
    if inventory is None:
        options = resolve_options(folder, options)
        inventory = scan_images(folder, options)
    check_scan(inventory, options)
    progress.begin("plan", note="drawing splits")
    splits = assign_splits(inventory.entries, options, inventory.duplicates)
    draft = Draft(inventory=inventory, splits=splits, shard_records={})
    return cut_shards(draft, folder, options, always_sample=always_sample, room=room)


def cut_shards(
    draft: Draft, images: Location, options: ConvertOptions, *, always_sample: bool, room: float
) -> Proposal:
    """Plans the shards of a draft that has none yet; the options are those that `propose` takes."""
    splits, inventory = draft.splits, draft.inventory
    estimate, record_bytes = None, bound_record_bytes(options)
    doubtful = record_bytes * draft.images > room
    if math.isinf(record_bytes):
        decided = options.num_shards is not None
    else:
        # Records of the largest possible size make as many shards as empty ones would.
        decided = plan_shards(splits, options, record_bytes) == plan_shards(splits, options, 0)
    if always_sample or doubtful or not decided:
        sample = max(splits.values(), key=len)
        estimate = estimate_records(sample, inventory, locate_root(images, options), options)
        record_bytes = estimate.record_bytes
    shard_records = plan_shards(splits, options, record_bytes)
    draft = dataclasses.replace(draft, shard_records=shard_records)
    return Proposal(draft=draft, estimate=estimate)


def _check_output(request: Request, draft: Draft, manifest: Manifest | None) -> None:
    if manifest is None:
        target = request.target
        if Layout(target).plan.is_file():  # a digest takes 3 s for a million images
            refuse_other_plan(target, digest_plan(draft, request.options), request.options)
    elif manifest.plan != digest_plan(draft, request.options):
        raise request.refuse_finished(("files were added, changed or removed",))


def _find_replaced(
    finished: Sequence[Request], proposals: Mapping[Location, Proposal], *, ended: bool
) -> dict[Location, Manifest]:
    """What a killed `--overwrite` has replaced already and need not replace again."""
    begun = [request for request in finished if request.has_plan(proposals[request.out].draft)]
    done = {}
    for request in finished if ended or begun else ():
        if request not in begun:
            with contextlib.suppress(UsageError):  # it differs, so it is yet to be replaced
                manifest = request.check_options()
                _check_output(request, proposals[request.out].draft, manifest)
                done[request.out] = manifest
    return done


def _check_room(requests: Sequence[Request], proposals: Sequence[Proposal]) -> None:
    needed = [proposal.bytes for proposal in proposals]
    in_order = proposals[0].draft.is_read_in_order(requests[0].root)
    present = sum(
        size
        for request in requests
        for name, size in request.target.list_sizes().items()
        if name.endswith(SHARD_SUFFIX)
    )
    # The records of all sizes but one wait for the shards of that one. Those of images that are
    # read in order wait until all of them are read.
    waiting = sum(needed) - max(needed) + in_order * sum(needed)
    check_room(requests[0].target, sum(needed) + waiting - present)
