"""Texts for people."""

import os

import pytest

from converter.names import escape


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü 猫", "plain ü 猫"),
        ("bell\x07", "bell\\x07"),
        ("new\nline", "new\\nline"),
        ("\x1b[2J", "\\x1b[2J"),
        (os.fsdecode(b"latin-\xfc"), "latin-\\xfc"),
        ("half of a pair \ud800", "half of a pair \\ud800"),
        ("right\u202eleft", "right\\u202eleft"),
    ],
)
def test_names_are_made_safe_to_print(name: str, shown: str) -> None:
    assert escape(name) == shown
