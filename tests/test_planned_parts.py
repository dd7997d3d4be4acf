"""Planning on the runner gives the bytes of the launcher, also after a worker was killed."""

import dataclasses
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import apache_beam as beam
import psutil
import pytest
from conftest import make_environment, read_tree, run_conversion, write_image
from servers import upload_tree

from converter.errors import UsageError
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.planning.key_ranges import Cut, cut_images, make_ranges
from converter.planning.planning_steps import STEPS, begin_step
from converter.sources.folders import list_folder, list_keys
from converter.storage.files import Layout
from converter.storage.object_requests import put_object
from converter.upkeep.verification import verify_dataset
from pipelines.beam import runners
from pipelines.beam.planned_parts import PartWatch, PlanParts, _divide, list_parts
from pipelines.jobs import planners
from pipelines.jobs.planners import choose_planner, make_job
from pipelines.jobs.request import RunSettings, make_requests

OPTIONS = ConvertOptions(image_size=8, encoding="png", num_shards=3, validation_split=0.25)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    root = tmp_path_factory.mktemp("thousand")
    for seed in range(1_000):
        write_image(root / f"class {seed % 12}" / f"{seed}.png", seed % 900)
    return root


@pytest.fixture(scope="module")
def expected(thousand, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    run_conversion(thousand, out, OPTIONS, IN_MEMORY, plan_on="launcher")
    return read_tree(out)


def list_work(out):
    return [path.name for path in Layout(out).work.iterdir()] if Layout(out).work.exists() else []


def test_local_processes_plan_what_the_launcher_plans(thousand, expected, tmp_path):
    out = tmp_path / "out"
    run_conversion(thousand, out, OPTIONS, plan_on="runner", workers=2)
    assert read_tree(out) == expected
    assert list_work(out) == []


@pytest.mark.skipif(sys.platform != "linux", reason="finds worker processes as Linux has them")
def test_a_killed_worker_ends_the_run_and_the_next_goes_on(thousand, expected, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines", "convert", thousand, out, "--image-size=8",
               "--encoding=png", "--num-shards=3", "--validation-split=0.25", "--workers=2",
               "--plan-on=runner", "--no-progress"]  # fmt: skip
    with subprocess.Popen(
        command, env=make_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        planning = Layout(out).planning
        while not list(planning.glob("*/list-*")) and process.poll() is None:
            time.sleep(0.005)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [each for each in children if "pipelines.beam.worker_main" in each.cmdline()]
        workers[0].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker process was killed by signal 9" in said
    assert time.monotonic() - killed < 20  # 10 s are promised, on a machine of its own
    assert planning.exists()
    run_conversion(thousand, out, OPTIONS, IN_MEMORY, plan_on="runner")
    assert read_tree(out) == expected
    assert list_work(out) == []


def test_a_store_is_planned_by_the_runner_above_a_number_of_images(
    server, image_folder, tmp_path, monkeypatch
):
    options = dataclasses.replace(OPTIONS, dedupe="drop")
    images, out = upload_tree(image_folder, server.path("planned")), server.path("planned-out")
    run_conversion(images, tmp_path / "here", options, IN_MEMORY)
    monkeypatch.setattr(planners, "MANY_IMAGES", 10)
    seen = []
    run_planning = planners.run_planning
    monkeypatch.setattr(
        planners,
        "run_planning",
        lambda job, *more: (seen.append(job), run_planning(job, *more)),
    )
    run_conversion(images, out, options, IN_MEMORY)
    assert len(seen) == 1
    names = [name for name in out.list_names() if name not in ("report.html", "run.jsonl")]
    assert {name: (out / name).read_bytes() for name in names} == read_tree(tmp_path / "here")


def test_listings_of_several_pages_are_divided_in_a_real_store(server):
    images = server.path("pages")
    names = [f"img_{n:05d}.png" for n in range(60)]
    for folder, count in {"a": 40, "a-b": 1_010, "c": 40}.items():
        names += [f"{folder}/é{n:04d}.png" for n in range(count)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda name: put_object(images / name, b"x") or True, names))
    cut = cut_images(images)
    assert cut.known == len(names)
    assert len(cut.bounds) > 2
    expected, _ = list_folder(images, [])
    assert [*expected.paths] == sorted(names, key=to_bytes)
    for most in (2, len(cut.bounds) + 1):
        listed, versions = [], []
        server.set_faults()
        for keys in make_ranges(cut.bounds, most):
            entries, _ = list_keys(images, keys, [], versions.append)
            listed += entries
        assert listed == [*expected]
        assert len(versions) == len(names)
        assert server.set_faults()["GET"] <= most + 1  # no page is requested behind a range


def test_overwriting_plans_on_the_runner_too(image_folder, tmp_path):
    out, other = tmp_path / "out", dataclasses.replace(OPTIONS, seed=5)
    run_conversion(image_folder, out, OPTIONS, IN_MEMORY)
    run_conversion(image_folder, out, other, IN_MEMORY, plan_on="runner", mode="overwrite")
    run_conversion(image_folder, tmp_path / "here", other, IN_MEMORY)
    assert read_tree(out) == read_tree(tmp_path / "here")
    done = run_conversion(image_folder, out, other, IN_MEMORY, plan_on="runner")
    assert done.unchanged


def test_a_plan_that_is_refused_leaves_nothing(image_folder, tmp_path):
    out, refused = tmp_path / "out", dataclasses.replace(OPTIONS, num_shards=10_000)
    for mode in ("new", "overwrite"):
        with pytest.raises(UsageError, match="num shards 10000"):
            run_conversion(image_folder, out, refused, IN_MEMORY, plan_on="runner", mode=mode)
        assert verify_dataset(out) == [] if mode == "overwrite" else not out.exists()
        run_conversion(image_folder, out, OPTIONS, IN_MEMORY, mode=mode)


def test_an_unfinished_conversion_of_something_else_is_given_up_but_not_its_planning(
    image_folder, tmp_path, monkeypatch
):
    out, other = tmp_path / "out", dataclasses.replace(OPTIONS, seed=5)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.jobs.convert.write_remaining", fail)
        with pytest.raises(KeyboardInterrupt):
            run_conversion(image_folder, out, OPTIONS, IN_MEMORY, plan_on="runner")
    assert Layout(out).plan.is_file()
    assert not Layout(out).planning.exists()
    with pytest.raises(UsageError, match="conversion of other options"):
        run_conversion(image_folder, out, other, IN_MEMORY, plan_on="runner")
    run_conversion(image_folder, out, other, IN_MEMORY, plan_on="runner", mode="overwrite")
    run_conversion(image_folder, tmp_path / "here", other, IN_MEMORY)
    assert read_tree(out) == read_tree(tmp_path / "here")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"take": 5}, "take needs all images"),
        ({"stratify": True}, "stratify needs all"),
        ({"group_by": "folder"}, "group by needs all"),
    ],
)
def test_what_needs_all_images_at_once_is_refused(image_folder, tmp_path, changed, reason):
    options = dataclasses.replace(OPTIONS, **changed)
    with pytest.raises(UsageError, match=reason):
        run_conversion(image_folder, tmp_path / "out", options, IN_MEMORY, plan_on="runner")


def test_other_sources_several_images_and_updates_are_refused(image_folder, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("path\nant/x.png\n")
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="source 'table'"):
        run_conversion(table, out, ConvertOptions(), IN_MEMORY, plan_on="runner")
    with pytest.raises(UsageError, match="2 IMAGES become one"):
        folders = [image_folder / "ant", image_folder / "bee"]
        run_conversion(folders, out, ConvertOptions(label_from="none"), IN_MEMORY, plan_on="runner")
    with pytest.raises(UsageError, match="plan on 'cluster'"):
        RunSettings(plan_on="cluster")


def test_a_condition_that_fits_no_image_is_refused_before_anything_is_listed(
    image_folder, tmp_path
):
    options = dataclasses.replace(OPTIONS, where="colour = red")
    with pytest.raises(UsageError, match="colour"):
        run_conversion(image_folder, tmp_path / "out", options, IN_MEMORY, plan_on="runner")
    assert not Layout(tmp_path / "out").planning.exists()


def test_by_itself_a_disk_is_planned_by_the_launcher(image_folder, tmp_path):
    beam_options = runners.parse_options([])
    requests = make_requests(image_folder, {tmp_path / "out": OPTIONS}, RunSettings())
    assert choose_planner(requests, beam_options) is None


def test_the_pipeline_is_one_line_of_steps_and_small(image_folder, tmp_path):
    options = dataclasses.replace(OPTIONS, source="folders")
    cut = Cut([f"{n:05d}/" for n in range(255)], 0)
    job = make_job(image_folder, tmp_path / "out", options, cut)
    pipeline = beam.Pipeline()
    parts = [*list_parts(None, job, 0)]
    _ = pipeline | PlanParts(job, parts)
    proto = pipeline.to_runner_api()
    assert len(proto.SerializeToString()) < 200_000
    steps = [each for each in proto.components.transforms.values() if not each.subtransforms]
    # Without those that hand on what they take.
    steps = [each for each in steps if {*each.inputs.values()} != {*each.outputs.values()}]
    read = [name for each in steps for name in each.inputs.values()]
    assert len(read) > 2 * len(STEPS)
    assert len(read) == len({*read})  # no collection has two readers
    assert parts == [*range(256)]


def test_a_bar_shows_the_step_and_the_share_that_is_done(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.beam.runners.STORE_INTERVAL_S", 0)
    job = make_job(image_folder, tmp_path / "out", OPTIONS, Cut(["b", "c"], 0))
    watch, seen = PartWatch(job), []
    for step in STEPS:
        count = begin_step(job, step)
        watch.poll()
        seen.append((watch.phase.note, watch.phase.done, watch.phase.total))
        for number in range(count):
            step.work(job, number)
    watch.poll()
    seen.append((watch.phase.note, watch.phase.done, watch.phase.total))
    assert seen == [
        ("listing", 0, None),
        ("listing", 3, None),
        ("labelling", 6, 14),
        ("hashing", 9, 14),
        ("comparing hashes", 10, 14),
        ("assigning splits", 13, 14),
        ("ordering", 14, 14),
    ]


def test_dask_takes_each_step_as_a_pipeline_of_its_own():
    pytest.importorskip("distributed", reason="Dask is not installed")
    local, dask = (runners.parse_options(each) for each in ([], ["--runner=DaskRunner"]))
    assert _divide(local) == [range(len(STEPS))]
    assert _divide(dask) == [range(n, n + 1) for n in range(len(STEPS))]
