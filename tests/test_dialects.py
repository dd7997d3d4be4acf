"""Tables in text, as programs write them: separators, encodings and decimal commas."""

import codecs
import csv
from pathlib import Path

import pytest

from converter.errors import UsageError
from converter.sources.dialects import find_dialect
from converter.sources.rows import find_flag, has_decimal_comma, read_list, read_number, read_rows
from converter.storage.disk import DiskPath

ROWS = [
    {"path": "a;b.png", "label": "Käse, alt", "size": "0,5"},
    {"path": "x\ty", "label": "", "size": "1"},
]


def read(path: Path) -> list[dict[str, str]]:
    return [row for _, row in read_rows(DiskPath(path))]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_however_it_was_written(tmp_path, suffix, separator, encoding, end):
    table = tmp_path / f"t{suffix}"
    with open(table, "w", encoding=encoding, newline="") as file:
        if encoding == "utf-16-be":
            file.write("\ufeff")
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=separator, lineterminator=end)
        writer.writeheader()
        writer.writerows(ROWS)
    assert read(table) == ROWS


@pytest.mark.parametrize(
    ("head", "suffix", "separator"),
    [
        ("path,label;x\n", ".csv", ","),  # the usual one gives two: others are not tried
        ("path;label,x\n", ".tsv", ";"),  # both give two: the first of them
        ("path;label\tx;y\n", ".csv", ";"),
        ("path;label\tx\ty\n", ".csv", "\t"),
        ("path\n", ".csv", ","),
        ("path\n", ".tsv", "\t"),
        ("", ".csv", ","),
        ('"path;x"\na;b\n', ".csv", ","),
        ('"path\nof;it",label\n', ".csv", ","),
        ('"path\nof,it";label\n', ".csv", ";"),
        ("path\na;b\n", ".csv", ","),  # only the first line counts
        ("\ufeffpath;label\n", ".csv", ";"),
    ],
)
def test_the_first_line_tells_the_separator(tmp_path, head, suffix, separator):
    (tmp_path / f"t{suffix}").write_text(head, "utf-8", newline="")
    usual = "\t" if suffix == ".tsv" else ","
    assert find_dialect(DiskPath(tmp_path / f"t{suffix}"), usual).separator == separator


def test_a_first_line_may_say_the_separator_and_nothing_else(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("sep=;\r\npath;label,of\r\na;b\r\n")
    assert read(table) == [{"path": "a", "label,of": "b"}]
    table.write_text("sep=;\npath;label\na;b\nc\n")
    with pytest.raises(UsageError, match="line 4 has more"):
        read(table)
    table.write_text("sep=,label\nx,a\n")  # the name of a column
    assert read(table) == [{"sep=": "x", "label": "a"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na,b\n".encode("utf-16-le"), "not text in UTF-8"),
        ("path,label\na,b\n".encode("utf-32"), "not text in UTF-8"),
        (b"\x89PNG\0\0", "not text in UTF-8"),
        (codecs.BOM_UTF16_LE + "path,label\n".encode("utf-16-le") + b"a", "cannot be read as a"),
        (codecs.BOM_UTF16_LE, "is empty"),
        (codecs.BOM_UTF8, "is empty"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def test_json_lines_in_utf16_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"path": "a"}\n', "utf-16")
    with pytest.raises(UsageError, match="in UTF-8, not UTF-16"):
        read(tmp_path / "t.jsonl")


def test_bytes_that_are_not_utf8_stay_in_names(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path;label\ncaf\xe9.png;K\xe4se\n")
    assert read(tmp_path / "t.csv") == [{"path": "caf\udce9.png", "label": "K\udce4se"}]


def test_a_number_with_a_comma_is_none_and_the_message_says_how_to_write_it():
    assert [cell for cell in ("0,5", "-1,25", " 1,000 ") if has_decimal_comma(cell)] != []
    others = ("0.5", "1", "", None, 1.5, "1,2,3", ",5", "a,b", [1, 2])
    assert not any(map(has_decimal_comma, others))
    with pytest.raises(ValueError, match=r"'0,5' .*with a point"):
        read_number("0,5")
    with pytest.raises(ValueError, match=r"'a' is not a number$"):
        read_number("a")


@pytest.mark.parametrize(
    ("cell", "flag"),
    [
        ("1", 1), ("0", 0), ("-1", -1), ("1.0", 1), ("-1.0", -1), (" 0 ", 0), ("True", 1),
        ("FALSE", 0), (1, 1), (0.0, 0), (-1, -1), (True, 1), (False, 0), ("1.00", 1),
        ("2", None), ("yes", None), ("", None), (None, None), (float("nan"), None), (0.5, None),
        ([1], None), ({"a": 1}, None), ("inf", None), ("1,0", None), (10**400, None),
    ],
)  # fmt: skip
def test_a_flag_is_1_0_or_minus_1(cell, flag):
    assert find_flag(cell) == flag


@pytest.mark.parametrize(
    ("cell", "separator", "names"),
    [
        ("haze  primary ", " ", ["haze", "primary"]),
        ("haze\tprimary", " ", ["haze", "primary"]),
        ("haze", " ", ["haze"]),
        ("a, b,c", ",", ["a", "b", "c"]),
        ("sports car; truck", ";", ["sports car", "truck"]),
        ("a|b c", "|", ["a", "b c"]),
        ("a::b", "::", ["a", "b"]),
        ("a,,b", ",", ["a", "", "b"]),  # an empty name is refused later
        ('["a b", "c"]', " ", ["a b", "c"]),
        ("", " ", []),
        (None, ",", []),
        (["a b"], " ", ["a b"]),
        (7, " ", [7]),
    ],
)
def test_a_list_is_cut_where_its_separator_stands(cell, separator, names):
    assert read_list(cell, separator) == names
