"""The ways to read that are compared; each runs in a process of its own, which prints JSON.

python -m reader.bench.contenders '{"name": "batches", "folder": "photos-256", …}'
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from converter.errors import ShardmillError
from reader.batches.input_clock import count_images
from reader.bench.bare_reads import prepare_disk, prepare_store
from reader.bench.meter import Build, Epoch, measure_reading
from reader.plan.memory import count_cores
from reader.plan.planning import plan_reading
from reader.plan.read_options import ReadOptions
from reader.records.damage import typed_errors
from reader.shardset import ShardSet, load_dataset, open_shards

if TYPE_CHECKING:
    from reader.source import Source

SAMPLE_RECORDS: Final = 8_192  # that a bare decoder holds in memory; fewer if they are large
SAMPLE_BYTES: Final = 64_000_000
SAMPLE_S: Final = 3.0
SAMPLE_STEP: Final = 64

Options = dict[str, Any]


def import_tensorflow() -> Any:
    """TensorFlow, with the threads that its first pipeline brings: what any user of it pays."""
    import tensorflow as tf  # noqa: PLC0415 (half a gigabyte that batches() does without)

    next(iter(tf.data.Dataset.range(1).map(lambda x: x).batch(1)))
    return tf


def prepare_dataset(folder: str, split: str, **options: Any) -> Build:
    """`load_dataset`: a tf.data.Dataset."""
    import_tensorflow()
    return lambda: count_batches(load_dataset(folder, split, **options))


def prepare_batches(folder: str, split: str, **options: Any) -> Build:
    """`open_shards(…).batches`: NumPy arrays, without TensorFlow."""
    shards = open_shards(folder)
    return lambda: count_batches(shards.batches(split, **options))


def count_batches(batches: Iterable[Any]) -> Epoch:
    """Counts the images of each batch."""
    return lambda: map(count_images, batches)


def prepare_decoder(folder: str, split: str, **_: Any) -> Build:
    """Nothing but TensorFlow's decoder, in a parallel map over stored bytes held in memory."""
    tf = import_tensorflow()
    from reader.tfdata.decoding import decode_pixels  # noqa: PLC0415 (TensorFlow)

    shards = open_shards(folder)
    options = ReadOptions(batch_size=None, dtype="uint8", masks=False)
    plan = plan_reading(shards.folder, shards.manifest, split, options)
    cores, images = count_cores(), read_sample(shards.source(split))

    def build() -> Epoch:
        dataset = tf.data.Dataset.from_tensors(tf.constant(images)).unbatch()
        # Dropped as it comes: all but the last image are skipped, but decoded.
        dataset = dataset.map(
            lambda encoded: decode_pixels(encoded, None, None, plan.images),
            4 * cores,
            deterministic=True,
        ).skip(len(images) - 1)
        settings = tf.data.Options()
        settings.autotune.enabled = False
        settings.experimental_optimization.inject_prefetch = False
        settings.threading.private_threadpool_size = cores
        dataset = dataset.with_options(settings)
        return lambda: (len(images) for _ in dataset)

    return build


def read_sample(source: Source) -> list[bytes]:
    """Encoded images from all over a split, as many as fit."""
    images: list[bytes] = []
    places = np.random.default_rng(0).permutation(len(source))[:SAMPLE_RECORDS]
    end, size = time.monotonic() + SAMPLE_S, 0
    for begin in range(0, len(places), SAMPLE_STEP):
        found = [record.encoded for record in source[places[begin : begin + SAMPLE_STEP]]]
        images += found
        size += sum(map(len, found))
        if size > SAMPLE_BYTES or time.monotonic() > end:
            break
    return images


def prepare_bytes(folder: str, split: str, **_: Any) -> Build:
    """The bytes of the records, and nothing done with them."""
    shards: ShardSet = open_shards(folder)
    prepare = prepare_store if shards.folder.is_remote else prepare_disk
    return prepare(shards.folder, shards.manifest, split)


CONTENDERS: Final[dict[str, Callable[..., Build]]] = {
    "load_dataset": prepare_dataset,
    "load_dataset_uint8": prepare_dataset,
    "batches": prepare_batches,
    "decoder": prepare_decoder,
    "bytes": prepare_bytes,
}


def main() -> None:
    """Measures the contender that the only argument describes."""
    asked: Options = json.loads(sys.argv[1])
    prepare = CONTENDERS[asked.pop("name")]
    seconds = asked.pop("seconds")
    try:
        with typed_errors():
            print(json.dumps(measure_reading(prepare(**asked), seconds)))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
    except ShardmillError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError):
            print(json.dumps({"missing": missing.name}))
        else:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    main()
