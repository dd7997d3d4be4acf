"""Lines for a terminal: measured in columns, cut, broken between words, and in tables."""

import io
import os
import re
import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.text_layout import cut_text, find_width, format_table, measure_text, wrap_line

TEXTS = st.text(st.sampled_from("ab é猫😀قط\u0301 "), max_size=60)


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("cat", 3), ("café", 4), ("cafe\u0301", 4), ("猫と犬", 6), ("😀", 2), ("قطة", 3)],
)
def test_texts_are_measured_in_columns(text, columns):
    assert measure_text(text) == columns


@given(TEXTS, st.integers(1, 40))
def test_a_text_is_cut_to_a_width_and_only_if_it_has_to(text, width):
    cut = cut_text(text, width)
    assert measure_text(cut) <= width
    if measure_text(text) <= width:
        assert cut == text
    else:
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        assert measure_text(cut) >= width - 1  # a wide letter may leave a column


@given(TEXTS, st.integers(20, 80))
def test_a_wrapped_line_has_the_same_words_on_lines_that_fit(text, width):
    lines = list(wrap_line(text, width))
    assert " ".join(lines).split() == text.split()
    for line in lines:
        assert measure_text(line) <= width or max(map(measure_text, line.split())) > width // 2
    assert list(wrap_line(text, None)) == [text]


def test_what_follows_is_indented_like_the_text_it_belongs_to():
    line = "  image/caption  text  a picture of a cat that sleeps"
    assert list(wrap_line(line, 44)) == [
        "  image/caption  text  a picture of a cat",
        "                       that sleeps",
    ]
    assert list(wrap_line("one two three four", 12)) == ["one two", "  three four"]
    assert list(wrap_line("  note: one two three", 14)) == ["  note: one", "    two three"]


def test_a_word_that_fits_on_no_line_stays_where_it_is():
    path = "/" + "x" * 50
    line = f"every file that was left out: {path} and more"
    assert list(wrap_line(line, 40)) == [f"every file that was left out: {path}", "  and more"]


def test_a_long_line_takes_no_time():
    assert "".join(wrap_line("x " * 2000, 80)).count("x") == 2000
    assert len(list(wrap_line("a  " * 2000, 80))) < 2000


def test_numbers_stand_to_the_right_and_names_last():
    rows = [("0", "12,000", "猫"), ("10", "3", "a very long name")]
    assert list(format_table(("label", "images", "class"), rows)) == [
        "  label  images  class",
        "      0  12,000  猫",
        "     10       3  a very long name",
    ]
    lines = list(format_table(("label", "images", "class"), rows, left=2, width=26))
    assert lines == ["  label  images  class", "  0      12,000  猫", "  10     3       a very l…"]


@pytest.mark.parametrize("columns", [60, 90])
def test_a_terminal_has_a_width_and_a_file_has_none(columns, tmp_path, monkeypatch):
    with open(tmp_path / "file", "w") as file:
        assert find_width(file) is None
    assert find_width(io.StringIO()) is None
    controller, terminal = os.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    with os.fdopen(terminal, "w") as stream:
        assert find_width(stream) == columns
    os.close(controller)


def read_all(controller):
    """What was written to a terminal, which hands it out in parts."""
    found = b""
    while select.select([controller], [], [], 0.2)[0]:
        found += os.read(controller, 10_000)
    return found.decode()


def test_what_a_command_prints_is_broken_on_a_terminal_and_whole_in_a_pipe(tmp_path, monkeypatch):
    from pipelines.cli import terminal

    line = "  note: " + "some words " * 20
    controller, descriptor = os.openpty()
    monkeypatch.setenv("COLUMNS", "60")
    with os.fdopen(descriptor, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        terminal.print_lines([line])
        assert terminal.fail("error: " + line.strip(), 7) == 7
        stream.flush()
        printed = read_all(controller).splitlines()
    os.close(controller)
    assert max(map(len, printed)) <= 60
    first = next(n for n, text in enumerate(printed) if text.startswith("shardmill:"))
    assert " ".join(" ".join(printed[:first]).split()) == " ".join(line.split())
    assert all(re.match(r"  \S", text) for text in printed[first + 1 :])
    with open(tmp_path / "file", "w+") as file:
        monkeypatch.setattr("sys.stdout", file)
        terminal.print_lines([line])
        file.seek(0)
        assert file.read() == f"{line}\n"
