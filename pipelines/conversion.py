"""From a folder of images to a finished data set: the whole conversion as one function."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from converter.commits.commit import commit, list_finished, read_notes
from converter.commits.replacements import (
    check_replaceable,
    discard_dataset,
    find_manifest,
    replace_dataset,
    restore_folder,
    settle_folder,
)
from converter.costs import Cost, read_costs
from converter.entries import Note
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.milling.mill import receipt_path
from converter.options import ConvertOptions
from converter.planning.plan import (
    Draft,
    Plan,
    Shard,
    digest_plan,
    name_changes,
    read_plan,
    write_plan,
)
from converter.planning.strictness import check_scan
from converter.sources.inputs import locate_root
from converter.sources.pairing import locate_masks
from converter.sources.scan import scan_images
from converter.storage.files import list_sizes, remove_files
from converter.storage.layout import (
    SHARD_SUFFIX,
    Layout,
    Location,
    Place,
    locate,
    locate_output,
)
from converter.storage.locks import lock_folder
from converter.upkeep.updates import Update, carry_shards, plan_update
from pipelines import runners
from pipelines.preflight import check_folders, check_import_names, check_room, find_room
from pipelines.progress import ReceiptWatch
from pipelines.proposals import propose
from pipelines.transforms import MillShards
from pipelines.workers import LocalWorkers

if TYPE_CHECKING:
    from apache_beam import PTransform  # which scripts/loop_runner does without


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        manifest: of the data set, as it lies there now.
        milled: how many shards were milled.
        kept: how many were found finished, by an earlier run or because an update left them alone.
        unchanged: whether the data set was finished before, as it was asked for.
        update: what was different, if an update was asked for.
        notes: what is odd about the images, and yet converted.
        cost: what milling them cost.
    """

    manifest: Manifest
    milled: int
    kept: int
    unchanged: bool = False
    update: Update | None = None
    notes: tuple[Note, ...] = ()
    cost: Cost = dataclasses.field(default_factory=Cost)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of a conversion; see `convert`."""

    images: Location
    out: Location
    options: ConvertOptions
    beam: runners.RunnerOptions
    workers: int
    progress: bool

    @property
    def root(self) -> Location:
        """What the paths of the images are relative to."""
        return locate_root(self.images, self.options)


def convert(
    images: Place,
    out: Place,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    update: bool = False,
    break_lock: bool = False,
) -> Manifest:
    """Converts a folder of images into a data set.

    The same call again goes on where an interrupted one ended, and does nothing where the data set
    is finished.

    Args:
        images: folder with a folder of images for each class, or with folders of splits, here or
            in an object store; or a table of images.
        out: folder for the data set: new, empty, or with a conversion of the same; here or in an
            object store.
        options: size, encoding, shards and splits. An update takes those of the data set, and no
            other ones.
        beam_args: Beam's own options, as on a command line, such as `["--direct_num_workers=4"]`.
        workers: processes of a local run; 0 for one a core. Each takes about 150 MB and the
            pixels of one image.
        progress: draw a bar on standard error.
        overwrite: replace the data set that lies there, once the new one is complete; give up an
            unfinished conversion of something else.
        update: take into the data set that lies there what was added, changed or removed, and
            leave shards alone in which nothing is different.
        break_lock: take the lock of a process on another machine for stale.

    Returns:
        the manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; no data was written.
        LockedError: somebody else is writing to `out`; no data was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed, the output cannot be written, or not one image could
            be converted; finished shards are kept.
    """
    conversion = run_conversion(
        images,
        out,
        options,
        beam_args,
        workers=workers,
        progress=progress,
        overwrite=overwrite,
        update=update,
        break_lock=break_lock,
    )
    return conversion.manifest


def run_conversion(
    images: Place,
    out: Place,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    update: bool = False,
    break_lock: bool = False,
) -> Conversion:
    """Does what `convert` does, and tells more about it."""
    target, originals = locate_output(out), locate(images)
    restore_folder(target)
    check_folders(originals, target)
    check_import_names()
    request = Request(
        images=originals,
        out=target,
        options=_choose_options(target, options, overwrite=overwrite, update=update),
        beam=runners.parse_options(beam_args),
        workers=workers,
        progress=progress,
    )
    check_places(request)
    layout = Layout(target)
    if layout.manifest.exists() and not (layout.work.exists() or overwrite or update):
        return confirm(request)
    with lock_folder(target, break_lock=break_lock):
        ended = settle_folder(target)
        if update:
            return _update(request)
        if not layout.manifest.exists():
            return build(request, discard=overwrite)
        if overwrite and ended:
            # What was killed after the replacement need not be done once more.
            with contextlib.suppress(UsageError):
                return confirm(request)
        return _overwrite(request) if overwrite else confirm(request)


def check_places(request: Request) -> None:
    """Refuses masks that are not there, and what workers do not see.

    Raises:
        UsageError: says which.
    """
    masks = locate_masks(request.root, request.options)
    if request.options.mask_dir is not None:
        check_folders(masks, request.out)
    runners.check_paths(request.beam, request.root, masks, request.out)


def _choose_options(
    out: Location, options: ConvertOptions | None, *, overwrite: bool, update: bool
) -> ConvertOptions:
    if not update:
        return options or ConvertOptions()
    if overwrite:
        raise UsageError("overwrite and update exclude each other: leave one of them out")
    manifest = find_manifest(out)
    if manifest is None:
        raise UsageError(
            f"output {out} holds no finished data set that could be updated: leave out --update"
        )
    options = options or ConvertOptions.from_json(manifest.options)
    if changed := name_changes(manifest.options, manifest.generator, options):
        raise UsageError(
            f"output {out} cannot be updated with other options or versions than it was converted "
            f"with ({'; '.join(changed)}): give the same ones, or replace it with --overwrite"
        )
    return options


def confirm(request: Request) -> Conversion:
    """Makes sure that the finished data set is the one that is asked for."""
    manifest = read_manifest(request.out)
    changed = name_changes(manifest.options, manifest.generator, request.options)
    if not changed and not manifest.updated:
        draft = propose(request.images, request.options, always_sample=False).draft
        if digest_plan(draft, request.options) == manifest.plan:
            return Conversion(
                manifest=manifest, milled=0, kept=len(manifest.shards), unchanged=True
            )
        changed = ("files were added, changed or removed",)
    raise UsageError(
        f"output {request.out} holds a finished data set "
        f"({'; '.join(changed) or 'which was updated since it was converted'}): take changed files "
        "in with --update, replace it with --overwrite, or choose another folder"
    )


def _overwrite(request: Request) -> Conversion:
    check_replaceable(request.out)
    stage = Layout(request.out).stage
    with lock_folder(stage, moves_to=request.out):
        conversion = build(dataclasses.replace(request, out=stage), discard=True, staged=True)
        replace_dataset(request.out)
    return conversion


def _update(request: Request) -> Conversion:
    out = request.out
    check_replaceable(out)
    old = read_manifest(out)
    stage = Layout(out).stage
    scan = scan_images(request.images, request.options)
    check_scan(scan, request.options)
    with runners.start_workers(request.beam, request.workers) as pool:
        with _count_shards(len(old.shards), "comparing", shown=request.progress) as count:
            update = plan_update(
                out,
                old,
                request.root,
                scan,
                on_shard=count,
            )
        if not update.needed:
            return Conversion(
                manifest=old, milled=0, kept=len(old.shards), unchanged=True, update=update
            )
        milled = (shard.bytes for shard in old.shards if shard.name not in update.kept)
        check_room(out, sum(milled))
        with lock_folder(stage, moves_to=out):
            _discard_other(stage, update.draft, request.options)
            plan = write_plan(update.draft, request.options, images=request.root, out=stage)
            plan = carry_shards(update, out, plan)
            conversion = _finish(plan, request, pool, staged=True)
            replace_dataset(out)
    return dataclasses.replace(conversion, update=update)


def build(request: Request, *, discard: bool, staged: bool = False) -> Conversion:
    """Converts into a folder without a finished data set, or goes on with it.

    Args:
        request: what is asked for.
        discard: remove what another plan left there.
        staged: the folder is to replace another, and its plan says so as long as it lies there.
    """
    with runners.start_workers(request.beam, request.workers) as pool:
        plan = _write_plan(request, discard=discard)
        return _finish(plan, request, pool, staged=staged)


def _write_plan(request: Request, *, discard: bool) -> Plan:
    """Scans and plans; the list of all images, which takes memory, ends with this function."""
    room = find_room(request.out)
    proposal = propose(request.images, request.options, always_sample=False, room=room)
    draft = proposal.draft
    if discard:
        _discard_other(request.out, draft, request.options)
    sizes = list_sizes(request.out)
    finished = sum(size for name, size in sizes.items() if name.endswith(SHARD_SUFFIX))
    check_room(request.out, proposal.bytes - finished)
    return write_plan(draft, request.options, images=request.root, out=request.out)


def _finish(plan: Plan, request: Request, pool: LocalWorkers | None, *, staged: bool) -> Conversion:
    """Mills what is not milled yet, and commits what is not committed."""
    kept, cost = mill_plan(plan, request.beam, pool, progress=request.progress)
    return complete(plan, kept=kept, cost=cost, staged=staged)


def complete(plan: Plan, *, kept: int, cost: Cost, staged: bool) -> Conversion:
    """Commits what is milled, if it is not committed; see `build`.

    Args:
        plan: whose shards are all there.
        kept: how many of them were found finished.
        cost: of those that were milled.
        staged: as in `build`.
    """
    if Layout(plan.out).manifest.exists():
        manifest = read_manifest(plan.out)
    else:
        manifest = commit(plan, keep_work=staged)
    return Conversion(
        manifest=manifest,
        milled=len(plan.shards) - kept,
        kept=kept,
        notes=read_notes(plan.out),
        cost=cost,
    )


def _discard_other(out: Location, draft: Draft, options: ConvertOptions) -> None:
    """Gives up an unfinished conversion that follows another plan."""
    if not Layout(out).plan.exists():
        return
    try:
        same = read_plan(out).digest == digest_plan(draft, options)
    except DatasetError:
        same = False
    if not same:
        discard_dataset(out)


def mill_plan(
    plan: Plan, beam: runners.RunnerOptions, pool: LocalWorkers | None, *, progress: bool
) -> tuple[int, Cost]:
    """Mills the shards of a plan that are not finished; says how many were, and what it cost."""
    remaining = list_remaining(plan, progress=progress)
    kept = len(plan.shards) - len(remaining)
    transform = MillShards(plan, remaining, pool.count if pool else 0) if remaining else None
    run_milling(transform, plan, beam, pool, kept=kept, progress=progress)
    return kept, read_costs(Layout(plan.out), (shard.name for shard in remaining))


def list_remaining(plan: Plan, *, progress: bool) -> list[Shard]:
    """The shards of a plan that are to be milled; what was noted of them before is removed."""
    finished = {shard.name for shard in _list_finished(plan, progress=progress)}
    remaining = [shard for shard in plan.shards if shard.name not in finished]
    remove_files(receipt_path(Layout(plan.out), shard) for shard in remaining)
    return remaining


def run_milling(
    transform: PTransform | None,
    plan: Plan,
    beam: runners.RunnerOptions,
    pool: LocalWorkers | None,
    *,
    kept: int,
    progress: bool,
) -> None:
    """Runs what mills shards, and follows their receipts.

    Args:
        transform: mills them; None if nothing is left to be done.
        plan: whose receipts are followed.
        beam: of the run.
        pool: of local workers.
        kept: how many of the plan's shards were finished before.
        progress: draw a bar.
    """
    watch = ReceiptWatch(plan, finished=kept, bar=progress)
    try:
        watch.poll()
        if transform is not None:
            job = f"shardmill-{plan.digest[:20]}"
            runners.run_pipeline(transform, beam, pool, job=job, on_poll=watch.poll)
        watch.poll(final=True)
    finally:
        watch.close()


def _list_finished(plan: Plan, *, progress: bool) -> list[Shard]:
    shown = progress and bool(list_sizes(Layout(plan.out).receipts))
    with _count_shards(len(plan.shards), "checking", shown=shown) as count:
        return list_finished(plan, on_shard=count)


@contextlib.contextmanager
def _count_shards(total: int, what: str, *, shown: bool) -> Iterator[Callable[[object], object]]:
    with tqdm(total=total, unit=" shards", desc=what, disable=not shown) as bar:
        yield lambda _: bar.update()
