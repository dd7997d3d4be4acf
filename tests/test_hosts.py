"""Two hosts that train one model: `tf.distribute.MultiWorkerMirroredStrategy` in two processes.

The loop is written out, because `model.fit` of Keras 3 (3.15 here) cannot be used on several hosts:
before its first step it looks at a batch to build the model, and fails with "Attempt to convert a
value (PerReplica…) with an unsupported type", whether its data is distributed or not; see
https://github.com/keras-team/keras/issues/20585. Keras' layers, losses and optimizers can.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, write_image
from servers import find_port

from converter import ConvertOptions
from reader import load_dataset, open_shards

RECORDS = 45
HOSTS = 2
CASES = [
    {"num_shards": 1, "remainder": "keep"},
    {"num_shards": 5, "remainder": "pad"},
    {"num_shards": 1, "remainder": "drop", "shuffle": "buffer"},
]
"""Fewer files than hosts, and more; a step has 2 * 8 records, so the last one has 13."""

TRAINING = """
import json, sys
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before all other operations
import keras
from reader import load_dataset

def train(folder, arguments, host):
    keras.utils.set_random_seed(host)  # other weights on each, until the strategy makes them equal
    with strategy.scope():
        model = keras.Sequential([
            keras.Input((8, 10, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
            keras.layers.Dense(2),
        ])
        optimizer = keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    data = strategy.distribute_datasets_from_function(
        lambda context: load_dataset(
            folder, batch_size=8, seed=7, with_filename=True, input_context=context, **arguments
        )
    )

    def step(images, labels, *others):
        with tf.GradientTape() as tape:
            losses = loss(labels, model(images, training=True))
            if len(others) == 2:
                losses *= others[0]
            mean = tf.reduce_sum(losses) / 16
        gradients = tape.gradient(mean, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return mean

    run = tf.function(lambda batch: strategy.reduce("SUM", strategy.run(step, batch), axis=None))
    seen, means = [], []
    for _ in range(2):
        seen.append([])
        for batch in data:
            means.append(float(run(batch)))
            (names,) = strategy.experimental_local_results(batch[-1])
            seen[-1].append([name.decode() for name in names.numpy() if name])
    weights = [weight.tolist() for weight in model.get_weights()]
    return {"seen": seen, "means": means, "weights": weights}

host = strategy.cluster_resolver.task_id
print(json.dumps([train(*case, host) for case in json.loads(sys.argv[1])]))
"""


def run_hosts(cases: list[tuple[str, dict[str, str]]]) -> list[list[dict]]:
    """Trains on all hosts at once; what each of them has seen and learned, by case."""
    workers = [f"127.0.0.1:{find_port()}" for _ in range(HOSTS)]
    processes = []
    for index in range(HOSTS):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        settings = {"TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", TRAINING, json.dumps(cases)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
                env=os.environ | settings,
            )
        )
    try:
        outputs = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """45 images in 2 classes, by number of shards."""
    root = tmp_path_factory.mktemp("hosts")
    for seed in range(RECORDS):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    for count in (1, 5):
        options = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=count)
        convert_folder(root / "images", root / str(count), options)
    return {count: root / str(count) for count in (1, 5)}


@pytest.fixture(scope="module")
def trained(folders):
    """What both hosts have seen and learned, by case."""
    cases = [dict(case) for case in CASES]
    return run_hosts([(str(folders[case.pop("num_shards")]), case) for case in cases])


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: str(CASES[case]))
def test_both_hosts_take_equal_steps_and_see_each_record_once_an_epoch(folders, trained, case):
    drops = CASES[case]["remainder"] == "drop"
    steps = RECORDS // 16 if drops else -(-RECORDS // 16)
    paths = sorted(open_shards(folders[1]).source("train").file_paths)
    for epoch in range(2):
        seen = [host[case]["seen"][epoch] for host in trained]
        assert [len(batches) for batches in seen] == [steps, steps]
        names = [name for batches in seen for batch in batches for name in batch]
        assert len(names) == len(set(names)) == (steps * 16 if drops else RECORDS)
        assert set(names) <= set(paths)
    for host in trained:
        assert host[case]["seen"][0] != host[case]["seen"][1]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: str(CASES[case]))
def test_both_hosts_learn_the_same(trained, case):
    first, second = (host[case] for host in trained)
    assert first["weights"] == second["weights"]
    assert first["means"] == second["means"]
    assert np.isfinite(first["means"]).all()
    assert first["means"][-1] != first["means"][0]


@pytest.mark.parametrize("case", [0, 1])
def test_one_host_goes_on_where_two_were_stopped(folders, trained, case):
    arguments = dict(CASES[case])
    folder = folders[arguments.pop("num_shards")]
    for epoch, step in ((0, 0), (0, 2), (1, 1)):
        alone = load_dataset(
            folder, batch_size=16, seed=7, with_filename=True, initial_epoch=epoch,
            initial_step=step, **arguments,
        )  # fmt: skip
        seen = [{name.decode() for name in batch[-1].numpy() if name} for batch in alone]
        both = zip(*(host[case]["seen"][epoch][step:] for host in trained), strict=True)
        assert seen == [{*one, *other} for one, other in both]
