"""What IMAGES may be: a folder, an archive, or a table of what lies in one of them."""

from __future__ import annotations

from typing import Final

from converter.errors import UsageError
from converter.options import COLUMN_OPTIONS, ConvertOptions
from converter.sources.rows import READERS, is_table
from converter.storage.locate import join, locate
from converter.storage.location import Location

FOLDER_OPTIONS: Final = ("label_from", "split_folders")
"""What folders alone can be asked."""

_USUAL: Final = ConvertOptions()


def check_source(images: Location, options: ConvertOptions) -> None:
    """Makes sure that nothing is asked of what IMAGES is that it does not have.

    Raises:
        UsageError: columns are named, and it is no table; or folders are to mean something, and it
            is one.
    """
    if is_table(images):
        for name in FOLDER_OPTIONS:
            if getattr(options, name) != getattr(_USUAL, name):
                asked = name.replace("_", " ")
                raise UsageError(
                    f"{asked}: for folders alone, and {images} is a table: name columns instead"
                )
        return
    for name in (*COLUMN_OPTIONS, "keep_columns", "path_column", "table_root"):
        if getattr(options, name) != getattr(_USUAL, name):
            asked = name.replace("_", " ")
            raise UsageError(
                f"{asked}: for a table alone, and {images} is none: its name would end in "
                + ", ".join(READERS)
            )


def locate_root(images: Location, options: ConvertOptions) -> Location:
    """The folder or the archive that the paths of images are relative to.

    Raises:
        UsageError: a table says that there is one, and there is none.
    """
    if not is_table(images):
        return images
    root = join(locate(images).parent, options.table_root)
    if not root.exists():
        raise UsageError(f"{root} does not exist: its images are those of the table {images}")
    return root
