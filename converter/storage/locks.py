"""Locks of data sets, and signed folders, wherever they lie."""

from __future__ import annotations

import contextlib
from typing import Final

from converter.storage.atomic import write_file
from converter.storage.layout import Layout
from converter.storage.location import Location
from converter.storage.owners import describe_self, dump_owner, parse_owner

_SIGN: Final = "owner.json"


def lock_stage(out: Location) -> contextlib.AbstractContextManager[None]:
    """Locks what is made beside a data set whose own lock is held, and may come in its place.

    Since only the holder of that lock may be at it, any other owner is one that is gone.

    Raises:
        LockedError, OutputError: as of `Location.lock`.
    """
    return Layout(out).stage.lock(break_lock=True, moves_to=out)


def sign_folder(folder: Location) -> None:
    """Leaves in a folder of this process' own whose it is, so that `is_deserted` can tell.

    Raises:
        OutputError: it cannot be written.
        StoreError: the store does not answer, or refuses.
    """
    write_file(folder / _SIGN, dump_owner(describe_self()), folder)


def is_deserted(folder: Location) -> bool:
    """Whether the process that has signed a folder is known to be gone.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    try:
        return parse_owner((folder / _SIGN).read_bytes()).is_gone(unheld=False)
    except OSError:
        return False
