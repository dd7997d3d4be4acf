"""Planning: every image exactly once, evenly, in an order that only seed and path decide."""

import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_split, make_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import DatasetError, UsageError
from converter.inventory import Entry, Inventory, Skipped
from converter.options import MAX_SHARDS, ConvertOptions
from converter.planning.plan import (
    Draft,
    Plan,
    Shard,
    digest_plan,
    read_entries,
    read_plan,
    write_plan,
)
from converter.planning.splits import (
    MIN_SHARD_RECORDS,
    MIN_SHARDS,
    assign_splits,
    count_shards,
    cut_evenly,
    draw,
    plan_shards,
)
from converter.storage.disk import DiskPath
from converter.storage.files import Layout

QUICK = settings(deadline=None, max_examples=50)

SPLIT = ConvertOptions(validation_split=0.25, test_split=0.25)
SEEDS = st.integers(0, 2**63 - 1)


def make_entries(count: int, suffix: str = "png") -> list[Entry]:
    return [
        Entry(f"c{number % 3}/{number}.{suffix}", number % 3, number) for number in range(count)
    ]


def make_scan(entries: list[Entry]) -> Inventory:
    skipped = (
        Skipped("a.txt", "skipped_no_class", "lies beside"),
        Skipped("c0/\udcff.txt", "skipped_extension", "no image"),
        Skipped("c1/.x", "skipped_hidden", "a dotfile"),
        Skipped("c2/.x", "skipped_hidden", "a dotfile"),
    )
    return Inventory(classes=("c0", "c1", "c\udcff"), entries=tuple(entries), skipped=skipped)


def make_plan(
    out: Path,
    options: ConvertOptions,
    *,
    entries: int = 200,
    suffix: str = "png",
    images: str = "/images",
) -> Plan:
    inventory = make_scan(make_entries(entries, suffix))
    splits = assign_splits(inventory.entries, options)
    draft = Draft(
        inventory=inventory, splits=splits, shard_records=plan_shards(splits, options, 500.0)
    )
    plan = write_plan(draft, options, images=DiskPath(images), out=out)
    assert plan.digest == digest_plan(draft, options)
    return plan


# Splits


@QUICK
@given(st.integers(50, 300), SEEDS)
def test_every_entry_is_in_exactly_one_split(count, seed):
    entries = make_entries(count)
    splits = assign_splits(entries, dataclasses.replace(SPLIT, seed=seed))
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(itertools.chain(*splits.values())) == sorted(entries)


@QUICK
@given(st.permutations(make_entries(60)))
def test_the_order_of_the_input_does_not_show(entries):
    assert assign_splits(entries, SPLIT) == assign_splits(make_entries(60), SPLIT)


@QUICK
@given(st.integers(50, 150), SEEDS)
def test_an_entry_stays_where_it_is_when_others_are_added(count, seed):
    options = dataclasses.replace(SPLIT, seed=seed)
    before = assign_splits(make_entries(count), options)
    after = assign_splits(make_entries(200), options)
    old = set(make_entries(count))
    assert {
        split: [entry for entry in members if entry in old] for split, members in after.items()
    } == before


def test_a_seed_decides_both_the_splits_and_the_order():
    entries = make_entries(200)
    one, two = (
        assign_splits(entries, ConvertOptions(validation_split=0.5, seed=seed)) for seed in (1, 2)
    )
    assert set(one["validation"]) != set(two["validation"])
    both = set(one["train"]) & set(two["train"])
    assert [e for e in one["train"] if e in both] != [e for e in two["train"] if e in both]


def test_an_order_is_that_of_the_ranks():
    entries = make_entries(2000)
    drawn = [
        (draw_split(entry.path, SPLIT), draw(entry.path, SPLIT).rank, entry) for entry in entries
    ]
    for split, members in assign_splits(entries, SPLIT).items():
        assert members == [entry for name, _, entry in sorted(drawn) if name == split]


def test_only_splits_that_were_asked_for_are_made():
    entries = make_entries(50)
    assert list(assign_splits(entries, ConvertOptions())) == ["train"]
    assert list(assign_splits(entries, ConvertOptions(test_split=0.5))) == ["train", "test"]


def test_fractions_are_met_and_labels_are_mixed():
    splits = assign_splits(make_entries(4000), SPLIT)
    for split, fraction in {"train": 0.5, "validation": 0.25, "test": 0.25}.items():
        expected = 4000 * fraction
        # Five standard deviations of a binomial distribution.
        assert len(splits[split]) == pytest.approx(expected, abs=5 * math.sqrt(expected))
        assert {entry.label for entry in splits[split][:20]} == {0, 1, 2}


def test_a_split_that_stays_empty_is_refused():
    with pytest.raises(UsageError, match=r"^split 'validation' gets none .* larger"):
        assign_splits(make_entries(3), ConvertOptions(validation_split=1e-9))
    with pytest.raises(UsageError, match=r"^split 'train' gets none .* smaller"):
        assign_splits(make_entries(3), ConvertOptions(validation_split=0.999))


# Sizes of shards


@QUICK
@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_a_cut_is_even_and_complete(total, parts):
    counts = cut_evenly(total, parts)
    assert (len(counts), sum(counts)) == (parts, total)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1


@pytest.mark.parametrize(
    ("records", "split_bytes", "shard_bytes", "expected"),
    [
        (1, 1, 1000, 1),
        (31, 1, 1000, 1),
        (64, 1, 1000, 2),  # no shard under 32 records for the sake of the floor
        (511, 1, 1000, 15),
        (512, 1, 1000, 16),  # the floor: 16 shards
        (10**6, 1, 1000, 16),
        (10**6, 20_000, 1000, 20),
        (10, 20_000, 1000, 10),  # never an empty shard
        (10**6, 10**9, 1000, 99_999),  # what five digits count
    ],
)
def test_the_number_of_shards(records, split_bytes, shard_bytes, expected):
    assert count_shards(records, split_bytes, shard_bytes) == expected


@QUICK
@given(st.integers(1, 10**7), st.floats(16, 10**7), st.integers(1000, 10**10))
def test_shards_are_neither_empty_nor_far_from_the_size_asked_for(records, record_bytes, target):
    count = count_shards(records, records * record_bytes, target)
    assert 1 <= count <= min(records, MAX_SHARDS)
    size = records * record_bytes / count
    if count > MIN_SHARDS:
        assert size >= 0.9 * target
    if count < min(records, MAX_SHARDS):
        assert size <= 1.5 * target
    if count < MIN_SHARDS:
        assert records / count < 2 * MIN_SHARD_RECORDS


@QUICK
@given(st.integers(50, 300), st.none() | st.integers(1, 20), st.floats(16, 10**4), SEEDS)
def test_shards_of_every_split_are_even_and_complete(count, num_shards, record_bytes, seed):
    options = ConvertOptions(
        validation_split=0.25, num_shards=num_shards, shard_bytes=10_000, seed=seed
    )
    splits = assign_splits(make_entries(count), options)
    shards = plan_shards(splits, options, record_bytes)
    assert {split: sum(counts) for split, counts in shards.items()} == {
        split: len(members) for split, members in splits.items()
    }
    for counts in shards.values():
        assert max(counts) - min(counts) <= 1
        assert min(counts) >= 1
    if num_shards is not None:
        assert max(map(len, shards.values())) == num_shards


def test_the_other_splits_get_as_many_records_a_shard():
    splits = {"train": make_entries(900), "validation": make_entries(100)}
    assert plan_shards(splits, ConvertOptions(num_shards=9), math.inf) == {
        "train": [100] * 9,
        "validation": [100],
    }


def test_more_shards_than_images_are_refused():
    with pytest.raises(UsageError, match=r"^num shards 11 .* 10 images"):
        plan_shards({"train": make_entries(10)}, ConvertOptions(num_shards=11), 1.0)


# Files


def test_receipts_without_a_plan_vouch_for_nothing(tmp_path):
    layout = Layout(tmp_path)
    layout.make_work_folders()
    receipt = layout.receipts / "train-00000-of-00001.json"
    receipt.write_text("{}")
    inventory = Inventory(classes=("a", "b", "c"), entries=(), skipped=())
    draft = Draft(
        inventory=inventory, splits={"train": make_entries(3)}, shard_records={"train": [3]}
    )
    write_plan(draft, ConvertOptions(), images=tmp_path, out=tmp_path)
    assert not receipt.exists()
    receipt.write_text("{}")
    write_plan(draft, ConvertOptions(), images=tmp_path, out=tmp_path)
    assert receipt.exists()


def test_a_plan_reads_back_with_every_entry_in_its_place(tmp_path):
    options = dataclasses.replace(SPLIT, num_shards=5)
    plan = make_plan(tmp_path, options)
    splits = assign_splits(make_entries(200), options)
    classes = ("c0", "c1", "c\udcff")
    assert read_plan(tmp_path) == plan
    assert (plan.options, plan.classes, plan.images) == (options, classes, DiskPath("/images"))
    assert plan.skipped == {"skipped_extension": 1, "skipped_hidden": 2, "skipped_no_class": 1}
    assert (plan.records, plan.scanned) == (200, 204)
    for split, members in splits.items():
        shards = [shard for shard in plan.shards if shard.split == split]
        assert [shard.index for shard in shards] == list(range(len(shards)))
        assert {shard.count for shard in shards} == {len(shards)}
        read = [list(read_entries(tmp_path, shard)) for shard in shards]
        assert [len(share) for share in read] == [shard.records for shard in shards]
        assert [sum(entry.size_bytes for entry, _ in share) for share in read] == [
            shard.source_bytes for shard in shards
        ]
        assert list(itertools.chain(*read)) == [(entry, classes[entry.label]) for entry in members]


def test_skipped_files_are_kept_as_lines(tmp_path):
    make_plan(tmp_path, ConvertOptions())
    lines = Layout(tmp_path).left_out.read_text("ascii").splitlines()
    assert [json.loads(line) for line in lines] == [
        skip._asdict() for skip in make_scan([]).skipped
    ]


def test_the_same_plan_again_changes_nothing(tmp_path):
    plan = make_plan(tmp_path, SPLIT)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert make_plan(tmp_path, SPLIT) == plan
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_digest_is_over_what_decides_the_output(tmp_path):
    plan = make_plan(tmp_path / "a", SPLIT)
    assert make_plan(tmp_path / "b", SPLIT, images="/elsewhere").digest == plan.digest
    others = [
        make_plan(tmp_path / "c", dataclasses.replace(SPLIT, seed=1)),
        make_plan(tmp_path / "d", dataclasses.replace(SPLIT, quality=94)),
        make_plan(tmp_path / "e", ConvertOptions(num_shards=1)),
        make_plan(tmp_path / "f", ConvertOptions(num_shards=1), suffix="jpg"),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 5


def test_other_options_are_refused_by_name(tmp_path):
    make_plan(tmp_path, SPLIT)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UsageError,
        match=rf"^{re.escape(str(tmp_path))} .* \(quality .* 95, .* 90; seed .* 0, .* 3\)",
    ):
        make_plan(tmp_path, dataclasses.replace(SPLIT, seed=3, quality=90))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_other_images_are_refused(tmp_path):
    make_plan(tmp_path, SPLIT)
    with pytest.raises(UsageError, match=rf"^{re.escape(str(tmp_path))} .* other images \(files"):
        make_plan(tmp_path, SPLIT, entries=201)


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_the_locale_does_not_show_in_the_plan(image_folder, tmp_path, locale):
    script = """
import sys
from converter.storage.disk import DiskPath as Path
from converter.options import MAX_SHARDS, ConvertOptions
from converter.planning.plan import Draft, write_plan
from converter.planning.splits import plan_shards
from converter.planning.splits import assign_splits
from converter.sources.scan import scan_folder
images, out, options = Path(sys.argv[1]), Path(sys.argv[2]), ConvertOptions()
inventory = scan_folder(images)
splits = assign_splits(inventory.entries, options)
shards = plan_shards(splits, options, 500.0)
draft = Draft(inventory=inventory, splits=splits, shard_records=shards)
print(write_plan(draft, options, images=images, out=out).digest)
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, image_folder, tmp_path / str(number)],
            env=make_environment(**environment),
            check=True, capture_output=True, text=True,
        ).stdout
        for number, environment in enumerate([{"LC_ALL": "C.UTF-8"}, locale])
    }  # fmt: skip
    assert len(digests) == 1


def test_a_missing_plan_is_named(tmp_path):
    with pytest.raises(
        DatasetError, match=rf"^{re.escape(str(tmp_path))}/\.shardmill/plan\.json: "
    ):
        read_plan(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b'{"images": 3}', b"\xff"])
def test_a_damaged_plan_is_refused(tmp_path, content):
    make_plan(tmp_path, ConvertOptions())
    Layout(tmp_path).plan.write_bytes(content)
    with pytest.raises(DatasetError, match=r"plan\.json: .* as a plan"):
        read_plan(tmp_path)


def test_entries_that_are_cut_off_are_refused(tmp_path):
    plan = make_plan(tmp_path, ConvertOptions(num_shards=2))
    path = Layout(tmp_path).entries
    path.write_bytes(path.read_bytes()[: plan.shards[1].offset])
    assert len(list(read_entries(tmp_path, plan.shards[0]))) == 100
    message = f"{path}: 0 entries for train-00001-of-00002.tfrecord, expected 100"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        list(read_entries(tmp_path, plan.shards[1]))


def test_more_entries_than_planned_are_refused(tmp_path):
    plan = make_plan(tmp_path, ConvertOptions(num_shards=2))
    shard = dataclasses.replace(plan.shards[0], records=99)
    with pytest.raises(DatasetError, match=r"entries\.jsonl: 100 entries for .*, expected 99$"):
        list(read_entries(tmp_path, shard))


def test_a_shard_is_named_by_split_index_and_count():
    shard = Shard(split="test", index=2, count=7, records=1, offset=0, size=1, source_bytes=1)
    assert shard.name == "test-00002-of-00007.tfrecord"
