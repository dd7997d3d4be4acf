"""What 100,000 shards take, more than one split may have, beside what it is held to.

    commit     receipts on a disk become a manifest
    manifest   it is opened, by the converter, by the reader, and by `inspect`
    store      receipts in a store are followed and merged, a killed run goes on, and commits
    verify     a million records in a store are checked by a Beam job

Nearly all shards are links to a few real ones, with records of one pixel; their receipts are made
up. So what is measured is what a shard costs apart from its records. Times are of the CPU. The
store of the third section is a folder, and only counts what it is asked for; that of the fourth is
a server of the tests.
"""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "tests"))

from benchmarks.corpora import multiply_tiny, write_pixels
from benchmarks.measuring import Run, make_parser, measure, report, run_sections
from servers import run_server, upload

from converter.options import ConvertOptions
from converter.planning.plan import Plan, Shard, write_plan
from converter.storage.files import Layout, name_index
from converter.writing.shard_writer import Job, Receipt, dump_receipt, receipt_path, write_shard
from pipelines.jobs.preview import propose

OPTIONS = ConvertOptions(
    image_size=(8, 8), encoding="png", num_shards=90_000, validation_split=0.1, dedupe="off"
)
IMAGES = 200_000
LINKS = 30_000
"""Names of one file, at most: file systems have limits."""

COMMIT_S, COMMIT_MB = 15, 300
OPEN_S, OPEN_MB = 2, 200
STORE_S = 20
LOOK_LISTS, END_REQUESTS = 3, 1_500
"""Answers to a look at the receipts; requests to go on with a conversion, or to end it."""

TINY, TIMES = 100_000, 10
VERIFY_S, VERIFY_US = 900, 300
LAUNCHER_GROWTH_MB, WORKER_MB = 25, 400

MEASURED = """
import json, sys, time
from pathlib import Path
from converter.storage.locate import locate
from converter.usage import measure_peak_memory

counts = {{}}
{imports}
begun, before, start = dict(counts), measure_peak_memory(), time.process_time()
{work}
spent, grown = time.process_time() - start, (measure_peak_memory() - before) / 1e6
print(json.dumps([spent, grown, {{kind: counts[kind] - begun.get(kind, 0) for kind in counts}}]))
"""

COMMIT = (
    "from converter.commits.commit import commit\nfrom converter.planning.plan import read_plan\n"
    "plan = read_plan(locate(sys.argv[1]))",
    "commit(plan, keep_work=True)",
)
OPENED = {
    "read_manifest": (
        "from converter.format.manifest import read_manifest",
        "read_manifest(sys.argv[1])",
    ),
    "open_shards": ("from reader import open_shards", "open_shards(sys.argv[1])"),
    "inspect": (
        "import contextlib, io\nfrom pipelines.cli.commands import main",
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert main(['inspect', sys.argv[1]]) == 0",
    ),
}
STORE = (
    "from benchmarks.folder_store import serve_folder\n"
    "from converter.commits.commit import commit, list_finished\n"
    "from converter.commits.receipts import ReceiptReader\n"
    "from converter.planning.plan import read_plan\nfrom converter.storage.files import Layout\n"
    "counts = serve_folder(Path(sys.argv[1]).parent)\n"
    "plan = read_plan(locate('s3://' + Path(sys.argv[1]).name + '/out'))\n"
    "reader = ReceiptReader(Layout(plan.out), plan.shards)\n"
)


class Measured(NamedTuple):
    """What some code took in a process of its own, without its imports."""

    seconds: float  # of the CPU
    grown_mb: float
    asked: dict[str, int]  # requests to a store, by kind, and bytes that it sent


def main() -> int:
    parser = make_parser(__doc__, ("commit", "manifest", "store", "verify"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    out = arguments.work / "many-shards"
    sections = {
        "commit": lambda: measure_commit(arguments.work, out),
        "manifest": lambda: measure_manifest(arguments.work, out),
        "store": lambda: measure_store(arguments.work, out),
        "verify": lambda: measure_verify(arguments.work),
    }
    return run_sections(sections, arguments.only)


def measure_commit(work: Path, out: Path) -> Iterator[bool]:
    plan = make_shards(work, out)
    (out / "manifest.json").unlink(missing_ok=True)
    taken = run(COMMIT, out)
    yield from hold(f"{len(plan.shards):,} receipts", taken, COMMIT_S, COMMIT_MB)


def measure_manifest(work: Path, out: Path) -> Iterator[bool]:
    if not (out / "manifest.json").exists():
        make_shards(work, out)
        run(COMMIT, out)
    for name, code in OPENED.items():
        yield from hold(name, run(code, out), OPEN_S, OPEN_MB)


def measure_store(work: Path, out: Path) -> Iterator[bool]:
    make_shards(work, out)
    bucket = work / "bucket"
    shutil.rmtree(bucket, ignore_errors=True)
    shutil.copytree(out, bucket / "out", copy_function=os.link)
    (bucket / "out" / "manifest.json").unlink(missing_ok=True)

    followed = run((STORE, "for _ in reader.read_new(): pass"), bucket)
    yield from hold("receipts read and merged", followed, 120, COMMIT_MB)
    report("  requests, for each as a worker leaves it", describe(followed))
    looked = run(
        (f"{STORE}for _ in reader.read_new(): pass", "assert not [*reader.read_new()]"), bucket
    )
    yield report("another look at them", describe(looked), f"at most {LOOK_LISTS} listings",
                 ok=looked.asked["list"] <= LOOK_LISTS)  # fmt: skip
    resumed = run((STORE, "assert len(list_finished(plan)) == len(plan.shards)"), bucket)
    yield from hold("what is finished, after a kill", resumed, STORE_S, COMMIT_MB)
    yield report("  requests", describe(resumed), f"at most {END_REQUESTS}",
                 ok=count_requests(resumed) <= END_REQUESTS)  # fmt: skip
    committed = run((STORE, "commit(plan, keep_work=True)"), bucket)
    yield from hold("commit", committed, STORE_S, COMMIT_MB)
    yield report("  requests", describe(committed), f"at most {END_REQUESTS}",
                 ok=count_requests(committed) <= END_REQUESTS)  # fmt: skip
    if (out / "manifest.json").exists():
        same = (out / "manifest.json").read_bytes() == (bucket / "out/manifest.json").read_bytes()
        yield report("the manifest is that of the disk", str(same), ok=same)


def measure_verify(work: Path) -> Iterator[bool]:
    with run_server("s3") as server:
        os.environ["SHARDMILL_STORE_SECONDS"] = "120"
        launchers = []
        for times in (1, TIMES):
            folder = multiply_tiny(work, TINY, times)
            stored = upload(folder, server.path(folder.name))
            command = [sys.executable, "-m", "pipelines", "verify", str(stored), "--workers=2"]
            taken = measure([*command, "--no-progress"])
            launchers.append(taken.launcher_mb)
            yield from _hold_verify(TINY * times, taken)
    growth = launchers[-1] - launchers[0]
    yield report(f"the launcher's growth, {TIMES} times as many", f"{growth:+.0f} MB",
                 f"at most {LAUNCHER_GROWTH_MB} MB", ok=growth <= LAUNCHER_GROWTH_MB)  # fmt: skip


def _hold_verify(records: int, taken: Run) -> Iterator[bool]:
    yield report(f"{records:,} records", f"{taken.seconds:.0f} s", f"at most {VERIFY_S} s",
                 ok=taken.seconds <= VERIFY_S)  # fmt: skip
    spent_us = taken.cpu_seconds / records * 1e6
    yield report("  CPU for a record", f"{spent_us:.0f} µs", f"at most {VERIFY_US} µs",
                 ok=spent_us <= VERIFY_US)  # fmt: skip
    report("  launcher", f"{taken.launcher_mb:.0f} MB")
    yield report("  largest worker", f"{taken.worker_mb:.0f} MB", f"at most {WORKER_MB} MB",
                 ok=taken.worker_mb <= WORKER_MB)  # fmt: skip


def hold(what: str, taken: Measured, most_s: float, most_mb: float) -> Iterator[bool]:
    yield report(what, f"{taken.seconds:.2f} s of CPU", f"at most {most_s} s",
                 ok=taken.seconds <= most_s)  # fmt: skip
    yield report("  memory over its start", f"{taken.grown_mb:.0f} MB", f"at most {most_mb} MB",
                 ok=taken.grown_mb <= most_mb)  # fmt: skip


def count_requests(taken: Measured) -> int:
    return sum(count for kind, count in taken.asked.items() if kind != "bytes")


def describe(taken: Measured) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in taken.asked.items() if count)


def run(code: tuple[str, str], out: Path) -> Measured:
    script = MEASURED.format(imports=code[0], work=code[1])
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)], check=True, stdout=subprocess.PIPE
    )
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def make_shards(work: Path, out: Path) -> Plan:
    """A conversion whose shards are all written, in a folder that is kept; returns its plan."""
    images, mark = write_pixels(work, IMAGES), Layout(out).work / "written"
    if not mark.exists():
        shutil.rmtree(out, ignore_errors=True)
    draft = propose(images, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=images, out=out)
    if not mark.exists():
        _link_shards(plan)
        mark.touch()
    return plan


def _link_shards(plan: Plan) -> None:
    made: dict[int, tuple[Shard, Receipt]] = {}
    counts: dict[int, Iterator[int]] = {}
    for shard in plan.shards:
        # Those of as many records are links to one.
        if next(counts.setdefault(shard.records, itertools.count())) % LINKS == 0:
            made[shard.records] = (shard, write_shard(shard, Job.of_plan(plan)))
        other, receipt = made[shard.records]
        files = [plan.out / name for name in (shard.name, name_index(shard.name))]
        if other is not shard:
            for old, new in zip((other.name, name_index(other.name)), files, strict=True):
                os.link(plan.out / old, new)
        tags = [str(file.stat().st_ino) for file in files]
        named = dataclasses.replace(
            receipt, name=shard.name, split=shard.split, tag=tags[0], index_tag=tags[1]
        )
        receipt_path(Layout(plan.out), shard).write_bytes(dump_receipt(named))


if __name__ == "__main__":
    sys.exit(main())
