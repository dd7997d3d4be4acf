"""From a folder of images to a trained model, on 1,797 real scans of handwritten digits.

The scans come with scikit-learn. They are written as PNG files in a folder for each digit, as yours
might lie there. From then on it is what you would do: convert, verify, and `scripts/train`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits
from train import TrainOptions, train

FOLDER = Path(__file__).resolve().parents[1] / "build" / "demo"
IMAGES, SHARDS = FOLDER / "digits", FOLDER / "digits-16"
EPOCHS = 12


def main() -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_scans(IMAGES)
    run("convert", IMAGES, SHARDS, "--image-size", 16, "--encoding", "png",
        "--validation-split", 0.2, "--seed", 7)  # fmt: skip
    run("verify", SHARDS)
    last = train(TrainOptions(data=str(SHARDS), to=FOLDER / "train", epochs=EPOCHS))
    if last["val_accuracy"] <= 0.95:
        print("demo: the accuracy should be above 95 %", file=sys.stderr)
        return 1
    return 0


def write_scans(folder: Path) -> None:
    """Writes scikit-learn's scans, 8x8 pixels of 17 grey levels, as `<digit>/<number>.png`."""
    scans = load_digits()
    for number, (pixels, digit) in enumerate(zip(scans.images, scans.target, strict=True)):
        path = folder / str(digit) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).save(path)
    print(f"wrote {len(scans.target):,} scans as PNG files to {folder}")


def run(*arguments: object) -> None:
    """Runs a shardmill command and shows it."""
    words = [str(argument) for argument in arguments]
    print("$ shardmill", *words, flush=True)
    subprocess.run([sys.executable, "-m", "pipelines", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
