"""`serializable=True`: the same values by TensorFlow alone; saved, served and resumed."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, make_environment, write_image

from converter import ConvertOptions, UsageError
from converter.storage.locate import locate
from reader import ReadOptions, load_dataset, open_shards
from reader.plan.memory import Demand, divide_serializable
from reader.plan.planning import LIMITS

COUNT = 26
SUPPORTED = {
    "batch_size", "label_mode", "class_names", "color_mode", "dtype", "data_format", "image_size",
    "interpolation", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "random_crop", "random_flip",
    "seed", "shard_index", "shard_count", "with_filename", "columns", "masks", "max_ram",
}  # fmt: skip
"""Options that mean what they mean without it."""

BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("reader", "converter", "pipelines"):
            raise ImportError(name)

sys.meta_path.insert(0, Block())
try:
    import reader
except ImportError:
    pass
else:
    raise SystemExit("the block does not hold")
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """26 images in 3 classes, in 3 shards of each encoding."""
    root = tmp_path_factory.mktemp("serializable")
    for seed in range(COUNT):
        write_image(root / "images" / "abc"[seed % 3] / f"{seed}.png", seed)
    for encoding in ("jpeg", "png", "webp", "raw"):
        options = ConvertOptions(image_size=(16, 20), encoding=encoding, num_shards=3)
        convert_folder(root / "images", root / encoding, options)
    return root


def list_elements(dataset: tf.data.Dataset) -> list[list[np.ndarray]]:
    return [
        [np.asarray(leaf) for leaf in tf.nest.flatten(element)]
        for element in dataset.as_numpy_iterator()
    ]


def list_names(dataset: tf.data.Dataset) -> list[bytes]:
    return [name for *_, names in dataset.as_numpy_iterator() for name in np.atleast_1d(names)]


def run_python(script: str, *arguments: object) -> str:
    """What a script prints in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=make_environment(TF_CPP_MIN_LOG_LEVEL="3"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    return run.stdout


@pytest.mark.parametrize("encoding", ["jpeg", "png", "webp", "raw"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_size": None, "with_filename": True},
        {"dtype": "uint8", "label_mode": "categorical", "remainder": "drop"},
        {"color_mode": "rgba", "data_format": "channels_first", "label_mode": None},
        {"color_mode": "grayscale", "class_names": ["c", "a"], "label_mode": "binary"},
        {"image_size": (9, 31), "crop_to_aspect_ratio": True},
        {"image_size": (31, 9), "interpolation": "bicubic", "dtype": "uint8"},
    ],
    ids=str,
)
def test_values_are_those_of_the_usual_way(stored, encoding, arguments):
    arguments = {"batch_size": 4, "shuffle": False} | arguments
    usual = load_dataset(stored / encoding, **arguments)
    plain = load_dataset(stored / encoding, serializable=True, **arguments)
    assert plain.element_spec == usual.element_spec
    assert (len(plain), plain.class_names) == (len(usual), usual.class_names)
    for one, other in zip(list_elements(plain), list_elements(usual), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs, strict=True)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_each_epoch_holds_each_record_once_in_an_order_of_its_own(stored, batch_size):
    arguments = {"batch_size": batch_size, "seed": 3, "with_filename": True, "serializable": True}
    dataset = load_dataset(stored / "png", **arguments)
    epochs = [list_names(dataset) for _ in range(3)]
    assert all(len(set(epoch)) == len(epoch) == COUNT for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = load_dataset(stored / "png", **arguments)
    assert [list_names(again) for _ in range(3)] == epochs


def test_random_changes_are_drawn_anew_in_each_epoch(stored):
    arguments = {"batch_size": 4, "shuffle": False, "seed": 3, "dtype": "uint8"}
    plain = list_elements(load_dataset(stored / "png", **arguments))
    changed = load_dataset(
        stored / "png", serializable=True, random_flip=True, random_crop=(0.5, 1.0), **arguments
    )
    epochs = [list_elements(changed) for _ in range(2)]
    images = [np.concatenate([element[0] for element in epoch]) for epoch in (plain, *epochs)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        same = (images[one] == images[other]).all((1, 2, 3))
        assert same.sum() < COUNT // 4


def test_every_option_works_or_is_refused_by_name(stored):
    names = {field.name for field in dataclasses.fields(ReadOptions)}
    assert SUPPORTED.isdisjoint(LIMITS)
    assert SUPPORTED | set(LIMITS) == names
    defaults = ReadOptions()
    assert all(getattr(defaults, name) in allowed for name, (allowed, _) in LIMITS.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": "exact"}, "shuffle 'exact' is not for serializable=True: take True"),
        ({"on_damage": "skip"}, "on_damage 'skip' is not for serializable=True: repair"),
        ({"initial_step": 1, "seed": 1}, "initial_step 1 is not for serializable=True: keep an"),
        ({"cache": True}, "cache True is not for serializable=True: convert with --encoding raw"),
        ({"labels": {"a": 1}}, "labels {'a': 1} is not for serializable=True: convert"),
        ({"remainder": "pad"}, "remainder 'pad' is not for serializable=True: take 'keep'"),
        ({"order": "path"}, "order 'path' is not for serializable=True: leave it out"),
        (
            {"validation_split": 0.2, "subset": "training", "seed": 1},
            "validation_split 0.2 is not for serializable=True: convert with --validation-split",
        ),
        ({"shard_count": 4, "seed": 1}, "shard_count 4 is more than the 3 shards of this split"),
        ({"max_ram": "20MB"}, "max_ram 20.0 MB is too small"),
    ],
)
def test_what_this_way_cannot_do_is_refused_with_a_way_out(stored, arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        load_dataset(stored / "png", serializable=True, **arguments)


def test_an_address_is_refused_before_it_is_asked(stored):
    shards = dataclasses.replace(open_shards(stored / "png"), folder=locate("s3://bucket/set"))
    with pytest.raises(UsageError, match=r"^s3://bucket/set is an address"):
        shards.dataset("train", serializable=True)


def test_hosts_take_whole_shards_and_equal_steps(stored):
    parts = [
        load_dataset(
            stored / "png", serializable=True, batch_size=4, seed=1, shard_index=host,
            shard_count=3, remainder="drop", with_filename=True,
        )
        for host in range(3)
    ]  # fmt: skip
    assert len({len(part) for part in parts}) == 1
    names = [list_names(part) for part in parts]
    assert len({name for part in names for name in part}) == sum(map(len, names))
    assert parts[0].element_spec[0].shape == (4, 16, 20, 3)


def test_no_operation_calls_python(stored):
    dataset = load_dataset(stored / "png", serializable=True, random_flip=True, seed=1)
    graph = dataset._as_serialized_graph().numpy()
    assert b"PyFunc" not in graph
    assert b"GeneratorDataset" not in graph


def test_a_data_set_can_be_saved(stored, tmp_path):
    dataset = load_dataset(stored / "jpeg", serializable=True, batch_size=4, shuffle=False)
    dataset.save(str(tmp_path / "saved"))
    loaded = tf.data.Dataset.load(str(tmp_path / "saved"))
    for one, other in zip(list_elements(loaded), list_elements(dataset), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


RESUME = """
import sys
import tensorflow as tf
from reader import load_dataset
folder, checkpoint, begun = sys.argv[1:]
dataset = load_dataset(
    folder, serializable=True, batch_size=4, seed=5, random_flip=True, with_filename=True
)
iterator = iter(dataset)
kept = tf.train.Checkpoint(iterator=iterator)
if begun == "begin":
    for _ in range(3):
        next(iterator)
    kept.write(checkpoint)
else:
    kept.read(checkpoint).assert_consumed()
for images, labels, names in iterator:
    print(tf.reduce_sum(images).numpy(), labels.numpy().tolist(), names.numpy().tolist())
"""


def test_a_checkpoint_goes_on_in_mid_epoch_in_another_process(stored, tmp_path):
    arguments = (stored / "png", tmp_path / "checkpoint")
    expected = run_python(RESUME, *arguments, "begin")
    assert len(expected.splitlines()) == 4
    assert run_python(RESUME, *arguments, "resume") == expected


WORKER = f"""{BLOCKED}
import sys
import tensorflow as tf
config = tf.data.experimental.service.WorkerConfig(dispatcher_address=sys.argv[1])
worker = tf.data.experimental.service.WorkerServer(config)
print("ready", flush=True)
worker.join()
"""

DISPATCHER = f"""{BLOCKED}
import tensorflow as tf
dispatcher = tf.data.experimental.service.DispatchServer()
print(dispatcher.target.partition("://")[2], flush=True)
dispatcher.join()
"""


@pytest.fixture
def service():
    """The address of a tf.data service whose processes cannot import anything of ours."""
    processes = []

    def start(script: str, *arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=make_environment(TF_CPP_MIN_LOG_LEVEL="3"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process.stdout.readline().strip()

    address = start(DISPATCHER)
    assert [start(WORKER, address) for _ in range(2)] == ["ready", "ready"]
    yield f"grpc://{address}"
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_service_of_other_processes_reads_each_record_once(stored, service):
    dataset = load_dataset(
        stored / "jpeg", serializable=True, batch_size=2, seed=1, with_filename=True
    )
    served = dataset.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, service
        )
    )
    names = list_names(served)
    assert sorted(names) == sorted(list_names(dataset))
    assert len(names) == COUNT


def test_a_flipped_bit_ends_the_reading(stored, tmp_path):
    folder = shutil.copytree(stored / "png", tmp_path / "set")
    shard = min(folder.glob("*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(tf.errors.DataLossError):
        list_elements(load_dataset(folder, serializable=True, batch_size=4))


def test_a_shard_that_ends_between_two_records_is_noticed(stored, tmp_path):
    folder = shutil.copytree(stored / "png", tmp_path / "set")
    dataset = load_dataset(folder, serializable=True, batch_size=4)
    shard = min(folder.glob("*.tfrecord"))
    offset = int(shard.with_suffix(".tfindex").read_text().splitlines()[-1].split()[0])
    os.truncate(shard, offset)
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain"):
        list_elements(dataset)


def test_a_header_that_claims_too_much_is_refused_before_it_is_decoded(stored):
    shards = open_shards(stored / "png")
    image = dataclasses.replace(
        shards.manifest.image, height=None, width=None, max_height=15, max_width=20
    )
    narrow = dataclasses.replace(shards, manifest=dataclasses.replace(shards.manifest, image=image))
    dataset = narrow.dataset("train", ReadOptions(batch_size=None), serializable=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"expected up to"):
        list_elements(dataset)


@pytest.mark.parametrize(
    ("max_ram_bytes", "calls", "prefetch_batches", "window"),
    [(86_000_000, 2, 1, 128), (122_000_000, 16, 2, 1_024), (512_000_000, 64, 2, 5_000)],
)
def test_memory_decides_on_the_window_before_the_threads(
    max_ram_bytes, calls, prefetch_batches, window
):
    demand = Demand(
        records=5_000, shard_records=313, record_bytes=10_000, mean_record_bytes=8_000,
        batch_size=16, image_bytes=196_608, decoded_bytes=200_000, shuffle="buffer",
    )  # fmt: skip
    buffers = divide_serializable(max_ram_bytes, demand)
    assert buffers.bytes <= max_ram_bytes
    assert (buffers.calls, buffers.prefetch_batches) == (calls, prefetch_batches)
    assert buffers.window >= window or buffers.window == demand.records
