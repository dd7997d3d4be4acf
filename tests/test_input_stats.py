"""Whether a training waits for its data: with Keras, with any data, and in loops of one's own."""

import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from converter.errors import UsageError
from reader import InputStats, ResumeTraining, load_dataset, open_shards

# Of any data set of TensorFlow, Keras warns that it will not shuffle it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.shuffle=True. was passed"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

STEPS = 8
WAIT_S = 0.06


class Sleep(keras.layers.Layer):
    """Passes values on after some time, as a large model would."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def call(self, values):
        def wait(given):
            time.sleep(self._seconds)
            return given

        slept = tf.numpy_function(wait, [values], values.dtype)
        slept.set_shape(values.shape)
        return values + tf.stop_gradient(slept - values)


def make_model(seconds: float = 0.0, **options: object) -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(3)]
    model = keras.Sequential([*layers, *([Sleep(seconds)] if seconds else [])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **options)
    return model


def make_data(seconds: float = 0.0, steps: int = STEPS, batch: int = 4) -> tf.data.Dataset:
    """Batches of which each takes some time, with a smaller one at the end."""

    def produce():
        random = np.random.default_rng(1)
        for step in range(steps):
            time.sleep(seconds)
            size = batch if step < steps - 1 else batch - 1
            yield random.random((size, 6, 5), np.float32), np.zeros(size, np.int32)

    spec = tf.TensorSpec((None, 6, 5), tf.float32), tf.TensorSpec((None,), tf.int32)
    data = tf.data.Dataset.from_generator(produce, output_signature=spec)
    settings = tf.data.Options()
    settings.experimental_optimization.inject_prefetch = False  # which TensorFlow adds otherwise
    return data.apply(tf.data.experimental.assert_cardinality(steps)).with_options(settings)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"steps_per_execution": 3}])
def test_with_a_slow_input_a_step_is_all_waiting(options, capsys):
    stats = InputStats()
    make_model(**options).fit(make_data(2 * WAIT_S), epochs=2, callbacks=[stats], verbose=0)
    assert stats.epochs[1].steps == STEPS
    assert stats.epochs[1].wait_share > 0.75
    assert stats.wait_share > 0.75
    assert "max_ram" in capsys.readouterr().out


@pytest.mark.parametrize(("wait_s", "step_s"), [(0.1, 0.1), (0.0, 0.2), (0.2, 0.0)])
def test_shares_are_right_to_five_points(wait_s, step_s):
    """Nothing is prefetched: what a step waits for is what a batch takes."""
    errors = []
    for _ in range(3):  # another process may take the processor in between
        stats = InputStats(verbose=False)
        model = make_model(step_s)
        model.fit(make_data(wait_s, 5), epochs=2, callbacks=[stats], verbose=0)
        use = stats.epochs[1]
        assert use.seconds > 5 * (wait_s + step_s)
        errors.append(abs(use.wait_share - 5 * wait_s / use.seconds))
        if errors[-1] < 0.05:
            return
    pytest.fail(f"off by {errors}")


def test_what_is_prefetched_costs_nothing():
    stats = InputStats(verbose=False)
    data = make_data(0.05).prefetch(4)
    make_model(0.15).fit(data, epochs=2, callbacks=[stats], verbose=0)
    # But for the first batch of an epoch: 0.05 s of 1.25.
    assert stats.epochs[1].wait_share < 0.15


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"steps_per_execution": 3}, {"jit_compile": True}],
)
def test_the_training_is_the_same_to_the_bit(options):
    plain = make_model(**options).fit(make_data(), epochs=2, verbose=0)
    found = make_model(**options).fit(
        make_data(), epochs=2, verbose=0, callbacks=[InputStats(verbose=False)]
    )
    assert found.history["loss"] == plain.history["loss"]
    assert found.history["accuracy"] == plain.history["accuracy"]


def test_history_and_attributes_have_the_numbers():
    stats = InputStats(verbose=False)
    model = make_model()
    found = model.fit(make_data(), epochs=3, callbacks=[stats], verbose=0)
    shares, speeds = found.history["input_wait_share"], found.history["images_per_second"]
    assert shares == [use.wait_share for use in stats.epochs]
    assert speeds == [use.images_per_second for use in stats.epochs]
    assert [use.steps for use in stats.epochs] == [STEPS - 1, STEPS, STEPS]
    assert [use.images for use in stats.epochs] == [4 * STEPS - 5, 4 * STEPS - 1, 4 * STEPS - 1]
    assert stats.total.steps == 3 * STEPS - 1
    assert all(10**7 < use.memory_bytes <= use.peak_bytes for use in stats.epochs)
    model.fit(make_data(), callbacks=[stats], verbose=0)
    assert len(stats.epochs) == 1


def test_lines_stand_between_those_of_keras(capsys):
    make_model().fit(make_data(), epochs=2, callbacks=[InputStats()], verbose=2)
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split(":")[0] for line in lines if line.startswith(("epoch", "Epoch"))]
    assert heads == ["Epoch 1/2", "epoch 1", "Epoch 2/2", "epoch 2"]


def test_nothing_is_printed_if_not_asked_for(capsys):
    make_model().fit(make_data(), callbacks=[InputStats(verbose=False)], verbose=0)
    keras.config.disable_interactive_logging()
    try:
        make_model().fit(make_data(), callbacks=[InputStats()], verbose=0)
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == ""


def test_validation_does_not_count():
    stats = InputStats(verbose=False)
    slow = make_data(0.1)
    start = time.monotonic()
    make_model().fit(make_data(), validation_data=slow, epochs=2, callbacks=[stats], verbose=0)
    assert stats.total.seconds < time.monotonic() - start - 2 * STEPS * 0.1
    assert stats.epochs[1].steps == STEPS


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_data_of_unknown_length_ends_where_it_ends():
    stats = InputStats(verbose=False)
    data = make_data().take(STEPS).filter(lambda *_: True)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    for steps in (1, 3):
        make_model(steps_per_execution=steps).fit(data, epochs=2, callbacks=[stats], verbose=0)
        assert stats.epochs[1].steps == STEPS


def test_an_interrupted_fit_leaves_a_model_that_can_be_trained():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, stats = make_model(), InputStats(verbose=False)
    with pytest.raises(KeyboardInterrupt):
        model.fit(make_data(), callbacks=[stats, Stop()], verbose=0)
    model.fit(make_data(), callbacks=[InputStats(verbose=False)], verbose=0)
    assert not hasattr(model.train_function, "unmeasured")
    model.fit(make_data(), verbose=0)


def test_two_in_one_fit_are_refused():
    stats = InputStats(verbose=False)
    for other in (stats, InputStats(verbose=False)):
        with pytest.raises(UsageError, match="two InputStats"):
            make_model().fit(make_data(), callbacks=[stats, other], verbose=0)


def test_an_interrupted_fit_adds_no_step_to_the_next():
    model, stats = make_model(), InputStats(verbose=False)
    model.make_train_function()
    stats.set_model(model)
    stats.on_train_begin()
    stats.take(iter(make_data()))
    model.fit(make_data().take(1), callbacks=[stats], verbose=0)
    assert stats.epochs[0].steps == 1


def test_several_replicas_count_their_images():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model = make_model()
    stats = InputStats(verbose=False)
    model.fit(make_data(), epochs=2, callbacks=[stats], verbose=0)
    assert stats.epochs[1].images == 4 * STEPS - 1


@pytest.mark.parametrize("kind", ["dataset", "sequence", "serializable"])
def test_it_measures_what_comes_from_shards(converted: Path, kind):
    shards = open_shards(converted)
    if kind == "sequence":
        data = shards.sequence("train", batch_size=8)
    else:
        data = load_dataset(converted, batch_size=8, serializable=kind == "serializable")
    stats = InputStats(verbose=False)
    model = make_model()
    model.fit(data, epochs=2, callbacks=[stats], verbose=0)
    records = shards.splits["train"].records
    assert stats.epochs[1].images == records
    assert 0 <= stats.wait_share <= 1


def test_it_goes_with_a_training_that_resumes(converted: Path, tmp_path):
    def train(*callbacks: keras.callbacks.Callback, epochs: int) -> list[float]:
        keras.utils.set_random_seed(3)
        data = load_dataset(converted, batch_size=8, seed=5)
        resuming = ResumeTraining(data, tmp_path / str(len(callbacks)))
        model = make_model()
        found = model.fit(data, epochs=epochs, callbacks=[*callbacks, resuming], verbose=0)
        return found.history["loss"]

    assert train(InputStats(verbose=False), epochs=1) == train(epochs=1)
    assert train(InputStats(verbose=False), epochs=2) == train(epochs=2)


def test_a_loop_of_ones_own_is_measured(capsys):
    stats = InputStats()
    for _ in range(2):
        for images, _ in stats.watch(make_data(WAIT_S)):
            assert images.shape[1:] == (6, 5)
    assert stats.epochs[1].wait_share > 0.9
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 1",
        "epoch 2",
    ]


def test_a_loop_that_is_left_early_counts_what_was_done():
    stats = InputStats(verbose=False)
    for number, _ in enumerate(stats.watch(range(100))):
        if number == 5:
            break
    assert stats.epochs[0].steps == 4  # neither the first nor the last one


def test_waits_can_be_counted_by_hand():
    stats = InputStats(verbose=False)
    for _ in range(5):
        with stats.wait(images=7):
            time.sleep(0.02)
        time.sleep(0.06)
    use = stats.end_epoch()
    assert (use.steps, use.images) == (4, 28)
    assert 0.15 < use.wait_share < 0.4


def test_other_backends_are_refused_for_fit(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="runs on jax"):
        InputStats().on_train_begin()
