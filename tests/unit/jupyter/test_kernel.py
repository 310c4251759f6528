"""A kernel in the node's own process, and what befalls its session meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from capsule.config import NodeConfig, SessionOptions
from capsule.jupyter.connection import Connection
from capsule.jupyter.kernel import Kernel
from capsule.node.front.front import Front
from capsule.node.front.inside import InsideNode
from capsule.node.node import Node
from capsule.settings.service import ServeConfig
from capsule_bridge import Bridge, SqliteStore
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import WorkerLost

pytestmark = pytest.mark.anyio

LONG = 60.0


async def test_a_worker_that_dies_while_its_session_is_written_down_is_no_kernel(tmp_path: Path) -> None:
    loop, opened, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def fault(at: FaultPoint) -> None:
        if at == "before_commit" and not go_on.is_set():
            loop.call_soon_threadsafe(opened.set)
            go_on.wait(LONG)

    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process", fault=fault))
    async with Node(NodeConfig(), bridge=bridge) as node:
        front = Front(node, ServeConfig(), bridge)
        kernel = Kernel("k", InsideNode(front), Connection())
        starting = asyncio.ensure_future(kernel.start(SessionOptions()))
        await asyncio.wait_for(opened.wait(), LONG)
        (session,) = node.sessions.values()
        dead = asyncio.Event()
        session.on_state = lambda state, _reason: dead.set() if state == "dead" else None
        os.kill(session.info().pid, signal.SIGKILL)
        await asyncio.wait_for(dead.wait(), LONG)
        go_on.set()
        with pytest.raises(WorkerLost) as caught:
            await starting
        assert caught.value.code == "worker_lost"
        assert not kernel.alive
        assert len(front.registry) == 0
        await kernel.close()
        await front.close()
    await bridge.close()


async def test_a_signal_for_a_worker_that_is_being_replaced_does_not_reach_the_node() -> None:
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, heard.set)  # others of the process group ignore it
    async with Node(NodeConfig()) as node:
        front = Front(node, ServeConfig())
        kernel = Kernel("k", InsideNode(front), Connection())
        await kernel.start(SessionOptions())
        (hosted,) = front.registry
        restarting = asyncio.ensure_future(front.registry.restart(hosted))
        while hosted.session.info().pid:
            await asyncio.sleep(0)
        kernel.signal(signal.SIGWINCH)
        await restarting
        assert not heard.is_set()
        await kernel.close()
        await front.close()
    loop.remove_signal_handler(signal.SIGWINCH)
