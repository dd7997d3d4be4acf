"""Kills at random moments, two converters on one folder, one shard twice, originals that change."""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from faults.experiment import (
    BEAM,
    TIMEOUT_S,
    Case,
    Soak,
    finish,
    judge_end,
    judge_moment,
    judge_resume,
    kill_all,
    list_family,
    read_named,
    start,
    wait_for,
    write_image,
)

from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.storage.files import Layout
from converter.storage.locate import locate
from converter.upkeep.contents import read_sources
from converter.upkeep.verification import verify_dataset
from pipelines.jobs.preview import propose

KILLED = ("convert", "overwrite", "update")

_REFUSAL = re.compile(
    r"shardmill: error: .*"
    r"(is being written by|changes hands|holds a finished|holds an unfinished).*\n"
)


def kill_converters(soak: Soak) -> Iterator[str]:
    """Kills a conversion in one process at a random moment, and often the next one, too."""
    seconds: dict[str, float] = {}
    for number in range(soak.times):
        name = KILLED[number % len(KILLED)]
        if name not in seconds:
            seconds[name] = clock(soak, soak.cases[name], soak.launch)
        kills = soak.random.choice((1, 1, 2))
        yield kill_once(soak, soak.cases[name], seconds[name], soak.launch, kills=kills)


def kill_processes(soak: Soak) -> Iterator[str]:
    """Kills a worker, the launcher, or all of them, of a conversion on Beam."""
    seconds: dict[str, float] = {}
    for number in range(soak.times):
        name = KILLED[number // 3 % len(KILLED)]
        if name not in seconds:
            seconds[name] = clock(soak, soak.cases[name], BEAM)
        who = ("worker", "launcher", "all")[number % 3]
        yield kill_once(soak, soak.cases[name], seconds[name], BEAM, who=who)


def clock(soak: Soak, case: Case, launch: tuple[str, ...]) -> float:
    """How long a conversion takes from its lock to its end."""
    out = case.place(soak.work / "clocked")
    process = start(case.command(out, launch))
    wait_for(Layout(out).lock, process)
    begin = time.monotonic()
    finish(process)
    return time.monotonic() - begin


def kill_once(
    soak: Soak,
    case: Case,
    seconds: float,
    launch: tuple[str, ...],
    *,
    who: str = "all",
    kills: int = 1,
) -> str:
    out = case.place(soak.work / "killed")
    for _ in range(kills):
        process = start(case.command(out, launch))
        wait_for(Layout(out).lock, process)
        time.sleep(soak.random.uniform(0, seconds))
        family = list_family(process)
        victims = {"all": family, "launcher": family[:1], "worker": family[1:2]}[who]
        kill_all(process, victims)
        if lost := judge_moment(case, out):
            return lost
    return judge_resume(case, out, launch)


def race_converters(soak: Soak) -> Iterator[str]:
    """Starts two converters on one folder, of the same data set or of two."""
    pairs = (("convert", "convert"), ("convert", "other"), ("other", "convert"))
    for number in range(soak.times):
        launch = BEAM if number % 10 == 9 and soak.times >= 10 else soak.launch
        pause = soak.random.choice((0, soak.random.uniform(0, 0.3), soak.random.uniform(0, 1)))
        yield race_once(soak, [soak.cases[name] for name in pairs[number % 3]], launch, pause)


def race_once(soak: Soak, cases: list[Case], launch: tuple[str, ...], pause: float) -> str:
    out = cases[0].place(soak.work / "raced")
    processes = [start(cases[0].command(out, launch))]
    time.sleep(pause)
    processes.append(start(cases[1].command(out, launch)))
    ends = [(*process.communicate(timeout=TIMEOUT_S), process.returncode) for process in processes]
    winners = [case for case, (_, _, code) in zip(cases, ends, strict=True) if code == 0]
    busy = [said for said, _, code in ends if code == 0 and "nothing to do" not in said]
    if len(busy) != 1 or len({case.name for case in winners}) != 1:
        return f"{len(busy)} did the work: {ends}"
    for _, errors, code in ends:
        if code and not _REFUSAL.fullmatch(errors):
            return f"refused with {errors}"
    return judge_end(winners[0], out)


def write_twice(soak: Soak) -> Iterator[str]:
    """Writes one shard in two processes at once, and kills one of them every other time."""
    case = soak.cases["convert"]
    options = ConvertOptions(
        source="folders", image_size=(16, 16), encoding="raw", num_shards=6, validation_split=0.2
    )
    for number in range(soak.times):
        out = case.place(soak.work / "doubled")
        draft = propose(case.images, options, always_sample=False).draft
        plan = write_plan(draft, options, images=case.images, out=out)
        name = plan.shards[number % len(plan.shards)].name
        yield write_both(soak, out, name, kill=number % 2 == 1) or judge_resume(
            case, out, soak.launch
        )


def write_both(soak: Soak, out: Path, name: str, *, kill: bool) -> str:
    attempts = [start([*soak.launch, "write", str(out), name]) for _ in range(2)]
    for attempt in attempts:
        attempt.stdout.readline()  # it has imported all and waits for the word
    for attempt in attempts:
        attempt.stdin.write("go\n")
        attempt.stdin.flush()
    if kill:
        time.sleep(soak.random.uniform(0, 0.06))
        attempts[0].kill()
    ends = [finish(attempt) for attempt in attempts]
    if any(code for code, _ in ends[kill:]):
        return f"an attempt that nobody killed failed: {ends}"
    if name not in read_named(out):
        return "the shard is not there"
    return judge_moment(soak.cases["convert"], out)


def change_sources(soak: Soak) -> Iterator[str]:
    """Removes and rewrites originals while they are converted."""
    for _ in range(soak.times):
        folder = soak.work / "changing"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(soak.cases["convert"].images, folder / "images")
        yield change_once(soak, folder)


def change_once(soak: Soak, folder: Path) -> str:
    images, out = folder / "images", folder / "out"
    paths = sorted(images.rglob("*.png"))
    stop = threading.Event()

    def disturb() -> None:
        for path in soak.random.sample(paths, 6):
            if stop.wait(soak.random.uniform(0, 0.05)):
                return
            if soak.random.random() < 0.5:
                path.unlink()
            else:
                write_image(images, int(path.stem), int(path.stem) + 1000)

    arguments = soak.cases["convert"].arguments
    process = start([*soak.launch, "convert", str(images), str(out), *arguments])
    wait_for(Layout(out).plan, process)
    thread = threading.Thread(target=disturb)
    thread.start()
    code, lines = finish(process)
    stop.set()
    thread.join()
    return judge_accounts(out, len(paths)) if code == 0 else f"failed: {lines}"


def judge_accounts(out: Path, files: int) -> str:
    """Whether each file is a record or a reject, and what is wrong with the data set."""
    totals = json.loads((out / "manifest.json").read_bytes())["totals"]
    left_out = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    if not files == totals["scanned"] == totals["written"] + len(left_out):
        return f"{files} files, but {totals}"
    if strange := {line["code"] for line in left_out} - {"changed", "vanished", "decode_error"}:
        return f"rejected as {strange}"
    if faults := verify_dataset(locate(out)):
        return f"verify finds {faults[0]}"
    shards = read_manifest(out).shards
    records = [source.path for shard in shards for source in read_sources(out, shard)]
    rejected = [line["path"] for line in left_out]
    if len({*records, *rejected}) != files:
        return "a file is neither a record nor a reject, or it is both"
    return ""
