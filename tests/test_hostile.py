"""Damaged data sets give what was written or an error that names the damage, however they are read.

Every bit of shards, indexes and manifest is flipped and every prefix read, in processes of their
own. A sample of that is run unless the environment has SHARDMILL_EXHAUSTIVE.
"""

import concurrent.futures
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import convert_folder, write_image
from damaging import (
    EXHAUSTIVE,
    MAX_PROBLEMS,
    WAYS,
    Case,
    Hurt,
    Judge,
    Rows,
    Way,
    copy_set,
    list_cases,
    run_apart,
    try_cases,
)
from forging import forge, make_payload

from converter import ConvertOptions
from converter.upkeep import verification
from reader import load_dataset, typed_errors

STEP = 1 if EXHAUSTIVE else 211
"""Prime, so that the sample holds every bit of a byte and every way of reading."""

DATASETS = 5_000 if EXHAUSTIVE else 25

LIMIT_S = 7_200 if EXHAUSTIVE else 240


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Five images of 3x4 in two shards, in three encodings."""
    root = tmp_path_factory.mktemp("few")
    for number in range(5):
        write_image(root / "images" / "ab"[number % 2] / f"{number}.png", number)
    for encoding in ("png", "jpeg", "raw"):
        options = ConvertOptions(image_size=(3, 4), encoding=encoding, num_shards=2)
        convert_folder(root / "images", root / encoding, options)
    return root


def try_apart(folder, plant=""):
    """The problems of all cases that are tried, on all cores."""
    processes = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        found = [
            pool.submit(
                run_apart, try_cases, folder, STEP * first, STEP * processes, plant, limit_s=LIMIT_S
            )
            for first in range(processes)
        ]
    return [problem for future in found for problem in future.result()]


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("encoding", ["png", "jpeg", "raw"])
def test_no_damage_of_a_bit_or_of_the_end_goes_unnoticed_or_does_harm(few, encoding):
    assert len(list_cases(few / encoding)) > 38_000
    assert try_apart(few / encoding) == []


@pytest.mark.timeout(2 * LIMIT_S)
def test_neither_does_it_through_tensorflow(few):
    folders = [few / "png", few / "raw"]
    assert run_apart(try_tensorflow, folders, DATASETS, limit_s=LIMIT_S) == []


def try_tensorflow(at: Any, folders: Sequence[Path], count: int) -> list[str]:
    """Reads through TensorFlow, `count` times in all, what was damaged after it had been opened."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    judges = [Judge(copy_set(folder, "tensorflow")) for folder in folders]
    cases = [
        [case for case in list_cases(folder) if case.file != "manifest.json"] for folder in folders
    ]
    ways = [way for way in WAYS if way.through == "engine"]
    whole = [dict(read_rows(open_dataset(folder, ways[0]))) for folder in folders]
    kept: dict[tuple[int, Way], Any] = {}
    problems: list[str] = []
    for number in range(count):
        at.value = number
        which, way = number // 3 % len(folders), ways[number % len(ways)]
        case = cases[which][number * (len(cases[which]) - 1) // max(1, count - 1)]
        if way.shuffle == "buffer" or case.file.endswith(".tfindex"):  # are read once and kept
            kept.pop((which, way), None)
        if (which, way) not in kept:
            kept[which, way] = open_dataset(judges[which].folder, way)
        found = _try_dataset(judges[which], case, way, whole[which], kept[which, way])
        problems += [f"{folders[which].name}, {case}: {problem}" for problem in found]
    return problems


def open_dataset(folder: Path, way: Way) -> Any:
    return load_dataset(folder, **way.arguments)


def _try_dataset(judge: Judge, case: Case, way: Way, whole: Rows, dataset: Any) -> Iterator[str]:
    dataset.damage.errors.clear()

    def read(epoch: int) -> Rows:
        with typed_errors():
            return dict(read_rows(dataset))

    path = judge.folder / case.file
    data = path.read_bytes()
    path.write_bytes(case.apply(data))
    yield from judge.judge_epochs(way, read, whole, dataset.damage, judge.find_hurt(case))
    path.write_bytes(data)


def read_rows(dataset: Any) -> Iterator[tuple[str, tuple[object, ...]]]:
    """All that TensorFlow gives of an epoch, by name."""
    for images, labels, *_, names in dataset.as_numpy_iterator():
        single = images.ndim == 3
        columns = ([images], [labels], [names]) if single else (images, labels, names)
        for image, label, name in zip(*columns, strict=True):
            if name:  # else it is blank
                yield name.decode(), (int(label), image.tobytes())


@pytest.mark.parametrize(
    ("plant", "encoding"),
    [
        ("forget_payload_checksums", "raw"),
        ("forget_lengths", "raw"),
        ("forget_checksums_of_blocks", "png"),
        ("forget_checksums_of_blocks", "jpeg"),
        ("forget_checksums_of_pixels", "raw"),
    ],
)
def test_it_would_be_noticed_if_checksums_were_not_compared(few, plant, encoding):
    problems = run_apart(try_cases, few / encoding, 0, 101, plant)
    assert len(problems) >= MAX_PROBLEMS
    assert all("flip" in problem for problem in problems)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_it_would_be_noticed_if_what_is_left_out_stayed_in_a_batch(few, encoding):
    problems = run_apart(try_cases, few / encoding, 0, 101, "forget_blanks")
    assert len(problems) >= MAX_PROBLEMS
    assert all("not blank" in problem for problem in problems)


def test_a_process_that_dies_is_noticed(few):
    assert run_apart(die, few) == ["the process ended with -11 at 77"]


def die(at, folder):
    at.value = 77
    os.kill(os.getpid(), 11)


@pytest.fixture
def swappable(tmp_path):
    """Two shards of one size, with records of two sizes in another order."""
    short, long = (make_payload(b"\xff" * 36, n, 3, 4, format=b"raw") for n in (0, 3))
    assert len(short) == len(long)
    long = make_payload(b"\xff" * 36, 3, 3, 4, format=b"raw", source_id=b"bee/of a longer name.png")
    other = make_payload(b"\x77" * 36, 2, 3, 4, format=b"raw")
    longer = make_payload(
        b"\x77" * 36, 1, 3, 4, format=b"raw", source_id=b"bee/and a longer one.png"
    )
    shards = {"train-0": [short, long], "train-1": [longer, other]}
    return forge(tmp_path / "set", shards, "raw", (3, 4))


def make_raw(number, **changes):
    return make_payload(bytes([number]) * 36, number, 3, 4, format=b"raw", **changes)


def swap(folder, suffix):
    first, second = folder / f"train-0{suffix}", folder / f"train-1{suffix}"
    assert first.stat().st_size == second.stat().st_size
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


def test_swapped_shards_are_noticed_when_they_are_read(swappable):
    judge = Judge(swappable)
    everything = frozenset(range(4))
    swap(swappable, ".tfrecord")
    assert list(judge.judge_reading(Hurt(everything), WAYS)) == []
    swap(swappable, ".tfindex")
    assert list(judge.judge_reading(Hurt(everything, by_index=True), WAYS)) == []
    swap(swappable, ".tfrecord")
    assert list(judge.judge_reading(Hurt(everything, by_index=True), WAYS)) == []


def test_that_would_be_noticed_if_checksums_of_indexes_were_not_compared(swappable):
    problems = run_apart(try_swapped, swappable, "forget_index_checksums")
    assert any("source[0]: gives" in problem for problem in problems)
    assert any("Way(" in problem for problem in problems)
    assert run_apart(try_swapped, swappable, "") == []


def try_swapped(at, folder, plant):
    import damaging

    if plant:
        getattr(damaging, plant)()
    judge = Judge(folder)
    for suffix in (".tfrecord", ".tfindex"):
        swap(folder, suffix)
    problems = list(judge.judge_reading(Hurt(frozenset(range(4)), by_index=True), WAYS))
    for suffix in (".tfrecord", ".tfindex"):
        swap(folder, suffix)
    return problems


def test_shards_that_are_alike_in_every_size_are_told_apart_by_verify_alone(tmp_path):
    payloads = [make_raw(number) for number in range(4)]
    shards = {"train-0": payloads[:2], "train-1": payloads[2:]}
    folder = forge(tmp_path / "set", shards, "raw", (3, 4))
    assert verification.verify_dataset(folder) == []
    names = [record.source_id for record in Judge(folder).records]
    swap(folder, ".tfrecord")
    # Each record is still whole, with its label and its name: only the order is another one.
    assert [record.source_id for record in Judge(folder).records] == names[2:] + names[:2]
    faults = [fault.file for fault in verification.verify_dataset(folder)]
    assert faults == ["train-0.tfrecord", "train-1.tfrecord"]
