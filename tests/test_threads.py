"""Threads ahead of the caller and for one batch: order, bounds, errors, and their end."""

import gc
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import make_environment

from reader.batches.threads import NAME, Team, run_ahead


def list_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(NAME)}


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Checks that threads end with their iterator, and those of a team a moment later."""
    before = list_threads()
    yield
    limit = time.monotonic() + 20
    while list_threads() - before:
        assert time.monotonic() < limit
        gc.collect()  # an error holds on to the team that it comes from
        time.sleep(0.001)


@pytest.mark.parametrize("calls", [1, 2, 5])
@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_results_come_in_the_order_of_their_items(calls, ahead):
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * 2

    before = list_threads()
    assert list(run_ahead(work, range(20), calls, ahead)) == list(range(0, 40, 2))
    assert not list_threads() - before  # not even a moment later
    assert list(run_ahead(work, [], calls, ahead)) == []


def test_no_more_is_taken_than_may_wait():
    taken = []

    def count():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = run_ahead(str, count(), calls=2, ahead=3)
    assert taken == []
    for number in range(10):
        assert next(results) == str(number)
        assert taken == list(range(number + 5))
    results.close()


def test_so_many_calls_are_made_at_once_and_by_no_other_thread():
    meeting = threading.Barrier(3, timeout=20)
    seen = set()

    def meet(number: int) -> int:
        meeting.wait()
        seen.add(threading.current_thread())
        return number

    results = run_ahead(meet, range(9), calls=3, ahead=0)
    assert list(results) == list(range(9))
    assert len(seen) == 3
    assert threading.current_thread() not in seen


def test_an_error_comes_behind_the_results_before_it():
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("the third")
        return number

    results = run_ahead(work, range(9), calls=2, ahead=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^the third$"):
        next(results)
    assert list(results) == []


def test_an_error_of_what_gives_the_items_ends_the_threads():
    def give():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match=r"^no more$"):
        list(run_ahead(str, give(), calls=1, ahead=1))


def test_what_was_not_begun_is_not_done_once_the_caller_leaves():
    leave = threading.Event()
    done = []

    def work(number: int) -> int:
        if number:
            leave.wait(20)
        done.append(number)
        return number

    results = run_ahead(work, range(100), calls=1, ahead=5)
    assert next(results) == 0
    threading.Timer(0.05, leave.set).start()
    results.close()  # waits for what was begun
    assert done in ([0], [0, 1])


def test_an_iterator_that_nothing_is_asked_of_does_nothing():
    done = []
    before = list_threads()
    results = run_ahead(done.append, range(3), calls=2, ahead=2)
    assert not list_threads() - before
    del results
    assert done == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 6, 50])
def test_a_team_divides_all_of_it(size, count):
    numbers, doubled = np.arange(count), np.zeros(count, np.int64)
    parts, threads = [], set()

    def work(indexes, values):
        parts.append(len(indexes))
        threads.add(threading.current_thread())
        doubled[indexes] = values * 2

    team = Team(size)
    for _ in range(2):
        team.run(work, numbers, numbers)
    assert doubled.tolist() == [2 * number for number in range(count)]
    assert len(parts) == 2 * min(size, count)
    assert max(parts) - min(parts) <= 1
    assert len(threads) <= size
    assert (threading.current_thread() in threads) == (size == 1)


def test_a_team_of_one_is_the_caller():
    before = set(threading.enumerate())
    team = Team(1)
    team.run(lambda part: part.sort(), np.array([2, 1]))
    assert set(threading.enumerate()) <= before


def test_an_error_of_a_team_comes_once_nobody_is_at_work():
    begun = threading.Barrier(3, timeout=20)
    finished = []

    def work(part):
        begun.wait()
        if part[0] == 0:
            raise ValueError("of the first")
        time.sleep(0.05)
        finished.append(part[0])

    team = Team(3)
    with pytest.raises(ValueError, match=r"^of the first$"):
        team.run(work, np.arange(3))
    assert sorted(finished) == [1, 2]


def test_a_team_serves_several_callers_at_once():
    team, found = Team(3), np.zeros((4, 30), np.int64)

    def work(row, part):
        np.add.at(found, (row, part), 1)

    def call(row: int) -> None:
        for _ in range(20):
            team.run(lambda part: work(row, part), np.arange(30))

    callers = [threading.Thread(target=call, args=(row,)) for row in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (found == 20).all()


FORK = """
import os, sys, warnings
import numpy as np
from reader.batches.threads import Team, run_ahead

warnings.filterwarnings("ignore", "This process .* is multi-threaded")
team = Team(2)

def square(number):
    squares = np.arange(number, number + 5)
    team.run(lambda part: np.square(part, out=part), squares)
    return squares.tolist()

results = run_ahead(square, range(8), calls=2, ahead=1)
begun = [next(results) for _ in range(int(sys.argv[1]))]
child = os.fork()
done = begun + list(results)
assert done == [[(n + i) ** 2 for i in range(5)] for n in range(8)], done
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""


@pytest.mark.parametrize("begun", [0, 1, 5, 8])
def test_a_fork_goes_on_with_threads_of_its_own(begun):
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(begun)],
        env=make_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "both\n", "")
