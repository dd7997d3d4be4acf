"""Which split the name of a folder or a file says."""

import pytest

from converter.sources.split_names import SPLIT_FOLDERS, find_first_word, find_split_word


@pytest.mark.parametrize(("name", "split"), SPLIT_FOLDERS.items())
@pytest.mark.parametrize("pattern", ["{}", "{}-000001.tar", "food_{}.tfrecord", "1{}2", "A.{}.b"])
def test_a_word_anywhere_in_the_name_of_a_file_says_the_split(name, split, pattern):
    assert find_split_word(pattern.format(name)) == split
    assert find_split_word(pattern.format(name.upper())) == split


@pytest.mark.parametrize("name", ["", "trains.tar", "untested", "train-of-test", "valtrain", "été"])
def test_no_word_or_words_of_two_splits_say_none(name):
    assert find_split_word(name) == ""


def test_words_of_one_split_agree():
    assert find_split_word("val-validation-dev.tar") == "validation"


@pytest.mark.parametrize(
    ("name", "split"),
    [("train2017", "train"), ("VAL", "validation"), ("test_b", "test"), ("my-train", ""), ("", "")],
)
def test_the_first_word_of_a_folder_says_the_split(name, split):
    assert find_first_word(name) == split
