"""Image files become the shards of a data set: pure Python, no Beam and no TensorFlow.

The modules in the order in which data goes through them:

    scan      images -> entries, nothing silently ignored
                from folders, prefixes of stores, archives (streams) or tables (rows of cells;
                inputs says which), with labels and splits off their paths (labelling);
                duplicates have the same content; masks join their images (pairing); strictness:
                what is not to be gone on with
    splits    entries -> train, validation, test, and their order
    estimates a sample of the entries -> the size of a record
    plan      entries + options -> shards, written to the output as data
    mill      one shard: records (originals -> images, frames, masks, boxes -> examples) ->
                tfrecords + indexes -> receipt
                passes: several shards in one reading of their archive; resolutions: several sizes
                of them in one reading; what waits meanwhile lies in spools
    images    decode (decoders, limits) -> pixels -> scaling by geometry -> encode, or copies;
                isolation: in a child process; traits: what is odd about them
    commit    receipts -> metadata, rejects, and manifest last
    verification   the finished data set against its manifest (contents: record by record)
    sources   its records -> the originals that they were made from
    updates   comparisons: originals that are different -> the few shards to be milled again
    repairs   damaged shards -> the originals to make them from again
    replacements   a complete data set -> the place of another, in one step
                   (object_replacements: in a store, in several that can be gone on with)

and beside them

    entries   what is found before anything is converted    schema    columns of a table, in records
    options   what a conversion is asked for          errors   what goes wrong, as a tree
    layout    which file lies where                   names    file names free of the locale
    storage   files that are whole or not there      sizes    numbers of bytes, as people write them
    locks     one writer at a time (object_locks: in a store; owners: who that is)
    costs     where the time of a worker goes       leftovers     what killed runs leave behind
    objects   of a store, as paths: read, written, listed (listings), by requests that are made as
              often as it takes, of stores: s3 and gcs
    indexing  TFRecords that something else wrote -> their indexes

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
