"""A stand-in for Google Cloud Dataflow, because the real one cannot run on this machine.

It answers the few REST calls that Beam makes, keeps what it was asked for, and "runs" a job: it
fetches the staged pipeline and wheel from the store and hands them to `worker.py`.
What the real service checks beyond that (quotas, rights, machine types), it does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

WORKER = Path(__file__).with_name("worker.py")
# Nothing beside the worker's file is to be imported.
SAFE_PATH = ["-P"] if sys.version_info >= (3, 11) else []


class StandIn:
    """An endpoint that lives as long as the `with` block.

    Args:
        store: address of the server that stands for Google Cloud Storage.
        work: folder for what is fetched.
        hold: leave jobs running until they are cancelled.

    Attributes:
        jobs: what was asked for, in order.
        workers: what `worker.py` told, by the number of the job.
        failures: its standard error, where it failed.
    """

    def __init__(self, store: str, work: Path, *, hold: bool = False) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.workers: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._store, self._work, self._hold = store, work, hold
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        # By this very name Beam recognises that it is to speak REST.
        return f"http://localhost:{self._server.server_port}"

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        """Takes a job, and begins with it; of one name, there is one that runs."""
        for number, state in self._states.items():
            if state == "JOB_STATE_RUNNING" and self.describe(number)["name"] == job["name"]:
                return self.describe(number)
        number = f"job-{len(self.jobs)}"
        self.jobs.append(job)
        self._states[number] = "JOB_STATE_RUNNING"
        if not self._hold:
            threading.Thread(target=self._run, args=(number, job), daemon=True).start()
        return self.describe(number)

    def describe(self, number: str) -> dict[str, Any]:
        """A job, as Dataflow shows it."""
        job = self.jobs[int(number.removeprefix("job-"))]
        told = {key: job[key] for key in ("name", "clientRequestId")}
        return {"id": number, "currentState": self._states[number], **told}

    def update(self, number: str, _change: dict[str, Any]) -> dict[str, Any]:
        """Cancels a job, the one change that is ever asked for."""
        self._states[number] = "JOB_STATE_CANCELLED"
        return self.describe(number)

    def fetch(self, address: str) -> bytes:
        """An object of the store, by its `gs://` address."""
        bucket, _, name = address.removeprefix("gs://").partition("/")
        quoted = urllib.parse.quote(name, safe="")
        url = f"{self._store}/storage/v1/b/{bucket}/o/{quoted}?alt=media"
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (ours, and local)
            return bytes(answer.read())

    def _run(self, number: str, job: dict[str, Any]) -> None:
        options = job["environment"]["sdkPipelineOptions"]["options"]
        pipeline = self._work / "pipeline.pb"
        pipeline.write_bytes(self.fetch(options["pipelineUrl"]))
        found = hashlib.sha256(pipeline.read_bytes()).hexdigest()
        wheels = [self._stage(package) for package in list_packages(job) if is_wheel(package)]
        process = subprocess.run(
            [sys.executable, *SAFE_PATH, str(WORKER), str(pipeline)],
            cwd=self._work,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, wheels))},
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode or found != options["pipelineProtoHash"]:
            self.failures[number] = process.stderr
            self._states[number] = "JOB_STATE_FAILED"
            return
        self.workers[number] = json.loads(process.stdout.splitlines()[-1])
        self._states[number] = "JOB_STATE_DONE"

    def _stage(self, package: dict[str, str]) -> Path:
        # Beam writes these addresses as `storage.googleapis.com/bucket/name`.
        address = package["location"].partition("/")[2]
        path = self._work / package["name"]
        path.write_bytes(self.fetch(f"gs://{address}"))
        return path

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._answer(stand_in.create(self._read()))

            def do_PUT(self) -> None:
                self._answer(stand_in.update(self._parts()[-1], self._read()))

            def do_GET(self) -> None:
                *_, last = self._parts()
                told = {} if last in ("messages", "metrics") else stand_in.describe(last)
                self._answer(told)

            def log_message(self, *_: object) -> None:
                """Says nothing: what was asked for is kept in `jobs`."""

            def _parts(self) -> list[str]:
                return urllib.parse.urlsplit(self.path).path.split("/")

            def _read(self) -> dict[str, Any]:
                return dict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, told: dict[str, Any]) -> None:
                data = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler


def list_packages(job: dict[str, Any]) -> list[dict[str, str]]:
    """What is staged for the workers of a job."""
    return list(job["environment"]["workerPools"][0].get("packages", []))


def is_wheel(package: dict[str, str]) -> bool:
    return package["name"].endswith(".whl")
