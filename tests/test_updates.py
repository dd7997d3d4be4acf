"""An update writes what it has to, and leaves everything else as it is."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import (
    convert_folder,
    draw_split,
    drop_companions,
    encode_image,
    list_states,
    make_image,
    run_conversion,
    write_folder,
    write_image,
)
from hypothesis import given
from hypothesis import strategies as st

from converter.commits.commit import commit, list_finished, read_notes
from converter.commits.replacements import replace_dataset
from converter.errors import DatasetError, UsageError
from converter.format.manifest import read_manifest
from converter.inventory import Entry, Inventory
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.planning.splits import draw
from converter.sources.joined import keep_labels
from converter.sources.scan import scan_folder
from converter.storage import disk
from converter.storage.files import Layout, name_index
from converter.upkeep.contents import Source, read_sources
from converter.upkeep.updates import Update, carry_shards, place_additions, plan_update
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import Job, read_receipt, receipt_path, write_shard
from reader import Record, open_shards

OPTIONS = ConvertOptions(
    source="folders", image_size=(8, 10), encoding="png", num_shards=4, validation_split=0.3, seed=3
)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of them bad, and the data set of them: `images` and `out`."""
    root = tmp_path_factory.mktemp("original")
    for seed in range(40):
        write_image(root / "images" / "bd"[seed % 2] / f"{seed}.png", seed)
    (root / "images" / "b" / "bad.png").write_bytes(b"bad")
    convert_folder(root / "images", root / "out", OPTIONS)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(original, tmp_path / "root")


def update_folder(root: Path) -> Update:
    """An update without Beam."""
    images, out = root / "images", root / "out"
    update = plan_update(out, read_manifest(out), images, scan_folder(images))
    if update.needed:
        stage = Layout(out).stage
        plan = write_plan(update.draft, OPTIONS, images=images, out=stage)
        plan = carry_shards(update, out, plan)
        finished = list_finished(plan)
        assert {shard.name for shard in finished} == set(update.kept)
        for shard in set(plan.shards) - set(finished):
            write_shard(shard, Job(images=images, out=stage, options=OPTIONS))
        commit(plan, keep_work=True)
        replace_dataset(out)
    assert verify_dataset(out) == []
    return update


def list_sources(out: Path) -> dict[str, list[Source]]:
    return {shard.name: read_sources(out, shard) for shard in read_manifest(out).shards}


def find_shard(out: Path, path: str) -> str:
    return next(
        name
        for name, sources in list_sources(out).items()
        if path in [source.path for source in sources]
    )


def list_inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in out.iterdir() if "train-" in path.name}


def test_nothing_different_is_nothing_to_do(root: Path) -> None:
    before = list_states(root / "out")
    update = update_folder(root)
    assert (update.needed, update.added, update.changed, update.removed) == (False, 0, 0, 0)
    assert len(update.kept) == len(read_manifest(root / "out").shards)
    assert list_states(root / "out") == before


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_only_the_shard_of_an_image_is_written_again(root: Path, what: str) -> None:
    out, path = root / "out", "b/8.png"
    old, shard, inodes = list_sources(out), find_shard(out, path), list_inodes(out)
    if what == "changed":
        write_image(root / "images" / path, 99)
    else:
        (root / "images" / path).unlink()

    update = update_folder(root)

    assert set(old) - set(update.kept) == {shard}
    assert (update.added, update.changed + update.removed) == (0, 1)
    new = list_sources(out)
    for name, sources in old.items():
        rest = [source for source in new[name] if source.path != path]
        assert rest == [source for source in sources if source.path != path]
    assert (path in [source.path for source in new[shard]]) == (what == "changed")
    kept = {name for name, inode in list_inodes(out).items() if inodes[name] == inode}
    assert set(inodes) - kept == {shard, name_index(shard)} & set(inodes)


def test_what_only_looks_changed_is_not(root: Path) -> None:
    for path in (root / "images").rglob("*.png"):
        os.utime(path, ns=(1, 1))
    assert not update_folder(root).needed


def test_a_change_that_keeps_the_size_is_found(root: Path) -> None:
    path = root / "images" / "b" / "8.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert update_folder(root).changed == 1


def test_new_images_go_into_few_shards_and_the_split_that_a_conversion_would_give(
    root: Path,
) -> None:
    out = root / "out"
    old = list_sources(out)
    for seed in range(50, 54):
        write_image(root / "images" / "b" / f"{seed}.png", seed)
    update = update_folder(root)
    assert update.added == 4
    assert len(old) - len(update.kept) <= 2
    new = list_sources(out)
    for name, sources in new.items():
        assert {draw_split(source.path, OPTIONS) for source in sources} == {name.split("-")[0]}
        ranks = [draw(source.path, OPTIONS).rank for source in sources]
        assert ranks == sorted(ranks)
        assert set(old[name]) <= set(sources)
    assert sum(map(len, new.values())) == sum(map(len, old.values())) + 4


def test_a_shard_that_is_written_anyway_takes_the_new_image(root: Path) -> None:
    out = root / "out"
    train = [name for name in list_sources(out) if name.startswith("train")]
    largest = max(train, key=lambda name: len(list_sources(out)[name]))
    (root / "images" / list_sources(out)[largest][0].path).unlink()
    new = next(
        f"b/{seed}.png" for seed in range(60, 99) if draw_split(f"b/{seed}.png", OPTIONS) == "train"
    )
    write_image(root / "images" / new, 60)
    assert len(read_manifest(out).shards) - len(update_folder(root).kept) == 1
    assert find_shard(out, new) == largest


def test_old_classes_keep_their_labels_and_new_ones_come_behind(root: Path) -> None:
    for name, seed in (("a", 70), ("c", 71)):
        write_image(root / "images" / name / "1.png", seed)
    labels = {s.path: s.label for sources in list_sources(root / "out").values() for s in sources}
    update_folder(root)
    manifest = read_manifest(root / "out")
    assert manifest.classes == ("b", "d", "a", "c")
    assert (root / "out" / "labels.txt").read_text() == "b\nd\na\nc\n"
    after = {s.path: s.label for sources in list_sources(root / "out").values() for s in sources}
    assert after == {**labels, "a/1.png": 2, "c/1.png": 3}


def test_images_whose_label_stays_are_not_copied() -> None:
    # A million copies would take 70 MB.
    entries = (Entry("a/1.png", 0, 10), Entry("b/2.png", 1, 20), Entry("c/3.png", 2, 30))
    inventory = Inventory(classes=("a", "b", "c"), entries=entries, skipped=())
    same = keep_labels(inventory, ("a", "b", "c"))
    assert all(new is old for new, old in zip(same.entries, entries, strict=True))
    other = keep_labels(inventory, ("a", "c"))
    assert other.classes == ("a", "c", "b")
    assert [entry.label for entry in other.entries] == [0, 2, 1]


def test_a_class_that_is_gone_keeps_its_label(root: Path) -> None:
    shutil.rmtree(root / "images" / "b")
    update = update_folder(root)
    assert update.removed == 20
    manifest = read_manifest(root / "out")
    assert manifest.classes == ("b", "d")
    assert [split.labels[0] for split in manifest.splits.values()] == [0, 0]


def test_a_bad_image_is_tried_again_and_costs_no_shard_while_it_is_bad(root: Path) -> None:
    (root / "images" / "b" / "bad.png").write_bytes(b"worse than before")
    assert not update_folder(root).needed
    (root / "images" / "b" / "bad.png").write_bytes(b"")
    update = update_folder(root)
    assert (update.needed, update.added, len(update.kept)) == (True, 0, 5)
    assert read_manifest(root / "out").totals.rejected == {"empty": 1}
    write_image(root / "images" / "b" / "bad.png", 80)
    assert update_folder(root).added == 1
    assert read_manifest(root / "out").totals.rejected == {}


def test_everything_stays_accounted_for(root: Path) -> None:
    (root / "images" / "d" / "cut.png").write_bytes(encode_image(make_image(1), "PNG")[:99])
    (root / "images" / "d" / "notes.txt").touch()
    (root / "images" / "d" / "1.png").write_bytes(b"spoilt")
    (root / "images" / "d" / "3.png").unlink()
    update_folder(root)
    manifest = read_manifest(root / "out")
    totals = manifest.totals
    assert (totals.scanned, totals.written) == (scan_folder(root / "images").scanned, 38)
    assert totals.rejected == {"decode_error": 1, "not_an_image": 2}
    assert totals.skipped == {"skipped_extension": 1}
    lines = (root / "out" / "rejects.jsonl").read_text().splitlines()
    assert {(line["path"], line["code"]) for line in map(json.loads, lines)} == {
        ("b/bad.png", "not_an_image"),
        ("d/1.png", "not_an_image"),
        ("d/cut.png", "decode_error"),
        ("d/notes.txt", "skipped_extension"),
    }
    update = update_folder(root)
    assert not update.needed


def test_a_data_set_says_how_often_it_was_updated(root: Path) -> None:
    assert read_manifest(root / "out").updated == 0
    for number in (1, 2):
        write_image(root / "images" / "b" / f"new {number}.png", number)
        update_folder(root)
        assert read_manifest(root / "out").updated == number
    with pytest.raises(UsageError, match="which was updated"):
        run_conversion(root / "images", root / "out", OPTIONS)


def test_readers_read_what_was_updated(root: Path) -> None:
    write_image(root / "images" / "a" / "new.png", 90)
    (root / "images" / "d" / "5.png").unlink()
    update_folder(root)
    shards = open_shards(root / "out")
    assert shards.class_names == ["b", "d", "a"]
    paths = {record.source_id for split in shards.splits for record in shards.source(split)[:]}
    assert paths == {entry.path for entry in scan_folder(root / "images").entries} - {"b/bad.png"}


def test_the_same_update_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    write_image(root / "images" / "b" / "new.png", 90)
    (root / "images" / "d" / "5.png").unlink()
    other = shutil.copytree(root, tmp_path / "other")
    update_folder(root)
    run_conversion(other / "images", other / "out", None, IN_MEMORY, mode="update")
    assert read_tree(root / "out") == read_tree(other / "out")


def read_tree(folder: Path) -> dict[str, bytes]:
    return drop_companions({path.name: path.read_bytes() for path in folder.iterdir()})


def test_an_update_that_was_killed_goes_on(root: Path, tmp_path: Path) -> None:
    write_image(root / "images" / "b" / "new.png", 90)
    (root / "images" / "d" / "5.png").unlink()
    other = shutil.copytree(root, tmp_path / "other")
    images, out = root / "images", root / "out"
    old = read_tree(out)
    update = plan_update(out, read_manifest(out), images, scan_folder(images))
    plan = write_plan(update.draft, OPTIONS, images=images, out=Layout(out).stage)
    carry_shards(update, out, plan)
    assert read_tree(out) == old

    conversion = run_conversion(images, out, None, IN_MEMORY, mode="update")
    assert conversion.kept == len(update.kept)
    assert conversion.written == len(plan.shards) - len(update.kept)
    update_folder(other)
    assert read_tree(out) == read_tree(other / "out")
    assert {path.name for path in root.iterdir()} == {"images", "out"}


def test_a_replacement_of_something_else_that_was_left_is_given_up(root: Path) -> None:
    convert_folder(root / "images", root / "other", OPTIONS)
    (root / "other").rename(Layout(root / "out").stage)
    write_image(root / "images" / "b" / "new.png", 90)
    run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    assert verify_dataset(root / "out") == []
    assert {path.name for path in root.iterdir()} == {"images", "out"}


def test_receipts_of_kept_shards_say_what_milling_said(root: Path) -> None:
    plan = write_folder(root / "images", root / "again", OPTIONS)
    (root / "images" / "b" / "bad.png").unlink()
    commit(plan, keep_work=True)
    update = plan_update(plan.out, read_manifest(plan.out), plan.images, scan_folder(plan.images))
    for shard in plan.shards:
        written = read_receipt(receipt_path(Layout(plan.out), shard))
        assert update.kept[shard.name] == dataclasses.replace(written, rejects=[], plan="")


def test_copies_do_where_there_are_no_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "link_file", lambda *_: False)
    write_image(root / "images" / "b" / "new.png", 90)
    assert update_folder(root).added == 1


@pytest.mark.parametrize("suffix", [".tfindex", ".tfrecord"])
def test_a_damaged_shard_is_named(root: Path, suffix: str) -> None:
    path = (root / "out" / "train-00001-of-00004.tfrecord").with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-00001-of-00004\.tf"):
        update_folder(root)


def test_other_options_are_refused_by_name(root: Path) -> None:
    options = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=4)
    with pytest.raises(UsageError, match=r"\(validation_split was 0\.3, is 0\.0; seed .*3, .*0\)"):
        run_conversion(root / "images", root / "out", options, mode="update")


def test_there_has_to_be_something_to_update(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no finished data set .* --update"):
        run_conversion(root / "images", root / "new", OPTIONS, mode="update")
    with pytest.raises(UsageError, match=r"'renew' is unknown: .* new, overwrite"):
        run_conversion(root / "images", root / "out", OPTIONS, mode="renew")
    assert not (root / "new").exists()


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=20),
    st.integers(0, 300),
    st.sets(st.integers(0, 19)),
)
def test_every_addition_has_a_place_and_no_shard_outgrows_the_others(
    sizes: list[int], additions: int, touched: set[int]
) -> None:
    taken = place_additions(sizes, additions, touched)
    assert sum(taken) == additions
    assert min(taken) >= 0
    mean = -(-(sum(sizes) + additions) // len(sizes))
    assert all(size + new <= mean * 1.25 for size, new in zip(sizes, taken, strict=True) if new)


def list_splits(out: Path) -> dict[str, tuple[str, str]]:
    """Split and class of each original, by its path."""
    manifest = read_manifest(out)
    return {
        source.path: (
            shard.split,
            manifest.classes[source.label] if manifest.labelled else "",
        )
        for shard in manifest.shards
        for source in read_sources(out, shard, labelled=manifest.labelled)
    }


def test_a_row_that_changes_its_split_or_its_label_moves(tmp_path: Path) -> None:
    rows = {}
    for seed in range(20):
        write_image(tmp_path / f"{seed:02}.png", seed)
        rows[f"{seed:02}.png"] = ["ab"[seed % 2], ("train", "test")[seed % 4 == 0]]

    def write() -> None:
        lines = [f"{path},{label},{split}\n" for path, (label, split) in rows.items()]
        (tmp_path / "t.csv").write_text("path,label,split\n" + "".join(lines))

    write()
    out, options = tmp_path / "out", dataclasses.replace(OPTIONS, split_column="split")
    options = dataclasses.replace(options, validation_split=0.0, num_shards=3, source="table")
    run_conversion(tmp_path / "t.csv", out, options, IN_MEMORY)
    assert list_splits(out) == {path: (split, label) for path, (label, split) in rows.items()}
    rows["01.png"], rows["02.png"] = ["b", "test"], ["b", "train"]
    del rows["03.png"]
    write()
    update = run_conversion(tmp_path / "t.csv", out, None, IN_MEMORY, mode="update").update
    assert (update.added, update.changed, update.removed) == (1, 1, 2)
    assert list_splits(out) == {path: (split, label) for path, (label, split) in rows.items()}
    assert verify_dataset(out) == []
    rows["04.png"] = ["a", "valid"]
    write()
    with pytest.raises(UsageError, match="into split 'validation'"):
        run_conversion(tmp_path / "t.csv", out, None, IN_MEMORY, mode="update")


def test_images_without_labels_are_updated(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, label_from="none")
    for seed in range(20):
        write_image(tmp_path / "images" / f"{seed}.png", seed)
    run_conversion(tmp_path / "images", tmp_path / "out", options, IN_MEMORY)
    before = list_splits(tmp_path / "out")
    write_image(tmp_path / "images" / "new.png", 77)
    (tmp_path / "images" / "3.png").unlink()
    update = run_conversion(
        tmp_path / "images", tmp_path / "out", None, IN_MEMORY, mode="update"
    ).update
    assert (update.added, update.changed, update.removed) == (1, 0, 1)
    after = list_splits(tmp_path / "out")
    assert set(after) ^ set(before) == {"new.png", "3.png"}
    assert all(after[path] == before[path] for path in set(after) & set(before))
    assert verify_dataset(tmp_path / "out") == []


def test_a_copy_of_an_old_image_joins_its_split(root: Path) -> None:
    before = list_splits(root / "out")
    for path in list(before):
        target = root / "images" / path.replace("/", "/copy of ")
        target.write_bytes((root / "images" / path).read_bytes())
    run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    after = list_splits(root / "out")
    assert len(after) == 2 * len(before)
    for path, place in before.items():
        assert after[path] == after[path.replace("/", "/copy of ")] == place


COLUMNS = {"caption_column": "caption", "boxes_column": "boxes", "box_labels_column": "things"}


def test_rows_with_other_values_are_written_again(tmp_path: Path) -> None:
    rows: dict[int, dict[str, object]] = {}
    for seed in range(12):
        write_image(tmp_path / f"{seed:02}.png", seed)
        rows[seed] = {"caption": f"number {seed}", "boxes": [[1.1, 2, 9, 12]], "things": ["cup"]}
        rows[seed] |= {"price": seed / 7 if seed else None, "tags": ["x"] * (seed % 3)}

    def update(options: ConvertOptions | None = None) -> tuple[int, ...]:
        lines = [json.dumps({"path": f"{seed:02}.png", **row}) for seed, row in rows.items()]
        (tmp_path / "t.jsonl").write_text("\n".join(lines))
        found = run_conversion(
            tmp_path / "t.jsonl",
            tmp_path / "out",
            options,
            IN_MEMORY,
            mode="new" if options else "update",
        )
        if found.update is None:
            return ()
        return found.update.added, found.update.changed, found.update.removed, found.written

    def read_values() -> dict[str, dict[str, object]]:
        return {record.source_id: dict(record.values) for record in open_source(tmp_path / "out")}

    kept = ("price", "tags")
    update(ConvertOptions(image_size=(8, 10), num_shards=4, keep_columns=kept, **COLUMNS))
    before = read_values()
    assert update() == (0, 0, 0, 0)
    rows[1]["caption"] = "another"
    assert update() == (0, 1, 0, 1)
    rows[2]["boxes"], rows[2]["things"] = [[1, 2, 9, 12], [3, 3, 9, 9]], ["cup", "ant"]
    assert update() == (0, 1, 0, 1)
    # A class that comes first by its name does not change the numbers of the others.
    after = read_values()
    assert after["02.png"]["image/object/class/label"] == [0, 1]
    assert after["01.png"] == {**before["01.png"], "image/caption": "another"}
    assert [after[path] for path in after if path > "03"] == [
        before[path] for path in after if path > "03"
    ]
    rows[3]["tags"], rows[4]["price"] = [], 1e9
    del rows[5]
    rows[0]["price"] = 0.5
    assert update()[:3] == (0, 2, 1)
    assert verify_dataset(tmp_path / "out") == []
    rows[6]["price"] = "dear"
    with pytest.raises(UsageError, match=r"price .* the same kind"):
        update()


def open_source(out: Path) -> list[Record]:
    return list(open_shards(out).source("train"))


def convert_grouped(root: Path, options: ConvertOptions, names: Iterable[str]) -> None:
    for seed, name in enumerate(names):
        write_image(root / "images" / "a" / name, seed)
    convert_folder(root / "images", root / "out", options)


def read_splits(out: Path) -> dict[str, str]:
    """The split of each image, by its path."""
    return {
        source.path: shard.split
        for shard in read_manifest(out).shards
        for source in read_sources(out, shard)
    }


def list_notes(out: Path) -> set[tuple[str, tuple[str, ...]]]:
    return {(note.code, note.names) for note in read_notes(out)}


def test_content_that_an_update_brings_into_two_splits_is_noted(tmp_path: Path) -> None:
    options = ConvertOptions(image_size=(8, 8), encoding="png", num_shards=2, validation_split=0.3)
    convert_grouped(tmp_path, options, [f"{number:02}.png" for number in range(20)])
    splits = read_splits(tmp_path / "out")
    train, other = (
        next(path for path, split in splits.items() if split == name)
        for name in ("train", "validation")
    )
    shutil.copy(tmp_path / "images" / train, tmp_path / "images" / other)
    run_conversion(tmp_path / "images", tmp_path / "out", None, IN_MEMORY, mode="update")
    assert read_splits(tmp_path / "out") == splits
    pair = tuple(sorted((train, other)))
    assert ("duplicate_split", pair) in list_notes(tmp_path / "out")


def test_a_new_image_follows_its_group_before_one_of_the_same_content(tmp_path: Path) -> None:
    options = ConvertOptions(
        image_size=(8, 8),
        encoding="png",
        num_shards=2,
        validation_split=0.3,
        group_by=r"(p\d+)_",
    )
    names = [f"p{patient}_{number}.png" for patient in range(8) for number in range(4)]
    convert_grouped(tmp_path, options, names)
    before = read_splits(tmp_path / "out")
    homes = {path.partition("_")[0]: split for path, split in before.items()}
    train, held_out = (
        next(group for group, split in homes.items() if split == name)
        for name in ("train", "validation")
    )
    folder = tmp_path / "images"
    # The two groups have an image in common by now, and all get another one.
    shutil.copy(folder / f"{held_out}_0.png", folder / f"{train}_8.png")
    for number, group in enumerate(homes):
        write_image(folder / f"{group}_9.png", 100 + number)
    run_conversion(tmp_path / "images", tmp_path / "out", None, IN_MEMORY, mode="update")
    after = read_splits(tmp_path / "out")
    assert len(after) == len(before) + 9
    assert {path.partition("_")[0]: split for path, split in after.items()} == homes
    assert all(homes[path.partition("_")[0]] == split for path, split in after.items())
    pair = tuple(sorted((f"{held_out}_0.png", f"{train}_8.png")))
    assert ("duplicate_split", pair) in list_notes(tmp_path / "out")


def test_an_update_does_not_give_up_a_replacement_that_is_not_finished(root: Path) -> None:
    images, out = root / "images", root / "out"
    other = dataclasses.replace(OPTIONS, seed=9)
    staged = write_folder(images, Layout(out).stage, other)
    write_image(images / "b" / "new.png", 99)
    with pytest.raises(UsageError, match=r"about to be replaced: .* --overwrite"):
        run_conversion(images, out, None, IN_MEMORY, mode="update")
    assert list_finished(staged) == list(staged.shards)
    (images / "b" / "new.png").unlink()
    done = run_conversion(images, out, other, IN_MEMORY, mode="overwrite")
    assert (done.written, done.kept) == (0, len(staged.shards))
    # One of an update is gone on with, or given up for the next one.
    write_image(images / "b" / "new.png", 99)
    Layout(Layout(out).stage).make_work_folders()
    Layout(Layout(out).stage).plan.write_bytes(b"damaged")
    assert run_conversion(images, out, None, IN_MEMORY, mode="update").update.added == 1
