"""Which image formats can be read: an allow-list, without Pillow."""

from __future__ import annotations

from typing import Final, NamedTuple


class Format(NamedTuple):
    """One format: Pillow's name for it, the module that registers its reader, and suffixes."""

    pillow: str
    module: str
    suffixes: tuple[str, ...]


FORMATS: Final = {
    "jpeg": Format("JPEG", "PIL.JpegImagePlugin", (".jpg", ".jpeg", ".jpe", ".jfif")),
    "mpo": Format("MPO", "PIL.MpoImagePlugin", (".mpo",)),
    "png": Format("PNG", "PIL.PngImagePlugin", (".png", ".apng")),
    "webp": Format("WEBP", "PIL.WebPImagePlugin", (".webp",)),
    "gif": Format("GIF", "PIL.GifImagePlugin", (".gif",)),
    "bmp": Format("BMP", "PIL.BmpImagePlugin", (".bmp", ".dib")),
    "tiff": Format("TIFF", "PIL.TiffImagePlugin", (".tif", ".tiff")),
    "avif": Format("AVIF", "PIL.AvifImagePlugin", (".avif",)),
    "jpeg2000": Format("JPEG2000", "PIL.Jpeg2KImagePlugin", (".jp2", ".j2k", ".jpf", ".jpx")),
    "ppm": Format("PPM", "PIL.PpmImagePlugin", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
    "tga": Format("TGA", "PIL.TgaImagePlugin", (".tga",)),
    "ico": Format("ICO", "PIL.IcoImagePlugin", (".ico",)),
    "heif": Format("HEIF", "pillow_heif", (".heic", ".heif", ".hif")),
}
"""By the name that `--formats` takes. An MPO is a JPEG with more pictures behind it."""

DEFAULT_FORMATS: Final = ("jpeg", "mpo", "png", "webp", "gif", "bmp", "tiff", "avif")

SUFFIXES: Final = frozenset(suffix for each in FORMATS.values() for suffix in each.suffixes)
"""Only files with one of these suffixes are opened. Their content decides on the format; one that
is not asked for is rejected as `other_format`."""
