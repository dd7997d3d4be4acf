"""What the scripts that start real engines share: processes, conversions, and the comparison.

A conversion on an engine has to leave the tree that a local one leaves, byte for byte, also if a
part of the engine is killed with SIGKILL in the middle of it.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import psutil
from benchmarks.corpora import make_photos, write_pixels
from benchmarks.measuring import report
from engines.parts import Unavailable
from faults.experiment import Tree, list_differences, read_tree
from typing_extensions import Self

ROOT: Final = Path(__file__).resolve().parents[2]
WORK: Final = ROOT / "build" / "engines"

ASKED: Final = ("--encoding=png", "--num-shards=16", "--validation-split=0.2", "--no-progress")
"""PNG, because it takes long to encode: there is a middle to kill something in."""

PLANNED: Final = "--plan-on=runner"

OPENED: Final = tuple(
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in (
        *("java.io", "java.lang", "java.lang.invoke", "java.lang.reflect", "java.net", "java.nio"),
        *("java.time", "java.util", "java.util.concurrent", "sun.nio.ch", "sun.util.calendar"),
    )
)
"""Flink and Spark look into these by reflection, which Java 17 allows only if told so."""

START_S: Final = 120
CONVERT_S: Final = 300
END_S: Final = 5

UNAVAILABLE: Final = 69
"""The exit code of a script whose engine is not to be had; what was tried is said before."""


class Cluster:
    """Processes that live as long as the `with` block, each with a log and a group of its own."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for name in reversed(self._processes):
            self.signal(name, signal.SIGTERM)
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline and any(map(self.is_up, self._processes)):
            time.sleep(0.05)
        for name, process in self._processes.items():
            self.signal(name, signal.SIGKILL)
            process.wait()

    def is_up(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def start(self, name: str, command: Sequence[object], **variables: str) -> None:
        """Starts a process; one of that name has been killed."""
        if killed := self._processes.get(name):
            killed.wait()
        with open(self.log(name), "wb") as log:
            self._processes[name] = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=make_environment(**variables),
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait_until(self, name: str, ready: Callable[[], bool]) -> None:
        """Waits until a process is ready; if it ends or takes too long, so does the script."""
        deadline = time.monotonic() + START_S
        while not ready():
            if not self.is_up(name) or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start:\n{tail(self.log(name))}")
            time.sleep(0.1)

    def wait_for_text(self, name: str, text: str) -> None:
        self.wait_until(name, lambda: text in self.log(name).read_text(errors="replace"))

    def signal(self, name: str, number: int) -> None:
        """Signals a process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._processes[name].pid, number)

    def measure_cpu(self, name: str) -> float:
        """Seconds of CPU of a process and of all that it started."""
        with contextlib.suppress(psutil.Error):
            tree = psutil.Process(self._processes[name].pid)
            times = [each.cpu_times() for each in (tree, *tree.children(recursive=True))]
            return sum(t.user + t.system + t.children_user + t.children_system for t in times)
        return 0.0


class Images(NamedTuple):
    """What is converted, and what is asked in addition."""

    folder: Path
    asked: tuple[str, ...] = ()


class Moment(NamedTuple):
    """When something is killed: not before so many files lie there, nor after so many receipts."""

    place: str
    files: int
    receipts: int


CONVERTING: Final = Moment("receipts", 5, receipts=19)  # of 20 shards
PLANNING: Final = Moment("planning/listing-*", 3, receipts=0)


class Proof:
    """Conversions on engines, each compared with one of the same images on this machine alone."""

    def __init__(self, work: Path) -> None:
        self.out, self.log = work / "out", work / "convert.log"
        self.missed = 0
        self._expected: dict[Images, Tree] = {}

    def convert(
        self,
        images: Images,
        what: str,
        arguments: Sequence[str] = (),
        *,
        cluster: Cluster | None = None,
        workers: Sequence[str] = (),
        victim: str = "",
    ) -> None:
        """Converts, and prints how it came out.

        Args:
            images: the first time, they are converted here as well.
            what: the engine, and what happens to it.
            arguments: of the command line.
            cluster: where it runs.
            workers: names of processes all of which have to do a fair share.
            victim: the name of one that is killed in the middle.
        """
        if arguments and images not in self._expected:
            self.convert(images, f"{images.folder.parent.name}, here")
        begin = time.monotonic()
        with self._start(images, arguments) as process:
            if cluster and victim:
                moment = PLANNING if PLANNED in arguments else CONVERTING
                found = self._wait(process, moment)
                cluster.signal(victim, signal.SIGKILL)
                # The end came first, or what was to be interrupted is done.
                self.missed += found < moment.files or self._count("receipts") > moment.receipts
                what = f"{what} at {found}"
            self._wait(process)
        value = f"{time.monotonic() - begin:.1f} s"
        self._judge(images, what, process.returncode, value)
        if cluster and workers:
            self._judge_shares({name: cluster.measure_cpu(name) for name in workers})

    def _start(self, images: Images, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        shutil.rmtree(self.out, ignore_errors=True)
        command = [sys.executable, "-m", "pipelines", "convert", images.folder, self.out, *ASKED]
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                [*command, *images.asked, *arguments],
                stdout=log,
                stderr=log,
                env=make_environment(),
            )

    def _wait(self, process: subprocess.Popen[bytes], moment: Moment | None = None) -> int:
        """Waits for a moment, or until the process has ended; returns how many files there are."""
        deadline, found = time.monotonic() + CONVERT_S, 0
        while process.poll() is None and (moment is None or found < moment.files):
            found = self._count(moment.place) if moment else 0
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.05)
        return found

    def _count(self, place: str) -> int:
        return len(list(self.out.glob(f".shardmill/{place}/*")))

    def _judge(self, images: Images, what: str, code: int, value: str) -> None:
        tree = read_tree(self.out)
        differences = list_differences(tree, self._expected.setdefault(images, tree))
        ok = code == 0 and not differences and "manifest.json" in tree
        self.missed += not report(what, value, f"{len(tree)} files, the same bytes", ok=ok)
        if not ok:
            print(f"exit code {code}, other files: {differences or None}\n{tail(self.log)}")

    def _judge_shares(self, seconds: dict[str, float]) -> None:
        told = ", ".join(f"{name} {share:.1f} s" for name, share in seconds.items())
        fair = min(seconds.values()) > 0.4 * max(seconds.values())
        self.missed += not report("  CPU time", told, "a fair share each", ok=fair)

    def conclude(self) -> int:
        """The exit code of the script."""
        print(f"{self.missed} proofs failed" if self.missed else "every tree is the same")
        return 1 if self.missed else 0


def parse_images(about: str | None) -> tuple[Images, Images]:
    """Reads the command line; returns photographs, and files of one pixel, both made once."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--pixels", type=int, default=10_000, help="files planned on the engine")
    counts = parser.parse_args()
    return make_images(WORK, counts.photos, counts.pixels)


def make_images(work: Path, photos: int, pixels: int) -> tuple[Images, Images]:
    """Photographs, and files of one pixel, of which there can be many."""
    tiny = Images(write_pixels(work, pixels), ("--image-size=8",))
    return Images(make_photos(work, photos)), tiny


def make_environment(**variables: str) -> dict[str, str]:
    """The environment of a process that finds shardmill, and this very Python as `python`."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        **variables,
    }


def find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def is_open(port: int) -> bool:
    """Whether something listens at a port of this machine."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def run_script(main: Callable[[], int]) -> NoReturn:
    """Ends with the exit code of `main`, or with that of an engine that is not to be had."""
    # What is told to end takes the engine along.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main())
    except Unavailable as reason:
        print(f"not to be had: {reason}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
