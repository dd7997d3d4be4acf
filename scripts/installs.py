"""Installs the wheel and the sdist into empty environments, and uses them as a newcomer would.

    ./scripts/run installs                   each Python from 3.10 to 3.13 that is here
    ./scripts/run installs --python 3.12     one of them
    ./scripts/run installs --train           with TensorFlow, too: 2 GB for each

Nothing of this checkout is on the path of what runs, only what pip has put there. The versions are
those that pip chooses for a user today; `--pinned` takes those of constraints.txt.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")

CONVERT = """
import pathlib, sys
from PIL import Image
for number in range(60):
    path = pathlib.Path("photos", "cats" if number % 2 else "dogs", f"{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40 + number, 30), (number * 4, 90, 200)).save(path)
from converter import ConvertOptions
import pipelines
options = ConvertOptions(image_size=(32, 32), validation_split=0.2)
print(pipelines.convert("photos", "from-python", options, progress=False))
"""

READ = """
from reader import open_shards
shards = open_shards("from-python")
record = shards.source("train")[0]
print(record.source_id, record.height, record.width)
"""

BATCHES = """
from reader import open_shards
images, labels = next(iter(open_shards("from-python").batches("train", 8)))
assert images.shape == (8, 32, 32, 3), images.shape
"""

TRAIN = """
import keras
from reader import load_dataset
train = load_dataset("from-python", "train", batch_size=8, seed=7)
layers = [keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
model = keras.Sequential(layers)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(train, verbose=2)
"""

COMMANDS = (
    ["shardmill", "--version"],
    ["python", "-m", "pipelines", "--version"],
    ["shardmill", "plan", "photos", "from-shell", "--image-size", "32"],
    ["shardmill", "convert", "photos", "from-shell", "--image-size", "32", "--workers", "2"],
    ["shardmill", "verify", "from-shell"],
    ["shardmill", "inspect", "from-shell"],
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", choices=VERSIONS, action="append")
    parser.add_argument("--train", action="store_true", help="install TensorFlow, and train")
    parser.add_argument("--pinned", action="store_true", help="the versions of constraints.txt")
    arguments = parser.parse_args()
    tried = []
    with tempfile.TemporaryDirectory(prefix="shardmill-installs-") as scratch:
        wheel, sdist = build(Path(scratch) / "dist")
        for version in arguments.python or VERSIONS:
            python = find_python(version)
            if python is None:
                print(f"{version}: not here, so not tried")
                continue
            place = Environment(Path(scratch) / version, python, pinned=arguments.pinned)
            try_wheel(place, wheel, train=arguments.train)
            if not tried:
                try_sdist(place, sdist)
            tried.append(version)
            shutil.rmtree(place.folder)
    print(f"installed and used: Python {', '.join(tried)}" if tried else "no Python was found")
    return 0 if tried else 1


def build(folder: Path) -> tuple[Path, Path]:
    """Builds both, the wheel from the sdist; returns their paths."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def find_python(version: str) -> str | None:
    """The interpreter of that version, if there is one that starts."""
    places = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *map(str, places)):
        # pyenv puts a name for each version on the path, which fails unless it is chosen.
        check = f"import sys; assert '%d.%d' % sys.version_info[:2] == {version!r}"
        found = candidate and subprocess.run(
            [candidate, "-c", check], check=False, stderr=subprocess.DEVNULL
        )
        if found and not found.returncode:
            return candidate
    return None


class Environment:
    """A new environment, and an empty folder to work in."""

    def __init__(self, folder: Path, python: str, *, pinned: bool) -> None:
        self.folder, self.work = folder, folder / "work"
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        self.work.mkdir()
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self._variables = {**kept, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._pins = ["--constraint", str(ROOT / "constraints.txt")] if pinned else []

    def run(self, *words: str) -> str:
        """Runs a command in the folder; returns what it printed, or ends with it."""
        command = [shutil.which(words[0], path=self._variables["PATH"]) or words[0], *words[1:]]
        ended = subprocess.run(
            command, check=False, cwd=self.work, env=self._variables, text=True, capture_output=True
        )
        if ended.returncode:
            raise SystemExit(f"{' '.join(words)[:200]}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def install(self, what: str) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", *self._pins, what)


def try_wheel(place: Environment, wheel: Path, *, train: bool) -> None:
    place.install(str(wheel))
    place.run("python", "-c", CONVERT)
    for command in COMMANDS:
        place.run(*command)
    print(
        place.run("python", "-c", "import sys; print(sys.version)").split()[0], "converts;", end=" "
    )
    place.run("python", "-c", READ)
    place.install(f"{wheel}[read,view]")
    place.run("python", "-c", BATCHES)
    place.run("python", "-c", "import flask, pipelines.view")
    print("reads", end="; " if train else "\n", flush=True)
    if train:
        place.install(f"{wheel}[train]")
        place.run("python", "-c", TRAIN)
        print("trains", flush=True)


def try_sdist(place: Environment, sdist: Path) -> None:
    place.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "shardmill")
    place.install(str(sdist))
    place.run("shardmill", "verify", "from-python")


if __name__ == "__main__":
    sys.exit(main())
