"""A finished data set as an object: `open_shards`, and `load_dataset` for the usual case."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import DatasetError, ShardmillError
from converter.indexes import name_index
from converter.manifest import Manifest, SplitInfo, read_manifest
from reader.options import ReadOptions
from reader.source import Source

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSet:
    """A data set that lies complete in a folder.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
    """

    folder: Path
    manifest: Manifest

    @property
    def class_names(self) -> list[str]:
        """The classes in label order."""
        return list(self.manifest.classes)

    @property
    def splits(self) -> dict[str, SplitInfo]:
        """Records, bytes, shards and label counts of each split."""
        return self.manifest.splits

    def source(self, split: str) -> Source:
        """Random access to one split, without TensorFlow.

        Raises:
            DatasetError: there is no such split, or a file is not there in its size.
        """
        self._check_files(split)
        return Source(self.folder, self.manifest.list_shards(split))

    def dataset(self, split: str, options: ReadOptions | None = None) -> tf.data.Dataset:
        """One split as a `tf.data.Dataset`.

        Shards are read in parallel, their encoded records shuffled, then decoded and batched in
        parallel, and two batches are kept ready. All buffers together hold at most
        `options.max_ram_bytes`, whatever the size of the data set.

        Returns:
            a dataset of (images, labels), or of images if `label_mode` is None:
            images (batch, height, width, 3) of `dtype`, labels as `ReadOptions.label_mode` says;
            without `batch` if `batch_size` is None. Its length is known, and it has an attribute
            `class_names`.

        Raises:
            DatasetError: there is no such split, or a file is not there in its size.
            UsageError: the options do not fit the data set.
            ShardmillError: TensorFlow is not installed.
        """
        self._check_files(split)
        try:
            from reader.dataset import make_dataset  # noqa: PLC0415 (TensorFlow)
        except ModuleNotFoundError as error:
            if error.name != "tensorflow":
                raise
            raise ShardmillError(
                "reading as a tf.data.Dataset needs TensorFlow: pip install 'shardmill[train]'"
            ) from error
        return make_dataset(self.folder, self.manifest, split, options or ReadOptions())

    def _check_files(self, split: str) -> None:
        """Compares sizes, because TensorFlow takes a shard cut between two records for whole."""
        for shard in self.manifest.list_shards(split):
            for name, size in (
                (shard.name, shard.bytes),
                (name_index(shard.name), shard.index_bytes),
            ):
                path = self.folder / name
                if not path.exists():
                    raise DatasetError(f"{path} is missing")
                if path.stat().st_size != size:
                    raise DatasetError(
                        f"{path} has {path.stat().st_size} bytes, expected {size}: "
                        "run shardmill verify"
                    )


def open_shards(directory: str | os.PathLike[str]) -> ShardSet:
    """Opens a data set; only its manifest is read.

    Raises:
        DatasetError: the folder holds no finished data set, or one of a newer format.
    """
    folder = Path(directory).absolute()
    return ShardSet(folder, read_manifest(folder))


def load_dataset(
    directory: str | os.PathLike[str],
    split: str = "train",
    *,
    label_mode: str | None = "int",
    batch_size: int | None = 32,
    image_size: tuple[int, int] | None = None,
    shuffle: bool | None = None,
    seed: int | None = None,
    interpolation: str = "bilinear",
    dtype: str = "float32",
    drop_remainder: bool = False,
    max_ram_bytes: int = 512_000_000,
) -> tf.data.Dataset:
    """Opens a data set and gives one split as a `tf.data.Dataset`.

    The names are those of `keras.utils.image_dataset_from_directory`, and mean the same; see
    `ReadOptions` for each of them and `ShardSet.dataset` for what comes out.

    Raises:
        DatasetError: the folder holds no finished data set, or no such split.
        UsageError: the arguments do not fit the data set.
        ShardmillError: TensorFlow is not installed.
    """
    options = ReadOptions(
        label_mode=label_mode,
        batch_size=batch_size,
        image_size=image_size,
        shuffle=shuffle,
        seed=seed,
        interpolation=interpolation,
        dtype=dtype,
        drop_remainder=drop_remainder,
        max_ram_bytes=max_ram_bytes,
    )
    return open_shards(directory).dataset(split, options)
