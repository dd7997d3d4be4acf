"""The options that choose images and classes, and rename these, whatever the source."""

import dataclasses

from converter.class_names import parse_renames, read_class_names
from converter.conditions import parse_condition
from converter.errors import UsageError
from converter.image_options import ImageOptions, parse_share
from converter.names import from_system
from converter.option_fields import CHOICE, option


def parse_fraction(text: str) -> float:
    """Parses a share, in percent or as a fraction.

    >>> parse_fraction("1%"), parse_fraction("0.25")
    (0.01, 0.25)
    """
    try:
        return float(parse_share(text) if text.strip().endswith("%") else text)
    except ValueError:
        raise UsageError(f"{text!r} is not a share: write 1% or 0.01") from None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceOptions(ImageOptions):
    """The part of `converter.options.ConvertOptions` that chooses images, by name or by chance.

    They apply in this order, before duplicates, masks and splits.

    Attributes:
        class_names: the classes in label order; images of others are left out. `old -> new` takes
            a class under another name, and several to one name merge. On the command line a file
            with one class a line. By default all classes, in the order of the bytes of their names.
        trim_labels: an image with several labels or boxes keeps those of the classes in
            `class_names`, and is left out only if none of them is left. Without it, one other class
            leaves the image out.
        where: a condition that images have to meet, such as `label in (cats, dogs) and
            bytes >= 10000`; docs/sources.md has the whole language.
        sample: the share of the images to take, 1% or 0.01, by a hash of seed and path: an image
            stays in or out when others are added.
        take: how many images to take, 500 or 1% of them, those with the lowest hashes: one of each
            class at least, if the number allows it.
    """

    class_names: tuple[str, ...] | None = option(
        None, CHOICE, parse=read_class_names, metavar="FILE", flag="--classes", alias="--labels"
    )
    trim_labels: bool = option(False, CHOICE)
    where: str | None = option(None, CHOICE, parse=from_system, metavar="CONDITION", shown="all")
    sample: float | None = option(None, CHOICE, parse=parse_fraction, metavar="SHARE", shown="all")
    take: int | float | None = option(None, CHOICE, parse=parse_share, metavar="N|P%", shown="all")

    def __post_init__(self) -> None:
        ImageOptions.__post_init__(self)
        if self.class_names is not None:
            if not all(self.class_names) or not self.class_names:
                raise UsageError("class names are empty: give one or more, none of them empty")
            parse_renames(self.class_names)
        elif self.trim_labels:
            raise UsageError(
                "trim labels takes off what class names leave out: give class names, too"
            )
        if self.where is not None:
            parse_condition(self.where)
        if self.sample is not None and not 0 < self.sample <= 1:  # also true of NaN
            raise UsageError(
                f"sample {self.sample} is out of range: above 0, and up to 1, which is all"
            )
        if self.take is not None and not _is_number_or_share(self.take):
            raise UsageError(
                f"take {self.take} is out of range: a whole number from 1 on, or a fraction over 0 "
                "and up to 1"
            )


def _is_number_or_share(value: float) -> bool:
    return value > 0 and (isinstance(value, int) or value <= 1)
