"""`input()`, `getpass` and `sys.stdin` in a session: they ask the client, or end at once where nobody can answer."""

from __future__ import annotations

import builtins
import getpass
import io
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any

from capsule_kernels.attribution import NOBODY, owner
from capsule_protocol.ids import MESSAGE, new_id

if TYPE_CHECKING:
    from capsule_kernels.capture import Outlet
    from capsule_kernels.publisher import Publisher
    from capsule_protocol.envelope import Envelope


class InputTimeoutError(TimeoutError):
    """The client did not answer in the time that the session allows."""


class InputCanceledError(Exception):
    """The question was taken back: there will be no answer to it, though there may be to another one."""


def _no_client() -> EOFError:
    """A plain EOFError, which code expects of `input()`; the verdict finds the stable code on it."""
    error = EOFError("no client can answer: run the code with on_input")
    error.capsule_code = "no_input_client"  # type: ignore[attr-defined]  # exceptions take attributes
    return error


def _value(reply: dict[str, Any]) -> Any:
    """What was answered. Raises the three reasons for which there is no answer."""
    error, message = reply.get("error"), reply.get("message")
    if error == "timeout":
        raise InputTimeoutError(message or "nobody answered in time")
    if error == "canceled":
        raise InputCanceledError(message or "the question was canceled")
    if reply.get("value") is None:
        raise EOFError(message or "the client has no more input")
    return reply["value"]


class Stdin(io.TextIOBase):
    """The standard input of a session: each line is a question to the client. Also provides `input` and `getpass`."""

    encoding: str = "utf-8"
    errors: str = "strict"
    mode = "r"
    name = "<stdin>"

    def __init__(self, publisher: Publisher, outlet: Outlet) -> None:
        super().__init__()
        self._publisher = publisher
        self._outlet = outlet
        self._waiting: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}
        self._asked: dict[str, dict[str, Any]] = {}
        self._rest = ""
        self._plain_input = builtins.input
        self.allowed = False
        self._aside: dict[int, bool] = {}
        self._threads: dict[int, int] = {}  # those of the executions of subshells

    def begin_aside(self, serial: int, *, allowed: bool) -> None:
        """An execution of a subshell begins, and may ask or not."""
        self._aside[serial] = allowed
        self._threads[serial] = threading.get_ident()

    def end_aside(self, serial: int) -> None:
        """It has ended."""
        del self._aside[serial], self._threads[serial]

    def interrupt(self, execution: str) -> bool:
        """End what an execution asks with KeyboardInterrupt, from another thread; False if it asks nothing."""
        found = [request for request, told in list(self._asked.items()) if told["execution"] == execution]
        for request in found:
            waiting = self._waiting.get(request)
            if waiting is not None:
                waiting.put({"error": "interrupted"})
        return bool(found)

    def install(self) -> None:
        """Put this in the place of the process's standard input."""
        sys.stdin = sys.__stdin__ = self  # type: ignore[assignment, misc]  # as a new process would
        builtins.input = self.input
        getpass.getpass = self.getpass
        setattr(getpass, "unix_getpass", self.getpass)  # noqa: B010  # what `getpass` was; typeshed hides it

    def input(self, prompt: object = "", /) -> str:
        """Ask the client for a line; EOFError if no client can answer, InputTimeoutError if it does not."""
        stream: object = sys.stdin
        if stream is not self:
            return self._plain_input(prompt)  # user code has put another stream in the place of this one
        sys.audit("builtins.input", prompt)
        return self._ask(str(prompt), password=False)

    def getpass(self, prompt: str = "Password: ", stream: Any = None, **_more: Any) -> str:  # noqa: ARG002
        """As `input`, for what must not be shown."""
        return self._ask(str(prompt), password=True)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]  # positional, as in io
        """A line with its newline, or as much of it as is wanted; "" where nobody can answer."""
        if not self._rest:
            self._rest = self._line()
        return self._take(len(self._rest) if size is None or size < 0 else size)

    def read(self, size: int | None = -1, /) -> str:
        """As many characters as are wanted, or everything until nobody answers any more."""
        while (size is None or size < 0 or len(self._rest) < size) and (line := self._line()):
            self._rest += line
        return self._take(len(self._rest) if size is None or size < 0 else size)

    def _line(self) -> str:
        try:
            return self._ask("", password=False) + "\n"
        except EOFError:
            return ""

    def _take(self, size: int) -> str:
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def readable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """False."""
        return False

    def fileno(self) -> int:
        """0, which is empty: child processes read no client's input."""
        return 0

    def close(self) -> None:
        """Nothing: the stream belongs to the session."""

    def answer(self, envelope: Envelope) -> None:
        """The client's `input_reply`; called on the I/O thread."""
        waiting = self._waiting.get(str(envelope.body.get("request")))
        if waiting is not None:
            waiting.put(envelope.body)

    def asked(self) -> list[dict[str, Any]]:
        """What is waited for now, for a node that has not heard of it; called on the I/O thread."""
        return list(self._asked.values())

    def _ask(self, prompt: str, *, password: bool) -> str:
        return self.ask({"prompt": prompt, "password": password})

    def ask(self, question: dict[str, Any]) -> str:
        """Ask the client what an `input_request` can ask for. Raises as `input`, and InputCanceledError."""
        serial = owner()
        if serial == NOBODY or not self._aside.get(serial, self.allowed) or self._outlet.detached:
            raise _no_client()
        request = new_id(MESSAGE)
        waits = threading.get_ident() == self._threads.get(serial, threading.main_thread().ident)
        waiting = self._waiting[request] = queue.SimpleQueue()
        try:
            number = self._publisher.publish("input_request", question | {"request": request, "waits": waits})
            execution = self._publisher.current()
            asked = {"request": request, "number": number, "execution": execution, "waits": waits}
            self._asked[request] = asked
            reply = waiting.get()
            if reply.get("error") == "interrupted":
                raise KeyboardInterrupt  # noqa: TRY301  # as a signal would
        except KeyboardInterrupt:
            # pdb would catch the interrupt and ask again: from now on it finds no more input
            if serial in self._aside:
                self._aside[serial] = False
            else:
                self.allowed = False
            raise
        finally:
            del self._waiting[request]
            self._asked.pop(request, None)
        return str(_value(reply))
