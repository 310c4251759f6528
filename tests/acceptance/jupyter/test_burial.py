"""When a request whose session has died is answered: when the kernel runs again, and no sooner; at once, if it does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from capsule.config import NodeConfig
from capsule.jupyter.connection import Connection
from capsule.jupyter.inputs import Inputs
from capsule.jupyter.shell import Common, Shell
from capsule.jupyter.sockets import Sockets
from capsule.node.node import Node
from tests.acceptance.jupyter.support import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.node.session import Session

pytestmark = pytest.mark.anyio
SPIN = "print('on', flush=True)\nwhile True: pass"


class Answered(Sockets):
    """The sockets of a kernel, which also note what is answered."""

    def __init__(self) -> None:
        super().__init__("k", Connection(), {"shell": _ignore, "control": _ignore, "stdin": _ignore})
        self.replies: list[tuple[str, str]] = []
        self.told: set[str] = set()

    def reply(
        self, channel: str, kind: str, content: dict[str, Any], parent: dict[str, Any], to: list[bytes], **more: Any
    ) -> None:
        self.replies.append((parent["msg_id"], content["status"]))
        super().reply(channel, kind, content, parent, to, **more)

    def publish(self, kind: str, content: dict[str, Any], parent: dict[str, Any], **more: Any) -> None:
        self.told.add(kind)
        super().publish(kind, content, parent, **more)


def _ignore(_to: list[bytes], _message: dict[str, Any]) -> None:
    """Nobody says anything on the sockets."""


class Rig:
    """A shell with a session, of which the test is the kernel."""

    def __init__(self, node: Node) -> None:
        self.sockets = Answered()
        self.common = Common(lambda: self.sockets, Inputs(), lambda _: {})
        self.common.inputs.sockets = self.sockets
        self.shell = Shell(self.common)
        self.running = asyncio.ensure_future(self.shell.run())
        self.node = node

    async def begin(self) -> Session:
        session = await self.node.open_session()
        self.shell.begin(session)
        return session

    def ask(self, name: str, code: str) -> None:
        header = {"msg_id": name, "msg_type": "execute_request", "session": "s", "username": "u"}
        content = {"code": code, "silent": False, "stop_on_error": True}
        self.shell.take([b"somebody"], {"header": header, "content": content, "metadata": {}, "buffers": []})

    def say(self, kind: str, **content: Any) -> None:
        header = {"msg_id": kind, "msg_type": kind, "session": "s", "username": "u"}
        self.shell.take([b"somebody"], {"header": header, "content": content, "metadata": {}, "buffers": []})

    async def until_running(self) -> None:
        while "stream" not in self.sockets.told:
            await asyncio.sleep(0)

    async def until_buried(self, number: int) -> None:
        """Until so many wait for the kernel, or have been answered though it is dead."""
        while len(self.common.dead) + len(self.sockets.replies) < number:
            await asyncio.sleep(0)

    async def until_answered(self, number: int) -> None:
        while len(self.sockets.replies) < number:
            await asyncio.sleep(0)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with Node(NodeConfig()) as node:
        made = Rig(node)
        try:
            with anyio.fail_after(LONG):
                yield made
        finally:
            made.running.cancel()
            await asyncio.wait([made.running])
            await made.sockets.close()


async def test_what_the_kernel_died_of_is_answered_when_it_runs_again() -> None:
    """The verdict is there before anybody has told the shell that its session is over."""
    async with rig() as made:
        await made.begin()
        made.ask("deadly", "import os; os._exit(1)")
        made.ask("behind", "1")
        await made.until_buried(2)
        assert made.sockets.replies == []
        await made.begin()
        assert made.sockets.replies == [("deadly", "error"), ("behind", "error")]
        assert made.common.dead == []


async def test_what_ran_when_the_session_was_closed_is_answered_when_the_next_one_is_there() -> None:
    async with rig() as made:
        session = await made.begin()
        made.ask("ran", SPIN)
        made.ask("behind", "1")
        await made.until_running()
        made.shell.end()
        await session.close()
        await made.until_buried(2)
        assert made.sockets.replies == [("behind", "aborted")]  # it had not begun
        await made.begin()
        assert made.sockets.replies[1:] == [("ran", "error")]


async def test_a_verdict_that_comes_when_the_kernel_runs_again_already_is_answered_at_once() -> None:
    async with rig() as made:
        session = await made.begin()
        made.ask("ran", SPIN)
        await made.until_running()
        made.shell.end()
        await made.begin()
        await session.close()
        await made.until_answered(1)
        assert made.sockets.replies == [("ran", "error")]
        assert made.common.dead == []
        made.ask("next", "1")
        await made.until_answered(2)
        assert made.sockets.replies[1] == ("next", "ok")


async def test_a_comm_whose_handler_ends_the_worker_is_buried_as_code_is() -> None:
    async with rig() as made:
        await made.begin()
        target = "def opened(comm, message):\n    import os; os._exit(1)"
        made.ask("target", f"{target}\nget_ipython().kernel.comm_manager.register_target('t', opened)")
        made.say("comm_open", comm_id="c", target_name="t")
        made.ask("behind", "1")
        await made.until_buried(3)
        assert [request.kind for request, _ in made.common.dead] == ["comm_open", "execute_request"]
        await made.begin()
        assert made.sockets.replies == [("target", "ok"), ("behind", "error")]


async def test_a_comm_that_is_opened_without_a_target_tells_of_the_error_of_who_heard_it() -> None:
    async with rig() as made:
        await made.begin()
        made.ask("target", "get_ipython().kernel.comm_manager.register_target('', lambda *_: 1 / 0)")
        made.say("comm_open", comm_id="c")
        made.ask("behind", "1")
        await made.until_answered(2)
        assert "stream" in made.sockets.told
