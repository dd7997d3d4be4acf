"""What `--help` shows: all commands in groups, each with examples that are right."""

import re
import shlex

import pytest

from converter.option_fields import GROUPS, list_options, read_meanings
from converter.options import ConvertOptions
from pipelines.cli import commands, declarations
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.commands import main
from pipelines.cli.declarations import ARGUMENTS, BRIEF, COMMANDS, CONVERSIONS
from pipelines.cli.given_options import read_options
from pipelines.cli.parsers import make_parser

EXAMPLES = [
    f"{name} {example}" for name, command in COMMANDS.items() for example, _ in command.examples
]

PAGES = [["--help"], *([name, "--help"] for name in COMMANDS), ["convert", "--help-all"]]


def read_help(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_help_names_can_be_run(command):
    assert commands._find_command(command).__name__ == f"run_{command}"


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_a_command_that_is_understood(line):
    arguments = parse_arguments(shlex.split(line))
    assert arguments.rest == []  # nothing of it is left for Beam
    if arguments.command in CONVERSIONS:
        assert read_options(arguments)


@pytest.mark.parametrize("columns", [60, 80, 120, 300])
@pytest.mark.parametrize("arguments", PAGES, ids=" ".join)
def test_lines_of_help_fit_the_terminal_and_break_between_words(
    arguments, columns, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "20000")
    letters = "".join(read_help(arguments, capsys).split())
    monkeypatch.setenv("COLUMNS", str(columns))
    text = read_help(arguments, capsys)
    assert "".join(text.split()) == letters
    # What is to be copied stays on its line, and so does what no blank divides.
    long = [line for line in text.splitlines() if len(line) > min(columns, 110)]
    assert all(re.search("^ *(shardmill|usage:|--|[^ ]+$)", line) for line in long)
    if columns >= 80:
        assert max(map(len, text.splitlines())) <= min(columns, 110)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_a_command_line_without_a_command_shows_all_of_them(capsys):
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +\w", printed.out, re.MULTILINE)
        assert f"  shardmill {name} {command.examples[0][0]}\n" in printed.out
    assert read_help(["--help"], capsys) == printed.out


def test_the_short_help_of_convert_shows_what_most_people_need(capsys):
    text = read_help(["convert", "--help"], capsys)
    whole = read_help(["convert", "--help-all"], capsys)
    assert len(text.splitlines()) < 100 < len(whole.splitlines()) / 2
    assert text.index("examples:") < text.index("  --image-size SIZE") < text.index("  --json")
    flags = set(re.findall(r"^  (--[\w-]+)", text, re.MULTILINE))
    (more,) = re.findall(r"^(\d+) more options are in", text, re.MULTILINE)
    every = set(re.findall(r"^  (--[\w-]+)", whole, re.MULTILINE))
    assert flags < every
    assert int(more) == len(every - flags)
    assert len(flags) < 30
    assert "more options are in" not in whole


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_of_a_command_is_on_its_page(command, capsys):
    page = ["--help-all" if command in CONVERSIONS else "--help"]
    text = read_help([command, *page], capsys)
    for argument in ARGUMENTS:
        if command in argument.commands:
            name = argument.flag if argument.flag.startswith("-") else argument.traits["metavar"]
            assert re.search(rf"^  {name}\b", text, re.MULTILINE)


def test_help_says_of_every_option_what_it_means(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")
    text = " ".join(read_help(["convert", "--help-all"], capsys).split())
    meanings = read_meanings(ConvertOptions)
    shown = (name for name, _, option in list_options(ConvertOptions) if not option.hidden)
    for meaning in map(meanings.__getitem__, shown):
        # What is for Python alone is left out, and names of fields are those of flags.
        for part in re.split(r"; in Python [^.]*|`\w+_\w+`", meaning.removeprefix("False ")):
            assert part.replace("`", "").strip().removesuffix(".") in text
    assert "in JSON or with --labels-separator between" in text
    assert "; in Python" not in text
    for group in GROUPS:
        assert f" {group}: --" in text


def test_the_options_of_the_short_help_are_options():
    assert BRIEF.keys() <= {name for name, _, option in list_options(ConvertOptions)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_all_it_needs_to_be_shown(command):
    found = COMMANDS[command]
    assert found.group in declarations.GROUPS
    assert found.examples
    assert len(found.line) < 60
    assert not found.line.endswith(".")
    known = {name for argument in ARGUMENTS for name in argument.commands}
    assert known <= COMMANDS.keys()


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"completion"}))
def test_every_command_is_quiet_and_answers_programs_if_it_is_asked_to(command):
    usual = {"convert": "a b", "plan": "a b", "repair": "a --images b", "export": "a b"}
    words = usual.get(command, "a").split()
    for flag in ("--quiet", "--json"):
        arguments = parse_arguments([command, *words, flag])
        assert vars(arguments)[flag[2:]] is True


def test_the_flags_that_are_suggested_are_those_there_are():
    flags = make_parser().parse_args(["clean", "x"]).flags
    assert {"--help", "--dry-run", "--json"} <= {*flags}
    assert "--quality" not in flags
