"""What the command line takes: commands, options, and their help texts."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import converter
from converter.errors import UsageError
from converter.image_options import (
    COLOR_CHANNELS,
    COLOR_PROFILES,
    FRAMES,
    INTERPOLATIONS,
    ON_ERRORS,
    parse_color,
    parse_formats,
    parse_share,
)
from converter.names import from_bytes
from converter.options import (
    BOX_FORMATS,
    COLUMN_OPTIONS,
    DEDUPES,
    ENCODINGS,
    LABEL_SOURCES,
    RESIZES,
    SPLIT_CHOICES,
    ConvertOptions,
    parse_image_size,
)
from converter.sizes import parse_bytes
from converter.sources.inputs import locate_root
from converter.sources.mask_pairing import find_base
from converter.storage.locate import locate, parse_location, relate
from converter.storage.location import Location

_BEAM: Final = "Any other option goes to Beam; write it behind OUT, as --name=value."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `command` of its result says which command it is."""
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
    for name, text, add in (
        ("convert", "write a data set, or go on with it", _add_convert),
        ("plan", "say what convert would do", _add_conversion),
        ("verify", "check every byte of a data set", _add_verify),
        ("repair", "make again what is damaged", _add_repair),
        ("inspect", "show counts, sizes and a record", _add_out),
        ("clean", "remove what killed runs left behind", _add_clean),
        ("index", "index other TFRecord files", _add_index),
    ):
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks")
        add(command)
    return parser


def read_options(
    arguments: argparse.Namespace, defaults: Mapping[str, Any] | None = None
) -> list[ConvertOptions]:
    """The options of a conversion for each size: those given, and `defaults` for the others."""
    names = (field.name for field in dataclasses.fields(ConvertOptions))
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    if "mask_dir" in given:
        stored = {**(defaults or {}), **given}
        given["mask_dir"] = relate_masks(arguments.images, given["mask_dir"], stored)
    values = {**(defaults or {}), **given}
    sizes = given.get("image_size")
    if sizes is None:
        return [ConvertOptions.from_json(values)]
    return [ConvertOptions.from_json({**values, "image_size": size}) for size in sizes]


def relate_masks(images: Location, masks: str, options: Mapping[str, Any]) -> str:
    """The folder of masks as options have it: from where the images lie, as both may move.

    Args:
        images: a folder, an archive or a table.
        masks: as it was given: from the current folder, or an address.
        options: which were given, too.
    """
    found = locate_root(locate(images), ConvertOptions(table_root=options.get("table_root", ".")))
    return relate(locate(masks), find_base(found))


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _BEAM
    _add_conversion(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--overwrite",
        action="store_const",
        dest="mode",
        const="overwrite",
        default="new",
        help="replace the data set in OUT once the new one is complete; give up an unfinished "
        "conversion of something else",
    )
    again.add_argument(
        "--update",
        action="store_const",
        dest="mode",
        const="update",
        help="take added, changed and removed images into the data set in OUT, with its options; "
        "shards in which nothing is different stay as they are",
    )
    _add_lock(parser)
    _add_running(parser)


def _add_conversion(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    parser.add_argument(
        "images",
        type=_typed(parse_location),
        metavar="IMAGES",
        help="a folder with a folder for each class, or with split folders, here or in an object "
        "store (s3://bucket/prefix, gs://bucket/prefix); an archive of such (.tar, .tar.gz, .zip); "
        "or a table (.csv, .tsv, .jsonl, .parquet)",
    )
    parser.add_argument(
        "out",
        type=_typed(parse_location),
        metavar="OUT",
        help="the folder for the data set, here or in an object store",
    )
    options = parser.add_argument_group("what is written", argument_default=argparse.SUPPRESS)
    add = options.add_argument
    add("--image-size", type=_typed(parse_image_size), metavar="SIZE", action="append",
        help="256, or 224x320 for height x width (default: 256); several times for several data "
        "sets, OUT/256x256 and so on, from one reading")  # fmt: skip
    add("--resize", choices=RESIZES,
        help="stretch: exactly this size; crop: fill it and cut; pad: fit in, fill up with black; "
        f"shorter, longer: bring that side to it; none (default: {default.resize})")  # fmt: skip
    add("--interpolation", choices=INTERPOLATIONS, help=f"default: {default.interpolation}")
    add("--enlarge-interpolation", choices=INTERPOLATIONS,
        help="where images are enlarged (default: the same)")  # fmt: skip
    add("--no-enlarge", dest="enlarge", action="store_false",
        help="leave smaller images as small as they are (pad, shorter, longer)")  # fmt: skip
    add("--encoding", choices=ENCODINGS,
        help=f"raw: bare pixels; keep: each image's own (default: {default.encoding})")  # fmt: skip
    add("--quality", type=int, metavar="1-100",
        help=f"of JPEG and WebP (default: {default.quality})")  # fmt: skip
    _add_division(options)
    _add_image_options(parser)
    _add_labels(parser)
    _add_table(parser)
    _add_masks(parser)


def _add_division(options: argparse._ArgumentGroup) -> None:
    default = ConvertOptions()
    add = options.add_argument
    shards = options.add_mutually_exclusive_group()
    shards.add_argument("--shard-size", type=_typed(parse_bytes), dest="shard_bytes",
                        metavar="BYTES", help="aimed at (default: 128MB)")  # fmt: skip
    shards.add_argument("--num-shards", type=int, metavar="N", help="shards of the largest split")
    for name in ("validation", "test"):
        add(f"--{name}-split", type=float, metavar="FRACTION",
            help=f"share of the images for a {name} split (default: none)")  # fmt: skip
    add("--stratify", action="store_true", help="take that share of each class")
    add("--group-by", metavar="PATTERN",
        help="never divide what this regular expression matches in the paths, such as a patient, "
        "between splits; 'folder': each folder")  # fmt: skip
    add("--dedupe", choices=DEDUPES,
        help="images with the same content: report them and keep them in one split, drop all but "
        f"one, or off (default: {default.dedupe})")  # fmt: skip
    add("--seed", type=int, metavar="N",
        help=f"decides splits and order (default: {default.seed})")  # fmt: skip


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    group = parser.add_argument_group(
        "which images, and how they look", argument_default=argparse.SUPPRESS
    )
    add = group.add_argument
    add("--formats", type=_typed(parse_formats), metavar="LIST",
        help="jpeg,png for these alone; +jpeg2000,-gif to add and take away; also to be had: ppm, "
        f"tga, ico, heif (default: {','.join(default.formats)})")  # fmt: skip
    add("--color-mode", choices=tuple(COLOR_CHANNELS), help=f"default: {default.color_mode}")
    add("--color-profiles", choices=COLOR_PROFILES,
        help="ICC profiles are converted to srgb, or ignored (default: srgb)")  # fmt: skip
    add("--background", type=_typed(parse_color), metavar="COLOR",
        help="behind transparent images: white, black, gray, #rrggbb or r,g,b")  # fmt: skip
    add("--frames", choices=FRAMES,
        help="of animations and files of several pages: the first, all of them as images of their "
        f"own, or reject them (default: {default.frames})")  # fmt: skip
    add("--max-frames", type=int, metavar="N",
        help=f"of each such file, with all (default: {default.max_frames:,})")  # fmt: skip
    add("--min-side", type=int, metavar="PIXELS", help="leave out images with a shorter side")
    add("--min-area", type=int, metavar="PIXELS", help="leave out images of fewer pixels")
    add("--max-aspect", type=float, metavar="RATIO",
        help="leave out images that are longer for their width, such as 4 to 1")  # fmt: skip
    add("--max-pixels", type=int, metavar="N",
        help=f"reject larger images unread (default: {default.max_pixels:,})")  # fmt: skip
    add("--max-file-bytes", type=_typed(parse_bytes), metavar="BYTES",
        help="reject larger files unread (default: 268MB)")  # fmt: skip
    _add_policies(parser)


def _add_policies(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    group = parser.add_argument_group("what may go wrong", argument_default=argparse.SUPPRESS)
    add = group.add_argument
    add("--on-error", choices=ON_ERRORS,
        help="an image that cannot be converted is noted in rejects.jsonl, or ends the "
        "conversion (default: reject)")  # fmt: skip
    add("--max-rejects", type=_typed(parse_share), metavar="N|P%",
        help="with more rejected images, the exit code is 3 (default: no limit)")  # fmt: skip
    add("--strict", action="store_true",
        help="end before anything is converted where names look alike, the same content lies in "
        "different classes or splits, masks have no image, or files cannot be read")  # fmt: skip
    add("--isolate", action="store_true",
        help="decode in child processes: an image at which a decoder crashes or hangs is "
        "rejected")  # fmt: skip
    add("--max-seconds", type=int, metavar="S",
        help=f"CPU time for an isolated image (default: {default.max_seconds})")  # fmt: skip


def _add_labels(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    group = parser.add_argument_group("labels of folders", argument_default=argparse.SUPPRESS)
    add = group.add_argument
    add("--label-from", choices=LABEL_SOURCES,
        help="the class is the top folder, or the parent folder of each image; none: no labels "
        f"(default: {default.label_from})")  # fmt: skip
    add("--split-folders", choices=SPLIT_CHOICES,
        help="whether the top folders are splits: train, training; validation, valid, val, dev; "
        "test, testing, eval, evaluation (default: auto, if all have such names)")  # fmt: skip
    add("--labels", type=_read_names, dest="class_names", metavar="FILE",
        help="the classes in label order, one a line; images of others are left out")  # fmt: skip
    add("--label-offset", type=int, choices=(0, 1),
        help="1: leave label 0 to a class 'background' (default: 0)")  # fmt: skip


def _add_table(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    group = parser.add_argument_group("columns of a table", argument_default=argparse.SUPPRESS)
    add = group.add_argument
    add("--path-column", metavar="NAME", help=f"paths of images (default: {default.path_column})")
    helps = (
        "one class", "a list of classes, or names with | between", "a number to be predicted",
        "a text", "a list of boxes, four numbers each", "the class of each box",
        "the path of a mask", "a split, as folders are called",
        "what is never divided between splits",
    )  # fmt: skip
    for name, text in zip(COLUMN_OPTIONS, helps, strict=True):
        add(f"--{name.replace('_', '-')}", metavar="NAME", help=text)
    add("--box-format", choices=BOX_FORMATS,
        help="xyxy, xywh: pixels; yolo: centre and size, yxyx: edges, as fractions (default: "
        f"{default.box_format})")  # fmt: skip
    add("--keep-column", action="append", dest="keep_columns", metavar="NAME",
        help="carry this column into the records; may be given several times")  # fmt: skip
    add("--table-root", metavar="PATH",
        help="folder or archive that the paths are relative to, itself relative to the table's "
        "folder (default: that folder)")  # fmt: skip


def _add_masks(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    group = parser.add_argument_group("masks", argument_default=argparse.SUPPRESS)
    add = group.add_argument
    add("--mask-dir", metavar="DIR",
        help="folder or archive with a mask of class numbers for each image, of the same path but "
        "for its suffix")  # fmt: skip
    add("--mask-padding", type=int, metavar="0-255",
        help="the number where the image is padded (default: "
        f"{default.mask_padding})")  # fmt: skip


def _read_names(path: str) -> list[str]:
    """The lines of a file of class names, in the spelling of `converter.names`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    return [from_bytes(line) for line in data.splitlines() if line]


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"With --runner it is a Beam job. {_BEAM}"
    _add_out(parser)
    add = parser.add_argument
    add("--quick", action="store_true", help="look at names and sizes only")
    add("--no-decode", action="store_true", help="look at headers of images only")
    add("--sources", type=_typed(parse_location), metavar="IMAGES",
        help="also compare each record with its original in this folder")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object instead of lines")
    _add_running(parser)


def _add_repair(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Verifies OUT, and makes again from the originals what is damaged or missing. It takes its "
        "place only if it comes out as the manifest states, byte for byte."
    )
    parser.epilog = _BEAM
    _add_out(parser)
    parser.add_argument(
        "--images",
        type=_typed(parse_location),
        metavar="IMAGES",
        required=True,
        help="the folder of the originals",
    )
    _add_lock(parser)
    _add_running(parser)


def _add_clean(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Removes temporary files, stale locks and replaced data sets that killed runs left in OUT "
        "and beside it. What a running conversion uses, and what is not of it, stays."
    )
    _add_out(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="list it and remove nothing")
    add("--unfinished", action="store_true",
        help="also give up an unfinished conversion or replacement, finished shards and "
        "all")  # fmt: skip
    _add_lock(parser)


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes an index beside each TFRecord file, whatever wrote the file."
    add = parser.add_argument
    add("files", nargs="+", metavar="FILES",
        help="files, folders (their *.tfrecord*), or patterns in quotes")  # fmt: skip
    add("--overwrite", action="store_true", help="replace an index that does not fit its file")
    add("--no-checksums", action="store_true",
        help="skip the checksums of payloads; those of lengths are compared")  # fmt: skip


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", type=_typed(parse_location), metavar="OUT", help="the data set's folder"
    )


def _add_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--break-lock",
        action="store_true",
        help="take the lock of a process on another machine for stale",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=int, default=0, metavar="N", help="local processes (default: all cores)")
    add("--runner", metavar="RUNNER", help="any Beam runner (default: processes here)")
    add("--shared-paths", action="store_true",
        help="workers on other machines have the same folders under the same paths")  # fmt: skip
    add("--no-progress", action="store_true", help="draw no progress bar")
    flags = (flag for action in parser._actions for flag in action.option_strings)  # noqa: SLF001
    parser.set_defaults(flags=list(flags))


def _typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Lets argparse show the message of a UsageError, which it would swallow as a ValueError's."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
