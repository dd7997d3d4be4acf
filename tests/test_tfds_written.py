"""TFRecords that TensorFlow Datasets wrote: indexed, and then read at random, shuffled, resumed."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import make_image

from converter import DatasetError, UsageError
from reader import open_tfrecords

tfds = pytest.importorskip("tensorflow_datasets", reason="there is none for Python 3.10")

# TFDS itself calls what protobuf has deprecated, and leaves a file to be closed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

COUNTS = {"train": 50, "test": 7}
SHARDS = 3
READING = {"batch_size": 6, "shuffle": True, "seed": 5}
ORDERS = [False, "exact", "buffer"]
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "name": tf.io.FixedLenFeature([], tf.string),
    "box": tf.io.FixedLenFeature([2], tf.float32),
    "tags": tf.io.RaggedFeature(tf.int64),
}


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Small pictures with features of several kinds, as anybody's builder makes them."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent  # TFDS expects a builder to be in a package

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(24, 32, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["ant", "bee"]),
            "name": tfds.features.Text(),
            "box": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "tags": tfds.features.Sequence(np.int64),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        del manager
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for number in range(COUNTS[split]):
            name = f"{split}-{number}"
            yield (
                name,
                {
                    "image": np.asarray(make_image(number + len(split))),
                    "label": number % 2,
                    "name": name,
                    "box": (number / 7, -number),
                    "tags": [*range(number % 4)],
                },
            )


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """The builder, once it has written 3 files a split and `shardmill index` has seen them."""
    built = Pictures(data_dir=tmp_path_factory.mktemp("tfds"))
    built.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=SHARDS, try_download_gcs=False)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "index", f"{built.data_path}/*.tfrecord*"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.startswith(f"indexed {sum(COUNTS.values())} records in {2 * SHARDS} files, ")
    return built


@pytest.fixture
def pictures(builder):
    """The training split of it."""
    return open_tfrecords(f"{builder.data_path}/pictures-train.tfrecord-*", FEATURES)


@pytest.fixture
def small_windows(monkeypatch):
    """Lets `buffer` have several windows in a few records."""
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 8)


def list_theirs(builder: tfds.core.DatasetBuilder, split: str = "train") -> list[dict[str, object]]:
    """What TFDS itself reads, in the order in which it is stored."""
    dataset = builder.as_dataset(split, shuffle_files=False)
    return [
        {name: np.asarray(value).tolist() for name, value in example.items()}
        for example in dataset.as_numpy_iterator()
    ]


def list_ours(dataset: tf.data.Dataset) -> list[list[dict[str, object]]]:
    """The same of each batch of ours."""
    batches = []
    for batch in dataset:
        columns = {name: [*value] for name, value in batch.items()}
        columns["image"] = [tf.io.decode_png(image) for image in columns["image"]]
        rows = zip(*columns.values(), strict=True)
        batches.append(
            [dict(zip(columns, [np.asarray(value).tolist() for value in row], strict=True))
             for row in rows]
        )  # fmt: skip
    return batches


def list_names(dataset: tf.data.Dataset) -> list[list[bytes]]:
    return [np.ravel(batch["name"]).tolist() for batch in dataset]


def test_the_files_are_named_as_tfds_names_them(builder):
    names = sorted(path.name for path in builder.data_path.glob("*.tfrecord*"))
    files = [name for name in names if not name.endswith(".tfindex")]
    assert files == [
        f"pictures-{split}.tfrecord-{number:05d}-of-00003"
        for split in ("test", "train")
        for number in range(SHARDS)
    ]
    assert len(names) == 2 * len(files)


@pytest.mark.parametrize("split", COUNTS)
def test_every_feature_of_every_record_is_what_tfds_reads(builder, split):
    records = open_tfrecords(f"{builder.data_path}/pictures-{split}.tfrecord-*", FEATURES)
    assert len(records) == COUNTS[split]
    (whole,) = list_ours(records.dataset(batch_size=COUNTS[split]))
    # What TFDS reads of several files is interleaved.
    theirs = sorted(list_theirs(builder, split), key=lambda example: example["name"])
    assert sorted(whole, key=lambda example: example["name"]) == theirs
    shards = [builder.as_dataset(f"{split}[{n}shard]") for n in range(SHARDS)]
    names = [example["name"] for shard in shards for example in shard.as_numpy_iterator()]
    assert [example["name"] for example in whole] == names


def test_tfds_still_reads_what_has_indexes_beside_it(builder):
    again = tfds.builder_from_directory(builder.data_path)
    assert len(list(again.as_dataset("train"))) == COUNTS["train"]


def test_any_record_is_read_by_its_number(builder, pictures):
    by_name = {example["name"]: example for example in list_theirs(builder)}
    source = pictures.source()
    assert len(source) == COUNTS["train"]
    for number in (0, 17, 49, -1):
        record = source[number]
        expected = by_name[record["name"][0]]
        assert record["label"] == [expected["label"]]
        assert record["box"] == expected["box"]
        assert record.get("tags", []) == expected["tags"]
        image = tf.io.decode_png(record["image"][0]).numpy()
        assert image.tolist() == expected["image"]
    assert [r["name"] for r in source[[40, 3]]] == [source[40]["name"], source[3]["name"]]


@pytest.mark.parametrize("batch_size", [6, None])
@pytest.mark.parametrize("shuffle", ["exact", "buffer"])
def test_an_epoch_holds_every_record_once_in_a_new_order(
    pictures, small_windows, shuffle, batch_size
):
    dataset = pictures.dataset(shuffle=shuffle, seed=5, batch_size=batch_size)
    assert len(dataset) == (9 if batch_size else 50)
    epochs = [[name for names in list_names(dataset) for name in names] for _ in range(2)]
    expected = sorted(b"train-%d" % number for number in range(50))
    assert [sorted(epoch) for epoch in epochs] == [expected] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("batch_size", [6, None])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_an_epoch_goes_on_at_every_step(pictures, small_windows, shuffle, batch_size):
    arguments = READING | {"shuffle": shuffle, "batch_size": batch_size}
    dataset = pictures.dataset(**arguments)
    epochs = [list_names(dataset) for _ in range(3)]
    for step in range(len(dataset) + 1):
        dataset.position.seek(1, step)
        assert list_names(dataset) == epochs[1][step:]
    assert list_names(dataset) == epochs[2]
    resumed = pictures.dataset(**arguments, initial_epoch=1, initial_step=4)
    assert list_names(resumed) == epochs[1][4:]
    assert list_names(resumed) == epochs[2]
    with pytest.raises(UsageError, match=f"^initial_step 99 .* {len(dataset)} steps$"):
        pictures.dataset(**arguments, initial_step=99)


@pytest.mark.parametrize("hosts", [2, 5])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_hosts_that_outnumber_the_files_share_every_epoch(pictures, shuffle, hosts):
    arguments = READING | {"shuffle": shuffle, "batch_size": 10 // hosts}
    shares = [
        pictures.dataset(**arguments, shard_index=host, shard_count=hosts) for host in range(hosts)
    ]
    alone = pictures.dataset(**arguments | {"batch_size": 10})
    for _ in range(2):
        seen = [list_names(share) for share in shares]
        assert {len(batches) for batches in seen} == {5}
        names = [name for batches in seen for batch in batches for name in batch]
        assert len(names) == len(set(names)) == 50
        together = [[*itertools.chain(*step)] for step in zip(*seen, strict=True)]
        # Hosts that read long runs take a range each.
        assert (together == list_names(alone)) == (shuffle != "buffer")


def test_a_file_that_was_not_indexed_says_so(builder, tmp_path):
    original = next(builder.data_path.glob("pictures-test.tfrecord-00000*"))
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    with pytest.raises(DatasetError, match=r"is missing: .* `shardmill index "):
        open_tfrecords(path)
