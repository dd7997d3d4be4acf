"""The commands that look at a data set: inspect."""

import argparse
import io
from collections.abc import Mapping
from typing import Any

from converter.errors import DatasetError, RecordError
from converter.format.examples import decode_example
from converter.format.manifest import Manifest, read_manifest
from converter.format.tfrecords import read_records
from converter.storage.locate import locate
from converter.storage.location import Location
from pipelines.cli import json_reports, reports, terminal
from pipelines.cli.arguments import refuse_sizes


def run_inspect(arguments: argparse.Namespace) -> int:
    """`shardmill inspect OUT`: counts, sizes, and the first record."""
    folder = arguments.out
    refuse_sizes(arguments)
    manifest = read_manifest(locate(folder))
    shard, features = _read_record(manifest, folder)
    if arguments.json:
        shown = {name: [*map(reports.show_value, features[name])] for name in sorted(features)}
        described = json_reports.describe_dataset(manifest, folder)
        terminal.print_json({**described, "record": {"shard": shard, "features": shown}})
    else:
        terminal.print_lines(reports.summarize_dataset(manifest, folder))
        terminal.print_lines([f"first record of {shard}:", *reports.summarize_record(features)])
    return 0


def _read_record(manifest: Manifest, folder: Location) -> tuple[str, Mapping[str, list[Any]]]:
    """The name of the first shard with a record, and the features of that record."""
    shard = next(shard for shard in manifest.shards if shard.records)
    place = folder / shard.name
    if not (place.is_remote or place.is_file()):  # a pipe would be waited for
        raise DatasetError(f"{place} is missing or is no file: shardmill repair rebuilds it")
    # Of a store, no more is read than the largest record.
    data = place.read_range(0, shard.max_record_bytes)
    with io.BytesIO(data) as file:
        offset, payload = next(read_records(file, shard.name, shard.bytes), (0, b""))
    try:
        return shard.name, decode_example(payload)
    except ValueError as error:
        raise RecordError(shard.name, offset, str(error), 0) from error
