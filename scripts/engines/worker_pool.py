"""A pool of Beam's Python workers that listens at one address: `worker_pool.py HOST:PORT`.

Beam's own, `apache_beam.runners.worker.worker_pool_main`, listens at all addresses of a machine, so
that two on the same one would share a port, and the workers of either would end up in the other.
"""

import sys

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor


def main() -> None:
    server = grpc.server(thread_pool_executor.shared_unbounded_instance())
    server.add_insecure_port(sys.argv[1])
    pool = BeamFnExternalWorkerPoolServicer(use_process=True)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
