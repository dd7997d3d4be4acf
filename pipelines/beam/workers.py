"""Local worker processes for Beam's FnApiRunner, started early and watched."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Final

from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.transforms import environments
from google.protobuf import json_format, text_format

from converter.errors import WorkerError
from converter.progress import Counts, read_shared

if TYPE_CHECKING:
    from typing_extensions import Self

# Beam can start worker processes itself (`direct_running_mode=multi_processing`). But it starts
# them through a shell with an unquoted path, only when the pipeline runs, and when one is killed
# `run()` never returns (measured with 2.77, SIGKILL). So the processes are started here, and given
# to the runner as an environment of their own.
URN: Final = "shardmill:environment:local_workers:v1"

# Beam sends only bytes through a pipeline, so workers are found by a key.
pools: dict[bytes, LocalWorkers] = {}
_pool_numbers = itertools.count()


class LocalWorkers:
    """Worker processes that live as long as the `with` block, for stores with these `schemes`."""

    def __init__(self, count: int, schemes: Iterable[str] = ()) -> None:
        self.count = count
        self.death: WorkerError | None = None  # of the first process that died
        self._schemes = sorted(set(schemes))
        self._id = b"%d" % next(_pool_numbers)
        self._lock = threading.Lock()
        self._closing = False
        self.idle: list[_Worker] = []  # which wait for a pipeline
        self._busy: list[tuple[_Worker, _LocalWorkerHandler]] = []

    def __enter__(self) -> Self:
        pools[self._id] = self
        try:
            self.idle.extend(_Worker(self._schemes) for _ in range(self.count))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing = True
        del pools[self._id]
        for worker in [*self.idle, *(worker for worker, _ in self._busy)]:
            worker.close()

    def read_counts(self) -> Counts:
        """What all processes have done since they started."""
        workers = [*self.idle, *(worker for worker, _ in self._busy)]
        return functools.reduce(Counts.plus, (worker.read_counts() for worker in workers), Counts())

    @property
    def environment(self) -> environments.Environment:
        """Where Beam is to run a pipeline: in these processes."""
        return _LocalEnvironment(self._id)

    def connect(self, handler: _LocalWorkerHandler, variables: dict[str, str]) -> None:
        """Connects an idle process to a handler, and watches it."""
        worker = self.idle.pop()
        self._busy.append((worker, handler))
        worker.connect(variables)
        threading.Thread(
            target=self._watch, args=(worker, handler), name="watch_worker", daemon=True
        ).start()

    def _watch(self, worker: _Worker, handler: _LocalWorkerHandler) -> None:
        code = worker.process.wait()
        with self._lock:
            # The workers killed below get here too.
            if handler.closing or self._closing or self.death is not None:
                return
            self.death = WorkerError(describe_death(code, worker.read_last_words()))
        # All of them, because Beam waits for the others' bundles before it looks at this one.
        for other, _ in self._busy:
            other.kill()
        for _, other_handler in self._busy:
            # As `ControlConnection.abort` does, but on a copy: other threads change the dict.
            for future in list(other_handler.control_conn._futures_by_id.values()):  # noqa: SLF001
                future.abort(self.death)


class _Worker:
    def __init__(self, schemes: Iterable[str]) -> None:
        # A file keeps what native decoders print out of the progress bar.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        # Of what it has done, for a bar that does not wait for whole shards.
        self._last = Counts()
        self._counts: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        # Without -P the current folder comes first on sys.path, and a `proto.py` there breaks Beam.
        safe_path = ["-P"] if sys.version_info >= (3, 11) else []
        descriptor = str(self._counts.fileno())
        self.process = subprocess.Popen(  # noqa: S603 (this very interpreter)
            [sys.executable, *safe_path, "-m", "pipelines.beam.worker_main", descriptor, *schemes],
            stdin=subprocess.PIPE,  # for `connect`: Beam's addresses are not known yet
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=(self._counts.fileno(),),
            start_new_session=True,  # Ctrl-C is for the launcher, which ends them
        )
        self._stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]  # a pipe

    def connect(self, variables: dict[str, str]) -> None:
        # The pipe of a dead worker is broken; `_watch` reports the death.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(variables).encode() + b"\n")
            self._stdin.flush()

    def read_last_words(self) -> str:
        try:
            self._stderr.seek(0)
            lines = self._stderr.read().decode("utf-8", "replace").splitlines()
        except (OSError, ValueError):
            return ""  # closed meanwhile: that it died matters more than what it said
        # The rest is Beam's log.
        words = (line.strip() for line in lines if not line.startswith(("INFO:", "WARNING:")))
        return next(filter(None, reversed([*words])), "")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._stderr.close()
        self._counts.close()

    def read_counts(self) -> Counts:
        # A bar is drawn once more when all is closed, by another thread even meanwhile.
        with contextlib.suppress(ValueError, OSError):
            self._last = read_shared(self._counts.fileno())
        return self._last


@environments.Environment.register_urn(URN, bytes)
class _LocalEnvironment(environments.Environment):  # type: ignore[misc]  # Beam has no types
    # Without `args` for a new one; with them where Beam reads one back.
    def __init__(self, pool: bytes, *args: Any) -> None:
        super().__init__(*(args or (environments.python_sdk_capabilities(),)))
        self._pool = pool

    def to_runner_api_parameter(self, _context: object) -> tuple[str, bytes]:
        return URN, self._pool

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes, capabilities: Any, artifacts: Any, resource_hints: Any, _context: object
    ) -> _LocalEnvironment:
        return _LocalEnvironment(payload, capabilities, artifacts, resource_hints)


@worker_handlers.WorkerHandler.register_environment(URN, bytes)
class _LocalWorkerHandler(worker_handlers.GrpcWorkerHandler):  # type: ignore[misc]  # Beam has no types
    def __init__(self, pool: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self.closing = False
        self._pool = pools[pool]

    def start_worker(self) -> None:
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        logging = self.logging_api_service_descriptor()
        options = self.provision_info.provision_info.pipeline_options
        variables = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(logging),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        self._pool.connect(self, variables)

    def close(self) -> None:
        self.closing = True
        super().close()

    def stop_worker(self) -> None:
        pass  # `LocalWorkers` ends the process


def describe_death(code: int, last_words: str) -> str:
    """The message about a process that ended with a code, or by a signal if it is negative."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    said = f", its last words: {last_words[:300]}" if last_words else ""
    hint = " (often: out of memory)" if code == -9 else ""
    return (
        f"a worker process {how}{hint}{said}: finished shards are kept, "
        "run the same command again to go on"
    )
