"""A client of Jupyter that is killed: `python -P -m capsule_bench.jupyter_victim CONFIG`, where CONFIG is JSON."""

from __future__ import annotations

import json
import sys

from traitlets.config import Config

from capsule_bench.execute_ipykernel import kernel

PID = "__import__('os').getpid()"
HOLD = "print('running', flush=True); sum(range(10**13))"


def main() -> None:
    """Print the number of a kernel's process as soon as a C function holds it, then wait for the end."""
    with kernel(Config(json.loads(sys.argv[1]))) as running:
        pid = running.run(PID).text
        request = running.send(HOLD)
        while running.next_output()[:2] != (request, "stream"):
            pass
        print(pid, flush=True)
        running.drain(request)


if __name__ == "__main__":
    main()
