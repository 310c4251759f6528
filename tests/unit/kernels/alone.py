"""Runs a test in a process of its own: what it does to signals, streams and the shell, no other test sees."""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent


class Children:
    """A process that has imported the worker and forks a child for each test."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(_HERE / "children" / "alone_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**_environment(), "PYTHONPATH": str(_HERE.parents[2])},
        )

    def run(self, function: Callable[..., None], arguments: dict[str, Any]) -> None:
        """Call the test in a child; fails with the child's traceback."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {"module": _module(function), "function": function.__name__, "arguments": arguments}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        problem = json.loads(answer) if answer else "the server of the tests has died"
        if problem:
            pytest.fail(problem, pytrace=False)

    def close(self) -> None:
        """End the server."""
        with self._server as server:
            assert server.stdin is not None
            server.stdin.close()


def alone(function: Callable[..., None]) -> Callable[..., None]:
    """The test, run in a process of its own. Its arguments, by `parametrize`, must be plain values."""

    @functools.wraps(function)
    def test(alone_children: Children, **arguments: Any) -> None:
        alone_children.run(function, arguments)

    plain = inspect.signature(function)
    children = inspect.Parameter("alone_children", inspect.Parameter.KEYWORD_ONLY, annotation=Children)
    test.__signature__ = plain.replace(parameters=[*plain.parameters.values(), children])  # type: ignore[attr-defined]  # pytest reads it
    return test


def _module(function: Callable[..., None]) -> str:
    return f"tests.unit.kernels.{Path(inspect.getfile(function)).stem}"


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MPLBACKEND"))}
