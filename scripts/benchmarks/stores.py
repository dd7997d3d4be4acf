"""Converts photos here, and from and to a store that is 50 ms away, and compares the speeds.

The store is a server of the tests behind their proxy, on this machine. It shares the cores with the
conversion, so one worker converts, and the proxy remembers what it has answered: what is measured
is how the converter waits, not how fast a test server is. The bar is for the whole command. Each
place is measured with few images and with many, in as many shards, in turn: what the many take
longer gives the speed without the start, the end and a shard's own requests. That is printed and
decides nothing, because a busy machine makes any number of a difference of two times.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "tests"))

from benchmarks.corpora import convert, make_photos
from benchmarks.measuring import make_parser, report, run_sections
from servers import run_server

from converter.storage.location import Location
from converter.storage.object_requests import put_object, start_read
from converter.storage.objects import ObjectPath

BAR = 0.7
LATENCY_S = 0.05
FEW = 4
UPLOADS = 8


def main() -> int:
    parser = make_parser(__doc__, ("s3", "gs"))
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    sections = {
        scheme: lambda scheme=scheme: measure_store(scheme, arguments) for scheme in ("s3", "gs")
    }
    return run_sections(sections, arguments.only)


def measure_store(scheme: str, arguments: argparse.Namespace) -> Iterator[bool]:
    os.environ["SHARDMILL_STORE_SECONDS"] = "120"
    counts = (arguments.count // FEW, arguments.count)
    folders = [make_photos(arguments.work, count) for count in counts]
    with run_server(scheme) as server:
        server.set_faults(remember=1)
        stored = [upload(folder, server.path(f"photos-{folder.parent.name}")) for folder in folders]
        server.set_faults(latency=LATENCY_S, remember=1)
        here, there = [], []
        for number in range(arguments.repeats):
            outs = [server.path(f"out-{number}-{count}") for count in counts]
            here.append([time_conversion(folder, arguments.work / "local") for folder in folders])
            there.append([time_conversion(*pair) for pair in zip(stored, outs, strict=True)])
    whole = []
    for name, seconds in (("here", here), (f"{scheme}://, 50 ms away", there)):
        few, many = (statistics.median(column) for column in zip(*seconds, strict=True))
        whole.append(counts[1] / many)
        report(name, f"{whole[-1]:,.0f} images/s")
        if many > few:
            lasting = (counts[1] - counts[0]) / (many - few)
            report("  without start and end", f"{lasting:,.0f} images/s")
    share = whole[1] / whole[0]
    yield report("of the speed here", f"{share:.0%}", f"at least {BAR:.0%}", ok=share >= BAR)


def upload(photos: Path, prefix: ObjectPath) -> ObjectPath:
    """Puts the photos there, and reads them once, so that the proxy knows them."""
    names = [path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")]
    with ThreadPoolExecutor(UPLOADS) as threads:
        put = [
            threads.submit(put_object, prefix / name, (photos / name).read_bytes())
            for name in names
        ]
    for done in put:
        done.result()
    for begin in range(0, len(names), 100):
        for reading in [start_read(prefix / name) for name in names[begin : begin + 100]]:
            reading.result()
    return prefix


def time_conversion(images: Location, out: Location) -> float:
    arguments = ("--image-size=256", "--workers=1", "--num-shards=16", "--dedupe=off")
    return convert(images, out, *arguments).seconds


if __name__ == "__main__":
    sys.exit(main())
