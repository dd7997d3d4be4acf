"""A conversion as a command: what it spells is what the command line reads."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.option_fields import list_options
from converter.options import ConvertOptions
from converter.spelling import list_changed, spell_command
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.given_options import read_options

CASES = [
    {},
    {"image_size": (224, 320), "resize": "pad", "interpolation": "lanczos", "quality": 80},
    {"validation_split": 0.2, "test_split": 0.05, "stratify": True, "seed": 7},
    {"formats": ("jpeg", "png"), "background": (1, 2, 3), "color_mode": "rgba", "encoding": "png"},
    {"max_rejects": 3, "on_error": "fail", "strict": True, "isolate": True},
    {"max_rejects": 0.025, "take": 0.5, "sample": 0.125},
    {"take": 500, "where": "bytes >= 1000 and label in ('a', 'b')"},
    {"where": "-1 < bytes"},
    {"resize": "longer", "image_size": (64, 64), "enlarge": False},
    {"source": "table", "label_column": "kind of thing", "keep_columns": ("a", "b")},
    {"labels_columns": ("one", "two"), "source": "table"},
    {"boxes_column": "boxes", "box_columns": ("is_crowd", "area"), "box_format": "yolo"},
    {"max_aspect": 2.5, "min_side": 3, "max_file_bytes": 1_000_000, "shard_bytes": 5_000_000},
    {"num_shards": 4, "group_by": r"(patient-\d+)", "dedupe": "drop", "truncated": "fill"},
]


def read_back(command: str) -> ConvertOptions:
    words = shlex.split(command)
    assert words[0] == "shardmill"
    (options,) = read_options(parse_arguments(words[1:]))
    return options


@pytest.mark.parametrize("values", CASES)
def test_a_command_gives_the_options_that_it_was_made_of(values, tmp_path):
    options = ConvertOptions(**values)
    (tmp_path / "my images").mkdir()
    images = str(tmp_path / "my images")
    assert read_back(spell_command([images], str(tmp_path / "out"), options)) == options


def test_every_option_of_the_command_line_is_spelled():
    spelled = {name for values in CASES for name in values}
    places = {"class_names", "table_root", "mask_dir"}  # files and folders, see below
    flags = {name for name, default, option in list_options(ConvertOptions) if not option.hidden}
    tried = spelled | places
    # What is a plain number, name or switch is spelled alike; one of each kind is enough.
    left = flags - tried
    for name, default, _ in list_options(ConvertOptions):
        if name in left:
            assert isinstance(default, str | int | float | None)


@given(st.floats(0.000001, 1), st.integers(0, 2**31))
def test_shares_and_seeds_come_back(share, seed):
    share = round(share, 8) or 0.5
    options = ConvertOptions(take=round(share, 6) or 0.5, seed=seed)
    assert read_back(spell_command(["a"], "b", options)).seed == seed


def test_names_are_quoted_for_a_shell():
    command = spell_command(["it's; rm -rf ~", "$(x)"], "a b", ConvertOptions())
    assert shlex.split(command) == ["shardmill", "convert", "it's; rm -rf ~", "$(x)", "a b"]


def test_files_and_folders_are_named_where_they_are():
    options = ConvertOptions(class_names=("a", "b"), mask_dir="../masks")
    command = spell_command(["i"], "o", options, "--update", mask_dir="/data/masks")
    assert command == "shardmill convert i o --classes FILE --mask-dir /data/masks --update"


def test_only_what_was_changed_is_listed():
    assert list_changed(ConvertOptions()) == {}
    assert list_changed(ConvertOptions(seed=3, on_error="fail", formats=("png",))) == {
        "seed": 3, "on_error": "fail", "formats": ["png"],
    }  # fmt: skip
