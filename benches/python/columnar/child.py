"""A process that has the inputs of one workload in the memory of one system, and runs it when it is told to.

It begins with a line of JSON that names its variants. Then it runs the variant that a line on the standard input names,
and says in a line how long that took and what the answer is. What a system prints itself goes to the standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import import_module
from time import perf_counter
from typing import Any

from columnar.answers import Program


def main() -> None:
    system, workload, inputs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=out, flush=True)

    programs: dict[str, Program] = import_module(f"columnar.{system}").programs(workload, inputs)
    say({"variants": list(programs)})
    for line in sys.stdin:
        program = programs[line.rstrip("\n")]
        gc.collect()
        begin = perf_counter()
        answer = program.run()
        seconds = perf_counter() - begin
        say({"seconds": seconds, "answer": program.digest(answer)})


if __name__ == "__main__":
    main()
