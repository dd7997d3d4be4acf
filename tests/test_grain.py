"""A source as one of Grain's: its `RandomAccessDataSource`, as it is."""

import collections
import itertools
import pickle

import numpy as np
import pytest
from absl import flags
from conftest import convert_folder, make_image, write_image

from converter import ConvertOptions
from reader import Record, open_shards
from reader.source import Source

grain = pytest.importorskip("grain", reason="Grain is not installed: there is none for Python 3.10")

RECORDS = 26

# Grain starts its workers while TensorFlow's and its own threads run.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(scope="module", autouse=True)
def parsed_flags():
    """Grain looks at a flag before it starts a worker, if there is JAX."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """26 images as raw pixels, in 3 shards."""
    root = tmp_path_factory.mktemp("grain")
    for number in range(RECORDS):
        write_image(root / "images" / "ab"[number % 2] / f"{number}.png", number)
    options = ConvertOptions(image_size=(24, 32), encoding="raw", num_shards=3)
    convert_folder(root / "images", root / "set", options)
    return root / "set"


@pytest.fixture
def source(stored):
    return open_shards(stored).source("train")


def decode(record: Record) -> dict[str, object]:
    pixels = np.frombuffer(record.encoded, np.uint8).reshape(record.height, record.width, 3)
    return {"image": pixels, "label": record.label, "path": record.source_id}


class Decode(grain.transforms.Map):
    """`decode`, for Grain's `DataLoader`."""

    def map(self, element: Record) -> dict[str, object]:
        return decode(element)


def list_paths(batches: object) -> list[str]:
    """The paths of an epoch, having checked that images and labels belong to them."""
    paths = []
    for batch in batches:
        for image, label, path in zip(batch["image"], batch["label"], batch["path"], strict=True):
            folder, name = str(path).split("/")
            assert label == "ab".index(folder)
            np.testing.assert_array_equal(image, make_image(int(name.removesuffix(".png"))))
            paths.append(str(path))
    return paths


def test_it_is_what_grain_asks_for(source):
    assert isinstance(source, grain.sources.RandomAccessDataSource)
    assert len(pickle.loads(pickle.dumps(source))) == RECORDS


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_reads_every_record_once_an_epoch(source, workers):
    sampler = grain.samplers.IndexSampler(RECORDS, shuffle=True, seed=5, num_epochs=2)
    loader = grain.DataLoader(
        data_source=source,
        sampler=sampler,
        operations=[Decode(), grain.transforms.Batch(4)],
        worker_count=workers,
    )
    paths = list_paths(loader)
    assert collections.Counter(paths) == dict.fromkeys(source.file_paths, 2)
    assert paths[:RECORDS] != list(source.file_paths)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pipeline_is_shuffled_and_batched_anew_in_every_epoch(source, workers):
    pipeline = grain.MapDataset.source(source).seed(5).shuffle().map(decode).repeat(2)
    batches = pipeline.to_iter_dataset(grain.ReadOptions(num_threads=4)).batch(4)
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    paths = list_paths(batches)
    assert collections.Counter(paths) == dict.fromkeys(source.file_paths, 2)
    assert list(source.file_paths) not in (paths[:RECORDS], paths[RECORDS:])
    assert paths[:RECORDS] != paths[RECORDS:]


def test_a_pipeline_has_random_access_itself(source):
    batches = grain.MapDataset.source(source).seed(5).shuffle().map(decode).batch(4)
    assert len(batches) == 7
    whole = list_paths(batches[number] for number in range(7))
    assert sorted(whole) == sorted(source.file_paths)
    assert list_paths([batches[6], batches[2]]) == whole[24:] + whole[8:12]


def test_hosts_divide_the_records(source):
    hosts = [grain.MapDataset.source(source)[host::3].map(decode).batch(2) for host in range(3)]
    assert sorted(itertools.chain(*map(list_paths, hosts))) == sorted(source.file_paths)


def test_a_batch_is_read_at_once(source, monkeypatch):
    read = []
    original = Source._getitems
    monkeypatch.setattr(
        Source, "_getitems", lambda *arguments: read.append(arguments[1]) or original(*arguments)
    )
    batches = grain.MapDataset.source(source).map(decode)
    assert [one["path"] for one in batches._getitems([7, 3, 28])] == [
        source[number].source_id for number in (7, 3, 2)
    ]
    assert read == [[7, 3, 2]]


def test_a_pipeline_goes_on_where_it_was(source):
    batches = grain.MapDataset.source(source).seed(5).shuffle().map(decode).to_iter_dataset()
    iterator = iter(batches.batch(4))
    before = [next(iterator) for _ in range(3)]
    state = iterator.get_state()
    rest = list_paths(iterator)
    other = iter(batches.batch(4))
    other.set_state(state)
    assert list_paths(other) == rest
    assert sorted(list_paths(before) + rest) == sorted(source.file_paths)
