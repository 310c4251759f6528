"""The node's side of a zygote: start one for an environment, have it fork boxes, and never leave one behind."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from capsule.node.box import Box, ExitStatus
from capsule.node.groups import remove_groups
from capsule.node.leases import lease_pair
from capsule.node.resources import box_parent, is_shortage, no_descriptor, remove_directory
from capsule_protocol.errors import EnvironmentFailed, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Box", "ExitStatus", "Zygote"]

_MESSAGE_BYTES = 200 * 1024
_LAST_WORDS_BYTES = 8 * 1024

# What a process needs to find its programs, its home and its language. Nothing else of the node's environment goes into
# a zygote: a secret that was once in there can be read from its stack by every worker, whatever `os.environ` says.
_INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE"),
)
# A fork while a thread is inside BLAS hangs the parent for ever.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Zygote:
    """A process that has imported an environment's modules and forks boxes; boxes outlive it.

    `died` is set when the process has ended and was reaped. Whoever closes a zygote waits for that.
    """

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.pid = process.pid
        self.died = asyncio.Event()
        self._process = process
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._groups: list[str] = []  # where it makes control groups
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._sending = asyncio.Lock()
        self._room: asyncio.Future[None] = self._loop.create_future()  # in the socket, for who holds the lock
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._on_death)
        self._loop.add_reader(connection, self._on_readable)

    @classmethod
    async def start(  # noqa: PLR0913 (it is what an environment says)
        cls,
        python: str | None = None,
        preload: Sequence[str] = (),
        path: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        *,
        directory: Path | None = None,
        worker: str | None = None,
        sandbox: Mapping[str, Any] | None = None,
        start_method: str = "fork",
    ) -> Zygote:
        """Start a zygote and wait until it has imported everything; EnvironmentFailed says why it could not.

        WorkerLost says that it was killed meanwhile, SessionError `descriptors_exhausted` that this process cannot have
        it. There is no time limit: cancel it. `directory` is where its boxes have theirs; `worker` names the function
        ("module:function") that workers run. `sandbox`: level, scratch_bytes, readable, uid. With `start_method`
        "spawn" it imports nothing: workers do.
        """
        setup: dict[str, Any] = {
            "op": "setup",
            "preload": list(preload),
            "path": list(path),
            "boxes": str(box_parent(directory)),
            "start_method": start_method,
        }
        if worker is not None:
            setup["worker"] = worker
        if sandbox is not None:
            setup["sandbox"] = dict(sandbox)
        interpreter = _interpreter(python)
        last_words = -1
        try:
            last_words = os.memfd_create("capsule-zygote")
            zygote = _launch(interpreter, setup, dict(env or {}), last_words)
            try:
                await zygote._imported(interpreter, last_words)  # noqa: SLF001 (its own instance)
            except BaseException:
                zygote._destroy()  # noqa: SLF001 (its own instance)
                raise
            return zygote
        except OSError as error:
            if is_shortage(error):
                raise no_descriptor() from error
            raise
        finally:
            if last_words >= 0:
                os.close(last_words)

    async def fork(self, spec: Mapping[str, Any], descriptors: Sequence[int]) -> Box:
        """A new box with a running worker; the descriptors are stdout, stderr and page, and stay the caller's too.

        `spec["dir"]` belongs to the box from here on: it is removed also if this fails (WorkerLost) or is cancelled.
        """
        ours, theirs = lease_pair()
        try:
            with theirs:
                reply = await self._ask({"op": "fork", "spec": dict(spec)}, [theirs.fileno(), *descriptors])
            return await Box.open(reply["pid"], ours, spec["dir"])
        except BaseException:
            ours.close()
            # If a box was forked all the same it finds its lease closed and removes what is there by then.
            remove_directory(spec["dir"])
            raise

    def close(self) -> None:
        """Let the zygote end; its boxes are not touched."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    async def _imported(self, interpreter: str, last_words: int) -> None:
        answer = await self._ready
        if answer.get("ok"):
            return
        status, error = self._process.poll(), answer["error"]
        if status == -signal.SIGKILL and not error["traceback"]:  # no module does that, and another one may live
            raise WorkerLost("worker_start_failed", "the zygote was killed while it imported the environment's modules")
        raise _preload_failed(interpreter, status, error, last_words)

    async def _ask(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        number = next(self._numbers)
        self._replies[number] = self._loop.create_future()
        try:
            async with self._sending:
                await self._send(msgpack.packb(request | {"id": number}), descriptors)
            reply = await self._replies[number]
        finally:
            del self._replies[number]
        if "error" in reply:
            error = reply["error"]
            raise WorkerLost("worker_start_failed", f"the zygote could not fork: {error['name']}: {error['message']}")
        return reply

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._connection, [data], list(descriptors))
                return
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise WorkerLost("worker_start_failed", "the zygote has ended") from error

    async def _writable(self) -> None:
        self._room = self._loop.create_future()
        self._loop.add_writer(self._connection, _resolve, self._room, None)
        try:
            await self._room
        finally:
            if not self.died.is_set():
                self._loop.remove_writer(self._connection)

    def _on_readable(self) -> None:
        while True:
            try:
                data = self._connection.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it has left something unread: told once, before what it has said itself
                continue
            except OSError:
                data = b""
            if not data:
                break
            self._take(msgpack.unpackb(data))
        # Without its connection it is of no use, whatever it is doing. It has not been reaped: the number is its own.
        self._loop.remove_reader(self._connection)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _take(self, message: dict[str, Any]) -> None:
        self._groups = message.get("groups", self._groups)
        reply = self._replies.get(message["id"]) if "id" in message else self._ready
        if reply is not None:  # else: whoever asked has been cancelled
            _resolve(reply, message)

    def _on_death(self) -> None:
        if self.died.is_set():
            return
        self._on_readable()  # its last words may be there still
        self._destroy()

    def _destroy(self) -> None:
        """Make an end of the process, at once, and of what belongs to it here."""
        if self.died.is_set():
            return
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        os.close(self._pidfd)
        self._connection.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        remove_groups(self._groups, self.pid)
        self.died.set()
        _resolve(self._room, None)
        for reply in (self._ready, *self._replies.values()):
            _resolve(reply, {"error": {"name": "ZygoteLost", "message": "it has ended", "traceback": ""}})


def _interpreter(python: str | None) -> str:
    """The zygote's working directory is another, so a path must not depend on it."""
    if python is None:
        return sys.executable
    return str(Path(python).expanduser().absolute()) if os.sep in python else python


def _launch(interpreter: str, setup: dict[str, Any], env: dict[str, str], last_words: int) -> Zygote:
    ours, theirs = lease_pair()
    with theirs:
        try:
            process = subprocess.Popen(
                [interpreter, "-P", "-m", "capsule_kernels.zygote", "--fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=last_words,
                stderr=last_words,
                cwd="/",
                env={name: os.environ[name] for name in _INHERITED if name in os.environ} | _ONE_THREAD | env,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            if is_shortage(error):
                raise
            message = f"the interpreter {interpreter} could not be started: {error.strerror or error}"
            raise EnvironmentFailed("environment_failed", message) from error
        try:
            zygote = Zygote(process, ours)
        except OSError:  # it has said nothing, and been told nothing
            ours.close()
            process.kill()
            process.wait()
            raise
        try:
            ours.send(msgpack.packb(setup))
            _kill_when_closed(theirs, process.pid)
        except BaseException:
            zygote._destroy()  # noqa: SLF001 (its own instance)
            raise
        return zygote


def _kill_when_closed(theirs: socket.socket, group: int) -> None:
    """Have the kernel kill the zygote's process group when the node's end closes, also while it imports.

    The setting belongs to the socket, not to this process. The kernel signals whatever arrives, not the end alone;
    nothing is sent before the zygote has answered and thereby switched it off.
    """
    fcntl.fcntl(theirs, fcntl.F_SETOWN, -group)
    fcntl.fcntl(theirs, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(theirs, fcntl.F_SETFL, fcntl.fcntl(theirs, fcntl.F_GETFL) | os.O_ASYNC)


def _preload_failed(interpreter: str, status: int | None, error: dict[str, str], last_words: int) -> EnvironmentFailed:
    if "code" in error:
        return EnvironmentFailed(error["code"], error["message"], hint=error["hint"])
    if error["traceback"]:
        message = f"the environment's modules could not be imported: {error['name']}: {error['message']}"
        details = {"traceback": error["traceback"]}
        return EnvironmentFailed("environment_failed", message, hint=error.get("hint"), details=details)
    size = os.fstat(last_words).st_size
    text = os.pread(last_words, _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES)).decode(errors="replace").strip()
    return EnvironmentFailed(
        "environment_failed",
        f"{interpreter} ended ({status}) before it was ready: {text.splitlines()[-1] if text else 'it said nothing'}",
        hint=f"{interpreter} must be Python 3.11 or later with Capsule installed.",
        details={"traceback": text},
    )


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
