"""A finished data set as an object: `open_shards`, and `load_dataset` for the usual case."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from converter.errors import UsageError
from converter.format.manifest import Manifest, SplitInfo, describe_manifest, read_manifest
from converter.names import show_name
from converter.storage.locate import locate
from converter.storage.location import Location
from reader.inference.preprocessing import Preprocessing, make_preprocessing
from reader.packages import explain_missing_packages
from reader.plan.planning import list_files, plan_mixture, plan_reading, plan_serializable
from reader.plan.read_options import ReadOptions, check_cache, check_choice, make_options
from reader.plan.read_plan import ReadPlan
from reader.records.indexed_file import check_sizes
from reader.records.record_files import RecordFiles
from reader.remote.remote_shards import RangeFiles, await_manifest
from reader.source import Source

if TYPE_CHECKING:
    import tensorflow as tf

    from reader.arrays import Array
    from reader.batches.iterator import Batches
    from reader.batches.pixel_statistics import PixelStatistics
    from reader.tfdata.sequence import BatchSequence

SUBSETS: Final = {"training": "train", "validation": "validation"}
"""The splits that may be named in Keras's words too."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class ShardSet:
    """A finished data set; `open_shards` makes one.

    Attributes:
        folder: its folder or address.
        manifest: what it holds.
        cache_dir: where objects are cached if it is in a store; see `ReadOptions`.
        cache_bytes: the limit of that cache.
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
        """Weights that balance the classes, for `model.fit(class_weight=…)`.

        They are scikit-learn's "balanced" weights: records / (classes * records of the class).
        Classes without records have none.

        Raises:
            DatasetError: there is no such split.
            UsageError: there are no labels.
        """
        self.manifest.list_shards(split)
        if not self.manifest.labelled:
            raise UsageError("this data set has no labels that weights could belong to")
        counts = {label: count for label, count in enumerate(self.splits[split].labels) if count}
        records = sum(counts.values())
        return {label: records / (len(counts) * n) for label, n in counts.items()}

    def source(self, split: str) -> Source:
        """Random access to one split, without TensorFlow."""
        files = list_files(self.folder, self.manifest, split, self._complete(ReadOptions()))
        # A single record is not worth fetching its shard.
        kind = RangeFiles if self.folder.is_remote else RecordFiles
        labels = self.splits[split].labels if self.manifest.labelled else None
        return Source(kind(files), labels, self.manifest.columns, self.manifest.labelled)

    def dataset(
        self, split: str, options: ReadOptions | None = None, *, serializable: bool = False
    ) -> tf.data.Dataset:
        """One split as a `tf.data.Dataset`, within `options.max_ram` whatever its size.

        The order of records is a pure function of seed, epoch and step.

        Args:
            split: its name.
            options: all others.
            serializable: use only TensorFlow's own operations and no Python, for tf.data service,
                `tf.train.Checkpoint` and TPU hosts. docs/reading.md lists what it cannot do.

        Returns:
            A dataset of (images, labels): images (batch, height, width, channels) of `dtype`,
            labels as `ReadOptions.label_mode` says. There are images alone if `label_mode` is None
            or the data set has no labels, and (images, masks) if it has masks, as
            `ReadOptions.masks` says. Tables may have other labels: one number each, float32
            (batch,), or several classes, float32 (batch, classes) of 0 and 1. `remainder="pad"`
            adds a mask float32 (batch,), then `with_filename` adds strings (batch,), then `columns`
            a dict. Without `batch` if `batch_size` is None.

            Its length is known. Its attributes are `class_names` and `file_paths` as in Keras;
            `position`, the epoch and step where the next iterator begins; `epoch_fingerprint`,
            which says what its epochs depend on; `damage`, the records skipped. With
            `serializable`, `class_names` alone.

        Raises:
            DatasetError: there is no such split, or a file that has to be read first is damaged.
            UsageError: the options do not fit the data set.
            ShardmillError: TensorFlow is not installed.
        """
        options = ReadOptions() if options is None else options
        if not isinstance(options, ReadOptions):
            raise UsageError(f"options {options!r:.60} is not ReadOptions(…), nor None")
        if serializable:
            plan = plan_serializable(self.folder, self.manifest, split, options)
            with explain_missing_packages():
                from reader.tfdata.serializable import make_serializable  # noqa: PLC0415
            return make_serializable(plan)
        return _build(self._plan(split, options))

    def batches(self, split: str = "train", batch_size: int = 32, **options: Any) -> Batches:
        """The batches of one split as NumPy arrays, for PyTorch, JAX, or a loop of your own.

        They are the same as those of `dataset`, in the same order for the same seed; ragged columns
        are lists with an array for each record. As many threads as cores read them.

        Args:
            split: its name.
            batch_size: images per batch.
            **options: all other `ReadOptions`, but those that resize images or mix their colors:
                only TensorFlow does this to the same numbers.

        Raises:
            ShardmillError: as from `dataset`; or simplejpeg is not installed.
        """
        with explain_missing_packages():
            from reader.batches.iterator import Batches  # noqa: PLC0415 (Pillow)
        return Batches(self._plan(split, make_options({"batch_size": batch_size, **options})))

    def sequence(self, split: str, batch_size: int = 32, **options: Any) -> BatchSequence:
        """One split as a `keras.utils.PyDataset`: `sequence[7]` reads exactly one batch.

        Args:
            split: its name.
            batch_size: images per batch.
            **options: all other `ReadOptions`, and `workers` and `max_queue_size` of
                `keras.utils.PyDataset`.
        """
        with explain_missing_packages():
            from reader.tfdata.sequence import BatchSequence  # noqa: PLC0415 (TensorFlow)
        names = ("workers", "use_multiprocessing", "max_queue_size")
        loading = {name: options.pop(name) for name in names if name in options}
        read_options = make_options({"batch_size": batch_size, **options})
        return BatchSequence(self._plan(split, read_options, random_access=True), **loading)

    def statistics(
        self, split: str = "train", sample: int | None = None, *, seed: int = 0, **options: Any
    ) -> PixelStatistics:
        """Mean and standard deviation of each channel, for `keras.layers.Normalization`.

        Adds up whole numbers, so the same records give the same numbers on every machine.

        Args:
            split: its name.
            sample: how many records to draw by the seed; None for all. A larger one holds a
                smaller one.
            seed: of the sample.
            **options: `on_damage`, `max_damaged`, `max_ram` and the cache of `ReadOptions`.

        Raises:
            RecordError: a record is damaged, and `on_damage` is `raise`.
            DatasetError: there is no such split, or no image in it.
            ShardmillError: the options make no sense, or simplejpeg is not installed.
        """
        with explain_missing_packages():
            from reader.batches import pixel_statistics  # noqa: PLC0415 (Pillow)
        chosen = pixel_statistics.choose_options(self.manifest.image, options)
        plan = self._plan(split, chosen, random_access=sample is not None)
        if sample is not None:
            plan = pixel_statistics.draw_sample(plan, sample, seed)
        return pixel_statistics.measure_pixels(plan)

    def preprocessing(self, *, made_from: Any = (), **options: Any) -> Preprocessing:
        """What makes of any image the array that this data set gives of it.

        Args:
            made_from: the data set that this one was made from, or a list, the oldest first.
            **options: `dtype`, here `uint8` by default, `color_mode`, `data_format`, `image_size`,
                `interpolation`, `crop_to_aspect_ratio` and `pad_to_aspect_ratio`, as you give them
                to `load_dataset`. A size other than the stored one needs TensorFlow.

        Raises:
            UsageError: an option is unknown, or what happened to an image cannot be known.
        """
        listed = made_from if isinstance(made_from, list | tuple) else [made_from]
        opened = [one if isinstance(one, ShardSet) else open_shards(one) for one in listed]
        manifests = [*(one.manifest for one in opened), self.manifest]
        return make_preprocessing(manifests, options)

    def preprocess(self, images: Any, **options: Any) -> Array:
        """`preprocessing(**options).preprocess(images)`; for many calls, keep the former."""
        return self.preprocessing(**options).preprocess(images)

    def _plan(self, split: str, options: ReadOptions, *, random_access: bool = False) -> ReadPlan:
        options = self._complete(options)
        return plan_reading(self.folder, self.manifest, split, options, random_access=random_access)

    def _complete(self, options: ReadOptions) -> ReadOptions:
        """Adds the cache of this data set, unless the options name another."""
        mine: dict[str, Any] = {"cache_dir": self.cache_dir, "cache_bytes": self.cache_bytes}
        missing = {name: own for name, own in mine.items() if getattr(options, name) is None}
        return dataclasses.replace(options, **missing)


def open_shards(
    directory: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | str | None = None,
) -> ShardSet:
    """Opens a data set: reads its manifest and compares all file sizes with it.

    If a data set in a store is just being replaced, this waits for the new one.

    Args:
        directory: a folder, or an address such as `s3://bucket/flowers` or `gs://bucket/flowers`.
        cache_dir: where objects of a store are cached; see `ReadOptions`.
        cache_bytes: the limit of that cache.

    Raises:
        DatasetError: the folder holds no finished data set, or one of a newer format, or a file is
            missing or has another size than when it was written.
        StoreError: a store does not answer, or refuses.
        UsageError: the address makes no sense, or a package for it is missing.
    """
    check_cache(cache_dir, cache_bytes)
    folder = locate(directory)
    if folder.is_remote:
        return ShardSet(folder, await_manifest(folder), cache_dir, cache_bytes)
    manifest = read_manifest(folder)
    check_sizes(folder, manifest.shards)
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
    """Opens a data set and returns one split as `ShardSet.dataset` does.

    Takes the arguments of `keras.utils.image_dataset_from_directory` that still mean something
    after a conversion, with the same names, values and results, and all `ReadOptions`.

    Args:
        directory: a folder, or an address in an object store.
        split: its name; a `subset` names it too, if the data set has such splits.
        labels: `inferred` for the stored ones; a list with one for each record, in the order of the
            originals' paths; None for none.
        subset: `training` or `validation`: the split `train` or `validation`, or a part drawn with
            `validation_split`. `both` returns a list of the two.
        input_context: of `tf.distribute`, instead of `shard_index` and `shard_count`.
        serializable: see `ShardSet.dataset`.
        **options: see `ReadOptions`.

    Raises:
        ShardmillError: as from `open_shards` and `ShardSet.dataset`.
    """
    check_choice("subset", subset, (None, "both", *SUBSETS))
    shards = open_shards(directory)
    if labels is None:
        options["label_mode"] = None
    elif not isinstance(labels, str):
        options["labels"] = labels
    elif labels != "inferred":
        raise UsageError(f"labels {labels!r} is unknown: 'inferred', a list of numbers, or None")
    if input_context is not None:
        try:
            options["shard_index"] = input_context.input_pipeline_id
            options["shard_count"] = input_context.num_input_pipelines
        except AttributeError:
            raise UsageError(
                f"input_context {input_context!r:.60} is not a tf.distribute.InputContext, nor None"
            ) from None

    def read(part: str | None, **more: object) -> tf.data.Dataset:
        name = split
        if part is not None and options.get("validation_split") is None:
            if "validation" not in shards.splits:
                raise UsageError(
                    f"subset {part!r}: this data set has no split 'validation': give a "
                    "validation_split and a seed to draw one"
                )
            name, part = SUBSETS[part], None
        read_options = make_options({**options, "subset": part, **more})
        return shards.dataset(name, read_options, serializable=serializable)

    if subset == "both":  # without shuffling what is held out, as Keras does
        return [read("training"), read("validation", shuffle=False)]
    return read(subset)


def mix_datasets(
    weights: Mapping[str | os.PathLike[str], float], split: str = "train", **options: Any
) -> tf.data.Dataset:
    """Mixes one split of several data sets in fixed proportions.

    Every hundred records hold the same number from each data set; if one has too few for that, a
    smaller number of records does, such as three for weights of 2 and 1. The order is a pure
    function of seed, epoch and step, so a mixture is resumed and divided among hosts like a single
    data set. An epoch ends with the first data set that has been read completely.

    Args:
        weights: by data set; only their ratios count. All need the same classes.
        split: its name.
        **options: all `ReadOptions` that do not concern a single data set.

    Raises:
        UsageError: the data sets or the options do not go together.
        ShardmillError: as from `open_shards` and `ShardSet.dataset`.
    """
    if not isinstance(weights, Mapping):
        raise UsageError(f"weights {weights!r:.60} is not a dict from data sets to numbers above 0")
    opened = [(open_shards(directory), weight) for directory, weight in weights.items()]
    parts = [(shards.folder, shards.manifest, weight) for shards, weight in opened]
    return _build(plan_mixture(parts, split, make_options(options)))


def _build(plan: ReadPlan) -> tf.data.Dataset:
    with explain_missing_packages():
        from reader.tfdata.dataset import make_dataset  # noqa: PLC0415 (TensorFlow)
    return make_dataset(plan)
