"""The options of a conversion: what is refused, and what survives JSON."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.image_options import (
    FORMATS,
    INTERPOLATIONS,
    parse_color,
    parse_formats,
    parse_share,
)
from converter.names import MAX_MESSAGE
from converter.option_fields import GROUPS, list_options, read_meanings, suggest
from converter.options import (
    COLUMN_OPTIONS,
    ENCODINGS,
    RESIZES,
    ConvertOptions,
    parse_image_size,
)

QUICK = settings(deadline=None, max_examples=50)

SIDES = st.integers(1, 16_383)

OPTIONS = st.builds(
    ConvertOptions,
    image_size=SIDES.map(lambda side: (side, side)),
    resize=st.sampled_from(RESIZES),
    interpolation=st.sampled_from(INTERPOLATIONS),
    encoding=st.sampled_from(ENCODINGS),
    quality=st.integers(1, 100),
    shard_bytes=st.integers(1_000, 2**40),
    num_shards=st.none() | st.integers(1, 99_999),
    validation_split=st.floats(0, 0.49),
    test_split=st.floats(0, 0.49),
    seed=st.integers(0, 2**63 - 1),
)


@QUICK
@given(OPTIONS)
def test_options_survive_json(options):
    assert ConvertOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_json_has_every_option_in_order():
    assert list(ConvertOptions(image_size=(2, 3), num_shards=4).to_json().items()) == [
        ("formats", ["jpeg", "mpo", "png", "webp", "gif", "bmp", "tiff", "avif"]),
        ("color_mode", "rgb"),
        ("color_profiles", "srgb"),
        ("background", [255, 255, 255]),
        ("frames", "first"),
        ("max_frames", 1000),
        ("truncated", "reject"),
        ("min_decoded", 0.5),
        ("enlarge", True),
        ("enlarge_interpolation", None),
        ("min_side", 1),
        ("min_area", 1),
        ("max_aspect", None),
        ("max_pixels", 89_478_485),
        ("max_file_bytes", 1 << 28),
        ("class_names", None),
        ("trim_labels", False),
        *((name, None) for name in ("where", "sample", "take")),
        ("image_size", [2, 3]),
        ("resize", "stretch"),
        ("interpolation", "bilinear"),
        ("encoding", "jpeg"),
        ("quality", 95),
        ("shard_bytes", 128_000_000),
        ("num_shards", 4),
        ("validation_split", 0.0),
        ("test_split", 0.0),
        ("stratify", False),
        ("group_by", None),
        ("dedupe", "report"),
        ("label_from", "top"),
        ("split_folders", "auto"),
        ("label_offset", 0),
        ("path_column", "path"),
        ("image_column", None),
        ("path_format", None),
        ("label_column", None),
        ("labels_column", None),
        ("labels_columns", []),
        ("labels_separator", "|"),
        *((name, None) for name in COLUMN_OPTIONS[2:6]),
        ("box_columns", []),
        ("box_format", "xyxy"),
        *((name, None) for name in COLUMN_OPTIONS[6:]),
        ("keep_columns", []),
        ("table_root", "."),
        ("mask_dir", None),
        ("mask_padding", 0),
        ("source", "auto"),
        ("members", []),
        ("seed", 0),
    ]


def test_an_unknown_option_is_refused():
    with pytest.raises(UsageError, match="'sise': known are background, box_columns, box_format, "):
        ConvertOptions.from_json({"sise": 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"resize": "squeeze"},
            "resize 'squeeze' is unknown: choose one of stretch, crop, pad, shorter, longer, none",
        ),
        (
            {"interpolation": "cubic"},
            (
                "interpolation 'cubic' is unknown: "
                "choose one of nearest, box, bilinear, hamming, bicubic, lanczos"
            ),
        ),
        (
            {"encoding": "gif"},
            "encoding 'gif' is unknown: choose one of jpeg, png, webp, raw, keep",
        ),
        ({"image_size": (0, 5)}, "image size 0 is out of range: 1 to 16383"),
        ({"image_size": (5, 16_384)}, "image size 16384 is out of range: 1 to 16383"),
        ({"image_size": 0}, "image size 0 is out of range: 1 to 16383"),
        ({"image_size": 16_384}, "image size 16384 is out of range: 1 to 16383"),
        ({"image_size": True}, "image size True is not a pair (height, width)"),
        ({"image_size": "64"}, "image size '64' is not a pair (height, width)"),
        ({"image_size": None}, "image size None is not a pair (height, width)"),
        ({"image_size": [64, 64]}, "image size [64, 64] is not a pair (height, width)"),
        ({"quality": 0}, "quality 0 is out of range: 1 to 100"),
        ({"quality": 101}, "quality 101 is out of range: 1 to 100"),
        ({"shard_bytes": 999}, "shard bytes 999 is out of range: 1000 or more"),
        ({"num_shards": 0}, "num shards 0 is out of range: 1 to 99999"),
        ({"num_shards": 100_000}, "num shards 100000 is out of range: 1 to 99999"),
        ({"seed": -1}, "seed -1 is out of range: 0 to 9223372036854775807"),
        ({"seed": 2**63}, "seed 9223372036854775808 is out of range: 0 to 9223372036854775807"),
        (
            {"validation_split": -0.1},
            "validation split -0.1 is out of range: 0 or more, under 1",
        ),
        ({"test_split": 1.0}, "test split 1.0 is out of range: 0 or more, under 1"),
        (
            {"test_split": float("nan")},
            "test split nan is out of range: 0 or more, under 1",
        ),
        (
            {"validation_split": 0.5, "test_split": 0.5},
            (
                "validation split 0.5 and test split 0.5 leave nothing to train on: "
                "their sum has to stay under 1"
            ),
        ),
        (
            {"enlarge": False},
            (
                "resize stretch gives every image the same size, so small ones have to be "
                "enlarged: choose pad, shorter, longer or none, or leave them out with min side"
            ),
        ),
        (
            {"color_mode": "rgba"},
            ("encoding jpeg cannot hold color mode rgba: choose one of png, raw, keep"),
        ),
        (
            {"color_mode": "grayscale", "encoding": "webp"},
            ("encoding webp cannot hold color mode grayscale: choose one of jpeg, png, raw, keep"),
        ),
        (
            {"color_mode": "cmyk"},
            "color mode 'cmyk' is unknown: choose one of rgb, grayscale, rgba",
        ),
        ({"color_profiles": "p3"}, "color profiles 'p3' is unknown: choose one of srgb, ignore"),
        ({"frames": "last"}, "frames 'last' is unknown: choose one of first, all, reject"),
        ({"on_error": "retry"}, "on error 'retry' is unknown: choose one of reject, fail"),
        ({"formats": ()}, f"formats are empty: name one or more of {', '.join(FORMATS)}"),
        ({"background": (0, 0)}, "background (0, 0) is not (red, green, blue)"),
        ({"background": (0, 0, 256)}, "background 256 is out of range: 0 to 255"),
        ({"max_aspect": 0.5}, "max aspect 0.5 is out of range: 1 or more"),
        ({"max_rejects": -1}, "max rejects -1 is out of range: 0 or more"),
        (
            {"max_rejects": 1.5},
            "max rejects 1.5 is neither a whole number nor a fraction up to 1: give 10, or 2.5%, "
            "which is 0.025 in Python",
        ),
        ({"isolate": 1}, "isolate 1 is neither True nor False"),
        ({"max_pixels": 0}, "max pixels 0 is out of range: 1 to 2147483647"),
        (
            {"resize": "shorter", "image_size": (224, 320)},
            "resize shorter takes one number, not 224x320: the other side follows from the image",
        ),
        (
            {"resize": "longer", "image_size": (224, 320)},
            "resize longer takes one number, not 224x320: the other side follows from the image",
        ),
        ({"group_by": ""}, "group by is empty, and matches nothing: leave it out"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        ConvertOptions(**values)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("image_size", "256"),
        ("image_size", 256.0),
        ("image_size", True),
        ("image_size", (256,)),
        ("image_size", (256, 256, 3)),
        ("image_size", (22.5, 30)),
        ("quality", 95.5),
        ("num_shards", 2.5),
        ("seed", 0.5),
    ],
)
def test_a_value_that_is_no_whole_number_is_refused(option, value):
    with pytest.raises(UsageError, match=f"^{option.replace('_', ' ')} "):
        ConvertOptions(**{option: value})


OPTION_NAMES = [name for name, _, _ in list_options(ConvertOptions)]


@pytest.mark.parametrize("option", OPTION_NAMES)
@pytest.mark.parametrize(
    "value",
    [object(), {"a": 1}, b"x", ["x"], {3}, np.zeros((3, 70)), (object(),), ({},), ("x", 3), len],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_another_type_is_refused_in_one_line(option, value):
    with pytest.raises(UsageError) as caught:
        ConvertOptions(**{option: value})
    message = str(caught.value)
    assert re.match(rf"{option.replace('_', ' ')} .* (is|are) (not|neither|unknown)", message)
    assert len(message) <= MAX_MESSAGE


@pytest.mark.parametrize("option", OPTION_NAMES)
@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 10**30, 2.5, math.nan, math.inf, "", "\n\0\ud800", "9" * 999, (), ("",)],
)
def test_a_value_is_taken_or_refused_in_one_line(option, value):
    try:
        ConvertOptions(**{option: value})
    except UsageError as error:
        assert re.fullmatch(r"[^\n]{,400}", str(error))  # noqa: PT017 (whatever it says)


def test_a_whole_number_does_for_any_number():
    assert ConvertOptions(validation_split=0, max_aspect=3, max_rejects=2).max_aspect == 3


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_formats, "png,-gif", "formats 'png,-gif' mix names with and without + and -: "),
        (parse_formats, "+eps", "format 'eps' is unknown: choose one of jpeg, mpo, png, "),
        (parse_formats, "", "formats are empty: name one"),
        (parse_color, "pink", "'pink' is not a colour: write white, black, gray, #rrggbb or r,g,b"),
        (parse_color, "1,2,256", "'1,2,256' is not a colour: "),
        (parse_share, "some", "'some' is neither a number of images, such as 10, nor a share: "),
        (parse_share, "-1", "'-1' is neither a number of images, such as 10, nor a share: "),
    ],
)
def test_a_text_that_makes_no_sense_is_refused(parse, text, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        parse(text)


def test_policies_are_no_part_of_what_decides_bytes():
    options = ConvertOptions(on_error="fail", max_rejects=0.5, isolate=True, max_seconds=3)
    assert options.to_json() == ConvertOptions().to_json()
    both = {**options.to_json(), **options.policies_to_json()}
    assert ConvertOptions.from_json(json.loads(json.dumps(both))) == options


@pytest.mark.parametrize("resize", RESIZES)
def test_one_number_is_both_sides(resize):
    options = ConvertOptions(image_size=64, resize=resize)
    assert options == ConvertOptions(image_size=(64, 64), resize=resize)
    assert options.image_size == (64, 64)
    assert options.to_json()["image_size"] == [64, 64]
    assert ConvertOptions.from_json({"image_size": 64, "resize": resize}) == options
    assert dataclasses.replace(options, image_size=32).image_size == (32, 32)


def test_only_these_modes_give_every_image_the_same_size():
    fixed = [resize for resize in RESIZES if ConvertOptions(resize=resize).fixed_size]
    assert fixed == ["stretch", "crop", "pad"]


@pytest.mark.parametrize(
    ("text", "expected"), [("256", (256, 256)), ("224x320", (224, 320)), (" 1x2 ", (1, 2))]
)
def test_image_sizes_are_height_x_width(text, expected):
    assert parse_image_size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "3x", "x3", "1x2x3", "-1", "2.5", "1000000"])
def test_what_is_not_an_image_size_is_refused(text):
    with pytest.raises(UsageError, match=f"^{re.escape(repr(text))} is not an image"):
        parse_image_size(text)


def test_every_option_says_what_it_means_and_shows_its_default():
    meanings = read_meanings(ConvertOptions)
    assert {*meanings} == {field.name for field in dataclasses.fields(ConvertOptions)}
    for name, default, option in list_options(ConvertOptions):
        assert option.group in GROUPS
        if option.parse and option.shown and default:
            assert option.parse(option.shown) == default, name


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("--sed", ["--seed", "--sdk"], "--seed"),
        ("convret", ["convert", "verify"], "convert"),
        ("--json", ["--zone", "--jobs_path"], None),
    ],
)
def test_only_what_is_close_is_suggested(word, known, near):
    assert suggest(word, known) == near
