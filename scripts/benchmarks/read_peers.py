"""One way of reading images in a process of its own, measured from inside; prints a line of JSON.

    ./scripts/run benchmarks/read_peers NAME FOLDER [--epochs 4] [--options '{"shuffle": false}']

Each function below imports what it needs and returns another one, which builds the pipeline and
returns a third: an epoch, as the number of images in each batch. The first line of its docstring
says what the contender was asked to do, and is printed with its figures.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from converter.usage import measure_memory
from reader.bench.contenders import (
    count_batches,
    import_tensorflow,
    prepare_batches,
    prepare_dataset,
    prepare_decoder,
)
from reader.bench.meter import Build, Epoch, watch

BATCH = 64
SIZE = (256, 256)
CORES = os.cpu_count() or 1
DECODED_S = 0.00023
ASKED = {"batch_size": BATCH, "dtype": "uint8", "seed": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4, help="the first is a warm-up")
    parser.add_argument("--options", type=json.loads, default={}, help="of `load_dataset`")
    parser.add_argument("--started", type=float, help="time of the start: read one batch, and stop")
    arguments = parser.parse_args()
    prepare = PEERS[arguments.name]
    try:
        build = prepare(arguments.folder, **arguments.options)
    except ModuleNotFoundError as error:
        print(json.dumps({"absent": error.name}))
    else:
        if arguments.started:
            next(iter(build()()))
            print(json.dumps({"start_s": time.time() - arguments.started}))
            return
        asked = (prepare.__doc__ or "").splitlines()[0].removesuffix(".")
        print(json.dumps({"asked": asked, **measure_epochs(build, arguments.epochs)}))


def measure_epochs(build: Build, epochs: int) -> dict[str, Any]:
    """Reads some epochs, and looks at the process's memory after every batch."""
    bare, begun = measure_memory(), time.perf_counter()
    epoch = build()
    built_s = time.perf_counter() - begun
    counts: list[float] = []

    def count() -> Iterator[float]:
        for number in epoch():
            counts.append(number)
            yield number

    stretches = [watch(count()) for _ in range(epochs)]
    rates = [stretch.images / stretch.seconds for stretch in stretches]
    cpu = [stretch.cpu_seconds / stretch.images * 1000 for stretch in stretches]
    peaks = [(stretch.peak_bytes - bare) / 1e6 for stretch in stretches]
    first_s = stretches[0].first_seconds
    return {
        "rate": statistics.median(rates[1:] or rates),
        # Of those that have batches at all.
        "first_s": None if first_s is None or max(counts) > BATCH else built_s + first_s,
        "growth_mb": max(peaks),
        "rss_mb": max(peaks) + bare / 1e6,
        "peaks_mb": peaks,
        "cpu_s": statistics.median(cpu[1:] or cpu),
    }


def prepare_shardmill(folder: Path, **options: Any) -> Build:
    """load_dataset(FOLDER, "train", batch_size=64, dtype="uint8", seed=1)."""
    return prepare_dataset(str(folder), "train", **{**ASKED, **options})


def prepare_serializable(folder: Path, **options: Any) -> Build:
    """load_dataset(FOLDER, "train", batch_size=64, dtype="uint8", seed=1, serializable=True)."""
    return prepare_shardmill(folder, serializable=True, **options)


def prepare_fit(folder: Path, **options: Any) -> Build:
    """model.fit(load_dataset(FOLDER, "train", batch_size=64, dtype="uint8", seed=1))."""
    import_tensorflow()
    import keras

    from reader import load_dataset

    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.AveragePooling2D(32),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    numbers = itertools.count()

    def build() -> Epoch:
        asked = {**ASKED, **options}
        dataset = load_dataset(folder, "train", **asked)

        def epoch() -> Iterator[int]:
            number = next(numbers)
            model.fit(dataset, initial_epoch=number, epochs=number + 1, verbose=0)
            yield len(dataset) * BATCH

        return epoch

    return build


def prepare_arrays(folder: Path, **options: Any) -> Build:
    """open_shards(FOLDER).batches("train", batch_size=64, dtype="uint8", seed=1)."""
    return prepare_batches(str(folder), "train", **{**ASKED, **options})


def open_engine(folder: Path, decode: Callable[..., list[str | None]]) -> Any:
    """The engine with a decoder in the place of its own."""
    from reader import ReadOptions, open_shards
    from reader.batches.batch_reader import BatchReader
    from reader.plan.planning import plan_reading

    shards = open_shards(folder)
    options = ReadOptions(**ASKED)
    return BatchReader(plan_reading(shards.folder, shards.manifest, "train", options), decode)


def prepare_engine(folder: Path) -> Build:
    """The engine in one thread, with a decoder that costs nothing: what is left is Python's."""

    def build() -> Epoch:
        reader = open_engine(folder, lambda tasks: [None] * len(tasks))
        epochs = itertools.count()

        def epoch() -> Iterator[int]:
            number = next(epochs)
            for step in range(reader.plan.steps.count):
                yield len(reader.read(number, [step]).labels)

        return epoch

    return build


def prepare_waiting(folder: Path) -> Build:
    """The engine in eight threads, which wait as long as a JPEG takes instead of decoding it."""
    from reader.batches.threads import run_ahead

    def wait(tasks: Sequence[Any]) -> list[str | None]:
        for _ in tasks:
            time.sleep(DECODED_S)
        return [None] * len(tasks)

    def build() -> Epoch:
        reader = open_engine(folder, wait)
        steps = range(reader.plan.steps.count)
        return lambda: (
            len(batch.labels) for batch in run_ahead(lambda s: reader.read(0, [s]), steps, 8, 2)
        )

    return build


def prepare_sequence(folder: Path) -> Build:
    """open_shards(FOLDER).sequence("train", 64, dtype="uint8", seed=1), a thread a core."""
    import_tensorflow()
    from reader import open_shards
    from reader.batches.threads import run_ahead

    def build() -> Epoch:
        sequence = open_shards(folder).sequence("train", **ASKED)

        def epoch() -> Iterator[int]:
            for _, labels in run_ahead(sequence.__getitem__, range(len(sequence)), CORES, 2):
                yield len(labels)
            sequence.on_epoch_end()

        return epoch

    return build


def prepare_simplejpeg(folder: Path) -> Build:
    """Nothing but simplejpeg, into a batch of each of as many threads as cores, from memory."""
    import simplejpeg

    from reader import open_shards

    def build() -> Epoch:
        images = [record.encoded for record in open_shards(folder).source("train")]
        batches = [np.zeros((BATCH, *SIZE, 3), np.uint8) for _ in range(CORES)]

        def decode_share(first: int) -> int:
            share, batch = images[first::CORES], batches[first]
            for number, image in enumerate(share):
                simplejpeg.decode_jpeg(image, "RGB", buffer=batch[number % BATCH])
            return len(share)

        return make_threaded(decode_share)

    return build


def prepare_decode_mapped(folder: Path) -> Build:
    """Nothing but tf.io.decode_jpeg, in a parallel tf.data map over bytes held in memory."""
    return prepare_decoder(str(folder), "train")


def prepare_decode_eager(folder: Path) -> Build:
    """Nothing but tf.io.decode_jpeg, called by one Python thread a core on bytes held in memory."""
    tf = import_tensorflow()
    from reader import open_shards

    def build() -> Epoch:
        images = [tf.constant(record.encoded) for record in open_shards(folder).source("train")]

        def decode_share(first: int) -> int:
            share = images[first::CORES]
            for image in share:
                decode_accurately(image)
            return len(share)

        return make_threaded(decode_share)

    return build


def make_threaded(decode_share: Callable[[int], int]) -> Epoch:
    """An epoch of a thread for each core, each of which decodes and counts its share."""

    def epoch() -> Iterator[int]:
        with ThreadPoolExecutor(CORES) as pool:
            yield sum(pool.map(decode_share, range(CORES)))

    return epoch


def decode_accurately(encoded: Any) -> Any:
    import tensorflow as tf

    return tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE")


def prepare_dali(folder: Path) -> Build:
    """DALI on the CPU: readers.tfrecord, random_shuffle, initial_fill=1024, decoders.image."""
    import nvidia.dali.tfrecord as tfrec
    from nvidia.dali import fn, pipeline_def, types

    shards = [str(path) for path in sorted(folder.glob("train-*.tfrecord"))]
    features = {
        "image/encoded": tfrec.FixedLenFeature((), tfrec.string, ""),
        "image/class/label": tfrec.FixedLenFeature([1], tfrec.int64, -1),
    }

    @pipeline_def(batch_size=BATCH, num_threads=CORES, device_id=None)
    def define() -> Any:
        read = fn.readers.tfrecord(
            path=shards,
            index_path=[shard.replace(".tfrecord", ".tfindex") for shard in shards],
            features=features,
            random_shuffle=True,
            initial_fill=1024,
            name="reader",
        )
        images = fn.decoders.image(read["image/encoded"], device="cpu", output_type=types.RGB)
        return images, read["image/class/label"]

    def build() -> Epoch:
        pipeline = define()
        pipeline.build()
        steps = pipeline.epoch_size("reader") // BATCH

        def epoch() -> Iterator[int]:
            for _ in range(steps):
                images, _labels = pipeline.run()
                yield len(images)

        return epoch

    return build


def prepare_keras(folder: Path) -> Build:
    """image_dataset_from_directory(FOLDER, image_size=(256, 256), batch_size=64), float32."""
    import_tensorflow()
    import keras

    return lambda: count_batches(
        keras.utils.image_dataset_from_directory(
            folder, image_size=SIZE, batch_size=BATCH, seed=1, verbose=False
        )
    )


def prepare_cached(folder: Path) -> Build:
    """image_dataset_from_directory(FOLDER, image_size=(256, 256), batch_size=64).cache()."""
    import_tensorflow()
    import keras

    return lambda: count_batches(
        keras.utils.image_dataset_from_directory(
            folder, image_size=SIZE, batch_size=BATCH, seed=1, verbose=False
        ).cache()
    )


def prepare_tutorial(folder: Path, dtype: str) -> Build:
    tf = import_tensorflow()

    def parse(record: Any) -> tuple[Any, Any]:
        features = {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        }
        parsed = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(parsed["image/encoded"], 3)
        image.set_shape((*SIZE, 3))
        return tf.cast(image, dtype), parsed["image/class/label"]

    def build() -> Epoch:
        files = sorted(tf.io.gfile.glob(f"{folder}/train-*.tfrecord"))
        dataset = tf.data.TFRecordDataset(files).map(parse, tf.data.AUTOTUNE)
        return count_batches(dataset.shuffle(1000).batch(BATCH).prefetch(tf.data.AUTOTUNE))

    return build


def prepare_tutorial_float32(folder: Path) -> Build:
    """TFRecordDataset, parallel map of parse and cast, shuffle(1000), batch, prefetch."""
    return prepare_tutorial(folder, "float32")


def prepare_tutorial_uint8(folder: Path) -> Build:
    """TFRecordDataset, parallel map of parse, shuffle(1000), batch, prefetch; left as uint8."""
    return prepare_tutorial(folder, "uint8")


def prepare_grain(folder: Path) -> Build:
    """Grain: MapDataset over open_shards(FOLDER).source("train"), Pillow in a thread a core."""
    import grain
    from PIL import Image

    from reader import Record, open_shards

    def decode(record: Record) -> tuple[Any, int]:
        return np.asarray(Image.open(io.BytesIO(record.encoded))), record.label

    def build() -> Epoch:
        source = open_shards(folder).source("train")
        dataset = grain.MapDataset.source(source).shuffle(seed=1).map(decode).batch(BATCH)
        # Its default buffer of 500 elements would be 500 batches.
        threads = grain.ReadOptions(num_threads=CORES, prefetch_buffer_size=2 * CORES)
        batches = iter(dataset.repeat().to_iter_dataset(threads))
        steps = len(dataset)
        return lambda: (len(labels) for _, labels in itertools.islice(batches, steps))

    return build


PEERS: dict[str, Callable[..., Build]] = {
    "shardmill": prepare_shardmill,
    "serializable": prepare_serializable,
    "fit": prepare_fit,
    "batches": prepare_arrays,
    "engine": prepare_engine,
    "waiting": prepare_waiting,
    "sequence": prepare_sequence,
    "simplejpeg": prepare_simplejpeg,
    "decode-mapped": prepare_decode_mapped,
    "decode-eager": prepare_decode_eager,
    "dali": prepare_dali,
    "keras": prepare_keras,
    "cached": prepare_cached,
    "tutorial-float32": prepare_tutorial_float32,
    "tutorial-uint8": prepare_tutorial_uint8,
    "grain": prepare_grain,
}

if __name__ == "__main__":
    main()
