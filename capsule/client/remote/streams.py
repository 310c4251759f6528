"""Files on their way to and from a session at a node elsewhere, by streams of its link."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from capsule.node.info import FileInfo
from capsule_protocol.errors import CapsuleError, LocalProtocolError, NodeError
from capsule_protocol.ids import new_id
from capsule_protocol.messages.base import Failure

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from capsule_protocol.envelope import Buffer, Envelope

WINDOW: Final = 4 * 2**20
"""Bytes of a download that may be on their way, or wait for the disk."""
STALL_TIMEOUT: Final = 60.0
"""Seconds that a node may take for one step of a transfer."""
STREAM: Final = "t_"


class Wires(Protocol):
    """What streams ask of the link."""

    def say(self, kind: str, body: dict[str, Any], session: str, buffers: tuple[Buffer, ...] = ()) -> None:
        """Send on the connection that there is; if there is none, nothing."""

    def credit(self, stream: str) -> int:
        """How many bytes this end may still send."""


class Ask(Protocol):
    """A request of the session's, for this connection only."""

    def __call__(self, kind: str, body: dict[str, Any], /) -> Coroutine[Any, Any, dict[str, Any]]:
        """Send it, and wait for the answer."""


class Streams:
    """The streams of a link. They end with the connection; whoever moves a file then begins another one."""

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self._open: dict[str, RemoteTransfer] = {}

    def add(self, transfer: RemoteTransfer) -> None:
        """It waits for messages from now on."""
        self._open[transfer.stream] = transfer

    def remove(self, transfer: RemoteTransfer) -> None:
        """It is over."""
        self._open.pop(transfer.stream, None)

    def take(self, message: Any, envelope: Envelope) -> None:
        """A message of a stream."""
        transfer = self._open.get(message.stream)
        if transfer is not None:
            transfer.take(message, envelope)
        elif envelope.type == "stream_open":  # whoever asked for it has left
            self.wires.say("stream_close", {"stream": message.stream, "error": None, "metadata": {}}, envelope.session)

    async def settled(self, session: str, name: str) -> None:
        """Wait until the node has heard that this client left off to send a file: a request would overtake that."""
        for transfer in list(self._open.values()):
            if isinstance(transfer, RemoteUpload) and transfer.is_leaving(session, name):
                await transfer.over()

    def lose(self, error: CapsuleError) -> None:
        """The connection is gone."""
        for transfer in list(self._open.values()):
            transfer.fail(error)
        self._open.clear()


class RemoteTransfer:
    """What uploads and downloads have in common."""

    def __init__(self, streams: Streams, session: str) -> None:
        self.stream = new_id(STREAM)
        self._streams = streams
        self._session = session
        self._opened = False
        self._closed = False
        self._ended: dict[str, Any] | None = None
        self._error: CapsuleError | None = None
        self._changed = asyncio.Event()
        streams.add(self)

    def take(self, message: Any, envelope: Envelope) -> None:
        """A message of the stream."""
        if envelope.type == "stream_close":
            if message.error is not None:
                self._error = CapsuleError.from_dict(message.error.model_dump())
            self._ended = message.metadata
            self._streams.remove(self)
        self._changed.set()

    def fail(self, error: CapsuleError) -> None:
        """Nothing comes any more."""
        self._error = self._error or error
        self._closed = True
        self._changed.set()

    def forget(self) -> None:
        """The node has refused it."""
        self._closed = True
        self._streams.remove(self)

    def decline(self) -> None:
        """Nobody wants what the node offers."""
        self._close()

    def _close(self, error: CapsuleError | None = None, **metadata: Any) -> None:
        """Say that this end is done, once."""
        if not self._closed and self._opened:
            self._closed = True
            body = {"error": Failure.of(error).model_dump() if error else None, "metadata": metadata}
            with suppress(LocalProtocolError):  # the link has closed
                self._say("stream_close", body)
        self._closed = True
        if self._ended is not None or not self._opened:
            self._streams.remove(self)

    def _say(self, kind: str, body: dict[str, Any], buffers: tuple[Buffer, ...] = ()) -> None:
        self._streams.wires.say(kind, {"stream": self.stream, **body}, self._session, buffers)

    async def _change(self) -> None:
        """Wait until something has happened. Raises what ended the stream."""
        if self._error is not None:
            self._close()
            raise self._error
        try:
            async with asyncio.timeout(STALL_TIMEOUT):
                await self._changed.wait()
        except TimeoutError:
            message = f"the transfer has not moved for {STALL_TIMEOUT:g} s"
            if self._closed:  # all of it was sent
                message += "; whether the file is in its place is not known"
            # What is not whole is not kept.
            raise CapsuleError("request_timeout", message, retryable=not self._closed) from None
        self._changed.clear()
        if self._error is not None:
            self._close()
            raise self._error


class RemoteUpload(RemoteTransfer):
    """What `capsule.node.transfers.Upload` is to the client."""

    offset = 0
    digest = ""

    def __init__(self, streams: Streams, session: str, name: str) -> None:
        super().__init__(streams, session)
        self._name = name

    def is_leaving(self, session: str, name: str) -> bool:
        """Whether it is one of this file, which this end has closed and the node has not."""
        return self._closed and (self._session, self._name) == (session, name)

    async def over(self) -> None:
        """Wait until the node has closed it too, or never will."""
        with suppress(CapsuleError):
            while self._ended is None:
                await self._change()

    def offered(self, reply: dict[str, Any]) -> None:
        """What the node has of it."""
        self.offset, self.digest = reply["offset"], reply["digest"]

    async def begin(self, offset: int) -> None:
        """Go on at the offset that was offered, or at 0."""
        if self._error is not None:
            raise self._error
        self._opened = True
        self._say("stream_open", {"metadata": {"offset": offset}})

    async def write(self, chunks: Sequence[Buffer]) -> None:
        """Send bytes, when the node takes them. Raises what it says, NodeError."""
        for chunk in chunks:
            left = memoryview(chunk).cast("B")
            while left:
                credit = min(len(left), self._streams.wires.credit(self.stream))
                if credit and self._error is None:
                    self._say("stream_data", {}, (left[:credit],))
                    left = left[credit:]
                else:
                    await self._change()

    async def finish(self, digest: str) -> FileInfo:
        """All is sent: wait until it is in its place."""
        self._close(digest=digest)
        while self._ended is None:
            await self._change()
        if self._error is not None:
            raise self._error
        return FileInfo(**self._ended)

    def decline(self) -> None:
        """Nobody will send it."""
        if self._error is None:
            self._opened = True
            with suppress(LocalProtocolError):  # the link has closed
                self._say("stream_open", {"metadata": {"offset": self.offset}})
                self.abandon()

    def abandon(self) -> None:
        """Interrupted; another attempt may go on. Idempotent."""
        if not (self._opened or self._closed):  # the node waits for it
            self.decline()
        self._close(NodeError("connection_lost", "the client has interrupted the transfer"))


class RemoteDownload(RemoteTransfer):
    """What `capsule.node.transfers.Download` is to the client."""

    offset = 0
    size = 0
    modified = 0.0

    def __init__(self, streams: Streams, session: str) -> None:
        super().__init__(streams, session)
        self._chunks: deque[Buffer] = deque()

    @property
    def digest(self) -> str:
        """Of the whole, when all has been read."""
        return str((self._ended or {}).get("digest", ""))

    def offered(self, reply: dict[str, Any]) -> None:
        """Where it begins, and what it is."""
        self.offset, self.size, self.modified = reply["offset"], reply["size"], reply["modified"]

    def take(self, message: Any, envelope: Envelope) -> None:
        """A message of the stream."""
        if envelope.type == "stream_open" and not self._closed:
            self._opened = True
            self._say("stream_credit", {"size": WINDOW})
        elif envelope.type == "stream_data":
            self._chunks.extend(envelope.buffers)
        super().take(message, envelope)

    async def read(self) -> Buffer:
        """The next bytes, none at the end. Raises what the node says, NodeError."""
        while not self._chunks:
            if self._ended is not None and self._error is None:
                self._close()
                return b""
            await self._change()
        data = self._chunks.popleft()
        size = memoryview(data).nbytes
        if self._ended is None and not self._closed and size:
            self._say("stream_credit", {"size": size})
        return data

    def close(self) -> None:
        """No more is wanted. Idempotent."""
        self._chunks.clear()
        self._close()


class RemoteFiles:
    """What `capsule.node.transfers.SessionFiles` is to the client."""

    def __init__(
        self, streams: Streams, session: str, ask: Ask, place: Literal["files", "checkpoints"] = "files"
    ) -> None:
        self._streams = streams
        self._session = session
        self._ask = ask
        self._place = place

    async def list(self) -> list[FileInfo]:
        """What files there are."""
        return [FileInfo(**entry) for entry in (await self._ask("files", {}))["entries"]]

    async def upload(self, name: str) -> RemoteUpload:
        """Begin to send a file."""
        await self._streams.settled(self._session, name)
        upload = RemoteUpload(self._streams, self._session, name)
        await self._offer(upload, "upload", {"stream": upload.stream, "name": name, "place": self._place})
        return upload

    async def download(self, name: str, offset: int = 0, digest: str = "") -> RemoteDownload:
        """Begin to get a file."""
        download = RemoteDownload(self._streams, self._session)
        body = {"stream": download.stream, "name": name, "offset": offset, "digest": digest, "place": self._place}
        await self._offer(download, "download", body)
        return download

    async def _offer(self, transfer: RemoteUpload | RemoteDownload, kind: str, body: dict[str, Any]) -> None:
        asking = asyncio.ensure_future(self._ask(kind, body))
        try:
            transfer.offered(await asyncio.shield(asking))
        except asyncio.CancelledError:
            asking.add_done_callback(partial(_decline, transfer))
            raise
        except BaseException:
            transfer.forget()
            raise


def _decline(transfer: RemoteTransfer, asking: asyncio.Task[dict[str, Any]]) -> None:
    """Whoever asked has left: the node need not wait for the stream."""
    if not asking.cancelled() and asking.exception() is None:
        transfer.decline()
    else:
        transfer.forget()
