"""Trains a Keras model on any converted data set with labels, and shows whether it waits for data.

    ./scripts/train photos-256 --epochs 5 --to build/train

Kill it anywhere and run the same command again: it goes on with the step after the last checkpoint.
In the folder of `--to` you find afterwards:

    model.keras     the trained model
    epochs.csv      a line for each epoch: loss, accuracy, images/s, input wait share, memory
    steps.csv       a line for each second or so: images/s and memory
    training.png    both as a picture
    checkpoint/     what the next run goes on with
"""

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from converter.errors import ShardmillError, UsageError
from converter.options import parse_image_size
from reader import ShardSet, load_dataset, open_shards, typed_errors

MOBILE_SIDE = 96
"""The least side of images for which `auto` takes MobileNetV3Small."""

MODELS = ("auto", "small", "mobilenet")
AUGMENTATIONS = ("none", "shift", "flip")
INTERRUPTED = "train: interrupted; run the same command again to go on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What to train, on what.

    Attributes:
        data: the data set.
        to: the folder for the model, its log and its checkpoints.
        epochs: in all, those of earlier runs included.
        batch_size: images per step.
        model: `small`, a network of three convolutions; `mobilenet`, MobileNetV3Small without
            weights; or `auto`, which decides by the size of the images.
        image_size: (height, width) to resize to; None for the stored size.
        augment: `shift` moves images by up to a tenth, `flip` also mirrors half of them.
        class_weights: whether rare classes count more.
        learning_rate: of Adam.
        seed: of the order of records, of weights and of augmentation.
        max_ram: of the reader, as in `ReadOptions`.
        every_steps: steps between checkpoints.
    """

    data: str
    to: Path = Path("build/train")
    epochs: int = 5
    batch_size: int = 32
    model: str = "auto"
    image_size: tuple[int, int] | None = None
    augment: str = "shift"
    class_weights: bool = False
    learning_rate: float = 1e-3
    seed: int = 7
    max_ram: str = "512MB"
    every_steps: int = 200


def main() -> int:
    options = parse_options(sys.argv[1:])
    try:
        with typed_errors():
            train(options)
    except ShardmillError as error:
        print(f"train: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\n{INTERRUPTED}", file=sys.stderr)
        return 130
    return 0


def end_at_once(*_: object) -> NoReturn:
    """Ends this process after Ctrl-C."""
    # As an exception it got lost in 4 of 53 trials: Python ignores those in callbacks of JAX and of
    # its own garbage collector. A checkpoint is whole or not there, so nothing is lost like this.
    os.write(2, f"\n{INTERRUPTED}\n".encode())
    os._exit(130)


def parse_options(arguments: list[str]) -> TrainOptions:
    """Reads the command line; its defaults are those of `TrainOptions`."""
    defaults = TrainOptions(data="")
    parser = argparse.ArgumentParser(
        prog="train",
        description=(__doc__ or "").splitlines()[0],
        epilog="docs/training.md has more.",
    )
    parser.add_argument("data", metavar="OUT", help="a data set that shardmill convert wrote")
    parser.add_argument("--to", type=Path, default=defaults.to, help="folder for what comes out")
    for name, meaning in (
        ("epochs", "in all, those of earlier runs included"),
        ("batch_size", "images per step"),
        ("learning_rate", "of Adam"),
        ("seed", "of the order of records, of weights and of augmentation"),
        ("max_ram", "of the reader"),
        ("every_steps", "steps between checkpoints"),
    ):
        default = getattr(defaults, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(
            flag, type=type(default), default=default, help=f"{meaning} (default: {default})"
        )
    parser.add_argument("--model", choices=MODELS, default="auto", help="(default: by image size)")
    parser.add_argument("--augment", choices=AUGMENTATIONS, default="shift")
    parser.add_argument("--class-weights", action="store_true", help="rare classes count more")
    parser.add_argument("--image-size", metavar="SIZE", help="resize to it: 224, or 224x320")
    given = vars(parser.parse_args(arguments))
    try:
        size = given.pop("image_size")
        options = TrainOptions(image_size=parse_image_size(size) if size else None, **given)
        check(options)
    except UsageError as error:
        parser.error(str(error))
    return options


def check(options: TrainOptions) -> None:
    for name in ("epochs", "batch_size", "every_steps", "learning_rate"):
        if not getattr(options, name) > 0:
            raise UsageError(f"{name} {getattr(options, name)} is out of range: above 0")


def train(options: TrainOptions) -> dict[str, Any]:
    """Trains, or goes on; returns the last line of `epochs.csv`."""
    import keras
    from training_log import HAS_MATPLOTLIB, TrainingLog

    from reader import InputStats, ResumeTraining

    shards = open_shards(options.data)
    if not shards.splits.get("train"):
        raise UsageError(f"there is no split 'train' in it, only {', '.join(shards.splits)}")
    training = open_split(shards, options, "train")
    has_validation = "validation" in shards.splits
    validation = open_split(shards, options, "validation") if has_validation else None
    is_single = check_labels(training)
    weights = weigh(shards, is_single=is_single) if options.class_weights else None
    set_precision()
    keras.utils.set_random_seed(options.seed)
    model = build_model(training, options, is_single=is_single)
    options.to.mkdir(parents=True, exist_ok=True)
    stats = InputStats(verbose=False)
    log = TrainingLog(options.to, stats, options.batch_size)
    resuming = ResumeTraining(training, options.to / "checkpoint", options.every_steps)
    print(f"{shards}; {model.name}, {model.count_params():,} weights", flush=True)
    model.fit(
        training,
        validation_data=validation,
        epochs=options.epochs,
        class_weight=weights,
        callbacks=[stats, log, resuming],
        verbose=0,
    )
    model.save(options.to / "model.keras")
    print(f"the model and its log are in {options.to}")
    if not HAS_MATPLOTLIB:
        print("for a picture of the log, pip install matplotlib and train another epoch")
    return log.rows[-1]


def open_split(shards: ShardSet, options: TrainOptions, split: str) -> Any:
    image = shards.manifest.image
    if image.height is None and options.image_size is None:
        raise UsageError(
            f"the stored images differ in size, up to {image.max_height}x{image.max_width}: give "
            "--image-size 224, or convert with one"
        )
    return load_dataset(
        options.data,
        split,
        batch_size=options.batch_size,
        dtype="uint8",
        image_size=options.image_size,
        seed=options.seed,
        max_ram=options.max_ram,
        masks=False if shards.manifest.labelled else None,
    )


def check_labels(dataset: Any) -> bool:
    """Whether each image has one class; refuses what is neither that nor several classes."""
    spec = dataset.element_spec
    labels = spec[1] if isinstance(spec, tuple) else None
    if labels is None:
        raise UsageError("its images have no labels, and there is nothing to learn without them")
    if labels.dtype.is_integer and len(labels.shape) == 1:
        if len(dataset.class_names) < 2:
            raise UsageError("it has one class alone, and a model learns to tell classes apart")
        return True
    if len(labels.shape) == 2:
        return False
    raise UsageError(
        f"its labels, {labels.dtype.name} {labels.shape}, are no classes: write a model of your "
        "own, docs/recipes has examples"
    )


def weigh(shards: ShardSet, *, is_single: bool) -> dict[int, float]:
    if not is_single:
        raise UsageError("--class-weights needs one class for each image, and these have several")
    return shards.class_weight("train")


def set_precision() -> None:
    """Computes in float16 where there is a GPU, which makes it about twice as fast."""
    import keras
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        keras.mixed_precision.set_global_policy("mixed_float16")


def build_model(dataset: Any, options: TrainOptions, *, is_single: bool) -> Any:
    """Augmentation, a network by the size of the images, and an output for each class."""
    import keras

    shape = dataset.element_spec[0].shape[1:]
    is_mobile = options.model == "mobilenet" or (
        options.model == "auto" and min(shape[:2]) >= MOBILE_SIDE
    )
    if is_mobile and min(shape[:2]) < 32:
        raise UsageError(f"--model mobilenet takes images of at least 32x32, these are {shape}")
    inputs = keras.Input(shape)
    layers = [keras.layers.Rescaling(1 / 127.5, offset=-1), *list_augmentation(options)]
    layers += [make_mobilenet(shape, len(dataset))] if is_mobile else list_convolutions()
    # The output in float32, whatever the other layers compute in.
    classes, activation = len(dataset.class_names), "softmax" if is_single else "sigmoid"
    layers += [
        keras.layers.Dropout(0.3, seed=options.seed),
        keras.layers.Dense(classes, activation=activation, dtype="float32"),
    ]
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs, name="mobilenet" if is_mobile else "small")
    loss = "sparse_categorical_crossentropy" if is_single else "binary_crossentropy"
    accuracy = "accuracy" if is_single else keras.metrics.BinaryAccuracy(name="accuracy")
    model.compile(keras.optimizers.Adam(options.learning_rate), loss, metrics=[accuracy])
    return model


def list_augmentation(options: TrainOptions) -> list[Any]:
    import keras

    seed = options.seed
    flip = keras.layers.RandomFlip("horizontal", seed=seed)
    shift = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=seed)
    return {"none": [], "shift": [shift], "flip": [flip, shift]}[options.augment]


def make_mobilenet(shape: tuple[int, ...], steps: int) -> Any:
    """The network, whose batch normalization follows within an epoch of so many steps.

    Its own momentum, 0.999, takes thousands of steps: with 24 an epoch, the validation accuracy
    stayed at chance while the accuracy in training rose.
    """
    import keras

    network = keras.applications.MobileNetV3Small(
        input_shape=shape, include_top=False, include_preprocessing=False, weights=None,
        pooling="avg",
    )  # fmt: skip
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, max(0.9, 1 - 4 / max(1, steps)))
    return network


def list_convolutions() -> list[Any]:
    import keras

    layers = []
    for filters in (32, 64, 128):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(padding="same"),
        ]
    return [*layers, keras.layers.GlobalAveragePooling2D()]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_at_once)
    sys.exit(main())
