"""Images that are chosen: by class, condition, share and number, from folders and tables."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, list_states, run_conversion, write_image

from converter.commits.commit import read_notes
from converter.errors import UsageError
from converter.format import schema
from converter.format.manifest import read_manifest
from converter.format.schema import Column
from converter.inventory import NO_LABEL, SKIP_RULES, Entry, Inventory, Note
from converter.options import ConvertOptions
from converter.sources.image_choice import choose_images, draw_choice, list_fields
from converter.sources.joined import join_images
from converter.sources.scan import scan_images
from converter.upkeep.verification import verify_dataset
from pipelines import convert, plan
from pipelines.cli.commands import main
from pipelines.jobs.upkeep import repair
from reader import load_dataset, open_shards

IN_MEMORY = ["--direct_running_mode=in_memory"]
SMALL = {"image_size": (4, 4), "encoding": "png", "num_shards": 2}
CLASSES = ("dogs", "kitten -> cats", "cats")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in three classes and two splits; two in different classes have the same content."""
    root = tmp_path_factory.mktemp("chosen")
    for seed in range(30):
        name = ("cats", "dogs", "kitten", "red car", "xen")[seed % 5]
        split = ("train", "val")[seed % 3 == 0]
        write_image(root / "images" / split / name / f"{seed}.png", seed)
    shutil.copy(root / "images/train/cats/5.png", root / "images/train/kitten/twin.png")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True)


def scan(images: Path, **options: object) -> Inventory:
    return scan_images(images, ConvertOptions(**options))


def list_paths(inventory: Inventory) -> list[str]:
    return [entry.path for entry in inventory.entries]


def count_codes(inventory: Inventory) -> dict[str, int]:
    return dict(Counter(file.code for file in inventory.skipped))


def list_labels(inventory: Inventory) -> dict[str, int]:
    """How many images each class has."""
    counts = Counter(entry.label for entry in inventory.entries)
    return {name: counts[label] for label, name in enumerate(inventory.classes)}


# Classes


def test_folders_are_renamed_merged_reordered_and_dropped(original):
    inventory = scan(original / "images", class_names=CLASSES)
    assert inventory.classes == ("dogs", "cats")
    assert list_labels(inventory) == {"dogs": 6, "cats": 13}
    assert count_codes(inventory) == {"skipped_no_label": 12}
    assert inventory.scanned == 31
    by_path = {entry.path: entry.label for entry in inventory.entries}
    assert by_path["train/cats/5.png"] == by_path["train/kitten/twin.png"] == 1


def test_renaming_is_simultaneous(original):
    plain = scan(original / "images")
    swapped = scan(original / "images", class_names=("cats -> dogs", "dogs -> cats"))
    assert list_labels(swapped) == {"dogs": 6, "cats": 6}
    labels = {entry.path: swapped.classes[entry.label] for entry in swapped.entries}
    for entry in plain.entries:
        name = plain.classes[entry.label]
        assert labels.get(entry.path) == {"cats": "dogs", "dogs": "cats"}.get(name)


def test_images_with_the_same_content_agree_when_their_classes_merge(original):
    codes = [note.code for note in scan(original / "images").notes]
    assert codes == ["duplicate_class"]
    assert [note.code for note in scan(original / "images", class_names=CLASSES).notes] == [
        "duplicate"
    ]


def test_a_name_that_nothing_has_is_noted(original):
    images = original / "images"
    assert scan(images, class_names=("cats", "dgos")).notes == (Note("empty_class", ("dgos",), 1),)
    unknown = scan(images, class_names=("cats", "kiten -> cats", "puppy -> dogs"))
    assert unknown.notes == (
        Note("unknown_class", ("kiten", "puppy"), 2),
        Note("empty_class", ("dogs",), 1),
    )


def test_the_background_may_be_renamed_out_of_the_way(tmp_path):
    for seed, name in enumerate(("background", "a", "b")):
        write_image(tmp_path / name / "1.png", seed)
    names = ("background -> sky", "a")
    inventory = scan(tmp_path, class_names=names, label_offset=1)
    assert inventory.classes == ("background", "sky", "a")
    assert list_labels(inventory) == {"background": 0, "sky": 1, "a": 1}
    with pytest.raises(UsageError, match="one of that name"):
        scan(tmp_path, class_names=("a -> background",), label_offset=1)


def test_a_name_with_a_line_break_can_be_renamed(tmp_path):
    write_image(tmp_path / "two\nlines" / "1.png", 1)
    with pytest.raises(UsageError, match="line break"):
        scan(tmp_path)
    assert scan(tmp_path, class_names=("two\nlines -> two",)).classes == ("two",)


def test_stratify_takes_its_share_of_the_new_classes(tmp_path):
    for seed in range(40):
        write_image(tmp_path / "images" / "abcd"[seed % 4] / f"{seed}.png", seed)
    options = ConvertOptions(
        class_names=("a", "b -> a", "c", "d -> c"), validation_split=0.25, stratify=True, **SMALL
    )
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    assert read_manifest(tmp_path / "out").splits["validation"].labels == (5, 5)


def write_rows(root: Path, rows: list[dict]) -> Path:
    table = root / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows with a label, several labels, boxes, and columns to carry."""
    rows = []
    for seed in range(12):
        write_image(tmp_path / f"{seed}.png", seed)
        rows.append(
            {
                "path": f"{seed}.png",
                "label": ("cat", "dog", "car")[seed % 3],
                "tags": (["cat", "kitten", "sky"], ["sky"], [], ["dog"])[seed % 4],
                "boxes": [[1, 2, 9, 9]] * (seed % 3),
                "things": ["kitten", "sky"][: seed % 3],
                "age": seed or None,
                "colour": "red" if seed % 2 else "",
                "scores": [seed, 0.5],
                "day": f"2020-01-{seed + 1:02}",
                "price": seed / 2,
                "text": f"image {seed}",
                "fold": f"g{seed // 4}",
            }
        )
    return write_rows(tmp_path, rows)


def read_column(inventory: Inventory, name: str) -> dict[str, list]:
    """Values of a column by path, class numbers as names."""
    place = [column.name for column in inventory.columns].index(name)
    named = inventory.columns[place].kind == "labels"
    return {
        entry.path: [inventory.classes[n] for n in value] if named else value
        for entry in inventory.entries
        for value in [json.loads(entry.values)[place]]
    }


def test_a_label_column_is_renamed(table):
    inventory = scan(table, class_names=("dog", "car -> thing", "truck -> thing"))
    assert list_labels(inventory) == {"dog": 4, "thing": 4}
    assert count_codes(inventory) == {"skipped_no_label": 4}
    assert inventory.notes[0] == Note("unknown_class", ("truck",), 1)


def test_several_labels_that_merge_are_given_once(table):
    names = ("sky", "cat -> pet", "kitten -> pet", "dog -> pet")
    inventory = scan(table, labels_column="tags", class_names=names)
    assert inventory.classes == ("sky", "pet")
    tags = read_column(inventory, schema.LABELS)
    assert [tags[f"{n}.png"] for n in range(4)] == [["sky", "pet"], ["sky"], [], ["pet"]]
    assert not inventory.skipped


def test_one_class_that_is_dropped_leaves_out_an_image_of_several(table):
    inventory = scan(table, labels_column="tags", class_names=("cat", "kitten", "dog"))
    assert count_codes(inventory) == {"skipped_no_label": 6}
    assert {len(names) for names in read_column(inventory, schema.LABELS).values()} == {0, 1}


def test_trimmed_labels_leave_the_image_unless_none_is_left(table):
    names = ("cat", "kitten -> cat", "dog")
    inventory = scan(table, labels_column="tags", class_names=names, trim_labels=True)
    tags = read_column(inventory, schema.LABELS)
    assert [tags.get(f"{n}.png") for n in range(4)] == [["cat"], None, [], ["dog"]]
    assert count_codes(inventory) == {"skipped_no_label": 3}
    assert Note("trimmed_labels", ("0.png", "4.png", "8.png"), 3) in inventory.notes
    assert inventory.scanned == 12


def test_trimmed_boxes_go_with_their_labels(table):
    columns = {"boxes_column": "boxes", "box_labels_column": "things"}
    options = {**columns, "class_names": ("cat", "kitten -> cat", "dog", "car")}
    assert count_codes(scan(table, **options)) == {"skipped_no_label": 4}
    trimmed = scan(table, **options, trim_labels=True)
    assert not trimmed.skipped
    things = read_column(trimmed, schema.BOX_LABELS)
    boxes = read_column(trimmed, schema.BOXES)
    assert [things[f"{n}.png"] for n in range(3)] == [[], ["cat"], ["cat"]]
    assert [len(boxes[f"{n}.png"]) for n in range(3)] == [0, 1, 1]
    assert Note("trimmed_labels", ("11.png", "2.png", "5.png", "8.png"), 4) in trimmed.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trim_labels": True}, "trim labels takes off"),
        ({"trim_labels": True, "class_names": ("cat",)}, "trim labels .* several labels"),
    ],
)
def test_trimming_that_does_nothing_is_refused(table, options, message):
    with pytest.raises(UsageError, match=message):
        scan(table, **options)


# Conditions


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("label = cats", 6),
        ("label in (cats, dogs)", 12),
        ("label != 'red car'", 25),
        ("label like '*a*'", 12),
        ("split = train", 21),
        ("split = val and split = validation", 10),
        ("split is missing", 0),
        ("group is missing", 31),
        ("path like '*/kitten/*'", 7),
        ("path like train/cats/?.png", 1),
        ("path = train/kitten/twin.png", 1),
        ("bytes > 0 and bytes < 1000000", 31),
        ("not (label = cats or label = xen)", 19),
    ],
)
def test_a_condition_about_folders(original, where, count):
    if not count:
        with pytest.raises(UsageError, match=r"where .* takes none of 31"):
            scan(original / "images", where=where)
        return
    inventory = scan(original / "images", where=where)
    assert len(inventory.entries) == count
    assert count_codes(inventory).get("skipped_where", 0) == 31 - count
    assert inventory.scanned == 31


def test_a_condition_knows_classes_by_their_new_names(original):
    inventory = scan(original / "images", class_names=CLASSES, where="label = cats")
    assert list_labels(inventory) == {"dogs": 0, "cats": 13}
    assert count_codes(inventory) == {"skipped_no_label": 12, "skipped_where": 6}
    assert Note("empty_class", ("dogs",), 1) in inventory.notes
    with pytest.raises(UsageError, match=r"takes none of 19"):
        scan(original / "images", class_names=CLASSES, where="label = kitten")


@pytest.mark.parametrize(
    ("where", "seeds"),
    [
        ("age >= 10", [10, 11]),
        ("age is missing", [0]),
        ("age != 3 and age < 5", [1, 2, 4]),
        ("colour = red and age <= 5", [1, 3, 5]),
        ("colour is missing and label = dog", [4, 10]),
        ("day >= '2020-01-10' and day < 2020-01-12", [9, 10]),
        ("scores > 10", [11]),
        ("target < 1 and caption like 'image ?'", [0, 1]),
        ("group = g1 and box_labels = sky", [5]),
        ("box_labels is missing and group in (g0, g1)", [0, 3, 6]),
        ("box_labels != sky and age >= 9", [9, 10]),
        ("label like c* and not (label = cat or age > 5)", [2, 5]),
    ],
)
def test_a_condition_about_a_table(table, where, seeds):
    options = {
        "boxes_column": "boxes", "box_labels_column": "things", "target_column": "price",
        "caption_column": "text", "group_column": "fold",
        "keep_columns": ("age", "colour", "scores", "day"),
    }  # fmt: skip
    inventory = scan(table, where=where, **options)
    assert sorted(int(path.removesuffix(".png")) for path in list_paths(inventory)) == seeds
    assert count_codes(inventory) == {"skipped_where": 12 - len(seeds)}


def test_a_condition_about_several_labels(table):
    inventory = scan(table, labels_column="tags", where="labels = sky and labels != cat")
    assert list_paths(inventory) == ["1.png", "5.png", "9.png"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("age > 3", "'age' is unknown: there are bytes, group, label, path, split"),
        ("labels = cat", "did you mean label"),
        ("label < 3", "'label' holds text"),
        ("bytes = many", "'bytes' holds numbers"),
    ],
)
def test_what_a_condition_does_not_know_is_refused(table, where, message):
    with pytest.raises(UsageError, match=message):
        scan(table, where=where)


def test_without_labels_there_is_no_label_to_ask_for(original):
    with pytest.raises(UsageError, match="'label' is unknown"):
        scan(original / "images", label_from="none", where="label = cats")


def test_a_column_does_not_hide_a_fact_of_the_same_name():
    columns = (Column("bytes", "text"), Column("size", "float"))
    entry = Entry("a.png", NO_LABEL, 7, values='["text",NaN]')
    inventory = Inventory(classes=(), entries=(entry,), skipped=(), columns=columns, labelled=False)
    fields = list_fields(inventory)
    assert sorted(fields) == ["bytes", "group", "path", "size", "split"]
    assert [*fields["bytes"].read(entry)] == [7]
    assert [*fields["size"].read(entry)] == []


# Shares and numbers


def make_inventory(count: int, classes: int = 5) -> Inventory:
    names = tuple(f"class {n}" for n in range(classes))
    entries = (Entry(f"{n % classes}/{n:06}.png", n % classes, 10) for n in range(count))
    return Inventory(classes=names, entries=tuple(sorted(entries)), skipped=())


def choose(inventory: Inventory, **options: object) -> set[str]:
    return set(list_paths(choose_images(inventory, ConvertOptions(**options))))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_share_is_about_that_share_of_every_class(share):
    inventory = make_inventory(20_000)
    counts = list_labels(choose_images(inventory, ConvertOptions(sample=share)))
    for count in counts.values():
        assert abs(count - 4_000 * share) < 5 * (4_000 * share * (1 - share)) ** 0.5 + 1


def test_the_whole_share_is_everything():
    inventory = make_inventory(100)
    assert choose(inventory, sample=1.0) == choose(inventory) == choose(inventory, take=1.0)
    assert choose_images(inventory, ConvertOptions()) is inventory


def test_an_image_stays_in_or_out_when_others_come_and_go():
    small, large = make_inventory(500), make_inventory(1_000)
    chosen = choose(large, sample=0.2)
    assert choose(small, sample=0.2) == chosen & set(list_paths(small))
    assert chosen < choose(large, sample=0.3)
    assert chosen != choose(large, sample=0.2, seed=1)


def test_a_share_of_a_share_takes_another_seed():
    chosen = choose_images(make_inventory(2_000), ConvertOptions(sample=0.2))
    assert choose(chosen, sample=0.5) == set(list_paths(chosen))
    assert 0.3 < len(choose(chosen, sample=0.5, seed=1)) / len(chosen.entries) < 0.7


def test_a_small_share_is_split_like_all_images(tmp_path):
    """With the hash that draws splits, all of it would be held out."""
    inventory = make_inventory(5_000)
    options = ConvertOptions(sample=0.1, validation_split=0.2)
    chosen = choose_images(inventory, options)
    from converter.planning.splits import assign_splits

    members = assign_splits(chosen.entries, options)
    held = len(members["validation"]) / len(chosen.entries)
    assert 0.13 < held < 0.27


@pytest.mark.parametrize(("take", "count"), [(7, 7), (0.1, 100), (0.0001, 1), (5_000, 1_000)])
def test_exactly_so_many_are_taken(take, count):
    inventory = make_inventory(1_000)
    chosen = choose_images(inventory, ConvertOptions(take=take))
    assert len(chosen.entries) == count
    assert count_codes(chosen).get("skipped_take", 0) == 1_000 - count
    assert list(chosen.entries) == sorted(chosen.entries)


def test_the_lowest_hashes_are_taken():
    inventory, options = make_inventory(1_000, classes=1), ConvertOptions(take=50, seed=3)
    draws = sorted((draw_choice(path, options), path) for path in list_paths(inventory))
    assert choose(inventory, take=50, seed=3) == {path for _, path in draws[:50]}
    assert choose(inventory, take=50, seed=3) < choose(inventory, take=60, seed=3)


def test_every_class_keeps_an_image_if_there_is_room():
    common = [Entry(f"common/{n}.png", 0, 10) for n in range(2_000)]
    rare = [Entry(f"rare/{n}.png", n, 10) for n in range(1, 10)]
    entries = tuple(sorted((*common, *rare)))
    inventory = Inventory(classes=tuple("abcdefghij"), entries=entries, skipped=())
    for take in (10, 11, 50):
        counts = list_labels(choose_images(inventory, ConvertOptions(take=take)))
        assert min(counts.values()) >= 1
        assert sum(counts.values()) == take
    assert len(choose(inventory, take=9)) == 9


def test_what_is_left_out_is_named_in_order(original):
    options = {"where": "label != xen", "sample": 0.6, "take": 5, "class_names": None}
    inventory = scan(original / "images", **options)
    codes = count_codes(inventory)
    assert codes["skipped_where"] == 6
    assert len(inventory.entries) == 5
    assert codes["skipped_sample"] + codes["skipped_take"] == 31 - 6 - 5
    paths = [file.path for file in inventory.skipped]
    assert paths == sorted(paths)
    for file in inventory.skipped:
        assert file.detail == SKIP_RULES[file.code]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 0.0}, "sample 0.0 is out of range"),
        ({"sample": 1.5}, "sample 1.5 is out of range"),
        ({"sample": float("nan")}, "sample nan is out of range"),
        ({"sample": 2}, "sample 2 is out of range"),
        ({"sample": "1%"}, "sample '1%' is not a number"),
        ({"take": 0}, "take 0 is out of range"),
        ({"take": -1}, "take -1 is out of range"),
        ({"take": 1.5}, "take 1.5 is out of range"),
        ({"take": float("nan")}, "take nan is out of range"),
        ({"take": True}, "take True is not"),
        ({"where": ""}, "where, character 1: "),
        ({"where": 5}, "where 5 is not a text"),
        ({"where": "x" * 10**6}, "where has 1,000,000 characters"),
    ],
)
def test_choices_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ConvertOptions(**options)


def test_a_share_of_nothing_is_refused(tmp_path):
    for seed in range(3):
        write_image(tmp_path / "a" / f"{seed}.png", seed)
    with pytest.raises(UsageError, match=r"sample 1e-09 .* none of 3 "):
        scan(tmp_path, sample=1e-9)


# On the whole


def test_masks_of_images_that_are_left_out_are_no_surprise(tmp_path):
    for seed in range(6):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
        for name in (f"{seed}.png", f"none{seed}.png")[: 1 + (seed == 0)]:
            write_image(tmp_path / "masks" / "ab"[seed % 2] / name, seed)
    inventory = scan(tmp_path / "images", mask_dir="../masks", class_names=("b",), where="bytes>0")
    assert inventory.notes == (Note("unused_mask", ("a/none0.png",), 1),)
    assert all(entry.mask for entry in inventory.entries)


def test_the_command_line_chooses_and_says_what_it_left_out(root, capsys):
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfdogs\r\nkitten -> cats\r\ncats\r\n")
    images, out = str(root / "images"), str(root / "out")
    flags = [
        f"--classes={root}/classes.txt", "--where=label = cats or path like '*1.png'",
        "--sample=90%", "--take=12", "--image-size=4", "--num-shards=1",
    ]  # fmt: skip
    assert main(["plan", images, out, *flags]) == 0
    planned = capsys.readouterr().out.splitlines()
    at = next(n for n, line in enumerate(planned) if line.startswith("31 files: "))
    assert planned[at : at + 8] == [
        "31 files: 12 images in 2 classes, 19 skipped",
        "         12  skipped_no_label   its class is not in the list of labels",
        "          3  skipped_where      the condition of --where does not hold for it",
        "          1  skipped_sample     not in the share that --sample takes",
        "          3  skipped_take       not among the number that --take takes",
        "  classes 3 -> 2 by --classes: kitten -> cats",
        "      0  dogs                             2",
        "      1  cats                            10",
    ]
    assert main(["plan", images, out, *flags, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["datasets"]
    assert found["proposal"]["left_out"] == {
        "skipped_no_label": 12, "skipped_sample": 1, "skipped_take": 3, "skipped_where": 3
    }  # fmt: skip
    assert main(["convert", images, out, *flags, "--no-progress", *IN_MEMORY]) == 0
    done = capsys.readouterr().out.splitlines()
    assert "  31 files: 12 written, 0 rejected, 19 skipped" in done
    assert "         12  skipped_no_label   its class is not in the list of labels" in done
    assert "  classes 3 -> 2 by --classes: kitten -> cats" in done
    assert "          3  skipped_take       not among the number that --take takes" in done
    manifest = read_manifest(root / "out")
    assert manifest.classes == ("dogs", "cats")
    assert manifest.options["class_names"] == ["dogs", "kitten -> cats", "cats"]
    assert (manifest.options["sample"], manifest.options["take"]) == (0.9, 12)
    assert verify_dataset(root / "out", originals=root / "images") == []


def test_a_chosen_data_set_is_the_same_on_every_way_to_it(root):
    options = ConvertOptions(
        class_names=CLASSES,
        where="bytes > 10 and label in (cats, dogs)",
        sample=0.9,
        take=15,
        **SMALL,
    )
    manifest = convert(root / "images", root / "out", options, IN_MEMORY)
    assert sum(split.records for split in manifest.splits.values()) == 15
    assert manifest.totals.scanned == 31
    convert_folder(root / "images", root / "other", options)
    assert (root / "out/manifest.json").read_bytes() == (root / "other/manifest.json").read_bytes()
    states = list_states(root / "out")
    assert run_conversion(root / "images", root / "out", options, IN_MEMORY).unchanged
    assert list_states(root / "out") == states
    with pytest.raises(UsageError, match=r"where was .*, is None"):
        plan(root / "images", root / "out", dataclasses.replace(options, where=None))
    shard = next((root / "out").glob("*.tfrecord"))
    data = shard.read_bytes()
    shard.unlink()
    assert repair(root / "out", root / "images", IN_MEMORY).left == ()
    assert shard.read_bytes() == data


def test_labels_and_boxes_of_a_table_arrive_at_the_reader(table, tmp_path):
    options = ConvertOptions(
        labels_column="tags", boxes_column="boxes", box_labels_column="things",
        class_names=("pet", "cat -> pet", "kitten -> pet", "dog -> pet", "sky"),
        where="labels is not missing", **SMALL,
    )  # fmt: skip
    convert_folder(table, tmp_path / "out", options)
    shards = open_shards(tmp_path / "out")
    assert shards.class_names == ["pet", "sky"]
    records = {record.source_id: record for record in shards.source("train")}
    assert len(records) == 9
    assert records["0.png"].values[schema.LABELS] == [0, 1]
    assert records["5.png"].values[schema.BOX_LABELS] == [0, 1]
    batch = next(iter(load_dataset(tmp_path / "out", "train", batch_size=9, shuffle=False)))
    assert np.asarray(batch[1]).sum() == 3 * 2 + 3 + 3


@pytest.mark.parametrize("line", ["cats", "kitten -> cats"])
def test_an_update_keeps_numbers_and_names_what_it_empties(root, line, capsys):
    options = ConvertOptions(class_names=("xen", "dogs", line), **SMALL)
    images, out = root / "images", root / "out"
    convert_folder(images, out, options)
    for path in images.glob("*/dogs/*"):
        path.unlink()
    write_image(images / "train" / "cats" / "new.png", 77)
    write_image(images / "train" / "kitten" / "new.png", 78)
    command = [str(images), str(out), "--update"]
    said = [
        "  images: 1 added, 0 changed, 6 removed",
        f"         {14 if line == 'cats' else 13}  skipped_no_label   "
        f"{SKIP_RULES['skipped_no_label']}",
        "  class dogs (label 1) has no images any more",
    ]
    if "->" in line:
        said.insert(0, "  classes 3 -> 3 by --classes: kitten -> cats")
    assert main(["plan", *command]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert [line for line in planned if line in said] == said
    assert "--classes without them" in "".join(planned)
    assert main(["convert", *command, "--no-progress", *IN_MEMORY]) == 0
    done = capsys.readouterr().out.splitlines()
    assert [line for line in done if line in said] == said
    manifest = read_manifest(out)
    assert manifest.classes == ("xen", "dogs", "cats")
    assert manifest.splits["train"].labels[1] == 0
    assert Note("empty_class", ("dogs",), 1) in read_notes(out)
    # Dropped by the same words, in a new conversion.
    again = dataclasses.replace(options, class_names=("xen", line))
    convert_folder(images, root / "again", again)
    assert read_manifest(root / "again").classes == ("xen", "cats")
    assert read_notes(root / "again") == tuple(
        note for note in read_notes(out) if note.code != "empty_class"
    )


def test_an_update_of_a_sample_moves_no_image(root):
    options = ConvertOptions(sample=0.5, seed=2, **SMALL)
    images, out = root / "images", root / "out"
    convert_folder(images, out, options)
    before = {record.source_id for record in open_shards(out).source("train")}
    for seed in range(100, 140):
        write_image(images / "train" / "cats" / f"{seed}.png", seed)
    found = plan(images, out, mode="update")
    assert found.update is not None
    assert (found.update.removed, found.update.changed) == (0, 0)
    assert 8 < found.update.added < 32
    run_conversion(images, out, None, IN_MEMORY, mode="update")
    assert before < {record.source_id for record in open_shards(out).source("train")}
    assert verify_dataset(out, originals=images) == []


def test_an_update_of_a_number_keeps_that_number(root):
    images, out = root / "images", root / "out"
    convert_folder(images, out, ConvertOptions(take=10, **SMALL))
    for seed in range(100, 140):
        write_image(images / "train" / "cats" / f"{seed}.png", seed)
    run_conversion(images, out, None, IN_MEMORY, mode="update")
    assert read_manifest(out).totals.written == 10


def test_several_images_are_renamed_and_chosen_as_one(tmp_path):
    for seed in range(20):
        folder, name = (("one", "cat"), ("two", "dog"), ("two", "cat"), ("one", "fox"))[seed % 4]
        write_image(tmp_path / folder / name / f"{seed}.png", seed)
    options = ConvertOptions(
        class_names=("dog -> pet", "cat -> pet", "fox", "wolf -> fox"), take=8, where="label = pet"
    )
    folder, options = join_images([tmp_path / "one", tmp_path / "two"], options)
    inventory = scan_images(folder, options)
    assert list_labels(inventory) == {"pet": 8, "fox": 0}
    assert {entry.path[:4] for entry in inventory.entries} == {"one/", "two/"}
    assert count_codes(inventory) == {"skipped_where": 5, "skipped_take": 7}
    assert Note("unknown_class", ("wolf",), 1) in inventory.notes


def test_an_update_names_a_class_that_only_lists_had(table, capsys):
    out = table.parent / "out"
    options = ConvertOptions(labels_column="tags", class_names=("dog", "cat", "kitten", "sky", "x"))
    convert_folder(table, out, dataclasses.replace(options, **SMALL))
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    write_rows(table.parent, [row for row in rows if "dog" not in row["tags"]])
    assert plan(table, out, mode="update").classes == ((), ("dog",), ())
    command = ["convert", str(table), str(out), "--update", "--no-progress", *IN_MEMORY]
    assert main(command) == 0
    assert "  class dog (label 0) has no images any more" in capsys.readouterr().out.splitlines()
    assert read_manifest(out).classes == ("dog", "cat", "kitten", "sky", "x")
    assert Note("empty_class", ("dog", "x"), 2) in read_notes(out)
    write_rows(table.parent, rows)
    assert plan(table, out, mode="update").classes == ((), (), ())


def test_records_are_compared_with_originals_that_would_not_be_chosen_now(tmp_path):
    """As many images are taken as before, but others: each record has its original still."""
    images = tmp_path / "images"
    for seed in range(20):
        write_image(images / "a" / f"{seed}.png", seed)
    convert_folder(images, tmp_path / "out", ConvertOptions(take=5, **SMALL))
    for seed in range(20, 200):
        write_image(images / "a" / f"{seed}.png", seed)
    assert plan(images, tmp_path / "out", mode="update").update.removed > 0
    assert verify_dataset(tmp_path / "out", originals=images) == []


def test_a_row_may_say_background_where_that_is_label_0(table):
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    write_rows(table.parent, [{**row, "label": ("background", "cat")[n % 2]} for n, row in
                              enumerate(rows)])  # fmt: skip
    inventory = scan(table, class_names=("cat",), label_offset=1)
    assert list_labels(inventory) == {"background": 6, "cat": 6}
    renamed = scan(table, class_names=("cat", "background -> sky"), label_offset=1)
    assert list_labels(renamed) == {"background": 0, "cat": 6, "sky": 6}


def test_flags_of_classes_merge_too(tmp_path):
    rows = []
    for seed in range(8):
        write_image(tmp_path / f"{seed}.png", seed)
        rows.append(
            {"path": f"{seed}.png", "cat": seed & 1, "dog": seed >> 1 & 1, "fox": seed >> 2}
        )
    table = write_rows(tmp_path, rows)
    options = {"labels_columns": ("cat", "dog", "fox"), "class_names": ("cat -> pet", "dog -> pet")}
    assert len(scan(table, **options).skipped) == 4
    trimmed = scan(table, **options, trim_labels=True, where="labels = pet or labels is missing")
    tags = read_column(trimmed, schema.LABELS)
    assert [len(tags.get(f"{n}.png", "gone")) for n in range(8)] == [0, 1, 1, 1, 4, 1, 1, 1]
