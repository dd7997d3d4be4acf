"""What the long sweeps share: data sets whose right bytes are known, and what may be seen of them.

A trial does something bad to a conversion, looks at what lies there, runs the same command again,
and looks once more. It yields "" if all promises were kept, and else says what was lost.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from PIL import Image

from converter.storage.files import COMPANIONS

SCRIPTS = Path(__file__).resolve().parents[1]
LOOP = (sys.executable, str(SCRIPTS / "faults" / "loop_runner.py"))
BEAM = (sys.executable, "-m", "pipelines")

PIXELS = ("--image-size=16", "--encoding=raw", "--no-progress")
OTHER = ("--num-shards=4", "--seed=1", *PIXELS)
ASKED = ("--num-shards=6", "--validation-split=0.2", *PIXELS)

TIMEOUT_S = 120

Tree = dict[str, str]
"""SHA-256 of files by their relative path."""


class Skip(Exception):  # noqa: N818 (says that, and is no error)
    """An experiment cannot be made on this machine: says why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of conversion.

    Attributes:
        name: convert, overwrite or update.
        images: the folder that is converted.
        arguments: of the command line, behind IMAGES and OUT.
        before: the data set that lies there already, or None.
        after: what has to lie there afterwards.
    """

    name: str
    images: Path
    arguments: tuple[str, ...]
    before: Path | None
    after: Tree

    def place(self, folder: Path) -> Path:
        """Prepares a folder of its own for a trial; returns the output in it."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if self.before is not None:
            shutil.copytree(self.before, folder / "out")
        return folder / "out"

    def command(self, out: Path, launch: tuple[str, ...] = LOOP) -> list[str]:
        return [*launch, "convert", str(self.images), str(out), *self.arguments]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soak:
    """What an experiment is given.

    Attributes:
        cases: by name.
        work: folder for trials.
        launch: the command line that is tried; the tests give one with a planted bug.
        times: how often, or how finely, an experiment is made.
        random: for moments and places.
    """

    cases: dict[str, Case]
    work: Path
    times: int
    random: random.Random
    launch: tuple[str, ...] = LOOP


Experiment = Callable[[Soak], Iterator[str]]


def make_cases(work: Path) -> dict[str, Case]:
    """Converts some images without any fault, from nothing, over another data set, and updated."""
    images, changed = work / "images", work / "changed"
    for number in range(60):
        write_image(images, number, number)
    shutil.copytree(images, changed)
    for number in (3, 4):
        write_image(changed, number, number + 100)
    (changed / "b" / "9.png").unlink()
    write_image(changed, 60, 60)
    plain = make_case("convert", work, images, ASKED, None)
    other = make_case("other", work, images, OTHER, None)
    return {
        "convert": plain,
        "other": other,
        "overwrite": make_case("overwrite", work, images, (*ASKED, "--overwrite"), other),
        "update": make_case("update", work, changed, ("--update", "--no-progress"), plain),
    }


def make_case(
    name: str, work: Path, images: Path, arguments: tuple[str, ...], before: Case | None
) -> Case:
    case = Case(
        name=name,
        images=images,
        arguments=arguments,
        before=work / before.name / "out" if before else None,
        after={},
    )
    out = case.place(work / name)
    code, lines = finish(start(case.command(out)))
    if code:
        raise SystemExit(f"{name} fails without any fault: {lines}")
    return dataclasses.replace(case, after=read_tree(out))


def write_image(folder: Path, number: int, seed: int) -> None:
    """A picture that no other seed gives."""
    path = folder / "ab"[number % 2] / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.Random(seed).randbytes(32 * 24 * 3)  # noqa: S311
    Image.frombytes("RGB", (32, 24), pixels).save(path)


def start(command: list[str], **options: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS)]),
        "PYTHONDONTWRITEBYTECODE": "1",  # else .pyc files are hit instead of ours
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"),
        "PYTHONSAFEPATH": "1",
    }
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, **options,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Waits for the end: the exit code, and what was said on standard error."""
    with process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors.splitlines()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a file is there, or the process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.001)


def kill_all(process: subprocess.Popen[str], victims: list[psutil.Process]) -> None:
    """Kills some of the processes that belong to a command, and waits until all have ended."""
    family = list_family(process)
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    finish(process)
    psutil.wait_procs([member for member in family if member.pid != process.pid], TIMEOUT_S)


def list_family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        launcher = psutil.Process(process.pid)
        return [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def read_tree(folder: Path) -> Tree:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in COMPANIONS  # they hold times
    }


def read_named(out: Path) -> Tree:
    """The files with a final name."""
    if not out.is_dir():
        return {}
    found = (path for path in sorted(out.iterdir()) if path.name not in COMPANIONS)
    files = (path for path in found if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def judge_moment(case: Case, out: Path) -> str:
    """What is wrong with what may be seen at any moment; nothing, if all is well."""
    seen, known = read_named(out), [case.after]
    if case.before:
        known.append(read_named(case.before))
    differences = list_differences(seen, case.after)
    if (case.before or "manifest.json" in seen) and seen not in known:
        return f"neither the old data set nor the new one: {differences}"
    if not case.before and not seen.items() <= case.after.items():
        return f"final names without their content: {differences}"
    for folder in (out, stage_of(out)):
        for shard, sha256 in read_receipts(folder).items():
            if read_named(folder).get(shard) != sha256:
                return f"a receipt of a shard that is not there: {shard}"
    return ""


def judge_end(case: Case, out: Path) -> str:
    """What differs from what a run without any fault leaves."""
    expected = {f"out/{name}": sha256 for name, sha256 in case.after.items()}
    differences = list_differences(read_tree(out.parent), expected)
    return f"another tree at the end: {differences}" if differences else ""


def judge_failure(code: int, lines: list[str]) -> str:
    """What is wrong with how a command failed: it has to be one clear line, warnings apart."""
    lines = [line for line in lines if not line.startswith("shardmill: warning: ")]
    if code in (1, 2) and len(lines) == 1 and lines[0].startswith("shardmill: error: "):
        return ""
    return f"exit code {code} with {lines[-1] if lines else 'no word'!r} of {len(lines)} lines"


def judge_resume(case: Case, out: Path, launch: tuple[str, ...]) -> str:
    """Runs the same command again: the right tree, and no finished shard written again."""
    finished = list_finished_files(out)
    code, lines = finish(start(case.command(out, launch)))
    if code:
        return f"the same command again failed: {lines}"
    if not finished <= {(path.name, path.stat().st_ino) for path in out.iterdir()}:
        return "a finished shard was written again"
    return judge_end(case, out)


def list_finished_files(out: Path) -> set[tuple[str, int]]:
    """Name and inode of every shard with a receipt."""
    return {
        (shard, (folder / shard).stat().st_ino)
        for folder in (out, stage_of(out))
        for shard in read_receipts(folder)
        if (folder / shard).exists()
    }


def read_receipts(out: Path) -> Tree:
    """The SHA-256 that receipts state, by the name of the shard; "" for one that is cut off."""
    receipts = {}
    for path in (out / ".shardmill" / "receipts").glob("*.json"):
        try:
            receipt = json.loads(path.read_bytes())
        except ValueError:
            receipt = {"name": path.name, "sha256": ""}
        receipts[receipt["name"]] = receipt["sha256"]
    return receipts


def stage_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.shardmill-new")


def list_differences(seen: Tree, expected: Tree) -> str:
    names = sorted(name for name, _ in seen.items() ^ expected.items())
    return ", ".join(dict.fromkeys(names))[:300]
