"""The command line with a plain loop in Beam's place: starts in a fifth of a second.

    loop_runner.py convert IMAGES OUT …     what `shardmill convert` does, in one process
    loop_runner.py write OUT NAME            writes one planned shard, once a line comes in on stdin

All but the runner is the real thing, so that faults can be swept over it by the thousand.
"""

import contextlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pipelines.beam  # noqa: F401 (whose modules are replaced)
from converter.planning.plan import Plan, Shard, read_plan
from converter.writing import shard_writer
from pipelines.cli import commands


def main() -> int:
    replace_beam()
    if sys.argv[1] == "write":
        return write_one(Path(sys.argv[2]), sys.argv[3])
    return commands.main()


def replace_beam() -> None:
    """Puts these functions where `pipelines.jobs.convert` looks for those that use Beam."""
    parts = {
        "transforms": {"MillShards": lambda plan, shards, _: (plan, shards), "MillSizes": None},
        "workers": {"LocalWorkers": object},
        "clusters": {"check_paths": lambda *_: None},
        "planned_parts": {"run_planning": None},
        "runners": {
            "STORE_INTERVAL_S": 2.0,
            "RunnerOptions": object,
            "parse_options": lambda *_, **__: types.SimpleNamespace(pipeline=None, local=True),
            "start_workers": start_no_workers,
            "run_pipeline": run_loop,
        },
    }
    for name, functions in parts.items():
        module = types.ModuleType(f"pipelines.beam.{name}")
        vars(module).update(functions)
        sys.modules[module.__name__] = module
        setattr(sys.modules["pipelines.beam"], name, module)


@contextlib.contextmanager
def start_no_workers(_options: object, _count: int, *_places: object) -> Iterator[None]:
    yield None


def run_loop(
    transform: tuple[Plan, Iterable[Shard]],
    _options: object,
    _workers: None,
    *,
    job: str,  # noqa: ARG001
    on_poll: Callable[[], object],
) -> None:
    plan, shards = transform
    common = shard_writer.Job.of_plan(plan)
    for shard in shards:
        shard_writer.write_shard(shard, common)
        on_poll()


def write_one(out: Path, name: str) -> int:
    plan = read_plan(out)
    shard = next(shard for shard in plan.shards if shard.name == name)
    print("ready", flush=True)
    sys.stdin.readline()
    run_loop((plan, [shard]), None, None, job="", on_poll=lambda: None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
