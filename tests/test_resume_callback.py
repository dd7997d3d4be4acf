"""`ResumeTraining`: a fit that is killed and run again ends as if nothing had happened."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, write_image
from tensorflow.python.util import _pywrap_determinism

from converter import ConvertOptions, DatasetError, UsageError
from reader import ResumeTraining, load_dataset, open_shards
from reader.tfdata.checkpoint import STATE

# Of Keras' own saving, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 7
EPOCHS = 2
READING = {"batch_size": 4, "seed": 5, "random_flip": True}


class Killed(BaseException):
    """Ends a training as a signal would: nothing in Keras or here catches it."""


@pytest.fixture(autouse=True)
def deterministic():
    """TensorFlow's operations give the same bits in every run."""
    tf.config.experimental.enable_op_determinism()
    yield
    _pywrap_determinism.enable(False)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """26 images in 2 classes for training, in 7 steps of 4."""
    root = tmp_path_factory.mktemp("stored")
    for seed in range(26):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    convert_folder(root / "images", root / "set", ConvertOptions(image_size=(8, 10)))
    return root / "set"


def make_model(dense: int = 2, optimizer: str = "adam") -> keras.Model:
    """A model that is not built before it sees data, and draws random numbers."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([*layers, keras.layers.Dense(dense, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def kill_after(steps: int | None) -> keras.callbacks.Callback:
    """Kills the training at the end of a step, once there were so many others."""
    left = iter(range(10**6))

    def kill(batch, logs=None):
        if next(left) == steps:
            raise Killed

    return keras.callbacks.LambdaCallback(on_train_batch_end=kill)


def train(
    stored: Path, folder: Path, steps: int | None = None, *, every_steps: int = 2, patience: int = 9
) -> dict[str, object]:
    """Trains, or goes on, until it is killed; gives all that a training leaves behind."""
    dataset = load_dataset(stored, **READING)
    model = make_model()
    kept = [
        keras.callbacks.EarlyStopping("loss", patience=patience, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("accuracy", factor=0.5, patience=1, mode="min"),
    ]
    # Each epoch's rate follows from the last one's: to be set once an epoch, restarts or not.
    decay = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
    resuming = ResumeTraining(dataset, folder, every_steps, callbacks=kept)
    history = model.fit(
        dataset,
        validation_data=load_dataset(stored, batch_size=8, shuffle=False),
        epochs=EPOCHS,
        verbose=0,
        shuffle=False,
        callbacks=[*kept, decay, kill_after(steps), resuming],
    )
    return {
        "weights": [weight.tolist() for weight in model.get_weights()],
        "optimizer": [variable.numpy().tolist() for variable in model.optimizer.variables],
        "seeds": [v.numpy().tolist() for v in model.variables if "seed" in v.path],
        "history": history.history,
        "epochs": history.epoch,
        "wait": [callback.wait for callback in kept],
        "best": [callback.best for callback in kept],
    }


@pytest.fixture(scope="module")
def whole(stored, tmp_path_factory):
    """What a training leaves behind that nothing disturbs."""
    tf.config.experimental.enable_op_determinism()
    return train(stored, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def killed_once(stored, tmp_path_factory):
    """The checkpoint of a training that was killed after three steps."""
    tf.config.experimental.enable_op_determinism()
    folder = tmp_path_factory.mktemp("killed")
    kill(stored, folder, 3)
    return folder


@pytest.fixture
def killed(killed_once, tmp_path):
    """A copy of that, which a test may change."""
    return shutil.copytree(killed_once, tmp_path / "killed")


def kill(stored: Path, folder: Path, steps: int, **arguments: int) -> None:
    with pytest.raises(Killed):
        train(stored, folder, steps, **arguments)


def read_position(folder: Path) -> tuple[int, int]:
    state = json.loads((folder / STATE).read_bytes())
    return state["epoch"], state["step"]


def test_the_whole_training_is_what_it_is_taken_for(stored, whole, tmp_path):
    assert whole["optimizer"][0] == STEPS * EPOCHS
    assert whole["epochs"] == [*range(EPOCHS)]
    assert len(set(whole["history"]["learning_rate"])) == EPOCHS
    assert set(whole["history"]) > {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert train(stored, tmp_path) == whole


@pytest.mark.parametrize(
    "lives",
    [[0], [1, 5, 3], [6, 6], [12, 0]],
    ids=str,
)
def test_a_killed_training_ends_as_if_nothing_had_happened(stored, whole, tmp_path, lives):
    for steps in lives:
        kill(stored, tmp_path, steps)
    assert train(stored, tmp_path) == whole


def test_a_training_can_be_killed_at_every_single_step(stored, whole, tmp_path):
    positions = []
    for _ in range(STEPS * EPOCHS - 1):
        # Each time it does one step, and is killed in the next; no step is saved that is an
        # epoch's last, so two are done there.
        begin = read_position(tmp_path) if (tmp_path / STATE).exists() else (0, 0)
        kill(stored, tmp_path, 2 if begin[1] == STEPS - 1 else 1, every_steps=1)
        positions.append(read_position(tmp_path))
        if positions[-1] >= (EPOCHS - 1, STEPS - 1):
            break
    assert len(positions) == len(set(positions)) >= 10
    assert train(stored, tmp_path, every_steps=1) == whole


def test_a_training_that_was_complete_does_nothing_when_it_is_run_again(stored, whole, tmp_path):
    train(stored, tmp_path)
    state = (tmp_path / STATE).read_bytes()
    again = train(stored, tmp_path, 0)  # would be killed in its first step
    assert again["weights"] == whole["weights"]
    assert again["history"] == whole["history"]
    assert (tmp_path / STATE).read_bytes() == state


def test_a_training_that_was_stopped_stays_so(stored, tmp_path):
    def stop(folder: Path, steps: int | None = None) -> tuple[list, dict]:
        dataset = load_dataset(stored, **READING)
        model = make_model()
        # The loss never falls by 100: stopped after the third epoch, with the first one's weights.
        stopping = keras.callbacks.EarlyStopping(
            "loss", min_delta=100, patience=2, restore_best_weights=True
        )
        resuming = ResumeTraining(dataset, folder, 3, callbacks=[stopping])
        callbacks = [stopping, kill_after(steps), resuming]
        history = model.fit(dataset, epochs=9, verbose=0, shuffle=False, callbacks=callbacks)
        return [weight.tolist() for weight in model.get_weights()], history.history

    expected = stop(tmp_path / "whole")
    assert len(expected[1]["loss"]) == 3
    for steps in (9, 10):
        with pytest.raises(Killed):
            stop(tmp_path / "killed", steps)
    assert stop(tmp_path / "killed") == expected
    assert stop(tmp_path / "killed", 0) == expected


def test_what_was_chosen_may_be_chosen_again(stored, tmp_path):
    kill(stored, tmp_path, 12)
    states = json.loads((tmp_path / STATE).read_bytes())["callbacks"]
    assert all("best" in state and "patience" not in state for state in states)
    # With a patience of 0 epochs, the first one that is no better is the last.
    assert len(train(stored, tmp_path, patience=0)["epochs"]) <= EPOCHS


SAVING = {
    "weights": (keras.Model, "save_weights"),
    "arrays": (np, "savez"),
    "state": (Path, "write_text"),
    "flushing": (os, "fsync"),
    "renaming": (Path, "replace"),
    "removing": (Path, "unlink"),
}
"""The calls that a checkpoint is made of, in order."""


@pytest.mark.parametrize(
    ("call", "done"), [*((call, False) for call in SAVING), ("renaming", True)], ids=str
)
def test_a_training_that_is_killed_while_it_saves_has_a_checkpoint(
    stored, whole, tmp_path, monkeypatch, call, done
):
    owner, name = SAVING[call]
    original = getattr(owner, name)

    def die(*arguments, **keywords):
        saved = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
        if "000001-000000004" not in saved and (call != "weights" or len(saved) < 2):
            return original(*arguments, **keywords)
        if done:
            original(*arguments, **keywords)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, die)
        train(stored, tmp_path)
    before = read_position(tmp_path)
    assert before < (1, 4) or call in ("renaming", "removing")
    # Whatever lies there of the one that was not completed.
    for path in tmp_path.glob("*"):
        if path.name != STATE and not path.name.startswith("{:06d}-{:09d}".format(*before)):
            os.truncate(path, path.stat().st_size // 2)
    assert train(stored, tmp_path) == whole
    assert len([*tmp_path.iterdir()]) == 3


SCRIPT = """
import os, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import test_resume_callback as tests
class Kill(tests.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.count = getattr(self, "count", -1) + 1
        if self.count == int(sys.argv[4]):
            os.kill(os.getpid(), 9)
tests.kill_after = lambda steps: Kill()
tests.tf.config.experimental.enable_op_determinism()
left = tests.train(tests.Path(sys.argv[2]), tests.Path(sys.argv[3]))
print(tests.json.dumps(left))
"""


def test_a_process_that_is_really_killed_goes_on_in_another(stored, whole, tmp_path):
    for steps, code in ((10, -signal.SIGKILL), (99, 0)):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, __file__, stored, tmp_path, str(steps)],
            check=False,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert done.returncode == code, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(json.dumps(whole))


def test_a_data_set_made_by_map_is_known_for_what_it_is(stored, tmp_path):
    def run(folder: Path, steps: int | None = None) -> list[object]:
        dataset = load_dataset(stored, **READING)
        # Labels of another shape: with that of `dataset` itself, the metrics would be others.
        mapped = dataset.map(lambda images, labels: (images / 2, tf.one_hot(labels, 2)))
        model = make_model()
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        callbacks = [kill_after(steps), ResumeTraining(mapped.prefetch(1), folder, 2)]
        model.fit(mapped, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
        return [weight.tolist() for weight in model.get_weights()], model.history.history

    with pytest.raises(Killed):
        run(tmp_path / "killed", 3)
    assert run(tmp_path / "killed") == run(tmp_path / "whole")


def fit(dataset: tf.data.Dataset, resuming: ResumeTraining, **arguments: object) -> None:
    callbacks = arguments.pop("callbacks", [resuming])
    make_model().fit(
        dataset, verbose=0, shuffle=False, callbacks=callbacks, **{"epochs": 1} | arguments
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "seed 5, this one has 6"),
        ({"batch_size": 3}, "batch_size 4, this one has 3"),
        ({"shard_count": 2}, "shard_count 1, this one has 2"),
        ({"shuffle": "buffer"}, "order 'exact', this one has 'buffer'"),
        ({"random_flip": False}, "random_flip True, this one has False"),
        ({"class_names": ["b", "a"]}, "class_names '"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_training_is_refused(stored, killed, change, message):
    dataset = load_dataset(stored, **READING | change)
    beginning = f"{re.escape(str(killed / STATE))} .* {re.escape(message)}"
    with pytest.raises(UsageError, match=f"^{beginning}"):
        fit(dataset, ResumeTraining(dataset, killed))


def test_a_checkpoint_of_other_data_is_refused(killed, tmp_path):
    for seed in range(26):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed or 99)
    convert_folder(tmp_path / "images", tmp_path / "other", ConvertOptions(image_size=(8, 10)))
    dataset = load_dataset(tmp_path / "other", **READING)
    with pytest.raises(UsageError, match=r"training with data '.*', .* '"):
        fit(dataset, ResumeTraining(dataset, killed))


def test_a_checkpoint_of_other_callbacks_is_refused(stored, killed):
    dataset = load_dataset(stored, **READING)
    with pytest.raises(UsageError, match=r"has 5 variables .* 2 callbacks, .* 5 and 0"):
        fit(dataset, ResumeTraining(dataset, killed))


def test_a_fit_that_could_not_be_continued_is_refused(stored, tmp_path):
    dataset = load_dataset(stored, **READING)
    resuming = ResumeTraining(dataset, tmp_path)
    for data, steps, found in (
        (dataset, 3, 3),
        (dataset.repeat(), 5, 5),
        (dataset.take(6), None, 6),
    ):
        with pytest.raises(UsageError, match=f"^fit takes {found} steps .* has 7: "):
            fit(data, resuming, steps_per_epoch=steps)
    with pytest.raises(UsageError, match=r"^fit takes None steps .* has 7"):
        fit(dataset.filter(lambda images, labels: True), resuming)
    stopping = keras.callbacks.EarlyStopping("loss")
    resuming = ResumeTraining(dataset, tmp_path, callbacks=[stopping])
    with pytest.raises(UsageError, match=r"^EarlyStopping .* before ResumeTraining"):
        fit(dataset, resuming, callbacks=[resuming, stopping])
    for other in (tf.data.Dataset.range(3), open_shards(stored).source("train"), [1, 2]):
        with pytest.raises(UsageError, match=r"^ResumeTraining takes what load_dataset"):
            ResumeTraining(other, tmp_path)
    with pytest.raises(UsageError, match=r"^every_steps 0 .* at least 1$"):
        ResumeTraining(dataset, tmp_path, 0)
    assert not (tmp_path / STATE).exists()


def test_the_epochs_of_fit_are_those_of_the_data(stored, tmp_path):
    later = load_dataset(stored, **READING, initial_epoch=2, initial_step=3)
    with pytest.raises(UsageError, match=r"begins with epoch 0, .* with 2"):
        fit(later, ResumeTraining(later, tmp_path))
    model = make_model()
    resuming = ResumeTraining(later, tmp_path)
    model.fit(later, epochs=4, initial_epoch=2, verbose=0, shuffle=False, callbacks=[resuming])
    assert model.optimizer.iterations == 4 + STEPS
    assert read_position(tmp_path) == (4, 0)
    # And from there, as always.
    model.fit(later, epochs=5, verbose=0, shuffle=False, callbacks=[resuming])
    assert model.optimizer.iterations == 4 + 2 * STEPS
    assert model.history.epoch == [2, 3, 4]


LOOKS = {
    "nothing": lambda dataset: None,
    "take": lambda dataset: [*dataset.take(1)],
    "several": lambda dataset: [next(iter(dataset)), *dataset, *dataset.take(2)],
    "adapt": lambda dataset: keras.layers.Normalization().adapt(dataset.map(lambda x, y: x)),
    "fit": lambda dataset: make_model().fit(dataset, epochs=2, verbose=0, shuffle=False),
}
"""What uses up epochs of a data set."""


def fit_after(
    stored: Path,
    folder: Path,
    look: str,
    when: str = "before",
    killed_after: int | None = None,
    **start: int,
) -> list[object]:
    """Looks at a data set, before or after the callback is made, and trains with it."""
    dataset = load_dataset(stored, **READING, **start)
    if when == "before":
        LOOKS[look](dataset)
    resuming = ResumeTraining(dataset, folder, 2)
    if when == "after":
        LOOKS[look](dataset)
    model = make_model()
    model.fit(
        dataset,
        epochs=3,
        initial_epoch=start.get("initial_epoch", 0),
        verbose=0,
        shuffle=False,
        callbacks=[kill_after(killed_after), resuming],
    )
    return [[weight.tolist() for weight in model.get_weights()], model.history.history]


@pytest.fixture(scope="module", params=[{}, {"initial_epoch": 1, "initial_step": 3}], ids=str)
def unseen(request, stored, tmp_path_factory):
    """Where a training begins; and what comes of it, with data that nothing has looked at."""
    tf.config.experimental.enable_op_determinism()
    folder = tmp_path_factory.mktemp("unseen")
    return request.param, fit_after(stored, folder, "nothing", **request.param)


# Of the other `fit`, which no callback tells that its first epoch is shorter.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_training_begins_where_it_should_whatever_was_looked_at(
    stored, tmp_path, unseen, look, when
):
    start, expected = unseen
    assert fit_after(stored, tmp_path, look, when, **start) == expected


def test_a_training_goes_on_where_it_should_whatever_was_looked_at(stored, tmp_path, unseen):
    start, expected = unseen
    for steps, when in ((1, "before"), (3, "after"), (5, "before")):
        with pytest.raises(Killed):
            fit_after(stored, tmp_path, "several", when, steps, **start)
    assert fit_after(stored, tmp_path, "several", "after", **start) == expected


@pytest.mark.parametrize("look", LOOKS)
def test_an_initial_epoch_has_to_be_said_to_fit_too(stored, tmp_path, look):
    dataset = load_dataset(stored, **READING, initial_epoch=3)
    LOOKS[look](dataset)
    with pytest.raises(
        UsageError,
        match=r"begins with epoch 0, .* initial_epoch=3",
    ):
        fit(dataset, ResumeTraining(dataset, tmp_path))


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def test_a_second_fit_goes_on_or_is_complete_as_the_checkpoint_says(stored, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    dataset = load_dataset(stored, **READING)
    resuming = ResumeTraining(dataset, folder)
    model = make_model()

    def go_on(epochs: int, steps: int | None = None) -> tuple[list[int], str]:
        callbacks = [kill_after(steps), resuming]
        arguments = {"epochs": epochs, "verbose": 0, "shuffle": False, "callbacks": callbacks}
        return model.fit(dataset, **arguments).epoch, capsys.readouterr().out

    assert go_on(1) == ([0], "")
    complete = f"; raise epochs, or remove {folder} to start over\n"
    assert go_on(1, 0) == ([0], f"complete: 1 epoch is done{complete}")
    assert go_on(3) == ([0, 1, 2], f"resuming at epoch 1, step 0 of 7, from {folder}\n")
    assert model.optimizer.iterations == 3 * STEPS
    assert go_on(2, 0) == ([0, 1, 2], f"complete: 3 epochs are done{complete}")
    # A training of its own, though the model has learned already.
    remove(folder)
    assert go_on(1) == ([0], "")
    with pytest.raises(Killed):
        go_on(4, 9)
    assert capsys.readouterr().out == f"resuming at epoch 1, step 0 of 7, from {folder}\n"
    remove(folder)
    assert go_on(1) == ([0], "")


def test_a_second_fit_saves_what_callbacks_know_from_the_first(stored, tmp_path):
    class Best(keras.callbacks.Callback):
        best = None

        def on_epoch_end(self, epoch, logs=None):
            self.best = self.best or "the first"

    def make() -> tuple[tf.data.Dataset, Best, ResumeTraining]:
        dataset, best = load_dataset(stored, **READING), Best()
        best.best = None
        return dataset, best, ResumeTraining(dataset, tmp_path, callbacks=[best])

    dataset, best, resuming = make()
    for epochs in (1, 2):
        fit(dataset, resuming, epochs=epochs, callbacks=[best, resuming])
    dataset, best, resuming = make()
    fit(dataset, resuming, epochs=2, callbacks=[best, resuming])
    assert best.best == "the first"


def test_one_line_says_from_where_a_training_resumes(stored, killed, capsys, caplog):
    caplog.set_level("INFO", logger="shardmill.reader")
    line = f"resuming at epoch 0, step 2 of 7, from {killed}"
    assert len(train(stored, killed)["epochs"]) == EPOCHS
    assert capsys.readouterr().out == f"{line}\n"
    assert caplog.messages == [line]
    # It says nothing where Keras does not, but to the log.
    keras.config.disable_interactive_logging()
    try:
        train(stored, killed)
    finally:
        keras.config.enable_interactive_logging()
    line = f"complete: 2 epochs are done; raise epochs, or remove {killed} to start over"
    assert capsys.readouterr().out == ""
    assert caplog.messages[1:] == [line]


def test_one_line_says_that_a_training_was_stopped(stored, tmp_path, capsys):
    line = f"complete: a callback stopped it after 2 epochs; remove {tmp_path} to start over\n"
    for expected in ("", line):
        dataset = load_dataset(stored, **READING)
        # A loss does not become smaller by 100.
        stop = keras.callbacks.EarlyStopping("loss", min_delta=100, patience=1)
        resuming = ResumeTraining(dataset, tmp_path, callbacks=[stop])
        fit(dataset, resuming, epochs=3, callbacks=[stop, resuming])
        assert capsys.readouterr().out == expected


def test_a_line_is_shown_on_a_screen_that_has_not_all_letters(stored, tmp_path, monkeypatch):
    folder = tmp_path / "états"
    screen = io.BytesIO()
    for _ in range(2):
        dataset = load_dataset(stored, **READING)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(screen, "ascii", write_through=True))
            fit(dataset, ResumeTraining(dataset, folder))
            sys.stdout.detach()
    assert screen.getvalue().count(b"\n") == 1
    assert b"\\xe9tats to start over" in screen.getvalue()


def test_a_sequence_is_refused_in_one_line(stored, tmp_path):
    sequence = open_shards(stored).sequence("train", **READING)
    with pytest.raises(UsageError, match=r"^ResumeTraining takes no BatchSequence"):
        ResumeTraining(sequence, tmp_path)
    dataset = load_dataset(stored, **READING)
    for other in (sequence, load_dataset(stored, **READING)):
        with pytest.raises(UsageError, match=r"^fit reads other data"):
            fit(other, ResumeTraining(dataset, tmp_path, 1))
    assert not (tmp_path / STATE).exists()


def edit(folder: Path, **changes: object) -> None:
    state = json.loads((folder / STATE).read_bytes())
    (folder / STATE).write_text(json.dumps(state | changes))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: os.truncate(folder / STATE, 100),
        lambda folder: (folder / STATE).write_bytes(b"\xff"),
        lambda folder: (folder / STATE).write_text("[]"),
        lambda folder: (folder / STATE).write_text('{"version": 1}'),
        lambda folder: edit(folder, epoch="x"),
        lambda folder: edit(folder, history=[1]),
        lambda folder: edit(folder, callbacks=None),
        lambda folder: edit(folder, data=[1]),
        lambda folder: os.truncate(next(folder.glob("*.npz")), 100),
        lambda folder: os.truncate(next(folder.glob("*.npz")), 0),
        lambda folder: next(folder.glob("*.npz")).unlink(),
    ],
)
def test_a_damaged_checkpoint_is_one_line(stored, killed, spoil):
    spoil(killed)
    beginning = re.escape(f"{killed / STATE} is damaged: ")
    with pytest.raises(DatasetError, match=f"^{beginning}[^\n]+; remove it"):
        train(stored, killed)


def test_a_checkpoint_of_a_later_version_is_refused(stored, killed):
    edit(killed, version=2, epoch="of another kind")
    with pytest.raises(UsageError, match=r"state\.json has version 2, .* reads 1"):
        train(stored, killed)


@pytest.mark.parametrize("spoil", ["cut", "removed", "model", "optimizer"])
def test_weights_that_do_not_fit_are_an_error(stored, killed, monkeypatch, spoil):
    (weights,) = killed.glob("*.weights.h5")
    if spoil == "cut":
        os.truncate(weights, 1000)
    elif spoil == "removed":
        weights.unlink()
    else:
        change = {"dense": 3} if spoil == "model" else {"optimizer": "sgd"}
        monkeypatch.setattr(sys.modules[__name__], "make_model", lambda: MAKE_MODEL(**change))
    with pytest.raises(DatasetError, match=rf"^{re.escape(str(weights))} does not fit [^\n]+$"):
        train(stored, killed)


MAKE_MODEL = make_model


def test_other_files_of_the_folder_are_left_alone(stored, tmp_path):
    (tmp_path / "mine.weights.h5").write_text("mine")
    shutil.copy(__file__, tmp_path / "notes.npz")
    train(stored, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    expected = ["000002-000000000.npz", "000002-000000000.weights.h5", "mine.weights.h5"]
    assert names == [*expected, "notes.npz", STATE]
