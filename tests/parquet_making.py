"""Makes Parquet files as `datasets` writes them, and forges ones that no library would write."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import encode_image, make_image

CLASSES = ("zebra", "ant", "never used")
TAGS = ("red", "green", "blue")
THINGS = ("car", "tree")


def make_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows with everything that a record can hold; every third image has no name of its own."""
    return [
        {
            "image": {
                "bytes": encode_image(make_image(n), "PNG" if n % 2 else "JPEG"),
                "path": f"{n % 4}.png" if n % 3 else None,
            },
            "label": n % 2,
            "text": f"Bild {n} ü",
            "tags": [[], [0], [2, 1]][n % 3],
            "objects": {
                "bbox": [[2.0, 3.0, 8.0 + box, 9.0] for box in range(n % 3)],
                "category": [box % 2 for box in range(n % 3)],
            },
            "age": n,
            "mask": {"bytes": encode_image(make_image(n, mode="L"), "PNG"), "path": None},
        }
        for n in range(first, first + count)
    ]


def make_dataset(rows: Sequence[dict[str, Any]]) -> Any:
    """The rows of `make_rows` as a data set of Hugging Face."""
    datasets = pytest.importorskip("datasets")
    numbers = datasets.Value("float32")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=[*CLASSES]),
            "text": datasets.Value("string"),
            "tags": datasets.Sequence(datasets.ClassLabel(names=[*TAGS])),
            "objects": {
                "bbox": datasets.Sequence(datasets.Sequence(numbers, length=4)),
                "category": datasets.Sequence(datasets.ClassLabel(names=[*THINGS])),
            },
            "age": datasets.Value("int64"),
            "mask": datasets.Image(),
        }
    )
    return datasets.Dataset.from_list([*rows], features=features)


def write_shards(rows: Sequence[dict[str, Any]], paths: Sequence[Path]) -> None:
    """Divides rows between files, as `push_to_hub` does."""
    whole = make_dataset(rows)
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.shard(len(paths), number, contiguous=True).to_parquet(str(path))


def write_plain(path: Path, columns: dict[str, Sequence[Any]], **options: Any) -> Path:
    """A file without what `datasets` says about columns, as other libraries write them."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    features = options.pop("features", None)
    table = pa.table(columns)
    if features:
        described = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": described})
    parquet.write_table(table, path, **options)
    return path


# The compact protocol of Thrift: https://github.com/apache/thrift/tree/master/doc/specs
_CODES = {"int": 5, "long": 6, "bytes": 8, "list": 9, "struct": 12}


def encode_varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes((*data, number))


def encode_value(kind: str, value: Any) -> bytes:
    if kind in ("int", "long"):
        return encode_varint((value << 1) ^ (value >> 63))
    if kind == "bytes":
        return encode_varint(len(value)) + value
    if kind == "struct":
        return encode_struct(value)
    inner, items = value
    size = len(items)
    head = bytes([min(size, 15) << 4 | _CODES[inner]]) + (encode_varint(size) if size > 14 else b"")
    return head + b"".join(encode_value(inner, item) for item in items)


def encode_struct(fields: Sequence[tuple[int, str, Any]]) -> bytes:
    """A structure of (number, kind, value), ordered by number."""
    data, last = b"", 0
    for number, kind, value in fields:
        data += bytes([number - last << 4 | _CODES[kind]]) + encode_value(kind, value)
        last = number
    return data + b"\0"


def describe_column(name: str, children: int | None = None) -> list[tuple[int, str, Any]]:
    """A `SchemaElement`: of bytes, or of other columns."""
    head = [] if children else [(1, "int", 6)]
    tail = [(5, "int", children)] if children else []
    return [*head, (3, "int", 0), (4, "bytes", name.encode()), *tail]


def forge_file(
    path: Path, columns: Sequence[Any], body: bytes = b"", groups: Sequence[Any] = (), rows: int = 0
) -> Path:
    """A file with any footer."""
    fields = [
        (1, "int", 2), (2, "list", ("struct", columns)), (3, "long", rows),
        (4, "list", ("struct", groups)),
    ]  # fmt: skip
    footer = encode_struct(fields)
    path.write_bytes(b"PAR1" + body + footer + struct.pack("<I", len(footer)) + b"PAR1")
    return path


def forge_page(
    path: Path,
    data: bytes,
    *,
    plain_bytes: int,
    codec: int = 0,
    stated: int | None = None,
    rows: int = 1,
) -> Path:
    """A file of one row with one page, which may lie about its size."""
    page = [(1, "int", 1), (2, "int", 0), (3, "int", 3), (4, "int", 3)]
    header = [(1, "int", 0), (2, "int", plain_bytes), (3, "int", len(data)), (5, "struct", page)]
    body = encode_struct(header) + data
    column = [
        (1, "int", 6), (2, "list", ("int", [0, 3])), (3, "list", ("bytes", [b"image"])),
        (4, "int", codec), (5, "long", rows), (6, "long", stated or plain_bytes),
        (7, "long", len(body)), (9, "long", 4),
    ]  # fmt: skip
    chunk = [(2, "long", 4), (3, "struct", column)]
    group = [(1, "list", ("struct", [chunk])), (2, "long", plain_bytes), (3, "long", rows)]
    columns = [describe_column("root", 1), describe_column("image")]
    return forge_file(path, columns, body, [group], rows)
