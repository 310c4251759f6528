"""A network that fails in every way at once: a proxy that does something else to each connection, as its seed says."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("slow", "cut", "drop", "mute", "held", "late")
"""What becomes of a connection.

`slow`: in small pieces, each after a pause, then cut. `cut`: in mid-message. `drop`: at once. `mute`: it stays open and
carries nothing any more. `held`: nothing of it arrives until a later one was answered. `late`: its client loses it, and
the last that the client said arrives when a later one was answered.
"""
LONGEST_PAUSE = 0.003
"""Seconds that a piece is held up."""
LARGEST_CUT = 30_000
"""Bytes after which something happens, at most."""


@dataclass(frozen=True)
class Fault:
    """One connection's fate: what happens, and after how many bytes to the node and to the client."""

    kind: str
    up: int
    down: int


class FaultyProxy:
    """Stands between clients and a node from `async with` on; `heal` lets all later connections pass."""

    def __init__(self, directory: Path, target: str, seed: int) -> None:
        self.path = directory / "faulty.sock"
        self.address = f"ipc://{self.path}"
        self.fates: Counter[str] = Counter()
        self._target = target.removeprefix("ipc://")
        self._chance = random.Random(seed)
        self._healed = False
        self._number = 0
        self._answered = 0
        self._later = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    def heal(self) -> None:
        self._healed = True

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._connected, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._has_answered(sys.maxsize)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = "pass" if self._healed else self._chance.choice(KINDS)
        fault = Fault(kind, self._chance.randrange(1, LARGEST_CUT // 10), self._chance.randrange(1, LARGEST_CUT))
        self.fates[kind] += 1
        self._number += 1
        number = self._number
        if kind == "drop":
            self._abort(writer)
            return
        there, to = await asyncio.open_unix_connection(self._target)
        self._writers.add(to)
        up = asyncio.ensure_future(self._up(fault, number, reader, to))
        down = asyncio.ensure_future(self._down(fault, number, there, writer))
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        self._abort(writer)
        if kind != "late":
            self._abort(to)
        await up
        self._abort(to)
        await down

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._writers.discard(writer)

    async def _up(self, fault: Fault, number: int, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        """What the client says."""
        passed = 0
        with suppress(OSError):
            while data := await reader.read(65_536):
                if fault.kind == "held" or (fault.kind == "late" and passed + len(data) > fault.up):
                    await self._overtaken(number)
                elif fault.kind == "mute" and passed > fault.up:
                    continue
                elif fault.kind == "cut" and passed + len(data) > fault.up:
                    to.write(data[: fault.up - passed])
                    return
                await self._pass(fault, data, to)
                passed += len(data)

    async def _down(self, fault: Fault, number: int, there: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        """What the node answers."""
        left = fault.down
        with suppress(OSError):
            while data := await there.read(65_536):
                if fault.kind in {"slow", "cut", "late"} and len(data) > left:
                    to.write(data[:left])
                    await to.drain()
                    return
                if fault.kind == "mute" and left < 0:
                    continue
                left -= len(data)
                await self._pass(fault, data, to)
                await self._has_answered(number)

    async def _pass(self, fault: Fault, data: bytes, to: asyncio.StreamWriter) -> None:
        size = self._chance.randrange(1, 2000) if fault.kind == "slow" else len(data)
        for at in range(0, len(data), size):
            if fault.kind == "slow":
                await asyncio.sleep(self._chance.uniform(0, LONGEST_PAUSE))  # the fault itself
            to.write(data[at : at + size])
            await to.drain()

    async def _has_answered(self, number: int) -> None:
        if number > self._answered:
            async with self._later:
                self._answered = number
                self._later.notify_all()

    async def _overtaken(self, number: int) -> None:
        is_overtaken: Callable[[], bool] = lambda: self._answered > number  # noqa: E731 - reads as what it waits for
        async with self._later:
            await self._later.wait_for(is_overtaken)
