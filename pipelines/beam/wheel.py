"""Shardmill itself as a wheel, for workers that start with nothing but Beam.

It is made of what is imported here, be that a checkout or an installation, so nothing has to be
built, and a worker runs the very code of the launcher.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

import converter
from converter.errors import UsageError

DISTRIBUTION: Final = "shardmill"
PACKAGES: Final = ("converter", "pipelines", "reader")

EXTRAS: Final = ("gs", "s3", "heif")
"""What a worker gets as well if the launcher has it: stores, and formats of images."""

EXACT: Final = ("pillow", "pillow-heif")
"""Decoders and encoders, on the versions of which the bytes of a data set depend."""

_MADE: Final = (1980, 1, 1, 0, 0, 0)
_WHEEL: Final = (
    "Wheel-Version: 1.0\nGenerator: shardmill\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)


def write_wheel(folder: Path) -> Path:
    """Writes the wheel into a folder; the same code gives the same bytes.

    Raises:
        UsageError: this is no installation, so nothing says what it requires.
    """
    name = f"{DISTRIBUTION}-{converter.__version__}"
    info = f"{name}.dist-info"
    files = {
        **_read_packages(),
        f"{info}/METADATA": _describe_package().encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
    }
    files[f"{info}/RECORD"] = _record_files(files, f"{info}/RECORD")
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(zipfile.ZipInfo(file, _MADE), data, zipfile.ZIP_DEFLATED)
    return path


def list_requirements() -> list[Requirement]:
    """What a worker needs: the base install, and of `EXTRAS` those that are installed here.

    Raises:
        UsageError: this is no installation.
    """
    parsed = [Requirement(text) for text in _read_metadata().get_all("Requires-Dist", [])]
    chosen = [requirement for requirement in parsed if _applies(requirement, "")]
    for extra in EXTRAS:
        more = [requirement for requirement in parsed if _applies(requirement, extra)]
        if all(_find_version(requirement.name) for requirement in more):
            chosen += [requirement for requirement in more if requirement not in chosen]
    return [_pin(requirement) for requirement in chosen]


def _read_packages() -> dict[str, bytes]:
    files = {}
    for package in PACKAGES:
        folder = Path(str(importlib.import_module(package).__file__)).parent
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("py.typed"))):
            files[f"{package}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return files


def _describe_package() -> str:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION}",
        f"Version: {converter.__version__}",
        f"Requires-Python: {_read_metadata()['Requires-Python']}",
        *(f"Requires-Dist: {requirement}" for requirement in list_requirements()),
    ]
    return "\n".join(lines) + "\n"


def _read_metadata() -> importlib.metadata.PackageMetadata:
    try:
        return importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"{DISTRIBUTION} is not installed here, so no wheel of it can be made for workers: "
            "pip install it, or give --sdk_container_image or --extra_package"
        ) from None


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether an extra asks for it, or for no extra, the base install."""
    marker = requirement.marker
    if not extra:
        return marker is None or marker.evaluate({"extra": ""})
    return (
        marker is not None
        and marker.evaluate({"extra": extra})
        and not marker.evaluate({"extra": ""})
    )


def _pin(requirement: Requirement) -> Requirement:
    if requirement.name not in EXACT:
        return Requirement(str(requirement).partition(";")[0])
    return Requirement(f"{requirement.name}=={_find_version(requirement.name)}")


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _record_files(files: Mapping[str, bytes], record: str) -> bytes:
    def lines() -> Iterator[str]:
        for name, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            yield f"{name},sha256={digest},{len(data)}"
        yield f"{record},,"

    return ("\n".join(lines()) + "\n").encode()
