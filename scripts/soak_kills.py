"""Kills at random moments, two converters on one folder, one shard twice, originals that change."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from soaking import (
    BEAM,
    Case,
    Soak,
    finish,
    judge_end,
    judge_failure,
    judge_moment,
    judge_resume,
    kill_all,
    list_family,
    read_named,
    start,
    wait_for,
    write_image,
)

from converter.layout import Layout
from converter.manifest import read_manifest
from converter.options import ConvertOptions
from converter.plan import write_plan
from converter.sources import read_sources
from converter.verification import verify_dataset
from pipelines.proposals import propose

KILLED = ("convert", "overwrite", "update")


def kill_converters(soak: Soak) -> Iterator[str]:
    """Kills a conversion in one process at a random moment, and often the next one, too."""
    seconds = {name: clock(soak, soak.cases[name]) for name in KILLED}
    for number in range(soak.times):
        case = soak.cases[KILLED[number % len(KILLED)]]
        yield kill_once(soak, case, seconds[case.name], "all", kills=soak.random.choice((1, 1, 2)))


def kill_processes(soak: Soak) -> Iterator[str]:
    """Kills a worker, the launcher, or all of them, of a conversion on Beam."""
    seconds = {name: clock(soak, soak.cases[name], BEAM) for name in KILLED}
    for number in range(soak.times):
        case = soak.cases[KILLED[number // 3 % len(KILLED)]]
        who = ("worker", "launcher", "all")[number % 3]
        yield kill_once(soak, case, seconds[case.name], who, launch=BEAM)


def clock(soak: Soak, case: Case, launch: tuple[str, ...] | None = None) -> float:
    """How long a conversion takes from its lock to its end."""
    out = case.place(soak.work / "clocked")
    process = start(case.command(out, launch or soak.launch))
    wait_for(Layout(out).lock, process)
    begin = time.monotonic()
    finish(process)
    return time.monotonic() - begin


def kill_once(
    soak: Soak,
    case: Case,
    seconds: float,
    who: str,
    *,
    kills: int = 1,
    launch: tuple[str, ...] | None = None,
) -> str:
    launch = launch or soak.launch
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
    ends = [finish(process) for process in processes]
    winners = [case for case, (code, _) in zip(cases, ends, strict=True) if code == 0]
    if not winners:
        return f"nobody won: {ends}"
    if len({case.name for case in winners}) > 1:
        return "two data sets in one folder, and both are said to be done"
    for code, lines in ends:
        if code and (lost := judge_failure(code, lines)):
            return lost
    return judge_end(winners[0], out)


def mill_twice(soak: Soak) -> Iterator[str]:
    """Mills one shard in two processes at once, one of which may be killed."""
    case = soak.cases["convert"]
    for number in range(soak.times):
        out = case.place(soak.work / "doubled")
        options = ConvertOptions(
            image_size=(16, 16), encoding="raw", num_shards=6, validation_split=0.2
        )
        draft = propose(case.images, options, always_sample=False).draft
        plan = write_plan(draft, options, images=case.images, out=out)
        shard = plan.shards[number % len(plan.shards)]
        attempts = [start([*soak.launch, "mill", str(out), shard.name]) for _ in range(2)]
        time.sleep(0.3)  # until both wait for the word
        for attempt in attempts:
            attempt.stdin.write("go\n")
            attempt.stdin.flush()
        if number % 2:
            time.sleep(soak.random.uniform(0, 0.06))
            attempts[0].kill()
        codes = [finish(attempt)[0] for attempt in attempts]
        lost = judge_moment(case, out)
        if not lost and codes[1]:
            lost = f"the attempt that nobody killed ended with {codes}"
        if not lost and shard.name not in read_named(out):
            lost = "the shard is not there"
        yield lost or judge_resume(case, out, soak.launch)


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
    if faults := verify_dataset(out):
        return f"verify finds {faults[0]}"
    shards = read_manifest(out).shards
    records = [source.path for shard in shards for source in read_sources(out, shard)]
    rejected = [line["path"] for line in left_out]
    if len({*records, *rejected}) != files:
        return "a file is neither a record nor a reject, or it is both"
    return ""
