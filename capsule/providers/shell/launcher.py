"""The node's side of the launcher: a process that forks what runs programs, so that the node never forks itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
import anyio.to_thread
import msgpack

from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

_MESSAGE_BYTES = 64 * 1024
_INHERITED = ("LD_LIBRARY_PATH",)
"""For its interpreter; programs have an environment of their own."""
_GONE_WITHIN = 60.0
"""Seconds for a run or the launcher to end when it has been let go; longer only if the system holds up a process."""


class Lease:
    """The node's end of one run: as long as it is open the run may go on."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ended = False

    async def receive(self) -> dict[str, Any] | None:
        """What the keeper says next; None when it has gone."""
        while not self._ended:
            try:
                data = self._sock.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                continue
            except ConnectionResetError:  # it has left something unread: told once, before what it has said itself
                continue
            except OSError:
                data = b""
            if data:
                message: dict[str, Any] = msgpack.unpackb(data)
                return message
            self._ended = True
        return None

    def drop(self, stream: str) -> None:
        """Have the keeper throw away what is still written to the stream."""
        with suppress(OSError):  # it is gone
            self._sock.send(msgpack.packb({"op": "drop", "stream": stream}))

    def let_go(self) -> None:
        """Have what is left of the run killed."""
        with suppress(OSError):  # it is gone
            self._sock.shutdown(socket.SHUT_WR)

    async def end(self) -> None:
        """Let go: what is left of the run is killed. Returns when nothing is."""
        with anyio.move_on_after(_GONE_WITHIN, shield=True):
            self.let_go()
            while await self.receive() is not None:
                pass
        self._sock.close()  # and what the system holds up till now, the keeper kills when it lets go


class Launcher:
    """One process for all runs of a provider, started when the first one is asked for and again if it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._directories: list[str] = []
        self._leases: WeakSet[Lease] = WeakSet()
        self._starting = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._preparing: asyncio.Future[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    async def launch(self, message: dict[str, Any], descriptors: Sequence[int]) -> Lease:
        """Have a run started. Raises CapabilityFailed `provider_unavailable` if that cannot even be asked for."""
        packed = msgpack.packb(message)
        try:
            try:
                return await self._ask(packed, descriptors)
            except ConnectionError:  # it was killed since: this run has not reached it
                async with self._starting:
                    await self._close()
                return await self._ask(packed, descriptors)
        except OSError as error:
            why = f"no program can be started: {error.strerror or error}"
            raise CapabilityFailed("provider_unavailable", why) from error

    async def _ask(self, packed: bytes, descriptors: Sequence[int]) -> Lease:
        sock = await self._ready()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                ours.settimeout(0.0)
                await self._send(sock, packed, [theirs.fileno(), *descriptors])
            except BaseException:
                ours.close()
                raise
        lease = Lease(ours)
        self._leases.add(lease)
        return lease

    async def _send(self, sock: socket.socket, packed: bytes, descriptors: Sequence[int]) -> None:
        async with self._sending:
            while True:
                try:
                    socket.send_fds(sock, [packed], list(descriptors))
                    return
                except BlockingIOError:
                    await anyio.wait_writable(sock)

    async def _ready(self) -> socket.socket:
        """Whoever waits for it may be cancelled: the start goes on, or a process would be left that nobody knows of."""
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.ensure_future(self._prepare())
            self._preparing.add_done_callback(_look)
        await asyncio.shield(self._preparing)
        assert self._sock is not None
        return self._sock

    async def _prepare(self) -> None:
        async with self._starting:
            if self._sock is None or self._process is None or self._process.poll() is not None:
                await self._close()
                await anyio.to_thread.run_sync(self._start)

    def _start(self) -> None:
        directory = tempfile.mkdtemp(prefix="capsule-shell-")
        self._directories.append(directory)
        os.chmod(directory, 0o711)  # noqa: PTH101, S103 (programs of other users reach their own directory in it)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = _launcher(theirs, directory)
            except BaseException:
                ours.close()
                raise
        ours.settimeout(0.0)
        self._sock = ours

    async def stop(self) -> None:
        """End the launcher, and with it every run. Idempotent."""
        if self._preparing is not None:
            await asyncio.wait([self._preparing])
        for lease in list(self._leases):
            lease.let_go()
        async with self._starting:
            await self._close()
            while self._directories:  # the launcher has done it, unless it was killed
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_remove, self._directories.pop())

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._sock is not None:
                self._sock.close()
                self._sock = None
            if self._process is not None:
                process, self._process = self._process, None
                await anyio.to_thread.run_sync(_bury, process)


def _look(preparing: asyncio.Future[None]) -> None:
    """Those who waited were told of its failure; if nobody did, the next one tries again."""
    if not preparing.cancelled():
        preparing.exception()


def _launcher(sock: socket.socket, directory: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "capsule_kernels.programs.launcher"]
    return subprocess.Popen(
        [*command, "--fd", str(sock.fileno()), "--directory", directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={name: os.environ[name] for name in _INHERITED if name in os.environ},
        pass_fds=[sock.fileno()],
        start_new_session=True,
    )


def _bury(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_GONE_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
