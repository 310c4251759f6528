"""What the tests of transfers have in common."""

from __future__ import annotations

import ast
import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_protocol.envelope import Envelope
from capsule_protocol.ids import EXECUTION, new_id
from tests.acceptance.serve.support import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from capsule import AsyncSession
    from tests.acceptance.serve.support import Served

MIB = 2**20


class Leave(Exception):
    """Raised by a test to interrupt a transfer."""


async def value(session: AsyncSession, code: str) -> Any:
    result = await session.run(code)
    result.raise_for_error()
    return ast.literal_eval(result.text)


async def directory(session: AsyncSession) -> Path:
    """The session's own, seen from here: tests run on the node's machine."""
    return Path(await value(session, "import os; os.environ['SESSION_FILES']"))


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def content(size: int) -> bytes:
    """Bytes that differ from one another, always the same."""
    return random.Random(size).randbytes(size)


def leave_at(limit: int, seen: list[int]) -> Callable[[int, int | None], None]:
    """A callback that notes how far a transfer is, and interrupts it there."""

    def progress(done: int, _total: int | None) -> None:
        seen.append(done)
        if done >= limit:
            raise Leave

    return progress


class Raw:
    """A client that has a session, and says what a test likes."""

    def __init__(self, line: RawClient) -> None:
        self.line = line
        self.session = ""

    async def say(self, kind: str, body: dict[str, Any], *buffers: bytes) -> None:
        await self.line.send(Envelope(kind, body, "m_1", self.session, buffers=buffers))

    async def hear(self, *kinds: str) -> Envelope:
        """The next message of one of these types."""
        while (envelope := await self.line.receive()).type not in kinds:
            pass
        return envelope

    async def ask(self, kind: str, body: dict[str, Any]) -> Envelope:
        await self.say(kind, body)
        return await self.hear("ready", f"{kind}_reply", "error")

    async def run(self, code: str) -> None:
        """Run code that ends well."""
        await self.line.send(Envelope("execute", {"code": code}, "", self.session, new_id(EXECUTION)))
        assert (await self.hear("result", "error")).type == "result"


@asynccontextmanager
async def greeted(served: Served) -> AsyncIterator[Raw]:
    """One that the node has let in, without a session."""
    with RawClient(served.address) as line:
        raw = Raw(line)
        await raw.say("hello", {"versions": ["1.0"], "role": "client", "client": "c_raw"})
        await raw.hear("welcome")
        yield raw
