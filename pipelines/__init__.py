"""Runs a conversion on Apache Beam: the only folder that knows Beam.

    cli     the command line
    view    `shardmill view`: a page to walk through records
    jobs    each command as a function
    pages   `report.html`, and what both pages share
    beam    transforms, runners and workers: the only modules that import Beam

Each uses those below it.

Synopsis:

    from converter import ConvertOptions
    from pipelines import convert

    manifest = convert("photos", "photos-256", ConvertOptions(image_size=(256, 256)))
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # without `typing`, which takes 15 ms before a command can handle Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from converter.commits.replacements import clean
    from converter.exports.export_job import Export
    from pipelines.beam.transforms import MillShards, VerifyShards
    from pipelines.jobs.convert import convert, convert_sizes
    from pipelines.jobs.export import export
    from pipelines.jobs.preview import Preview, plan, plan_sizes
    from pipelines.jobs.reporting import report
    from pipelines.jobs.request import RunSettings
    from pipelines.jobs.upkeep import Repair, repair, verify

__all__ = [
    "Export",
    "MillShards",
    "Preview",
    "Repair",
    "RunSettings",
    "VerifyShards",
    "clean",
    "convert",
    "convert_sizes",
    "export",
    "plan",
    "plan_sizes",
    "repair",
    "report",
    "verify",
]

_HOMES = {
    "converter.commits.replacements": ("clean",),
    "converter.exports.export_job": ("Export",),
    "pipelines.beam.transforms": ("MillShards", "VerifyShards"),
    "pipelines.jobs.convert": ("convert", "convert_sizes"),
    "pipelines.jobs.export": ("export",),
    "pipelines.jobs.preview": ("Preview", "plan", "plan_sizes"),
    "pipelines.jobs.reporting": ("report",),
    "pipelines.jobs.request": ("RunSettings",),
    "pipelines.jobs.upkeep": ("Repair", "repair", "verify"),
}


def __getattr__(name: str) -> Any:
    # Only now, because Beam takes more than a second to import, which `inspect` does without.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


del TYPE_CHECKING
