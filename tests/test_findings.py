"""What a report points out, in words: each thing where it is, and only there."""

import dataclasses

import pytest
from surveying import make_run, make_survey

from converter.histograms import Histograms, OriginalTally
from converter.inventory import NOTES, Note
from pipelines.pages.findings import LEVELS, list_findings
from pipelines.pages.record_facts import RecordFacts


def find(survey, part: str):
    """The only finding with these letters in its title."""
    (found,) = [each for each in list_findings(survey) if part in each.title]
    return found


def test_nothing_is_said_where_nothing_is_odd():
    assert list_findings(make_survey()) == []
    assert list_findings(make_survey(runs=[make_run()])) == []


def test_near_empty_classes_are_named():
    survey = make_survey({"train": [500, 9, 400, 3], "test": [100, 0, 99, 2]}, list("abcd"))
    found = find(survey, "fewer than 10")
    assert (found.level, found.title) == ("warn", "2 classes with fewer than 10 images: b, d")


def test_a_class_of_ten_is_not_near_empty():
    survey = make_survey({"train": [10, 10, 11]})
    assert not [each for each in list_findings(survey) if "fewer than" in each.title]


def test_empty_classes_are_named_once():
    survey = make_survey(
        {"train": [500, 0]}, ["cats", "dogs"], notes=[Note("empty_class", ("dogs",), 1)]
    )
    assert find(survey, "without an image").title == "1 class without an image: dogs"
    assert len([each for each in list_findings(survey) if "dogs" in str(each)]) == 1


def test_the_largest_and_the_smallest_class_are_weighed():
    found = find(make_survey({"train": [1000, 100, 40]}, ["a", "b", "c"]), "unbalanced")
    assert "a has 1,000 images, c 40: 25 times as many" in found.text
    assert "class_weight" in found.text
    assert not [f for f in list_findings(make_survey({"train": [399, 40]})) if "balanc" in f.title]


@pytest.mark.parametrize(("split", "level"), [("train", "bad"), ("validation", "warn")])
def test_a_class_that_a_split_lacks_is_named(split, level):
    counts = {"train": [300, 300], "validation": [300, 300]}
    counts[split] = [600, 0]
    found = find(make_survey(counts, ["here", "gone"]), f"missing in {split}")
    assert (found.level, found.title) == (level, f"1 class missing in {split}: gone")


def test_a_split_far_from_the_share_asked_for_is_pointed_out():
    made = {"options": {"validation_split": 0.2}}
    survey = make_survey({"train": [104], "validation": [752]}, manifest=made)
    found = find(survey, "of the images, not")
    assert (found.level, found.title) == ("warn", "validation has 88% of the images, not 20%")
    assert "--stratify" in found.text
    near = make_survey({"train": [700, 700], "validation": [160, 180]}, manifest=made)
    assert list_findings(near) == []


def test_a_split_with_other_shares_of_the_classes_is_pointed_out():
    counts = {"train": [900, 600], "validation": [20, 180]}
    found = find(make_survey(counts, ["cat", "dog"]), "other shares")
    assert (found.level, found.title) == (
        "warn",
        "Classes have other shares in validation than in the whole",
    )
    assert found.text.startswith("cat has 20 images there, not about 108. ")
    assert found.text.endswith("convert with --split-folders no --validation-split 0.2 --stratify.")
    drawn = {"options": {"validation_split": 0.2}}
    found = find(make_survey(counts, manifest=drawn), "other shares")
    assert found.text.endswith("convert with --stratify.")
    drawn = {"options": {"validation_split": 0.2, "stratify": True, "group_by": "folder"}}
    found = find(make_survey(counts, manifest=drawn), "other shares")
    assert "--stratify" not in found.text
    several = make_survey(counts, manifest={"labelled": False})
    assert not [each for each in list_findings(several) if "shares" in each.title]


def test_of_many_skewed_classes_the_gravest_are_named():
    names = [f"class-{number}" for number in range(40)]
    held = [10] * 20 + [90] * 20
    survey = make_survey({"train": [100] * 40, "test": held}, names)
    found = find(survey, "other shares")
    assert found.text.count("images there") == 3
    assert ", and 17 more. A score" in found.text
    assert len(found.text) < 600


def test_a_split_may_be_empty_or_small():
    survey = make_survey({"train": [300, 300], "validation": [10, 15], "test": [0, 0]})
    assert find(survey, "test is empty").level == "warn"
    assert "4.0 points" in find(survey, "validation has only 25 images").text
    assert not [each for each in list_findings(survey) if "missing in test" in each.title]


def test_a_set_with_nothing_held_out_is_told_how():
    assert "--validation-split 0.2" in find(make_survey({"train": [300, 300]}), "held out").text


def test_one_class_is_no_classification():
    found = find(make_survey({"train": [300]}, ["all"]), "only one class")
    assert (found.level, found.title[-1]) == ("warn", "s")
    assert not [e for e in list_findings(make_survey({"train": [300]})) if "balanced" in e.title]


def test_sets_of_copies_are_counted_together():
    notes = [Note("duplicate_split", ("a.jpg", "b.jpg"), 2), Note("duplicate_split", ("c",), 3)]
    found = find(make_survey(notes=notes), "several splits")
    assert found.level == "bad"
    assert found.title.endswith("(5 in 2 sets)")
    assert found.text.startswith("a.jpg, b.jpg, c.")


@pytest.mark.parametrize("code", NOTES)
def test_every_note_is_said_in_a_sentence(code):
    found = list_findings(make_survey(notes=[Note(code, ("one",), 1)]))
    assert code == "empty_class" or (len(found) == 1 and found[0].level in LEVELS)
    assert all(each.title and "  " not in each.text for each in found)


def test_harmless_notes_say_that_there_is_nothing_to_do():
    found = find(make_survey(notes=[Note("profile", ("a.jpg",), 1)]), "sRGB")
    assert (found.level, found.text) == ("info", "a.jpg. Nothing to do.")
    for code in ("duplicate_class", "truncated", "transparent", "box_class"):
        (found,) = list_findings(make_survey(notes=[Note(code, ("a.jpg",), 1)]))
        assert "Nothing to do" not in found.text


def test_a_note_of_a_newer_version_is_its_code():
    assert find(make_survey(notes=[Note("curse", (), 4)]), "curse").title == "curse (4)"


@pytest.mark.parametrize(("count", "level"), [(5, "info"), (50, "warn")])
def test_the_share_of_rejects_decides_how_grave_they_are(count, level):
    rejected = {"decode_error": count, "filtered_side": 999}
    found = find(make_survey(manifest={"rejected": rejected}), "could not be converted")
    assert found.level == level
    assert found.title == f"{count} images could not be converted"
    assert "truncated or damaged" in found.text


def test_what_a_filter_leaves_out_is_no_finding():
    assert list_findings(make_survey(manifest={"rejected": {"filtered_side": 999}})) == []


def test_damage_comes_first():
    records = RecordFacts(looked=9, total=9, damage=("train-0: damaged record at byte 7",))
    first, *_ = list_findings(make_survey({"train": [3, 0]}, records=records))
    assert (first.level, first.title) == ("bad", "Records are damaged")
    assert "at byte 7" in first.text
    assert "shardmill repair" in first.text


def test_small_originals_and_long_ones_are_pointed_out():
    seen = Histograms(images=100, enlarged=38, formats={"jpeg": 100}, ratios={"1:1": 90, "4:1": 10})
    survey = make_survey(runs=[make_run(originals=seen)])
    assert find(survey, "smaller than what is stored").title.startswith("38% of")
    assert "--image-size" not in find(survey, "smaller than what is stored").text
    assert "--resize pad" in find(survey, "about twice").text
    padded = make_survey(runs=[make_run(originals=seen)], manifest={"options": {"resize": "pad"}})
    assert not [each for each in list_findings(padded) if "about twice" in each.title]


def test_the_smallest_and_largest_originals_are_named_if_they_are_far_off():
    tally = OriginalTally()
    for number in range(100):
        tally.add(f"a/{number}.jpg", "jpeg", (600, 900), 70_000, enlarged=False)
    usual = make_survey(runs=[make_run(originals=tally.describe())])
    assert not [each for each in list_findings(usual) if "originals" in each.title]
    tally.add("a/tiny\n.jpg", "jpeg", (1, 2), 700, enlarged=False)
    tally.add("a/vast.jpg", "jpeg", (9000, 6000), 9_000_000, enlarged=False)
    survey = make_survey(runs=[make_run(originals=tally.describe())])
    small, large = find(survey, "far smaller"), find(survey, "far larger")
    assert (small.level, large.level) == ("info", "info")
    assert "Half of them have 500,000 pixels or more. " in small.text
    assert "The smallest: a/tiny\\n.jpg (2 \xd7 1). " in small.text
    assert "fewer than 1,000,000 pixels. The largest: a/vast.jpg (6000 \xd7 9000)." in large.text


def test_a_smaller_size_is_advised_if_most_originals_are_smaller():
    seen = Histograms(images=100, enlarged=51, formats={"jpeg": 100}, ratios={"1:1": 100})
    found = find(make_survey(runs=[make_run(originals=seen)]), "smaller than what is stored")
    assert "A smaller --image-size" in found.text


def test_invisible_images_are_pointed_out_with_their_class():
    path = "recreation/sports__badminton_racket_brice_b_01.png"
    found = find(make_survey(notes=[Note("transparent", (path,), 1)]), "Nothing is visible")
    assert found.level == "warn"
    assert found.text.startswith(f"{path}. Their alpha is 0")


def test_what_cannot_be_read_and_updates_are_said():
    survey = make_survey(unread=["run.jsonl, line 1 is damaged"], manifest={"updated": 2})
    assert find(survey, "cannot be read").text == "run.jsonl, line 1 is damaged"
    assert "2 times" in find(survey, "Updated").title


def test_findings_are_sorted_by_how_grave_they_are():
    survey = make_survey({"train": [300, 0], "test": [1, 5]}, notes=[Note("duplicate", ("a",), 2)])
    levels = [LEVELS.index(each.level) for each in list_findings(survey)]
    assert levels == sorted(levels)
    assert {0, 1, 2} <= {*levels}


def test_twenty_thousand_classes_are_not_all_named():
    survey = make_survey({"train": [1] * 20_000})
    assert "and 19,995 more" in find(survey, "fewer than 10").title
    assert max(len(each.title + each.text) for each in list_findings(survey)) < 600


def test_names_are_short_and_on_one_line():
    survey = make_survey({"train": [300, 0]}, ["a", "x\n" * 100])
    title = find(survey, "without an image").title
    assert "\n" not in title
    assert len(title) < 150


def test_a_finding_is_made_of_facts_alone():
    survey = make_survey({"train": [300, 0]})
    assert list_findings(survey) == list_findings(dataclasses.replace(survey))
