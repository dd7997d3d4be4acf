"""Parquet as Hugging Face's `datasets` writes it: images in a column of bytes and path.

The schema's metadata has the features under the key `huggingface`, as `Features.to_dict` in
`datasets/features/features.py` makes them, so that images are decoded and classes have their names.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from converter.errors import UsageError
from converter.exports.export_job import ExportJob, SplitFiles
from converter.exports.image_folders import MASK_SUFFIX, find_name
from converter.exports.items import Item, deal_out, map_ahead
from converter.exports.safe_names import Namer
from converter.exports.targets import Sink, Target
from converter.format import schema
from converter.format.schema import Column
from converter.names import to_bytes
from converter.storage.files import HashedFile

# A row group is in memory whole, both to write and to read it.
_GROUP_ROWS: Final = 100
_GROUP_BYTES: Final = 4 << 20

_IMAGE: Final = {"_type": "Image"}
_DTYPES: Final = {"int": "int64", "float": "float32", "text": "string"}


def write_parquet(job: ExportJob, target: Target, split: str, items: Iterable[Item]) -> SplitFiles:
    """Writes the images of a split to Parquet.

    Holds up to 100 rows, and no more than 4 MiB of images before the last of them.
    """
    pa = import_arrow()
    namer, classes, ends = Namer(), job.class_folders, job.cut(split)
    described = pa.schema(_list_types(job, pa), {"huggingface": _describe_features(job)})
    images = size = 0
    named = ((item, _name_image(item, classes, namer)) for item in items)
    rows = map_ahead(lambda pair: _make_row(job, *pair), named, target.threads)
    numbered = ((item.number, row) for (item, _), row in rows)
    for number, group in enumerate(deal_out(numbered, ends)):
        name = f"{job.split_folders[split]}-{number:05d}-of-{len(ends):05d}.parquet"
        with (target.stage / name).create(target.scratch) as file:
            images += _write_file(pa, file, described, group)
        size += file.size
    return SplitFiles(images, len(ends), size)


def import_arrow() -> Any:
    """Imports pyarrow, or raises UsageError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 (half a second, for one format alone)
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError("writing Parquet takes pyarrow: pip install pyarrow") from error
    return pa


def _write_file(
    pa: Any, file: HashedFile, described: Any, rows: Iterable[Mapping[str, Any]]
) -> int:
    images = 0
    sink = pa.PythonFile(Sink(file), "w")
    # Images are compressed already, and no two of them are equal.
    with pa.parquet.ParquetWriter(
        sink, described, compression="none", use_dictionary=False
    ) as writer:
        for group in _group_rows(rows):
            images += len(group)
            columns = {name: [row[name] for row in group] for name in described.names}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, described))
    return images


def _group_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(cell["bytes"]) for cell in row.values() if isinstance(cell, dict))
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _name_image(item: Item, classes: list[str], namer: Namer) -> str:
    stem, suffix = find_name(item, classes)
    return namer.take(stem, [suffix], item.number) + suffix


def _make_row(job: ExportJob, item: Item, path: str) -> dict[str, Any]:
    names = job.names
    row: dict[str, Any] = {names.file: {"bytes": item.encode(), "path": path}}
    if item.label is not None:
        row[names.label] = item.source.label
    for column in job.manifest.columns:
        row[names.columns[column.name]] = _convert(column, item, path)
    return row


def _convert(column: Column, item: Item, path: str) -> Any:
    if column.name == schema.MASK:
        return {"bytes": item.mask, "path": path.rpartition(".")[0] + MASK_SUFFIX}
    value = column.read(item.features[column.name])
    if column.kind == "text":
        return _mend_text(value)
    if column.kind == "texts":
        return [*map(_mend_text, value)]
    return value


def _mend_text(text: str) -> str:
    """A text as Arrow takes it: bytes that are not UTF-8 are spelt as in Python."""
    return to_bytes(text).decode("utf-8", "backslashreplace")


def _list_types(job: ExportJob, pa: Any) -> list[tuple[str, Any]]:
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    types = {"int": pa.int64(), "float": pa.float32(), "text": pa.string(), "mask": image}
    types |= {f"{kind}s": pa.list_(types[kind]) for kind in _DTYPES}
    types |= {"labels": pa.list_(pa.int64()), "boxes": pa.list_(pa.list_(pa.float32()))}
    label = [(job.names.label, pa.int64())] if job.manifest.labelled else []
    columns = ((job.names.columns[each.name], types[each.kind]) for each in job.manifest.columns)
    return [(job.names.file, image), *label, *columns]


def _describe_features(job: ExportJob) -> str:
    label = {"names": [*job.manifest.classes], "_type": "ClassLabel"}
    kinds: dict[str, Any] = {}
    kinds |= {kind: {"dtype": dtype, "_type": "Value"} for kind, dtype in _DTYPES.items()}
    kinds |= {f"{kind}s": _describe_list(kinds[kind]) for kind in _DTYPES}
    kinds |= {"labels": _describe_list(label), "mask": _IMAGE}
    kinds["boxes"] = _describe_list(_describe_list(kinds["float"]))
    features: dict[str, Any] = {job.names.file: _IMAGE}
    if job.manifest.labelled:
        features[job.names.label] = label
    for column in job.manifest.columns:
        features[job.names.columns[column.name]] = kinds[column.kind]
    return json.dumps({"info": {"features": features}})


def _describe_list(feature: Mapping[str, Any]) -> dict[str, Any]:
    # Versions before 4 know no `List`, and later ones read `Sequence`, too.
    return {"feature": feature, "_type": "Sequence"}
