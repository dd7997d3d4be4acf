"""The codes in `rejects.jsonl` of images that were rejected.

Files that are skipped by name or kind have those of `converter.inventory.SKIP_RULES`.
"""

from __future__ import annotations

from typing import Final

from converter.format.manifest import Totals

REJECT_CODES: Final = {
    "empty": "the file has no bytes",
    "vanished": "the file is gone since the images were listed",
    "changed": "the file changed since the images were listed, or while it was read",
    "unreadable": "the file cannot be read",
    "too_many_bytes": "the file is larger than --max-file-bytes",
    "not_an_image": "the content is no image of a known format",
    "other_format": "an image of a format that --formats does not name",
    "too_large": "more pixels than --max-pixels, or a stored side that no encoding can hold",
    "too_slow": "so many scans and pixels that decoding would take minutes",
    "implausible": "the header claims more pixels than so few bytes can hold",
    "unsupported_mode": "pixels whose colours are undefined",
    "animated": "several frames or pages, which --frames reject refuses",
    "decode_error": "the image is truncated or damaged",
    "decoder_crash": "the decoder crashed at it, in a process of its own",
    "too_much_memory": "decoding took more memory than --max-pixels allows, in such a process",
    "timeout": "decoding took more CPU time than --max-seconds",
    "missing": "the table names it, and there is no such file",
    "outside": "its path in the table leads out of the folder",
    "repeated": "an earlier row of the table has this image, too",
    "bad_row": "a value in its row of the table is missing or makes no sense",
    "mask_missing": "there is no mask for it, or more than one",
    "mask_unreadable": "its mask cannot be read, or does not hold numbers of classes",
    "mask_size": "its mask has another size than the image",
    "filtered_side": "a side is shorter than --min-side",
    "filtered_area": "fewer pixels than --min-area",
    "filtered_frames": "a frame or page behind the first --max-frames of its file",
    "filtered_aspect": "longer and narrower than --max-aspect",
}
"""What each code means. `rejects.jsonl` holds some of these texts as details, so another wording
changes the bytes of data sets."""

FILTERS: Final = frozenset(code for code in REJECT_CODES if code.startswith("filtered_"))
"""Sound images left out on request: `--on-error` and `--max-rejects` do not count them."""


def describe_excess(totals: Totals, max_rejects: float | None) -> str | None:
    """Returns a message if a data set has more rejected images than `max_rejects` allows."""
    if max_rejects is None:
        return None
    rejected = sum(count for code, count in totals.rejected.items() if code not in FILTERS)
    images = totals.written + sum(totals.rejected.values())
    limit = max_rejects if isinstance(max_rejects, int) else max_rejects * images
    if rejected <= limit:
        return None
    allowed = f"{max_rejects:,}" if isinstance(max_rejects, int) else f"{max_rejects:.6g} of them"
    return (
        f"{rejected:,} of {images:,} images were rejected, more than --max-rejects allows "
        f"({allowed}): the data set is complete without them"
    )
