"""From a folder of images to a trained model, on 1,797 real scans of handwritten digits.

The scans come with scikit-learn. They are written as PNG files in a folder for each digit, as
anybody's images would lie there, and from then on it is what a user does: convert, verify, train.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from PIL import Image
from sklearn.datasets import load_digits

FOLDER = Path(__file__).resolve().parents[1] / "build" / "demo"
IMAGES, SHARDS = FOLDER / "digits", FOLDER / "digits-16"
EPOCHS = 12


def main() -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_scans(IMAGES)
    run("convert", IMAGES, SHARDS, "--image-size", 16, "--encoding", "png",
        "--validation-split", 0.2, "--seed", 7)  # fmt: skip
    run("verify", SHARDS)
    accuracy, images_per_s = train(SHARDS)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"validation accuracy  {accuracy:.1%}")
    print(f"training             {images_per_s:,.0f} images/s")
    print(f"peak memory          {peak_mb:,.0f} MB, TensorFlow included")
    if accuracy <= 0.95:
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


def train(folder: Path) -> tuple[float, float]:
    """Trains a small network on the shards; returns its accuracy and the images a second."""
    import keras

    from reader import load_dataset, open_shards

    keras.utils.set_random_seed(7)
    training = load_dataset(folder, "train", batch_size=32, seed=7)
    validation = load_dataset(folder, "validation", batch_size=64)
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(training.class_names), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.monotonic()
    model.fit(training, validation_data=validation, epochs=EPOCHS, verbose=2)
    seconds = time.monotonic() - start
    _, accuracy = model.evaluate(validation, verbose=0)
    images = open_shards(folder).splits["train"].records
    return accuracy, images * EPOCHS / seconds


if __name__ == "__main__":
    sys.exit(main())
