"""What comes over the shell channel of a kernel: requests that are dealt with one after another, in their order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capsule.events import Finished, InputRequest, Started
from capsule.jupyter import translate
from capsule.jupyter.streams import Streams
from capsule_protocol.errors import CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.client.inner import AnyExecution, AnySession
    from capsule.events import Event
    from capsule.jupyter.inputs import Inputs
    from capsule.jupyter.sockets import Message, Sockets

logger = logging.getLogger("capsule.jupyter")

MAX_WAITING = 10_000
"""Requests that may wait; then no more are read until half of them are done."""
REMEMBERED = 1000
"""Executions whose threads and tasks may go on to write, and whose requests are known for that."""
EXECUTE = "execute_request"
RUN = frozenset({EXECUTE, *translate.COMMS})
"""What is run: code, and what is said on comms."""


class KernelDiedError(Exception):
    """The worker has died: nothing is answered, not even that the kernel is idle."""


@dataclass(slots=True)
class Request:
    """One that waits or is being dealt with; an execution is sent ahead, so that it runs as soon as it can."""

    to: list[bytes]
    message: Message
    execution: AnyExecution | None = None
    refusal: CapsuleError | None = None

    @property
    def kind(self) -> str:
        """The type of the message."""
        return str(self.message["header"]["msg_type"])


class Shell:
    """The requests of a kernel. While it has no session they wait: a restart loses none."""

    def __init__(self, inputs: Inputs, info: Callable[[], Message]) -> None:
        self.sockets: Sockets | None = None
        self._inputs = inputs
        self._info = info
        self._session: AnySession | None = None
        self._waiting: deque[Request] = deque()
        self._changed = asyncio.Event()
        self._current: Request | None = None
        self._parents: dict[str, Message] = {}
        self._last: Message = {}
        self._streams = Streams(self._show)

    # --- for the kernel ---

    def begin(self, session: AnySession) -> None:
        """Run what waits, and all that comes, in this session."""
        self._session = session
        session.on_background = self.background
        for request in self._waiting:
            self._send_ahead(request)
        self._changed.set()

    def end(self) -> None:
        """The session is over: what it had been given has a verdict, or will have none; the rest waits."""
        self._session = None

    def take(self, to: list[bytes], message: Message) -> None:
        """A message has come."""
        request = Request(to, message)
        self._send_ahead(request)
        self._waiting.append(request)
        self._changed.set()
        if len(self._waiting) >= MAX_WAITING:
            self._channels.pause("shell")

    async def run(self) -> None:
        """Deal with requests, until cancelled."""
        while True:
            while not self._waiting or not self._may_begin(self._waiting[0]):
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
        waiting = (self._current, *self._waiting)
        return self._end_first([request.execution.id for request in waiting if request and request.execution])

    def background(self, event: Event) -> None:
        """Something that code told after its verdict: it belongs to the request that had it run."""
        told = translate.shown(event)
        if told is not None:
            self._streams.show(told, self._parents.get(event.execution_id, self._last))

    # --- inside ---

    async def _end_first(self, executions: list[str]) -> None:
        for execution in executions:
            if self._session is None or await self._session.cancel(execution):
                return

    @property
    def _channels(self) -> Sockets:
        assert self.sockets is not None  # bound before anything can come over them
        return self.sockets

    def _may_begin(self, request: Request) -> bool:
        needs_session = request.kind in RUN or request.kind in translate.QUESTIONS
        return not needs_session or self._session is not None or request.execution is not None

    def _send_ahead(self, request: Request) -> None:
        if request.kind not in RUN or self._session is None:
            return
        try:
            request.execution = self._session.submit(translate.run_request(request.message))
        except CapsuleError as error:
            request.refusal = error

    async def _deal_with(self, request: Request) -> None:
        parent = request.message["header"]
        self._last = parent
        sockets = self._channels
        sockets.publish("status", {"execution_state": "busy"}, parent)
        try:
            content = await self._answer(request)
        except KernelDiedError:
            return
        except CapsuleError as error:
            if error.code in translate.OVER:
                return
            content = translate.refusal(error)
        except Exception:
            logger.exception("%s failed", request.kind)
            content = translate.refusal(SessionError("internal_error", f"{request.kind} failed; see the node's log"))
        if content is not None and request.kind.endswith("_request"):
            sockets.reply("shell", request.kind.replace("_request", "_reply"), content, parent, request.to)
        sockets.publish("status", {"execution_state": "idle"}, parent)

    async def _answer(self, request: Request) -> Message | None:
        kind, content = request.kind, request.message["content"]
        if request.refusal is not None:
            raise request.refusal
        if kind in RUN:
            return await self._execute(request)
        if kind == "kernel_info_request":
            return self._info()
        if kind in translate.QUESTIONS:
            assert self._session is not None
            reply = await self._session.ask(*translate.question(kind, content))
            return translate.answer(kind, reply)
        if not kind.endswith("_request"):
            logger.info("%s is not understood", kind)
            return None
        raise SessionError("unsupported", f"this kernel does not do {kind[:80]!r}")

    async def _execute(self, request: Request) -> Message:
        execution, parent = request.execution, request.message["header"]
        assert execution is not None
        self._remember(execution.id, parent)
        while True:
            event = await execution.next_event()
            if isinstance(event, Started):
                self._tell_input(request, event, parent)
            elif isinstance(event, InputRequest):
                self._streams.flush()
                self._inputs.ask(execution, event, request)
            else:
                told = translate.shown(event)
                if told is not None:
                    self._streams.show(told, parent)
                if isinstance(event, Finished):
                    self._streams.flush()
                    self._inputs.forget(execution)
                    if event.verdict in translate.DEADLY:
                        raise KernelDiedError
                    return translate.execute_reply(event)

    def _show(self, told: translate.Shown, parent: Message) -> None:
        told = translate.in_words_of(told, self._parents)
        self._channels.publish(told.kind, told.content, parent, metadata=told.metadata, buffers=told.buffers)

    def _tell_input(self, request: Request, event: Started, parent: Message) -> None:
        content = request.message["content"]
        if request.kind == EXECUTE and not content.get("silent", False):
            told = {"code": content["code"], "execution_count": event.execution_count}
            self._channels.publish("execute_input", told, parent)

    def _remember(self, execution: str, parent: Message) -> None:
        self._parents[execution] = parent
        if len(self._parents) > REMEMBERED:
            del self._parents[next(iter(self._parents))]
