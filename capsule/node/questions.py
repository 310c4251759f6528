"""Requests to a worker that are no executions: each has an id, and one answer or none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapsuleError, RemoteProtocolError, SessionError
from capsule_protocol.ids import MESSAGE, new_id

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_OPEN = 256
"""Questions that may be open at once in one session."""
MAX_FORSAKEN = 10_000
"""Questions without an answer whose asker has left."""
ALLOWED = frozenset(
    {"complete", "inspect", "is_complete", "history", "namespace_summary", "comm_info", "subshell", "debug"}
)
URGENT = frozenset({"debug", "subshell"})
"""Those that do not wait for the code that runs; nor does one that names a subshell. They alone change something."""


class Questions:
    """The open questions of one session."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[str, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._forsaken: dict[str, None] = {}
        self._behind: dict[str, int] = {}

    def __len__(self) -> int:
        """How many have no answer yet, those included whose asker has left."""
        return len(self._open) + len(self._forsaken)

    async def ask(
        self,
        send: Callable[[Envelope], None],
        session: str,
        kind: str,
        body: dict[str, Any],
        timeout: float | None,
        behind: int | None = None,
    ) -> dict[str, Any]:
        """Send a question and wait for its answer.

        `behind`: the serial of the last execution that has been sent, if it is one for the worker's main thread.
        """
        if kind not in ALLOWED:
            raise CapsuleError(
                "unsupported", f"a session cannot be asked {kind!r}; allowed: {', '.join(sorted(ALLOWED))}"
            )
        if len(self._open) >= MAX_OPEN:
            raise SessionError("queue_full", f"the session has {MAX_OPEN} open questions")
        number = new_id(MESSAGE)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        send(Envelope(kind, body, number, session))
        self._open[number] = (f"{kind}_reply", answer)
        if behind is not None:
            self._behind[number] = behind
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            message = f"{kind} was not answered within {timeout:g} s"
            raise CapsuleError("request_timeout", message, retryable=kind not in URGENT) from None
        finally:
            waited = self._open.pop(number, None) is not None
            if waited and (not answer.done() or answer.cancelled()):
                self._forsake(number)

    def first(self, head: int | None) -> str | None:
        """The id of the question that the main thread answers now, or will next, if it has no other work before.

        `head` is the serial of the oldest execution that it has. One whose asker has left is answered all the same.
        """
        number, behind = next(iter(self._behind.items()), (None, 0))
        return number if head is None or behind < head else None

    def take(self, reply_to: str, envelope: Envelope) -> None:
        """An answer. One that nobody waits for any more is let pass, once."""
        self._behind.pop(reply_to, None)
        expected, answer = self._open.get(reply_to, ("", None))
        if answer is None:
            if reply_to not in self._forsaken:
                raise RemoteProtocolError("unexpected_message", f"{envelope.type} answers no question")
            del self._forsaken[reply_to]
            return
        if answer.done():
            raise RemoteProtocolError("unexpected_message", f"{envelope.type} answers a question again")
        if envelope.type == "error":
            answer.set_exception(CapsuleError.from_dict(envelope.body))
        elif envelope.type == expected:
            answer.set_result({key: value for key, value in envelope.body.items() if key != "reply_to"})
        else:
            raise RemoteProtocolError("unexpected_message", f"{envelope.type} answers a question of another type")

    def _forsake(self, number: str) -> None:
        """Its answer may come yet; of those that do not come for long, the oldest is forgotten."""
        self._forsaken[number] = None
        if len(self._forsaken) > MAX_FORSAKEN:
            oldest = next(iter(self._forsaken))
            del self._forsaken[oldest]
            self._behind.pop(oldest, None)

    def fail(self, error: CapsuleError) -> None:
        """Nobody will answer."""
        self._forsaken.clear()
        self._behind.clear()
        for _, answer in self._open.values():
            if not answer.done():
                answer.set_exception(error)
        self._open.clear()
