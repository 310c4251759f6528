"""All state machines of the protocol, as tables.

A table says, for each state, which events are allowed and where each one leads; an event that is not there is a breach
of the protocol. An event is a message type, whoever sent it; who may send a type is the business of `SENDS`. Both ends
of a link keep the same tables and so see the same breaches.

* The client link greets, then carries everything until both ends have said `shutdown`. A request that crosses a
  `shutdown` is not a breach: it is answered with an error. So is whoever speaks without having greeted: the node may
  have forgotten him.
* The worker link greets and opens its one session before it carries anything else; one that another node has left is
  adopted, with its session.
* An execution is accepted (`ack`), starts (`status`), has its events, and ends in one verdict. On the worker link it
  has no acknowledgement: it is running from its request, and output behind its verdict comes from what it left behind.
  One that is resumed on a new link goes on from the number that was asked for.
* A stream is written by the end that opened it, and is over when both ends have sent `stream_close`: what one end sent
  before it heard of the other's close is on its way still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError

Table: TypeAlias = dict[str, dict[str, str]]
Link: TypeAlias = Literal["client", "worker"]
Role: TypeAlias = Literal["client", "node", "worker"]

VERDICTS = frozenset({"result", "error"})
COMMS = frozenset({"comm_open", "comm_msg", "comm_close"})
OUTPUTS = frozenset({"output", "display", "clear_output", "progress"}) | COMMS
EVENTS = OUTPUTS | VERDICTS | {"status", "input_request", "gap"}
"""What belongs to an execution and is numbered on the client link."""
BACKGROUND = (EVENTS - {"status"}) | {"debug_event"}
"""What comes without a number: of executions that are over, and of none."""

STREAMS = frozenset({"stream_open", "stream_data", "stream_credit", "stream_close"})
_QUESTIONS = frozenset(
    {"complete", "inspect", "is_complete", "history", "namespace_summary", "comm_info", "subshell", "debug"}
)
_REPLIES = frozenset(f"{kind}_reply" for kind in _QUESTIONS)
_BOTH_WAYS = frozenset({"heartbeat", "shutdown", "error"}) | STREAMS
_FILES = frozenset({"upload", "download", "files"})
_CHECKPOINTS = frozenset({"save", "load"})
_OPERATIONS = frozenset({"sessions", "interrupt_session", "kill_session", "drain", "read_log", "cancel_execution"})
_PROMISES = frozenset({"promises", "promise", "settle"})
_CLIENT_ONLY = (
    frozenset({"close", "attach", "detach", "restart", "info", "event_ack", "resume", "discard"})
    | _OPERATIONS
    | _PROMISES
    | _FILES
    | _CHECKPOINTS
)
_COMMANDS = frozenset({"hello", "open", "execute", "cancel", "interrupt", "input_reply", "checkpoint", "restore"})
_ANSWERS = frozenset({"welcome", "ready", "debug_event"}) | EVENTS | _REPLIES

_STATE = frozenset({"write_state", "read_state"})

TURNS = frozenset({"execute"}) | _STATE
"""What a worker does one after another, each with a serial and a verdict."""

SENDS: dict[Link, dict[Role, frozenset[str]]] = {
    "client": {
        "client": _BOTH_WAYS | _COMMANDS | _QUESTIONS | _CLIENT_ONLY,
        "node": _BOTH_WAYS
        | _ANSWERS
        | {"ack", "watching", "info_reply", "read_log_reply"}
        | frozenset(f"{kind}_reply" for kind in _FILES | _CHECKPOINTS),
    },
    "worker": {
        "node": _BOTH_WAYS | _COMMANDS | _QUESTIONS | _STATE | {"capability_reply", "adopt", "confirm"},
        "worker": (_BOTH_WAYS | _ANSWERS | {"capability_request", "capability_cancel", "adopted"}) - {"gap"},
    },
}
"""Which types each end of a link may send."""

URGENT = frozenset({"cancel", "interrupt", "heartbeat", "shutdown"})
"""Types that overtake bulk output in every queue."""

BULK = STREAMS - {"stream_credit"}
"""Types that all others overtake: they carry what may be large without end, and keep their order among themselves."""


def _stay(state: str, events: frozenset[str]) -> dict[str, str]:
    return dict.fromkeys(sorted(events), state)


def _traffic(link: Link) -> frozenset[str]:
    greeting = {"hello", "welcome"} if link == "client" else {"hello", "welcome", "open", "ready", "adopt", "adopted"}
    return frozenset().union(*SENDS[link].values()) - greeting


CLIENT_LINK: Table = {
    "new": {"hello": "greeting", "error": "closed"},
    "greeting": {"welcome": "active", "error": "closed"},
    "active": _stay("active", _traffic("client")) | {"shutdown": "closing"},
    "closing": _stay("closing", _traffic("client")) | {"shutdown": "closed"},
    "closed": {},
}

WORKER_LINK: Table = {
    "new": {"hello": "greeting", "adopt": "adopting"},
    "adopting": {"adopted": "active", "error": "closed"},
    "greeting": {"welcome": "welcomed", "error": "closed"},
    "welcomed": {"open": "opening", "heartbeat": "welcomed", "shutdown": "closing"},
    "opening": {"ready": "active", "error": "closed", "heartbeat": "opening", "shutdown": "closing"},
    "active": _stay("active", _traffic("worker")) | {"shutdown": "closing"},
    "closing": _stay("closing", _traffic("worker")) | {"ready": "closing", "shutdown": "closed"},
    "closed": {},
}

EXECUTION: Table = {
    "sent": {"ack": "queued", "error": "done"},
    "resumed": {"ack": "going on", "error": "done"},
    "queued": {"status": "running", "gap": "running", "error": "done"},
    "going on": _stay("running", EVENTS - VERDICTS) | _stay("done", VERDICTS),
    "running": _stay("running", EVENTS - VERDICTS) | _stay("done", VERDICTS),
    "done": {},
}
"""An execution on the client link, from its request (`resumed`: from `resume`; `going on`: from `watching`); on the
worker link it is `running` from its request."""

STREAM: Table = {
    "new": {"stream_open": "open"},
    "open": {"stream_data": "open", "stream_credit": "open", "stream_close": "closing"},
    "closing": {"stream_data": "closing", "stream_credit": "closing", "stream_close": "closed"},
    "closed": {},
}

TABLES: dict[str, Table] = {
    "client_link": CLIENT_LINK,
    "worker_link": WORKER_LINK,
    "execution": EXECUTION,
    "stream": STREAM,
}
LINKS: dict[Link, Table] = {"client": CLIENT_LINK, "worker": WORKER_LINK}


class Machine:
    """One machine at work: a table, the name of what it describes, and the state it is in."""

    __slots__ = ("name", "state", "table")

    def __init__(self, name: str, table: Table, state: str) -> None:
        self.name = name
        self.table = table
        self.state = state

    def check(self, event: str, error: type[LocalProtocolError | RemoteProtocolError]) -> str:
        """The state that the event leads to; raises `error` (`unexpected_message`) if it leads nowhere."""
        following = self.table[self.state].get(event)
        if following is None:
            allowed = ", ".join(self.table[self.state]) or "nothing"
            raise error(
                "unexpected_message",
                f"{event} is not allowed while the {self.name} is {self.state}; allowed: {allowed}",
                details={"type": event, "state": self.state},
            )
        return following

    def fire(self, event: str, error: type[LocalProtocolError | RemoteProtocolError]) -> str:
        """Go where the event leads, and answer that state; if nowhere, stay and raise `error`."""
        self.state = self.check(event, error)
        return self.state
