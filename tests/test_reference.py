"""The reference has every public name, command, flag and option, and shows them as they are."""

import re

import pytest
import reference_texts
from docs_blocks import ROOT
from reference_texts import find_parser, write_commands, write_options

import converter
import pipelines
import reader
from converter.option_fields import list_options
from converter.options import ConvertOptions
from pipelines.cli.declarations import COMMANDS, CONVERSIONS

REFERENCE = ROOT / "docs" / "reference"
TEXTS = {page.stem: page.read_text() for page in REFERENCE.glob("*.md")}


@pytest.mark.parametrize("package", [converter, pipelines, reader])
def test_every_public_name_is_on_a_page(package):
    shown = re.findall(r"^\.\. auto\w+:: (.+)$", "\n".join(TEXTS.values()), re.MULTILINE)
    names = {f"{package.__name__}.{name}" for name in package.__all__}
    assert names - set(shown) <= {"converter.ConvertOptions"}  # has a page of its own
    assert len(shown) == len(set(shown))


def test_pages_have_the_places_that_are_filled():
    assert "\n<!-- Sphinx: every command -->\n" in TEXTS["commands"]
    assert "\n<!-- Sphinx: every option -->\n" in TEXTS["convert-options"]


@pytest.mark.parametrize("mark", ["every command", "every option"])
def test_a_page_is_filled_when_it_is_read(mark):
    source = [f"# Title\n\n<!-- Sphinx: {mark} -->\n"]
    reference_texts._fill(None, "page", source)
    assert source[0].startswith("# Title\n\n## ")
    assert "<!--" not in source[0]


def test_every_flag_of_every_command_is_there():
    text = "\n".join(write_commands())
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(parts) == list(COMMANDS)
    for name in COMMANDS:
        flags = {flag for action in find_parser(name)._actions for flag in action.option_strings}
        missing = {flag for flag in flags if not re.search(rf"`[^`]*{flag}\b", parts[name])}
        if name == CONVERSIONS[1]:
            assert "(#convert)" in parts[name]
        else:
            assert missing <= {"-h", "--help"}
        for arguments, _ in COMMANDS[name].examples:
            assert f"\nshardmill {name} {arguments}\n" in parts[name]


def test_every_option_has_its_default_and_values():
    text = "\n".join(write_options())
    shown = re.findall(r"^`(\w+)` = `(.*)`\n: (.+)", text, re.MULTILINE)
    declared = {name: row for name, *row in list_options(ConvertOptions) if not row[1].hidden}
    assert {name for name, _, _ in shown} == set(declared)
    for name, default, meaning in shown:
        assert default == repr(declared[name][0])
        assert all(choice in meaning for choice in declared[name][1].choices)
    assert ": Of JPEG and lossy WebP that are encoded again. From 1 to 100." in text


def test_signs_of_markdown_are_shown_as_they_are():
    assert reference_texts._escape("a_b <c> *.tar `d_e` [f]") == r"a\_b \<c\> \*.tar `d_e` \[f\]"


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["Run it:", "", "    code", ""], ["Run it::", "", "    code", ""]),
        (["Some words.", "", "    code"], ["Some words.", "", "::", "", "    code"]),
        (
            ["Args:", "    name: what.", "", "Returns:"],
            ["Args:", "    name: what.", "", "Returns:"],
        ),
        (["Run it::", "", "    code"], ["Run it::", "", "    code"]),
        (["    In:", "", "        code"], ["    In::", "", "        code"]),
    ],
)
def test_indented_lines_are_code(lines, shown):
    reference_texts._mark_code(None, "", "", None, None, lines)
    assert lines == shown
