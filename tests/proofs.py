"""Which proofs run: all of them, or a third, and which one.

The thirds share the proofs out between them by a hash of their names. The commit says which third
comes next, so that a few commits run all of them, and each run can be repeated.
"""

import os
import re
import subprocess
import zlib
from pathlib import Path
from typing import Final

import pytest

VARIABLE: Final = "SHARDMILL_PROOFS"
THIRDS: Final = 3


def read_third() -> int | None:
    """The third that the environment asks for, from 1; None for all proofs."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "sample":
        return choose_third(read_commit())
    if wanted in ("", "all"):
        return None
    if not re.fullmatch(rf"[1-{THIRDS}]/{THIRDS}", wanted):
        raise pytest.UsageError(
            f"{VARIABLE}={wanted[:40]!r} is not known: write sample, all, or 1/3, 2/3, 3/3"
        )
    return int(wanted[0])


def read_commit(folder: Path = Path(__file__).parent) -> str:
    """The commit that is checked out, in hexadecimal; empty without Git or its folder."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def choose_third(commit: str) -> int:
    """The third of a commit, as likely as any other."""
    return int(commit or "0", 16) % THIRDS + 1


def is_in(nodeid: str, third: int) -> bool:
    """Whether a proof is in that third, in all processes of pytest-xdist alike."""
    return zlib.crc32(nodeid.encode()) % THIRDS + 1 == third


def describe_choice() -> str:
    """A line for the head of pytest; empty if all proofs run."""
    third = read_third()
    if third is None:
        return ""
    reason = ""
    if os.environ[VARIABLE] == "sample":
        commit = read_commit()
        reason = f" (by commit {commit[:12]})" if commit else " (without a commit)"
    again = f"{VARIABLE}={third}/{THIRDS}"
    return f"proofs: third {third} of {THIRDS}{reason}; the same again: {again}"
