"""The clock of a training's steps: with a time of its own, so that shares are exact."""

import numpy as np
import pytest

from reader.batches import input_clock
from reader.batches.input_clock import (
    InputClock,
    InputUse,
    count_images,
    describe_use,
    join_uses,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock whose seconds pass by `clock.sleep` alone."""
    made, now = InputClock(), [100.0]
    monkeypatch.setattr(input_clock.time, "perf_counter", lambda: now[0])
    made.sleep = lambda seconds: now.__setitem__(0, now[0] + seconds)
    return made


def run_step(clock: InputClock, wait_s: float, step_s: float) -> None:
    with clock.wait():
        clock.sleep(wait_s)
    clock.sleep(step_s)
    clock.end_step(images=8)


def test_shares_are_those_of_the_time_that_passed(clock):
    clock.begin_epoch()
    run_step(clock, 50, 70)  # the first of all does not count
    run_step(clock, 1, 3)
    run_step(clock, 2, 2)
    use = clock.end_epoch()
    assert (use.steps, use.images, use.seconds, use.waited_s) == (2, 16, 8, 3)
    assert (use.wait_share, use.images_per_second) == (3 / 8, 2)
    clock.sleep(1000)  # validation
    clock.begin_epoch()
    clock.sleep(1)
    clock.count_waiting()
    run_step(clock, 0, 1)
    use = clock.end_epoch()
    assert (use.steps, use.seconds, use.waited_s) == (1, 2, 1)
    total = join_uses(clock.epochs)
    assert (total.steps, total.images, total.seconds, total.waited_s) == (3, 24, 10, 4)
    assert total.peak_bytes == use.peak_bytes


def test_an_epoch_of_one_step_counts_that(clock):
    clock.begin_epoch()
    run_step(clock, 1, 1)
    assert clock.end_epoch().wait_share == 0.5


def test_an_epoch_without_a_step_has_no_share(clock):
    clock.begin_epoch()
    use = clock.end_epoch()
    assert (use.steps, use.wait_share, use.images_per_second) == (0, 0, 0)
    assert str(use).startswith("no step was measured")
    assert join_uses([]) == InputUse()


def test_a_loop_that_is_watched_gives_its_batches(clock):
    def produce():
        for number in range(4):
            clock.sleep(2)
            yield np.zeros((number + 1, 2)), None

    for images, _ in clock.watch(produce()):
        clock.sleep(6)
        assert images.shape[1] == 2
    use = clock.end_epoch()
    assert (use.steps, use.images, use.seconds, use.waited_s) == (3, 9, 24, 6)


def test_an_error_of_the_input_comes_through(clock):
    def produce():
        yield np.zeros(3)
        raise ValueError("damaged")

    watched = clock.watch(produce())
    next(watched)
    with pytest.raises(ValueError, match="damaged"):
        next(watched)


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (np.zeros((5, 3)), 5),
        ((np.zeros((5, 3)), np.zeros(4)), 5),
        ([np.zeros((5, 3))], 5),
        ({"image": (np.zeros((6, 3)), None)}, 6),
        (np.zeros(()), 0),
        (None, 0),
        ((), 0),
        ("text", 0),
    ],
)
def test_images_are_counted_by_the_first_array(batch, count):
    assert count_images(batch) == count


def test_images_of_several_replicas_are_counted_together():
    class Replicas:
        values = (np.zeros((5, 3)), np.zeros((4, 3)))

    assert count_images((Replicas(), None)) == 9


def test_a_line_says_what_to_do_only_if_there_is_something_to_do():
    use = InputUse(
        steps=10, images=640, seconds=2, waited_s=0.2, memory_bytes=10**9, peak_bytes=2 * 10**9
    )
    line = describe_use(0, [use])
    assert line == "epoch 1: 320 images/s, input wait 10% of a step, memory 1.0 GB, at most 2.0 GB"
    use = InputUse(steps=10, seconds=2, waited_s=1.9)
    line = describe_use(4, [InputUse(), use])
    assert line.startswith("epoch 5: input wait 95% of a step, memory ")
    assert "max_ram" in line
    assert "docs/training.md" in line
    assert "\n" not in line
    assert describe_use(5, [use, use]) == line.replace("epoch 5", "epoch 6").partition(";")[0]
