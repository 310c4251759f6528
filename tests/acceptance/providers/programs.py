"""A caller of `shell` under scopes that are easy to say, and the processes that a call has left."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from capsule.providers.shell import provider
from capsule_protocol.program_output import split
from tests.acceptance.providers.calls import Caller
from tests.unit.kernels.forked import open_descriptors, opened_since

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.providers.shell.provider import ShellProvider

PYTHON = os.path.realpath(sys.executable)
LEVELS = ("none", "landlock", "namespaces")
SHELL = {"sh": {"path": "/bin/sh", "shell_string": True}}
SCRIPTS = {"python": {"path": PYTHON, "args": [["-c", "{text}", {"args": "{text}", "max": 99, "dash": True}]]}}


class Ran(NamedTuple):
    """How a program ended, and what it wrote."""

    value: Any
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode().strip()


class Shell:
    """Runs programs under one scope."""

    def __init__(self, provider: ShellProvider, scope: dict[str, Any], **caller: Any) -> None:
        self.provider = provider
        self.call = Caller(provider, scope, **caller)

    async def run(self, args: list[str] | str, data: Any = b"", **fields: Any) -> Ran:
        answer = await self.call("run", data, args=args, **fields)
        return Ran(answer.value, *split(answer.data))


@asynccontextmanager
async def shell(programs: dict[str, Any] | None = None, *, sandbox: str = "none", **scope: Any) -> AsyncIterator[Shell]:
    """A provider of its own, stopped at the end, with every descriptor closed that it has opened."""
    before = open_descriptors()
    made = provider()
    try:
        yield Shell(made, {"programs": SHELL | SCRIPTS if programs is None else programs, "sandbox": sandbox, **scope})
    finally:
        await made.stop()
    assert not opened_since(before)


def marked(word: str) -> list[int]:
    """Processes that have the word on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if word in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def appears(path: Path) -> str:
    """Wait until a program has written the file."""
    from asyncinotify import Inotify, Mask

    with Inotify() as watch:
        watch.add_watch(path.parent, Mask.CLOSE_WRITE | Mask.MOVED_TO)
        while not path.exists() or not path.stat().st_size:
            async with asyncio.timeout(30):
                await watch.get()
    return path.read_text()
