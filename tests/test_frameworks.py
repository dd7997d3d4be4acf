"""The loops of docs/frameworks.md and its recipes, killed and resumed, where their library is."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, make_environment, write_image
from docs_blocks import ROOT, read_page
from servers import find_port

from converter.options import ConvertOptions
from reader import open_shards

STEPS = 9  # of an epoch of 36 images in batches of 4


def list_blocks(page: str) -> list[str]:
    """The blocks of Python of a page."""
    blocks, _ = read_page((ROOT / "docs" / page).read_text())
    return [block.text for block in blocks if block.language == "python"]


(SHORTEST,) = list_blocks("frameworks.md")
(NUMPY,) = list_blocks("recipes/numpy.md")
TORCH, TORCH_SEVERAL, LOADER = list_blocks("recipes/pytorch.md")
JAX, JAX_SEVERAL = list_blocks("recipes/jax.md")


@pytest.fixture
def folder(tmp_path, stored) -> Path:
    """A folder in which the data set lies that the page speaks of."""
    (tmp_path / "photos-256").symlink_to(stored)
    return tmp_path


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """36 images in 3 classes."""
    root = tmp_path_factory.mktemp("frameworks")
    for seed in range(4 * STEPS):
        write_image(root / "images" / "abc"[seed % 3] / f"{seed}.png", seed)
    convert_folder(root / "images", root / "set", ConvertOptions(image_size=(16, 20), num_shards=2))
    return root / "set"


def need(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def change(script: str) -> str:
    """The same with batches and distances between checkpoints that suit a few images."""
    for old, new in (("batch_size=64", "batch_size=4"), ("train.step % 100", "train.step % 4")):
        assert old in script
        script = script.replace(old, new)
    return script


def run_script(folder: Path, script: str, **variables: str) -> str:
    done = start_script(folder, script, **variables)
    printed, _ = done.communicate(timeout=200)
    assert done.returncode == 0, printed
    return printed


def start_script(folder: Path, script: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env=make_environment(CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_shortest_loop_shows_what_it_says(folder):
    lines = run_script(folder, SHORTEST).splitlines()
    assert lines == ["(36, 16, 20, 3) (36,)"]
    promised = "(64, 256, 256, 3), float32, 0 to 255, and (64,), int32"
    assert promised in SHORTEST
    images, labels = next(iter(open_shards(folder / "photos-256").batches(batch_size=36)))
    assert (images.dtype, labels.dtype, images.max()) == (np.float32, np.int32, 255)


KILL = """
import os
from reader.batches.iterator import Batches

def give(batches, read=Batches.__iter__):
    for element in read(batches):
        if (batches.epoch, batches.step) == (1, 7):
            os._exit(9)
        yield element

Batches.__iter__ = give
"""

LOOPS = [
    (NUMPY, "numpy", "weights"),
    (TORCH, "torch", "torch.cat([each.flatten() for each in model.parameters()]).detach()"),
    (JAX, "jax", "weights"),
]


@pytest.mark.parametrize(("block", "library", "weights"), LOOPS, ids=[each[1] for each in LOOPS])
def test_a_loop_that_is_killed_ends_with_the_same_weights(folder, block, library, weights):
    need(library)
    show = f"\nimport numpy as np\nprint(train.epoch, np.asarray({weights}).tobytes().hex())"
    script = change(block) + show
    whole = run_script(folder, script)
    assert whole.startswith("3 ")
    (checkpoint,) = folder.glob("checkpoint.*")
    checkpoint.unlink()
    killed = start_script(folder, KILL + script)
    assert killed.communicate(timeout=200)[0] == ""
    assert killed.returncode == 9
    assert checkpoint.exists()
    watched = "reads = []\nimport reader.batches.batch_reader as module\n" + WATCH + script
    resumed, reads = run_script(folder, watched + "\nprint(reads)").splitlines()
    assert f"{resumed}\n" == whole
    # It was killed before the step 7 of the epoch 1 had been saved, and goes on with step 4.
    assert "(1, 4)" in reads
    assert "(1, 3)" not in reads


WATCH = """
def note(reader, epoch, steps, read=module.BatchReader.read):
    reads.append((epoch, *steps))
    return read(reader, epoch, steps)

module.BatchReader.read = note
"""


def test_a_loop_learns_something(folder):
    script = change(NUMPY).replace("train.epoch < 3", "train.epoch < 60")
    script += "\nprint((errors < 0).sum(), -errors[errors < 0].mean())"
    printed = run_script(folder, script).split()
    assert int(printed[0]) == 4
    assert float(printed[1]) < 0.6  # a third each would be 0.67


def test_pytorch_takes_a_batch_without_a_copy(folder):
    need("torch")
    script = """if True:
        import warnings
        import torch
        from reader import open_shards

        warnings.simplefilter("error")  # of an array that is not writable
        train = open_shards("photos-256").batches("train", batch_size=4, seed=7, dtype="uint8")
        kept = []
        for images, _ in train:
            tensor = torch.from_numpy(images)
            assert tensor.data_ptr() == images.ctypes.data
            kept.append((tensor, tensor.clone()))
        del images
        assert all(torch.equal(tensor, copy) for tensor, copy in kept)
        moved = tensor.permute(0, 3, 1, 2)
        assert moved.is_contiguous(memory_format=torch.channels_last)
        print(moved.shape)
    """
    assert run_script(folder, script) == "torch.Size([4, 3, 16, 20])\n"


SHOW = """
names = [tuple(labels.tolist()) for _, labels in train]
print(len(train), train.plan.options.shard_index, train.plan.options.shard_count, names)
"""


def test_processes_of_pytorch_divide_an_epoch(folder):
    need("torch")
    script = TORCH_SEVERAL.replace("batch_size=64", "batch_size=4") + SHOW
    script += "torch.distributed.destroy_process_group()"
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port()), "WORLD_SIZE": "2"}
    ranks = [start_script(folder, script, RANK=str(rank), **address) for rank in range(2)]
    printed = [rank.communicate(timeout=200)[0].splitlines()[-1] for rank in ranks]
    assert [line.split(" [")[0] for line in printed] == ["4 0 2", "4 1 2"]
    assert printed[0] != printed[1]


def test_processes_of_jax_divide_an_epoch(folder):
    need("jax")
    printed = run_script(folder, JAX_SEVERAL.replace("batch_size=64", "batch_size=4") + SHOW)
    assert printed.startswith("9 0 1 [(")


def test_the_loader_of_pytorch_takes_a_source(folder):
    need("torch")
    script = LOADER.replace("batch_size=64", "batch_size=16").replace("workers=4", "workers=2")
    assert run_script(folder, script).splitlines() == [
        f"torch.Size([{count}, 16, 20, 3]) torch.Size([{count}])" for count in (16, 16, 4)
    ]
