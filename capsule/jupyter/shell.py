"""What comes over the shell channel of a kernel: requests that are dealt with one after another, in their order.

The main shell has one such order, and each subshell another. A request whose session has died is not answered, for that
is how clients see that a kernel is dead; when the kernel runs again, it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from capsule.events import Finished, InputRequest, Started
from capsule.jupyter import translate
from capsule.jupyter.kept import Kept
from capsule.jupyter.parents import Parents
from capsule.jupyter.streams import Streams
from capsule.node.front.inside import InsideSession
from capsule_protocol.errors import CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.events import Event
    from capsule.jupyter.inner import AnyExecution, AnySession
    from capsule.jupyter.inputs import Inputs
    from capsule.jupyter.messages import Message
    from capsule.jupyter.sockets import Sockets

logger = logging.getLogger("capsule.jupyter")

MAX_WAITING = 10_000
"""Requests that may wait; then no more are read until half of them are done."""
EXECUTE = "execute_request"
RUN = frozenset({EXECUTE, *translate.COMMS})
"""What is run: code, and what is said on comms."""


class KernelDiedError(Exception):
    """The worker has died; `content` is the answer for when the kernel runs again."""

    def __init__(self, content: Message) -> None:
        super().__init__()
        self.content = content


@dataclass(slots=True)
class Request:
    """One that waits or is being dealt with; an execution is sent ahead, so that it runs as soon as it can."""

    to: list[bytes]
    message: Message
    execution: AnyExecution | None = None
    refusal: CapsuleError | None = None
    session: AnySession | None = None
    """That which has it."""
    begun: bool = False
    started: str = ""
    """When it was begun with: JupyterLab shows how long a cell has taken."""

    @property
    def kind(self) -> str:
        """The type of the message."""
        return str(self.message["header"]["msg_type"])


class Common:
    """What the shells of one kernel share. `dead`: requests that nobody answers while the kernel does not run."""

    def __init__(self, sockets: Callable[[], Sockets], inputs: Inputs, info: Callable[[str], Message]) -> None:
        """`info`: the answer to a request of this type about the kernel itself."""
        self.sockets = sockets
        self.inputs = inputs
        self.info = info
        self.parents = Parents()
        self.kept = Kept()
        self.dead: list[tuple[Request, Message]] = []


class Shell:
    """The requests of a kernel, or of one of its subshells. While it has no session they wait: a restart loses none.

    A subshell has the session that it was opened in, and ends with that.
    """

    def __init__(self, common: Common, subshell: str = "", session: AnySession | None = None) -> None:
        self._common = common
        self._subshell = subshell
        self._closed = False
        self._session = session
        self._waiting: deque[Request] = deque()
        self._changed = asyncio.Event()
        self._current: Request | None = None
        self._streams = Streams(self._show)
        self._left: list[Any] = []

    # --- for the kernel ---

    def begin(self, session: AnySession) -> None:
        """Run what waits, and all that comes, in this session. What died with the one before is answered."""
        self._session, self._left = session, []
        self._common.kept.clear()
        dead, self._common.dead = self._common.dead, []
        for request, content in dead:
            self._finish(request, content)
        session.on_background = self.background
        for request in self._waiting:
            self._send_ahead(request)
        self._changed.set()

    def end(self) -> None:
        """The session is over: what it had been given has a verdict, or will have none; the rest waits."""
        self._session = None

    def close(self) -> None:
        """It is a subshell's, and takes nothing any more: what it has is answered, then `run` ends."""
        self._closed = True
        self._changed.set()

    def take(self, to: list[bytes], message: Message) -> None:
        """A message has come."""
        request = Request(to, message)
        self._send_ahead(request)
        self._waiting.append(request)
        self._changed.set()
        if len(self._waiting) >= MAX_WAITING:
            self._channels.pause("shell")

    def refuse(self, to: list[bytes], message: Message, error: CapsuleError) -> None:
        """A message that has come for nobody."""
        self._channels.publish("status", {"execution_state": "busy"}, message["header"])
        self._finish(Request(to, message), translate.refusal(error))

    async def run(self) -> None:
        """Deal with requests, until cancelled, or until the last one of a shell that is closed."""
        while True:
            while not self._waiting or not self._may_begin(self._waiting[0]):
                if self._closed and not self._waiting:
                    return
                self._changed.clear()
                await self._changed.wait()
            request = self._waiting.popleft()
            if len(self._waiting) == MAX_WAITING // 2:
                self._channels.resume("shell")
            self._current = request
            await self._deal_with(request)
            self._current = None

    def interrupt(self) -> Coroutine[Any, Any, None]:
        """End what runs at the moment of the call. If that has just ended, then what has begun behind it."""
        if self._interrupt_question():
            return _done()
        waiting = (self._current, *self._waiting)
        return self._end_first([request.execution.id for request in waiting if request and request.execution])

    def background(self, event: Event) -> None:
        """Something that code told after its verdict: it belongs to the request that had it run."""
        told = translate.shown(event)
        if told is not None:
            self._streams.show(told, self._common.parents.of(event.execution_id))

    # --- inside ---

    def _interrupt_question(self) -> bool:
        """Whether a question, asked here, is answered at this moment: it is interrupted before this returns."""
        asks = self._current is not None and self._current.kind in translate.QUESTIONS and not self._subshell
        return asks and self._session is not None and self._session.interrupt_question()

    async def _end_first(self, executions: list[str]) -> None:
        session = self._session
        if not self._subshell and isinstance(session, InsideSession) and await session.interrupt_sharer():
            return  # what waits behind that is not to be ended instead
        for execution in executions:
            if self._session is None or await self._session.cancel(execution):
                return

    @property
    def _channels(self) -> Sockets:
        return self._common.sockets()

    def _may_begin(self, request: Request) -> bool:
        needs_session = request.kind in RUN or request.kind in translate.QUESTIONS
        return not needs_session or self._session is not None or request.execution is not None

    def _send_ahead(self, request: Request) -> None:
        if request.kind not in RUN or self._session is None:
            return
        request.session = self._session
        try:
            asked = translate.run_request(request.message)
            request.execution = self._session.submit(
                replace(asked, subshell=self._subshell) if self._subshell else asked
            )
        except CapsuleError as error:
            request.refusal = error

    async def _deal_with(self, request: Request) -> None:
        parent = request.message["header"]
        self._common.parents.last = parent
        request.started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._channels.publish("status", {"execution_state": "busy"}, parent)
        try:
            content = await self._answer(request)
        except KernelDiedError as died:
            self._bury(request, died.content)
            return
        except CapsuleError as error:
            if error.code in translate.OVER:
                status = {} if request.begun else {"status": "aborted"}
                self._bury(request, translate.refusal(error) | status)
                return
            content = translate.refusal(error)
        except Exception:
            logger.exception("%s failed", request.kind)
            content = translate.refusal(SessionError("internal_error", f"{request.kind} failed; see the node's log"))
        self._finish(request, content)

    def _bury(self, request: Request, content: Message) -> None:
        """Its session has died. If the kernel runs again by now, it has its answer, else when it does."""
        if self._session in (None, request.session):
            self._common.dead.append((request, content))
        else:
            self._finish(request, content)

    def _finish(self, request: Request, content: Message | None) -> None:
        """Answer, and tell that the kernel is idle."""
        parent = request.message["header"]
        if content is not None and request.kind.endswith("_request"):
            reply = request.kind.replace("_request", "_reply")
            metadata = {"started": request.started} if request.started else {}
            self._channels.reply("shell", reply, content, parent, request.to, metadata=metadata)
        self._channels.publish("status", {"execution_state": "idle"}, parent)

    async def _answer(self, request: Request) -> Message | None:
        kind, content = request.kind, request.message["content"]
        if request.refusal is not None:
            raise request.refusal
        if kind in RUN:
            return await self._execute(request)
        if kind in translate.ABOUT:
            return self._common.info(kind)
        if kind in translate.QUESTIONS:
            request.session = session = self._session
            assert session is not None
            type_, body = translate.question(kind, content)
            reply = await session.ask(type_, {**body, "subshell": self._subshell} if self._subshell else body)
            return translate.answer(kind, reply)
        if not kind.endswith("_request"):
            logger.info("%s is not understood", kind)
            return None
        raise SessionError("unsupported", f"this kernel does not do {kind[:80]!r}")

    async def _execute(self, request: Request) -> Message | None:
        execution, parent = request.execution, request.message["header"]
        assert execution is not None
        self._common.parents.remember(execution.id, parent)
        while True:
            event = await execution.next_event()
            if isinstance(event, Started):
                request.begun = True
                self._tell_input(request, event, parent)
            elif isinstance(event, InputRequest):
                self._streams.flush()
                self._common.inputs.ask(execution, event, request)
            else:
                told = translate.shown(event)
                if isinstance(event, Finished) and event.error is not None and request.kind in translate.COMMS:
                    told = translate.comm_error(request.message, event.error)
                if told is not None:
                    self._streams.show(told, parent)
                if isinstance(event, Finished):
                    self._streams.flush()
                    self._common.inputs.forget(execution)
                    return self._ended(request, event)

    def _ended(self, request: Request, finished: Finished) -> Message | None:
        """The answer to what has run; nobody waits for one to what was said on a comm."""
        content = translate.execute_reply(finished, request.message["content"]) if request.kind == EXECUTE else None
        if finished.verdict in translate.DEADLY:
            raise KernelDiedError(content or {})
        payload = self._show_again(finished.payload, request.message["header"])
        if content is None:
            self._left = self._behind_left(payload)
        elif content["status"] != "aborted":
            content["payload"], self._left = self._behind_left(payload), []
        return content

    def _behind_left(self, payload: list[Any]) -> list[Any]:
        """What is asked of the front end, behind what was asked in what it said on comms, which has no answer.

        As with ipykernel the next code's answer has it; and as with IPython a later one takes the place of its kind.
        """
        kinds = [asked.get("source") for asked in payload]
        return [*(asked for asked in self._left if asked.get("source") not in kinds), *payload]

    def _show(self, told: translate.Shown, parent: Message) -> None:
        told = translate.in_words_of(told, self._common.parents.headers)
        self._common.kept.add(self._common.parents.number_of(parent), told)
        self._channels.publish(told.kind, told.content, parent, metadata=told.metadata, buffers=told.buffers)

    def _tell_input(self, request: Request, event: Started, parent: Message) -> None:
        content = request.message["content"]
        if request.kind == EXECUTE and not content.get("silent", False):
            told = {"code": content["code"], "execution_count": event.execution_count}
            self._channels.publish("execute_input", told, parent)
            if translate.execute_request(content).store_history and not self._subshell:
                self._common.parents.number(parent, event.execution_count)
                self._common.kept.begin(event.execution_count)

    def _show_again(self, payload: list[Any], parent: Message) -> list[Any]:
        """Do what `%capsule output` asks for, of what IPython asks of a front end; the rest is the front end's."""
        kept, own = self._common.kept, self._common.parents.number_of(parent)
        for asked in payload:
            if asked.get("source") == translate.OUTPUT:
                there = [number for number in kept.numbers if number != own]
                number = asked["number"] or (there[-1] if there else 0)
                again = kept.again(number) if number in there else [translate.not_kept(number, there)]
                for told in list(again):
                    self._show(told, parent)
        return [asked for asked in payload if asked.get("source") != translate.OUTPUT]


async def _done() -> None:
    """Nothing is left to do."""
