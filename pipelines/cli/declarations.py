"""Every command with its line and examples, and every argument that is no option of a conversion.

The parser, the help and shell completion are made from these, and from `ConvertOptions`.
"""

import argparse
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from converter.errors import UsageError
from converter.exports import KINDS, POLICIES
from converter.options import parse_image_size
from converter.sizes import parse_bytes
from converter.storage.locate import parse_location

OWN: Final = "options"
PLACES: Final = "images and data sets"
MODE: Final = "what is there already"
RUN: Final = "how it runs"
PRINT: Final = "what it prints"


class Command(NamedTuple):
    """How `--help` shows a command."""

    group: str  # one of `GROUPS`
    line: str  # what it does, in one line
    examples: tuple[tuple[str, str], ...]  # what to type, and what that does; the first in the list
    text: str = ""  # what its own page says; empty for the line


class Argument(NamedTuple):
    """A flag or a position, and how argparse reads it."""

    commands: Iterable[str]
    flag: str
    meaning: str
    traits: Mapping[str, Any]
    section: str = OWN  # its heading in `--help`
    brief: str = ""  # its line in the short `--help` of a conversion; empty for `--help-all` alone


GROUPS: Final = {
    "convert": "make a data set",
    "look": "see what is in it",
    "keep": "check it and mend it",
    "exchange": "from and to other formats",
    "shell": "type less",
}
"""The headings of `shardmill --help`, each with what its commands are for."""

COMMANDS: Final = {
    "plan": Command(
        "convert",
        "show what convert would do, and write nothing",
        (("photos photos-256", "count images, classes, shards and bytes; guess the time"),),
        "Shows what `shardmill convert` would do with the same options, and writes nothing: "
        "images, classes, splits, shards, bytes, and about how long it takes.",
    ),
    "convert": Command(
        "convert",
        "write a data set, or go on with one that was interrupted",
        (
            ("photos photos-256", "a class for each folder in photos, JPEG of 256x256"),
            ("photos out --image-size 224 --resize crop",
             "224x224, cut instead of stretched"),
            ("photos out --validation-split 0.2 --stratify",
             "set one image in five of each class aside"),
            ("labels.csv out --label-column species", "a table names the images and their labels"),
            ("photos photos-256 --update", "take in what was added, changed or removed since"),
        ),
        "Writes a data set. Run the same command again after an interruption, and it goes on "
        "where it ended.",
    ),
    "inspect": Command(
        "look",
        "show counts, sizes, columns and a record",
        (
            ("photos-256", "splits, classes, and the features of the first record"),
            ("photos-256 --record -1 --split validation", "the last record of that split"),
            ("photos-256 --record photos/cat/1.jpg", "the record of that original"),
            ("photos-256 --stats --sample 1000", "what to normalize by: means and deviations"),
        ),
        "Shows what is in a data set: splits, classes with their counts, and the features of a "
        "record. Nothing is written.",
    ),
    "view": Command(
        "look",
        "walk through its records in a browser",
        (
            ("photos-256", "open a page in your browser; Ctrl-C ends it"),
            ("photos-256 --port 8765 --no-browser", "print its address, on a far machine say"),
        ),
        "Shows the records of a data set in your browser: thumbnails by split, class and part of "
        "a name; each record with its boxes, its mask and all its features. Only this machine is "
        "answered, and nothing is written. Ctrl-C ends it.",
    ),
    "bench": Command(
        "look",
        "measure how fast it is read here, and what limits that",
        (
            ("photos-256 --batch-size 64", "a table, and what limits reading, in words"),
            ("photos-256 --seconds 3", "less exact, and done in half the time"),
        ),
        "Measures images a second, CPU, memory and the time to the first batch: of load_dataset, "
        "and of batches() without TensorFlow. Beside them stand TensorFlow's bare decoder and the "
        "bare disk or store. Then it says in words what limits reading on this machine, and what "
        "to do about it. It takes a minute or two.",
    ),
    "report": Command(
        "look",
        "write report.html again: what is in it, with pictures",
        (
            ("photos-256", "photos-256/report.html, which convert has written, too"),
            ("photos-256 --images photos", "with pictures of the files that were rejected"),
            ("photos-256 --out report.html", "to another file, and nothing into OUT"),
        ),
        "Writes one page for people: counts of classes, samples, what the originals were like, "
        "what was left out and why, and what you should know. It opens in any browser, and loads "
        "nothing from anywhere.",
    ),
    "verify": Command(
        "keep",
        "check every byte of a data set",
        (
            ("photos-256", "a line for each fault; exit code 1 if there is one"),
            ("photos-256 --sources photos", "also compare each record with its original"),
        ),
        "Checks every byte of a data set; with --runner as a Beam job.",
    ),
    "repair": Command(
        "keep",
        "rebuild damaged files from the originals",
        (("photos-256 --images photos", "rebuild what verify complains about"),),
        "Verifies OUT, and rebuilds what is damaged or missing from the originals. A rebuilt "
        "file is used only if it is, byte for byte, what the manifest states.",
    ),
    "clean": Command(
        "keep",
        "remove what killed runs left behind",
        (("photos-256 --dry-run", "list it, and remove nothing"),),
        "Removes temporary files, stale locks and replaced data sets that killed runs left in "
        "OUT and beside it. What a running conversion uses, and what is not part of it, stays.",
    ),
    "export": Command(
        "exchange",
        "give the images back, as folders, WebDataset or Parquet",
        (
            ("photos-256 photos-again", "a folder for each split and class"),
            ("photos-256 tars --as webdataset --split train", "tars of the training images"),
        ),
        "Writes the images of OUT to FOLDER: stored bytes as they are, raw pixels as PNG. At "
        "the end it prints the command that converts FOLDER to the same pixels, labels and "
        "columns.",
    ),
    "index": Command(
        "exchange",
        "index TFRecord files of other programs",
        (("'data/*.tfrecord'", "so that open_tfrecords reads them at random"),),
        "Indexes TFRecord files that something else wrote, so that `reader.open_tfrecords` reads "
        "them at random. Checks them on the way.",
    ),
    "completion": Command(
        "shell",
        "print a script that completes what you type",
        (
            ("bash", 'put this into ~/.bashrc: eval "$(shardmill completion bash)"'),
            ("zsh", 'put this into ~/.zshrc, behind compinit: eval "$(shardmill completion zsh)"'),
            ("fish", "type once: shardmill completion fish > "
             "~/.config/fish/completions/shardmill.fish"),
        ),
        "Prints a script for bash, zsh or fish, with which the tab key completes commands, "
        "options, their choices and paths.",
    ),
}  # fmt: skip
"""The commands, in the order of `shardmill --help`."""

CONVERSIONS: Final = ("convert", "plan")
BEAM_JOBS: Final = ("convert", "verify", "repair")


def typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
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
_IMAGES: Final = {"type": typed(parse_location), "metavar": "IMAGES"}

ARGUMENTS: Final = tuple(Argument(*row) for row in (
    (CONVERSIONS, "images", "a folder with a folder for each class, or with split folders; an "
     "archive of such folders; a table; annotations of COCO, VOC or YOLO; WebDataset, Parquet or "
     "TFRecords with images in them; a data set of Shardmill; or several of these. Here or in an "
     "object store (s3://bucket/prefix, gs://bucket/prefix). docs/sources.md says more",
     {**_IMAGES, "nargs": "+"}, PLACES,
     "a folder of class folders, a table, an archive, annotations, tars, …"),
    (COMMANDS.keys() - {"index", "completion"}, "out", "the data set's folder, here or in an "
     "object store", {**_IMAGES, "metavar": "OUT"}, PLACES, "the data set's folder"),
    (["export"], "folder", "where the export appears: a new or empty folder, here or in a store",
     {**_IMAGES, "metavar": "FOLDER"}, PLACES),
    (["index"], "files", "files, folders (their *.tfrecord*), or patterns in quotes",
     {"metavar": "FILES", "nargs": "+"}, PLACES),
    (["completion"], "shell", "bash, zsh or fish",
     {"metavar": "SHELL", "choices": ("bash", "zsh", "fish")}),
    (CONVERSIONS, "--overwrite", "replace the data set in OUT once the new one is complete; give "
     "up an unfinished conversion of something else", {**_MODE, "const": "overwrite"}, MODE,
     "replace the data set in OUT"),
    (CONVERSIONS, "--update", "take added, changed and removed images into the data set in OUT, "
     "with its options; shards without changes stay as they are",
     {**_MODE, "const": "update"}, MODE, "take in what was added, changed or removed since"),
    (["verify"], "--quick", "look at names and sizes only", _SWITCH),
    (["verify"], "--no-decode", "look at image headers only", _SWITCH),
    (["verify"], "--sources", "also compare each record with its original in IMAGES",
     {**_IMAGES, "nargs": "+"}),
    (["inspect"], "--record", "show one record alone, by its number in the split, by SHARD:N as "
     "verify names it, or by the path of its original; negative numbers count from the end, and a "
     "path reads through the data set", {"metavar": "N|SHARD:N|PATH"}),
    (["inspect"], "--split", "of the record and of --stats (default: the first of a record, all "
     "for --stats)", {"metavar": "NAME"}),
    (["inspect"], "--classes", "list all classes, not only the first 20", _SWITCH),
    (["inspect"], "--stats", "show the mean and the standard deviation of each channel; decodes "
     "all images, or --sample of them", _SWITCH),
    (["inspect"], "--sample", "of --stats: draw so many records of each split",
     {"type": int, "metavar": "N"}),
    (["repair"], "--images", "what was converted",
     {**_IMAGES, "nargs": "+", "required": True}),
    (["report"], "--images", "what was converted, to show pictures of the files that were "
     "rejected", {**_IMAGES, "nargs": "+"}),
    (["report"], "--out", "the file to write (default: report.html in OUT)",
     {**_IMAGES, "dest": "file", "metavar": "FILE"}),
    (["export"], "--as", "a folder for each split and class, tars for WebDataset, or Parquet for "
     "Hugging Face (default: folders)",
     {"dest": "kind", "choices": KINDS, "default": KINDS[0]}),
    (["export"], "--split", "export this split alone", {"metavar": "NAME"}),
    (["view"], "--port", "of this machine (default: 8765, or any that is free)",
     {"type": int, "metavar": "N"}),
    (["view"], "--no-browser", "print the address and open no browser", _SWITCH),
    (["bench"], "--split", "which to read (default: train)", {"metavar": "NAME"}),
    (["bench"], "--batch-size", "images a batch (default: 64)",
     {"type": int, "default": 64, "metavar": "N"}),
    (["bench"], "--seconds", "to read with each contender, in three rounds (default: 10)",
     {"type": float, "default": 10.0, "metavar": "S"}),
    (["bench"], "--image-size", "resize while reading, as load_dataset does with image_size",
     {"type": typed(parse_image_size), "metavar": "SIZE"}),
    (["bench"], "--max-ram", "of load_dataset and batches() (default: 512MB)",
     {"type": typed(parse_bytes), "metavar": "BYTES"}),
    (["export"], "--shard-size", "of tars and Parquet files (default: 500MB)",
     {"dest": "shard_bytes", "type": typed(parse_bytes), "metavar": "BYTES"}),
    (["export"], "--on-damage", "end at a damaged record, or leave it out (default: raise)",
     {"choices": POLICIES, "default": POLICIES[0]}),
    (["clean"], "--dry-run", "list it and remove nothing", _SWITCH),
    (["clean"], "--unfinished", "also give up an unfinished conversion or replacement, with its "
     "finished shards", _SWITCH),
    (["index"], "--overwrite", "replace an index that does not fit its file", _SWITCH),
    (["index"], "--no-checksums", "skip the checksums of payloads; those of lengths are compared",
     _SWITCH),
    (BEAM_JOBS, "--workers", "local processes (default: all cores)",
     {"type": int, "default": 0, "metavar": "N"}, RUN, "processes (default: a core each)"),
    (BEAM_JOBS, "--runner", "any Beam runner (default: processes here)",
     {"metavar": "RUNNER"}, RUN, "another Beam runner, such as DataflowRunner"),
    (BEAM_JOBS, "--shared-paths", "workers on other machines have the same folders under the "
     "same paths", _SWITCH, RUN),
    (["convert"], "--plan-on", "where images are listed, compared and dealt out to shards: "
     "launcher is this process, runner the workers of --runner, whatever the number of images "
     "(default: runner for 100,000 or more in an object store)",
     {"choices": ("launcher", "runner")}, RUN),
    (["convert", "repair", "export", "clean", "report"], "--break-lock", "treat a lock held by "
     "another machine as stale", _SWITCH, RUN),
    (COMMANDS.keys() - {"completion"}, "--json", "print one JSON object instead "
     "of lines", _SWITCH, PRINT, "one JSON object instead of lines"),
    (COMMANDS.keys() - {"completion"}, "--quiet", "print errors only: no bar, no summary",
     _SWITCH, PRINT, "errors only"),
    ((*BEAM_JOBS, "plan", "export", "index", "bench"), "--no-progress", "draw no progress bar",
     _SWITCH, PRINT),
    (COMMANDS, "--debug", "show tracebacks", _SWITCH, PRINT),
))  # fmt: skip
"""In the order of their command's `--help`."""

EXCLUSIVE: Final = {
    "--overwrite": "mode", "--update": "mode", "--json": "print", "--quiet": "print",
    "--shard-size": "shards", "--num-shards": "shards",
}  # fmt: skip
"""A command takes at most one of the flags with the same value."""

BRIEF: Final = {
    "image_size": "of the stored images: 256, or 224x320 for height x width",
    "resize": "how they get that size; none leaves them as they are",
    "encoding": "how they are stored; keep is as the originals are",
    "quality": "of JPEG and WebP",
    "shard_bytes": "how large a shard gets",
    "validation_split": "how much to set aside, such as 0.2",
    "test_split": "the same for a second split",
    "stratify": "set aside the same share of each class",
    "seed": "decides splits and the order of records",
    "class_names": "the classes to take, in label order, one a line",
    "where": "what an image has to meet, such as 'bytes >= 10000'",
    "take": "take no more images than that",
    "color_mode": "how many channels images get",
    "max_rejects": "how many images may fail before the exit code is 3",
    "label_from": "which folder is the class",
    "label_column": "in a table: the class",
    "labels_column": "in a table: a list of classes",
    "caption_column": "in a table: a text about the image",
    "mask_dir": "a mask for each image, at the same path",
}
"""The options that the short `--help` of a conversion shows, too, in a few words."""
