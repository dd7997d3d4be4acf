"""The way of one image into a model, as a data set went it: `Preprocessing`."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from converter.errors import DatasetError, UsageError
from converter.format.manifest import ImageInfo, Manifest
from converter.format.typed_json import dump_json, find_reader, load_json
from converter.image_options import POLICIES, ImageOptions
from converter.names import show_name
from converter.options import ConvertOptions
from converter.sizes import format_count
from converter.storage.files import write_named
from converter.storage.locate import expand_home, locate
from reader.packages import explain_missing_packages
from reader.plan.choices import ImagePlan
from reader.plan.read_options import make_options

if TYPE_CHECKING:
    from reader.arrays import Array
    from reader.inference.placement import Placement
    from reader.inference.prepared_images import Preparer

FORMAT: Final = "shardmill preprocessing"
VERSION: Final = 1
MAX_FILE_BYTES: Final = 16 << 20

READ: Final = (
    "color_mode", "dtype", "data_format", "image_size", "interpolation", "crop_to_aspect_ratio",
    "pad_to_aspect_ratio",
)  # fmt: skip
"""The `ReadOptions` that decide pixels, and are not random."""

# The options of a conversion that decide the pixels of one image.
_CONVERTED: Final = (
    "image_size", "resize", "interpolation", "encoding", "quality",
    *(field.name for field in dataclasses.fields(ImageOptions) if field.name not in POLICIES),
)  # fmt: skip
_OWN: Final = "shardmill"  # the source of a data set that was made from another

_warned: Final[set[str]] = set()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A conversion: the versions that did it, and the options that decide pixels."""

    generator: str
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Preprocessing:
    """Makes of an image the array that a model was trained with, without TensorFlow or shards.

    `ShardSet.preprocessing` makes one, and `load_preprocessing` restores it from a small file that
    lies beside an exported model.

    Attributes:
        steps: the conversions, the first one first; several if a data set was made from another.
        image: what the stored images have in common.
        read: the `ReadOptions` in `READ`.
        class_names: in label order.
    """

    steps: tuple[Step, ...]
    image: ImageInfo
    read: dict[str, Any]
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        size = self.read["image_size"] or _restore(self.steps[-1]).image_size
        classes = format_count(len(self.class_names), "class")
        return f"Preprocessing({'x'.join(map(str, size))}, {self.read['dtype']}, {classes})"

    def preprocess(self, images: Any) -> Array:
        """Makes arrays of images, bit for bit those of `load_dataset`.

        A JPEG is turned upright, converted to sRGB, resized, encoded and decoded again exactly as
        if it had been converted and read. Of an animation, the first frame counts.

        Args:
            images: the path or address of an image file, its bytes, or a list of them, which as
                many threads as cores prepare. Or pixels: a picture of Pillow, or a NumPy array,
                uint8 (height, width, channels) with 1, 3 or 4 channels, or (height, width). These
                count as a file without loss: of a large JPEG, give the file, which is decoded at
                a fraction of its size.

        Returns:
            (height, width, channels), or (images, height, width, channels) of a list, of the
            `dtype` that was asked for, 0 to 255.

        Raises:
            ImageError: there is no such file, or the data set's options refuse it.
            UsageError: it is no image, or images of a list come out in different sizes.
        """
        if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4:
            return self._preparer.prepare_all(images)
        return self._preparer.prepare_one(images)

    def place(self, image: Any) -> Placement:
        """Where the parts of an image land, to bring boxes and masks back to the original.

        Args:
            image: as for `preprocess`, one alone. Of a file, only the header is read.

        Raises:
            ImageError: as from `preprocess`.
        """
        return self._preparer.place(image)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, a few kilobytes: beside a model, it is all that serving needs."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        write_named(locate(expand_home(path)), dump_json(content))

    @functools.cached_property
    def _preparer(self) -> Preparer:
        steps = [_restore(step) for step in self.steps]
        images = ImagePlan(stored=self.image, options=make_options({**self.read}, READ))
        with explain_missing_packages():
            from reader.inference.prepared_images import Preparer  # noqa: PLC0415 (Pillow)
        _warn_of_versions(self.steps)
        return Preparer(steps, images)


def make_preprocessing(manifests: Sequence[Manifest], options: dict[str, Any]) -> Preprocessing:
    """The preprocessing of the last data set, which was made from those before it.

    Raises a `UsageError` if what happened to an image is not known, or an option is not for it.
    """
    asked = make_options({"dtype": "uint8", **options}, READ)
    for number, manifest in enumerate(manifests):
        _check_source(manifest, first=number == 0)
    last = manifests[-1]
    found = Preprocessing(
        steps=tuple(_describe_step(manifest) for manifest in manifests),
        image=last.image,
        read={name: getattr(asked, name) for name in READ},
        class_names=last.classes,
    )
    for step in found.steps:
        _restore(step)
    return found


def load_preprocessing(path: str | os.PathLike[str]) -> Preprocessing:
    """Restores what `Preprocessing.save` has written.

    Raises:
        DatasetError: there is no such file, or it is damaged or of a newer version.
    """
    place = locate(expand_home(path))
    try:
        size = place.measure()
        if size is None:
            raise DatasetError(f"{place} is no file: save a preprocessing there first")
        if size > MAX_FILE_BYTES:
            raise DatasetError(f"{place} has {size:,} bytes, at most {MAX_FILE_BYTES:,}")
        content = load_json(place.read_range(0, size))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise DatasetError(
                f"{place} is not version {VERSION} of a {FORMAT}: install the shardmill that wrote "
                "it, or save it again"
            )
        return _parse(content)
    except OSError as error:
        raise DatasetError(f"{place} cannot be read: {error.strerror}") from error
    except (UsageError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{place} is damaged: {reason}: save it again") from error


def _parse(content: Mapping[str, Any]) -> Preprocessing:
    found: Preprocessing = find_reader(Preprocessing)(content)
    if not found.steps:
        raise ValueError("it has no steps")
    for step in found.steps:
        _restore(step)
    read = make_options(found.read, READ)
    return dataclasses.replace(found, read={name: getattr(read, name) for name in READ})


def _describe_step(manifest: Manifest) -> Step:
    options = {name: manifest.options[name] for name in _CONVERTED if name in manifest.options}
    return Step(generator=manifest.generator, options=options)


def _restore(step: Step) -> ConvertOptions:
    try:
        return ConvertOptions.from_json(step.options)
    except UsageError as error:
        raise UsageError(
            f"its options are of another version ({step.generator}): {error}"
        ) from None


def _check_source(manifest: Manifest, *, first: bool) -> None:
    """Refuses a data set of whose images the options do not tell all that happened to them."""
    source, members = manifest.options.get("source"), manifest.options.get("members") or []
    if any(str(member).startswith(f"{_OWN}:") for member in members):
        raise UsageError(
            "it was made from several inputs, a data set among them, whose images went another "
            "way: no preprocessing fits all; use that of the data set your model is trained on"
        )
    if (source == _OWN) == first:
        raise UsageError(
            "it was made from another data set, whose options decided the pixels first: name that "
            "one, made_from=…"
            if first
            else "made_from names a data set that this one was not made from: its images came from "
            f"{source}"
        )


def _warn_of_versions(steps: Sequence[Step]) -> None:
    from converter.images.conversion import name_generator  # noqa: PLC0415 (Pillow)

    here = name_generator()
    for step in steps:
        if step.generator != here and step.generator not in _warned:
            _warned.add(step.generator)
            warnings.warn(
                f"the data set was converted with {show_name(step.generator)}, and here is {here}: "
                "pixels may differ from those of training; install the same versions",
                stacklevel=4,
            )
