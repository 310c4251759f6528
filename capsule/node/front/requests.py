"""The requests of a client that take time: each is a task of its own, and has one answer."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from capsule.config import SessionOptions
from capsule.node.front.checkpoints import Checkpoints
from capsule.node.front.operations import Operations
from capsule.node.front.promises import Promises
from capsule.node.questions import ALLOWED as QUESTIONS
from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.node.auth.principals import Principal
    from capsule.node.front.desk import Desk
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.streams import Streams
    from capsule.node.front.watch import Watch
    from capsule.node.session import Session
    from capsule.node.transfers import SessionFiles
    from capsule_protocol.envelope import Buffer, Envelope

    Request = Callable[[Any, Envelope], Coroutine[Any, Any, None]]

logger = logging.getLogger("capsule.front")

AT_ONCE = frozenset({"cancel", "interrupt"})
"""Requests that do not wait for the loop's next turn."""
MAX_REQUESTS = 256
"""Requests of one connection that may be under way at once; executions are not among them."""


class Caller(Protocol):
    """What the requests need of their connection."""

    principal: Principal
    client: str
    gone: bool
    streams: Streams

    @property
    def owner(self) -> str:
        """To whom its sessions belong."""

    def session(self, session: str) -> Hosted:
        """A session that this connection reads. Raises SessionError."""

    def own(self, session: str) -> Hosted:
        """A session, by name or id, that its principal may use, whoever reads it. Raises SessionError."""

    def take_over(self, hosted: Hosted) -> None:
        """Read a session from now on."""

    def visible(self, session: str) -> Hosted:
        """A session that this connection reads or watches. Raises SessionError."""

    def watch(self, hosted: Hosted) -> Watch:
        """Look on. Raises SessionError."""

    def share(self, hosted: Hosted) -> None:
        """Use it beside whoever reads it. Raises SessionError."""

    def may_cancel(self, hosted: Hosted, execution: str) -> bool:
        """Whether this execution, or all of them (""), are its to cancel."""

    def stop_watching(self, session: str) -> bool:
        """Look on, or share, no more; False if it did neither."""

    def let_go(self, session: str) -> None:
        """Read a session no more."""

    def answer(
        self,
        kind: str,
        body: dict[str, Any],
        envelope: Envelope,
        session: str = "",
        buffers: tuple[Buffer, ...] = (),
    ) -> None:
        """Answer a request."""

    def fail(self, error: CapsuleError, envelope: Envelope) -> None:
        """Answer a request that could not be done."""


class Requests:
    """Those of one connection."""

    def __init__(self, desk: Desk, peer: Caller) -> None:
        self._desk = desk
        self._peer = peer
        self._under_way = 0
        self.checkpoints = Checkpoints(desk, peer)
        self._kinds: dict[str, Request] = {
            "open": self._open,
            "close": self._close,
            "attach": self._attach,
            "detach": self._detach,
            "restart": self._restart,
            "info": self._info,
            "interrupt": self._interrupt,
            "cancel": self._cancel,
            "upload": self._upload,
            "download": self._download,
            "files": self._files,
            **dict.fromkeys(QUESTIONS, self._ask),
            **Operations(desk, peer).kinds,
            **self.checkpoints.kinds,
            **Promises(desk, peer).kinds,
        }

    def start(self, message: Any, envelope: Envelope) -> bool:
        """Begin what a message asks for; False if it is none of these requests."""
        request = self._kinds.get(envelope.type)
        if request is None:
            return False
        if self._under_way >= MAX_REQUESTS:
            error = SessionError("too_many_requests", f"the client has {MAX_REQUESTS} requests under way already")
            self._peer.fail(error, envelope)
            return True
        self._under_way += 1
        start = self._desk.tasks.start_now if envelope.type in AT_ONCE else self._desk.tasks.start
        start(self._run(request, message, envelope))
        return True

    async def _run(self, request: Request, message: Any, envelope: Envelope) -> None:
        try:
            await request(message, envelope)
        except CapsuleError as error:
            self._peer.fail(error, envelope)
        except Exception:  # whoever asked gets an answer all the same
            logger.exception("%s failed", envelope.type)
            self._peer.fail(
                SessionError("internal_error", f"{envelope.type} failed in the node; see its log"), envelope
            )
        finally:
            self._under_way -= 1

    async def _open(self, message: Any, envelope: Envelope) -> None:
        self._check_staying("sessions")
        if len(message.files) != len(envelope.buffers):
            raise ArgumentError("files", "are not as many as their contents", allowed="a buffer for each name")
        named: dict[str, Any] = {
            "files": {name: bytes(data) for name, data in zip(message.files, envelope.buffers, strict=True)},
            "environment": message.environment,
            "name": message.name or None,
            "env": message.env,
            "cwd": message.cwd,
            "argv": tuple(message.argv),
            "path": tuple(message.path),
        }
        options = SessionOptions.build(**(message.options.model_dump() | named))
        hosted = await self._desk.registry.open(self._peer.owner, self._peer.client, options, message.key)
        self._peer.take_over(hosted)
        self._ready(hosted, envelope)

    async def _attach(self, message: Any, envelope: Envelope) -> None:
        if message.watch and message.share:
            raise ArgumentError("share", "does not go with watch", allowed="one way to have a session")
        hosted = await self._desk.registry.seek(self._peer.principal, message.name)
        await self._desk.registry.wake(hosted)
        await hosted.complete.wait()  # its client asks for what it had under way next
        if message.watch:
            watch = self._peer.watch(hosted)
            self._ready(hosted, envelope)
            watch.begin()
        elif message.share:
            self._peer.share(hosted)
            self._ready(hosted, envelope)
        else:
            self._peer.take_over(hosted)
            self._ready(hosted, envelope)

    async def _detach(self, _message: Any, envelope: Envelope) -> None:
        if self._peer.stop_watching(envelope.session):
            self._peer.answer("status", {"state": "closed"}, envelope)
            return
        hosted = self._peer.session(envelope.session)
        self._peer.let_go(envelope.session)
        hosted.detach(self._desk.config.detached_ttl)
        self._peer.answer("status", {"state": hosted.session.state}, envelope)

    async def _close(self, _message: Any, envelope: Envelope) -> None:
        hosted = self._peer.session(envelope.session)
        await self._desk.registry.close(hosted)
        self._peer.let_go(envelope.session)
        self._peer.answer("status", {"state": "closed"}, envelope)

    async def _restart(self, _message: Any, envelope: Envelope) -> None:
        hosted = self._peer.session(envelope.session)
        await self._desk.registry.restart(hosted)
        self._ready(hosted, envelope)

    async def _info(self, _message: Any, envelope: Envelope) -> None:
        if envelope.session:
            info = self._info_of(self._peer.visible(envelope.session).session)
        else:
            info = asdict(self._desk.node.info()) | {"clients": self._desk.clients, "offences": self._desk.offences}
            if self._desk.ledger is not None:
                self._desk.ledger.works()  # if it did not, it is tried again
                info["bridge"] = asdict(self._desk.ledger.bridge.info())
            if not self._peer.principal.sees_all:  # what others have is not for it to know
                mine = sum(hosted.owner == self._peer.owner for hosted in self._desk.registry)
                info = {"sessions": mine, "pools": {}, "clients": 0, "offences": 0}
        self._peer.answer("info_reply", {"info": info}, envelope)

    def _info_of(self, session: Session) -> dict[str, Any]:
        ledger = self._desk.ledger
        promises = None if ledger is None else ledger.bridge.info_of(session.id)
        return asdict(replace(session.info(), promises=promises))

    async def _interrupt(self, _message: Any, envelope: Envelope) -> None:
        done = await self._peer.session(envelope.session).interrupt()
        self._peer.answer("info_reply", {"info": {"done": done}}, envelope)

    async def _cancel(self, message: Any, envelope: Envelope) -> None:
        hosted = self._peer.session(envelope.session)
        if not self._peer.may_cancel(hosted, message.execution):
            message = "this client shares the session: it cancels what it has asked for itself"
            raise SessionError("session_shared", message)
        if message.execution:
            info: dict[str, Any] = {"done": await hosted.cancel(message.execution)}
        else:
            count = await hosted.cancel_all()
            info = {"done": count > 0, "count": count}
        self._peer.answer("info_reply", {"info": info}, envelope)

    async def _ask(self, message: Any, envelope: Envelope) -> None:
        session = self._peer.session(envelope.session).session
        session.powers.submitted(self._peer.owner)  # to complete, inspect or debug runs code
        reply = await session.ask(envelope.type, message.model_dump(), self._desk.config.question_timeout)
        self._peer.answer(f"{envelope.type}_reply", reply, envelope)

    async def _upload(self, message: Any, envelope: Envelope) -> None:
        self._check_staying("transfers")
        streams = self._peer.streams
        streams.check_free(message.stream)
        upload = await (await self._place(message, envelope)).upload(message.name)
        streams.take_in(message.stream, envelope.session, upload)
        self._peer.answer("upload_reply", {"offset": upload.offset, "digest": upload.digest}, envelope)

    async def _download(self, message: Any, envelope: Envelope) -> None:
        if message.place == "files":  # else its session was saved before, and it is all that is left to do
            self._check_staying("transfers")
        streams = self._peer.streams
        streams.check_free(message.stream)
        files = await self._place(message, envelope)
        download = await files.download(message.name, message.offset, message.digest)
        body = {"offset": download.offset, "size": download.size, "modified": download.modified}
        self._peer.answer("download_reply", body, envelope)
        streams.give_out(message.stream, envelope.session, download)

    async def _files(self, _message: Any, envelope: Envelope) -> None:
        entries = await self._peer.session(envelope.session).session.files.list()
        self._peer.answer("files_reply", {"entries": [asdict(entry) for entry in entries]}, envelope)

    async def _place(self, message: Any, envelope: Envelope) -> SessionFiles:
        if message.place == "checkpoints":
            hosted = self._peer.own(envelope.session)
            await self._desk.registry.wake(hosted)
            return hosted.session.checkpoints.files
        return self._peer.session(envelope.session).session.files

    def _check_staying(self, what: str) -> None:
        if self._desk.draining:
            raise SessionError("node_closed", f"the node takes no more {what}: it is about to end")

    def _ready(self, hosted: Hosted, envelope: Envelope) -> None:
        info = hosted.session.info()
        body = {"pid": info.pid, "name": info.name, "environment": info.environment, "epoch": info.epoch}
        self._peer.answer("ready", body, envelope, info.id)
