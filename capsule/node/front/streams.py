"""The streams of one connection: files on their way in and out, each a task that keeps to the credit."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Protocol

from capsule.node.transfers.outgoing import CHUNK
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import ArgumentError, CapsuleError, LocalProtocolError, SessionError
from capsule_protocol.messages.base import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.tasks import Tasks
    from capsule.node.transfers import Download, Upload
    from capsule_protocol.envelope import Buffer

logger = logging.getLogger("capsule.front")

WINDOW: Final = 8 * CHUNK
"""Bytes of an upload that may be on their way, or wait for the disk."""
OPEN_TIMEOUT: Final = 3600.0
"""Seconds within which a client opens the stream that it asked for: it may have to read much of a file first."""


class Carrier(Protocol):
    """What streams need of their connection."""

    @property
    def gone(self) -> bool:
        """Whether it is over."""

    @property
    def message_bytes(self) -> int:
        """How large a message may be."""

    @property
    def open_streams(self) -> int:
        """How many streams one of the ends has not closed."""

    def transmit(self, envelope: Envelope) -> None:
        """Send a message."""

    def credit(self, stream: str) -> int:
        """How many bytes this end may still send."""


class _Stream:
    """What both directions have in common. `session` is whose file it is."""

    def __init__(self, carrier: Carrier, name: str, session: str) -> None:
        self.session = session
        self.task: asyncio.Task[None] | None = None
        self._carrier = carrier
        self._name = name
        self._changed = asyncio.Event()
        self._opened = False
        self._left = False
        """The client wants, or sends, no more of it."""
        self._ended = False
        """The session has no worker, or not for this client."""

    async def run(self) -> None:
        """Move it to its end, and say how that was."""
        try:
            body = {"error": None, "metadata": await self._move()}
        except LocalProtocolError as breach:
            logger.info("a stream ended with its connection: %s", breach)
            return
        except Exception as error:  # noqa: BLE001 - the client is told, and what is ours is logged
            reason = _reason(error)
            self.fail()
            body = {"error": Failure.of(reason).model_dump(), "metadata": {}}
        if self._opened:
            with suppress(LocalProtocolError):  # the link has closed
                self._say("stream_close", body)

    def fail(self) -> None:
        """What was moved is of no use."""

    def let_go(self) -> None:
        """Hold nothing any more; whatever it was that ended it."""
        raise NotImplementedError

    def on_session_end(self) -> None:
        """There is nothing more to be had."""
        self._ended = True
        self._changed.set()

    def on_credit(self) -> None:
        """There is more credit."""
        self._changed.set()

    def on_data(self, buffers: tuple[Buffer, ...]) -> None:
        """Bytes came; only into an upload."""

    def on_close(self, metadata: dict[str, Any], *, whole: bool) -> None:  # noqa: ARG002 - for an upload
        """The client is done with it."""
        self._left = True
        self._changed.set()

    async def _move(self) -> dict[str, Any]:
        raise NotImplementedError

    def _say(self, kind: str, body: dict[str, Any], buffers: tuple[Buffer, ...] = ()) -> None:
        if not self._carrier.gone:
            body = {"stream": self._name, **body}
            self._carrier.transmit(Envelope(kind, body, session=self.session, buffers=buffers))

    async def _change(self) -> None:
        await self._changed.wait()
        self._changed.clear()
        self._check_session()

    def _check_session(self) -> None:
        if self._ended:
            raise SessionError("session_dead", "the session's worker has ended, or another client has the session now")


class _In(_Stream):
    """An upload."""

    def __init__(self, carrier: Carrier, name: str, session: str, upload: Upload) -> None:
        super().__init__(carrier, name, session)
        self._upload = upload
        self._offset: int | None = None
        self._chunks: deque[Buffer] = deque()
        self._digest: str | None = None

    def on_open(self, metadata: dict[str, Any]) -> None:
        """The client begins, at an offset of its choice."""
        offset = metadata.get("offset", 0)
        self._offset = offset if type(offset) is int else -1
        self._opened = True
        self._changed.set()

    def on_data(self, buffers: tuple[Buffer, ...]) -> None:
        """Bytes came, as many as there was credit for."""
        self._chunks.extend(buffers)
        self._changed.set()

    def on_close(self, metadata: dict[str, Any], *, whole: bool) -> None:
        """All is there, and this is its digest; or no more comes, and what is there is kept."""
        self._digest = str(metadata.get("digest", "")) if whole else None
        super().on_close(metadata, whole=whole)

    async def _move(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                while self._offset is None:
                    await self._change()
        except TimeoutError:
            raise SessionError("transfer_failed", f"nobody opened the stream within {OPEN_TIMEOUT:g} s") from None
        await self._upload.begin(self._offset)
        self._say("stream_credit", {"size": WINDOW})
        while not self._left or self._chunks:
            if not self._chunks:
                await self._change()
                continue
            self._check_session()
            chunk = self._chunks.popleft()  # one by one: the client sends the next while the disk has this one
            await self._upload.write([chunk])
            size = memoryview(chunk).nbytes
            if size:
                self._say("stream_credit", {"size": size})
        if self._digest is None:
            self._upload.abandon()  # before the client hears of it: it may ask again at once
            return {}
        return asdict(await self._upload.finish(self._digest))

    def fail(self) -> None:
        """Leave nothing of it."""
        self._upload.discard()

    def let_go(self) -> None:
        """Another attempt may go on, unless it is done, or failed."""
        self._upload.abandon()


class _Out(_Stream):
    """A download."""

    def __init__(self, carrier: Carrier, name: str, session: str, download: Download) -> None:
        super().__init__(carrier, name, session)
        self._download = download

    async def _move(self) -> dict[str, Any]:
        self._say("stream_open", {"metadata": {}})
        self._opened = True
        largest = min(CHUNK, self._carrier.message_bytes // 2)
        while not self._left:
            credit = 0 if self._download.over else self._carrier.credit(self._name)
            if not credit and not self._download.over:
                await self._change()
                continue
            self._check_session()
            data = await self._download.read(min(credit, largest))
            if not data:
                break
            self._say("stream_data", {}, (data,))
        return {"digest": self._download.digest}

    def let_go(self) -> None:
        """Close the file."""
        self._download.close()


def _reason(error: Exception) -> CapsuleError:
    if isinstance(error, CapsuleError):
        return error
    logger.error("a transfer failed", exc_info=error)
    return SessionError("internal_error", "the transfer failed in the node; see its log")


class Streams:
    """Those of one connection."""

    def __init__(self, carrier: Carrier, tasks: Tasks) -> None:
        self._carrier = carrier
        self._tasks = tasks
        self._streams: dict[str, _Stream] = {}
        self._fewer = asyncio.Event()
        self.handlers: dict[str, Callable[[Any, Envelope], None]] = {
            "stream_open": self._on_open,
            "stream_data": self._on_data,
            "stream_credit": self._on_credit,
            "stream_close": self._on_close,
        }

    def take_in(self, stream: str, session: str, upload: Upload) -> None:
        """The client is about to open this stream."""
        self._start(stream, _In(self._carrier, stream, session, upload), upload)

    def give_out(self, stream: str, session: str, download: Download) -> None:
        """Open this stream."""
        self._start(stream, _Out(self._carrier, stream, session, download), download)

    def check_free(self, stream: str) -> None:
        """Raise ArgumentError if there is a stream of this name."""
        if not stream or stream in self._streams:
            raise ArgumentError("stream", f"{stream[:64]!r} is in use, or empty", allowed="a name of its own")

    async def settled(self) -> None:
        """Wait until no file is on its way: the client closes a download when it has all of it."""
        while not self._carrier.gone and (self._streams or self._carrier.open_streams):
            self._fewer.clear()
            await self._fewer.wait()

    def lose(self) -> None:
        """The connection is over."""
        self._fewer.set()
        for stream in list(self._streams.values()):
            if stream.task is not None:
                stream.task.cancel()
            stream.let_go()  # now: its client may ask again at once

    def leave(self, session: str) -> None:
        """The connection has no part in this session any more."""
        for stream in list(self._streams.values()):
            if stream.session == session:
                stream.on_session_end()

    def _start(self, name: str, stream: _Stream, transfer: Upload | Download) -> None:
        if self._carrier.gone or name in self._streams:
            stream.let_go()
            self.check_free(name)
            return
        self._streams[name] = stream
        transfer.on_closed = stream.on_session_end
        stream.task = self._tasks.start(stream.run())

        def done(_task: asyncio.Task[None]) -> None:
            self._streams.pop(name, None)
            stream.let_go()
            self._fewer.set()

        stream.task.add_done_callback(done)

    def _on_open(self, message: Any, envelope: Envelope) -> None:
        stream = self._streams.get(message.stream)
        if isinstance(stream, _In):
            stream.on_open(message.metadata)
            return
        error = SessionError("transfer_failed", "nobody has asked for this stream, or not in time")
        body = {"stream": message.stream, "error": Failure.of(error).model_dump(), "metadata": {}}
        self._carrier.transmit(Envelope("stream_close", body, session=envelope.session))

    def _on_data(self, message: Any, envelope: Envelope) -> None:
        stream = self._streams.get(message.stream)
        if stream is not None:  # else it was on its way when this end closed the stream
            stream.on_data(envelope.buffers)

    def _on_credit(self, message: Any, _envelope: Envelope) -> None:
        stream = self._streams.get(message.stream)
        if stream is not None:
            stream.on_credit()

    def _on_close(self, message: Any, _envelope: Envelope) -> None:
        stream = self._streams.get(message.stream)
        if stream is not None:
            stream.on_close(message.metadata, whole=message.error is None)
        self._fewer.set()
