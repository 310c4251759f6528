"""The service: one node and its front, from start to the last signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from typing import TYPE_CHECKING

from capsule.node.adoption import Lingering, adoptable
from capsule.node.durable.household import Household
from capsule.node.durable.sharing import Share
from capsule.node.front.front import Front
from capsule.node.front.notify import notify
from capsule.node.node import Node
from capsule.node.sandboxing import check_sandboxes
from capsule.runtime import BOXES, SOCKET, lock, make_directory, node_name, runtime_directory, store_path
from capsule_bridge import Bridge, Leases, Retention, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from capsule.broker.broker import Reloaded
    from capsule.config import NodeConfig
    from capsule.node.durable import Ledger
    from capsule.node.front.monitor import Monitor
    from capsule.node.front.reloading import Reloading
    from capsule.node.tasks import Tasks


class Service:
    """Run it once. The first SIGTERM or SIGINT drains: no new work, what runs may end; the second ends it now.

    So it is also while the node drains by command: the first signal then changes nothing. With `reloading`, SIGHUP asks
    for it. With `idle` it also ends when it has had no Jupyter kernel for so many seconds.
    """

    def __init__(self, config: NodeConfig, reloading: Reloading | None = None, *, idle: float | None = None) -> None:
        self._config = config
        self._idle = idle
        self._directory = config.serve.directory or runtime_directory()
        self._reloading = reloading
        self._has_terminal = os.isatty(0)
        self._asked = asyncio.Event()
        self._signalled = False
        self._told_twice = asyncio.Event()

    async def run(self, on_ready: Callable[[Front], None]) -> None:
        """Serve until it is told to end. Raises NodeError if it cannot listen, EnvironmentFailed if it cannot fork."""
        _raise_limit()
        make_directory(self._directory)
        held = lock(self._directory)
        try:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            monitor = self._monitor()
            # Whoever starts us under nohup wants it to be ignored.
            if self._reloading is not None and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                loop.add_signal_handler(signal.SIGHUP, self._hang_up, self._reloading)
            async with (
                self._bridge() as bridge,
                self._node(monitor, bridge) as node,
            ):
                shared = bridge is not None and isinstance(bridge.store, Leases)
                name = node_name(self._directory) if shared else ""
                front = Front(node, self._config.serve, bridge, name)
                try:
                    await self._watch(front, monitor)
                    await self._serve(front, node, on_ready)
                finally:
                    await front.close()
                    if monitor is not None:
                        await monitor.close()
        finally:
            with contextlib.suppress(FileNotFoundError):
                (self._directory / SOCKET).unlink()
            with contextlib.suppress(OSError):  # if no box is left
                (self._directory / BOXES).rmdir()
            os.close(held)

    def stop(self) -> None:
        """A signal: first what runs may end, at the next one no more. Those who drain by command count for none."""
        if self._signalled:
            self._told_twice.set()
        self._signalled = True
        self._asked.set()

    @contextlib.asynccontextmanager
    async def _bridge(self) -> AsyncIterator[Bridge | None]:
        config = self._config.store
        if config.durability == "none":
            yield None
            return
        url = None if config.url is None else config.url.get_secret_value()
        token = None if config.token is None else config.token.get_secret_value()
        file = store_path(self._config)
        bridge = Bridge(open_store(config.durability, url or file, beside=file, token=token))
        try:
            yield bridge
        finally:
            await bridge.close()

    def _node(self, monitor: Monitor | None, bridge: Bridge | None) -> Node:
        """Its sessions outlive it only if what they do is written down. Raises NodeError for an unsafe directory."""
        seconds, lingering = self._config.serve.linger, None
        if seconds and bridge is not None:
            lingering = Lingering(seconds, self._directory / BOXES)
            make_directory(lingering.directory)
        on_pool_event = None if monitor is None else monitor.pools
        return Node(self._config, on_pool_event=on_pool_event, lingering=lingering, bridge=bridge)

    def _monitor(self) -> Monitor | None:
        if self._config.serve.http is None:
            return None
        from capsule.node.front.monitor import Monitor  # late: a service without one does not load the library

        return Monitor()

    async def _watch(self, front: Front, monitor: Monitor | None) -> None:
        """Before the first session can be had, so that whoever waits for the node sees it start."""
        if monitor is not None and self._config.serve.http is not None:
            front.http = await monitor.start(front, self._config.serve.http)

    def _hang_up(self, reloading: Reloading) -> None:
        """The signal comes also when the terminal that we were started in is closed: then it means the end."""
        if self._has_terminal and not os.isatty(0):
            self.stop()
        else:
            reloading.ask()

    async def _serve(self, front: Front, node: Node, on_ready: Callable[[Front], None]) -> None:
        if front.ledger is not None:  # first: boxes do not wait for long
            boxes = adoptable(self._directory / BOXES)
            household = Household(front.ledger, front.registry, node, lambda: self._config.serve)
            await self._join(front.ledger, household, front.tasks)
            await household.begin(boxes)
        await check_sandboxes(self._config.environments)
        await node.prepare()
        node.warm()  # nobody waits for it, so no code of the environment keeps the service from being ready
        if front.ledger is not None:
            front.tasks.start(front.ledger.keep_tidy(self._retention))
        for address in (f"ipc://{self._directory / SOCKET}", *self._config.serve.listen):
            front.listen(address)
        front.on_drain = self._asked.set
        async with self._kernels(front):
            on_ready(front)
            notify("READY=1")
            await self._reload_until_asked(front, node)
            notify("STOPPING=1")
            await self._drain(front)

    @contextlib.asynccontextmanager
    async def _kernels(self, front: Front) -> AsyncIterator[None]:
        """Take Jupyter kernels."""
        from capsule.jupyter.door import Door
        from capsule.node.front.inside import InsideNode

        door = Door(InsideNode(front), self._directory, idle=self._idle, on_idle=self._asked.set)
        try:
            await door.listen()
            yield
        finally:
            await door.close()

    async def _drain(self, front: Front) -> None:
        front.draining = True
        await self._unless_told_again(front.settled(), self._config.serve.drain_timeout)
        for hosted in front.registry:
            await hosted.session.interrupt()
        await self._unless_told_again(front.executed(), 1.0)

    async def _join(self, ledger: Ledger, household: Household, tasks: Tasks) -> None:
        """Be one of the nodes that share the store, if it is one that can be shared."""
        store = ledger.bridge.store
        if isinstance(store, Leases):
            share = Share(store, ledger.name, self._config.store.lease, self._config.serve.linger, tasks)
            await share.join()
            ledger.claims.lives = lambda: share.lives
            tasks.start(share.keep(household))

    def _retention(self) -> Retention:
        config = self._config.store
        return Retention(round(config.results * 1000), round(config.tombstones * 1000))

    async def _reload_until_asked(self, front: Front, node: Node) -> None:
        """Wait for the end. What fails in the reloading of a configuration, ends the service too: it is a bug."""
        if self._reloading is None:
            await self._asked.wait()
            return

        async def apply(config: NodeConfig) -> Reloaded | None:
            self._config = config
            front.config = config.serve
            return await node.configure(config)

        asked = asyncio.ensure_future(self._asked.wait())
        reloading = asyncio.ensure_future(self._reloading.run(self._config, apply))
        try:
            await asyncio.wait([asked, reloading], return_when=asyncio.FIRST_COMPLETED)
            if reloading.done():
                reloading.result()
        finally:
            asked.cancel()
            reloading.cancel()

    async def _unless_told_again(self, work: Coroutine[object, object, None], limit: float) -> None:
        waiting = asyncio.ensure_future(work)
        told = asyncio.ensure_future(self._told_twice.wait())
        try:
            await asyncio.wait([waiting, told], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, told):
                task.cancel()


def _raise_limit() -> None:
    """A session takes more than a dozen descriptors: use as many as the system allows. The process is ours alone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
