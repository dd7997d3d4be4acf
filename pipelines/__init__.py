"""Runs a conversion on Apache Beam: the only folder that knows Beam.

    preflight     is this a sane place to run in?
    proposals     scan -> plan, without writing anything
    requests      what a conversion is asked for, and whether it is there already
    milling       the shards of a plan that are left, run and followed
    conversion    scan -> plan -> run -> commit, as one function; overwrite and update, too
    resolutions   the same for several sizes in one pass
    verification  a finished data set against its manifest, also as a Beam job
    repairs       what a check condemns, made again
    cleaning      what killed runs leave behind, removed
    transforms    the pipelines: `MillShards` and the like, of shards or groups of them
    runners       which Beam runner, with which options
    clusters      runners on other machines: what they see, and what Dataflow is told
    packages      shardmill itself as a wheel, for their workers
    workers       local worker processes, started early and watched (`worker_main` is one of them)
    progress      a bar over images, fed by the receipts of finished shards
    summaries     what a person is told
    terminal      the streams that a command writes to
    commands      the command line, of which `arguments` says what it takes

Synopsis:

    from converter import ConvertOptions
    from pipelines import convert

    manifest = convert("photos", "photos-256", ConvertOptions(image_size=(256, 256)))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pipelines.cleaning import clean
    from pipelines.conversion import convert
    from pipelines.proposals import Proposal, propose
    from pipelines.repairs import Repair, repair
    from pipelines.resolutions import convert_sizes
    from pipelines.transforms import MillShards, VerifyShards
    from pipelines.verification import verify

__all__ = [
    "MillShards",
    "Proposal",
    "Repair",
    "VerifyShards",
    "clean",
    "convert",
    "convert_sizes",
    "propose",
    "repair",
    "verify",
]

_HOMES: Final = {
    "MillShards": "pipelines.transforms",
    "Proposal": "pipelines.proposals",
    "Repair": "pipelines.repairs",
    "VerifyShards": "pipelines.transforms",
    "clean": "pipelines.cleaning",
    "convert": "pipelines.conversion",
    "convert_sizes": "pipelines.resolutions",
    "propose": "pipelines.proposals",
    "repair": "pipelines.repairs",
    "verify": "pipelines.verification",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for.

    Importing Beam takes more than a second, which `shardmill inspect` should not have to wait.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
