"""What `scripts/train` writes down: figures of each epoch and second, as CSV and as a picture."""

import csv
import gc
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from converter.sizes import format_bytes
from converter.usage import measure_memory
from reader import InputStats

SAMPLE_S = 1.0
IN_LOGS = {"input_wait_share", "images_per_second"}
"""What `InputStats` adds to the logs of Keras: the rows have it under their own names."""

HAS_MATPLOTLIB = find_spec("matplotlib") is not None
"""Whether there can be a picture: the extra `train` does not install it."""

STEP_FIELDS = ("epoch", "images_per_s", "memory_bytes")


class TrainingLog(keras.callbacks.Callback):
    """Prints a line for each epoch, and keeps `epochs.csv`, `steps.csv` and `training.png`.

    Put it behind the `InputStats` that it reads. A run that resumes keeps what it finds of the
    epochs before.

    Attributes:
        rows: of `epochs.csv`.
    """

    def __init__(self, folder: Path, stats: InputStats, batch_size: int) -> None:
        super().__init__()
        self._folder, self._stats, self._batch_size = folder, stats, batch_size
        self.rows: list[dict[str, Any]] = []
        self._samples: list[dict[str, Any]] = []
        self._epoch = self._steps = 0
        self._begun_s = self._sampled_s = 0.0
        self._is_first = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        del logs
        self.rows = read_rows(self._folder / "epochs.csv")
        self._samples = read_rows(self._folder / "steps.csv")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del logs
        self.rows = [row for row in self.rows if row["epoch"] <= epoch]
        self._samples = [row for row in self._samples if row["epoch"] <= epoch]
        self._epoch, self._steps = epoch, 0
        self._begun_s = self._sampled_s = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del logs
        if self._is_first:  # in which Keras builds its graphs
            self._is_first, self._sampled_s = False, time.monotonic()
            return
        self._steps += 1
        passed = time.monotonic() - self._sampled_s
        if passed < SAMPLE_S:
            return
        self._samples.append(
            {
                "epoch": round(self._epoch + (batch + 1) / self.params["steps"], 4),
                "images_per_s": round(self._steps * self._batch_size / passed, 1),
                "memory_bytes": measure_memory(),
            }
        )
        self._steps, self._sampled_s = 0, time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        use = self._stats.epochs[-1]
        row = {
            "epoch": epoch + 1,
            "seconds": round(time.monotonic() - self._begun_s, 2),
            "images_per_s": round(use.images_per_second, 1),
            "wait_share": round(use.wait_share, 4),
            "peak_bytes": use.peak_bytes,
            **{
                name: round(float(value), 5)
                for name, value in (logs or {}).items()
                if name not in IN_LOGS
            },
        }
        self.rows.append(row)
        print(describe(row, self.params["epochs"]), flush=True)
        write_rows(self._folder / "epochs.csv", self.rows)
        write_rows(self._folder / "steps.csv", self._samples)
        if HAS_MATPLOTLIB:
            draw(self.rows, self._samples, self._folder / "training.png")


def describe(row: dict[str, Any], epochs: int) -> str:
    """A line for an epoch: what it learned, how fast, and whether it waited."""
    learned = ", ".join(
        f"{name.replace('val_', 'validation ').replace('_', ' ')} {row[name]:.3f}"
        for name in ("loss", "accuracy", "val_accuracy")
        if name in row
    )
    return (
        f"epoch {row['epoch']}/{epochs}: {learned}; {row['images_per_s']:,.0f} images/s, "
        f"{row['wait_share']:.0%} of the time waiting for data, {format_bytes(row['peak_bytes'])}"
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="ascii") as file:
        return [
            {name: read_number(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def read_number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replaces a file at once, so that a kill leaves the old one or the new one."""
    fields = list(dict.fromkeys(name for row in rows for name in row)) or STEP_FIELDS
    scratch = path.with_suffix(".tmp")
    with open(scratch, "w", newline="", encoding="ascii") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    scratch.replace(path)


def draw(rows: list[dict[str, Any]], samples: list[dict[str, Any]], path: Path) -> None:
    """Draws images/s, the input wait share and memory over the epochs."""
    from matplotlib.figure import Figure  # no window, and no state between two figures

    figure = Figure(figsize=(7, 6.5), layout="constrained")
    speed, wait, memory = figure.subplots(3, sharex=True)
    ends = [row["epoch"] for row in rows]
    places = [row["epoch"] for row in samples]
    speed.plot(places, [row["images_per_s"] for row in samples], color="#9db8d9", linewidth=1)
    speed.plot(ends, [row["images_per_s"] for row in rows], "o-", color="#1f5fa8", clip_on=False)
    wait.bar([end - 0.5 for end in ends], [100 * row["wait_share"] for row in rows], 0.9,
             color="#d9822b")  # fmt: skip
    memory.plot(places, [row["memory_bytes"] / 1e6 for row in samples], color="#9ccfb0")
    memory.plot(
        ends, [row["peak_bytes"] / 1e6 for row in rows], "o-", color="#2b8a57", clip_on=False
    )
    for axes, title in (
        (speed, "images a second"),
        (wait, "% of the time waiting for data"),
        (memory, "memory of the process, MB"),
    ):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    wait.set_ylim(0, max(10, *(110 * row["wait_share"] for row in rows)))
    memory.set_xlim(0, max(ends))
    memory.set_xlabel("epochs")
    memory.xaxis.get_major_locator().set_params(integer=True)
    scratch = path.with_suffix(".tmp.png")
    figure.savefig(scratch, dpi=110)
    scratch.replace(path)
    del figure, speed, wait, memory, axes
    gc.collect()  # figures refer to themselves: 4 MB of each epoch stayed
