"""Converts photos here, and from and to a store that is 50 ms away, and compares the speeds.

The store is a server of the tests behind their proxy, on this machine. It shares the cores with the
conversion, so one worker converts, and the proxy remembers what it has answered: what is measured
is how the converter waits, not how fast a test server is. Both conversions do the same work, with
the same start, and are measured in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from corpora import convert, make_photos
from measuring import report, run_sections
from servers import Server, run_server

from converter.storage.files import remove_tree
from converter.storage.layout import Location
from converter.storage.objects import ObjectPath, list_objects, put_bytes, start_read

BAR = 0.7
LATENCY_S = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "build" / "benchmark")
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("s3", "gs"))
    arguments = parser.parse_args()
    photos = make_photos(arguments.work, arguments.count)
    sections = {
        scheme: lambda scheme=scheme: measure_store(scheme, photos, arguments)
        for scheme in ("s3", "gs")
    }
    return run_sections(sections, arguments.only)


def measure_store(scheme: str, photos: Path, arguments: argparse.Namespace) -> Iterator[bool]:
    os.environ["SHARDMILL_STORE_SECONDS"] = "120"
    with run_server(scheme) as server:
        stored = upload(photos, server)
        here, there = [], []
        for number in range(arguments.repeats):
            here.append(time_conversion(photos, arguments.work / "local"))
            server.set_faults(latency=LATENCY_S, remember=1)
            out = server.path(f"out-{number}")
            there.append(time_conversion(stored, out))
            counts = server.set_faults(remember=1)
            remove_tree(out)
        share = statistics.median(here) / statistics.median(there)
        for name, seconds in (("here", here), (f"{scheme}://, 50 ms away", there)):
            rate = arguments.count / statistics.median(seconds)
            report(name, f"{rate:,.0f} images/s")
        report("requests of the last run", f"{sum(counts.values()) - counts.get('ranged', 0):,}")
        yield report("of the speed here", f"{share:.0%}", f"at least {BAR:.0%}", ok=share >= BAR)


def upload(photos: Path, server: Server) -> ObjectPath:
    """Puts the photos there, and reads them once, so that the proxy knows them."""
    prefix = server.path("photos")
    for path in photos.rglob("*.jpg"):
        put_bytes(prefix / path.relative_to(photos).as_posix(), path.read_bytes())
    server.set_faults(remember=1)
    paths = [info.path for info in list_objects(prefix)]
    for begin in range(0, len(paths), 100):
        for reading in [start_read(path) for path in paths[begin : begin + 100]]:
            reading.result()
    return prefix


def time_conversion(images: Location, out: Location) -> float:
    arguments = ("--image-size=256", "--workers=1", "--num-shards=16", "--dedupe=off")
    return convert(images, out, *arguments).seconds


if __name__ == "__main__":
    sys.exit(main())
