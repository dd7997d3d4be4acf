"""What the C library is told to keep, it keeps, and no longer than it is told to."""

import json
import platform
import subprocess
import sys

import pytest

from reader.records import malloc as heap

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="this C library is told nothing"
)

SCRIPT = """
import ctypes, json, resource, sys, threading
import psutil
from reader.records.malloc import LEFT_BYTES, keep_heap, trim_heap

BLOCK, BLOCKS, ROUNDS = 3 << 16, 64, 20
results = {}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
pointers = (ctypes.c_void_p * BLOCKS)()

def use(count=BLOCKS):
    for i in range(count):
        pointers[i] = libc.malloc(BLOCK)
        ctypes.memset(pointers[i], 1, BLOCK)
    for i in range(count): libc.free(ctypes.c_void_p(pointers[i]))

def measure():
    return psutil.Process().memory_info().rss

def work():
    use()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(ROUNDS): use()
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    kept = measure()
    trim_heap()
    trimmed = measure()
    keep_heap(LEFT_BYTES)
    use(1)
    results.update(faults=faults / ROUNDS, trimmed=kept - trimmed, returned=kept - measure())

keep_heap(*map(int, sys.argv[1:]))
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(json.dumps(results))
"""

PAGES = 64 * (3 << 16) // 4096
"""Of the blocks of a round."""


def run(*kept_bytes: int) -> dict[str, float]:
    command = [sys.executable, "-c", SCRIPT, *map(str, kept_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_memory_that_may_be_kept_does_not_come_anew():
    assert run(32 << 20)["faults"] < PAGES / 20


def test_memory_that_may_not_be_kept_goes_back():
    found = run()
    assert found["faults"] > PAGES / 2
    assert found["returned"] < 1 << 20


def test_what_a_thread_has_kept_goes_back_with_what_it_frees_next():
    found = run(32 << 20)
    assert found["trimmed"] < 1 << 20  # the system's own way does nothing for threads
    assert found["returned"] > PAGES * 4096 / 2


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_find", lambda name: None)
    heap.keep_heap(1)
    heap.trim_heap()
