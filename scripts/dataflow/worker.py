"""Runs a pipeline as it was staged for Dataflow, in this process, and tells what came of it.

    PYTHONPATH=staged.whl python worker.py pipeline.pb

A worker on Dataflow has the same two things: the pipeline, in which functions are named and not
contained, and the wheel to import them from.
"""

import json
import sys
from pathlib import Path

from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

import converter


def main() -> None:
    pipeline = beam_runner_api_pb2.Pipeline.FromString(Path(sys.argv[1]).read_bytes())
    for environment in pipeline.components.environments.values():
        # Dataflow starts a container here; this process stands for it.
        environment.urn = python_urns.EMBEDDED_PYTHON
        environment.payload = b""
        del environment.dependencies[:]
    result = FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([]))
    counters = result.metrics().query(MetricsFilter().with_namespace("shardmill"))["counters"]
    told = {
        "state": result.wait_until_finish(),
        "counters": {counter.key.metric.name: counter.result for counter in counters},
        "code": converter.__file__,
        "tensorflow": "tensorflow" in sys.modules,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
