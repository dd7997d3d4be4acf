"""The engine: reads, checks and decodes the records of a step straight into a lent batch."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.errors import RecordError
from converter.format import examples
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES, mask_crc
from reader.arrays import Array, Bytes, Flags, Numbers, Scratch
from reader.batches.batch import Batch, BufferPool
from reader.batches.decoders import Decoder, Size, Task, make_decoder, make_mask_decoder
from reader.batches.threads import Team
from reader.examples.columns import Heads, read_heads
from reader.examples.fields import find_fields, find_spans, parse_payload
from reader.plan.read_plan import ReadPlan
from reader.records.blocks import Block, read_integers
from reader.records.damage import REFUSAL, DamageLog
from reader.records.indexed_file import Group, open_file
from reader.records.record_files import RecordFiles
from reader.remote.remote_shards import RangeFiles, ShardPrefetcher, list_remote
from reader.sampling.draws import derive_key, draw_flips

SAMPLED_RECORDS: Final = 8  # of a step, to find out which shards come next
# Of a raw record besides its image; one with more is read singly, as `max_ram` does not count it.
MAX_REST_BYTES: Final = 1 << 16
# Spreads neighbouring records over the seeds of their images.
SEED_FACTOR: Final = np.int64(0x1E3779B97F4A7C15)


class BatchReader:
    """Reads the batches of any step of any epoch; threads may share it.

    A batch lies in lent memory, which is used again once no array refers to it. `damage` collects
    the records that are skipped. `decode`, `decode_mask` and `resize`, which also mirrors, are for
    what only TensorFlow does; without them, a plan that needs it raises a `UsageError`.
    """

    def __init__(
        self,
        plan: ReadPlan,
        decode: Decoder | None = None,
        decode_mask: Decoder | None = None,
        resize: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.plan = plan
        self.damage = DamageLog(plan.options.on_damage, plan.options.max_damaged)
        self._given = plan.given
        self._decode = decode or make_decoder(plan.images)
        self._decode_mask = decode_mask or make_mask_decoder()
        self._resize = resize
        # With `resize`, that arranges the channels.
        self._data_format = "channels_last" if resize else plan.options.data_format
        self._scratch = Scratch()
        self._team = Team(plan.buffers.threads)
        self._images = self._make_pool(plan.shape_read(), plan.read_dtype)
        self._masks = self._make_pool(plan.shape_read(1), "uint8") if plan.given.masks else None
        stored = plan.images.stored
        is_plain = (plan.options.dtype, plan.options.data_format) == ("uint8", "channels_last")
        # Raw images of another form are read here first: the system can only copy bytes.
        self._raw_images: BufferPool | None = None
        if plan.is_direct and not is_plain and stored.height and stored.width:
            shape = stored.height, stored.width, stored.channels
            self._raw_images = self._make_pool(shape, "uint8")
        files = plan.files.files
        is_cached = list_remote(files) and not isinstance(plan.files, RangeFiles)
        is_ahead = is_cached and plan.steps.count
        self._prefetcher = ShardPrefetcher(files, plan.steps) if is_ahead else None

    def read(self, epoch: int, steps: Sequence[int]) -> Batch:
        """Reads the images of some steps, and what else is asked for."""
        slots, chosen = self.plan.find_chosen(epoch, steps)
        numbers = self.plan.choice.selection.find_records(chosen)
        if self._prefetcher is not None and steps:
            self._prefetcher.update(epoch, steps[-1], numbers, self._sample)
        batch = self._take_blank(len(steps) * self.plan.steps.batch_size)
        # 63 bits of the key: an int64 holds no more.
        epoch_key = np.int64(derive_key(self.plan.options.seed or 0, epoch) >> 1)
        seeds = (numbers * SEED_FACTOR) ^ epoch_key
        if self.plan.options.random_flip:
            batch.flips[slots] = draw_flips(seeds)
        if len(numbers) and self.plan.is_direct:
            self._fill_raw(batch, slots, numbers, seeds)
        elif len(numbers):
            self._team.run(functools.partial(self._fill, batch), slots, numbers, seeds)
        self._replace_labels(batch, slots, numbers)
        batch = batch.finish(self.plan)
        return batch if self._resize is None else self._resize(batch)

    def _make_pool(self, shape: tuple[int, int, int] | None, dtype: str) -> BufferPool | None:
        count = self.plan.steps.batch_size * self.plan.block_steps
        keep = self.plan.buffers.batches
        return None if shape is None else BufferPool((count, *shape), dtype, keep)

    def _sample(self, epoch: int, steps: Sequence[int]) -> Numbers:
        stride = -(-self.plan.steps.batch_size // SAMPLED_RECORDS)
        _, chosen = self.plan.find_chosen(epoch, steps, stride)
        return self.plan.choice.selection.find_records(chosen)

    def _take_blank(self, count: int) -> Batch:
        if self._images is None:
            return Batch.blank(*self._allocate(count, (0, 0)))
        masks = None if self._masks is None else self._masks.take()[:count]
        return Batch.blank(self._images.take()[:count], masks)

    def _allocate(self, count: int, size: Size) -> tuple[Array, Array | None]:
        images = self.plan.images
        shape, mask_shape = images.lay_out(*size, images.channels), images.lay_out(*size, 1)
        masks = np.zeros((count, *mask_shape), np.uint8) if self._given.masks else None
        return np.zeros((count, *shape), self.plan.read_dtype), masks

    def _fill_raw(self, batch: Batch, slots: Numbers, numbers: Numbers, seeds: Numbers) -> None:
        """Reads images that are stored as they are asked for, without a copy in between."""
        rows = batch.images if self._raw_images is None else self._raw_images.take()
        order, labels, names, valid = _read_raw(
            self.plan.files, numbers, rows, slots, with_names=self._given.with_names
        )
        slots, numbers, seeds = slots[order], numbers[order], seeds[order]
        for slot in slots if self._raw_images is not None else ():
            np.copyto(view_channels_last(batch.images[slot], self._data_format), rows[slot])
        valid &= labels < self._given.limit
        batch.labels[slots[valid]] = labels[valid]
        batch.names[slots[valid]] = names[valid]
        batch.valid[slots[valid]] = True
        if not valid.all():
            self._fill_singly(batch, slots[~valid], numbers[~valid], seeds[~valid])

    def _fill(self, batch: Batch, slots: Numbers, numbers: Numbers, seeds: Numbers) -> None:
        left = np.ones(len(numbers), np.bool_)
        limit_bytes = self.plan.buffers.block_bytes
        with self._scratch.borrow() as memory:
            for block in self.plan.files.read_blocks(numbers, limit_bytes, memory):
                left[self._decode_block(batch, block, slots, seeds)] = False
        if left.any():
            self._fill_singly(batch, slots[left], numbers[left], seeds[left])

    def _decode_block(self, batch: Batch, block: Block, slots: Numbers, seeds: Numbers) -> Numbers:
        """Decodes what is valid; returns the indexes of the records for which that succeeded."""
        fields = find_fields(block, self._given)
        rows = np.flatnonzero(fields.valid)
        indexes = block.indexes[rows]
        places, sizes = slots[indexes].tolist(), map(tuple, fields.sizes[rows].tolist())
        images, masks = (_slice(block.data, spans, rows) for spans in (fields.images, fields.masks))
        problems = self._decode_parts(
            batch, zip(places, sizes, seeds[indexes].tolist(), images, masks, strict=True)
        )
        if self._given.with_names:
            for slot, name in zip(places, _slice(block.data, fields.names, rows), strict=True):
                batch.names[slot] = name.tobytes()
        batch.values[slots[indexes]] = fields.values[rows]
        is_done = np.array([problem is None for problem in problems], np.bool_)
        done = indexes[is_done]
        batch.labels[slots[done]] = fields.labels[rows[is_done]]
        batch.valid[slots[done]] = True
        return done

    def _fill_singly(self, batch: Batch, slots: Numbers, numbers: Numbers, seeds: Numbers) -> None:
        """Reads what failed again, record by record, and reports what is damaged."""
        for row, place, payload in self.plan.files.read_many(numbers):
            slot, seed = int(slots[row]), int(seeds[row])
            if isinstance(payload, RecordError):
                self.damage.report(payload)
                continue
            try:
                field = parse_payload(payload, self._given)
                image, mask = (np.frombuffer(part, np.uint8) for part in (field.image, field.mask))
                (problem,) = self._decode_parts(batch, [(slot, field.size, seed, image, mask)])
            except ValueError as error:
                problem = str(error)
            if problem is not None:
                self.damage.report(place.describe(problem, examples.find_source(payload)))
                continue
            batch.labels[slot], batch.names[slot] = field.label, field.name
            batch.values[slot], batch.valid[slot] = field.values, True

    def _decode_parts(
        self, batch: Batch, parts: Iterable[tuple[int, Size, int, Bytes, Bytes]]
    ) -> list[str | None]:
        """Decodes (slot, size, seed, image, mask); returns what is wrong with each, or None."""
        tasks, mask_tasks = [], []
        for slot, size, seed, image, mask in parts:
            if self._images is None:  # a batch of one image
                batch.images, batch.masks = self._allocate(1, size)
            flip = self._resize is None and bool(batch.flips[slot])
            row = view_channels_last(batch.images[slot], self._data_format, flip=flip)
            tasks.append(Task(image, size, seed, row))
            if batch.masks is not None:
                row = view_channels_last(batch.masks[slot], self._data_format, flip=flip)
                mask_tasks.append(Task(mask, size, seed, row))
        problems = self._decode(tasks)
        if mask_tasks:
            pairs = zip(problems, self._decode_mask(mask_tasks), strict=True)
            problems = [one or (other and f"its mask: {other}") for one, other in pairs]
        return [problem and f"{REFUSAL}{problem}" for problem in problems]

    def _replace_labels(self, batch: Batch, slots: Numbers, numbers: Numbers) -> None:
        choice = self.plan.choice
        if choice.record_labels is not None:
            batch.labels[slots] = choice.record_labels[numbers]
        elif choice.labels is not None and self._given.labelled:
            batch.labels[slots] = choice.labels[batch.labels[slots]]


def view_channels_last(row: Array, data_format: str, *, flip: bool = False) -> Array:
    """Views an image as (height, width, channels), mirrored if `flip`."""
    if data_format == "channels_first":
        row = np.moveaxis(row, 0, -1)
    return row[:, ::-1] if flip else row


def _slice(data: Bytes, spans: Numbers, rows: Numbers) -> list[Bytes]:
    begins, ends = spans[:, rows].tolist()
    return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _read_raw(
    files: RecordFiles, numbers: Numbers, rows: Array, slots: Numbers, *, with_names: bool
) -> tuple[Numbers, Numbers, npt.NDArray[np.object_], Flags]:
    """Reads raw images of one size: record `numbers[i]` to `rows[slots[i]]`.

    Returns arrays (records,), in the order on disk: positions in `numbers`, labels, paths of the
    originals if asked for, and which records are valid.
    """
    # The system copies the bytes once, from its cache to their place in the batch. Their checksum
    # is computed there, while they are still in the processor's cache.
    groups = files.prefetch(numbers)
    indexes = np.concatenate([group.indexes for group in groups])
    heads, image_bytes = read_heads(groups), rows[0].nbytes
    rest = heads.sizes - image_bytes
    # A file can be all holes: no memory for what a header alone claims.
    valid = heads.valid & (heads.image_bytes == image_bytes) & (rest <= MAX_REST_BYTES)
    tail_bytes = np.where(valid, rest - heads.begins, FOOTER_BYTES)
    stops = np.cumsum(tail_bytes)
    starts = stops - tail_bytes
    tails = np.zeros(int(stops[-1]), np.uint8)
    parts = [
        (rows[slot], tails[start:stop])
        for slot, start, stop in zip(slots[indexes], starts, stops, strict=True)
    ]
    crcs, valid = _read_parts(groups, heads, valid, parts)
    valid &= mask_crc(crcs) == read_integers(tails, stops - FOOTER_BYTES, "<u4")
    names = np.full(len(indexes), b"", np.object_)
    if with_names:
        begins, ends, named = find_spans(
            tails, starts, stops - FOOTER_BYTES, (examples.SOURCE_ID,), within=True
        )
        valid &= named
        for row, (begin, end) in enumerate(zip(begins[0].tolist(), ends[0].tolist(), strict=True)):
            names[row] = tails[begin:end].tobytes()
    return indexes, heads.labels, names, valid


def _read_parts(
    groups: Sequence[Group], heads: Heads, valid: Flags, parts: Sequence[tuple[Array, Array]]
) -> tuple[Numbers, Flags]:
    """Reads images and tails; returns unmasked checksums of payloads, and what was read in full."""
    extend = google_crc32c.extend
    crcs, there = np.zeros(len(parts), np.int64), valid.copy()
    number = 0
    for group in groups:
        with open_file(group.file) as descriptor:
            for offset in group.begins.tolist():
                if there[number]:
                    (row, tail), begin = parts[number], int(heads.begins[number])
                    try:
                        read = os.preadv(descriptor, [row.data, tail.data], offset + begin)
                    except OSError:
                        read = 0
                    there[number] = read == row.nbytes + tail.nbytes
                    crc = extend(0, heads.data[number, HEADER_BYTES:begin])
                    crcs[number] = extend(extend(crc, row.reshape(-1)), tail[:-FOOTER_BYTES])
                number += 1
    return crcs, there
