"""What a kernel says to a front end, so that two kernels can be compared: names, times and places are made the same."""

from __future__ import annotations

import re
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq
from jupyter_client.session import Session

from tests.acceptance.jupyter.support import LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_client.manager import KernelManager

Said = dict[str, Any]

_LEFT_OUT = frozenset({"engine_info", "target_module"})
"""What ipykernel says for ipyparallel, and for front ends before JupyterLab; no reply has metadata here either."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"(Cell In|File )")
_LINE = re.compile(r"line \d+|:\d+(?=, )")

_SAME = (
    (re.compile(r"0x[0-9a-fA-F]{5,}"), "0x…"),
    (re.compile(r"\d+(\.\d+)?(e[+-]\d+)? ?(ns|µs|μs|us|ms|s)\b"), "TIME"),
    (re.compile(r"/[\w/.-]*/ipykernel_\d+/\d+\.py|<ipython-input-[0-9-]+(-[0-9a-f]+)?>"), "CELL"),
    (re.compile(r"\b(\d{3,}\.py|ipython-input-[0-9-]+)(?=, line)"), "CELL"),
)


class Ask(NamedTuple):
    """A request: its type and content, where it goes, what is answered to questions meanwhile."""

    kind: str
    content: dict[str, Any]
    channel: str = "shell"
    answers: tuple[str, ...] = ()


def run(code: str, *answers: str, **options: Any) -> Ask:
    """Run code."""
    asked = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
    return Ask("execute_request", {**asked, "allow_stdin": True, "stop_on_error": True, **options}, answers=answers)


class Recorder:
    """A front end with sockets of its own: what is lost or late there is so in the kernel."""

    def __init__(self, manager: KernelManager, context: zmq.Context[Any], names: dict[str, str]) -> None:
        self._session = Session(key=manager.session.key)
        self._sockets: dict[str, Any] = {}
        self._poller = zmq.Poller()
        kinds = {"shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB}
        for channel, kind in kinds.items():
            socket = self._sockets[channel] = context.socket(kind)
            socket.setsockopt(zmq.LINGER, 0)
            if kind == zmq.SUB:
                socket.subscribe(b"")
            else:
                socket.setsockopt(zmq.IDENTITY, b"recorder")  # a kernel asks where the request came from
            socket.connect(f"tcp://{manager.ip}:{getattr(manager, f'{channel}_port')}")
            self._poller.register(socket, zmq.POLLIN)
        self._came: deque[tuple[str, Said]] = deque()
        self._names = dict(names)
        self._requests: dict[str, str] = {}
        self._until(lambda channel, _said: channel == "iopub")  # the welcome: from here on nothing is missed

    def record(self, asks: list[Ask]) -> dict[str, list[Said]]:
        """What was said of each request, in order, the reply first; each is sent when the one before is done."""
        self._requests = {}
        self._told: dict[str, list[Said]] = {}
        for ask in (*asks, run("", silent=True)):
            self._ask(ask, f"request {len(self._requests) + 1}")
        return {name: told for name, told in self._told.items() if name != f"request {len(asks) + 1}"}

    # --- inside ---

    def _ask(self, ask: Ask, name: str) -> None:
        message = self._session.msg(ask.kind, ask.content)
        request = message["header"]["msg_id"]
        self._requests[request] = name
        self._told[name] = []
        self._session.send(self._sockets[ask.channel], message)
        answers, left = deque(ask.answers), {"idle", *(["reply"] if ask.kind.endswith("_request") else [])}

        def take(channel: str, said: Said) -> bool:
            mine = said["parent_header"].get("msg_id") == request
            if said["msg_type"] == "status":
                if mine and said["content"]["execution_state"] == "idle":
                    left.discard("idle")
            elif channel == "iopub":
                self._note(said)
            elif channel == "stdin":  # on its own, for nobody knows what comes first of two sockets
                self._told.setdefault(f"{name}, stdin", []).append(self._same(said))
                reply = self._session.msg("input_reply", {"value": answers.popleft() if answers else ""}, parent=said)
                self._session.send(self._sockets["stdin"], reply)
            elif mine:
                left.discard("reply")
                self._told[name].insert(0, self._same(said))
            return not left

        self._until(take)

    def _until(self, take: Callable[[str, Said], bool]) -> None:
        """Take messages until it is enough. AssertionError if they do not come."""
        end = time.monotonic() + LONG
        while True:
            while self._came:
                if take(*self._came.popleft()):
                    return
            ready = dict(self._poller.poll(int(1000 * max(0.0, end - time.monotonic()))))
            assert ready, f"the kernel says nothing more; so far: {getattr(self, '_told', None)}"
            for channel in ("iopub", "stdin", "shell", "control"):
                if self._sockets[channel] in ready:
                    _, parts = self._session.feed_identities(self._sockets[channel].recv_multipart())
                    self._came.append((channel, self._session.deserialize(parts)))

    def _note(self, said: Said) -> None:
        told = self._told.setdefault(self._requests.get(said["parent_header"].get("msg_id"), "before"), [])
        same = self._same(said)
        last = told[-1] if told else None
        if last is not None and last["type"] == same["type"] == "stream" and last["name"] == same["name"]:
            last["text"] += same["text"]  # who holds text for how long is not to be compared
        else:
            told.append(same)

    def _same(self, said: Said) -> Said:
        content = dict(said["content"])
        if "traceback" in content:
            content["traceback"] = [_without_source(part) for part in content["traceback"]]
        for kind, name in (("comm", content.get("comm_id")), ("display", _display_id(content))):
            if isinstance(name, str) and len(name) > 20:  # made up, and no name of the test's
                self._names.setdefault(name, f"<{kind} {len(self._names)}>")
        metadata = {} if said["msg_type"].endswith("_reply") else said["metadata"]
        more = {"buffers": [bytes(one) for one in said["buffers"]], "metadata": metadata}
        return {
            "type": said["msg_type"],
            **self._made_same({name: value for name, value in content.items() if name not in _LEFT_OUT}),
            **{f"_{name}": self._made_same(value) for name, value in more.items() if value},
        }

    def _made_same(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._made_same(key): self._made_same(item) for key, item in sorted(value.items())}
        if isinstance(value, list):
            return [self._made_same(item) for item in value]
        if not isinstance(value, str):
            return value
        for name, same in (*self._names.items(), *((one, f"<{called}>") for one, called in self._requests.items())):
            value = value.replace(name, same)
        for pattern, same in _SAME:
            value = pattern.sub(same, value)
        return value


def _without_source(part: str) -> str:
    """A part of a traceback: how much of the source is shown around a line depends on where the source is kept."""
    plain = _COLOUR.sub("", part)
    return _LINE.sub("line", plain.split("\n", 1)[0]) if _FRAME.match(plain) else plain


def _display_id(content: Said) -> object:
    transient = content.get("transient")
    return transient.get("display_id") if isinstance(transient, dict) else None


@contextmanager
def recording(manager: KernelManager, names: dict[str, str]) -> Iterator[Recorder]:
    """A recorder of a kernel that runs; `names` are texts that are made the same."""
    context: zmq.Context[Any] = zmq.Context()
    try:
        yield Recorder(manager, context, names)
    finally:
        context.destroy(linger=0)
