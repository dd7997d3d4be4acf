"""Object stores for tests: real servers as processes, each behind a proxy."""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter.storage.gcs import GcsStore
from converter.storage.locate import parse_address
from converter.storage.object_requests import put_object
from converter.storage.objects import ObjectPath
from converter.storage.s3 import S3Store

BUCKET = "shardmill-tests"
PATIENCE_S = 15
PROXY = Path(__file__).with_name("proxy.py")
EMULATOR = PROXY.with_name("gcs_emulator.py")
PACKAGES = {"s3": ("s3fs", "moto"), "gs": ("gcsfs", "gcp_storage_emulator")}


@dataclasses.dataclass(frozen=True)
class Server:
    """A running store.

    Attributes:
        scheme: `s3` or `gs`.
        port: of its proxy.
        environment: leads to the proxy; set in this process too.
    """

    scheme: str
    port: int
    environment: dict[str, str]

    def path(self, name: str) -> ObjectPath:
        """An address in its bucket."""
        return parse_address(f"{self.scheme}://{BUCKET}/{name}")

    def set_faults(self, **settings: object) -> dict[str, int]:
        """Sets the faults of its proxy; none without arguments. Returns counts since the last."""
        query = urllib.parse.urlencode(settings)
        url = f"http://127.0.0.1:{self.port}/-/set?{query}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.loads(answer.read())


def upload(folder: Path, address: ObjectPath) -> ObjectPath:
    """Copies the files directly in a folder to an address."""
    for file in sorted(folder.iterdir()):
        if file.is_file():
            with open(file, "rb") as stream:
                put_object(address / file.name, stream)
    return address


def upload_tree(folder: Path, address: ObjectPath) -> ObjectPath:
    """Copies everything in a folder to an address, if there is nothing yet."""
    if not address.exists():
        for path in folder.rglob("*"):
            if path.is_file():
                put_object(address / path.relative_to(folder).as_posix(), path.read_bytes())
    return address


class KilledError(Exception):
    """An `Exception`, because any other kind hangs a thread of Beam."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """From that request on, nothing is written, as after a kill."""
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) >= number:
            raise KilledError

    _precede_writes(monkeypatch, step)


def count_writes(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> int:
    """Counts the requests of a function that write something."""
    with monkeypatch.context() as patch:
        counts = itertools.count()
        _precede_writes(patch, lambda: next(counts))
        do()
    return next(counts)


def _precede_writes(monkeypatch: pytest.MonkeyPatch, step: Callable[[], object]) -> None:
    """Calls `step` before each request that writes."""
    for store, name in itertools.product((S3Store, GcsStore), ("put", "copy", "delete")):
        write = getattr(store, name)

        async def write_after(*arguments, write=write):
            step()
            return await write(*arguments)

        monkeypatch.setattr(store, name, write_after)


def find_port() -> int:
    """Finds a free port, of those that no system gives to a program that asks for any."""
    # One of the others may be Beam's by the time that a server is up: seen in a parallel run.
    while True:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as server:
            server.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def run_server(scheme: str) -> Iterator[Server]:
    """Runs a store and its proxy, for this process and those that it starts.

    Skips the test where a package is missing.
    """
    for package in PACKAGES[scheme]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}: pip install -e '.[dev]'")
    target, port = find_port(), find_port()
    commands = {
        "s3": [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(target)],
        "gs": [sys.executable, str(EMULATOR), "start", "--host=127.0.0.1", f"--port={target}",
               "--in-memory", f"--default-bucket={BUCKET}"],
    }  # fmt: skip
    environments = {
        "s3": {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "canary-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        "gs": {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"},
    }
    server = Server(scheme, port, environments[scheme])
    with (
        _run_process(commands[scheme], target),
        _run_process([sys.executable, str(PROXY), str(port), str(target)], port),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("SHARDMILL_STORE_SECONDS", str(PATIENCE_S))
        if scheme == "s3":
            asked = urllib.request.Request(f"http://127.0.0.1:{target}/{BUCKET}", method="PUT")
            urllib.request.urlopen(asked, timeout=30).close()
        yield server


@contextlib.contextmanager
def _run_process(command: list[str], port: int) -> Iterator[None]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            _wait_for(port, process)
            yield
        finally:
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"{process.args} does not answer on port {port}")
