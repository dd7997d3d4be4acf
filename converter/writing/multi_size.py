"""Several sizes from one reading: each original is read and decoded once for all of them.

The data set with the most shards leads. Its shards are written as always, and the records of the
others, the followers, wait in parts, one file for each shard of the leader. All have the same
images in the same order, so each shard of a follower is then put together from consecutive parts.
Each data set has the bytes that it would have alone.

    OUT/448x448/train-00003-of-00040.tfrecord                     a shard of the leader
    OUT/224x224/.shardmill/parts-DIGEST/train-00003-of-00040      the same images, smaller
    OUT/224x224/.shardmill/parts-DIGEST/train-00003-of-00040.json the bytes of each image
"""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from converter.errors import DatasetError
from converter.inventory import Entry
from converter.planning.plan import Plan, Shard, read_entries
from converter.storage.files import SHARD_SUFFIX, HashedFile, Layout, hash_file, write_file
from converter.storage.location import Location, map_in_threads
from converter.writing.records import Frames, pack_outcome, unpack_outcomes
from converter.writing.shard_groups import open_images
from converter.writing.shard_writer import Job, Receipt, write_images


class Piece(NamedTuple):
    """Images of a follower's shard in one part: the file, the first image, and their number."""

    part: Location
    first: int
    images: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """A follower's shard, and the pieces to put it together from, in order."""

    shard: Shard
    job: Job
    pieces: tuple[Piece, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is left to do for several sizes."""

    leader: Job
    followers: tuple[Job, ...]
    parts: tuple[Location, ...]  # the folder of each follower's parts
    shards: tuple[Shard, ...]  # of the leader: not written, or with parts that are missing
    assemblies: tuple[Assembly, ...]  # shards of the followers that are not put together


def choose_leader(plans: Sequence[Plan]) -> Plan:
    """The plan with the most shards, the first of several."""
    return max(plans, key=lambda plan: len(plan.shards))


def plan_work(plans: Sequence[Plan], remaining: Sequence[Sequence[Shard]]) -> Work:
    """Decides how `remaining` shards are made; the plans are of the same images in one order."""
    leader = choose_leader(plans)
    needed: set[str] = set()
    folders, followers = [], []
    assemblies: list[Assembly] = []
    for plan, left in zip(plans, remaining, strict=True):
        if plan is leader:
            needed |= {shard.name for shard in left}
            continue
        # With another leader, or other images, parts are cut otherwise and have another name.
        folder = Layout(plan.out).work / f"parts-{leader.digest[:16]}"
        folders.append(folder)
        followers.append(job := Job.of_plan(plan))
        parts: set[str] = set()
        found = list_pieces(plan, leader, folder)
        for shard in left:
            pieces = found[shard.name]
            parts |= {piece.part.name for piece in pieces}
            assemblies.append(Assembly(shard=shard, job=job, pieces=pieces))
        needed |= {f"{part}{SHARD_SUFFIX}" for part in _find_lost(folder, sorted(parts))}
    return Work(
        leader=Job.of_plan(leader),
        followers=tuple(followers),
        parts=tuple(folders),
        shards=tuple(shard for shard in leader.shards if shard.name in needed),
        assemblies=tuple(assemblies),
    )


def list_pieces(plan: Plan, leader: Plan, folder: Location) -> dict[str, tuple[Piece, ...]]:
    """The parts that hold the images of each shard of a follower, in order, by its name."""
    found = {}
    # For all shards in one go: looking each up takes hours where there are 100,000.
    for split, shards in itertools.groupby(plan.shards, lambda shard: shard.split):
        parts = (part for part in leader.shards if part.split == split)
        part, first = next(parts), 0
        for shard in shards:
            pieces, left = list[Piece](), shard.records
            while left:
                while first == part.records:
                    part, first = next(parts), 0
                taken = min(left, part.records - first)
                pieces.append(Piece(folder / Path(part.name).stem, first, taken))
                first, left = first + taken, left - taken
            found[shard.name] = tuple(pieces)
    return found


def write_leaders(shards: Sequence[Shard], work: Work) -> list[Receipt]:
    """Converts the images of the leader's shards to all sizes: writes the shards and their parts.

    Memory is bounded by one image in all its sizes, and for an archive that is compressed as a
    whole as in `write_together`; errors are those of `write_shard`.
    """
    receipts = []
    with open_images(shards, [work.leader, *work.followers]) as read_images:
        for shard in shards:
            with _create_parts(shard, work) as parts:
                images = (_divide(frames, parts) for frames in read_images(shard))
                receipts.append(write_images(shard, work.leader, images))
    return receipts


def assemble_shard(assembly: Assembly) -> Receipt:
    """Puts a follower's shard together; errors are those of `write_shard`."""
    entries = (entry for entry, _ in read_entries(assembly.job.out, assembly.shard))
    return write_images(assembly.shard, assembly.job, _read_pieces(assembly.pieces, entries))


class _Part(NamedTuple):
    """A part that is being written, and where each of its images ends so far."""

    file: HashedFile
    ends: list[int]


def _divide(frames: Frames, parts: Sequence[_Part]) -> Frames:
    """Passes an image on to the leader's shard; the sizes of the followers go into their parts."""
    for found, outcomes in frames:
        for part, outcome in zip(parts, outcomes[1:], strict=True):
            for piece in pack_outcome(found, outcome):
                part.file.write(piece)
        yield found, outcomes
    for part in parts:
        part.ends.append(part.file.size)


@contextlib.contextmanager
def _create_parts(shard: Shard, work: Work) -> Iterator[list[_Part]]:
    """Opens a part for each follower; their indexes are written when the block ends."""
    parts: list[_Part] = []
    paths = [folder / Path(shard.name).stem for folder in work.parts]
    scratch = [Layout(job.out).scratch for job in work.followers]
    with contextlib.ExitStack() as stack:
        for path, temporary in zip(paths, scratch, strict=True):
            path.parent.make_folder()
            parts.append(_Part(stack.enter_context(path.create(temporary)), []))
        yield parts
    # After the parts: an index that is there vouches for a part that is whole.
    for path, temporary, part in zip(paths, scratch, parts, strict=True):
        sizes = [end - begin for begin, end in itertools.pairwise([0, *part.ends])]
        index = {"sha256": part.file.sha256, "sizes": sizes}
        write_file(_locate_index(path), json.dumps(index).encode("ascii"), temporary)


def _locate_index(part: Location) -> Location:
    return part.with_name(f"{part.name}.json")


def _find_lost(folder: Location, parts: Sequence[str]) -> Iterator[str]:
    """The parts that are missing, or not what their indexes state."""
    sizes = folder.list_sizes()
    looked = map_in_threads(lambda part: _is_whole(folder / part, sizes.get(part)), parts, folder)
    return (part for part, whole in looked if not whole)


def _is_whole(part: Location, size: int | None) -> bool:
    """Whether a part, of that size if it exists, is what its index states."""
    if size is None:
        return False
    with contextlib.suppress(OSError, DatasetError):
        sha256, sizes = _read_index(part)
        # An object of a store appears only when it is whole, and is read later.
        return sum(sizes) == size if part.is_remote else hash_file(part) == sha256
    return False


def _read_index(part: Location) -> tuple[str, list[int]]:
    """The hash of a part, and how many bytes each of its images takes."""
    path = _locate_index(part)
    try:
        index = json.loads(path.read_bytes())
        return index["sha256"], index["sizes"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path}: cannot be read as an index of a part: {error}") from error


def _read_pieces(pieces: Sequence[Piece], entries: Iterator[Entry]) -> Iterator[Frames]:
    for piece in pieces:
        _, sizes = _read_index(piece.part)
        with piece.part.open_read() as file:
            file.seek(sum(sizes[: piece.first]))
            taken = sizes[piece.first : piece.first + piece.images]
            for entry, size in zip(itertools.islice(entries, piece.images), taken, strict=True):
                yield unpack_outcomes(file, entry, size)
