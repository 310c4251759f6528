"""A subshell that several ask for at once is taken back only when all of them have given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from capsule.config import NodeConfig
from capsule.node.node import Node
from capsule.node.subshells import Subshells
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.node.session import Session

pytestmark = pytest.mark.anyio

OPEN = {"action": "open", "subshell": "s"}


class Asked:
    """Where a subshell is told of: each question waits until the test answers it."""

    def __init__(self, session: Session) -> None:
        self.subshells = Subshells(session._lineup, session._dispatch, self)
        self.closed: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def acquainted(self) -> None: ...

    async def tell_subshell(self, action: str, name: str, timeout: float | None) -> None:  # noqa: ARG002 - as the session's
        if action == "close":
            self.closed.append(name)
            return
        self._waiting.append(asyncio.get_running_loop().create_future())
        await self._waiting[-1]

    async def open(self) -> tuple[asyncio.Future[dict[str, Any]], asyncio.Future[None]]:
        """Somebody asks for it: what he will get, and what answers him."""
        before = len(self._waiting)
        task = asyncio.ensure_future(self.subshells.answer(OPEN, None))
        while len(self._waiting) == before:
            await asyncio.sleep(0)
        return task, self._waiting[-1]


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with Node(NodeConfig()) as node:
        yield Asked(await node.open_session())


async def fails(one: tuple[asyncio.Future[dict[str, Any]], asyncio.Future[None]]) -> None:
    task, answer = one
    answer.set_exception(CapsuleError("request_timeout", "not answered"))
    with pytest.raises(CapsuleError, match="not answered"):
        await task


async def succeeds(one: tuple[asyncio.Future[dict[str, Any]], asyncio.Future[None]]) -> None:
    task, answer = one
    answer.set_result(None)
    assert (await task)["subshells"] == ["s"]


@pytest.mark.parametrize("turn", [1, -1])
async def test_it_stays_open_if_one_is_answered(asked: Asked, turn: int) -> None:
    given_up, waits = [await asked.open() for _ in range(2)][::turn]
    await fails(given_up)
    await succeeds(waits)
    assert asked.closed == []


async def test_it_stays_open_if_one_was_answered_already(asked: Asked) -> None:
    given_up, waits = await asked.open(), await asked.open()
    await succeeds(waits)
    await fails(given_up)
    await succeeds(await asked.open())
    assert asked.closed == []


async def test_it_is_taken_back_when_the_last_one_gives_up(asked: Asked) -> None:
    one, other = await asked.open(), await asked.open()
    await fails(one)
    assert asked.closed == []
    await fails(other)
    assert asked.closed == ["s"]
    await succeeds(await asked.open())


async def test_who_gives_up_the_one_before_does_not_take_back_the_next_of_its_name(asked: Asked) -> None:
    before = await asked.open()
    await asked.subshells.answer({"action": "close", "subshell": "s"}, None)
    now = await asked.open()
    await fails(before)
    await succeeds(now)
    assert asked.closed == ["s"]
