"""Shares: which splits, and which classes in them, are far from what they should hold."""

import random

import pytest

from converter.planning.shares import find_skewed, find_uneven


def test_a_split_far_from_the_share_asked_for_is_uneven():
    asked = {"validation": 0.2, "test": 0.0}
    assert find_uneven({"train": 800, "validation": 200}, asked) == []
    assert find_uneven({"train": 950, "validation": 50}, asked) == [("validation", 0.05, 0.2)]
    assert find_uneven({"train": 600, "validation": 400}, asked) == [("validation", 0.4, 0.2)]
    assert find_uneven({"train": 1000}, asked) == [("validation", 0.0, 0.2)]
    assert find_uneven({"train": 89, "validation": 1}, asked) == []  # may be chance
    # A split that was given is not drawn from.
    assert find_uneven({"train": 800, "validation": 200, "test": 9000}, asked) == []


@pytest.mark.parametrize(
    ("train", "held", "labels"),
    [
        ([800, 800], [200, 200], []),
        ([950, 650], [50, 350], [0]),
        ([900, 9100], [300, 700], [0]),  # over twice
        ([900, 9100], [190, 810], []),  # nearly twice
        ([6, 994], [3, 97], []),  # over twice, but that is chance
        ([100, 900], [0, 100], []),  # said elsewhere: the class is missing
        ([0, 0], [10, 10], []),
        ([10, 10], [0, 0], []),
    ],
)
def test_a_class_with_another_share_than_in_all_is_skewed(train, held, labels):
    found = find_skewed({"train": train, "validation": held})
    assert [each.label for each in found] == labels
    assert all(each.split == "validation" for each in found)


def test_what_was_expected_is_the_share_of_the_whole():
    (found,) = find_skewed({"train": [950, 650], "test": [50, 350]})
    assert (found.split, found.images, found.expected) == ("test", 50, 200)


def test_chance_is_hardly_ever_taken_for_skew():
    draw = random.Random(5)
    labels = [draw.randrange(200) for _ in range(20_000)]
    found = 0
    for _ in range(10):  # 2,000 classes, each with 20 images expected
        counts = {"train": [0] * 200, "validation": [0] * 200}
        for label in labels:
            counts["validation" if draw.random() < 0.2 else "train"][label] += 1
        found += len(find_skewed(counts))
    assert found <= 1


def test_without_splits_or_classes_nothing_is_skewed():
    assert find_skewed({}) == find_skewed({"train": [5, 5]}) == find_skewed({"train": []}) == []
    assert find_skewed({"test": [5, 5]}) == []
