"""What 100,000 shards take, the most that two splits may have, beside what it is held to.

    commit     receipts on a disk become a manifest
    manifest   it is opened, by the converter, by the reader, and by `inspect`
    store      the same receipts in a store: what is asked for, of a store in memory
    verify     a million records in a store, as a Beam job

All shards are links to a few real ones of one or more images of one pixel; their receipts are made
up. So what is measured is what a shard costs apart from its records. Times are of the CPU.
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

from benchmarks.corpora import link_images
from benchmarks.measuring import make_parser, report, run_sections

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

COMMIT_S, COMMIT_MB = 60, 500
OPEN_S, OPEN_MB = 2, 200

MEASURED = """
import json, sys, time
from pathlib import Path

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e3

{imports}
before, start = peak(), time.process_time()
{work}
print(json.dumps([time.process_time() - start, peak() - before]))
"""

COMMIT = (
    "from converter.commits.commit import commit\nfrom converter.planning.plan import read_plan\n"
    "from converter.storage.locate import locate",
    "commit(read_plan(locate(sys.argv[1])), keep_work=True)",
)
OPENED = {
    "read_manifest": (
        "from converter.format.manifest import read_manifest",
        "read_manifest(sys.argv[1])",
    ),
    "open_shards": ("from reader import open_shards", "open_shards(sys.argv[1])"),
    "inspect": (
        "from pipelines.cli.commands import main",
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert main(['inspect', sys.argv[1]]) == 0",
    ),
}


def main() -> int:
    parser = make_parser(__doc__, ("commit", "manifest"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    out = arguments.work / "many-shards"
    sections = {
        "commit": lambda: measure_commit(arguments.work, out),
        "manifest": lambda: measure_manifest(arguments.work, out),
    }
    return run_sections(sections, arguments.only)


def measure_commit(work: Path, out: Path) -> Iterator[bool]:
    plan = make_shards(work, out)
    (out / "manifest.json").unlink(missing_ok=True)
    yield from hold(f"commit of {len(plan.shards):,} shards", COMMIT, out, COMMIT_S, COMMIT_MB)


def measure_manifest(work: Path, out: Path) -> Iterator[bool]:
    if not (out / "manifest.json").exists():
        make_shards(work, out)
        run(COMMIT, out)
    for name, code in OPENED.items():
        yield from hold(name, code, out, OPEN_S, OPEN_MB)


def hold(
    what: str, code: tuple[str, str], out: Path, most_s: float, most_mb: float
) -> Iterator[bool]:
    """Runs some code in a process of its own, and holds it to its bars."""
    seconds, grown_mb = run(code, out)
    yield report(what, f"{seconds:.2f} s of CPU", f"at most {most_s} s", ok=seconds <= most_s)
    yield report("  memory over its start", f"{grown_mb:.0f} MB", f"at most {most_mb} MB",
                 ok=grown_mb <= most_mb)  # fmt: skip


def run(code: tuple[str, str], out: Path) -> tuple[float, float]:
    script = MEASURED.format(imports=code[0], work=code[1])
    done = subprocess.run([sys.executable, "-c", script, str(out)], check=True, stdout=-1)
    seconds, grown_mb = json.loads(done.stdout.splitlines()[-1])
    return seconds, grown_mb


def make_shards(work: Path, out: Path) -> Plan:
    """A conversion whose shards are all written, in a folder that is kept; returns its plan."""
    images = link_images(work, IMAGES)
    if not (out / ".shardmill" / "written").exists():
        shutil.rmtree(out, ignore_errors=True)
    draft = propose(images, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=images, out=out)
    if not (out / ".shardmill" / "written").exists():
        _link_shards(plan)
    return plan


def _link_shards(plan: Plan) -> None:
    made: dict[int, tuple[Shard, Receipt]] = {}
    counts: dict[int, Iterator[int]] = {}
    layout = Layout(plan.out)
    for shard in plan.shards:
        # A file may not have names without end.
        if next(counts.setdefault(shard.records, itertools.count())) % LINKS == 0:
            made[shard.records] = (shard, write_shard(shard, Job.of_plan(plan)))
            continue
        other, receipt = made[shard.records]
        for old, new in ((other.name, shard.name), *[map(name_index, (other.name, shard.name))]):
            os.link(plan.out / old, plan.out / new)
        named = dataclasses.replace(receipt, name=shard.name, split=shard.split)
        receipt_path(layout, shard).write_bytes(dump_receipt(named))
    (layout.work / "written").touch()


if __name__ == "__main__":
    sys.exit(main())
