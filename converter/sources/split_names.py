"""Which split a name says: that of a folder or a file, or in a column."""

import re
from typing import Final

# The split of a folder, by its name in lower case; the spellings of Hugging Face.
SPLIT_FOLDERS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def find_split_word(name: str) -> str:
    """The split that words in the name of a file say, if they say one; else empty.

    >>> find_split_word("food-val-00000.tar"), find_split_word("train-of-test.tar")
    ('validation', '')
    """
    words = re.split("[^a-z]+", name.lower())
    splits = {SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS}
    return splits.pop() if len(splits) == 1 else ""


def find_first_word(name: str) -> str:
    """The split that the first word in the name of a folder or a list says; else empty.

    >>> find_first_word("val2017"), find_first_word("default")
    ('validation', '')
    """
    word = re.match("[a-z]*", name.lower())
    return SPLIT_FOLDERS.get(word[0], "") if word else ""
