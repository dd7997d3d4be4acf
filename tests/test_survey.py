"""The facts of a report: counts, bytes, reasons and runs, without a judgement."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from surveying import make_run, make_survey

from converter.format.schema import BOXES, CAPTION, LABELS, MASK, Column
from converter.inventory import Note
from pipelines.pages.record_facts import RecordFacts
from pipelines.pages.survey import MAX_BARS, MAX_EXAMPLES, cut_bars, share_labels


def test_splits_and_classes_are_counted():
    survey = make_survey({"train": [30, 5], "test": [0, 5]}, ["a", "b"], manifest={"shards": 5})
    assert [(s.name, s.records, s.shards, s.labels) for s in survey.splits] == [
        ("train", 35, 5, (30, 5)), ("test", 5, 5, (0, 5)),
    ]  # fmt: skip
    assert survey.label_counts == [30, 10]
    assert (survey.written, survey.classes) == (40, ("a", "b"))
    train = survey.splits[0]
    assert (train.smallest, train.largest, len(train.bars)) == (7000, 7004, 5)
    assert survey.total_bytes == sum(split.bytes for split in survey.splits)


def test_reasons_are_told_apart_and_sorted_by_what_is_wrong():
    rejected = {"decode_error": 3, "filtered_side": 20, "empty": 7}
    skipped = {"skipped_extension": 9, "skipped_hidden": 50}
    names = {"empty": [(f"{n}.jpg", "no bytes") for n in range(7)], "decode_error": []}
    survey = make_survey(manifest={"rejected": rejected, "skipped": skipped}, rejects=names)
    assert [(each.code, each.count, each.asked) for each in survey.left_out] == [
        ("empty", 7, False), ("decode_error", 3, False), ("skipped_hidden", 50, True),
        ("filtered_side", 20, True), ("skipped_extension", 9, True),
    ]  # fmt: skip
    assert survey.failed == 10
    assert survey.left_out[0].examples[:1] == (("0.jpg", "no bytes"),)
    assert survey.left_out[0].meaning == "the file has no bytes"
    assert survey.scanned == survey.written + 89


def test_no_more_examples_are_kept_than_shown():
    many = {"empty": [(f"{number}.jpg", "") for number in range(100)]}
    survey = make_survey(manifest={"rejected": {"empty": 100}}, rejects=many)
    assert len(survey.left_out[0].examples) == MAX_EXAMPLES


def test_what_was_left_out_is_listed_by_path():
    names = {"empty": [("b.jpg", "no bytes"), ("a.jpg", "no bytes"), ("b/c.jpg", "")]}
    survey = make_survey(manifest={"rejected": {"empty": 3}}, rejects=names)
    assert [path for path, _ in survey.left_out[0].examples] == ["a.jpg", "b.jpg", "b/c.jpg"]


def test_a_reason_that_a_newer_version_has_is_shown_by_its_code():
    survey = make_survey(manifest={"rejected": {"cursed": 2}})
    assert (survey.left_out[0].code, survey.left_out[0].meaning) == ("cursed", "")


@pytest.mark.parametrize(
    ("columns", "labelled", "contents"),
    [
        ([], True, ("a label",)),
        ([], False, ()),
        ([Column(LABELS, "labels"), Column(CAPTION, "text")], False,
         ("several labels", "a caption")),
        ([Column(BOXES, "boxes"), Column("age", "int"), Column("b", "int")], True,
         ("a label", "boxes", "2 more columns")),
        ([Column(MASK, "mask"), Column("age", "int")], False, ("a mask", "1 more column")),
    ],
)  # fmt: skip
def test_what_records_hold_is_said_in_words(columns, labelled, contents):
    more = {"columns": tuple(columns), "labelled": labelled}
    assert make_survey(manifest=more).contents == contents


def test_without_a_log_the_command_comes_from_the_manifest():
    options = {"image_size": (64, 96), "seed": 3}
    survey = make_survey(manifest={"options": options})
    assert survey.command == "shardmill convert IMAGES /data/flowers --image-size 64x96 --seed 3"
    assert survey.options == {"image_size": [64, 96], "seed": 3}
    assert (survey.runs, survey.originals) == ((), None)


def test_the_command_is_that_of_the_last_run_and_the_originals_those_of_a_whole_one():
    whole = make_run()
    update = make_run(kind="update", command="shardmill convert a b --update", images_read=1)
    survey = make_survey(runs=[whole, update])
    assert survey.command == update.command
    assert survey.originals == whole.originals


def test_a_run_that_saw_no_original_says_nothing_of_them():
    nothing = make_run(originals=dataclasses.replace(make_run().originals, images=0))
    assert make_survey(runs=[nothing]).originals is None


def test_notes_are_kept_with_their_meaning():
    survey = make_survey(notes=[Note("duplicate", ("a.jpg", "b.jpg"), 2), Note("odd", (), 1)])
    assert survey.notes == (
        ("duplicate", "the same content", ("a.jpg", "b.jpg"), 2), ("odd", "", (), 1),
    )  # fmt: skip


def test_all_of_it_is_json():
    survey = make_survey(runs=[make_run()], unread=["no"], records=RecordFacts(tagged={1: 2}))
    assert json.loads(json.dumps(dataclasses.asdict(survey)))["unread"] == ["no"]


@given(st.lists(st.integers(0, 10**12), max_size=400), st.integers(1, MAX_BARS))
def test_bars_stay_within_what_they_stand_for(sizes, most):
    bars = cut_bars(sizes, most)
    assert len(bars) == min(most, len(sizes))
    if len(sizes) <= most:
        assert bars == tuple(sizes)
    assert all(min(sizes) <= bar <= max(sizes) for bar in bars)


def test_classes_without_a_name_are_numbers():
    assert share_labels({0: 2, 7: 5, 1: 5}, ["b", "a"]) == [("7", 5), ("a", 5), ("b", 2)]
