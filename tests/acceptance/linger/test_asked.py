"""What a node had asked of a worker when it was killed: the answer is nobody's, and the next node may ask the same."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from capsule_protocol.errors import CapsuleError
from tests.acceptance.linger.shells import names, opened, run, succession
from tests.acceptance.linger.test_service import home

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["home"]
pytestmark = pytest.mark.anyio

SLOW = """
import threading
asked, go = threading.Event(), threading.Event()
class Slow:
    def __repr__(self):
        asked.set()
        go.wait()
        return "looked at"
slow = Slow()
"""


async def code_of(question: asyncio.Future[dict[str, Any]]) -> str:
    with pytest.raises(CapsuleError) as caught:
        await question
    return caught.value.code


async def test_a_debugger_asks_again(home: Path) -> None:
    """The debugger answers in order, so what the dead node is owed comes before what the next one asks."""
    async with succession(home) as nodes:
        inner = nodes.inner
        request = {"type": "request", "seq": 1, "command": "inspectVariables"}
        assert (await run(inner, SLOW)).verdict == "ok"
        lost = asyncio.ensure_future(inner.ask("debug", {"request": request}))
        assert (await run(inner, "asked.wait()")).verdict == "ok"
        nodes.restart()
        assert await code_of(lost) == "connection_lost"  # it might have been a step, which is not to be made twice
        again = asyncio.ensure_future(inner.ask("debug", {"request": request}))
        assert (await run(inner, "go.set()")).verdict == "ok"
        response = (await again)["response"]
        assert (response["request_seq"], response["success"]) == (1, True)
        assert "looked at" in {one["value"] for one in response["body"]["variables"]}
        assert (await run(inner, "'still there'")).text == "'still there'"
        assert nodes.session.epoch == 1


@pytest.mark.parametrize("action", ["open", "close"])
async def test_a_subshell_is_opened_or_closed_once(home: Path, action: str) -> None:
    """The worker stands still when it is asked, so that it answers when the node is dead.

    To open one is asked for again, by its name, and answered; to close one is not.
    """
    async with succession(home) as nodes:
        inner = nodes.inner
        body = {"action": action, "subshell": await opened(inner) if action == "close" else ""}
        pid = (await nodes.session.info()).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            lost = asyncio.ensure_future(inner.ask("subshell", body))
            await asyncio.sleep(0)
            await nodes.client.info()  # what was said before that has been passed on
            nodes.kill()
        finally:
            os.kill(pid, signal.SIGCONT)
        nodes.start()
        if action == "open":
            assert await names(inner) == [(await lost)["subshell"]]
        else:
            assert await code_of(lost) == "connection_lost"
            assert await names(inner) == []  # done by the worker all the same
        name = await opened(inner)
        assert (await run(inner, "6 * 7", subshell=name)).text == "42"
        await inner.ask("subshell", {"action": "close", "subshell": name})
        assert len(await names(inner)) == (1 if action == "open" else 0)
        assert nodes.session.epoch == 1
