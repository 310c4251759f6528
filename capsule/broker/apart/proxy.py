"""What stands in the node for a provider that runs in a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Any

from msgpack import packb, unpackb

from capsule.broker.apart.schemas import heard
from capsule.broker.sdk import Health, Schema
from capsule.stream import PeerBusyError, Stream
from capsule_protocol.errors import ArgumentError, CapabilityFailed, capability_error
from capsule_protocol.framing import NEED_DATA, FrameBuffer
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from capsule.broker.sdk import Call, Chunk, Descriptor, Services
    from capsule_protocol.errors import RemoteProtocolError

START_SECONDS = 60.0
"""Until the process has said what its provider is."""
GRACE = 5.0
"""Seconds that a call may take to end when it is given up; then the process is killed."""
WINDOW = 4 * 2**20
"""Bytes of an answer's body that may be on their way."""
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
"""Variables of the node that the process gets: no others, for some may be secret."""


class ApartProvider:
    """A `Provider`. Its process is started when it is made; if it dies, the next call starts another one."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._numbers = count(1)
        self._open: dict[int, _Open] = {}
        self._stream: Stream | None = None
        self._scopes: list[Any] = []
        self._connecting: asyncio.Future[None] | None = None
        self._process, self._sock, described = _spawn(origin)
        try:
            self._descriptor = heard(described)
        except (KeyError, TypeError, ValueError) as error:
            self._end()
            raise _refused(
                origin, f"describes itself in a way that is not understood ({type(error).__name__})"
            ) from None

    @property
    def descriptor(self) -> Descriptor:
        """As its process has told it."""
        return self._descriptor

    async def start(self, services: Services) -> None:  # noqa: ARG002  # it gets none of them
        """Begin to talk to it."""
        await self._connect()

    async def health(self) -> Health:
        """What it says, or that its process is gone."""
        try:
            answer = await self._ask({"op": "health"})
        except CapabilityFailed as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=bool(answer.get("ok")), detail=str(answer.get("detail", "")))

    async def stop(self) -> None:
        """End its process. Idempotent."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        await asyncio.to_thread(self._end)

    def check(self, scope: Any) -> None:
        """It is asked by `check_scope`, for which the node waits."""

    async def check_scope(self, scope: Any) -> None:
        """Have it look at the scope of a grant. Raises ArgumentError."""
        try:
            await self._ask({"op": "check", "scope": scope.model_dump(mode="json")})
        except CapabilityFailed as error:
            raise ArgumentError("scope", error.message, allowed="what the provider can serve") from error

    def admit(self, operation: str, request: Any, scope: Any) -> None:
        """Its own process looks, when it is called."""

    async def call(self, call: Call) -> Schema:
        """Have it done there. Raises CapabilityFailed `provider_unavailable` if its process ends meanwhile."""
        await self._connect()
        number = next(self._numbers)
        waiting = self._open[number] = _Open(asyncio.get_running_loop().create_future(), asyncio.Queue())
        self._send(
            {
                "op": "call",
                "id": number,
                "operation": call.operation,
                "request": call.request.model_dump_json(exclude_unset=True),
                "scope": call.scope.model_dump(mode="json"),
                "asker": asdict(call.asker),
                "key": call.key,
                "limits": asdict(call.limits),
                "window": WINDOW,
            }
        )
        bringing = asyncio.ensure_future(self._bring(number, call, waiting))
        bringing.add_done_callback(waiting.brought)
        try:
            value = await self._take(number, call, waiting)
        finally:
            bringing.cancel()
            await asyncio.wait([bringing])
            await self._give_up(number, waiting)
        return self._descriptor.operations[call.operation].response.model_validate(value)

    # --- inside ---

    async def _take(self, number: int, call: Call, waiting: _Open) -> dict[str, Any]:
        """Pass on the answer's body until there is the answer, or the request's body could not be brought."""
        while (pieces := await waiting.pieces.get()) is not None:
            for piece in pieces:
                await call.send(piece)
            self._send({"op": "credit", "id": number, "size": sum(map(len, pieces))})
        if waiting.error is not None:
            raise waiting.error
        return await waiting.answer

    async def _bring(self, number: int, call: Call, waiting: _Open) -> None:
        """Pass on the request's body, as it is asked for."""
        async for piece in call.body:
            rest = memoryview(piece)
            while rest:
                while waiting.wanted <= 0:
                    waiting.more.clear()
                    await waiting.more.wait()
                part, rest = rest[: waiting.wanted], rest[waiting.wanted :]
                waiting.wanted -= len(part)
                self._send({"op": "data", "id": number}, (part,))
        self._send({"op": "end", "id": number})

    async def _give_up(self, number: int, waiting: _Open) -> None:
        """If it is not over: have it ended, by force if need be."""
        if not waiting.answer.done():
            self._send({"op": "cancel", "id": number})
            _, late = await asyncio.wait([waiting.answer], timeout=GRACE)
            if late and self._process is not None and self._stream is not None:
                self._process.kill()
                await asyncio.wait([self._stream.disconnected], timeout=GRACE)  # the next call has a process of its own
        self._open.pop(number, None)
        if waiting.answer.done() and not waiting.answer.cancelled():
            waiting.answer.exception()

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._connect()
        return await self._answered(message)

    async def _answered(self, message: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        waiting = self._open[number] = _Open(asyncio.get_running_loop().create_future(), asyncio.Queue())
        self._send(message | {"id": number})
        try:
            async with asyncio.timeout(START_SECONDS):
                return await waiting.answer
        except TimeoutError:
            raise CapabilityFailed("provider_unavailable", f"the process of {self._origin} does not answer") from None
        finally:
            self._open.pop(number, None)

    async def _connect(self) -> None:
        """Talk to its process; to a new one if the last has died.

        Whoever waits may be cancelled: it goes on, or a process would be left that nobody knows of.
        """
        if self._connecting is None or self._connecting.done():
            if self._stream is not None and not self._stream.disconnected.done():
                return
            self._connecting = asyncio.ensure_future(self._begin())
            self._connecting.add_done_callback(_look)
        await asyncio.shield(self._connecting)

    async def _begin(self) -> None:
        if self._stream is not None:
            self._stream.close()
            await asyncio.to_thread(self._end)
            self._process, self._sock, described = await asyncio.to_thread(_spawn, self._origin)
            if heard(described).version != self._descriptor.version:
                await asyncio.to_thread(self._end)
                raise CapabilityFailed("provider_unavailable", f"{self._origin} has another version now")
        assert self._sock is not None
        self._stream = Stream(asyncio.get_running_loop(), self._sock, DEFAULT_LIMITS, self._hear, self._broken)
        self._stream.disconnected.add_done_callback(self._gone)
        self._stream.start()
        await self._answered({"op": "start"})

    def _hear(self, frames: list[bytes]) -> None:
        message: dict[str, Any] = unpackb(frames[0])
        waiting = self._open.get(message.get("id", 0))
        if waiting is None:
            return
        if message["op"] == "want":
            waiting.wanted += int(message["size"])
            waiting.more.set()
            return
        waiting.pieces.put_nowait(frames[1:])
        if message["op"] == "data":
            return
        waiting.pieces.put_nowait(None)
        if waiting.answer.done():
            return
        if message["op"] == "error":
            waiting.answer.set_exception(capability_error(str(message.get("outcome")), message["error"]))
        else:
            waiting.answer.set_result(message["value"])

    def _broken(self, error: RemoteProtocolError) -> None:  # noqa: ARG002  # that it erred is enough
        if self._process is not None:
            self._process.kill()

    def _gone(self, _: object) -> None:
        for waiting in self._open.values():
            if not waiting.answer.done():
                message = f"the process of {self._origin} has ended"
                waiting.answer.set_exception(CapabilityFailed("provider_unavailable", message))
            waiting.pieces.put_nowait(None)

    def _send(self, message: dict[str, Any], buffers: tuple[Chunk, ...] = ()) -> None:
        if self._stream is None or self._stream.closed:
            return
        try:
            self._stream.send([packb(message), *buffers])
        except PeerBusyError:
            if self._process is not None:
                self._process.kill()

    def kill(self) -> None:
        """End its process now, though nobody talks to it yet."""
        if self._process is not None:
            self._process.kill()
        self._end()

    def _end(self) -> None:
        """The process ends with its socket, or is killed."""
        process, self._process = self._process, None
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        if process is not None:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Open:
    """A question or a call that has no answer yet."""

    def __init__(self, answer: asyncio.Future[dict[str, Any]], pieces: asyncio.Queue[list[bytes] | None]) -> None:
        self.answer = answer
        self.pieces = pieces
        self.wanted = 0
        self.more = asyncio.Event()
        self.error: BaseException | None = None

    def brought(self, bringing: asyncio.Future[None]) -> None:
        """The request's body has been brought, or could not be: then the call fails with that."""
        self.error = None if bringing.cancelled() else bringing.exception()
        if self.error is not None:
            self.pieces.put_nowait(None)


def _look(connecting: asyncio.Future[None]) -> None:
    """Those who waited were told of its failure; if nobody did, the next one tries again."""
    if not connecting.cancelled():
        connecting.exception()


def _spawn(origin: str) -> tuple[subprocess.Popen[bytes] | None, socket.socket | None, dict[str, Any]]:
    """Start the process, and hear what its provider is. Raises ArgumentError `provider_refused`."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "capsule.broker.apart.host", "--fd", str(theirs.fileno()), origin],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    try:
        described = _described(ours, origin)
    except BaseException:
        ours.close()
        process.kill()
        process.wait()
        raise
    return process, ours, described


def _environment() -> dict[str, str]:
    """Its modules are found where the node finds them."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _described(sock: socket.socket, origin: str) -> dict[str, Any]:
    sock.settimeout(START_SECONDS)
    buffer = FrameBuffer(DEFAULT_LIMITS)
    while (frames := buffer.next_message()) is NEED_DATA:
        try:
            data = sock.recv(2**16)
        except OSError:
            data = b""
        if not data:
            raise _refused(origin, "its process has ended, or does not say what it is")
        buffer.feed(data)
    described = unpackb(frames[0])
    if not isinstance(described, dict) or "error" in described:
        raise _refused(origin, f"cannot be loaded: {described.get('error') if isinstance(described, dict) else ''}")
    return described


def _refused(origin: str, message: str) -> ArgumentError:
    return ArgumentError(origin, message, code="provider_refused")
