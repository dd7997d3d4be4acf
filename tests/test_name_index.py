"""File names as text, the same in every locale."""

import os

from hypothesis import given
from hypothesis import strategies as st

from converter import names


@given(st.binary())
def test_every_name_comes_back(name: bytes) -> None:
    assert names.to_bytes(names.from_bytes(name)) == name


@given(st.binary().filter(lambda name: b"\0" not in name))
def test_the_system_finds_the_file_again(name: bytes) -> None:
    seen = os.fsdecode(name)
    assert names.to_system(names.from_system(seen)) == seen
    assert names.to_bytes(names.from_system(seen)) == name


def test_a_name_in_utf_8_reads_as_it_looks() -> None:
    assert names.from_bytes("Äpfel/猫.png".encode()) == "Äpfel/猫.png"
