"""What a conversion would do to its output, compared without writing anything. No Beam here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from converter.commits.commit import list_finished
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.inventory import Inventory, Note
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, read_plan, refuse_other_plan
from converter.sources.inputs import is_compressed
from converter.sources.scan import scan_images
from converter.storage.layout import SHARD_SUFFIX, Layout
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.owners import check_broken
from converter.upkeep.class_changes import ClassChanges, compare_classes
from converter.upkeep.updates import Update, plan_update
from pipelines.jobs.dry_run import Proposal, propose
from pipelines.jobs.preflight import check_import_names, check_room, locate_sizes
from pipelines.jobs.request import (
    Conversion,
    Request,
    RunSettings,
    check_images,
    check_options,
    check_update,
    prepare,
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What `pipelines.convert` would do to one data set.

    Attributes:
        out: the data set's folder.
        options: of the conversion.
        action: `write` a new data set, `resume` an interrupted conversion, `replace` a finished
            data set, `update` it, or do `nothing`.
        manifest: of the data set as it is now, or None.
        proposal: images and shards of the new data set; None for `update`.
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
    def shards(self) -> tuple[int, int]:
        """How many shards would be written, and how many kept."""
        if self.action == "nothing":
            return 0, len(self.manifest.shards) if self.manifest else 0
        draft = self.update.draft if self.update else self.proposal
        total = sum(map(len, draft.shard_records.values())) if draft else 0
        kept = len(self.update.kept) if self.update else self.finished
        return total - kept, kept

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is odd about the images, as far as a scan shows."""
        draft = self.update.draft if self.update else self.proposal
        return draft.inventory.notes if draft else ()


def plan(
    images: AnyPath, out: AnyPath, options: ConvertOptions | None = None, **settings: Any
) -> Preview:
    """Finds out what `pipelines.convert` would do, without writing a byte or taking a lock.

    Args:
        images: as for `convert`.
        out: as for `convert`.
        options: as for `convert`.
        **settings: as for `convert`; `mode` decides.

    Raises:
        UsageError: `convert` would refuse, with the same words.
        LockedError: somebody else is writing to `out`.
        ShardmillError: an image or a data set cannot be read.
    """
    return _plan(locate(images), [locate_output(out)], [options], RunSettings(**settings))[0]


def plan_sizes(
    images: AnyPath, out: AnyPath, sizes: Sequence[ConvertOptions], **settings: Any
) -> dict[str, Preview]:
    """Finds out what `pipelines.convert_sizes` would do, as `plan` does for one size.

    Returns:
        A preview for each size, by the name of its folder in `out`.
    """
    outs = locate_sizes(locate_output(out), sizes)
    previews = _plan(locate(images), [*outs.values()], sizes, RunSettings(**settings))
    return dict(zip(outs, previews, strict=True))


def _plan(
    images: Location,
    outs: Sequence[Location],
    options: Sequence[ConvertOptions | None],
    run: RunSettings,
) -> list[Preview]:
    check_import_names()
    requests = [prepare(images, out, asked, run) for out, asked in zip(outs, options, strict=True)]
    for request in requests:
        locked = run.mode != "new" or not request.is_at_rest  # by `convert`
        if locked and (owner := request.out.find_owner()):
            check_broken(request.out, owner, break_lock=run.break_lock, other="folder")
    if run.mode == "update":
        inventory = scan_images(images, requests[0].options)
        return [_preview_update(request, inventory) for request in requests]
    ended = any(map(_is_ending, outs))
    done, proposals = compare(requests, ended=ended, always_sample=True)
    return [_preview(request, done, proposals) for request in requests]


def _is_ending(out: Location) -> bool:
    """Whether a killed run left an exchange or a commit that the next one ends first."""
    if out.is_remote and out.find_replacement():
        return True
    return Layout(out).manifest.is_file() and Layout(out).plan.is_file()


def _preview(
    request: Request, done: dict[Location, Conversion], proposals: dict[Location, Proposal]
) -> Preview:
    out, options, manifest = request.out, request.options, None
    if request.is_finished:
        with contextlib.suppress(DatasetError):  # one that is damaged can be replaced, too
            manifest = read_manifest(request.current)
    if out in done:
        return Preview(out=out, options=options, action="nothing", manifest=manifest)
    proposal, target = proposals[out], request.target
    resumed = has_plan(target, proposal.draft, options)
    return Preview(
        out=out,
        options=options,
        action="replace" if request.is_finished else "resume" if resumed else "write",
        manifest=manifest,
        proposal=proposal,
        finished=len(list_finished(read_plan(target))) if resumed else 0,
        discards=Layout(target).plan.is_file() and not resumed,
    )


def _preview_update(request: Request, inventory: Inventory) -> Preview:
    check_update(request, inventory)
    manifest, update, classes = compare_update(request, inventory)
    return Preview(
        out=request.out,
        options=request.options,
        action="update" if update.needed else "nothing",
        manifest=manifest,
        update=update,
        classes=classes,
    )


def compare_update(
    request: Request,
    inventory: Inventory,
    on_shard: Callable[[ShardInfo], object] | None = None,
) -> tuple[Manifest, Update, ClassChanges]:
    """Compares a finished data set with the images there are now; warns of a full disk.

    Args:
        request: for an update.
        inventory: the images now.
        on_shard: called with each shard once it is compared.

    Returns:
        The manifest of the data set, what is to be updated, and what it means for the classes.
    """
    folder, root = request.current, request.root
    manifest = read_manifest(folder)
    update = plan_update(folder, manifest, root, inventory, on_shard=on_shard)
    if update.needed:
        check_room(request.out, update.records * manifest.total_bytes / manifest.totals.written)
    return manifest, update, compare_classes(folder, manifest, root, update)


def compare(
    requests: Sequence[Request], *, ended: bool, always_sample: bool = False
) -> tuple[dict[Location, Conversion], dict[Location, Proposal]]:
    """Scans once, and compares each request with the output; warns of a full disk.

    Args:
        requests: of the same images, with options that differ only in the size.
        ended: whether a killed run left something to end in one of the outputs.
        always_sample: as in `propose`.

    Returns:
        By output, what is finished as requested, and proposals for the others.

    Raises:
        UsageError: an output holds something else.
    """
    overwrite = requests[0].run.mode == "overwrite"
    finished = {request.out: request for request in requests if request.is_finished}
    # Options first, because a scan may take minutes.
    manifests = {} if overwrite else {out: check_options(finished[out]) for out in finished}
    proposals = _propose_all(requests, always_sample=always_sample)
    if overwrite:
        done = _find_replaced(finished, proposals, ended=ended)
    else:
        done = {
            out: check_images(finished[out], manifest, proposals[out].draft)
            for out, manifest in manifests.items()
        }
    left = [request for request in requests if request.out not in done]
    if not overwrite:
        for request in left:
            digest = digest_plan(proposals[request.out].draft, request.options)
            refuse_other_plan(request.target, digest, request.options)
    left_proposals = {request.out: proposals[request.out] for request in left}
    if left:
        needed = [proposal.bytes for proposal in left_proposals.values()]
        _check_room([request.target for request in left], needed, root=left[0].root)
    return done, left_proposals


def _propose_all(requests: Sequence[Request], *, always_sample: bool) -> dict[Location, Proposal]:
    first = requests[0]
    inventory = scan_images(first.images, first.options)
    # A record may be stored three times: in its shard, and while it waits for two others.
    room = first.out.measure_room() / (3 * len(requests))
    return {
        request.out: propose(
            request.images,
            request.options,
            always_sample=always_sample,
            room=room,
            inventory=inventory,
        )
        for request in requests
    }


def _find_replaced(
    finished: dict[Location, Request], proposals: dict[Location, Proposal], *, ended: bool
) -> dict[Location, Conversion]:
    """Returns what a killed `--overwrite` has replaced already and need not replace again."""
    begun = [
        out
        for out, request in finished.items()
        if has_plan(request.target, proposals[out].draft, request.options)
    ]
    done = {}
    for out, request in finished.items() if ended or begun else ():
        if out not in begun:
            with contextlib.suppress(UsageError):
                done[out] = check_images(request, check_options(request), proposals[out].draft)
    return done


def _check_room(targets: Sequence[Location], needed: Sequence[float], *, root: Location) -> None:
    present = sum(
        size
        for target in targets
        for name, size in target.list_sizes().items()
        if name.endswith(SHARD_SUFFIX)
    )
    # The records of all sizes but one wait for the shards of that one. Those of an archive that is
    # compressed as a whole wait until all of it is read.
    waiting = sum(needed) - max(needed) + is_compressed(root) * sum(needed)
    check_room(targets[0], sum(needed) + waiting - present)


def has_plan(out: Location, draft: Draft, options: ConvertOptions) -> bool:
    """Returns whether an output holds the unfinished conversion of a draft."""
    try:
        return Layout(out).plan.is_file() and read_plan(out).digest == digest_plan(draft, options)
    except DatasetError:
        return False
