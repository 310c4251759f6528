"""`%capsule`: what a session tells of itself to who writes code in it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from capsule_kernels.memory import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule_kernels.shell import ZMQInteractiveShell

NODE = "CAPSULE_NODE"
"""The variable that says where the session's node is, if it is known to the session."""


class CapsuleMagic:
    """`%capsule info` and `%capsule namespace`; `summary` answers what the namespace holds."""

    def __init__(self, shell: ZMQInteractiveShell, summary: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._summary = summary
        self._opened: dict[str, Any] = {}
        shell.register_magic_function(self.run, "line", "capsule")

    def open(self, session: str, body: dict[str, Any]) -> None:
        """The node has said whose worker this is, and for what."""
        self._opened = {name: body[name] for name in ("name", "environment", "epoch") if name in body} | {"id": session}

    def run(self, line: str) -> None:
        """`%capsule info`: this session and how others reach it. `%capsule namespace`: its variables."""
        asked = line.strip()
        if asked == "info":
            _print(self._info())
        elif asked == "namespace":
            told = self._summary({})
            _print(map(_variable, told["entries"]))
            if told["truncated"]:
                print(f"and {told['truncated']} more")
        else:
            raise UsageError(f"%capsule does not know {asked!r}. Write %capsule info or %capsule namespace.")

    def _info(self) -> Iterable[tuple[str, ...]]:
        opened = self._opened
        name, session = opened.get("name") or opened["id"], opened["id"]
        yield "session", name if name == session else f"{name} ({session})"
        yield "environment", opened.get("environment", "default")
        yield "epoch", str(opened.get("epoch", 0))
        yield "process", f"{os.getpid()}, {platform.python_implementation()} {platform.python_version()}"
        yield "memory", f"{resident_bytes(os.getpid()) / 2**20:.0f} MiB"
        yield "directory", str(Path.cwd())
        node = os.environ.get(NODE)
        if node:
            yield "node", node
            yield "attach", f'capsule.Client("{node}").attach("{name}", watch=True)'


def _variable(entry: dict[str, Any]) -> tuple[str, ...]:
    shape = entry["shape"]
    size = "×".join(map(str, shape)) if shape else "" if entry["size"] is None else str(entry["size"])
    return entry["name"], entry["type"], size, entry["repr"].split("\n", 1)[0]


def _print(rows: Iterable[tuple[str, ...]]) -> None:
    """In columns; the last one is as long as it is."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())
