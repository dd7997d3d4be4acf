"""Several IMAGES as one data set: paths, classes, kinds, and every job on it."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import convert_folder, run_conversion, write_image

from converter.errors import UsageError
from converter.format.manifest import read_manifest
from converter.inventory import NO_LABEL, Entry, Inventory
from converter.options import ConvertOptions
from converter.sources.joined import (
    join_images,
    keep_labels,
    locate_images,
    locate_originals,
    open_members,
)
from converter.sources.scan import scan_images
from converter.storage.locate import locate
from converter.storage.object_requests import put_object
from pipelines.cli.commands import main
from pipelines.jobs.preview import plan
from pipelines.jobs.upkeep import repair, verify
from reader import open_shards

OPTIONS = ConvertOptions(image_size=(8, 8), encoding="png", num_shards=2)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two folders with images of the same names and one class in common."""
    for seed, (folder, name) in enumerate(
        (folder, f"{label}/{number}.png")
        for folder, labels in (("a", ("dogs", "cats")), ("b", ("birds", "cats")))
        for label in labels
        for number in range(4)
    ):
        write_image(tmp_path / folder / name, seed)
    return [tmp_path / "a", tmp_path / "b"]


def scan(images: list[Path], options: ConvertOptions = OPTIONS) -> Inventory:
    return scan_images(*join_images(locate_images(images), options))


def pack(folder: Path, archive: Path) -> Path:
    """An archive of a folder, of the kind that its name says."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*.png")):
                packed.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as tar:
            tar.add(folder, ".")
    return archive


def list_records(out: Path) -> dict[str, tuple[str, bytes]]:
    shards = open_shards(out)
    return {
        record.source_id: (shards.class_names[record.label], record.encoded)
        for split in shards.splits
        for record in shards.source(split)[:]
    }


def test_equal_names_are_told_apart_and_equal_classes_joined(two):
    found = scan(two)
    assert found.classes == ("cats", "dogs", "birds")
    labels = {entry.path: found.classes[entry.label] for entry in found.entries}
    assert labels["a/cats/0.png"] == labels["b/cats/0.png"] == "cats"
    assert len(labels) == 16
    assert [entry.path for entry in found.entries] == sorted(labels)


def test_the_classes_of_the_first_keep_their_labels(two):
    first = scan_images(locate(two[1]), OPTIONS).classes
    assert scan(two[::-1]).classes[: len(first)] == first


def test_one_place_is_as_if_it_were_given_alone(two):
    assert join_images(locate_images(two[0]), OPTIONS)[0] == locate(two[0])
    assert scan(two[:1]) == scan_images(locate(two[0]), OPTIONS)


@pytest.mark.parametrize("suffix", [".tar", ".zip", ".tgz"])
def test_a_folder_and_an_archive_are_one_data_set(two, tmp_path, suffix):
    images = [two[0], pack(two[1], tmp_path / f"b{suffix}")]
    out = tmp_path / "out"
    run_conversion(images, out, OPTIONS, IN_MEMORY)
    expected = {}
    for folder, prefix in zip(two, ("a", f"b{suffix}"), strict=True):
        alone = tmp_path / f"only {prefix}"
        convert_folder(folder, alone, OPTIONS)
        expected |= {f"{prefix}/{path}": held for path, held in list_records(alone).items()}
    assert list_records(out) == expected
    assert verify(out, sources=images) == []
    again = run_conversion(images, out, OPTIONS, IN_MEMORY)
    assert again.unchanged


def test_a_table_and_a_folder_are_one_data_set(two, tmp_path):
    rows = [f"{path.relative_to(two[1])},{path.parent.name}" for path in two[1].rglob("*.png")]
    table = tmp_path / "b" / "rows.csv"
    table.write_text("\n".join(["path,label", *rows]) + "\n")
    found = scan([two[0], table])
    assert {entry.path for entry in found.entries} == {entry.path for entry in scan(two).entries}


def test_an_update_takes_changes_of_each(two, tmp_path):
    out = tmp_path / "out"
    run_conversion(two, out, OPTIONS, IN_MEMORY)
    (two[0] / "cats" / "0.png").unlink()
    write_image(two[1] / "cats" / "new.png", 99)
    done = run_conversion(two, out, None, IN_MEMORY, mode="update")
    assert (done.update.added, done.update.removed) == (1, 1)
    assert run_conversion(two, out, OPTIONS, IN_MEMORY, mode="update").unchanged
    assert verify(out, sources=two) == []


def test_a_lost_shard_is_rebuilt_from_all_of_them(two, tmp_path):
    images, out = [two[0], pack(two[1], tmp_path / "b.tar")], tmp_path / "out"
    run_conversion(images, out, OPTIONS, IN_MEMORY)
    (out / read_manifest(locate(out)).shards[0].name).unlink()
    assert repair(out, images, IN_MEMORY).left == ()
    assert verify(out) == []


def test_a_repair_needs_the_same_of_them(two, tmp_path):
    out = tmp_path / "out"
    run_conversion(two, out, OPTIONS, IN_MEMORY)
    with pytest.raises(UsageError, match="the same 2 IMAGES"):
        repair(out, two[0], IN_MEMORY)


def test_a_changed_original_is_named_with_its_place(two, tmp_path):
    images, out = [two[0], pack(two[1], tmp_path / "b.tgz")], tmp_path / "out"
    run_conversion(images, out, OPTIONS, IN_MEMORY)
    write_image(two[0] / "cats" / "0.png", 77)
    shutil.rmtree(two[1] / "birds")
    pack(two[1], tmp_path / "b.tgz")
    faults = {fault.file for fault in verify(out, sources=images)}
    birds = {f"b.tgz/birds/{number}.png" for number in range(4)}
    assert faults == {"a/cats/0.png", *birds}


def test_masks_lie_beside_all_of_them(two, tmp_path):
    for path in [*tmp_path.rglob("*.png")]:
        write_image(tmp_path / "masks" / path.relative_to(tmp_path), 0, mode="L")
    options = ConvertOptions(image_size=(8, 8), mask_dir="masks")
    found = scan(two, options)
    assert all(entry.mask.path == entry.path for entry in found.entries)
    with pytest.raises(UsageError, match="lie among the images"):
        scan([*two, tmp_path / "masks" / ".." / "masks"], options)


def test_the_splits_of_each_are_kept(two, tmp_path):
    shutil.copytree(two[0], tmp_path / "c" / "train")
    shutil.copytree(two[1], tmp_path / "c" / "test")
    found = {
        entry.path.rpartition("/")[0]: entry.split for entry in scan([tmp_path / "c", *two]).entries
    }
    assert found["c/train/cats"] == "train"
    assert found["c/test/birds"] == "test"
    assert found["a/cats"] == ""


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        ([], "nothing to convert"),
        (["a", "a"], "given twice"),
        (["a", "a/cats"], "given twice"),
        (["a", "gone"], "does not exist"),
    ],
)
def test_what_cannot_be_joined_is_refused(two, tmp_path, names, refused):
    with pytest.raises(UsageError, match=refused):
        scan([tmp_path / name for name in names])


def test_other_columns_are_refused(two, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("path,tags\nb/cats/0.png,x|y\n")
    with pytest.raises(UsageError, match="same kind of labels"):
        scan_images(
            locate(tmp_path),
            ConvertOptions(members=("folders:a", "table:rows.csv"), source="auto"),
        )


def test_an_output_may_lie_beside_but_not_in_them(two, tmp_path):
    assert plan(two, tmp_path / "out", OPTIONS).action == "write"
    with pytest.raises(UsageError, match="inside the images"):
        plan(two, two[1] / "out", OPTIONS)


def test_stores_are_joined_within_a_bucket(s3_server, two):
    near, far = locate(two[0]), s3_server.path("photos")
    put_object(far / "cats" / "1.png", (two[0] / "cats" / "0.png").read_bytes())
    with pytest.raises(UsageError, match="different stores"):
        join_images([near, far], OPTIONS)


def test_members_keep_their_kind(two, tmp_path):
    images = [two[0], pack(two[1], tmp_path / "b.tar")]
    folder, options = join_images(locate_images(images), OPTIONS)
    assert options.members == ("folders:a", "archive:b.tar")
    kinds = [own.source for _, own in open_members(folder, options)]
    assert kinds == ["folders", "archive"]
    assert locate_originals(two, options) == folder


def test_labels_of_entries_follow_their_classes():
    inventory = Inventory(
        classes=("x", "y"),
        entries=(Entry("1", 1, 1), Entry("2", NO_LABEL, 1)),
        skipped=(),
    )
    kept = keep_labels(inventory, ("y", "z"))
    assert kept.classes == ("y", "z", "x")
    assert [entry.label for entry in kept.entries] == [0, NO_LABEL]


def test_the_command_takes_several(two, tmp_path, capsys):
    arguments = ["plan", *map(str, two), str(tmp_path / "out")]
    assert main([*arguments, "--image-size=8"]) == 0
    assert "source: folders a, folders b" in capsys.readouterr().out
    assert main(["plan", *map(str, two), "--image-size=8", str(tmp_path / "out")]) == 2
    assert "side by side" in capsys.readouterr().err
