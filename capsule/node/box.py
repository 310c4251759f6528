"""The node's side of a box: the lease that keeps it alive and what is told over it."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from capsule.node.resources import no_descriptor, pid_of
from capsule.node.scratch import Scratch
from capsule_protocol.errors import WorkerLost
from capsule_protocol.passing import receive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MESSAGE_BYTES = 64 * 1024
_EXPECT = msgpack.packb({"op": "expect"})
_END = msgpack.packb({"op": "end"})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a worker ended: by a code or a signal; neither is known if its box was killed before it.

    `exceeded` is the bound for which the box killed it: "memory", "processes", or "" for none.
    """

    code: int | None = None
    signal: int | None = None
    exceeded: str = ""

    def __str__(self) -> str:
        if self.exceeded:
            return "out of memory" if self.exceeded == "memory" else f"too many {self.exceeded}"
        if self.signal is not None:
            return f"signal {self.signal}"
        return "unknown" if self.code is None else f"exit code {self.code}"


class Box:
    """A worker and all its descendants; they live until the worker ends or the box is closed.

    The descriptors are closed and `worker_pidfd` is -1 when the box is gone. Whoever closes a box waits for `gone()`.
    """

    def __init__(self, pid: int, lease: socket.socket, directory: str) -> None:
        self.pid = pid
        self.worker_pid = 0
        self.worker_pidfd = -1
        self.scratch = Scratch(directory)
        self.sandbox = ""
        """The level that the worker says it is in, once it is bound."""
        self._directory = directory
        self._lease = lease
        self._lingers = False
        self._short = False  # a descriptor was sent, and there is none to be had for it here
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[str] = self._loop.create_future()
        self._bound: asyncio.Future[bool] = self._loop.create_future()
        self._unavailable: dict[str, str] | None = None
        self._kept: asyncio.Future[bool] = self._loop.create_future()
        self._exited: asyncio.Future[ExitStatus] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(lease, self._on_lease)

    @classmethod
    async def open(cls, pid: int, lease: socket.socket, directory: str) -> Box:
        """The box at the other end of the lease, once its worker runs.

        Raises WorkerLost if it cannot start one, SessionError `descriptors_exhausted` if this end cannot have it.
        """
        box = cls(pid, lease, directory)
        try:
            failure = await box._started
        except BaseException:
            box.release()
            raise
        if failure:
            box.release()
            if box._short:
                raise no_descriptor()
            raise WorkerLost("worker_start_failed", f"the worker could not be started: {failure}")
        return box

    @classmethod
    def adopted(cls, pid: int, lease: socket.socket, directory: str, worker: tuple[int, int]) -> Box:
        """A box that another node has left: `worker` is the process id and the pidfd, which it owns from here on."""
        box = cls(pid, lease, directory)
        box.worker_pid, box.worker_pidfd = worker
        box._lingers = True
        _resolve(box._started, "")
        _resolve(box._bound, value=True)
        return box

    async def bound(self) -> None:
        """Wait until the worker listens in its directory, and is in its sandbox; WorkerLost if it ends before."""
        if not await asyncio.shield(self._bound):
            status = await self.exited()
            if self._unavailable is not None:
                message, hint = self._unavailable["message"], self._unavailable["hint"]
                raise WorkerLost("sandbox_unavailable", message, hint=hint or None)
            raise WorkerLost("worker_start_failed", f"the worker ended while it started: {status}")

    @property
    def directory(self) -> Path:
        """Where its sockets and the session's files are."""
        return Path(self._directory)

    def signal_worker(self, number: int) -> bool:
        """Send the worker a signal; False if it has ended."""
        if self.worker_pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.worker_pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def has_worker(self) -> bool:
        """Whether the worker lives, also if the box has not told of its end yet."""
        if self.worker_pidfd < 0 or self._exited.done():
            return False
        ended = select.poll()
        ended.register(self.worker_pidfd, select.POLLIN)
        return not ended.poll(0)

    def interrupt_children(self, serial: int) -> None:
        """Send SIGINT to the processes that the execution has started, if it is the one that runs."""
        with suppress(OSError):  # the box is gone, and they with it
            self._lease.send(msgpack.packb({"op": "children_interrupt", "serial": serial}))

    def limit(self, *, memory_bytes: int | None = None, max_processes: int | None = None) -> None:
        """Bound what the worker and its descendants may hold, and how many they may be."""
        bounds = {"memory_bytes": memory_bytes, "max_processes": max_processes}
        with suppress(OSError):  # it is gone
            self._lease.send(msgpack.packb({"op": "limit", **bounds}))

    def expect(self) -> None:
        """Code is about to run: have the box look soon whether the tree is within its limits."""
        with suppress(OSError):  # it is gone
            self._lease.send(_EXPECT)

    async def linger(self, told: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Let the box outlive this node, until it is closed: see `capsule_kernels.heritage`. WorkerLost if it ends."""
        self._lingers = True
        with suppress(OSError):  # it is gone
            socket.send_fds(self._lease, [msgpack.packb({"op": "linger", **told})], list(descriptors))
        if not await asyncio.shield(self._kept):
            raise WorkerLost("worker_lost", "the worker ended when its session was open", retryable=True)

    def kill(self) -> None:
        """Kill the worker; the box then kills what it leaves. Works also while the box itself is held up."""
        self.signal_worker(signal.SIGKILL)

    async def exited(self) -> ExitStatus:
        """Wait for the end of the worker."""
        return await asyncio.shield(self._exited)

    async def gone(self) -> None:
        """Wait until no process and no file of the box is left."""
        await asyncio.shield(self._gone)

    def close(self) -> None:
        """Let go of the box: its whole tree is killed. What it tells of its end is still heard."""
        with suppress(OSError):  # it is gone, or so far behind that it has to wait out its time
            if self._lingers:
                self._lease.send(_END)
        with suppress(OSError):
            self._lease.shutdown(socket.SHUT_WR)

    def _on_lease(self) -> None:
        while True:
            try:
                data, descriptors, short = receive(self._lease, _MESSAGE_BYTES, 4)
                self._short = self._short or short
            except BlockingIOError:
                return
            except ConnectionResetError:  # it has left something unread: told once, before what it has said itself
                continue
            except OSError:
                data, descriptors = b"", []
            try:
                over = not data or not self._take(msgpack.unpackb(data), descriptors)
            except (ValueError, LookupError, TypeError):
                over = True  # no box speaks like that
            for descriptor in descriptors:
                if descriptor != self.worker_pidfd:
                    os.close(descriptor)
            if over:
                self._on_end()
                return

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> bool:
        """Act on a message; False if it was the last."""
        if "worker" in message and not self._started.done():
            try:
                self.worker_pid = pid_of(descriptors[0])  # what the box says is its number in the box
            except OSError:  # to look takes a descriptor
                self._short = True
                return False
            self.worker_pidfd = descriptors[0]
            _resolve(self._started, "")
        elif "error" in message:
            _resolve(self._started, f"{message['error']['name']}: {message['error']['message']}")
        elif "bound" in message:
            self.sandbox = message["bound"]
            if descriptors:
                self.scratch = Scratch(self._directory, descriptors.pop())
            _resolve(self._bound, value=True)
        elif "unavailable" in message:
            self._unavailable = message["unavailable"]
        elif "lingers" in message:
            _resolve(self._kept, value=True)
        elif "exit" in message:
            self._set_exit(message["exit"], message["exceeded"])
        return "gone" not in message

    def _set_exit(self, status: int, exceeded: str) -> None:
        ended = ExitStatus(status) if status >= 0 else ExitStatus(signal=-status)
        _resolve(self._bound, value=False)
        _resolve(self._kept, value=False)
        _resolve(self._exited, replace(ended, exceeded=exceeded))

    def _on_end(self) -> None:
        """The box has gone: in order if it told so, else the kernel is killing its worker."""
        self._loop.remove_reader(self._lease)
        self._lease.close()
        _resolve(self._started, "its box ended")
        if self._exited.done() or self.worker_pidfd < 0:
            self._on_gone()
        else:
            self.kill()
            self._loop.add_reader(self.worker_pidfd, self._on_gone)

    def _on_gone(self) -> None:
        self.release()
        shutil.rmtree(self._directory, ignore_errors=True)  # the box has done it, unless it was killed
        _resolve(self._bound, value=False)
        _resolve(self._kept, value=False)
        _resolve(self._exited, ExitStatus())
        _resolve(self._gone, None)

    def release(self) -> None:
        """Close all descriptors; if that is before the box's end, it ends the box. Idempotent."""
        self.scratch.close()
        if self._lease.fileno() >= 0:
            self._loop.remove_reader(self._lease)
            self._lease.close()
        if self.worker_pidfd >= 0:
            self._loop.remove_reader(self.worker_pidfd)
            os.close(self.worker_pidfd)
            self.worker_pidfd = -1


def _resolve(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)
