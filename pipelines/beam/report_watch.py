"""The reports of a job that checks shards, which workers leave as files."""

import contextlib
import time
from collections.abc import Callable

from converter.errors import DatasetError
from converter.format.manifest import Manifest, ShardInfo
from converter.storage.location import Location
from converter.upkeep.shard_reports import Findings, Report
from pipelines.beam import runners
from pipelines.beam.transforms import report_path


class ReportWatch:
    """Takes the reports on shards as they appear, and adds them up."""

    # Each is removed once it is read. So neither the folder nor the memory grows with the data set.

    def __init__(
        self, manifest: Manifest, folder: Location, on_shard: Callable[[ShardInfo], object]
    ) -> None:
        self.findings = Findings(manifest)
        self._folder, self._on_shard = folder, on_shard
        self._unseen = {report_path(folder, shard).name: shard for shard in manifest.shards}
        self._interval_s = runners.STORE_INTERVAL_S * folder.is_remote
        self._next = 0.0

    def poll(self) -> None:
        """Takes new reports, if it is time to."""
        if time.monotonic() >= self._next:
            self._take_new()
            self._next = time.monotonic() + self._interval_s

    def finish(self) -> Findings:
        """Takes the last reports; raises DatasetError if a shard has none."""
        self._take_new()
        for shard in self._unseen.values():
            raise DatasetError(
                f"no report on {shard.name}: the job ended without checking it; run it again"
            )
        return self.findings

    def _take_new(self) -> None:
        names = sorted(self._unseen.keys() & set(self._folder.list_names()))
        for name, data in zip(names, self._folder.read_files(names), strict=True):
            # One that a file system without renames in one step has half written comes next time.
            with contextlib.suppress(ValueError, TypeError):
                report = Report.from_json(data)
                shard = self._unseen.pop(name)
                self.findings.add(shard, report)
                self._on_shard(shard)
        self._folder.remove_files(name for name in names if name not in self._unseen)
