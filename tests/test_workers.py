"""Local worker processes: they start, they end, and their death is noticed."""

import time

import psutil
import pytest

from converter.storage.disk import DiskPath
from converter.storage.objects import ObjectPath
from pipelines.beam.runners import parse_options, start_workers
from pipelines.beam.workers import LocalWorkers, describe_death, pools


def test_processes_live_as_long_as_the_block() -> None:
    with LocalWorkers(2) as workers:
        processes = [worker.process for worker in workers.idle]
        assert [process.poll() for process in processes] == [None, None]
        assert len(pools) == 1
    assert [process.returncode for process in processes] == [-9, -9]
    assert not pools
    assert workers.death is None


def test_an_error_in_the_block_ends_them_too() -> None:
    with pytest.raises(ZeroDivisionError), LocalWorkers(1) as workers:
        process = workers.idle[0].process
        raise ZeroDivisionError
    assert process.returncode == -9


def test_processes_get_ready_for_the_stores_that_they_will_need() -> None:
    places = DiskPath("here"), ObjectPath("s3", "bucket", "a"), ObjectPath("s3", "bucket", "b")
    with start_workers(parse_options([]), 1, *places) as workers:
        worker = psutil.Process(workers.idle[0].process.pid)
        end = time.monotonic() + 60
        while not any("aiohttp" in item.path for item in worker.memory_maps()):
            assert time.monotonic() < end
            time.sleep(0.1)
        # Only now: for a moment after `exec` a process has no command line.
        assert worker.cmdline()[-3] == "pipelines.beam.worker_main"
        assert worker.cmdline()[-1] == "s3"


@pytest.mark.parametrize(
    ("code", "words", "text"),
    [
        (-9, "", "a worker process was killed by signal 9 (often: out of memory): "),
        (-11, "", "a worker process was killed by signal 11: "),
        (3, "Oh no", "a worker process ended with exit code 3, its last words: Oh no: "),
    ],
)
def test_a_death_is_described(code: int, words: str, text: str) -> None:
    assert describe_death(code, words) == (
        text + "finished shards are kept, run the same command again to go on"
    )
