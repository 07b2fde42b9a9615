"""The server of llama.cpp with a real model: `python -m tests.support.adapted.local_server PORT`."""

from __future__ import annotations

import sys
import threading

from agent_worker.agents.local import llama, weights

if __name__ == "__main__":
    xllamacpp = llama()
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.n_ctx = 2048
    params.n_parallel = 1
    params.verbosity = -1
    params.cpuparams.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = int(sys.argv[1])
    server = xllamacpp.Server(params)
    threading.Event().wait()
