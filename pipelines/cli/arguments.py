"""What the command line takes: commands and flags, those of options made from their fields."""

import argparse
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import converter
from converter.errors import UsageError
from converter.exports.export_job import KINDS, POLICIES
from converter.option_fields import GROUPS, Option, list_options, read_meanings, suggest
from converter.options import ConvertOptions
from converter.sizes import parse_bytes
from converter.sources.inputs import is_archive, locate_base, locate_mask_base, locate_root
from converter.sources.joined import join_images, locate_images
from converter.storage.locate import locate, parse_location

_COMMANDS: Final = {
    "convert": "write a data set, or resume an interrupted conversion",
    "plan": "show what convert would do, without writing anything",
    "verify": "check every byte of a data set",
    "repair": "rebuild damaged files",
    "inspect": "show counts, sizes and a record",
    "export": "give the images back, as folders, WebDataset or Parquet",
    "clean": "remove what killed runs left behind",
    "index": "index TFRecord files that something else wrote",
}

_DESCRIPTIONS: Final = {
    "verify": "Checks every byte of a data set; with --runner as a Beam job.",
    "repair": "Verifies OUT, and rebuilds what is damaged or missing from the originals. A rebuilt "
    "file is used only if it is, byte for byte, what the manifest states.",
    "export": "Writes the images of OUT to FOLDER: stored bytes as they are, raw pixels as PNG. At "
    "the end it prints the command that converts FOLDER to the same pixels, labels and columns.",
    "clean": "Removes temporary files, stale locks and replaced data sets that killed runs left in "
    "OUT and beside it. What a running conversion uses, and what is not part of it, stays.",
}


def _typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Makes argparse name the argument that a UsageError is about."""

    @functools.wraps(parse)  # argparse names the type in messages of its own
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


_SWITCH: Final = {"action": "store_true"}
_MODE: Final = {"action": "store_const", "dest": "mode", "default": "new"}
_IMAGES: Final = {"type": _typed(parse_location), "metavar": "IMAGES"}

_CONVERSIONS: Final = ("convert", "plan")
_BEAM_JOBS: Final = ("convert", "verify", "repair")

_CONVERTED: Final = "IMAGES [IMAGES ...] OUT"

_EPILOG: Final = "Any other option goes to Beam: write it after OUT, as --name=value."

# Commands, name, help and traits of everything that is not an option of a conversion.
_ARGUMENTS: Final[tuple[tuple[Iterable[str], str, str, Mapping[str, Any]], ...]] = (
    (_CONVERSIONS, "images", "a folder with a folder for each class, or with split folders; an "
     "archive of such folders; a table; annotations of COCO, VOC or YOLO; WebDataset, Parquet or "
     "TFRecords with images in them; a data set of Shardmill; or several of these. Here or in an "
     "object store (s3://bucket/prefix, gs://bucket/prefix). docs/sources.md says more",
     {**_IMAGES, "nargs": "+"}),
    (_COMMANDS.keys() - {"index"}, "out", "the data set's folder, here or in an object store",
     {**_IMAGES, "metavar": "OUT"}),
    (["export"], "folder", "where the export appears: a new or empty folder, here or in a store",
     {**_IMAGES, "metavar": "FOLDER"}),
    (["index"], "files", "files, folders (their *.tfrecord*), or patterns in quotes",
     {"metavar": "FILES", "nargs": "+"}),
    (_COMMANDS, "--debug", "show tracebacks", _SWITCH),
    (_CONVERSIONS, "--overwrite", "replace the data set in OUT once the new one is complete; give "
     "up an unfinished conversion of something else", {**_MODE, "const": "overwrite"}),
    (_CONVERSIONS, "--update", "take added, changed and removed images into the data set in OUT, "
     "with its options; shards without changes stay as they are", {**_MODE, "const": "update"}),
    (["verify"], "--quick", "look at names and sizes only", _SWITCH),
    (["verify"], "--no-decode", "look at image headers only", _SWITCH),
    (["verify"], "--sources", "also compare each record with its original in IMAGES",
     {**_IMAGES, "nargs": "+"}),
    (["repair"], "--images", "what was converted",
     {**_IMAGES, "nargs": "+", "required": True}),
    (["export"], "--as", "a folder for each split and class, tars for WebDataset, or Parquet for "
     "Hugging Face (default: folders)",
     {"dest": "kind", "choices": KINDS, "default": KINDS[0]}),
    (["export"], "--split", "export this split alone", {"metavar": "NAME"}),
    (["export"], "--shard-size", "of tars and Parquet files (default: 500MB)",
     {"dest": "shard_bytes", "type": _typed(parse_bytes), "metavar": "BYTES"}),
    (["export"], "--on-damage", "end at a damaged record, or leave it out (default: raise)",
     {"choices": POLICIES, "default": POLICIES[0]}),
    (["clean"], "--dry-run", "list it and remove nothing", _SWITCH),
    (["clean"], "--unfinished", "also give up an unfinished conversion or replacement, with its "
     "finished shards", _SWITCH),
    (["index"], "--overwrite", "replace an index that does not fit its file", _SWITCH),
    (["index"], "--no-checksums", "skip the checksums of payloads; those of lengths are compared",
     _SWITCH),
    (["convert", "repair", "export", "clean"], "--break-lock", "treat a lock held by another "
     "machine as stale", _SWITCH),
    (_BEAM_JOBS, "--workers", "local processes (default: all cores)",
     {"type": int, "default": 0, "metavar": "N"}),
    (_BEAM_JOBS, "--runner", "any Beam runner (default: processes here)", {"metavar": "RUNNER"}),
    (_BEAM_JOBS, "--shared-paths", "workers on other machines have the same folders under the "
     "same paths", _SWITCH),
    ((*_BEAM_JOBS, "export"), "--no-progress", "draw no progress bar", _SWITCH),
    (["convert", "plan", "verify", "inspect", "export"], "--json", "print one JSON object instead "
     "of lines", _SWITCH),
    (_COMMANDS.keys() - {"plan", "inspect"}, "--quiet", "print errors only: no bar, no summary",
     _SWITCH),
)  # fmt: skip

# A command takes at most one of the flags with the same value.
_EXCLUSIVE: Final = {
    "--overwrite": "mode", "--update": "mode", "--json": "print", "--quiet": "print",
    "--shard-size": "shards", "--num-shards": "shards",
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parses a command line; adds the `command`, the names of its `flags`, and `rest` for Beam."""
    # Here, because argparse would list the commands without the one that was meant.
    command = next((word for word in arguments if not word.startswith("-")), "convert")
    if command not in _COMMANDS:
        near = suggest(command, _COMMANDS)
        hint = f"did you mean {near}?" if near else f"choose one of {', '.join(_COMMANDS)}"
        raise UsageError(f"{command!r} is not a command: {hint}")
    parsed, rest = _make_parser().parse_known_args(arguments)
    if rest and parsed.command in _CONVERSIONS and not rest[0].startswith("-"):
        raise UsageError(
            f"{rest[0]!r} comes after an option: write IMAGES and OUT side by side, before options"
        )
    if rest and parsed.command not in _BEAM_JOBS:
        name = rest[0].split("=", 1)[0]
        near = suggest(name, parsed.flags)
        raise UsageError(f"{name} is not known" + (f": did you mean {near}?" if near else " here"))
    parsed.rest = rest
    return parsed


def read_options(
    arguments: argparse.Namespace, defaults: Mapping[str, Any] | None = None
) -> list[ConvertOptions]:
    """Returns the options for each image size: those given, and `defaults` for the others."""
    names = {name for name, _, _ in list_options(ConvertOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    values = {**(defaults or {}), **given}
    # Stored relative to the table and the images, so that all of them can move together.
    images = locate_images(arguments.images)
    if "table_root" in given and len(images) == 1 and not is_archive(images[0]):
        base = locate_base(images[0])
        values["table_root"] = locate(parse_location(given["table_root"])).relate(base)
    if "mask_dir" in given:
        root = ConvertOptions(table_root=values.get("table_root", "."))
        base = locate_mask_base(locate_root(*join_images(images, root)))
        values["mask_dir"] = locate(parse_location(given["mask_dir"])).relate(base)
    sizes = given.get("image_size", [values.get("image_size", ConvertOptions().image_size)])
    return [ConvertOptions.from_json({**values, "image_size": size}) for size in sizes]


def _make_parser() -> argparse.ArgumentParser:
    # No abbreviations: what only begins like an option of ours may be one of Beam's.
    parser = _Parser(
        prog="shardmill",
        description="Image folders to sharded, resized TFRecords, and a look at them.",
        epilog="Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over "
        "--max-rejects, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"shardmill {converter.__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    for name, text in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=_DESCRIPTIONS.get(name, f"{text[0].upper()}{text[1:]}."),
            # Of 80 options, argparse's own takes a screen.
            usage=f"%(prog)s [options] {_CONVERTED}" if name in _CONVERSIONS else None,
            epilog=_EPILOG if name in _BEAM_JOBS else None,
            allow_abbrev=False,
        )
        groups: dict[str, Any] = {}
        for commands_of, flag, meaning, traits in _ARGUMENTS:
            if name in commands_of:
                _choose_group(command, flag, groups).add_argument(flag, help=meaning, **traits)
        if name in _CONVERSIONS:
            _add_options(command)
        # argparse has no public list of them, which `suggest` needs.
        flags = (flag for action in command._actions for flag in action.option_strings)  # noqa: SLF001
        command.set_defaults(flags=list(flags))
    return parser


def _choose_group(parent: Any, flag: str, groups: dict[str, Any]) -> Any:
    key = _EXCLUSIVE.get(flag)
    if key and key not in groups:
        groups[key] = parent.add_mutually_exclusive_group()
    return groups[key] if key else parent


def _add_options(parser: argparse.ArgumentParser) -> None:
    meanings = read_meanings(ConvertOptions)
    # Absent unless given: an update takes what is not given from the data set.
    add = functools.partial(parser.add_argument_group, argument_default=argparse.SUPPRESS)
    sections = {title: add(title) for title in GROUPS}
    groups: dict[str, Any] = {}
    flags = {
        name: option.flag or f"--{'no-' if default is True else ''}{name.replace('_', '-')}"
        for name, default, option in list_options(ConvertOptions)
        if not option.hidden
    }
    for name, default, option in list_options(ConvertOptions):
        if option.hidden:
            continue
        place = _choose_group(sections[option.group], flags[name], groups)
        meaning = _name_flags(meanings.get(name, ""), flags)
        traits = _describe_option(default, option, meaning)
        place.add_argument(*filter(None, (flags[name], option.alias)), dest=name, **traits)


def _name_flags(meaning: str, flags: Mapping[str, str]) -> str:
    """What an option means on the command line, from its line for Python."""
    text = re.sub(r"; in Python [^.]*", "", meaning)
    return re.sub(r"`(\w+_\w+)`", lambda word: flags.get(word[1], word[0]), text)


def _describe_option(default: Any, option: Option, meaning: str) -> dict[str, Any]:
    text = meaning.replace("`", "").replace("%", "%%").removesuffix(".").removeprefix("False ")
    if isinstance(default, bool):
        return {"action": f"store_{not default}".lower(), "help": text}
    shown = option.shown or (f"{default:,}" if isinstance(default, int) else default)
    return {
        "action": "extend" if option.several else "append" if option.repeated else "store",
        "nargs": "+" if option.several else None,
        "type": _typed(option.parse or (str if default is None else type(default))),
        "choices": option.choices or None,
        "metavar": option.metavar,
        "help": text if shown is None else f"{text} (default: {shown})",
    }
