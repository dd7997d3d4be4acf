"""What every `tf.data` pipeline is made of."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import reader.tfdata.dataset
from converter.errors import UsageError
from reader.sampling.orders import Position, list_blocks
from reader.tfdata.dataset import QUIET_S, Calls, call_python, map_elements, read_steps

LEFT_OPEN = """
import json, sys
from reader import load_dataset
dataset = load_dataset(sys.argv[1], batch_size=2, shuffle=False, **json.loads(sys.argv[2]))
batches = iter(dataset.repeat())
next(batches)
print("read", flush=True)
if sys.argv[3] == "raises":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("ends", ["ends", "raises"])
@pytest.mark.parametrize("options", ["{}", '{"image_size": [50, 60], "random_crop": [0.2, 1.0]}'])
def test_a_script_whose_iterator_is_alive_ends(converted: Path, options: str, ends: str):
    command = [sys.executable, "-c", LEFT_OPEN, str(converted), options, ends]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "read\n", done.stderr
    assert done.returncode == (3 if ends == "raises" else 0)


GOES_ON = """
import sys, threading
from reader import load_dataset
dataset = load_dataset(sys.argv[1], batch_size=2)
if sys.argv[2] == "ignores":
    dataset = dataset.ignore_errors()
def read():
    while True:
        try:
            for _ in dataset:
                begun.set()
        except Exception:
            pass
begun = threading.Event()
threading.Thread(target=read, daemon=True).start()
begun.wait()
print("ends")
"""


@pytest.mark.parametrize("way", ["ignores", "retries"])
def test_a_script_ends_though_a_thread_goes_on_reading(converted: Path, way: str):
    command = [sys.executable, "-c", GOES_ON, str(converted), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_the_end_waits_for_calls_that_are_under_way_and_refuses_others():
    calls, entered = Calls(), threading.Event()

    def work() -> None:
        with calls:
            entered.set()
            time.sleep(3 * QUIET_S)
        done.append(time.monotonic())

    done: list[float] = []
    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    calls.end()
    assert done
    assert time.monotonic() - done[0] > QUIET_S / 2
    with pytest.raises(UsageError, match="the interpreter ends"), calls:
        raise AssertionError
    begun = time.monotonic()
    calls.end()
    assert time.monotonic() - begun < 1  # what was refused is not waited for
    thread.join()


def test_the_end_of_what_was_never_called_takes_no_time():
    begun = time.monotonic()
    Calls().end()
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    ("count", "block", "listed"),
    [
        (3, None, [[0, 0, 1], [0, 1, 2], [0, 2, 3]]),
        (1, None, [[0, 0, 1]]),
        (0, None, []),
    ],
)
def test_steps_have_a_length_before_they_are_read(count: int, block, listed):
    position = Position()
    dataset = read_steps(lambda steps: steps, position, count, block=block)
    assert len(dataset) == count
    assert position.epoch == 0
    assert [steps.tolist() for steps in dataset.as_numpy_iterator()] == listed
    assert position.epoch == (1 if count else 0)


def test_records_that_are_read_in_blocks_are_given_one_by_one():
    def call(steps: tf.Tensor) -> tf.Tensor:
        numbers = tf.range(steps[1], steps[2])
        numbers.set_shape((4,))
        return numbers

    dataset = read_steps(call, Position(2, 3), 10, block=4)
    assert len(dataset) == 10
    assert list(dataset.as_numpy_iterator()) == list(range(3, 10))
    assert list(dataset.as_numpy_iterator()) == list(range(10))


@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("step", [0, 3, 38])
def test_very_many_steps_are_listed_part_by_part(step, block, monkeypatch):
    sizes = []

    def list_part(*place):
        sizes.append(len(rows := list_blocks(*place)))
        return rows

    monkeypatch.setattr(reader.tfdata.dataset, "PART_BLOCKS", 3)
    monkeypatch.setattr(reader.tfdata.dataset, "list_blocks", list_part)

    def call(steps: tf.Tensor) -> tf.Tensor:
        numbers = tf.range(steps[1], steps[2]) + 100 * steps[0]
        numbers.set_shape((block or 1,))
        return numbers if block else numbers[0]

    dataset = read_steps(call, Position(2, step), 38, block=block)
    assert len(dataset) == 38
    assert list(dataset.as_numpy_iterator()) == list(range(200 + step, 238))
    assert max(sizes) <= 3
    # Each iterator takes an epoch of its own, also while another is being read.
    first, second = iter(dataset), iter(dataset)
    assert (int(next(first)), int(next(second))) == (300, 400)
    assert [int(one) for one in first] == list(range(301, 338))
    assert [int(one) for one in second] == list(range(401, 438))


def test_an_error_of_ours_is_raised_as_its_text_without_a_traceback():
    def fail(_: object) -> None:
        raise UsageError("no such thing")

    def call(number: tf.Tensor) -> tf.Tensor:
        return call_python(fail, [number], [tf.int64])[0]

    with pytest.raises(tf.errors.InvalidArgumentError, match="no such thing") as caught:
        list(map_elements(tf.data.Dataset.range(1), call))
    assert "Traceback" not in str(caught.value)


def test_what_python_gives_is_handed_over_in_order():
    def call(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        columns = call_python(lambda n: [n * 2, np.array([b"x"])], [number], [tf.int64, tf.string])
        return tuple(columns)

    given = list(map_elements(tf.data.Dataset.range(3), call, 2).as_numpy_iterator())
    assert [(int(number), names.tolist()) for number, names in given] == [
        (0, [b"x"]),
        (2, [b"x"]),
        (4, [b"x"]),
    ]
