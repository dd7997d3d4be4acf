"""Names of files as text that is the same in every locale.

A name is bytes. Python shows it to a program through the locale's encoding, so the same file has
one name under UTF-8 and another under Latin-1. Here a name is always those bytes read as UTF-8, and
bytes that are not UTF-8 stand in it as lone surrogates: nothing is lost on the way back.
"""

from __future__ import annotations

import os


def from_system(name: str) -> str:
    """The portable spelling of a name that the operating system gave."""
    return from_bytes(os.fsencode(name))


def to_system(name: str) -> str:
    """The spelling by which this process can open a file of that portable name."""
    return os.fsdecode(to_bytes(name))


def from_bytes(name: bytes) -> str:
    """The portable spelling of a name's bytes."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """The bytes of a portable name, which also order names free of any locale."""
    return name.encode("utf-8", "surrogateescape")
