"""What a kernel's front holds back, with a bound that a test can reach."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
import zmq
from jupyter_client.session import Session

from capsule.config import NodeConfig, SessionOptions
from capsule.jupyter import shell
from capsule.jupyter.connection import Connection
from capsule.jupyter.kernel import Kernel
from capsule.node.node import Node
from tests.acceptance.jupyter.support import LONG

pytestmark = pytest.mark.anyio
REQUESTS = 30


async def test_no_more_requests_are_read_than_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for no subshell is answered as soon as it is read: here, when most of those before it are done."""
    monkeypatch.setattr(shell, "MAX_WAITING", 10)
    async with Node(NodeConfig()) as node:
        kernel = Kernel("k", node, Connection())
        await kernel.start(SessionOptions())
        order = await anyio.to_thread.run_sync(_ask, kernel.connection)
        await kernel.close()
    assert sorted(order) == list(range(REQUESTS + 1))
    assert order.index(REQUESTS) >= REQUESTS - 15


@pytest.mark.parametrize("how", ["delete", "restart"])
async def test_a_subshell_that_is_gone_leaves_no_task(how: str) -> None:
    async with Node(NodeConfig()) as node:
        kernel = Kernel("k", node, Connection())
        await kernel.start(SessionOptions())
        before = set(kernel._tasks._tasks)
        made = await kernel._subshells.answer("create_subshell_request", {})
        (task,) = set(kernel._tasks._tasks) - before
        if how == "delete":
            await kernel._subshells.answer("delete_subshell_request", {"subshell_id": made["subshell_id"]})
        else:
            await kernel.start(SessionOptions())
        with anyio.fail_after(LONG):
            await asyncio.wait([task])
        await kernel.close()


def _ask(connection: Connection) -> list[int]:
    """Keep the kernel busy, ask for more, and let it go on; the numbers of the requests, as they are answered."""
    session = Session(key=connection.key.encode())
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking, context.socket(zmq.DEALER) as control:
        for socket, channel in ((asking, "shell"), (control, "control")):
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(connection.address(channel))
        codes = ["while True: pass", *["1"] * (REQUESTS - 1)]
        sent = [session.msg("execute_request", {"code": code, "stop_on_error": False}) for code in codes]
        sent.append(session.msg("kernel_info_request"))
        sent[-1]["header"]["subshell_id"] = "nobody's"
        for message in sent:
            session.send(asking, message)
        while not asking.poll(10):  # the first may not have come yet when it is interrupted
            session.send(control, "interrupt_request", {})
            _receive(session, control)
        numbers = {message["header"]["msg_id"]: number for number, message in enumerate(sent)}
        return [numbers[_receive(session, asking)["parent_header"]["msg_id"]] for _ in sent]


def _receive(session: Session, socket: zmq.Socket[bytes]) -> dict[str, Any]:
    assert socket.poll(int(LONG * 1000))
    _, parts = session.feed_identities(socket.recv_multipart())
    message: dict[str, Any] = session.deserialize(parts)
    return message
