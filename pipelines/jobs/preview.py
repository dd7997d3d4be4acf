"""What a conversion would do to its output, compared without writing anything. No Beam here."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from converter.commits.commit import list_finished
from converter.commits.replacements import is_staged
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.inventory import Inventory, Note
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, name_changes, read_plan, refuse_other_plan
from converter.sizes import format_bytes
from converter.sources.inputs import is_compressed
from converter.sources.scan import scan_images
from converter.storage.files import SHARD_SUFFIX, Layout
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.locks import check_broken
from converter.upkeep.comparisons import ClassChanges, compare_classes
from converter.upkeep.updates import Update, check_kind, plan_update
from converter.writing.records import check_scan
from pipelines.jobs.dry_run import Proposal, propose
from pipelines.jobs.request import Request, RunSettings, locate_sizes, make_requests


class SpaceWarning(UserWarning):
    """The disk looks too small for a conversion."""


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
    def notes(self) -> tuple[Note, ...]:
        """What is odd about the images, as far as a scan shows."""
        return self._draft.inventory.notes if self._draft else ()


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
        LockedError: someone else is writing to `out`.
        ShardmillError: an image or a data set cannot be read.
    """
    (preview,) = _plan(images, {locate_output(out): options}, settings)
    return preview


def plan_sizes(
    images: AnyPath, out: AnyPath, sizes: Sequence[ConvertOptions], **settings: Any
) -> dict[str, Preview]:
    """Finds out what `pipelines.convert_sizes` would do, as `plan` does for one size.

    Returns:
        A preview for each size, by the name of its folder in `out`.
    """
    previews = _plan(images, locate_sizes(locate_output(out), sizes), settings)
    return {preview.out.name: preview for preview in previews}


def _plan(
    images: AnyPath, outs: Mapping[Location, ConvertOptions | None], settings: Mapping[str, Any]
) -> list[Preview]:
    run = RunSettings(**settings)
    requests = make_requests(locate(images), outs, run)
    for request in requests:
        if request.needs_lock and (owner := request.out.find_owner()):
            check_broken(request.out, owner, break_lock=run.break_lock, other="folder")
    if run.mode == "update":
        inventory = scan_images(requests[0].images, requests[0].options)
        return [_preview_update(request, inventory) for request in requests]
    ended = any(_is_ending(request.out) for request in requests)
    finished, proposals = compare(requests, ended=ended, always_sample=True)
    return [
        _preview(request, finished.get(request.out), proposals.get(request.out))
        for request in requests
    ]


def _is_ending(out: Location) -> bool:
    """Whether a killed run left a swap or a commit that the next one completes first."""
    if out.is_remote and out.find_replacement():
        return True
    return Layout(out).manifest.is_file() and Layout(out).plan.is_file()


def _preview(request: Request, manifest: Manifest | None, proposal: Proposal | None) -> Preview:
    out, options, target = request.out, request.options, request.target
    if proposal is None:
        return Preview(out=out, options=options, action="nothing", manifest=manifest)
    replaces = target != out
    if replaces:
        with contextlib.suppress(DatasetError):  # a damaged one can be replaced, too
            manifest = read_manifest(request.current)
    resumed = has_plan(target, proposal.draft, options)
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
    check_update(request, inventory)
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


def check_update(request: Request, inventory: Inventory) -> None:
    """Checks that an update can take the images in."""
    check_scan(inventory, request.options)
    check_kind(read_manifest(request.current), inventory)
    stage = Layout(request.out).stage
    if not is_staged(stage):
        return
    with contextlib.suppress(DatasetError):  # nothing is lost if it is damaged
        if read_plan(stage).base is None:
            raise UsageError(
                f"{request.out} is about to be replaced: resume that with --overwrite and the same "
                "options, or give it up with shardmill clean --unfinished, and then update"
            )


def compare_update(
    request: Request,
    manifest: Manifest,
    inventory: Inventory,
    on_shard: Callable[[ShardInfo], object] | None = None,
) -> tuple[Update, ClassChanges]:
    """Compares a finished data set with its images; calls `on_shard` with each compared shard."""
    folder, root = request.current, request.root
    update = plan_update(folder, manifest, root, inventory, on_shard=on_shard)
    if update.needed:
        check_room(request.out, update.records * manifest.total_bytes / manifest.totals.written)
    return update, compare_classes(folder, manifest, root, update.draft)


def compare(
    requests: Sequence[Request], *, ended: bool, always_sample: bool = False
) -> tuple[dict[Location, Manifest], dict[Location, Proposal]]:
    """Scans once, and compares each request with its output.

    `ended` says that a killed run left something to complete in one of the outputs.

    Returns:
        By output, manifests of what is finished as requested, and proposals for the others.
    """
    overwrite = requests[0].run.mode == "overwrite"
    finished = [request for request in requests if request.is_finished]
    # Options first, because a scan may take minutes.
    done = {} if overwrite else {request.out: _check_options(request) for request in finished}
    proposals = _propose_all(requests, always_sample=always_sample)
    if overwrite:
        done = _find_replaced(finished, proposals, ended=ended)
    else:
        for request in requests:
            _check_output(request, proposals[request.out].draft, done.get(request.out))
    left = [request for request in requests if request.out not in done]
    if left:
        _check_room(left, [proposals[request.out].bytes for request in left])
    return done, {request.out: proposals[request.out] for request in left}


def _propose_all(requests: Sequence[Request], *, always_sample: bool) -> dict[Location, Proposal]:
    images, out = requests[0].images, requests[0].out
    inventory = scan_images(images, requests[0].options)
    # A record may be stored three times: in its shard, and while it waits for two others.
    room = out.measure_room() / (3 * len(requests))
    return {
        request.out: propose(
            images, request.options, always_sample=always_sample, room=room, inventory=inventory
        )
        for request in requests
    }


def _check_options(request: Request) -> Manifest:
    manifest = read_manifest(request.current)
    changed = name_changes(manifest.options, manifest.generator, request.options)
    if changed or manifest.updated:
        raise _refuse(request.out, changed or ("which was updated since it was converted",))
    return manifest


def _check_output(request: Request, draft: Draft, manifest: Manifest | None) -> None:
    """Refuses an output that holds something else, finished or not."""
    if manifest is None:
        target = request.target
        if Layout(target).plan.is_file():  # a digest takes seconds for a million images
            refuse_other_plan(target, digest_plan(draft, request.options), request.options)
    elif manifest.plan != digest_plan(draft, request.options):
        raise _refuse(request.out, ("files were added, changed or removed",))


def _refuse(out: Location, changed: tuple[str, ...]) -> UsageError:
    return UsageError(
        f"output {out} holds a finished data set ({'; '.join(changed)}): take changed files in "
        "with --update, replace it with --overwrite, or choose another folder"
    )


def _find_replaced(
    finished: Sequence[Request], proposals: Mapping[Location, Proposal], *, ended: bool
) -> dict[Location, Manifest]:
    """What a killed `--overwrite` has replaced already and need not replace again."""
    drafts = {request.out: proposals[request.out].draft for request in finished}
    begun = [r for r in finished if has_plan(r.target, drafts[r.out], r.options)]
    done = {}
    for request in finished if ended or begun else ():
        if request not in begun:
            with contextlib.suppress(UsageError):
                manifest = _check_options(request)
                _check_output(request, drafts[request.out], manifest)
                done[request.out] = manifest
    return done


def has_plan(out: Location, draft: Draft, options: ConvertOptions) -> bool:
    """Whether an output holds the unfinished conversion of a draft."""
    try:
        return Layout(out).plan.is_file() and read_plan(out).digest == digest_plan(draft, options)
    except DatasetError:
        return False


def _check_room(requests: Sequence[Request], needed: Sequence[float]) -> None:
    present = sum(
        size
        for request in requests
        for name, size in request.target.list_sizes().items()
        if name.endswith(SHARD_SUFFIX)
    )
    # The records of all sizes but one wait for the shards of that one. Those of an archive that is
    # compressed as a whole wait until all of it is read.
    waiting = sum(needed) - max(needed) + is_compressed(requests[0].root) * sum(needed)
    check_room(requests[0].target, sum(needed) + waiting - present)


def check_room(out: Location, needed: float) -> None:
    """Warns if the disk of an output looks too small for that many more bytes.

    It is no error, because `needed` is an estimate.
    """
    if needed > (room := out.measure_room()):
        warnings.warn(
            f"about {format_bytes(needed)} more will be written to {out}, where "
            f"{format_bytes(int(room))} are free: make room; on a full disk the conversion ends, "
            "finished shards are kept, and the same command resumes it",
            SpaceWarning,
            stacklevel=2,
        )
