"""A plan made in steps, part by part, is the plan of the launcher, byte for byte."""

import contextlib
import dataclasses
import functools
import os
import random
from pathlib import Path

import pytest
from conftest import encode_image, make_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.errors import OutputError, ShardmillError, UsageError
from converter.inventory import Inventory
from converter.names import to_bytes, to_system
from converter.options import ConvertOptions
from converter.planning.key_ranges import cut_images
from converter.planning.listing_parts import list_top
from converter.planning.plan import write_plan
from converter.planning.planning_job import PlanningJob
from converter.planning.planning_steps import STEPS, begin_step
from converter.planning.staged_drafts import check_splits, read_draft
from converter.sources.image_choice import choose_part
from converter.sources.recognition import resolve_options
from converter.storage.files import Layout
from converter.storage.locate import locate
from converter.storage.object_requests import put_object
from converter.writing.records import check_scan
from pipelines.jobs.preview import cut_shards, propose

FILES = ("plan.json", "entries.jsonl", "left_out.jsonl", "notes.jsonl")


@functools.cache
def draw_picture(seed: int) -> bytes:
    return encode_image(make_image(seed, 4 + seed % 3, 5), "PNG")


def make_job(images, out, options, bounds, bucket_images=7):
    layout = Layout(out)
    layout.make_work_folders()
    job = PlanningJob(
        images=locate(images), folder=layout.work / "planning", scratch=layout.scratch,
        options=options, parts=len(bounds) + 1, bucket_images=bucket_images,
    )  # fmt: skip
    list_top(job, bounds)
    return job


def run_steps(job, order=None):
    """Does all steps in this process, the parts of each in any order, and some of them twice."""
    for step in STEPS:
        count = begin_step(job, step)
        numbers = [*range(count)]
        if order is not None:
            numbers = order.sample(numbers, count) + order.choices(numbers, k=2 * bool(count))
        for number in numbers:
            step.work(job, number)


def propose_in_steps(images, out, options, *, bounds=None, order=None):
    options = resolve_options(images, options)
    bounds = cut_images(locate(images)).bounds if bounds is None else bounds
    job = make_job(images, out, options, bounds)
    run_steps(job, order)
    draft = read_draft(job)
    check_scan(draft.inventory, options)
    check_splits(draft)
    draft = cut_shards(draft, images, options, always_sample=False, room=1e18).draft
    return draft, options


def plan_in_steps(images, out, options, **more):
    draft, options = propose_in_steps(images, out, options, **more)
    write_plan(draft, options, images=images, out=out)
    return read_work(out)


def plan_here(images, out, options):
    options = resolve_options(images, options)
    draft = propose(images, options, always_sample=False, room=1e18).draft
    write_plan(draft, options, images=images, out=out)
    return read_work(out)


def read_work(out):
    return {name: (Layout(out).work / name).read_bytes() for name in FILES}


def say(plan, *arguments, **more):
    """The files of a plan, or the error that there is none."""
    try:
        return plan(*arguments, **more)
    except ShardmillError as error:
        return type(error), str(error)


NAMES = st.one_of(
    st.sampled_from(["cat", "Cat", "dog", "a-b", "a", "train", "val", "test", ".hid", "images",
                     "labels", "é", "e\u0301", "x.png", "1.png", "A.PNG", "b.jpg", "t.txt", "z"]),
    st.text("ab-./ \udcff\udce9é", min_size=1, max_size=3),
)  # fmt: skip
PATHS = st.lists(NAMES, min_size=1, max_size=4)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "label_from": st.sampled_from(["top", "parent", "none"]),
        "split_folders": st.sampled_from(["auto", "no", "yes"]),
        "dedupe": st.sampled_from(["report", "drop", "off"]),
        "validation_split": st.sampled_from([0.2, 0.5]),
        "test_split": st.sampled_from([0.1, 0.3]),
        "where": st.sampled_from(["bytes < 90", "label != 'dog'", "path like '*a*'"]),
        "sample": st.sampled_from([0.5, 0.9]),
        "class_names": st.sampled_from([("cat", "dog"), ("a", "cat=feline", "none")]),
        "seed": st.integers(0, 3),
        "num_shards": st.just(2),
        "strict": st.booleans(),
    },
)


def fill(root, paths, seeds):
    """Writes small pictures, of which many have the same content or size."""
    for parts, seed in zip(paths, seeds, strict=False):
        name = "/".join(part.strip("/") for part in parts if part.strip("/.") or part == ".hid")
        path = Path(root, to_system(name))
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_picture(seed) if seed else b"")


@given(st.data())
@settings(
    max_examples=250,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_plans_of_odd_trees_are_those_of_the_launcher(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("odd")
    images = root / "images"
    images.mkdir()
    paths = data.draw(st.lists(PATHS, max_size=25))
    paths = [[*parts[:-1], parts[-1] + data.draw(st.sampled_from([".png", ".png", ""]))]
             for parts in paths]  # fmt: skip
    fill(images, paths, data.draw(st.lists(st.integers(0, 6), min_size=25, max_size=25)))
    try:
        options = ConvertOptions(**data.draw(OPTIONS), source="folders", image_size=8)
        labelled = options.label_from != "none"
        nothing = Inventory(classes=(), entries=(), skipped=(), labelled=labelled)
        choose_part(nothing, options)
    except UsageError:
        return  # before anything is listed, where the job is asked for
    order = random.Random(data.draw(st.integers(0, 9)))
    expected = say(plan_here, images, root / "out", options)
    found = say(plan_in_steps, images, root / "stepped", options, order=order)
    assert found == expected


def fill_evenly(root, count, *, splits=()):
    """Files in folders of classes, of which a third have the content of another one."""
    rng = random.Random(count)
    for number in range(count):
        split = f"{rng.choice(splits)}/" if splits else ""
        name = rng.choice(["cat", "dog/deep", "dog", "a-b", "a", "\udcff"])
        path = Path(root, to_system(f"{split}{name}/{number:03d}{rng.choice('aA')}.png"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_picture(rng.randrange(count)))
    (root / "notes.txt").write_bytes(b"text")
    twin = Path(root, f"{splits[0]}/" if splits else "", "cat", "TWIN.png")
    for path in (twin, twin.with_name("twin.png")):
        path.write_bytes(draw_picture(count))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"dedupe": "drop", "test_split": 0.2},
        {"splits": ("train", "test"), "validation_split": 0.3},
        {"splits": ("train", "val", "test"), "dedupe": "drop", "label_from": "parent"},
        {"where": "label != 'cat' and bytes > 80", "sample": 0.8, "validation_split": 0.2},
        {"class_names": ("cat", "dog=hound"), "label_offset": 1, "truncated": "fill"},
        {"label_from": "none", "dedupe": "off", "num_shards": 5},
    ],
    ids=str,
)
def test_plans_of_many_files_are_those_of_the_launcher(tmp_path, asked):
    asked = dict(asked)
    images = tmp_path / "images"
    images.mkdir()
    fill_evenly(images, 300, splits=asked.pop("splits", ()))
    options = ConvertOptions(**asked, source="folders", image_size=8, seed=3)
    expected = plan_here(images, tmp_path / "out", options)
    order = random.Random(1)
    assert plan_in_steps(images, tmp_path / "stepped", options, order=order) == expected
    assert expected["entries.jsonl"].count(b"\n") > 50
    few = plan_in_steps(images, tmp_path / "one", options, bounds=[])
    assert few == expected


def test_the_next_run_keeps_what_is_done_if_it_lists_the_same(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    fill_evenly(images, 60)
    options = ConvertOptions(source="folders", image_size=8)
    first = plan_in_steps(images, out, options)
    work = [
        path
        for path in (Layout(out).work / "planning").iterdir()
        if not path.name.startswith("listing")
    ]
    assert len(work) == 1
    before = {path: path.stat().st_mtime_ns for path in work[0].iterdir()}
    assert plan_in_steps(images, out, options) == first
    assert {path: path.stat().st_mtime_ns for path in work[0].iterdir()} == before


@pytest.mark.parametrize("change", ["content", "more", "gone"])
def test_the_next_run_sees_what_has_changed(tmp_path, change):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    fill_evenly(images, 60)
    options = ConvertOptions(source="folders", image_size=8, dedupe="drop")
    propose_in_steps(images, out, options)
    path = images / "cat" / "TWIN.png"
    if change == "content":  # of the same size, so that only its time tells
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
    elif change == "more":
        (images / "cat" / "new.png").write_bytes(draw_picture(5))
    else:
        path.unlink()
    expected = plan_here(images, tmp_path / "here", options)
    assert plan_in_steps(images, out, options) == expected


def test_the_next_run_sees_files_that_changed_places(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    (images / "cat").mkdir(parents=True)
    one, other, third = (images / "cat" / f"{n}.png" for n in range(3))
    for path, data in {one: b"one", other: b"two", third: b"one"}.items():
        path.write_bytes(data)
        os.utime(path, (1_600_000_000, 1_600_000_000))  # as many archives unpack
    options = ConvertOptions(source="folders", image_size=8, dedupe="drop")
    propose_in_steps(images, out, options)
    aside = one.rename(images / "aside.png")
    other.rename(one)
    aside.rename(other)
    expected = plan_here(images, tmp_path / "here", options)
    assert plan_in_steps(images, out, options) == expected


def test_the_next_run_sees_that_an_empty_folder_has_another_name(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    fill_evenly(images, 30, splits=("train",))
    (images / "test").mkdir()
    options = ConvertOptions(source="folders", image_size=8)
    propose_in_steps(images, out, options)
    (images / "test").rename(images / "tesx")  # so `train` is no split any more, but a class
    expected = plan_here(images, tmp_path / "here", options)
    assert b'"classes":["tesx","train"]' in expected["plan.json"]
    assert plan_in_steps(images, out, options) == expected


def test_a_damaged_file_costs_one_run_and_changes_no_plan(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    fill_evenly(images, 60)
    options = ConvertOptions(source="folders", image_size=8, dedupe="drop")
    expected = plan_in_steps(images, out, options)
    (kept,) = Layout(out).planning.glob("????????????????????????????????")
    for name in ("assign-00000", "order-00000"):
        (kept / name).write_bytes(b"")
        with pytest.raises(OutputError, match=f"{name} was damaged"):
            plan_in_steps(images, out, options)
        assert plan_in_steps(images, out, options) == expected


@pytest.mark.parametrize("change", ["content", "more", "gone"])
def test_what_changes_after_it_was_listed_does_not_change_the_plan(tmp_path, change):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    fill_evenly(images, 60)
    options = ConvertOptions(source="folders", image_size=8, dedupe="off")
    expected = plan_here(images, tmp_path / "here", options)
    job = make_job(images, out, options, cut_images(locate(images)).bounds)
    for number, step in enumerate(STEPS):
        for part in range(begin_step(job, step)):
            step.work(job, part)
        path = images / "cat" / "TWIN.png"
        if number == 0 and change == "content":
            path.write_bytes(b"changed")
        elif number == 0 and change == "more":
            (images / "cat" / "new.png").write_bytes(b"x")
        elif number == 0:
            path.unlink()
    draft = cut_shards(read_draft(job), images, options, always_sample=False, room=1e18).draft
    write_plan(draft, options, images=images, out=out)
    assert read_work(out) == expected


KEYS = {
    "a/1.png": 1, "a/2.png": 1, "a//odd.png": 2, "a-b/3.png": 3, "a/.hid/4.png": 4,
    "a/.hid/5.png": 5, "a/.hid/z/6.png": 6, "b/ü.png": 1, "b/B.png": 7, "b/b.png": 8,
    "b/notes.txt": 9, "c/": 0, "c/deep/": 0, "top.png": 9, ".git/x": 1,
}  # fmt: skip


@pytest.fixture
def stored(server):
    place = server.path("stepped")
    if not place.exists():
        for key, seed in KEYS.items():
            address = dataclasses.replace(place, key=f"{place.key}/{key}")
            put_object(address, draw_picture(seed) if seed else b"")
    return place


@pytest.mark.parametrize("most", [1, 3, 99])
def test_plans_of_a_store_are_those_of_the_launcher(stored, tmp_path, most):
    bounds = sorted(KEYS, key=to_bytes)[:most]
    options = ConvertOptions(image_size=8, validation_split=0.4, dedupe="drop", source="folders")
    expected = plan_here(stored, tmp_path / "out", options)
    assert b'"skipped_hidden":2' in expected["plan.json"]
    found = plan_in_steps(stored, tmp_path / "stepped", options, bounds=bounds)
    assert found == expected
    out = dataclasses.replace(stored, key=f"out-{most}")
    assert plan_in_steps(stored, out, options, bounds=bounds) == expected


def test_a_missing_prefix_is_said_as_by_a_scan(server, tmp_path):
    place = server.path("nothing-there")
    options = ConvertOptions(source="folders")
    expected = say(plan_here, place, tmp_path / "out", options)
    assert "does not exist" in expected[1]
    assert say(plan_in_steps, place, tmp_path / "stepped", options) == expected
