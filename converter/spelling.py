"""Spells a conversion as the command that repeats it."""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

from converter.option_fields import list_options, name_flag
from converter.options import ConvertOptions

_SHARES: Final = ("max_rejects", "take")  # a float is a share of 1, written in percent


def spell_command(
    images: Sequence[str], out: str, options: ConvertOptions, *flags: str, **places: str
) -> str:
    """The command line of a conversion, quoted for a shell.

    `places` are the paths of `mask_dir` and `table_root`, which options hold relative to others. A
    list of classes comes from a file, which `--classes FILE` stands for.

    >>> spell_command(["my photos"], "out", ConvertOptions(image_size=(224, 320), seed=7))
    "shardmill convert 'my photos' out --image-size 224x320 --seed 7"
    """
    words = [*_spell_options(options, places), *flags]
    return shlex.join(["shardmill", "convert", *images, out, *words])


def list_changed(options: ConvertOptions) -> dict[str, Any]:
    """The options that are not the default, as JSON has them."""
    values = {**options.to_json(), **options.policies_to_json()}
    usual = ConvertOptions()
    usual_values = {**usual.to_json(), **usual.policies_to_json()}
    return {name: value for name, value in values.items() if value != usual_values[name]}


def _spell_options(options: ConvertOptions, places: dict[str, str]) -> Iterator[str]:
    for name, default, found in list_options(options):
        value = places.get(name, getattr(options, name))
        if found.hidden or getattr(options, name) == default:
            continue
        flag = name_flag(name, default, found)
        if isinstance(default, bool):
            yield flag
        elif name == "class_names":
            yield from (flag, "FILE")
        elif found.several:
            yield from (flag, *value)
        elif found.repeated and name != "image_size":
            yield from itertools.chain.from_iterable((flag, each) for each in value)
        else:
            text = _spell_value(name, value)
            yield from [f"{flag}={text}"] if text.startswith("-") else (flag, text)


def _spell_value(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return ("x" if name == "image_size" else ",").join(map(str, value))
    if name in _SHARES and isinstance(value, float):
        return f"{value * 100:.6f}".rstrip("0").rstrip(".") + "%"
    return str(value)
