"""A store that costs next to nothing, and counts what it is asked for: a folder as `s3://`."""

import asyncio
import os
import threading
from collections import Counter
from pathlib import Path

from converter.storage import requests, stores
from converter.storage.stores import Body, Page, Stat, Transfer


class FolderStore:
    """A `Store` whose objects are files, by bucket and key; its tags are numbers of inodes."""

    def __init__(self, root: Path) -> None:
        self.root, self.counts = root, Counter[str]()
        self.loop = asyncio.new_event_loop()
        self.gate = asyncio.Semaphore(stores.CONNECTIONS)
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self._listed: tuple[Path, dict[str, tuple[int, str]]] | None = None  # until it changes

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None:
        self.counts["get"] += 1
        data = (self.root / bucket / key).read_bytes()[transfer.place : transfer.stop]
        self.counts["bytes"] += len(data)
        transfer.write(data)
        transfer.place += len(data)

    async def stat(self, bucket: str, key: str) -> Stat:
        self.counts["stat"] += 1
        if not (self.root / bucket / key).is_file():
            raise FileNotFoundError(key)
        status = (self.root / bucket / key).stat()
        return Stat(status.st_size, str(status.st_mtime_ns), None)

    # All are asked for by folder, from the first on: whatever else a listing may be asked is left.
    async def list(self, bucket: str, prefix: str, *, token: str | None, **_: object) -> Page:
        self.counts["list"] += 1
        files = self._list_files(self.root / bucket / prefix)
        begin = int(token or 0)
        names = [*files][begin : begin + stores.PAGE_OBJECTS]
        return Page(
            {prefix + name: files[name][0] for name in names},
            {prefix + name: files[name][1] for name in names},
            [],
            str(begin + len(names)) if begin + len(names) < len(files) else None,
        )

    def _list_files(self, folder: Path) -> dict[str, tuple[int, str]]:
        if self._listed is None or self._listed[0] != folder:
            with os.scandir(folder) as items:
                found = {item.name: item.stat() for item in items if item.is_file()}
            states = {
                name: (found[name].st_size, str(found[name].st_ino)) for name in sorted(found)
            }
            self._listed = (folder, states)
        return self._listed[1]

    async def put(self, bucket: str, key: str, data: Body, attempt: str | None = None) -> str:
        self.counts["put"] += 1
        path = self.root / bucket / key
        if attempt is not None and path.exists():
            raise FileExistsError(key)
        path.unlink(missing_ok=True)  # which may be a link to a file elsewhere
        path.write_bytes(
            b"".join([data] if isinstance(data, bytes) else stores.read_parts(data, 1 << 20))
        )
        self._listed = None
        return str(path.stat().st_ino)

    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None:
        raise NotImplementedError

    async def delete(self, bucket: str, key: str) -> None:
        self.counts["delete"] += 1
        (self.root / bucket / key).unlink(missing_ok=True)
        self._listed = None


def serve_folder(root: Path) -> Counter[str]:
    """Makes `s3://` the buckets in a folder, for this process; gives the counts of requests."""
    store = FolderStore(root)
    requests.S3Store = lambda _timeout_s: store
    return store.counts
