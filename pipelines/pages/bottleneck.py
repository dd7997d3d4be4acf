"""Which step took the workers of a run longest, and what would help, in words."""

from typing import Final

_ADVICE: Final = {
    "read": "Reading the originals took longest. Copy them to a faster disk, or give more "
    "--workers if they come from a store or a network.",
    "decode": "Decoding the originals took longest, as it should: it grows with their pixels. More "
    "cores help, nothing else does.",
    "convert": "Resizing took longest. --interpolation bilinear is the fastest filter that is not "
    "coarse.",
    "encode": "Encoding took longest. JPEG is encoded faster than PNG and WebP; raw pixels need no "
    "encoding, but more disk.",
    "write": "Writing took longest. A faster disk for OUT helps, or a smaller encoding than raw or "
    "PNG.",
    "other": "Bookkeeping took longest, as with very many tiny images.",
}


def explain_bottleneck(steps_msec: dict[str, int], convert_msec: int = 0) -> str:
    """A sentence about the step that took the workers longest; empty if nothing was measured.

    Of a small data set it is about the time in which no worker had an image yet.
    """
    worked = sum(steps_msec.values())
    if not worked:
        return ""
    if 2 * worked < convert_msec:  # however many workers there were
        return "Starting the workers took longest, as with few images. More images add little."
    return _ADVICE.get(max(steps_msec, key=steps_msec.__getitem__), "")
