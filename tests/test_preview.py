"""`plan`: what it says, what it refuses, and that it changes nothing."""

import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import convert_folder, list_states, run_conversion, write_folder, write_image

from converter.errors import DatasetError, LockedError, ShardmillError, UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.storage.files import Layout
from converter.storage.object_requests import list_objects
from pipelines import convert_sizes, plan, plan_sizes
from pipelines.cli.commands import main
from pipelines.jobs.preview import propose

PNG = ConvertOptions(encoding="png", source="folders")
OPTIONS = replace(PNG, image_size=(8, 10), num_shards=4, seed=3)
OTHER = replace(PNG, image_size=(8, 8), num_shards=2)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in `images` and their data set in `out`."""
    root = tmp_path_factory.mktemp("preview")
    for seed in range(20):
        write_image(root / "images" / "bd"[seed % 2] / f"{seed}.png", seed)
    convert_folder(root / "images", root / "out", OPTIONS)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True)


def occupy(out: Path, how: str, images: Path) -> None:
    """Puts something in the way of a conversion with `OTHER`."""
    if how == "a file":
        out.write_text("letter")
    if how == "strangers":
        out.mkdir()
        (out / "letter.txt").write_text("dear")
    if how == "finished":
        convert_folder(images, out, OPTIONS)
    if how == "updated":
        convert_folder(images, out, OTHER)
        write_image(images / "b" / "new.png", 99)
        run_conversion(images, out, None, IN_MEMORY, mode="update")
    if how == "other images":
        convert_folder(images, out, OTHER)
        write_image(images / "b" / "new.png", 99)
    if how == "unfinished":
        write_folder(images, out, OPTIONS)
    if how == "sizes":
        convert_folder(images, out / "8x8", OTHER)
    if how == "damaged":
        convert_folder(images, out, OTHER)
        (out / "manifest.json").write_bytes(b"{")


@pytest.mark.parametrize(
    ("how", "modes"),
    [
        ("a file", ["new", "overwrite", "update"]),
        ("strangers", ["new", "overwrite", "update"]),
        ("finished", ["new", "update"]),
        ("updated", ["new"]),
        ("other images", ["new"]),
        ("unfinished", ["new", "update"]),
        ("sizes", ["new", "overwrite", "update"]),
        ("damaged", ["new", "update"]),
        ("nothing", ["update"]),
    ],
)
def test_plan_refuses_what_convert_refuses_in_the_same_words(root, how, modes):
    out, images = root / "other", root / "images"
    occupy(out, how, images)
    for mode in modes:
        before = list_states(root)
        with pytest.raises(ShardmillError) as planned:
            plan(images, out, OTHER, mode=mode)
        assert list_states(root) == before
        with pytest.raises(ShardmillError) as converted:
            run_conversion(images, out, OTHER, mode=mode)
        assert planned.type is converted.type
        assert str(planned.value) == str(converted.value)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/proc/x", "output /proc/x cannot be made in /proc: choose another folder"),
        ("/sys/x/y", "output /sys/x/y cannot be made in /sys: choose another folder"),
        ("x" * 255, "x is too long by 15 bytes, because"),
        ("new/" + "ü" * 121, "ü is too long by 2 bytes, because"),
        ("file/out", "/file is in the way: it has to be a folder"),
        ("gone/new/out", "/gone is in the way: it has to be a folder"),
    ],
)
def test_plan_and_convert_refuse_an_output_that_cannot_be_made_in_the_same_words(
    root, place, message
):
    (root / "file").touch()
    (root / "gone").symlink_to(root / "nowhere")
    before = sorted(root.rglob("*"))
    for mode in ("new", "overwrite"):
        with pytest.raises(ShardmillError) as planned:
            plan(root / "images", root / place, OTHER, mode=mode)
        with pytest.raises(ShardmillError) as converted:
            run_conversion(root / "images", root / place, OTHER, mode=mode)
        assert planned.type is converted.type
        assert message in str(planned.value)
        assert str(planned.value) == str(converted.value)
    assert sorted(root.rglob("*")) == before


def test_the_longest_name_that_leaves_room_for_a_replacement_is_accepted(root):
    out = root / ("x" * 240)
    assert plan(root / "images", out, OTHER).action == "write"
    run_conversion(root / "images", out, OTHER, IN_MEMORY)
    assert run_conversion(root / "images", out, OPTIONS, IN_MEMORY, mode="overwrite").written == 4


def test_plan_refuses_an_output_that_is_being_written(root):
    out = root / "other"
    with out.lock():
        before = list_states(root)
        with pytest.raises(LockedError, match="being written by process"):
            plan(root / "images", out, OTHER)
        assert list_states(root) == before


def test_plan_says_what_becomes_of_the_output_and_writes_nothing(root):
    images, out = root / "images", root / "out"
    write_folder(images, root / "begun", OPTIONS)
    shard = next((root / "begun").glob("*-00002-*.tfrecord"))
    shard.unlink()
    before = list_states(root)
    for place, options, mode, expected in (
        ("new", OTHER, "new", ("write", (2, 0), False)),
        ("out", OPTIONS, "new", ("nothing", (0, 4), False)),
        ("out", OTHER, "overwrite", ("replace", (2, 0), False)),
        ("out", OPTIONS, "overwrite", ("replace", (4, 0), False)),
        ("out", None, "update", ("nothing", (0, 4), False)),
        ("begun", OPTIONS, "new", ("resume", (1, 3), False)),
        ("begun", OTHER, "overwrite", ("write", (2, 0), True)),
    ):
        found = plan(images, root / place, options, mode=mode)
        assert (found.action, found.shards, found.discards) == expected, (place, mode)
    assert list_states(root) == before
    assert run_conversion(images, out, OTHER, IN_MEMORY, mode="overwrite").written == 2


def test_plan_of_a_damaged_data_set_that_is_to_be_replaced(root):
    (root / "out" / "manifest.json").write_bytes(b"{")
    message = r"manifest\.json is damaged: .*; .* --overwrite$"
    for mode in ("new", "update"):
        for ask in (plan, run_conversion):
            with pytest.raises(DatasetError, match=message):
                ask(root / "images", root / "out", OPTIONS, mode=mode)
    found = plan(root / "images", root / "out", OPTIONS, mode="overwrite")
    assert (found.action, found.manifest) == ("replace", None)
    assert run_conversion(root / "images", root / "out", OPTIONS, mode="overwrite").written == 4


def test_plan_sees_a_data_set_that_a_kill_caught_between_two_renames(root):
    out = root / "out"
    out.rename(Layout(out).retired)
    before = list_states(root)
    assert plan(root / "images", out, OPTIONS).action == "nothing"
    with pytest.raises(UsageError, match="a finished data set"):
        plan(root / "images", out, OTHER)
    assert plan(root / "images", out, mode="update").action == "nothing"
    assert list_states(root) == before


def test_plan_of_an_update_says_what_the_update_does(root):
    images, out = root / "images", root / "out"
    write_image(images / "b" / "new.png", 99)
    write_image(images / "d" / "1.png", 98)
    (images / "b" / "2.png").unlink()
    before = list_states(root)
    found = plan(images, out, mode="update")
    assert list_states(root) == before
    done = run_conversion(images, out, None, IN_MEMORY, mode="update")
    for update in (found.update, done.update):
        assert (update.added, update.changed, update.removed) == (1, 1, 1)
    assert (found.action, found.shards) == ("update", (done.written, done.kept))


def test_plan_of_an_output_in_a_store_writes_nothing_there(root, server):
    out = server.path(uuid.uuid4().hex)
    assert plan(root / "images", out, OTHER).action == "write"
    assert list(list_objects(out)) == []
    run_conversion(root / "images", out, OTHER, IN_MEMORY)
    before = list(list_objects(out))
    assert plan(root / "images", out, OTHER).action == "nothing"
    with pytest.raises(UsageError, match="a finished data set"):
        plan(root / "images", out, OPTIONS)
    assert plan(root / "images", out, OPTIONS, mode="overwrite").action == "replace"
    write_image(root / "images" / "b" / "new.png", 99)
    assert plan(root / "images", out, mode="update").update.added == 1
    assert list(list_objects(out)) == before


def test_plan_of_several_sizes_names_each(root):
    images, out = root / "images", root / "sizes"
    sizes = [OTHER, replace(OTHER, image_size=(9, 9))]
    assert {name: found.action for name, found in plan_sizes(images, out, sizes).items()} == {
        "8x8": "write",
        "9x9": "write",
    }
    convert_sizes(images, out, sizes[:1], IN_MEMORY)
    actions = [found.action for found in plan_sizes(images, out, sizes).values()]
    assert actions == ["nothing", "write"]


def test_an_update_names_classes_that_came_went_and_were_renamed(root, capsys):
    images, out = root / "images", root / "out"
    (images / "d").rename(images / "dog")
    write_image(images / "new" / "1.png", 77)
    for path in (images / "b").iterdir():
        path.unlink()
    command = [str(images), str(out), "--update"]
    assert main(["plan", *command]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert main(["convert", *command, "--no-progress", *IN_MEMORY]) == 0
    done = capsys.readouterr().out.splitlines()
    expected = [
        "  images: 11 added, 0 changed, 20 removed",
        "  class d (label 1) is renamed to dog (label 2)",
        "  class new (label 3) is new",
        "  class b (label 0) has no images any more",
        "  empty classes keep their labels; to drop them, convert again with --overwrite, and with "
        "--classes without them",
    ]
    assert planned[:5] == expected
    assert done[1:6] == expected
    notes = [line for line in planned if line.startswith("  note: ")]
    assert notes == ["  note: empty_class (2): a class without an image: b, d"]
    assert [line for line in done if line.startswith("  note: ")] == notes
    assert planned[-2] == f"would update {out}: write 4 shards"
    assert planned[-1] == "nothing was written"
    classes = read_manifest(out).classes
    assert classes == ("b", "d", "dog", "new")


@pytest.mark.parametrize("more", [True, False])
def test_a_renamed_class_may_gain_or_lose_images(root, more):
    images = root / "images"
    (images / "d").rename(images / "dog")
    if more:
        write_image(images / "dog" / "new.png", 99)
    else:
        (images / "dog" / "1.png").unlink()
    assert plan(images, root / "out", mode="update").classes == ((), (), (("d", "dog"),))


def test_a_class_with_other_images_is_not_a_renamed_one(root):
    images = root / "images"
    shutil.rmtree(images / "d")
    for seed in range(50, 60):
        write_image(images / "e" / f"{seed}.png", seed)
    classes = plan(images, root / "out", mode="update").classes
    assert classes == (("e",), ("d",), ())


def test_a_class_in_a_compressed_archive_is_renamed(root):
    images = root / "images"
    archive = shutil.make_archive(str(root / "packed"), "gztar", images)
    run_conversion(archive, root / "packed-8", OTHER, IN_MEMORY)
    (images / "d").rename(images / "dog")
    shutil.make_archive(str(root / "packed"), "gztar", images)
    found = plan(archive, root / "packed-8", mode="update")
    assert found.classes.renamed == (("d", "dog"),)


def test_plan_answers_programs(root, capsys):
    images, out = root / "images", root / "out"
    assert main(["plan", str(images), str(root / "new"), "--json"]) == 0
    printed = capsys.readouterr()
    (found,) = json.loads(printed.out)["datasets"]
    assert printed.err == ""
    assert (found["action"], found["folder"]) == ("write", str(root / "new"))
    assert found["proposal"]["classes"] == {"b": 10, "d": 10}
    assert found["proposal"]["splits"]["train"]["records"] == 20

    (images / "b" / "0.png").unlink()
    assert main(["plan", str(images), str(out), "--update", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["datasets"]
    assert found["shards"] == {"written": 1, "kept": 3}
    assert found["update"]["images"] == {"added": 0, "changed": 0, "removed": 1}
    assert found["proposal"] is None


def test_a_replaced_plan_keeps_what_it_may_resume(root):
    images, out = root / "images", root / "out"
    draft = propose(images, OTHER, always_sample=False).draft
    write_plan(draft, OTHER, images=images, out=Layout(out).stage)
    for options, discards in ((OTHER, False), (OPTIONS, True)):
        found = plan(images, out, options, mode="overwrite")
        assert (found.action, found.discards) == ("replace", discards)
