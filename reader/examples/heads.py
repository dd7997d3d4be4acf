"""The beginnings of records: labels and sizes without the images behind them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Final

import numpy as np

from converter.format import examples
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from reader.arrays import Bytes, Flags, Numbers
from reader.examples.vector_parse import find_spans, read_numbers
from reader.records.blocks import check_lengths
from reader.records.indexed_file import Group, open_file

HEAD_BYTES: Final = 512
"""Holds all that comes before an image's bytes, unless a class has a name of 400 letters."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Records up to the bytes of their images, in their order on disk."""

    data: Bytes  # (records, HEAD_BYTES)
    labels: Numbers  # (records,)
    begins: Numbers  # (records,): where each image begins in its record
    image_bytes: Numbers  # (records,)
    sizes: Numbers  # (records,): of whole records
    valid: Flags  # (records,): whether all is right but for checksums of payloads


def read_heads(groups: Sequence[Group]) -> Heads:
    """Reads the heads of some records, at least one.

    Raises:
        DatasetError: a file cannot be opened.
    """
    sizes = np.concatenate([group.ends - group.begins for group in groups])
    data = np.zeros((len(sizes), HEAD_BYTES), np.uint8)
    number = 0
    for group in groups:
        with open_file(group.file) as descriptor:
            for offset in group.begins.tolist():
                with contextlib.suppress(OSError):
                    os.preadv(descriptor, (data[number],), offset)
                number += 1
    flat, starts = data.reshape(-1), np.arange(len(sizes)) * HEAD_BYTES
    begins, ends, valid = find_spans(
        flat, starts + HEADER_BYTES, starts + sizes - FOOTER_BYTES,
        (examples.LABEL, examples.ENCODED),
    )  # fmt: skip
    labels, single = read_numbers(flat, begins[0], ends[0])
    valid &= single & (np.maximum(ends[0], begins[1]) <= starts + HEAD_BYTES)
    valid &= check_lengths(flat, starts, sizes)
    return Heads(
        data=data,
        labels=labels,
        begins=begins[1] - starts,
        image_bytes=ends[1] - begins[1],
        sizes=sizes,
        valid=valid,
    )
