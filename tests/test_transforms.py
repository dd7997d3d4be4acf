"""The pipelines' shape, and their transforms in a Beam pipeline of one's own."""

import dataclasses
import shutil
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from conftest import write_folder

from converter.commits.commit import commit
from converter.costs import STEPS, read_costs
from converter.errors import DatasetError, OutputError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import Plan, write_plan
from converter.storage.disk import DiskPath
from converter.storage.files import Layout, hash_bytes
from converter.upkeep.shard_reports import Report
from converter.upkeep.verification import Check, check_shard
from pipelines import MillShards, VerifyShards, verify
from pipelines.beam import runners
from pipelines.beam.report_watch import ReportWatch
from pipelines.beam.transforms import check_listed, list_shards, report_path, write_report
from pipelines.jobs.preview import propose

OPTIONS = ConvertOptions(image_size=(8, 8), num_shards=4)


def plan_folder(images: Path, out: Path) -> Plan:
    draft = propose(images, OPTIONS, always_sample=False).draft
    return write_plan(draft, OPTIONS, images=images, out=out)


def test_it_gives_a_receipt_for_each_shard(image_folder: Path, tmp_path: Path) -> None:
    plan = plan_folder(image_folder, tmp_path / "out")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        receipts = pipeline | MillShards(plan)
        summary = receipts | "Summarize" >> beam.Map(
            lambda receipt: (receipt.name, receipt.records)
        )
        assert_that(summary, equal_to([(shard.name, shard.records) for shard in plan.shards]))

    manifest = commit(plan)
    assert manifest == read_manifest(tmp_path / "out")
    assert manifest.totals.written == 72


def test_it_writes_only_the_shards_asked_for(image_folder: Path, tmp_path: Path) -> None:
    plan = plan_folder(image_folder, tmp_path / "out")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = pipeline | MillShards(plan, plan.shards[1:3])

    assert sorted(path.name for path in (tmp_path / "out").glob("*.tfrecord")) == [
        shard.name for shard in plan.shards[1:3]
    ]


def test_workers_with_other_versions_are_refused(image_folder: Path, tmp_path: Path) -> None:
    plan = plan_folder(image_folder, tmp_path / "out")
    plan = dataclasses.replace(plan, generator="shardmill 0.0.1, Pillow 9.9.9")
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | MillShards(plan)
    with pytest.raises(OutputError, match=r"worker has .* planned with .* 9\.9\.9"):
        pipeline.run()
    assert list((tmp_path / "out").glob("*.tfrecord")) == []


def test_it_counts_what_it_read_and_wrote_and_the_time_of_each_step(
    image_folder: Path, tmp_path: Path
) -> None:
    plan = plan_folder(image_folder, tmp_path / "out")
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | MillShards(plan)
    result = pipeline.run()
    result.wait_until_finish()

    counters = {
        counter.key.metric.name: counter.committed
        for counter in result.metrics().query()["counters"]
    }
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tfrecord"))
    times = {step: counters.pop(f"{step}-msec") for step in STEPS}
    assert counters == {
        "shards-written": 4,
        "images-read": 72,
        "images-written": 72,
        "images-rejected": 0,
        "bytes-read": sum(path.stat().st_size for path in image_folder.rglob("*.*")),
        "bytes-written": written,
    }
    cost = read_costs(Layout(plan.out), (shard.name for shard in plan.shards))
    assert all(abs(times[step] - cost.msec[step]) <= len(plan.shards) / 2 for step in STEPS)


def list_steps(pipeline: beam.Pipeline) -> list[tuple[str, int]]:
    """The leaf transforms of a pipeline with the number of their outputs."""
    proto = pipeline.to_runner_api()
    steps = proto.components.transforms.values()
    return [(step.unique_name, len(step.outputs)) for step in steps if not step.subtransforms]


def test_the_pipelines_are_linear_and_labelled(
    image_folder: Path, converted: Path, tmp_path: Path
) -> None:
    """Engines exist that compute only one leaf of several, without a word."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | MillShards(plan_folder(image_folder, tmp_path / "out"))

    steps = list_steps(pipeline)
    assert all(outputs == 1 for _, outputs in steps)
    top = [name.split("/")[1] for name, _ in steps]
    assert set(top) == {"CreateShards", "SpreadShards", "MillShard"}

    pipeline = beam.Pipeline(runner=FnApiRunner())
    manifest = read_manifest(converted)
    check = Check(folder=converted, manifest=manifest)
    _ = pipeline | VerifyShards(manifest.shards, check, tmp_path)
    steps = list_steps(pipeline)
    assert all(outputs == 1 for _, outputs in steps)
    assert {name.split("/")[1] for name, _ in steps} == {
        "CreateShards", "SpreadShards", "VerifyShard",
    }  # fmt: skip


def test_the_pipeline_carries_references_and_no_paths(image_folder: Path, tmp_path: Path) -> None:
    """Its size must not grow with the images: Dataflow takes 20 MB, a million paths are more."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | MillShards(plan_folder(image_folder, tmp_path / "out"))

    proto = pipeline.to_runner_api().SerializeToString()
    assert b"bild" not in proto
    assert len(proto) < 60_000


def test_a_check_carries_places_in_a_list_and_no_shards(
    converted: Path, tmp_path: DiskPath
) -> None:
    manifest = read_manifest(converted)
    places = list_shards(manifest.shards, tmp_path)
    check = Check(folder=converted, manifest=manifest)
    for place, shard in zip(places, manifest.shards, strict=True):
        check_listed(place, check, tmp_path)
        report = Report.from_json(report_path(tmp_path, shard).read_bytes())
        assert report == check_shard(shard, check)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    many = [
        dataclasses.replace(manifest.shards[0], sha256=hash_bytes(b"%d" % number))
        for number in range(2_000)
    ]
    _ = pipeline | VerifyShards(many, check, tmp_path)
    assert len(pipeline.to_runner_api().SerializeToString()) < 60_000 < 2_000 * 64


def test_the_heaviest_shards_come_first(image_folder: Path, tmp_path: Path) -> None:
    plan = plan_folder(image_folder, tmp_path / "out")
    groups = MillShards(plan).groups
    weights = [shard.source_bytes for group in groups for shard in group]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == sum(path.stat().st_size for path in image_folder.rglob("bild*"))


def test_checking_leaves_a_report_of_each_shard(image_folder: Path, tmp_path: Path) -> None:
    plan = write_folder(image_folder, tmp_path / "out", OPTIONS)
    manifest = commit(plan)
    damaged = tmp_path / "out" / manifest.shards[1].name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    check = Check(folder=tmp_path / "out", manifest=manifest)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = pipeline | VerifyShards(manifest.shards, check, tmp_path)
    for shard in manifest.shards:
        report = Report.from_json(report_path(tmp_path, shard).read_bytes())
        assert report == check_shard(shard, check)
        assert bool(report.faults) == (shard == manifest.shards[1])


def test_reports_are_taken_once_in_any_order_and_removed(
    converted: Path, tmp_path: DiskPath
) -> None:
    manifest = read_manifest(converted)
    check = Check(folder=converted, manifest=manifest)
    seen: list[str] = []
    watch = ReportWatch(manifest, tmp_path, lambda shard: seen.append(shard.name))
    first, *others = manifest.shards
    for shard in reversed(others):
        write_report(shard, check, tmp_path)
        watch.poll()
        assert list(tmp_path.iterdir()) == []
    assert seen == [shard.name for shard in reversed(others)]
    with pytest.raises(DatasetError, match=f"^no report on {first.name}"):
        watch.finish()
    path = report_path(tmp_path, first)
    write_report(first, check, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # half written
    watch.poll()
    assert path.exists()
    path.write_bytes(whole)
    write_report(others[0], check, tmp_path)  # by a worker that did it once more
    assert watch.finish().list_faults() == []
    assert sorted(seen) == sorted(shard.name for shard in manifest.shards)


def test_reports_in_a_store_are_looked_for_every_two_seconds(
    converted: Path, tmp_path: DiskPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiskPath, "is_remote", True)
    looks: list[str] = []
    monkeypatch.setattr(DiskPath, "list_names", lambda self: looks.append(self.name) or [])
    watch = ReportWatch(read_manifest(converted), tmp_path, lambda _: None)
    for _ in range(5):
        watch.poll()
    assert len(looks) == 1
    watch._next -= runners.STORE_INTERVAL_S
    watch.poll()
    assert len(looks) == 2


@pytest.mark.parametrize("beam_args", [["--direct_running_mode=in_memory"], []])
def test_a_check_as_a_job_finds_what_threads_find(
    converted: Path, image_folder: Path, tmp_path: Path, beam_args: list[str]
) -> None:
    copy = shutil.copytree(converted, tmp_path / "copy")
    (copy / "extra").touch()
    index = next(copy.glob("*.tfindex"))
    index.write_bytes(index.read_bytes()[:-1])
    faults = verify(copy, sources=tmp_path, beam_args=beam_args)
    assert faults == verify(copy, sources=tmp_path)
    assert len(faults) == 72 + 2
    assert verify(converted, sources=image_folder, beam_args=beam_args) == []
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
