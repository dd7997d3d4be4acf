"""A finished data set as an object: `open_shards`, and `load_dataset` for the usual case."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from converter.errors import ShardmillError, UsageError
from converter.format.descriptions import describe_manifest, show_name
from converter.format.manifest import Manifest, SplitInfo, read_manifest
from converter.storage.layout import name_index
from converter.storage.locate import locate
from converter.storage.location import Location
from reader.plan.mixing import plan_mixture
from reader.plan.read_options import ReadOptions, check_cache, make_options
from reader.plan.read_plan import ReadPlan, list_files, plan_reading
from reader.plan.serializable_plan import plan_serializable
from reader.records.indexed_file import check_size, measure_file
from reader.records.record_files import RecordFiles
from reader.remote.open_remote import await_manifest
from reader.remote.range_reads import RangeFiles
from reader.source import Source

if TYPE_CHECKING:
    import tensorflow as tf

    from reader.batches.iterator import Batches
    from reader.tfdata.sequence import BatchSequence


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class ShardSet:
    """A data set that lies complete in a folder.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
        cache_dir: where objects are kept, if it lies in a store; see `ReadOptions`.
        cache_bytes: what they may take.
    """

    folder: Location
    manifest: Manifest
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int | str | None = None

    def __repr__(self) -> str:
        return f"ShardSet('{show_name(str(self.folder))}': {describe_manifest(self.manifest)})"

    @property
    def class_names(self) -> list[str]:
        """The classes in label order."""
        return list(self.manifest.classes)

    @property
    def splits(self) -> dict[str, SplitInfo]:
        """Records, bytes, shards and label counts of each split."""
        return self.manifest.splits

    def class_weight(self, split: str = "train") -> dict[int, float]:
        """Weights that make all classes count the same, for `model.fit(class_weight=…)`.

        They are those of scikit-learn's "balanced": records / (classes * records of the class);
        a class without a record has none.

        Raises:
            DatasetError: there is no such split.
        """
        self.manifest.list_shards(split)
        if not self.manifest.labelled:
            raise UsageError("this data set has no labels that weights could belong to")
        counts = self.splits[split].labels
        present = sum(count > 0 for count in counts)
        return {
            label: sum(counts) / (present * count) for label, count in enumerate(counts) if count
        }

    def source(self, split: str) -> Source:
        """Random access to one split, without TensorFlow.

        Raises:
            DatasetError: there is no such split.
        """
        kind = RangeFiles if self.folder.is_remote else RecordFiles
        options = self._complete(ReadOptions())
        files = kind(list_files(self.folder, self.manifest, split, options))
        labels = self.splits[split].labels if self.manifest.labelled else None
        return Source(files, labels, self.manifest.columns, self.manifest.labelled)

    def dataset(
        self, split: str, options: ReadOptions | None = None, *, serializable: bool = False
    ) -> tf.data.Dataset:
        """One split as a `tf.data.Dataset`.

        Records are read by their index, in an order that is a pure function of seed, epoch and
        step, checked, and decoded by several threads. All that is held of them stays within
        `options.max_ram`, whatever the size of the data set.

        Args:
            split: which.
            options: how.
            serializable: read with TensorFlow's own operations alone, without any call of Python:
                for tf.data service, `tf.train.Checkpoint` and the host of a TPU. What this way
                cannot do is refused; see docs/reading.md.

        Returns:
            a dataset of (images, labels), or of images if `label_mode` is None or there are no
            labels; of (images, masks) if there are masks, as `ReadOptions.masks` says. Of a table,
            labels may be a number each, float32 (batch,), or any number of classes, float32
            (batch, classes) of 0 and 1. With `remainder` `pad` a mask float32 (batch,) comes behind
            them, with `with_filename` strings (batch,):
            images (batch, height, width, channels) of `dtype`, labels as
            `ReadOptions.label_mode` says; without `batch` if `batch_size` is None. Its length is
            known. It has attributes: `class_names` and `file_paths` as from Keras; `position`,
            which says which epoch the next iterator reads, and from which step on;
            `epoch_fingerprint`, what its epochs depend on; `damage`, the records that were skipped.
            With `serializable`, `class_names` alone.

        Raises:
            DatasetError: there is no such split, or a file is damaged that has to be looked at.
            UsageError: the options do not fit the data set.
            ShardmillError: TensorFlow is not installed.
        """
        options = options or ReadOptions()
        if serializable:
            plan = plan_serializable(self.folder, self.manifest, split, options)
            with need_packages():
                from reader.tfdata.serializable import make_serializable  # noqa: PLC0415
            return make_serializable(plan)
        return _build(self._plan(split, options))

    def batches(self, split: str = "train", batch_size: int = 32, **options: Any) -> Batches:
        """The batches of one split as NumPy arrays: for PyTorch, JAX, or a loop of your own.

        They are those of `dataset`, in the same order, for the same seed; read by as many threads
        as cores, within `max_ram`. TensorFlow is not needed.

        Args:
            split: which.
            batch_size: images a batch.
            **options: any other of `ReadOptions`. What resizes images, or mixes their colors, is
                refused: only TensorFlow does it to the same numbers.

        Returns:
            an iterable with a length: each iteration is an epoch of (images, labels), or of what
            `dataset` gives for these options, as NumPy arrays. Columns of any number of values are
            lists of arrays, one for each record. See `Batches` for where an epoch begins, and for
            `state_dict`.

        Raises:
            DatasetError: there is no such split, or a file is damaged that has to be looked at.
            UsageError: the options do not fit the data set, or take TensorFlow.
            ShardmillError: simplejpeg is not installed.
        """
        with need_packages():
            from reader.batches.iterator import Batches  # noqa: PLC0415 (Pillow)
        return Batches(self._plan(split, make_options({"batch_size": batch_size, **options})))

    def sequence(self, split: str, batch_size: int = 32, **options: Any) -> BatchSequence:
        """One split as a `keras.utils.PyDataset`: `sequence[7]` reads exactly one batch.

        Args:
            split: which.
            batch_size: images a batch.
            **options: any other of `ReadOptions`, and `workers` and `max_queue_size` of
                `keras.utils.PyDataset`.

        Raises:
            DatasetError, UsageError, ShardmillError: as `dataset` does.
        """
        with need_packages():
            from reader.tfdata.sequence import BatchSequence  # noqa: PLC0415 (TensorFlow)
        names = ("workers", "use_multiprocessing", "max_queue_size")
        loading = {name: options.pop(name) for name in names if name in options}
        read_options = make_options({"batch_size": batch_size, **options})
        return BatchSequence(self._plan(split, read_options, singly=True), **loading)

    def _plan(self, split: str, options: ReadOptions, *, singly: bool = False) -> ReadPlan:
        options = self._complete(options)
        return plan_reading(self.folder, self.manifest, split, options, singly=singly)

    def _complete(self, options: ReadOptions) -> ReadOptions:
        """Options with the cache of this data set, unless they have one of their own."""
        return dataclasses.replace(
            options,
            cache_dir=self.cache_dir if options.cache_dir is None else options.cache_dir,
            cache_bytes=self.cache_bytes if options.cache_bytes is None else options.cache_bytes,
        )


def open_shards(
    directory: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | str | None = None,
) -> ShardSet:
    """Opens a data set: reads its manifest, and compares the sizes of all files with it.

    One in a store that is just being replaced is waited for.

    Args:
        directory: a folder, or an address such as `s3://bucket/flowers` or `gs://bucket/flowers`.
        cache_dir: where objects of a store are kept; see `ReadOptions`.
        cache_bytes: what they may take.

    Raises:
        DatasetError: the folder holds no finished data set, or one of a newer format, or a file
            is missing, shorter or longer than it was written.
        StoreError: a store does not answer, or refuses.
        UsageError: the address makes no sense, or a package for it is missing.
    """
    check_cache(cache_dir, cache_bytes)
    folder = locate(directory)
    if folder.is_remote:
        manifest = await_manifest(folder)
        return ShardSet(folder, manifest, cache_dir, cache_bytes)
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        for name, size in ((shard.name, shard.bytes), (name_index(shard.name), shard.index_bytes)):
            check_size(folder / name, measure_file(folder / name), size)
    return ShardSet(folder, manifest)


def load_dataset(
    directory: str | os.PathLike[str],
    split: str = "train",
    *,
    labels: Sequence[int] | str | None = "inferred",
    subset: str | None = None,
    input_context: tf.distribute.InputContext | None = None,
    serializable: bool = False,
    **options: Any,
) -> Any:
    """Opens a data set and gives one split as a `tf.data.Dataset`.

    Takes the arguments of `keras.utils.image_dataset_from_directory` that mean something after a
    conversion, with the same names, values and results, and all others of `ReadOptions`.

    Args:
        directory: the data set: a folder, or an address in an object store.
        split: which; a `subset` names it too, where the data set has such splits.
        labels: `inferred` for those of the data set; a list of others, one for each record, in the
            order of the originals' paths; None for none.
        subset: `training` or `validation`; `both` gives a list of the two. They are the splits
            `train` and `validation`, or drawn with `validation_split`.
        input_context: of `tf.distribute`: stands for `shard_index` and `shard_count`.
        serializable: read with TensorFlow's own operations alone; see `ShardSet.dataset`.
        **options: see `ReadOptions`.

    Returns:
        what `ShardSet.dataset` gives.

    Raises:
        DatasetError: the folder holds no finished data set, or no such split.
        UsageError: the arguments do not fit the data set.
        ShardmillError: TensorFlow is not installed.
    """
    shards = open_shards(directory)
    if labels is None:
        options["label_mode"] = None
    elif not isinstance(labels, str):
        options["labels"] = labels
    elif labels != "inferred":
        raise UsageError(f"labels {labels!r} is unknown: 'inferred', a list of numbers, or None")
    if input_context is not None:
        options["shard_index"] = input_context.input_pipeline_id
        options["shard_count"] = input_context.num_input_pipelines
    if subset == "both":
        held_out = options | {"shuffle": False}  # as Keras does
        return [
            _read_subset(shards, split, "training", options, serializable=serializable),
            _read_subset(shards, split, "validation", held_out, serializable=serializable),
        ]
    return _read_subset(shards, split, subset, options, serializable=serializable)


def mix_datasets(
    weights: Mapping[str | os.PathLike[str], float], split: str = "train", **options: Any
) -> tf.data.Dataset:
    """Mixes one split of several data sets at fixed shares.

    Every hundred records hold the same number of each data set. The order is a pure function of
    seed, epoch and step, as with one data set, so a mixture is resumed and divided among hosts in
    the same way. An epoch ends when the first of them has been read to its end.

    Args:
        weights: by data set; only their ratios count. All have to have the same classes.
        split: which.
        **options: see `ReadOptions`; all that do not concern a single data set.

    Raises:
        DatasetError: a folder holds no finished data set, or no such split.
        UsageError: the data sets or the options do not go together.
        ShardmillError: TensorFlow is not installed.
    """
    opened = [(open_shards(directory), weight) for directory, weight in weights.items()]
    parts = [(shards.folder, shards.manifest, weight) for shards, weight in opened]
    return _build(plan_mixture(parts, split, make_options(options)))


_SPLITS = {"training": "train", "validation": "validation"}


def _read_subset(
    shards: ShardSet, split: str, subset: str | None, options: dict[str, Any], *, serializable: bool
) -> tf.data.Dataset:
    if subset in _SPLITS and options.get("validation_split") is None:
        if "validation" not in shards.splits:
            raise UsageError(
                f"subset {subset!r}: this data set has no split 'validation': give a "
                "validation_split and a seed to draw one"
            )
        split, subset = _SPLITS[subset], None
    read_options = make_options(options | {"subset": subset})
    return shards.dataset(split, read_options, serializable=serializable)


def _build(plan: ReadPlan) -> tf.data.Dataset:
    with need_packages():
        from reader.tfdata.dataset import make_dataset  # noqa: PLC0415 (TensorFlow)
    return make_dataset(plan)


@contextlib.contextmanager
def need_packages() -> Iterator[None]:
    """Says what to install where an import does not find its package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "simplejpeg":
            problem = "decoding images needs simplejpeg: pip install 'shardmill[read]'"
        elif error.name in ("tensorflow", "keras"):
            problem = (
                "reading as a tf.data.Dataset needs TensorFlow: pip install 'shardmill[train]'"
            )
        else:
            raise
        raise ShardmillError(problem) from error
