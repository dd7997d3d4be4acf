"""A local worker process: imports what it will need, then waits to be told where to connect.

Started before there is anything to do, so that its imports (1.1 s) happen while the launcher
plans. It also imports what the stores named on its command line need. It reads one line of JSON
from standard input, the environment that Beam's worker wants, and ends when standard input does:
with the launcher, however that ends.

    python -m pipelines.beam.worker_main [s3] [gs]
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading

# Beam imports its own access to stores wherever it is installed, and shardmill has another one:
# 0.5 s and 25 MB of each worker (2.77, with the extra gcp). Beam does without what is not there.
for name in ("apache_beam.io.gcp", "apache_beam.io.aws.s3filesystem"):
    sys.modules[name] = None  # type: ignore[assignment]

from apache_beam.runners.worker import sdk_worker_main  # noqa: E402

import pipelines.beam.transforms  # noqa: E402, F401 (warms the imports of the shards to come)
from converter.errors import ShardmillError  # noqa: E402
from converter.storage.requests import open_early  # noqa: E402


def main() -> None:
    """Serves one pipeline."""
    for scheme in sys.argv[1:]:
        with contextlib.suppress(ShardmillError):  # whoever needs it is told
            open_early(scheme)
    line = sys.stdin.readline()
    if not line:
        return
    os.environ.update(json.loads(line))
    threading.Thread(target=_end_with_launcher, name="end_with_launcher", daemon=True).start()
    sdk_worker_main.main([])


def _end_with_launcher() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
