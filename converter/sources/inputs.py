"""What IMAGES may be: a folder, an archive, or a table of what lies in one of them."""

from __future__ import annotations

from converter.errors import UsageError
from converter.options import ConvertOptions
from converter.sources.rows import is_table
from converter.storage.layout import Location, join, locate


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
