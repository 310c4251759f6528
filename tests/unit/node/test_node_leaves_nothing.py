"""A node leaves no process, no descriptor and no directory. In a module of its own: no other node is alive here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from capsule.node.node import Node
from capsule.node.session import ExecuteRequest
from capsule_protocol.errors import SessionError
from tests.unit.kernels.forked import open_descriptors
from tests.unit.node.support import assert_nothing_more, run, state_of_this_process

pytestmark = pytest.mark.anyio


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No descriptor, child process or directory more than before."""
    before = state_of_this_process()
    yield
    assert_nothing_more(before)


async def test_a_closed_node_has_left_nothing(nothing_left: None) -> None:
    async with Node() as node:
        sessions = [await node.open_session() for _ in range(2)]
        assert set(node.sessions) == {session.id for session in sessions}
        await run(sessions[0], "import subprocess; child = subprocess.Popen(['sleep', '1000'])")
        sessions[1].submit(ExecuteRequest("while True: pass"))
    assert dict(node.sessions) == {}
    await node.close()
    with pytest.raises(SessionError) as caught:
        await node.open_session()
    assert caught.value.code == "node_closed"


def inheritable() -> set[int]:
    """The descriptors that a program would have which this process runs without closing them."""
    return {number for number in open_descriptors() if os.get_inheritable(number)}


async def test_no_program_that_the_process_runs_inherits_anything_of_its_node() -> None:
    """In library mode it is the client's process, which may run any."""
    before = inheritable()
    async with Node() as node:
        await node.open_session()
        assert inheritable() == before


async def test_a_node_that_was_never_used_closes(nothing_left: None) -> None:
    await Node().close()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_caller_that_is_cancelled_while_it_opens_leaves_nothing(turns: int, nothing_left: None) -> None:
    async with Node() as node:
        await node.prepare()
        opening = asyncio.ensure_future(node.open_session())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            await opening.result().close()
        assert dict(node.sessions) == {}


async def test_a_node_that_closes_while_it_opens_leaves_nothing(nothing_left: None) -> None:
    node = Node()
    opening = asyncio.ensure_future(node.open_session())
    await asyncio.sleep(0)
    await node.close()
    with pytest.raises(SessionError):
        await opening
