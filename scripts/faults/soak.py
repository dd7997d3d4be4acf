"""The long sweeps: a conversion is killed, denied, starved and raced, and its promises are checked.

    kills           one process, at random moments, also twice in a row         100 times
    process-kills   Beam: a worker, the launcher, all of them                   100
    errors          each call that concerns the output fails once; with --times 5000
                    it fails with each error, which takes four times as long    1,000
    process-errors  a random one fails, in all of Beam's processes              20
    interrupts      Ctrl-C, SIGTERM and SIGHUP: each command ends in 2 s       100
    disks           too few bytes, too few inodes, then room                    10 sizes of each
    races           two converters on one folder, 0 to 1 s apart                50
    doubles         one shard in two processes at once, one of them killed      200
    sources         originals that go or change meanwhile                       50
    order           what is flushed before what                                 3

Prints one table. Exit code 1 if anything was lost. Errors and order need strace, disks need root.
"""

import argparse
import dataclasses
import random
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from faults.experiment import Experiment, Skip, Soak, make_cases
from faults.injected import check_order, fill_disks, inject_errors, inject_processes
from faults.interruptions import interrupt_commands
from faults.kills import (
    change_sources,
    kill_converters,
    kill_processes,
    race_converters,
    write_twice,
)

EXPERIMENTS: dict[str, tuple[Experiment, int]] = {
    "order": (check_order, 3),
    "disks": (fill_disks, 10),
    "sources": (change_sources, 50),
    "races": (race_converters, 50),
    "doubles": (write_twice, 200),
    "kills": (kill_converters, 100),
    "process-kills": (kill_processes, 100),
    "interrupts": (interrupt_commands, 100),
    "process-errors": (inject_processes, 20),
    "errors": (inject_errors, 1000),
}


class Tally(NamedTuple):
    """What came of an experiment: how often it was made, what was lost, and why it was not made."""

    tried: int
    lost: list[str]
    skipped: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=EXPERIMENTS, action="append", help="default: all")
    parser.add_argument("--times", type=int, help="instead of each experiment's own number")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument(
        "--work", type=Path, default=Path(__file__).resolve().parents[2] / "build" / "soak"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    soak = Soak(
        cases=make_cases(arguments.work),
        work=arguments.work / "trials",
        times=0,
        random=random.Random(arguments.seed),  # noqa: S311
    )
    tallies = {}
    for name in arguments.only or EXPERIMENTS:
        start = time.monotonic()
        tallies[name] = run(name, soak, arguments.times)
        done = f"{tallies[name].tried} tried, {len(tallies[name].lost)} lost"
        print(f"{name}: {done}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print_table(tallies)
    return 1 if any(tally.lost for tally in tallies.values()) else 0


def run(name: str, soak: Soak, times: int | None = None) -> Tally:
    """Makes one experiment; whatever is lost is told at once."""
    experiment, usual = EXPERIMENTS[name]
    soak.work.mkdir(exist_ok=True)
    tried, lost = 0, []
    try:
        for outcome in experiment(dataclasses.replace(soak, times=times or usual)):
            tried += 1
            if outcome:
                lost.append(outcome)
                print(f"{name}, trial {tried}: {outcome}", file=sys.stderr, flush=True)
    except Skip as reason:
        return Tally(tried, lost, str(reason))
    return Tally(tried, lost)


def print_table(tallies: dict[str, Tally]) -> None:
    print(f"{'experiment':<16}{'tried':>8}{'survived':>10}{'lost':>6}")
    for name, (tried, lost, skipped) in tallies.items():
        why = f"   skipped: {skipped}" if skipped else ""
        print(f"{name:<16}{tried:>8}{tried - len(lost):>10}{len(lost):>6}{why}")


if __name__ == "__main__":
    sys.exit(main())
