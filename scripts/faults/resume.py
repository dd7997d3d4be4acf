"""A training that is killed at random moments, and ends as if it had been left alone.

Scans of digits are converted, and a network is trained on them with `ResumeTraining`: once to the
end, and once in a process that is killed with SIGKILL again and again, in the middle of an epoch,
and started again. Every step notes which records it was given. Then both are compared: the records
of each step, the history, and the weights, bit by bit.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from demo import run, write_scans

FOLDER = Path(__file__).resolve().parents[2] / "build" / "resume"
IMAGES, SHARDS = FOLDER / "digits", FOLDER / "digits-16"
EPOCHS, BATCH_SIZE, EVERY_STEPS = 4, 32, 10


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills a training, and compares it with another.")
    parser.add_argument("--kills", type=int, default=5, help="how often it is killed")
    parser.add_argument("--seed", type=int, help="decides the moments; drawn if it is left out")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # what the killed process is
    arguments = parser.parse_args()
    if arguments.train is not None:
        train(arguments.train)
        return 0
    if not 1 <= arguments.kills <= 50:
        parser.error(f"--kills {arguments.kills} is out of range: 1 to 50")
    seed = random.randrange(1000) if arguments.seed is None else arguments.seed  # noqa: S311
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_scans(IMAGES)
    run("convert", IMAGES, SHARDS, "--image-size", 16, "--encoding", "png",
        "--validation-split", 0.2, "--seed", 7)  # fmt: skip
    print(f"training {EPOCHS} epochs, once to its end and once with {arguments.kills} kills "
          f"(--seed {seed}), a checkpoint every {EVERY_STEPS} steps", flush=True)  # fmt: skip
    start(FOLDER / "whole").wait()
    whole = count_steps(FOLDER / "whole")
    moments = draw_moments(whole, arguments.kills, random.Random(seed))  # noqa: S311
    kill_again_and_again(FOLDER / "killed", moments, whole // EPOCHS)
    return compare(FOLDER / "whole", FOLDER / "killed")


def draw_moments(steps: int, kills: int, dice: random.Random) -> list[int]:
    """Steps to be killed in: the first one before there is a checkpoint."""
    return [dice.randrange(EVERY_STEPS), *sorted(dice.sample(range(EVERY_STEPS, steps), kills - 1))]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A process that trains, or goes on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([sys.executable, __file__, "--train", str(folder)])


def kill_again_and_again(folder: Path, moments: list[int], steps: int) -> None:
    """Kills a training once it is in each of those steps, and lets it come to its end at last."""
    print(f"{'run':>4}  {'began at':>16}  {'killed at':>16}  {'steps to do again':>17}")
    for number, moment in enumerate([*moments, None], 1):
        begun = read_checkpoint(folder, steps)
        process = start(folder)
        if moment is not None:
            while process.poll() is None and count_steps(folder) <= moment:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        if code != (0 if moment is None else -signal.SIGKILL):
            sys.exit(f"resume: a training ended with {code}")
        done = count_steps(folder)
        again = done - read_checkpoint(folder, steps)
        place = name(done, steps) if moment is not None else "ran to its end"
        print(f"{number:>4}  {name(begun, steps):>16}  {place:>16}  {again:>17}", flush=True)


def name(step: int, steps: int) -> str:
    return f"epoch {step // steps} step {step % steps:>2}"


def read_checkpoint(folder: Path, steps: int) -> int:
    """The step of all epochs that the checkpoint goes on with."""
    try:
        state = json.loads((folder / "checkpoint" / "state.json").read_bytes())
    except FileNotFoundError:
        return 0
    return int(state["epoch"] * steps + state["step"])


def read_steps(folder: Path) -> list[tuple[int, str]]:
    """Number and records of all steps that were taken, those that a kill undid among them."""
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / "records.log").read_text().split("\n")[:-1]
        # A line that was being written when the process died.
        whole = [line.partition(" ") for line in lines if line.endswith("]")]
        return [(int(number), records) for number, _, records in whole]
    return []


def count_steps(folder: Path) -> int:
    steps = read_steps(folder)
    return steps[-1][0] + 1 if steps else 0


def compare(whole: Path, killed: Path) -> int:
    """Prints one table; returns 1 if something differs."""
    steps, again = read_steps(whole), read_steps(killed)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    rows = [
        ("steps of the optimizer", *(result["steps"] for result in results)),
        ("records seen, by step", hash_records(dict(steps)), hash_records(dict(again))),
        ("history of loss and accuracy", *(result["history"] for result in results)),
        ("final weights", *(result["weights"] for result in results)),
        ("final optimizer", *(result["optimizer"] for result in results)),
        ("validation accuracy", *(result["accuracy"] for result in results)),
    ]
    print(f"{'':<28}  {'left alone':>16}  {'killed':>16}")
    for what, one, other in rows:
        print(f"{what:<28}  {one:>16}  {other:>16}  {'' if one == other else 'differs'}".rstrip())
    print(f"{len(again) - len(steps)} steps were taken twice")
    # With other records than before, such a step would be in the set twice.
    same = set(steps) == set(again) and all(one == other for _, one, other in rows)
    print("nothing was lost, doubled or changed" if same else "resume: the trainings differ")
    return 0 if same else 1


def hash_records(steps: dict[int, str]) -> str:
    return hash_bytes(json.dumps(sorted(steps.items())).encode())


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def train(folder: Path) -> None:
    """Trains to the end, from the last checkpoint on; what a user's script would be."""
    import keras
    import tensorflow as tf

    from reader import ResumeTraining, load_dataset

    class Diary(keras.Sequential):
        """Notes which records it is trained with."""

        def train_step(self, data):
            images, labels, names = data
            log = f"file://{folder / 'records.log'}"
            tf.print(self.optimizer.iterations, names, summarize=-1, output_stream=log)
            return super().train_step((images, labels))

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(7)
    options = {"batch_size": BATCH_SIZE, "seed": 7}
    training = load_dataset(SHARDS, "train", random_crop=(0.7, 1.0), with_filename=True, **options)
    validation = load_dataset(SHARDS, "validation", **options)
    model = Diary(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(training.class_names), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    plateau = keras.callbacks.ReduceLROnPlateau(patience=1)
    resuming = ResumeTraining(training, folder / "checkpoint", EVERY_STEPS, callbacks=[plateau])
    history = model.fit(
        training, validation_data=validation, epochs=EPOCHS, verbose=0, shuffle=False,
        callbacks=[plateau, resuming],
    )  # fmt: skip
    optimizer = b"".join(variable.numpy().tobytes() for variable in model.optimizer.variables)
    result = {
        "steps": int(model.optimizer.iterations.numpy()),
        "history": hash_bytes(json.dumps(history.history).encode()),
        "weights": hash_bytes(b"".join(weight.tobytes() for weight in model.get_weights())),
        "optimizer": hash_bytes(optimizer),
        "accuracy": f"{history.history['val_accuracy'][-1]:.2%}",
    }
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
