"""Image files become the shards of a data set: pure Python, no Beam and no TensorFlow.

The packages, each of which uses only `storage`, `format` and those before it:

    images    one image: decode -> upright -> scaled -> encoded
    sources   images in folders, stores, archives or tables -> entries, nothing silently ignored
    planning  entries + options -> shards, written to the output as data
    writing   one shard: originals -> records -> a shard, its index and its receipt
    commits   receipts -> metadata and rejects, and the manifest last
    upkeep    a finished data set -> verified, repaired, updated

Beside them are

    options   of a conversion (choice_options: which images; image_options: how they look;
              option_fields: how they are declared)
    class_names which classes, under which names; conditions: the language of `where`
    inventory the result of a scan, and why an image is not in the data set
    entries   its images as columns (entry_columns: of each kind)
    costs     where the time of a worker goes; histograms: what the originals are like
    spelling  options -> the command line that gives them
    names     file names that do not depend on the locale
    sizes     numbers of bytes, as people write them
    usage     the memory of this process, and of the machine
    errors    what goes wrong, as a tree

`import converter` loads neither Beam nor TensorFlow. `reader` uses what describes the format, and
`errors`; to prepare an image for a model it also uses `images`. `pipelines` uses all.
"""

from converter.errors import (
    DatasetError,
    ImageError,
    LockedError,
    OutputError,
    RecordError,
    ShardmillError,
    StoreError,
    UsageError,
    WorkerError,
)
from converter.options import ConvertOptions

__version__ = "0.2.0"

__all__ = [
    "ConvertOptions",
    "DatasetError",
    "ImageError",
    "LockedError",
    "OutputError",
    "RecordError",
    "ShardmillError",
    "StoreError",
    "UsageError",
    "WorkerError",
]
