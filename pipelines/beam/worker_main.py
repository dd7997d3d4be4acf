"""A local worker process: imports what it will need, then waits for the pipeline.

    python -m pipelines.beam.worker_main DESCRIPTOR [s3] [gs]      the stores that it will use

It reads one line of JSON from standard input, with the environment variables of Beam's worker, and
writes how much it has done to the open file DESCRIPTOR.
"""

import contextlib
import json
import os
import sys
import threading

# Beam imports its own access to stores wherever it is installed, which shardmill does not use:
# 0.5 s and 25 MB of each worker (2.77, with the extra gcp). Beam does without missing modules.
for name in ("apache_beam.io.gcp", "apache_beam.io.aws.s3filesystem"):
    sys.modules[name] = None  # type: ignore[assignment]  # makes an import fail

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

import pipelines.beam.transforms  # noqa: E402, F401 (imported early for the shards to come)
from converter.errors import ShardmillError  # noqa: E402
from converter.progress import share_counts  # noqa: E402
from converter.storage.requests import open_store  # noqa: E402


def main() -> None:
    """Serves one pipeline."""
    share_counts(int(sys.argv[1]))
    # Started early, so that the imports (1.1 s) run while the launcher plans.
    for scheme in sys.argv[2:]:
        with contextlib.suppress(ShardmillError):  # raised again by the first request
            open_store(scheme)
    if line := sys.stdin.readline():
        os.environ.update(json.loads(line))
        threading.Thread(target=_end_with_launcher, name="end_with_launcher", daemon=True).start()
        sdk_worker_main.main([])


def _end_with_launcher() -> None:
    sys.stdin.read()  # ends with the launcher, however that ends
    os._exit(1)


if __name__ == "__main__":
    main()
