"""Imports what tests of the worker's inside need, once; then forks for each test a process that may do all it likes."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import sys
import traceback
from typing import Any

import pytest  # noqa: F401  # the test modules import it: once here, not in each fork

from capsule_kernels import worker
from capsule_kernels.recognised import notebook_environment

PATIENCE = 60.0
"""Seconds after which a test that hangs shows where it hangs, and fails."""


def serve() -> None:
    """A line with module, function and arguments in; a line with what went wrong, or "", out."""
    notebook_environment(os.environ)
    worker.preload()
    _render_a_traceback()  # the first one imports a lot
    for line in sys.stdin:
        request = json.loads(line)
        module = importlib.import_module(request["module"])
        body = getattr(module, request["function"]).__wrapped__
        gc.freeze()  # a collection in a child would copy every page
        print(json.dumps(_forked(body, request["arguments"])), flush=True)


def _render_a_traceback() -> None:
    assert worker._shell is not None
    try:
        raise LookupError
    except LookupError as error:
        worker._shell.traceback_lines(error)


def _forked(body: Any, arguments: dict[str, Any]) -> str:
    report, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report)
        _child(body, arguments, told)
    os.close(told)
    with os.fdopen(report) as stream:
        problem = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return problem or ("" if status == 0 else f"the process of the test ended with {status}")


def _child(body: Any, arguments: dict[str, Any], told: int) -> None:
    os.dup2(2, 1)  # the server's answers are not for the test's output
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=told)
    try:
        body(**arguments)
    except BaseException:
        os.write(told, traceback.format_exc().encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve()
