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
    """`%capsule info`, `namespace` and `output`; `summary` answers what the namespace holds."""

    def __init__(self, shell: ZMQInteractiveShell, summary: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._shell = shell
        self._summary = summary
        self._opened: dict[str, Any] = {}
        shell.register_magic_function(self.run, "line", "capsule")

    def open(self, session: str, body: dict[str, Any]) -> None:
        """The node has said whose worker this is, and for what."""
        self._opened = {name: body[name] for name in ("name", "environment", "epoch") if name in body} | {"id": session}

    def run(self, line: str) -> None:
        """`%capsule info`: this session and how others reach it. `%capsule namespace`: its variables.

        `%capsule output 5`: what cell 5 has shown, in a notebook; without a number, the cell before this one.
        """
        asked, _, rest = line.strip().partition(" ")
        if asked == "output":
            self._show_again(rest.strip())
        elif rest:
            raise UsageError(f"%capsule {asked} takes nothing more: {rest.strip()!r} is not understood.")
        elif asked == "info":
            _print(self._info())
        elif asked == "namespace":
            told = self._summary({})
            _print(map(_variable, told["entries"]))
            if told["truncated"]:
                print(f"and {told['truncated']} more")
        else:
            raise UsageError(
                f"%capsule does not know {asked!r}. Write %capsule info, %capsule namespace or %capsule output."
            )

    def _show_again(self, number: str) -> None:
        """The front has what cells have shown; it does what it is asked for when this cell has ended."""
        if number and not (number.isascii() and number.isdigit() and int(number[:9]) > 0 and len(number) < 10):
            raise UsageError(f"%capsule output takes the number of a cell, such as 5, not {number!r}.")
        asked = {"source": "capsule_output", "number": int(number or 0)}
        if not self._shell.payloads.offer(asked, single=False):
            raise UsageError("%capsule output is for notebooks: other clients have the output of what they ran.")

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
