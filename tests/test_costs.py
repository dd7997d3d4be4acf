"""What shards cost: each step is told from the others, and nothing of it gets into a data set."""

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_image, write_folder
from PIL import Image

from converter.costs import (
    STEPS,
    Cost,
    count_read,
    credit,
    enter,
    merge_costs,
    read_costs,
    start_cost,
    take_cost,
    write_cost,
)
from converter.options import ConvertOptions
from converter.sources import originals
from converter.sources.originals import read_entry
from converter.storage.disk import DiskPath
from converter.storage.files import Layout
from converter.writing import shard_writer
from pipelines.beam.transforms import mill_shards
from pipelines.cli.reports import summarize_cost


def find_bottleneck(images: Path, out: Path, options: ConvertOptions, *, disk: bool = False) -> str:
    """The step that takes most of the time of a conversion.

    Without `disk`, the steps are left out that a disk decides on which others write as well.
    """
    left_out = {"other"} if disk else {"other", "read", "write"}  # planning is in other, too
    start_cost()
    write_folder(images, out, options)
    cost = take_cost()
    steps = {step: cost.msec[step] for step in STEPS if step not in left_out}
    return max(steps, key=steps.__getitem__)


def write_images(folder: Path, count: int, side: int, file_format: str) -> Path:
    """Noise, which no encoding makes smaller."""
    folder = folder / "images" / "a"
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    for number in range(count):
        image = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        (folder / f"{number}.png").write_bytes(encode_image(image, file_format))
    return folder.parent


@pytest.mark.parametrize(
    ("step", "count", "side", "file_format", "options"),
    [
        pytest.param("decode", 12, 1200, "PNG", {"image_size": (8, 8), "interpolation": "nearest"},
                     id="decode"),
        pytest.param("convert", 6, 1000, "BMP", {"image_size": (500, 500),
                     "interpolation": "lanczos", "encoding": "raw"}, id="convert"),
        pytest.param("encode", 12, 300, "BMP", {"resize": "none", "encoding": "png"}, id="encode"),
        pytest.param("write", 6, 1000, "BMP", {"resize": "none", "encoding": "raw"}, id="write"),
    ],
)  # fmt: skip
def test_the_step_that_takes_longest_is_found(
    step: str, count: int, side: int, file_format: str, options: dict[str, object], tmp_path: Path
) -> None:
    images = write_images(tmp_path, count, side, file_format)
    asked = ConvertOptions(num_shards=1, **options)
    assert find_bottleneck(images, tmp_path / "out", asked, disk=step == "write") == step


def test_a_slow_source_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_images(tmp_path, 10, 8, "PNG")

    def read_slowly(*arguments: object) -> bytes:
        time.sleep(0.005)
        return read_entry(*arguments)

    monkeypatch.setattr(originals, "read_entry", read_slowly)
    options = ConvertOptions(num_shards=1)
    assert find_bottleneck(images, tmp_path / "out", options, disk=True) == "read"


def test_each_moment_is_counted_once() -> None:
    begin = time.perf_counter()
    start_cost()
    for step in [*STEPS] * 3:
        enter(step)
        time.sleep(0.002)
    cost = take_cost()
    wall_msec = (time.perf_counter() - begin) * 1000
    assert all(cost.msec[step] >= 6 for step in STEPS)
    assert sum(cost.msec.values()) == pytest.approx(wall_msec, abs=1)


def test_a_failure_costs_the_step_in_which_it_happened(tmp_path: Path) -> None:
    images = write_images(tmp_path, 12, 1200, "PNG")
    for path in images.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-20_000])
    options = ConvertOptions(image_size=(8, 8), num_shards=1)
    assert find_bottleneck(images, tmp_path / "out", options) == "decode"


def test_each_thread_counts_for_itself() -> None:
    start_cost()
    count_read(5)
    other = threading.Thread(target=count_read, args=(7,))
    other.start()
    other.join()
    assert (take_cost().images_read, take_cost().bytes_read) == (1, 5)


def test_what_a_child_spent_is_taken_from_the_step_that_waited() -> None:
    start_cost()
    enter("other")
    time.sleep(0.01)
    credit({"decode": 6_000_000, "encode": 3_000_000})
    cost = take_cost()
    assert (cost.msec["decode"], cost.msec["encode"]) == (6, 3)
    assert 0 < cost.msec["other"] < cost.total_msec - 9 + 1e-6


def test_an_isolated_decoder_tells_where_its_time_went(tmp_path: Path) -> None:
    images = write_images(tmp_path, 2, 1200, "PNG")
    options = ConvertOptions(image_size=(8, 8), num_shards=1, interpolation="nearest", isolate=True)
    assert find_bottleneck(images, tmp_path / "out", options) == "decode"


def test_costs_add_up_and_what_is_missing_or_damaged_counts_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make_work_folders()
    cost = Cost(images_read=3, bytes_read=400, msec=dict.fromkeys(STEPS, 1.5))
    for name in ("a.tfrecord", "b.tfrecord"):
        write_cost(cost, layout, name)
    (layout.costs / "c.json").write_text('{"images_read": 3}')
    assert read_costs(layout, ["a.tfrecord", "b.tfrecord", "c.tfrecord", "d.tfrecord"]) == Cost(
        images_read=6, bytes_read=800, msec=dict.fromkeys(STEPS, 3.0)
    )


def test_merged_costs_are_those_of_their_shards_and_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, names = Layout(DiskPath(tmp_path)), [f"{letter}.tfrecord" for letter in "abcdef"]
    layout.make_work_folders()
    cost = Cost(images_read=3, bytes_read=400, msec=dict.fromkeys(STEPS, 1.5), peaks={"x": 5})
    for name in names[:5]:
        write_cost(cost, layout, name)
    whole = read_costs(layout, names)
    merge_costs(layout, [*names[:2], "f.tfrecord"])
    assert len(layout.costs.list_names()) == 4
    assert read_costs(layout, names) == whole
    # Of an earlier run, whose shards this one has kept.
    assert read_costs(layout, names[2:]).images_read == 9
    with monkeypatch.context() as patch:
        patch.setattr(DiskPath, "remove_files", lambda *_: None)  # as if killed before it
        merge_costs(layout, names[2:4])
    assert len(layout.costs.list_names()) == 5
    assert read_costs(layout, names) == whole
    (layout.costs / "0.merged").write_text('{"names": 3}')
    assert read_costs(layout, names) == whole


def test_what_was_read_is_counted_also_of_rejects(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    contents = [encode_image(make_image(1)), encode_image(make_image(2)), b"no image"]
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
    plan = write_folder(tmp_path / "images", tmp_path / "out", ConvertOptions(num_shards=1))
    job = shard_writer.Job(images=plan.images, out=plan.out, options=plan.options)
    list(mill_shards(plan.shards[:1], job))
    cost = read_costs(Layout(plan.out), [plan.shards[0].name])
    assert (cost.images_read, cost.bytes_read) == (3, sum(map(len, contents)))


def test_a_cost_that_cannot_be_written_costs_no_shard(tmp_path: Path) -> None:
    images = write_images(tmp_path, 2, 8, "PNG")
    plan = write_folder(images, tmp_path / "out", ConvertOptions(num_shards=1))
    Layout(plan.out).costs.rmdir()
    job = shard_writer.Job(images=plan.images, out=plan.out, options=plan.options)
    assert [receipt.records for receipt in mill_shards(plan.shards[:1], job)] == [2]


def test_no_time_gets_into_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_images(tmp_path, 3, 8, "PNG")
    plan = write_folder(images, tmp_path / "one", ConvertOptions(num_shards=1))
    receipt = shard_writer.receipt_path(Layout(plan.out), plan.shards[0]).read_bytes()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 0)
    plan = convert_folder(images, tmp_path / "other", ConvertOptions(num_shards=1))
    assert b"msec" not in receipt
    assert not list((tmp_path / "other").rglob("*cost*"))


def test_the_bottleneck_is_told_with_its_share() -> None:
    msec = dict(zip(STEPS, (500, 6_000, 1_500, 1_000, 800, 200), strict=True))
    assert list(summarize_cost(Cost(msec=msec))) == [
        "  bottleneck: decoding 60% of 10.0 s of worker time (resizing 15%, encoding 10%, "
        "writing 8%, reading 5%, bookkeeping 2%)"
    ]
    assert list(summarize_cost(dataclasses.replace(Cost(), images_read=3))) == []
