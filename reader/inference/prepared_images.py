"""Prepares images for a model: converts each like its data set, and decodes it like the reader."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from converter.errors import ImageError, UsageError
from converter.format import examples
from converter.images.conversion import Converted, StoredImage, convert_frames, copy_images
from converter.images.geometry import Geometry, fit_image
from converter.images.opened_images import Origin, examine_image
from converter.images.record_images import RecordImage, choose_trust
from converter.options import ConvertOptions
from reader.arrays import Array
from reader.batches.batch_reader import view_channels_last
from reader.batches.decoders import Decoder, Size, Task, make_decoder
from reader.inference.given_images import FORMATS, name_given, read_given
from reader.inference.placement import Placement, join_placements
from reader.packages import explain_missing_packages
from reader.plan.choices import ImagePlan
from reader.plan.memory import count_cores

_NAME: Final = b"given"  # of an image that has no path in a data set
_HASH: Final = b"0" * 64


class Preparer:
    """Prepares images by the options of a data set, or of one and of those made from it."""

    def __init__(self, steps: Sequence[ConvertOptions], images: ImagePlan) -> None:
        self._steps, self._images = steps, images
        # What is given as pixels is no file, whatever formats the data set takes.
        formats = (*dict.fromkeys((*steps[0].formats, *FORMATS)),)
        self._for_pixels = dataclasses.replace(steps[0], formats=formats)
        self._decode = _choose_decoder(images)

    def prepare_one(self, image: Any, name: str = "") -> Array:
        """One image as an array; an `ImageError` says why there is none, and of which `name`."""
        with _naming(name or name_given(image)):
            return self._decode_stored(self._convert(image))

    def prepare_all(self, given: Sequence[Any]) -> Array:
        """Several images as a batch, prepared by as many threads as cores."""
        names = [
            name_given(image) or f"image {number} of {len(given)}"
            for number, image in enumerate(given)
        ]
        shape = self._find_shape()
        with ThreadPoolExecutor(count_cores()) as threads:
            arrays = threads.map(self.prepare_one, given, names)
            if shape is None:
                return _stack([*arrays])
            batch = np.empty((len(given), *shape), self._images.options.dtype)
            for row, array in zip(batch, arrays, strict=True):
                row[...] = array
            return batch

    def place(self, image: Any) -> Placement:
        """Where the parts of one image land; of a file, its header is enough."""
        with _naming(name_given(image)):
            data, options = self._read(image)
            origin = examine_image(data, options)
        placement = _place(fit_image(origin.size, options), origin)
        for step in self._steps[1:]:
            height, width = placement.prepared
            geometry = fit_image((height, width), step)
            then = _place(geometry, Origin(height=height, width=width))
            placement = join_placements(placement, then)
        return join_placements(placement, _place_resized(placement.prepared, self._images))

    def _read(self, image: Any) -> tuple[bytes, ConvertOptions]:
        data, is_file = read_given(image, self._steps[0].max_file_bytes)
        return data, self._steps[0] if is_file else self._for_pixels

    def _convert(self, image: Any) -> StoredImage:
        """The image as the last data set stores it."""
        stored = _convert_file(*self._read(image))
        for before, options in itertools.pairwise(self._steps):
            data = _wrap_stored(stored, before)
            copies = copy_images(data, [options])
            stored = _expect(copies[0]) if copies else _convert_file(data, options)
        return stored

    def _decode_stored(self, stored: StoredImage) -> Array:
        images, size = self._images, (stored.height, stored.width)
        shape = images.lay_out(images.height or size[0], images.width or size[1], images.channels)
        pixels = np.zeros(shape, images.options.dtype)
        row = view_channels_last(pixels, images.options.data_format)
        (problem,) = self._decode([Task(np.frombuffer(stored.data, np.uint8), size, 0, row)])
        if problem is not None:
            raise ImageError("decode_error", problem)
        return pixels

    def _find_shape(self) -> tuple[int, ...] | None:
        images, last = self._images, self._steps[-1]
        size = images.options.image_size or (last.image_size if last.fixed_size else None)
        return None if size is None else images.lay_out(*size, images.channels)


def _choose_decoder(images: ImagePlan) -> Decoder:
    grays = images.channels == 1 and images.stored.channels > 1
    if not images.is_resized and (images.is_quick or not grays):
        return make_decoder(images)
    with explain_missing_packages():
        from reader.tfdata.placing import make_image_placer  # noqa: PLC0415 (TensorFlow)
    return make_image_placer(images)


def _convert_file(data: bytes, options: ConvertOptions) -> StoredImage:
    """The record of a file, or that of its first frame."""
    frame = next(convert_frames(data, [options]), None)
    if frame is None:
        raise ImageError("decode_error", "there is no frame in it")
    return _expect(frame.images[0])


def _expect(outcome: Converted) -> StoredImage:
    if isinstance(outcome, ImageError):
        raise outcome
    return outcome


def _wrap_stored(stored: StoredImage, options: ConvertOptions) -> RecordImage:
    """An image as the record of a data set that another is made from."""
    features: dict[str, examples.Value] = {
        examples.ENCODED: stored.data,
        examples.FORMAT: stored.format.encode(),
        examples.HEIGHT: stored.height,
        examples.WIDTH: stored.width,
        examples.CHANNELS: stored.channels,
        examples.SOURCE_ID: _NAME,
        examples.SHA256: _HASH,
    }
    payload, trust = examples.encode_example(features), choose_trust(options.to_json())
    return RecordImage.of_payload(payload, trust, _NAME.decode())


def _place(geometry: Geometry, origin: Origin) -> Placement:
    top, left, height, width = geometry.crop
    scale = geometry.scaled[0] / height, geometry.scaled[1] / width
    # As `pad` rounds it.
    down, right = ((geometry.canvas[axis] - geometry.scaled[axis]) // 2 for axis in (0, 1))
    return Placement(
        original=origin.size,
        prepared=geometry.canvas,
        scale=scale,
        offset=(down - top * scale[0], right - left * scale[1]),
        visible=(top, left, top + height, left + width),
        orientation=origin.orientation,
    )


def _place_resized(size: Size, images: ImagePlan) -> Placement:
    """What `ReadOptions.image_size` and the options that go with it do to a stored image."""
    height, width = size
    target, options = images.options.image_size or size, images.options
    crop, scaled, (down, right) = (0, 0, height, width), target, (0, 0)
    if options.crop_to_aspect_ratio:
        part = fit_image(size, ConvertOptions(resize="crop", image_size=target))
        crop = part.crop
    elif options.pad_to_aspect_ratio and target != size:
        from reader.tfdata.placing import find_inset  # noqa: PLC0415 (TensorFlow)

        down, right, *inner = find_inset(size, target)
        scaled = inner[0], inner[1]
    scale = scaled[0] / crop[2], scaled[1] / crop[3]
    return Placement(
        original=size,
        prepared=target,
        scale=scale,
        offset=(down - crop[0] * scale[0], right - crop[1] * scale[1]),
        visible=(crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3]),
    )


def _stack(arrays: Sequence[Array]) -> Array:
    """A batch of images that happen to have one size."""
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        found = " and ".join(map(str, sorted(shapes)[:2])) or "none"
        raise UsageError(
            f"images of one size make a batch, these have {found}: give them one by one, or an "
            "image_size"
        )
    return np.stack(arrays)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Says of which image an `ImageError` is."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.code, f"{error.detail}: {name}" if name else error.detail) from None
