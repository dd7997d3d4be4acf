"""Packs shardmill itself into a wheel, for workers that start with only Beam.

It is written from the imported modules, so workers run the very code of the launcher. `pip wheel`
cannot replace this: it needs the source tree and hatchling, which an installed shardmill does not
have, and it knows neither the launcher's version of Pillow nor its extras.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import converter
from converter.errors import UsageError

DISTRIBUTION: Final = "shardmill"
PACKAGES: Final = ("converter", "pipelines", "reader")

EXTRAS: Final = ("gs", "s3", "heif")
"""Workers also get these extras if the launcher has them: stores and image formats."""

EXACT: Final = ("pillow", "pillow-heif")
"""Decoders and encoders whose versions decide the bytes of a data set."""

_WHEEL: Final = (
    "Wheel-Version: 1.0\nGenerator: shardmill\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)


def write_wheel(folder: Path) -> Path:
    """Writes the wheel into a folder; the same code gives the same bytes."""
    name = f"{DISTRIBUTION}-{converter.__version__}"
    info = f"{name}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION}",
        f"Version: {converter.__version__}",
        f"Requires-Python: {_read_metadata()['Requires-Python']}",
        *(f"Requires-Dist: {requirement}" for requirement in list_requirements()),
    ]
    files = {
        **_read_packages(),
        f"{info}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
    }
    record = [f"{file},sha256={_digest(data)},{len(data)}\n" for file, data in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            # A bare `ZipInfo` is dated 1980, whenever the wheel is written.
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED)
    return path


def list_requirements() -> list[Requirement]:
    """What a worker needs: the base install, and those of `EXTRAS` that are installed here."""
    parsed = [Requirement(text) for text in _read_metadata().get_all("Requires-Dist", [])]
    chosen: list[Requirement] = []
    for extra in ("", *EXTRAS):
        more = [requirement for requirement in parsed if _applies(requirement, extra)]
        if not extra or all(_find_version(requirement.name) for requirement in more):
            chosen += [requirement for requirement in more if requirement not in chosen]
    for requirement in chosen:
        requirement.marker = None
        if requirement.name in EXACT:
            requirement.specifier = SpecifierSet(f"=={_find_version(requirement.name)}")
    return chosen


def _read_packages() -> dict[str, bytes]:
    root = Path(converter.__file__).parents[1]
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*"))
        if path.suffix == ".py" or path.name == "py.typed"
    }


def _read_metadata() -> importlib.metadata.PackageMetadata:
    try:
        return importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"{DISTRIBUTION} is not installed here, so no wheel of it can be made for workers: "
            "pip install it, or give --sdk_container_image or --extra_package"
        ) from None


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
