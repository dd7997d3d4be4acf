"""Damages data sets bit by bit, reads them in every way, and judges what comes of it.

What comes is what was written, or a typed error that names the damage; anything else is a problem.
Cases are tried in processes of their own, forked from one without TensorFlow: a crash is seen.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from converter import DatasetError, RecordError, ShardmillError
from converter.format import tfrecords
from converter.names import MAX_MESSAGE, MAX_SHOWN
from converter.storage.disk import DiskPath
from reader import ReadOptions, Record, open_shards
from reader.arrays import Array
from reader.batches import batch_reader
from reader.batches.batch import Batch
from reader.batches.batch_reader import BatchReader
from reader.batches.iterator import Batches
from reader.plan.planning import plan_reading
from reader.plan.read_plan import ReadPlan
from reader.records import blocks
from reader.records.damage import DamageLog
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles, RunFiles
from reader.sampling.orders import WindowedOrder

Rows: TypeAlias = dict[str, tuple[object, ...]]
"""Label and pixels, and what else is known of it, by the path of its original."""

EXHAUSTIVE = bool(os.environ.get("SHARDMILL_EXHAUSTIVE"))
"""Every case in every way, instead of a fixed sample of both; see CONTRIBUTING.md."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["damaging"])

MAX_PROBLEMS = 20

MAX_GROWTH_MB = 64
"""That whatever is hostile may take."""

EMPTY = "not one record of a batch is whole"
"""No batch can be left out: the last one, of one record, ends the reading if that is lost."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One damage: `flip` of a bit, `cut` to a number of bytes, `grow` by a number of zeros."""

    file: str
    kind: str
    place: int

    def apply(self, data: bytes) -> bytes:
        if self.kind == "cut":
            return data[: self.place]
        if self.kind == "grow":
            return data + bytes(self.place)
        damaged = bytearray(data)
        damaged[self.place // 8] ^= 1 << self.place % 8
        return bytes(damaged)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of reading batches: by the engine itself, or by `ShardSet.batches`.

    The engine reads into a batch as it is stored; `batches` are copied, as other numbers in another
    layout.
    """

    through: str
    shuffle: bool | str
    batch_size: int | None
    on_damage: str
    remainder: str

    @property
    def arguments(self) -> dict[str, Any]:
        arguments = dataclasses.asdict(self) | {"seed": 3, "with_filename": True}
        if arguments.pop("through") == "engine":
            return arguments | {"dtype": "uint8"}
        return arguments | {"dtype": "float32", "data_format": "channels_first"}


WAYS = [
    Way(*choices)
    for choices in itertools.product(
        ("engine", "batches"), (False, "exact", "buffer"), (None, 2), ("raise", "skip"),
        ("keep", "pad"),
    )
    if choices[0] == "engine" or choices[2]  # `batches` are never of single images
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Hurt:
    """The numbers of the records that are damaged: they themselves, or their shard's index."""

    records: frozenset[int]
    by_index: bool = False


def list_cases(folder: Path) -> list[Case]:
    """Every bit flipped, every prefix and some zeros more, of shards, indexes and manifest."""
    cases = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".tfrecord", ".tfindex") or path.name == "manifest.json":
            size = path.stat().st_size
            cases += [Case(path.name, "flip", bit) for bit in range(8 * size)]
            cases += [Case(path.name, "cut", length) for length in range(size)]
            cases += [Case(path.name, "grow", length) for length in (1, 7, 8, 11, 12, 16, 4096)]
    return cases


class Judge:
    """Knows what a data set holds, and finds what is wrong with what a damaged one gives.

    Args:
        folder: of a whole data set, which is damaged and mended again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = open_shards(folder)
        self.records = list(self.shards.source("train"))
        self.rows = {record.source_id: decode(record) for record in self.records}
        self.bounds = [
            (shard.name, record, *map(int, line.split()))
            for shard in self.shards.manifest.list_shards("train")
            for record, line in enumerate(
                (folder / shard.name).with_suffix(".tfindex").read_text().splitlines()
            )
        ]
        self.plans = {way: self._plan(way) for way in WAYS}
        self.named = collections.Counter[bool]()  # whether errors name the original
        self.log: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.log.append(record.getMessage())
        logging.getLogger("shardmill.reader").addHandler(handler)

    def try_case(self, case: Case, ways: Iterable[Way]) -> Iterator[str]:
        """Damages a file; opens the data set, and reads what was opened before in some ways."""
        path = self.folder / case.file
        whole = path.read_bytes()
        path.write_bytes(case.apply(whole))
        try:
            yield from self._judge_open(case)
            if case.file != "manifest.json":
                yield from self.judge_reading(self.find_hurt(case), ways)
        finally:
            path.write_bytes(whole)

    def judge_reading(self, hurt: Hurt, ways: Iterable[Way]) -> Iterator[str]:
        yield from self._judge_source(hurt)
        for way in ways:
            read, damage = self.begin(way)
            yield from self.judge_epochs(way, read, self.rows, damage, hurt)

    def begin(self, way: Way) -> tuple[Callable[[int], Rows], DamageLog]:
        """What reads one epoch after the other, as if nothing had been read yet."""
        if way.through == "batches":
            batches = self.shards.batches("train", **way.arguments)
            return lambda epoch: collect(list_rows(batches)), batches.damage
        plan = renew(self.plans[way])
        reader = BatchReader(plan)
        return lambda epoch: collect(read_epoch(plan, reader, epoch)), reader.damage

    def find_hurt(self, case: Case) -> Hurt:
        if case.file.endswith(".tfindex"):
            shard = case.file.replace(".tfindex", ".tfrecord")
            numbers = (n for n, (name, *_) in enumerate(self.bounds) if name == shard)
            return Hurt(frozenset(numbers), by_index=True)
        begin, end = (case.place, 1 << 62) if case.kind == "cut" else (case.place // 8, 0)
        begin = 1 << 62 if case.kind == "grow" else begin
        return Hurt(
            frozenset(
                number
                for number, (name, _, offset, size) in enumerate(self.bounds)
                if name == case.file and offset < max(end, begin + 1) and begin < offset + size
            )
        )

    def _judge_open(self, case: Case) -> Iterator[str]:
        refused = case.file == "manifest.json" or case.kind != "flip"
        try:
            open_shards(self.folder)
        except DatasetError as error:
            if isinstance(error, RecordError) or not refused or find_flaw(str(error)):
                yield f"open: {error!r:.600}"
        else:
            if refused:
                yield "open: the damage was not seen"

    def _judge_source(self, hurt: Hurt) -> Iterator[str]:
        source = self.shards.source("train")
        everything = set(range(len(self.records)))
        reads: list[tuple[str, Callable[[], object], object, set[int]]] = [
            (f"source[{number}]", lambda n=number: source[n], record, {number})
            for number, record in enumerate(self.records)
        ]
        reads.append(("source[:]", lambda: source[:], self.records, everything))
        names = [record.source_id for record in self.records]
        reads.append(("file_paths", lambda: list(source.file_paths), names, everything))
        reads += [
            (f"by_id({record.source_id!r})", lambda r=record: source.by_id(r.source_id), record,
             everything if hurt.by_index or number in hurt.records else {number})
            for number, record in enumerate(self.records)
        ]  # fmt: skip
        for name, read, expected, touched in reads:
            yield from self._judge_read(name, read, expected, hurt, touched)
        labels = [record.label for record in self.records]
        yield from self._judge_read(
            "labels", lambda: list(source.labels), labels, hurt, everything, must_see=False
        )

    def _judge_read(
        self,
        name: str,
        read: Callable[[], object],
        expected: object,
        hurt: Hurt,
        touched: set[int],
        *,
        must_see: bool = True,
    ) -> Iterator[str]:
        """What is whole has to come; what is not has to be an error that says so."""
        try:
            found = read()
        except Exception as error:  # noqa: BLE001 (that there is no other is what is tested)
            if not self._is_right(error, hurt, touched):
                yield f"{name}: {error!r:.300}"
        else:
            if found != expected:
                yield f"{name}: gives {found!r:.300}"
            elif must_see and hurt.records & touched:
                yield f"{name}: the damage was not seen"

    def _is_right(self, error: Exception, hurt: Hurt, touched: Iterable[int]) -> bool:
        if find_flaw(str(error)):
            return False
        if isinstance(error, RecordError):
            number = self._locate(error)
            if number is not None:
                self.named[error.source == self.records[number].source_id] += 1
            return not hurt.by_index and number in hurt.records.intersection(touched)
        seen = isinstance(error, DatasetError) and hurt.by_index
        return seen and bool(hurt.records.intersection(touched))

    def _locate(self, error: RecordError) -> int | None:
        """The number of the record that an error names by shard, number in it, and offset."""
        for number, (name, record, offset, _) in enumerate(self.bounds):
            if (name, record, offset) == (error.shard, error.record, error.offset):
                return number
        return None

    def judge_epochs(
        self, way: Way, read: Callable[[int], Rows], expected: Rows, damage: DamageLog, hurt: Hurt
    ) -> Iterator[str]:
        """Reads two epochs, which with `skip` have to hold exactly what is whole."""
        self.log.clear()
        try:
            for epoch in (0, 1):
                found = read(epoch)
                for name, row in found.items():
                    if row != expected.get(name):
                        yield f"{way}: gives {name!r}: {row!r:.300}"
        except Exception as error:  # noqa: BLE001
            if way.on_damage == "skip" and hurt.records and str(error).startswith(EMPTY):
                return
            skipped = way.on_damage == "skip" and isinstance(error, RecordError)
            if skipped or not self._is_right(error, hurt, hurt.records):
                yield f"{way}: {error!r:.300}"
            return
        if hurt.records and (hurt.by_index or way.on_damage == "raise"):
            yield f"{way}: the damage was not seen"
        yield from filter(None, map(find_flaw, self.log))
        missing = {n for n, record in enumerate(self.records) if record.source_id not in found}
        noted = {self._locate(error) for error in damage.errors.values()}
        if not missing == noted == hurt.records or len(self.log) != len(missing):
            yield f"{way}: {missing} are missing, {noted} noted, {self.log} logged: {hurt}"

    def _plan(self, way: Way) -> ReadPlan:
        options = ReadOptions(**way.arguments)
        plan = plan_reading(self.folder, self.shards.manifest, "train", options)
        if plan.options.shuffle != "buffer":
            return plan
        # Of so few records, windows would be of runs of one.
        order = WindowedOrder(records=len(self.records), seed=3, run=2, window=4)
        return dataclasses.replace(plan, order=order)


def find_flaw(text: str) -> str:
    """What is wrong with a message, whatever it is about; empty if nothing is."""
    if not text.isprintable():
        return f"not one printable line: {text!r:.300}"
    if len(text) > MAX_MESSAGE:
        return f"{len(text):,} characters: {text:.300}"
    # Quotes, brackets and what ends a sentence may be around a value.
    longest = max(map(len, text.split()), default=0)
    return f"a run of {longest:,} characters: {text}" if longest > MAX_SHOWN + 8 else ""


def decode(record: Record) -> tuple[object, ...]:
    """Label, pixels and size of an image, without the engine."""
    if record.format == "raw":
        pixels = np.frombuffer(record.encoded, np.uint8).reshape(record.height, record.width, 3)
    else:
        pixels = np.asarray(Image.open(io.BytesIO(record.encoded)))
    return record.label, pixels.tobytes(), pixels.shape


def renew(plan: ReadPlan) -> ReadPlan:
    """The same plan, without what its files remember."""
    files = RecordFiles(plan.files.files)
    if plan.options.shuffle == "buffer":
        files = RunFiles(files, run=2, keep=2)
    return dataclasses.replace(plan, files=files)


def read_epoch(
    plan: ReadPlan, reader: BatchReader, epoch: int
) -> Iterator[tuple[bytes, int, Array]]:
    """Name, label and image of all that the engine gives of an epoch."""
    steps = list(range(plan.steps.count))
    for part in [steps] if plan.options.batch_size is None else [[step] for step in steps]:
        batch: Batch = reader.read(epoch, part)
        yield from _list_slots(batch.names, batch.labels, batch.images, batch.valid)


def list_rows(batches: Batches) -> Iterator[tuple[bytes, int, Array]]:
    """The same of the batches of the next epoch."""
    for images, labels, *weights, names in batches:
        valid = weights[0] > 0 if weights else np.ones(len(images), np.bool_)
        yield from _list_slots(names, labels, np.moveaxis(images, 1, -1), valid)


def _list_slots(
    names: Array, labels: Array, images: Array, valid: Array
) -> Iterator[tuple[bytes, int, Array]]:
    for name, label, image, is_there in zip(names, labels, images, valid, strict=True):
        if is_there:
            yield name, int(label), image
        elif name or label or image.any():
            raise ValueError(f"not blank: {name!r}")


def collect(slots: Iterable[tuple[bytes, int, Array]]) -> Rows:
    """All that was given, of which nothing may be given twice."""
    rows: Rows = {}
    for name, label, image in slots:
        if name.decode() in rows:
            raise ValueError(f"given twice: {name!r}")
        rows[name.decode()] = (label, image.astype(np.uint8).tobytes(), image.shape)
    return rows


def try_cases(at: Any, folder: Path, begin: int, step: int, plant: str = "") -> list[str]:
    """Tries every `step`th case from `begin` on, in a copy of a data set.

    Args:
        at: shared with the parent: is told the case.
        folder: of the data set.
        begin: number of the first case.
        step: from case to case.
        plant: name of a function here that spoils the reader first.
    """
    if plant:
        globals()[plant]()
    judge = Judge(copy_set(folder, f"{begin}-{plant}"))
    cases = list_cases(folder)
    problems: list[str] = []
    for number in range(begin, len(cases), step):
        at.value = number
        ways = WAYS if EXHAUSTIVE else [WAYS[number // step % len(WAYS)]]
        problems += [f"{cases[number]}: {found}" for found in judge.try_case(cases[number], ways)]
        if len(problems) >= MAX_PROBLEMS:
            break
    # Not where a file ends too early, or the damage is in the name.
    if not plant and judge.named[False] > judge.named[True]:
        problems.append(f"few errors name the original: {judge.named}")
    return problems + ["TensorFlow is loaded"] * ("tensorflow" in sys.modules)


def forget_payload_checksums() -> None:
    """A planted bug: the checksum of a payload is not compared."""
    tfrecords._check_payload = lambda *arguments: None


def forget_lengths() -> None:
    """A planted bug: a length is compared neither with its checksum nor with the index."""
    tfrecords._read_length = lambda header, describe: _Equal()


def forget_checksums_of_blocks() -> None:
    """A planted bug: the checksums of records that are read together are not compared."""
    blocks.check_records = lambda data, starts, stops: np.ones(len(starts), np.bool_)


class _Equal:
    def __eq__(self, other: object) -> Any:
        return np.True_

    __hash__ = None


def forget_checksums_of_pixels() -> None:
    """A planted bug: those of images that are read straight into their place are not."""
    batch_reader.mask_crc = lambda crcs: _Equal()


def forget_blanks() -> None:
    """A planted bug: what was left out of a batch stays as whatever it is."""
    Batch.pad = lambda batch: batch


def forget_index_checksums() -> None:
    """A planted bug: the checksum of an index is not compared."""
    of_shard = RecordFile.of_shard
    RecordFile.of_shard = lambda folder, shard: dataclasses.replace(
        of_shard(folder, shard), index_sha256=None
    )


def copy_set(folder: Path, name: str) -> Path:
    return DiskPath(shutil.copytree(folder, folder.with_name(f"{folder.name}-{name}")))


def run_apart(
    function: Callable[..., list[str]], *arguments: Any, limit_s: float = 120
) -> list[str]:
    """What a function finds in a process of its own; if that dies or hangs, it is a problem too.

    Args:
        function: takes a shared number, in which it notes where it is, and `arguments`.
        *arguments: have to be pickled.
        limit_s: how long it may take.
    """
    at = CONTEXT.Value("q", -1, lock=False)
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_report, args=(sender, function, at, *arguments))
    process.start()
    sender.close()
    problems: list[str] = []
    with contextlib.suppress(EOFError):
        if receiver.poll(limit_s):
            problems = receiver.recv()
        else:
            process.kill()
    process.join()
    if process.exitcode:
        problems.append(f"the process ended with {process.exitcode} at {at.value}")
    return problems


def fork_while_held(lock: Any, read: Callable[[], bool]) -> list[str]:
    """What goes wrong if a process is forked while another thread holds a lock, and then reads."""
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            locked.set()
            done.wait()

    threading.Thread(target=hold).start()
    locked.wait()
    pid = os.fork()
    if not pid:
        signal.alarm(5)
        os._exit(0 if read() else 1)
    _, status = os.waitpid(pid, 0)
    done.set()
    return [] if status == 0 else [f"the forked process ended with {status}"]


def note_growth(at: Any, read: Callable[..., object], *arguments: Any) -> list[str]:
    """What reading something ends with, and by how many MB memory had grown at its peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        said = f"gives {read(*arguments)!r:.200}"
    except ShardmillError as error:
        said = f"{type(error).__name__}: {find_flaw(str(error)) or error}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return [said, str(grown // 1000)]


def _report(sender: Any, function: Callable[..., list[str]], *arguments: Any) -> None:
    sender.send(function(*arguments))
