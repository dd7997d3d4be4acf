"""`scripts/train`: what it trains, what it writes down, and that it goes on after a kill."""

import csv
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import keras
import pytest
import train
import training_log
from conftest import convert_folder, write_image
from PIL import Image
from train import TrainOptions, build_model, parse_options

from converter import ConvertOptions, DatasetError, UsageError

# Of Keras, which calls NumPy as it was before 2.0.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 7  # an epoch of the 52 images that `converted` has in its split `train`, 8 a batch


@pytest.fixture
def run(converted, tmp_path, monkeypatch, capsys):
    """Calls the command with more arguments; returns its exit code and what it printed."""

    def call(*arguments, data=converted):
        fixed = [str(data), "--to", str(tmp_path / "to"), "--batch-size=8", "--augment=none"]
        monkeypatch.setattr("sys.argv", ["train", *fixed, *arguments])
        code = train.main()
        return code, capsys.readouterr()

    return call


class FakeDataset:
    """Images of a side and two classes, in so many batches, as far as a model needs to know."""

    class_names = ("a", "b")

    def __init__(self, side, batches=24):
        self.element_spec = (types.SimpleNamespace(shape=(None, side, side, 3)), None)
        self.batches = batches

    def __len__(self):
        return self.batches


def read_epochs(folder):
    with open(folder / "epochs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_it_trains_and_writes_everything_down(run, tmp_path):
    code, printed = run("--epochs=2", "--class-weights")
    assert code == 0
    lines = printed.out.splitlines()
    assert re.match(r"ShardSet\(.*3 classes.*; small, [\d,]+ weights", lines[0])
    assert re.match(
        r"epoch 2/2: loss \d.*, accuracy .*, validation accuracy .*; [\d,]+ images/s, "
        r"\d+% of the time waiting for data, [\d.]+ [MG]B$",
        lines[-2],
    )
    rows = read_epochs(tmp_path / "to")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["wait_share"]) <= 1 for row in rows)
    assert all(float(row["images_per_s"]) > 0 for row in rows)
    assert all(int(row["peak_bytes"]) > 100e6 for row in rows)
    with Image.open(tmp_path / "to" / "training.png") as picture:
        assert min(picture.size) > 500
    model = keras.models.load_model(tmp_path / "to" / "model.keras")
    assert model.input_shape == (None, 16, 20, 3)
    assert model.output_shape == (None, 3)


def test_it_goes_on_with_the_step_after_the_checkpoint(run, tmp_path, monkeypatch):
    steps = []
    end = training_log.TrainingLog.on_train_batch_end

    def interrupt(self, batch, logs=None):
        end(self, batch, logs)
        steps.append(batch)
        if len(steps) == STEPS + 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_log.TrainingLog, "on_train_batch_end", interrupt)
    code, printed = run("--epochs=2", "--every-steps=2")
    assert code == 130
    assert "run the same command again" in printed.err

    code, printed = run("--epochs=2", "--every-steps=2")
    assert code == 0
    assert f"resuming at epoch 1, step 2 of {STEPS}" in printed.out
    assert len(steps) == STEPS + 3 + STEPS - 2
    assert [row["epoch"] for row in read_epochs(tmp_path / "to")] == ["1", "2"]

    code, printed = run("--epochs=2")
    assert code == 0
    assert "complete: 2 epochs are done" in printed.out
    assert len(read_epochs(tmp_path / "to")) == 2

    code, printed = run("--epochs=2", "--seed=8")
    assert code == 2
    assert printed.err.count("\n") == 1


def test_ctrl_c_ends_it_at_once_with_one_line():
    code = "import train; train.end_at_once()"
    command = [sys.executable, "-c", code]
    folder = Path(train.__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == f"\n{train.INTERRUPTED}\n"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Data sets of six images: with several labels, with numbers, with none, of many sizes."""
    root = tmp_path_factory.mktemp("odd")
    table = ["path,tags,age"]
    for seed in range(6):
        write_image(root / "images" / "a" / f"{seed}.png", seed)
        table.append(f"a/{seed}.png,{'x;y' if seed % 2 else 'y'},{seed}.5")
    (root / "images" / "b").mkdir()
    Image.new("RGB", (40, 16)).save(root / "images" / "b" / "wide.png")
    (root / "images" / "table.csv").write_text("\n".join(table) + "\n")
    size = {"image_size": (16, 20), "encoding": "png"}
    for name, images, options in (
        ("several", "table.csv", {**size, "labels_column": "tags"}),
        ("numbers", "table.csv", {**size, "target_column": "age"}),
        ("one", "", {**size, "class_names": ("a",)}),
        ("none", "", {**size, "label_from": "none"}),
        ("sizes", "", {"resize": "none"}),
    ):
        convert_folder(root / "images" / images, root / name, ConvertOptions(**options))
    return root


def test_it_learns_several_labels_of_an_image(run, odd):
    code, printed = run("--epochs=1", data=odd / "several")
    assert code == 0
    assert "epoch 1/1: loss" in printed.out


def test_it_resizes_images_of_different_sizes_if_asked(run, odd, tmp_path):
    code, printed = run("--epochs=1", data=odd / "sizes")
    assert code == 2
    assert "differ in size, up to 24x40: give --image-size" in printed.err
    assert not (tmp_path / "to").exists()
    assert run("--epochs=1", "--image-size=12x8", data=odd / "sizes")[0] == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("none", [], "no labels"),
        ("one", [], "one class alone"),
        ("numbers", [], "are no classes"),
        ("several", ["--class-weights"], "one class for each image"),
        ("missing", [], "missing"),
        ("several", ["--model=mobilenet"], "at least 32x32"),
        ("several", ["--max-ram=1MB"], "max_ram"),
    ],
)
def test_what_cannot_be_trained_is_one_line(name, arguments, message, run, odd, tmp_path):
    code, printed = run(*arguments, data=odd / name)
    assert code in {UsageError.exit_code, DatasetError.exit_code}
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    "argument", ["--epochs=0", "--batch-size=-1", "--learning-rate=0", "--image-size=x", "--nope"]
)
def test_arguments_that_make_no_sense_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        parse_options(["photos-256", argument])
    assert argument.removeprefix("--").partition("=")[0].replace("-", "_") in (
        capsys.readouterr().err.replace("-", "_")
    )


@pytest.mark.parametrize(
    ("arguments", "side", "name"),
    [
        ({}, 128, "mobilenet"),
        ({}, 64, "small"),
        ({"model": "small"}, 128, "small"),
        ({"model": "mobilenet"}, 32, "mobilenet"),
    ],
)
def test_the_model_is_chosen_by_the_size_of_images(arguments, side, name):
    options = TrainOptions(data="", augment="flip", **arguments)
    model = build_model(FakeDataset(side), options, is_single=False)
    assert model.name == name
    assert (model.output_shape, model.layers[-1].activation.__name__) == ((None, 2), "sigmoid")
    assert model.layers[-1].dtype == "float32"


@pytest.mark.parametrize(("batches", "momentum"), [(24, 0.9), (400, 0.99), (100_000, 0.999)])
def test_batch_normalization_follows_within_an_epoch(batches, momentum):
    model = build_model(FakeDataset(96, batches), TrainOptions(data=""), is_single=True)
    network = next(layer for layer in model.layers if layer.name.lower().startswith("mobilenet"))
    (found,) = {layer.momentum for layer in network.layers if hasattr(layer, "momentum")}
    assert found == pytest.approx(momentum)


def test_where_there_is_a_gpu_it_computes_in_float16(monkeypatch):
    import tensorflow as tf

    train.set_precision()
    assert keras.mixed_precision.global_policy().name == "float32"
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    try:
        train.set_precision()
        monkeypatch.undo()
        assert keras.mixed_precision.global_policy().name == "mixed_float16"
        model = build_model(FakeDataset(16), TrainOptions(data=""), is_single=True)
        assert model.layers[-1].compute_dtype == "float32"
        assert model.layers[-3].compute_dtype == "float16"
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val_loss": 0.125}]
    training_log.write_rows(tmp_path / "rows.csv", rows)
    assert training_log.read_rows(tmp_path / "rows.csv") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert training_log.read_rows(tmp_path / "other.csv") == []


def test_without_matplotlib_it_trains_and_says_how_to_get_the_picture(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, "HAS_MATPLOTLIB", False)
    code, printed = run("--epochs=1")
    assert code == 0
    assert "pip install matplotlib" in printed.out.splitlines()[-1]
    assert len(read_epochs(tmp_path / "to")) == 1
    assert not (tmp_path / "to" / "training.png").exists()


@pytest.mark.parametrize("has_all", [True, False])
def test_the_active_environment_trains_if_it_can(has_all, tmp_path):
    shutil.copy(Path(train.__file__).with_suffix(""), tmp_path / "train")
    (tmp_path / "train.py").write_text("import sys; print('trains', *sys.argv[1:])")
    (tmp_path / "setup").write_text('#!/bin/sh\necho "setup makes an environment to run $3"\n')
    (tmp_path / "setup").chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable if has_all else shutil.which("false"))
    root = Path(train.__file__).parents[1]
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
    }
    done = subprocess.run(
        [tmp_path / "train", "out-256"], env=environment, capture_output=True, text=True, check=True
    )
    wanted = "trains out-256" if has_all else "setup makes an environment to run out-256"
    assert done.stdout.strip() == wanted
