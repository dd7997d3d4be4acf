"""What a process uses of its machine."""

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_STATUS: Final = Path("/proc/self/status")
_PAGE_BYTES: Final = resource.getpagesize()


def measure_memory() -> int:
    """The bytes of memory that this process holds now; its peak where the system tells no more."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return measure_peak_memory()


def measure_peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    # Not from `getrusage` where there is another way: on Linux a new process begins with the peak
    # of the one that started it (measured: 307 MB instead of 14).
    with contextlib.suppress(OSError, StopIteration, ValueError), open(_STATUS) as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kilobytes, but on macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def measure_free_memory() -> int | None:
    """The bytes that are free or can be freed at once; None where the system does not tell.

    Includes what the system caches of files. A limit of this container counts, too.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, TypeError):
        lines = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text("ascii"))
        found.append(int(lines[1]) * 1024)  # type: ignore[index]  # a TypeError without it
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
        found.append(limit - measure_memory())
    return max(min(found), 0) if found else None
