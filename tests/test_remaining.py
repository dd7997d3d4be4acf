"""The phase of converting follows the receipts, and local workers between them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_folder, write_image

from converter import progress
from converter.commits import receipts
from converter.commits.commit import commit
from converter.costs import Cost, read_costs, write_cost
from converter.options import ConvertOptions
from converter.planning.plan import Plan
from converter.progress import Counts, Phase
from converter.storage.files import Layout
from converter.writing.shard_writer import Job, receipt_path, write_shard
from pipelines.beam import remaining
from pipelines.beam.remaining import ReceiptWatch, list_remaining


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Ten images in two shards that are finished; one is rejected."""
    for seed in range(9):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    (tmp_path / "images" / "a" / "bad.png").write_bytes(b"bad")
    return write_folder(
        tmp_path / "images", tmp_path / "out", ConvertOptions(image_size=(8, 8), num_shards=2)
    )


def begin(
    plan: Plan, count: Callable[[], Counts] | None = None, finished: int = 0
) -> tuple[ReceiptWatch, Phase]:
    phases: list[Phase] = []
    with progress.listen(phases.append):
        watch = ReceiptWatch(plan, finished=finished, count=count)
    return watch, phases[0]


def take_receipt(plan: Plan, place: int) -> tuple[Path, bytes]:
    path = receipt_path(Layout(plan.out), plan.shards[place])
    receipt = path.read_bytes()
    path.unlink()
    return path, receipt


def test_each_receipt_is_counted_once(plan: Plan) -> None:
    path, receipt = take_receipt(plan, 0)
    watch, phase = begin(plan)
    assert (phase.name, phase.total, phase.note) == ("convert", 10, "starting workers")

    watch.poll()
    path.write_bytes(b"damaged")
    watch.poll()
    assert watch.written + watch.rejected == plan.shards[1].records == phase.done
    path.write_bytes(receipt)
    watch.poll()
    assert (watch.written, watch.rejected) == (9, 1)
    watch.poll(final=True)
    assert (phase.done, phase.rejected, phase.note) == (10, 1, "2/2 shards")


def test_many_receipts_are_merged_while_they_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (receipts, remaining):
        monkeypatch.setattr(module, "MERGED_RECEIPTS", 3)
    for seed in range(12):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    options = ConvertOptions(image_size=(8, 8), num_shards=12)
    plan = write_folder(tmp_path / "images", tmp_path / "out", options)
    layout = Layout(plan.out)
    for shard in plan.shards:
        write_cost(Cost(images_read=1), layout, shard.name)
    late = [take_receipt(plan, place) for place in range(4, 12)]
    watch, phase = begin(plan)
    watch.poll()  # of an earlier run
    for number, (path, receipt) in enumerate(late):
        path.write_bytes(receipt)
        watch.poll()
        assert phase.done == 5 + number
        assert len(list(layout.receipts.iterdir())) <= 2 + 4  # single ones, and merged ones
    assert len(list(layout.receipts.glob("*.jsonl"))) == 4
    assert len(list(layout.costs.iterdir())) == 4 + 2 + 2  # before, merged, and not yet
    names = [shard.name for shard in plan.shards]
    assert read_costs(layout, names).images_read == 12
    assert read_costs(layout, names[4:]).images_read == 8

    # A run that goes on with it finds the damaged one, and counts it no more.
    shard = plan.out / plan.shards[7].name
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert list_remaining(plan) == [plan.shards[7]]
    watch, phase = begin(plan, finished=11)
    watch.poll()
    assert (phase.done, phase.before) == (11, 11)
    write_shard(plan.shards[7], Job.of_plan(plan))
    watch.poll()
    assert phase.done == 12
    assert commit(plan).totals.written == 12


def test_receipts_that_no_launcher_followed_are_merged_by_the_next(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (receipts, remaining):
        monkeypatch.setattr(module, "MERGED_RECEIPTS", 2)
    assert list_remaining(plan) == []
    assert [path.suffix for path in Layout(plan.out).receipts.iterdir()] == [".jsonl"]


def test_images_of_unfinished_shards_count_too_but_none_twice(plan: Plan) -> None:
    second, receipt = take_receipt(plan, 1)
    live = [Counts(100, 100, 100)]  # of an earlier pipeline of the same workers
    watch, phase = begin(plan, lambda: live[-1], finished=1)
    watch.poll()
    before = plan.shards[0].records
    assert (phase.done, phase.before, phase.bytes) == (before, before, 0)

    live.append(Counts(102, 1100, 100))
    watch.poll()
    assert (phase.done, phase.bytes) == (before + 2, 1000)
    assert phase.note == "1/2 shards, 1 finished before"
    second.write_bytes(receipt)
    live.append(Counts(900, 9000, 400))  # more than there are: a shard was written twice
    watch.poll()
    assert phase.done == phase.total == 10
    watch.poll(final=True)
    assert (phase.done, phase.rejected) == (10, 1)  # what receipts say counts in the end


def test_what_the_scan_rejected_is_a_part_of_the_sum(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 1)
    (tmp_path / "images" / "table.csv").write_text("path,label\na.png,x\n../b.png,x\n")
    options = ConvertOptions(image_size=(8, 8), source="table")
    plan = write_folder(tmp_path / "images" / "table.csv", tmp_path / "out", options)
    watch, phase = begin(plan)
    watch.poll(final=True)
    left_out = sum(plan.rejected.values())
    assert phase.rejected == left_out + watch.rejected == 1


def test_workers_elsewhere_are_known_by_their_receipts_alone(plan: Plan) -> None:
    path, receipt = take_receipt(plan, 0)
    watch, phase = begin(plan)
    watch.poll()
    assert (phase.done, phase.bytes) == (plan.shards[1].records, 0)
    path.write_bytes(receipt)
    watch.poll()
    assert (phase.done, phase.bytes) == (10, plan.shards[0].source_bytes)
