"""Gives the images of a finished data set back, for other programs or to convert them again.

export_job        what to export, and what came of it
items             records of a split, checked -> images with names, labels and columns
safe_names        the name of an original -> one that is safe everywhere, and taken once
exported_columns  the columns of records -> those of tables
image_folders     items -> a folder for each class, with a table if folders cannot hold everything
tar_shards        items -> tars as WebDataset reads them
parquet_shards    items -> Parquet as Hugging Face's `datasets` reads it
targets           a folder in which an export appears whole or not at all
exporting         all of it, and the command that converts an export again
"""

from typing import Final

# Here, because the command line names them before it loads the rest.
KINDS: Final = ("folders", "webdataset", "parquet")
POLICIES: Final = ("raise", "skip")  # `on_damage`, as in `reader`
