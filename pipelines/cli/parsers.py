"""Makes the parser and the pages of help, from declarations and from the fields of options."""

import argparse
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import converter
from converter.errors import UsageError
from converter.option_fields import GROUPS, Option, list_options, name_flag, read_meanings
from converter.options import ConvertOptions
from pipelines.cli.declarations import (
    ARGUMENTS,
    BEAM_JOBS,
    BRIEF,
    COMMANDS,
    CONVERSIONS,
    EXCLUSIVE,
    PRINT,
    Argument,
    typed,
)
from pipelines.cli.help_pages import Page, Row, format_overview, format_page

_FOOTER: Final = "Any other option goes to Beam: write it after OUT, as --name=value."


class Parser(argparse.ArgumentParser):
    """A parser whose help is a page of `help_pages`."""

    page: Page | None = None  # None for all commands together

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: dict[str, Parser] = {}
        self.added: list[argparse.Action] = []  # all but `--help`

    def error(self, message: str) -> NoReturn:
        """Raises a UsageError, where argparse would print several lines and exit."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        """The page of `--help`."""
        return format_page(self.page) if self.page else format_overview()


class _ShowAll(argparse.Action):
    """`--help-all`, whose `const` is the page."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        self.const.whole = True
        parser.print_help()
        parser.exit()


def make_parser() -> Parser:
    """The parser of all commands; it sets `command`, and the names of its `flags`."""
    # No abbreviations: what only begins like an option of ours may be one of Beam's.
    parser = Parser(prog="shardmill", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"shardmill {converter.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.line, allow_abbrev=False)
        filler = _Filler(added, name)
        for argument in ARGUMENTS:
            if name in argument.commands:
                filler.add_argument(argument)
        filler.finish()
        parser.commands[name] = added
    return parser


class _Filler:
    """Adds arguments to the parser of a command and to its page."""

    def __init__(self, parser: Parser, name: str) -> None:
        self._parser, self._name = parser, name
        self._page = parser.page = Page(command=name, footer=_FOOTER * (name in BEAM_JOBS))
        self._groups: dict[str, Any] = {}
        self._flags = ["-h", "--help"]

    def add_argument(self, argument: Argument) -> None:
        flag, traits = argument.flag, argument.traits
        if not flag.startswith("-") or traits.get("required"):
            self._page.usage += _spell_usage(flag, traits)
        self._add(argument.section, (flag,), argument.meaning, traits, argument.brief)

    def finish(self) -> None:
        """Adds options of conversions, and what to do with all of them."""
        if self._name in CONVERSIONS:
            self._add_options()
            self._page.whole = False
            show = {"action": _ShowAll, "nargs": 0, "const": self._page}
            self._add(PRINT, ("--help-all",), "show all options and all they mean", show)
        self._page.usage += "[options]"
        self._parser.set_defaults(flags=self._flags)

    def _add(
        self, section: str, names: tuple[str, ...], meaning: str, traits: Mapping[str, Any],
        brief: str = "",
    ) -> None:  # fmt: skip
        key = EXCLUSIVE.get(names[0])
        if key and key not in self._groups:
            self._groups[key] = self._parser.add_mutually_exclusive_group()
        place = self._groups[key] if key else self._parser
        # Shells show it beside a name; `--help` has pages of its own.
        text = re.split(r"[.;:] | \(default", brief or meaning)[0].replace("%", "%%")
        self._parser.added.append(place.add_argument(*names, help=text, **traits))
        self._page.add(section, Row(_spell_names(names, traits), meaning, brief))
        self._flags += [name for name in names if name.startswith("-")]

    def _add_options(self) -> None:
        meanings = read_meanings(ConvertOptions)
        shown = [row for row in list_options(ConvertOptions) if not row[2].hidden]
        shown.sort(key=lambda row: GROUPS.index(row[2].group))
        flags = {name: name_flag(name, default, option) for name, default, option in shown}
        for name, default, option in shown:
            names = (flags[name], *filter(None, [option.alias]))
            meaning = _describe_option(default, option, _name_flags(meanings.get(name, ""), flags))
            # Absent unless given: an update takes what is not given from the data set.
            traits = {**_type_option(default, option), "dest": name, "default": argparse.SUPPRESS}
            brief = _describe_option(default, option, BRIEF[name]) if name in BRIEF else ""
            self._add(option.group, names, meaning, traits, brief)


def _spell_usage(flag: str, traits: Mapping[str, Any]) -> str:
    name = traits["metavar"]
    more = f" [{name} ...]" if traits.get("nargs") == "+" else ""
    return f"{flag} {name}{more} " if flag.startswith("-") else f"{name}{more} "


def _spell_names(names: tuple[str, ...], traits: Mapping[str, Any]) -> str:
    value = traits.get("metavar") or "|".join(traits.get("choices") or ())
    if not names[0].startswith("-"):
        return str(value)
    more = " ..." if traits.get("nargs") == "+" else ""
    return ", ".join(names) + (f" {value}{more}" if value else "")


def _name_flags(meaning: str, flags: Mapping[str, str]) -> str:
    """What an option means on the command line, from its line for Python."""
    text = re.sub(r"; in Python [^.]*", "", meaning)
    return re.sub(r"`(\w+_\w+)`", lambda word: flags.get(word[1], word[0]), text)


def _describe_option(default: Any, option: Option, meaning: str) -> str:
    text = meaning.replace("`", "").removesuffix(".").removeprefix("False ")
    if isinstance(default, bool):
        return text
    shown = option.shown or (f"{default:,}" if isinstance(default, int) else default)
    return text if shown is None else f"{text} (default: {shown})"


def _type_option(default: Any, option: Option) -> dict[str, Any]:
    if isinstance(default, bool):
        return {"action": f"store_{not default}".lower()}
    return {
        "action": "extend" if option.several else "append" if option.repeated else "store",
        "nargs": "+" if option.several else None,
        "type": typed(option.parse or (str if default is None else type(default))),
        "choices": option.choices or None,
        "metavar": option.metavar,
    }
