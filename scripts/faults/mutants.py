"""Plants bugs one by one, and counts those that the tests of that part catch.

    ./scripts/run faults/mutants [--only orders] [--jobs 2]

A bug is a change of one place, listed in `mutants.jsonl`. It is planted in a copy of the code, and
caught if a test named beside it fails. `tests/test_mutants.py` keeps the list true to the code.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("converter", "pipelines", "reader", "tests", "scripts", "pyproject.toml")
LIST = Path(__file__).with_suffix(".jsonl")
TIMEOUT_S = 300


class Mutant(NamedTuple):
    """A bug: what stands in a file, exactly once, and what is put there."""

    file: str
    before: str
    after: str
    tests: str

    def plant(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise SystemExit(f"{self.file} holds {self.before!r} {text.count(self.before)} times")
        path.write_text(text.replace(self.before, self.after))

    def is_caught(self) -> bool:
        """Runs the tests on a copy of the code with this bug."""
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            root = Path(folder)
            for name in COPIED:
                source = ROOT / name
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, root / name)
            self.plant(root)
            tests = [f"tests/test_{name}.py" for name in self.tests.split()]
            options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "-o", "addopts="]
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=root,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, f"{folder}/scripts"])},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{self}: pytest ended with {done.returncode}:\n{done.stdout}")
        return done.returncode == 1


MUTANTS = tuple(Mutant(**json.loads(line)) for line in LIST.read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.file]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        caught = list(pool.map(Mutant.is_caught, chosen))
    for mutant, found in zip(chosen, caught, strict=True):
        if not found:
            print(f"survived: {mutant.file}: {mutant.before!r} -> {mutant.after!r}")
    print(f"caught {sum(caught)} of {len(chosen)}")
    sys.exit(sum(caught) < 0.9 * len(chosen))


if __name__ == "__main__":
    main()
