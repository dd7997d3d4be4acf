"""Isolation: a decoder that crashes or hangs costs one image, and no other outcome changes."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import encode_image, make_image, write_folder, write_image

from converter.errors import ImageError
from converter.images import isolation
from converter.images.conversion import convert_image
from converter.images.isolation import convert_isolated
from converter.options import ConvertOptions
from converter.storage.files import Layout
from converter.writing.shard_writer import read_receipt, receipt_path

OPTIONS = ConvertOptions(image_size=(8, 8), encoding="png", isolate=True)

# The decoders that the children of these tests run have a weakness for certain images.
WEAK = """
import ctypes, os, re
from converter.images import isolation
from converter.images.conversion import convert_frames
def convert(data, sizes):
    if data.startswith(b"segfault"):
        ctypes.string_at(0)
    if data == b"hang":
        re.match("(a+)+$", "a" * 60 + "b")
    if data == b"exit":
        os._exit(7)
    if data == b"abort":
        os.abort()
    if data == b"out of memory":
        os.kill(os.getpid(), 9)
    if data == b"greedy":
        bytearray(1 << 32)
    if data.startswith(b"BM"):
        os.write(1, b"what a native decoder prints")
    return convert_frames(data, sizes)
isolation.main(convert)
"""


def isolate(data, options):
    """What becomes of a single image in a child process."""
    (frame,) = convert_isolated(data, [options])
    (image,) = frame.images
    if isinstance(image, ImageError):
        raise image
    return image


@pytest.fixture
def apart():
    """Calls a function in a thread that has no child yet."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


@pytest.fixture
def weak(apart, monkeypatch):
    """Calls a function in a thread whose child has a weak decoder."""
    monkeypatch.setattr(isolation, "COMMAND", (sys.executable, "-c", WEAK))
    return apart


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_isolated_image_is_the_same_image(weak, file_format):
    data = encode_image(make_image(1), file_format)
    assert weak(isolate, data, OPTIONS) == convert_image(data, OPTIONS)


def test_an_isolated_image_is_refused_for_the_same_reason(weak):
    for data in (b"", b"no image", encode_image(make_image(1), "PNG")[:100]):
        with pytest.raises(ImageError) as expected:
            convert_image(data, OPTIONS)
        with pytest.raises(ImageError) as found:
            weak(isolate, data, OPTIONS)
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"segfault", "decoder_crash: .*: signal SIGSEGV"),
        (b"segfault" * (1 << 20), "decoder_crash: .*: signal SIGSEGV"),
        (b"abort", "decoder_crash: .*: signal SIGABRT"),
        (b"exit", "decoder_crash: .*: exit code 7"),
        (b"greedy", "too_much_memory: decoding took more memory than "),
    ],
    ids=["segfault", "large", "abort", "exit", "greedy"],
)
def test_a_crash_costs_one_image(weak, data, reason):
    good = encode_image(make_image(1), "PNG")
    for _ in range(2):
        with pytest.raises(ImageError, match=f"^{reason}"):
            weak(isolate, data, OPTIONS)
        assert weak(isolate, good, OPTIONS) == convert_image(good, OPTIONS)


def test_a_decoder_that_hangs_is_ended_by_the_kernel(weak):
    options = ConvertOptions(image_size=(8, 8), encoding="png", isolate=True, max_seconds=1)
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"^timeout: .* 1 s of CPU"):
        weak(isolate, b"hang", options)
    assert time.monotonic() - start < 20
    assert weak(isolate, encode_image(make_image(1)), options).width == 8


def test_too_little_memory_is_not_the_fault_of_an_image(weak):
    with pytest.raises(MemoryError, match="killed from outside"):
        weak(isolate, b"out of memory", OPTIONS)


def test_other_options_get_another_child(weak):
    data = encode_image(make_image(1), "PNG")
    sizes = [
        weak(isolate, data, ConvertOptions(image_size=(side, side), isolate=True)).width
        for side in (8, 9, 8)
    ]
    assert sizes == [8, 9, 8]


def test_a_child_ends_with_its_thread(monkeypatch):
    children, start = [], subprocess.Popen

    def start_child(*arguments, **options):
        children.append(start(*arguments, **options))
        return children[0]

    monkeypatch.setattr(subprocess, "Popen", start_child)
    image = encode_image(make_image(1))
    thread = threading.Thread(target=isolate, args=(image, OPTIONS))
    thread.start()
    thread.join()
    assert children[0].wait(10) == 0


def test_a_shard_survives_an_image_that_crashes_its_decoder(weak, tmp_path):
    for seed in range(5):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    (tmp_path / "images" / "a" / "bad.png").write_bytes(b"segfault")
    plan = weak(write_folder, tmp_path / "images", tmp_path / "out", OPTIONS)
    receipt = read_receipt(receipt_path(Layout(plan.out), plan.shards[0]))
    assert receipt.records == 5
    assert [(line["path"], line["code"]) for line in receipt.rejects] == [
        ("a/bad.png", "decoder_crash")
    ]


def test_the_child_that_is_really_used_converts_too(apart):
    data = encode_image(make_image(1), "PNG")
    assert apart(isolate, data, OPTIONS) == convert_image(data, OPTIONS)


def test_a_child_without_a_parent_ends():
    ended = subprocess.run(isolation.COMMAND, input=b"", check=False, capture_output=True)
    assert ended.returncode == 1
