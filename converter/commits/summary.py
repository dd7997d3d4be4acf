"""What the receipts of a conversion say together: the counts and the shards of its manifest."""

import dataclasses
from collections import Counter
from typing import Final

from converter.errors import OutputError
from converter.format.manifest import ImageInfo, ShardInfo, SplitInfo, Totals
from converter.inventory import NoteTally
from converter.planning.plan import Plan
from converter.writing.shard_writer import Receipt

_SHARD_FIELDS: Final = [field.name for field in dataclasses.fields(ShardInfo)]


class Summary:
    """The sum of receipts, which are added in the order of their shards.

    Holds 500 bytes for each, and nothing of its images.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.shards: list[ShardInfo] = []
        self.notes = NoteTally()
        self._written = self._frames = 0
        self._rejected: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()
        self._labels: dict[str, list[int]] = {}  # by split
        self._sizes: list[tuple[int, int]] = []  # the least height and width, then the largest

    def add(self, receipt: Receipt) -> None:
        """Adds a receipt."""
        # A receipt is a `ShardInfo` and more, which would get into the manifest.
        self.shards.append(ShardInfo(**{name: getattr(receipt, name) for name in _SHARD_FIELDS}))
        self._written += receipt.records
        self._frames += receipt.frames
        self._rejected.update(reject["code"] for reject in receipt.rejects)
        self._formats.update(receipt.formats)
        self._add_labels(receipt)
        if receipt.records:
            self._add_sizes(receipt)
        for note in receipt.notes:
            self.notes.add(note["code"], *note["names"], total=note["total"])

    def _add_labels(self, receipt: Receipt) -> None:
        classes = len(self._plan.classes) if self._plan.labelled else 0
        labels = self._labels.setdefault(receipt.split, [0] * classes)
        for label, count in receipt.labels if classes else ():
            labels[label] += count

    def _add_sizes(self, receipt: Receipt) -> None:
        smallest, largest = self._sizes or (receipt.min_image_size, receipt.max_image_size)
        height, width = map(min, smallest, receipt.min_image_size)
        max_height, max_width = map(max, largest, receipt.max_image_size)
        self._sizes = [(height, width), (max_height, max_width)]

    def count_images(self) -> Totals:
        """The account of every file that was seen; raises OutputError if no image is left."""
        plan = self._plan
        if not self._written:
            code, count = self._rejected.most_common(1)[0]
            raise OutputError(
                f"none of the {plan.records} images could be converted, {count} of them because of "
                f"{code}: no data set is written"
            )
        return Totals(
            scanned=plan.scanned,
            written=self._written,
            rejected=dict(sorted((self._rejected + Counter(plan.rejected)).items())),
            skipped=plan.skipped,
            frames=plan.frames + self._frames,
        )

    def describe_image(self) -> ImageInfo:
        """What the stored images, of which there is at least one, have in common."""
        smallest, largest = self._sizes
        # Images that were not resized may be alike, too: then they can be read in batches as they
        # are.
        height, width = largest if smallest == largest else (None, None)
        return ImageInfo(
            height=height,
            width=width,
            max_height=largest[0],
            max_width=largest[1],
            channels=self._plan.options.channels,
            formats=dict(sorted(self._formats.items())),
        )

    def describe_splits(self) -> dict[str, SplitInfo]:
        """The totals of each split."""
        members: dict[str, list[ShardInfo]] = {}
        for shard in self.shards:
            members.setdefault(shard.split, []).append(shard)
        return {
            split: SplitInfo(
                records=sum(shard.records for shard in shards),
                bytes=sum(shard.bytes for shard in shards),
                shards=len(shards),
                labels=tuple(self._labels[split]),
            )
            for split, shards in members.items()
        }
