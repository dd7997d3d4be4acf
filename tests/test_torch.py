"""A source as a map-style data set of PyTorch's `DataLoader`: TensorFlow is not needed for it.

PyTorch is 2 GB and not among what is installed for the tests: these run where somebody has it, with
or without TensorFlow and Beam.
"""

import collections
import io
import subprocess
import sys

import numpy as np
import pytest
from conftest import convert_folder
from PIL import Image

from converter.options import ConvertOptions
from reader import Record, open_shards

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.utils.data import BatchSampler, DataLoader, RandomSampler  # noqa: E402

RECORDS = 26
LOADERS = [
    {"num_workers": 0},
    {"num_workers": 2, "multiprocessing_context": "fork"},
    {"num_workers": 2, "multiprocessing_context": "spawn"},
    {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True},
]

# A spawned worker of a process that has threads, such as those of PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """26 images, each of one brightness of its own, in 3 shards."""
    root = tmp_path_factory.mktemp("torch")
    for number in range(RECORDS):
        path = root / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8), (number * 9,) * 3).save(path)
    options = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=3)
    convert_folder(root / "images", root / "set", options)
    return root / "set"


@pytest.fixture
def source(stored):
    return open_shards(stored).source("train")


def decode(records: list[Record]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """A batch of images, channels first, of labels and of paths."""
    images = [np.array(Image.open(io.BytesIO(record.encoded))) for record in records]
    labels = torch.tensor([record.label for record in records])
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return batch, labels, [record.source_id for record in records]


def check(images: torch.Tensor, labels: torch.Tensor, paths: list[str]) -> None:
    """That a batch holds the images of those paths, with their labels."""
    assert images.shape == (len(paths), 3, 8, 10)
    for image, label, path in zip(images, labels, paths, strict=True):
        folder, name = path.split("/")
        assert (image == int(name.removesuffix(".png")) * 9).all()
        assert label == "ab".index(folder)


@pytest.mark.parametrize("loading", LOADERS, ids=str)
def test_every_record_comes_once_an_epoch_and_shuffled(source, loading):
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(
        source, batch_size=4, shuffle=True, generator=generator, collate_fn=decode, **loading
    )
    assert len(loader) == 7
    orders = []
    for _ in range(2):
        batches = list(loader)
        for batch in batches:
            check(*batch)
        orders.append([path for *_, paths in batches for path in paths])
        assert sorted(orders[-1]) == sorted(source.file_paths)
    assert orders[0] != orders[1] != list(source.file_paths)


@pytest.mark.parametrize("loading", LOADERS[:3], ids=str)
def test_a_sampler_decides_on_the_batches(source, loading):
    batches = BatchSampler(range(20, 3, -1), 5, drop_last=True)
    loader = DataLoader(source, batch_sampler=batches, collate_fn=decode, **loading)
    found = [paths for *_, paths in loader]
    paths = list(source.file_paths)
    assert found == [paths[end : end - 5 : -1] for end in (20, 15, 10)]


def test_single_records_come_without_batches(source):
    loader = DataLoader(source, batch_size=None, collate_fn=lambda record: record.source_id)
    assert list(loader) == list(source.file_paths)
    # And with whole batches as indices: a list of numbers is an index too.
    sampler = BatchSampler(RandomSampler(source), 6, drop_last=False)
    loader = DataLoader(source, batch_size=None, sampler=sampler, collate_fn=decode)
    assert sorted(path for *_, paths in loader for path in paths) == sorted(source.file_paths)


def test_a_batch_is_read_at_once(source, monkeypatch):
    read = []
    original = type(source._files).read_many

    def spy(files, numbers):
        read.append(numbers.tolist())
        return original(files, numbers)

    monkeypatch.setattr(type(source._files), "read_many", spy)
    list(DataLoader(source, batch_size=4, collate_fn=decode))
    assert read == [list(range(begin, min(begin + 4, RECORDS))) for begin in range(0, RECORDS, 4)]


def test_subsets_and_other_data_sets_of_pytorch_take_it(source):
    first, second = torch.utils.data.random_split(source, [20, 6])
    joined = torch.utils.data.ConcatDataset([first, second])
    loader = DataLoader(joined, batch_size=8, collate_fn=decode, num_workers=2)
    paths = collections.Counter(path for *_, names in loader for path in names)
    assert paths == collections.Counter(source.file_paths)


def test_a_model_is_trained(source):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 10, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(source, batch_size=8, shuffle=True, collate_fn=decode, num_workers=2)
    for _ in range(2):
        for images, labels, _ in loader:
            loss = torch.nn.functional.cross_entropy(model(images / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert torch.isfinite(loss)


def test_a_damaged_record_is_the_error_of_a_worker(source, stored):
    shard = min(stored.glob("*.tfrecord"))
    data = bytearray(shard.read_bytes())
    try:
        shard.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        with pytest.raises(Exception, match=f"{shard.name}: damaged record at byte 0"):
            list(DataLoader(source, batch_size=4, collate_fn=decode, num_workers=2))
    finally:
        shard.write_bytes(data)


def test_tensorflow_is_not_loaded(stored):
    script = """if True:
        import sys, torch
        from reader import open_shards
        loader = torch.utils.data.DataLoader(
            open_shards(sys.argv[1]).source("train"), batch_size=4, collate_fn=len
        )
        print(sum(loader), {"tensorflow", "keras", "apache_beam"} & set(sys.modules))
    """
    run = subprocess.run(
        [sys.executable, "-c", script, stored], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{RECORDS} set()\n"
