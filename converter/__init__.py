"""Image files become the shards of a data set: pure Python, no Beam and no TensorFlow.

The packages in the order in which data goes through them; each uses only those before it in the
second list:

    sources   images in folders, stores, archives or tables -> entries, nothing silently ignored
    planning  entries + options -> shards, written to the output as data
    writing   one shard: originals -> records -> a shard, its index and its receipt
    images    of it, the image: decode -> upright -> scaled -> encoded
    commits   receipts -> metadata and rejects, and the manifest last
    upkeep    a finished data set -> verified, repaired, brought up to date

    storage, format, images, sources, planning, writing, commits, upkeep

and beside them

    options   of a conversion (image_options: of each image; option_fields: how they are declared)
    inventory what is found before anything is converted
    reasons   why an image is not in the data set    costs    where the time of a worker goes
    errors    what goes wrong, as a tree             names    file names free of the locale
    sizes     numbers of bytes, as people write them

`import converter` loads neither Beam nor TensorFlow. `reader` uses what describes the format, and
`errors`; `pipelines` uses all.
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

__version__ = "0.1.0"

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
