"""Reads several data sets as one: their files are joined, their orders mixed."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from converter.errors import UsageError
from converter.format.manifest import ImageInfo, Manifest
from converter.storage.location import Location
from reader.plan.image_plan import ImagePlan
from reader.plan.read_options import ReadOptions
from reader.plan.read_plan import ReadPlan, choose_order, list_files, plan_steps, resolve_options
from reader.plan.record_choice import choose_records
from reader.plan.sizing import size_buffers
from reader.records.record_files import RecordFiles
from reader.sampling.draws import derive_key
from reader.sampling.orders import MixedOrder, SequentialOrder, ShuffledOrder

# Of these records a fixed number comes from each data set: shares are rounded to hundredths.
BLOCK_RECORDS: Final = 100
# Key of the first data set's own seed; further ones count down. 0 and up are epochs, -2 draws a
# validation split.
FIRST_KEY: Final = -3
# Options that concern a single data set.
FIXED: Final = ("labels", "class_names", "validation_split", "order")


def plan_mixture(
    parts: Sequence[tuple[Location, Manifest, float]], split: str, options: ReadOptions
) -> ReadPlan:
    """Decides how one split of several data sets (folder, manifest, weight) is read as one.

    An epoch ends before the first of them would start over. Of the others it has then shown a
    part, a different one in each epoch if it is shuffled.

    Raises:
        DatasetError: one has no such split.
        UsageError: the data sets or options do not go together.
    """
    manifests = [manifest for _, manifest, _ in parts]
    _check_mixable(manifests, options)
    options = resolve_options(options, split, remote=False)
    if options.shuffle == "buffer":
        raise UsageError("shuffle 'buffer' reads one data set at a time: mix with 'exact'")
    groups = [list_files(folder, manifest, split, options) for folder, manifest, _ in parts]
    counts = [sum(file.records for file in group) for group in groups]
    shares = share_block([weight for _, _, weight in parts])
    blocks = min(count // share for count, share in zip(counts, shares, strict=True))
    if not blocks:
        raise UsageError(
            f"data sets of {', '.join(map(str, counts))} records are too small to be mixed at "
            f"{':'.join(map(str, shares))}"
        )
    files = RecordFiles([file for group in groups for file in group])
    choice = choose_records(files, manifests[0], split, options)
    stored = join_images([manifest.image for manifest in manifests])
    images = ImagePlan(stored=stored, options=options)
    buffers, resizes_batches = size_buffers(files, images, choice)
    return ReadPlan(
        images=images,
        choice=choice,
        files=choose_order(files, buffers, options, choice.selection)[0],
        order=_mix_orders(counts, shares, options),
        steps=plan_steps(blocks * BLOCK_RECORDS, options),
        buffers=buffers,
        resizes_batches=resizes_batches,
    )


def _mix_orders(counts: Sequence[int], shares: Sequence[int], options: ReadOptions) -> MixedOrder:
    seed = options.seed or 0
    orders = tuple(
        # With one seed, data sets of one size would always come in the same order.
        ShuffledOrder(records=count, seed=derive_key(seed, FIRST_KEY - index))
        if options.shuffle
        else SequentialOrder()
        for index, count in enumerate(counts)
    )
    return MixedOrder(
        orders=orders,
        begins=tuple(sum(counts[:index]) for index in range(len(counts))),
        shares=tuple(shares),
        seed=seed,
        is_fresh=options.shuffle is not False,
    )


def _check_mixable(manifests: Sequence[Manifest], options: ReadOptions) -> None:
    defaults = ReadOptions()
    for name in FIXED:
        if getattr(options, name) != getattr(defaults, name):
            raise UsageError(f"{name} cannot be given for a mixture: it is about one data set")
    if len({manifest.classes for manifest in manifests}) > 1:
        raise UsageError("data sets with different classes cannot be mixed: convert them alike")
    if len({(manifest.labelled, manifest.columns) for manifest in manifests}) > 1:
        raise UsageError("data sets with different columns cannot be mixed: convert them alike")


def share_block(weights: Sequence[float]) -> list[int]:
    """Divides a block of `BLOCK_RECORDS` records among data sets, at least one for each.

    >>> share_block([2, 1])
    [67, 33]

    Raises:
        UsageError: a weight is not above 0, or there are too many.
    """
    if not 1 <= len(weights) <= BLOCK_RECORDS or not all(
        0 < weight < math.inf for weight in weights
    ):
        raise UsageError(
            f"weights {weights} are out of range: 1 to {BLOCK_RECORDS} numbers above 0"
        )
    fractions = [Fraction(float(weight)) for weight in weights]  # their sum is always finite
    total = sum(fractions)
    exact = [weight * BLOCK_RECORDS / total for weight in fractions]
    shares = [max(1, int(share)) for share in exact]
    while sum(shares) != BLOCK_RECORDS:
        step = 1 if sum(shares) < BLOCK_RECORDS else -1
        gaps = [step * (share - given) for share, given in zip(exact, shares, strict=True)]
        able = [index for index, given in enumerate(shares) if given + step >= 1]
        shares[max(able, key=gaps.__getitem__)] += step
    return shares


def join_images(images: Sequence[ImageInfo]) -> ImageInfo:
    """Describes what the images of several data sets have in common."""
    formats: collections.Counter[str] = collections.Counter()
    for image in images:
        formats.update(image.formats)
    if len({image.channels for image in images}) > 1 or ("raw" in formats and len(formats) > 1):
        raise UsageError(
            "data sets of different channels, or raw and encoded ones, cannot be mixed"
        )
    sizes = {(image.height, image.width) for image in images}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return ImageInfo(
        height=height,
        width=width,
        max_height=max(image.max_height for image in images),
        max_width=max(image.max_width for image in images),
        channels=images[0].channels,
        formats=dict(formats),
    )
