"""xllamacpp's own HTTP server, with the parameters that this service gives the same library."""

import os
import signal

import xllamacpp

SLOTS = int(os.environ["BENCH_SLOTS"])

params = xllamacpp.CommonParams()
params.model.path = os.environ["BENCH_GGUF"]
params.n_parallel = SLOTS
params.n_ctx = int(os.environ["BENCH_CONTEXT"]) * SLOTS
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(os.environ["BENCH_THREADS"])
params.cache_ram_mib = 0
params.verbosity = -1
params.ui = False
params.endpoint_slots = False
params.port = int(os.environ["BENCH_PORT"])

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before the server makes its threads
server = xllamacpp.Server(params)
print(f"listens at {server.listening_address}", flush=True)
signal.sigwait({signal.SIGTERM})
