"""Batches as NumPy arrays: those of `load_dataset`, their position, their memory and threads."""

import collections
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_environment, make_image, write_image
from PIL import Image

from converter.errors import DatasetError, RecordError, UsageError
from converter.options import ConvertOptions
from reader import load_dataset, open_shards
from reader.batches.iterator import Batches
from reader.batches.threads import NAME

RECORDS = 50
SIZE = (16, 20)
OPTIONS = {"batch_size": 8, "seed": 5, "dtype": "uint8"}

ENCODINGS = {
    "png": {"encoding": "png"},
    "jpeg": {"encoding": "jpeg"},
    "webp": {"encoding": "webp"},
    "raw": {"encoding": "raw"},
    "gray jpeg": {"encoding": "jpeg", "color_mode": "grayscale"},
    "gray raw": {"encoding": "raw", "color_mode": "grayscale"},
    "alpha png": {"encoding": "png", "color_mode": "rgba"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """50 PNG and JPEG images in 3 classes."""
    root = tmp_path_factory.mktemp("images")
    for seed in range(RECORDS):
        suffix = ("PNG", "JPEG")[seed % 2]
        write_image(root / "abc"[seed % 3] / f"{seed} ü.{suffix.lower()}", seed, suffix)
    return root


@pytest.fixture(scope="module")
def encoded(images, tmp_path_factory):
    """Gives the data set of an encoding, in 3 shards, made when it is first asked for."""
    root = tmp_path_factory.mktemp("encoded")

    def find(name: str) -> Path:
        if not (root / name).exists():
            options = ConvertOptions(image_size=SIZE, num_shards=3, **ENCODINGS[name])
            convert_folder(images, root / name, options)
        return root / name

    return find


@pytest.fixture(scope="module")
def stored(encoded) -> Path:
    """The data set of PNG images."""
    return encoded("png")


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> Path:
    """14 images of two classes with masks."""
    root = tmp_path_factory.mktemp("masked")
    for seed in range(14):
        path = Path("ab"[seed % 2]) / f"{seed}.png"
        rows, columns = np.mgrid[:24, :32]
        mask = Image.fromarray(((rows // 3 + columns // 4 * 5 + seed) % 7).astype(np.uint8))
        for folder, image in (("images", make_image(seed)), ("masks", mask)):
            (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / path).write_bytes(encode_image(image, "PNG"))
    options = ConvertOptions(image_size=(24, 32), mask_dir="../masks", num_shards=2)
    convert_folder(root / "images", root / "set", options)
    return root / "set"


@pytest.fixture(scope="module")
def tabled(tmp_path_factory) -> Path:
    """19 images with several labels, boxes, a caption and numbers each."""
    root = tmp_path_factory.mktemp("tabled")
    rows = []
    for number in range(19):
        write_image(root / f"{number}.png", number)
        rows.append(
            {
                "path": f"{number}.png",
                "tags": ["x", "y", "z"][: number % 4],
                "caption": f"Bild {number} ü",
                "boxes": [[2, 3, 10 + number, 12]] * (number % 3),
                "things": ["x"] * (number % 3),
                "age": number,
                "scores": [number, 0.5][: number % 3],
            }
        )
    (root / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ConvertOptions(
        image_size=SIZE, encoding="png", num_shards=2, labels_column="tags",
        caption_column="caption", boxes_column="boxes", box_labels_column="things",
        keep_columns=("age", "scores"),
    )  # fmt: skip
    convert_folder(root / "t.jsonl", root / "set", options)
    return root / "set"


@pytest.fixture
def damaged(stored, tmp_path) -> Path:
    """A copy of the data set with one bit of the record 20 flipped, which lies in the second shard.

    In batches of 8, that is the third one.
    """
    folder = shutil.copytree(stored, tmp_path / "set")
    number = 20
    for shard in sorted(folder.glob("*.tfrecord")):
        lines = shard.with_suffix(".tfindex").read_text().splitlines()
        if number < len(lines):
            break
        number -= len(lines)
    data = bytearray(shard.read_bytes())
    data[int(lines[number].split()[0]) + 200] ^= 1
    shard.write_bytes(data)
    return folder


@pytest.fixture
def two_cores(monkeypatch):
    """Two batches are filled at the same time, whatever the machine."""
    monkeypatch.setattr("reader.plan.memory.count_cores", lambda: 2)


def open_batches(folder: Path, split: str = "train", **options: object) -> Batches:
    return open_shards(folder).batches(split, **options)


def simplify(element: object) -> object:
    """An element of either reader as NumPy arrays, and lists of them where rows are ragged."""
    if isinstance(element, dict):
        return {name: simplify(value) for name, value in element.items()}
    if isinstance(element, tuple):
        return tuple(simplify(value) for value in element)
    if isinstance(element, list):
        return element
    if hasattr(element, "row_splits"):
        return [row.numpy() for row in element]
    return element if isinstance(element, np.ndarray) else element.numpy()


def assert_same(found: object, expected: object) -> None:
    """Compares values, dtypes, shapes and the form in which they are given."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(found, np.ndarray):
        np.testing.assert_array_equal(found, expected, strict=True)
        return
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def assert_same_epochs(folder: Path, split: str = "train", **options: object) -> None:
    """Compares two epochs of `batches` with those of `load_dataset`, and what is known of them."""
    ours, theirs = open_batches(folder, split, **options), load_dataset(folder, split, **options)
    assert len(ours) == len(theirs)
    assert ours.class_names == theirs.class_names
    if "on_damage" not in options:
        assert list(ours.file_paths) == list(theirs.file_paths)
    for _ in range(2):
        found, expected = list(ours), [simplify(element) for element in theirs]
        assert len(found) == len(expected) == len(ours)
        assert_same([*map(simplify, found)], expected)
    assert set(ours.damage.errors) == set(theirs.damage.errors)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "uint8", "data_format": "channels_first", "color_mode": "rgba"},
        {"dtype": "float32", "random_flip": True, "data_format": "channels_first"},
        {"dtype": "uint8", "random_flip": True, "with_filename": True, "remainder": "pad"},
    ],
    ids=str,
)
def test_every_encoding_gives_the_pixels_of_load_dataset(encoded, encoding, options):
    assert_same_epochs(encoded(encoding), batch_size=7, seed=3, **options)


@pytest.mark.parametrize("encoding", ["jpeg", "gray jpeg", "gray raw"])
def test_gray_comes_from_what_is_gray_and_from_jpeg(encoded, encoding):
    for dtype in ("uint8", "float32"):
        assert_same_epochs(
            encoded(encoding), batch_size=7, seed=3, color_mode="grayscale", dtype=dtype
        )


@pytest.mark.parametrize(
    "options",
    [
        {"label_mode": "categorical"},
        {"label_mode": None},
        {"label_mode": None, "with_filename": True},
        {"shuffle": "buffer"},
        {"shuffle": False},
        {"shuffle": False, "order": "path"},
        {"order": "path"},
        {"remainder": "drop"},
        {"remainder": "pad"},
        {"batch_size": 1},
        {"batch_size": 50},
        {"batch_size": 64},
        {"batch_size": 64, "remainder": "drop"},
        {"batch_size": 64, "remainder": "pad"},
        {"class_names": ["c", "a"]},
        {"class_names": ["c", "b"], "label_mode": "binary"},
        {"validation_split": 0.3, "subset": "training"},
        {"validation_split": 0.3, "subset": "validation"},
        {"cache": True},
        {"cache": True, "dtype": "float32", "data_format": "channels_first", "remainder": "pad"},
        {"initial_epoch": 2, "initial_step": 3},
        {"max_ram": "25MB"},
    ],
    ids=str,
)
def test_every_option_gives_the_epochs_of_load_dataset(stored, monkeypatch, options):
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 16)
    options = OPTIONS | {"with_filename": "label_mode" not in options} | options
    if options.get("initial_step"):  # then the first epoch has fewer than the length says
        first = list(open_batches(stored, **options))
        expected = [simplify(element) for element in load_dataset(stored, **options)]
        assert len(expected) == 4
        assert_same(first, expected)
    else:
        assert_same_epochs(stored, **options)


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("shuffle", ["exact", "buffer"])
def test_every_host_gets_its_share_of_the_epochs_of_load_dataset(stored, remainder, shuffle):
    options = OPTIONS | {"remainder": remainder, "shuffle": shuffle, "with_filename": True}
    for host in range(3):
        assert_same_epochs(stored, **options, shard_index=host, shard_count=3)


def test_labels_can_be_given_by_path_and_in_order(stored):
    paths = list(open_batches(stored, order="path").file_paths)
    labels = {path: 7 * number for number, path in enumerate(paths)}
    assert_same_epochs(stored, labels=labels, **OPTIONS)
    assert_same_epochs(stored, labels=list(labels.values()), order="path", **OPTIONS)
    _, given, names = next(iter(open_batches(stored, labels=labels, with_filename=True)))
    assert given.tolist() == [labels[name.decode()] for name in names]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masks": "with_labels"},
        {"masks": False},
        {"masks": "with_labels", "label_mode": "categorical", "random_flip": True},
        {"masks": True, "label_mode": None, "data_format": "channels_first", "remainder": "pad"},
        {"masks": "with_labels", "cache": True, "with_filename": True},
    ],
    ids=str,
)
def test_masks_come_as_from_load_dataset(masked, options):
    assert_same_epochs(masked, **OPTIONS | {"batch_size": 4} | options)


@pytest.mark.parametrize(
    "options",
    [{}, {"remainder": "pad", "with_filename": True}, {"cache": True}, {"label_mode": None}],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_columns_come_as_from_load_dataset(tabled, batch_size, options):
    columns = ("age", "boxes", "caption", "scores", "box_labels")
    options = OPTIONS | {"batch_size": batch_size, "columns": columns, "shuffle": False} | options
    assert_same_epochs(tabled, **options)


def test_columns_of_any_number_of_values_are_lists_of_arrays(tabled):
    batches = open_batches(tabled, batch_size=19, shuffle=False, columns=("age", "boxes", "scores"))
    ((images, labels, values),) = batches
    assert (images.shape, labels.shape, labels.dtype) == ((19, *SIZE, 3), (19, 3), np.float32)
    boxes, scores = values["boxes"], values["scores"]
    assert [type(boxes), type(scores), values["age"].dtype] == [list, list, np.int64]
    assert [rows.shape for rows in boxes] == [(age % 3, 4) for age in values["age"]]
    assert [row.tolist() for row in scores] == [[age, 0.5][: age % 3] for age in values["age"]]
    assert labels.sum(1).tolist() == [age % 4 for age in values["age"]]


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp"])
def test_pixels_and_labels_are_those_of_the_stored_records(encoded, encoding):
    source = open_shards(encoded(encoding)).source("train")
    found = collections.Counter()
    for images, labels, names in open_batches(encoded(encoding), with_filename=True, **OPTIONS):
        for image, label, name in zip(images, labels, names, strict=True):
            record = source.by_id(name.decode())
            expected = np.asarray(Image.open(io.BytesIO(record.encoded)).convert("RGB"))
            np.testing.assert_array_equal(image, expected)
            assert record.label == label
            found[record.source_id] += 1
    assert found == collections.Counter(source.file_paths)


@pytest.mark.parametrize("remainder", ["keep", "pad"])
@pytest.mark.parametrize("cache", [False, True])
def test_what_is_damaged_is_skipped_as_by_load_dataset(damaged, remainder, cache):
    options = OPTIONS | {"remainder": remainder, "cache": cache, "with_filename": True}
    assert_same_epochs(damaged, on_damage="skip", **options)
    batches = open_batches(damaged, on_damage="skip", **options)
    names = [name for *_, found in batches for name in found if name]
    assert (len(names), len(batches.damage)) == (RECORDS - 1, 1)


def test_an_error_comes_at_its_turn_with_its_type(damaged, two_cores):
    batches = open_batches(damaged, shuffle=False, batch_size=8)
    for _ in range(2):  # and again, as the epoch begins again
        before = list_threads()
        given = []
        with pytest.raises(RecordError, match="damaged record at byte") as caught:
            given.extend(batches)
        assert len(given) == 2
        assert (batches.epoch, batches.step) == (0, 2)
        assert caught.value.shard == "train-00001-of-00003.tfrecord"
        assert not list_threads() - before
    with pytest.raises(RecordError, match="damaged record at byte"):
        open_batches(damaged, cache=True)
    with pytest.raises(DatasetError, match=r"^more than 0 damaged .* train-"):
        list(open_batches(damaged, on_damage="skip", max_damaged=0))


def test_a_batch_without_a_whole_record_is_an_error(damaged):
    batches = open_batches(damaged, batch_size=1, shuffle=False, on_damage="skip")
    with pytest.raises(DatasetError, match="not one record"):
        list(batches)
    assert batches.step == 20


def read_steps(batches: Batches) -> list[bytes]:
    """All that each batch of an epoch holds."""
    return [b"".join(np.asarray(part).tobytes() for part in element) for element in batches]


def test_an_epoch_read_to_its_end_is_followed_by_the_next(stored):
    batches = open_batches(stored, **OPTIONS)
    assert len(batches) == 7
    assert repr(batches) == "Batches(7 steps of 8 images, next: epoch 0, step 0)"
    epochs = [read_steps(batches) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    assert (batches.epoch, batches.step) == (3, 0)
    again = open_batches(stored, initial_epoch=1, **OPTIONS)
    assert [read_steps(again), read_steps(again)] == epochs[1:]


def test_an_epoch_left_before_its_last_batch_starts_again(stored):
    batches = open_batches(stored, **OPTIONS)
    epochs = [read_steps(batches) for _ in range(2)]
    batches.seek(0)
    for left_at in (1, 3, 6):
        for step, _ in enumerate(batches, 1):
            assert (batches.epoch, batches.step) == ((0, step) if step < 7 else (1, 0))
            if step == left_at:
                break
        assert batches.step == left_at
    iter(batches)  # nothing was asked of it
    assert read_steps(batches) == epochs[0]
    for step, _ in enumerate(batches, 1):  # the last batch was given: that is the whole epoch
        if step == 7:
            break
    batches.seek(1, 4)
    next(iter(batches))
    assert read_steps(batches) == epochs[1][4:]
    assert (batches.epoch, batches.step) == (2, 0)


@pytest.mark.parametrize("shuffle", [False, "exact", "buffer"])
def test_it_goes_on_wherever_it_is_told_to(stored, shuffle, monkeypatch):
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 16)
    options = OPTIONS | {"shuffle": shuffle, "random_flip": True}
    batches = open_batches(stored, **options)
    epochs = [read_steps(batches) for _ in range(2)]
    for step in range(8):
        batches.seek(0, step)
        assert (batches.epoch, batches.step) == (0, step)
        assert read_steps(batches) == epochs[0][step:]
        assert read_steps(batches) == epochs[1]
    started = open_batches(stored, initial_epoch=1, initial_step=5, **options)
    assert (started.epoch, started.step) == (1, 5)
    assert read_steps(started) == epochs[1][5:]
    assert len(started) == 7


CONTINUE = """
import hashlib, json, sys
from reader import open_shards

folder, options = sys.argv[1], json.loads(sys.argv[2])
batches = open_shards(folder).batches("train", **options)
batches.load_state_dict(json.load(sys.stdin))
for _ in range(2):
    print(*(hashlib.sha256(b"".join(part.tobytes() for part in element)).hexdigest()
            for element in batches))
print(batches.epoch, batches.step)
"""


def run_script(script: str, *arguments: object, **settings: object) -> str:
    """What a fresh interpreter prints, which imports what this one can."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=make_environment(),
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        **settings,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("taken_at", [0, 3, 7])
def test_a_fresh_process_goes_on_from_a_state(stored, taken_at):
    from hashlib import sha256

    options = OPTIONS | {"random_flip": True}
    batches = open_batches(stored, **options)
    epochs = [[sha256(step).hexdigest() for step in read_steps(batches)] for _ in range(3)]
    batches.seek(0)
    state = json.dumps(batches.state_dict())
    for step, _ in enumerate(batches, 1):
        if step == taken_at:
            state = json.dumps(batches.state_dict())
    assert len(state) < 1000
    lines = run_script(CONTINUE, stored, json.dumps(options), input=state).splitlines()
    rest = epochs[0][taken_at:] if taken_at < 7 else epochs[1]
    following = epochs[1] if taken_at < 7 else epochs[2]
    assert lines == [" ".join(rest), " ".join(following), f"{3 if taken_at == 7 else 2} 0"]


def test_a_state_does_not_count_what_was_read_ahead(stored):
    batches = open_batches(stored, **OPTIONS)
    states = [batches.state_dict(), *(batches.state_dict() for _ in batches)]
    assert [(s["epoch"], s["step"]) for s in states] == [*((0, step) for step in range(7)), (1, 0)]
    steps = read_steps(batches)
    batches.load_state_dict(states[-1])
    assert read_steps(batches) == steps
    batches.load_state_dict(states[5])
    next(iter(batches))
    assert len(read_steps(batches)) == 2  # a look costs nothing here either


def test_what_may_change_in_the_middle_of_an_epoch(stored):
    state = open_batches(stored, initial_step=2, **OPTIONS).state_dict()
    changed = {"max_ram": "64MB", "label_mode": None, "with_filename": True, "on_damage": "skip"}
    batches = open_batches(stored, **OPTIONS, **changed, data_format="channels_first")
    batches.load_state_dict(state)
    assert (batches.epoch, batches.step) == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "seed 5, these have 6"),
        ({"batch_size": 9}, "batch_size 8, these have 9"),
        ({"shuffle": False}, "order 'exact', these have 'sequential'"),
        ({"dtype": "float32"}, "dtype 'uint8', these have 'float32'"),
        ({"random_flip": True}, "random_flip False, these have True"),
        ({"class_names": ["a", "b"]}, "records 50, these have 34"),
        ({"shard_count": 2, "remainder": "pad"}, "remainder 'keep', these have 'pad'"),
        ({"shard_count": 2, "batch_size": 8, "remainder": "keep"}, "shard_count 1, these have 2"),
    ],
    ids=str,
)
def test_a_state_of_other_options_is_refused(stored, change, message):
    state = open_batches(stored, **OPTIONS).state_dict()
    batches = open_batches(stored, **OPTIONS | change)
    with pytest.raises(UsageError, match=f"with {message}: "):
        batches.load_state_dict(state)
    assert (batches.epoch, batches.step) == (0, 0)


def test_a_state_of_other_data_or_without_a_seed_is_refused(stored, encoded):
    state = open_batches(stored, **OPTIONS).state_dict()
    with pytest.raises(UsageError, match=r"with data '[0-9a-f]{16}', these have '[0-9a-f]{16}'"):
        open_batches(encoded("jpeg"), **OPTIONS).load_state_dict(state)
    drawn = open_batches(stored)
    drawn.load_state_dict(drawn.state_dict())
    with pytest.raises(UsageError, match=r"seed \d+, these have \d+"):
        open_batches(stored).load_state_dict(drawn.state_dict())


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "state",
        {},
        {"epoch": 0, "step": 0},
        {"epoch": "first", "step": 0, "data": {}},
        {"epoch": 0, "step": float("inf"), "data": {}},
        {"epoch": 0, "step": None, "data": {}},
        {"epoch": 0, "step": 0, "data": 5},
    ],
    ids=str,
)
def test_what_is_no_state_is_refused(stored, state):
    with pytest.raises(UsageError, match=r"state of batches: [A-Z]\w+Error\("):
        open_batches(stored, **OPTIONS).load_state_dict(state)


@pytest.mark.parametrize(("epoch", "step"), [("1", 0), (None, 0), (1.5, 0), (0, 1.0)])
def test_a_place_is_two_whole_numbers(stored, epoch, step):
    batches = open_batches(stored, **OPTIONS)
    with pytest.raises(UsageError, match=f"^epoch {epoch!r}, step {step!r} are"):
        batches.seek(epoch, step)
    batches.seek(np.int64(1), np.int64(2))
    assert json.loads(json.dumps(batches.state_dict()))["step"] == 2


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (0, -1), (0, 8)])
def test_there_is_no_such_place(stored, epoch, step):
    batches = open_batches(stored, **OPTIONS)
    with pytest.raises(UsageError, match=f"^epoch {epoch}, step {step} .* steps to 7$"):
        batches.seek(epoch, step)
    with pytest.raises(UsageError, match=f"^epoch {epoch}, step {step} .* steps to 7$"):
        batches.load_state_dict(batches.state_dict() | {"epoch": epoch, "step": step})


RESIZES = (
    " resizes images, which only TensorFlow does to the same numbers: use load_dataset, or convert "
    "to that size with --image-size"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": None},
            "batches are of several images: give a batch_size, or use source()",
        ),
        ({"image_size": [8, 9]}, "image_size (8, 9)" + RESIZES),
        ({"image_size": (8, 9), "cache": True}, "image_size (8, 9)" + RESIZES),
        ({"random_crop": (0.5, 1)}, "random_crop" + RESIZES),
        (
            {"color_mode": "grayscale"},
            "color_mode 'grayscale' mixes the channels of png, which only TensorFlow does to the "
            "same numbers: use load_dataset, or convert with --color-mode grayscale",
        ),
    ],
    ids=str,
)
def test_what_takes_tensorflow_is_refused_with_the_way_out(stored, options, message):
    with pytest.raises(UsageError) as caught:
        open_batches(stored, **options)
    assert str(caught.value) == message


def test_other_mistakes_are_those_of_load_dataset(stored):
    with pytest.raises(UsageError, match=r"'size' is unknown: .* batch_size, lab"):
        open_batches(stored, size=3)
    with pytest.raises(UsageError, match=r"^max_ram 1.0 MB .* 32 images"):
        open_batches(stored, max_ram="1MB")
    with pytest.raises(DatasetError, match="test"):
        open_batches(stored, "test")
    assert read_steps(open_batches(stored, image_size=SIZE, seed=1)) == read_steps(
        open_batches(stored, seed=1)
    )


@pytest.mark.parametrize("cores", [1, 16, 24])
@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_any_number_of_threads_gives_the_same_batches(encoded, encoding, cores, monkeypatch):
    options = {"batch_size": 48, "seed": 5, "random_flip": True, "with_filename": True}
    monkeypatch.setattr("reader.plan.memory.count_cores", lambda: 2)
    expected = open_batches(encoded(encoding), **options)
    monkeypatch.setattr("reader.plan.memory.count_cores", lambda: cores)
    found = open_batches(encoded(encoding), **options)
    assert found.plan.buffers.threads == {1: 1, 16: 2, 24: 3}[cores]
    for _ in range(2):
        assert_same(list(found), list(expected))


def list_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(NAME)}


def test_threads_end_with_the_iteration(stored, two_cores):
    before = list_threads()
    batches = open_batches(stored, **OPTIONS)
    assert not list_threads() - before
    for _ in batches:
        assert list_threads() - before
    assert not list_threads() - before
    iteration = iter(batches)
    next(iteration)
    assert list_threads() - before
    iteration.close()
    assert not list_threads() - before
    iteration = iter(batches)
    next(iteration)
    del iteration
    assert not list_threads() - before
    for _ in batches:
        break
    assert not list_threads() - before


@pytest.fixture
def interruptible():
    """Lets Ctrl-C interrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_threads_end_with_an_interruption_of_the_caller(stored, two_cores):
    before = list_threads()
    batches = open_batches(stored, **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        for _ in batches:
            signal.raise_signal(signal.SIGINT)
    assert not list_threads() - before


@pytest.mark.usefixtures("interruptible")
def test_threads_end_with_an_interruption_of_the_wait(stored, two_cores, monkeypatch):
    before = list_threads()
    batches = open_batches(stored, **OPTIONS)
    read = batches.reader.read

    def read_slowly(epoch, steps):
        if steps == [3]:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return read(epoch, steps)

    monkeypatch.setattr(batches.reader, "read", read_slowly)
    with pytest.raises(KeyboardInterrupt):
        list(batches)
    assert not list_threads() - before
    monkeypatch.undo()
    assert len(list(batches)) == 7


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"cache": True}], ids=str)
def test_batches_that_are_kept_are_not_written_over(encoded, encoding, options):
    batches = open_batches(encoded(encoding), **OPTIONS | {"batch_size": 6} | options)
    kept, copies = [], []
    for _ in range(3):
        for images, labels in batches:
            kept.append((images[1:], labels))  # a view of it is enough
            copies.append((images[1:].copy(), labels.copy()))
    assert_same(kept, copies)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_the_memory_of_batches_that_are_dropped_is_used_again(encoded, encoding, two_cores):
    batches = open_batches(encoded(encoding), **OPTIONS | {"batch_size": 2})
    places = set()
    for _ in range(4):
        for images, _ in batches:
            assert images.flags.writeable
            assert images.ctypes.data % 64 == 0
            places.add(images.ctypes.data)
    assert len(places) <= batches.plan.buffers.batches == 6


def test_a_batch_is_let_go_before_the_next_one_is_waited_for(stored, monkeypatch):
    monkeypatch.setattr("reader.plan.memory.count_cores", lambda: 1)
    batches = open_batches(stored, **OPTIONS | {"batch_size": 2})
    ahead = batches.plan.calls + batches.plan.buffers.prefetch_batches
    given, held = [], []
    read = batches.reader.read

    def look(epoch, steps):
        held.append(bool(given) and given[-1]() is not None)
        return read(epoch, steps)

    monkeypatch.setattr(batches.reader, "read", look)
    for images, labels in batches:
        while len(held) < min(len(batches), len(given) + ahead):  # until they have looked
            time.sleep(0.001)
        given.append(weakref.ref(images))
        del images, labels
    assert held == [False] * len(batches)


def test_two_iterations_at_the_same_time_read_the_same_epoch(stored):
    batches = open_batches(stored, **OPTIONS)
    epochs = [read_steps(batches) for _ in range(2)]
    batches.seek(0)
    one, other = [], []
    for first, second in zip(batches, batches, strict=True):
        one += read_steps([first])
        other += read_steps([second])
    assert one == other == epochs[0]
    begun, found = threading.Barrier(2, timeout=20), []

    def read() -> None:
        iteration = iter(batches)
        first = next(iteration)
        begun.wait()
        found.append(read_steps([first, *iteration]))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [epochs[1]] * 2


def test_epochs_without_a_batch_follow_each_other(stored):
    batches = open_batches(stored, batch_size=64, remainder="drop")
    for epoch in (1, 2):
        assert (len(batches), list(batches), batches.epoch) == (0, [], epoch)


FORK = """
import hashlib, os, sys, threading, warnings
from reader import open_shards

warnings.filterwarnings("ignore", "This process .* is multi-threaded")

def show(elements):
    for images, labels in elements:
        sha256.update(images.tobytes() + labels.tobytes())
    return sha256.hexdigest()

batches = open_shards(sys.argv[1]).batches("train", batch_size=4, seed=5)
sha256 = hashlib.sha256()
iteration = iter(batches)
begun = [next(iteration) for _ in range(int(sys.argv[2]))]
reading, writing = os.pipe()
if child := os.fork():
    rest = show(iteration), show(batches)
    assert os.waitpid(child, 0)[1] == 0
    print(os.read(reading, 1000).decode() == str(rest), len(begun))
else:
    rest = show(iteration), show(batches)
    os.write(writing, str(rest).encode())
    unfinished = iter(batches)
    next(unfinished)
"""


@pytest.mark.parametrize("begun", [1, 9, 12])
def test_a_fork_goes_on_by_itself(stored, begun):
    assert run_script(FORK, stored, begun) == f"True {begun}\n"


UNFINISHED = """
import sys
from reader import open_shards

iteration = iter(open_shards(sys.argv[1]).batches("train", batch_size=4))
print(len(next(iteration)[0]))
"""


def test_an_iteration_that_is_never_finished_keeps_no_process_alive(stored):
    assert run_script(UNFINISHED, stored) == "4\n"


WITHOUT = """
import sys

for name in sys.argv[2:]:
    sys.modules[name] = None
from reader import open_shards

batches = open_shards(sys.argv[1]).batches("train", batch_size=8, seed=1, random_flip=True)
state = [batches.state_dict() for _ in batches][2]
batches.load_state_dict(state)
print(sum(len(images) for images, _ in batches))
print(sorted(name for name in ("tensorflow", "keras", "apache_beam") if sys.modules.get(name)))
"""


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp", "raw"])
@pytest.mark.parametrize("blocked", [(), ("tensorflow", "keras", "apache_beam")], ids=str)
def test_tensorflow_is_neither_loaded_nor_needed(encoded, encoding, blocked):
    assert run_script(WITHOUT, encoded(encoding), *blocked) == f"{RECORDS - 24}\n[]\n"


MISSING = """
import sys

sys.modules["simplejpeg"] = None
from converter import ShardmillError
from reader import open_shards

shards = open_shards(sys.argv[1])
try:
    shards.batches("train")
except ShardmillError as error:
    print(type(error).__name__, error)
print(len(shards.source("train")))
"""


def test_the_package_that_decodes_is_named_where_it_is_missing(stored):
    assert run_script(MISSING, stored).splitlines() == [
        "ShardmillError decoding images needs simplejpeg: pip install simplejpeg",
        str(RECORDS),
    ]
