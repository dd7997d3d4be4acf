"""Runs a conversion on Apache Beam: the only folder that knows Beam.

    preflight     is this a sane place to run in?
    conversion    scan -> plan -> run -> commit, as one function
    transforms    the pipeline: `MillShards`, one element = one shard
    runners       which Beam runner, with which options
    workers       local worker processes, started early and watched (`worker_main` is one of them)
    progress      a bar over images, fed by the receipts of finished shards
    summaries     what a person is told
    commands      the command line

Synopsis:

    from converter import ConvertOptions
    from pipelines import convert

    manifest = convert("photos", "photos-256", ConvertOptions(image_size=(256, 256)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.conversion import Proposal, convert, propose
    from pipelines.transforms import MillShards

__all__ = ["MillShards", "Proposal", "convert", "propose"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for.

    Importing Beam takes more than a second, which `shardmill inspect` should not have to wait.
    """
    if name not in __all__:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    if name == "MillShards":
        from pipelines import transforms

        return transforms.MillShards
    from pipelines import conversion

    return getattr(conversion, name)
