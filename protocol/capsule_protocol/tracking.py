"""What a link has under way: the executions and streams of one connection, each at its place in its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from capsule_protocol import states
from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.sequence import SequenceChecker

if TYPE_CHECKING:
    from capsule_protocol.envelope import Envelope

Breach: TypeAlias = type[LocalProtocolError | RemoteProtocolError]


class _Execution(NamedTuple):
    machine: states.Machine
    checker: SequenceChecker
    watched: bool = False
    """Nobody asked for it here: who asks begins anew."""


class Executions:
    """The executions of one link that have no verdict yet.

    On the client link each event takes the next number of its execution. Output numbered 0 is background output: it
    belongs to no execution's stream, and may name an execution that is over. On the worker link executions themselves
    are numbered, 1, 2, 3 …, and their events are not.
    """

    def __init__(self, link: states.Link) -> None:
        self._numbered = link == "client"
        self._open: dict[str, _Execution] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._open)

    def next_number(self, kind: str, execution: str, step: int = 1) -> int:
        """The number that belongs into the header of what is about to be sent; a gap takes several at once."""
        if kind in states.TURNS:
            return 0 if self._numbered else self._serial + 1
        known = self._open.get(execution)
        if known is None or kind not in states.EVENTS or not self._numbered:
            return 0
        return known.checker.last + step

    def note(self, envelope: Envelope, breach: Breach) -> None:
        """Take note of a message, sent or received; raises `breach` when it is not allowed now."""
        kind, execution = envelope.type, envelope.execution
        if kind in states.TURNS:
            self._begin(envelope, breach)
        elif kind == "resume":
            self._resume(envelope, breach)
        elif kind == "watching":
            self._watch(envelope, breach)
        elif execution and (kind in states.EVENTS or kind == "ack"):
            known = self._open.get(execution)
            if known is not None and (envelope.sequence or kind not in states.OUTPUTS or not self._numbered):
                self._step(known, envelope, breach)
            elif known is None and (kind not in states.OUTPUTS or envelope.sequence):
                raise breach("unexpected_message", f"{kind} for {execution[:64]!r}, which is not under way")

    def _begin(self, envelope: Envelope, breach: Breach) -> None:
        execution = envelope.execution
        if not execution or self._is_asked_for(execution):
            raise breach("unexpected_message", f"an execution needs an id that is not in use, not {execution[:64]!r}")
        if not self._numbered:
            if envelope.sequence != self._serial + 1:
                raise breach("sequence_gap", f"execution {envelope.sequence} came where {self._serial + 1} was due")
            self._serial += 1
        machine = states.Machine("execution", states.EXECUTION, "sent" if self._numbered else "running")
        self._open[execution] = _Execution(machine, SequenceChecker())

    def _resume(self, envelope: Envelope, breach: Breach) -> None:
        execution = envelope.execution
        if not execution or self._is_asked_for(execution):
            raise breach("unexpected_message", f"{execution[:64]!r} is no execution, or under way on this link already")
        machine = states.Machine("execution", states.EXECUTION, "resumed")
        self._open[execution] = _Execution(machine, SequenceChecker(envelope.body["after"]))

    def _watch(self, envelope: Envelope, breach: Breach) -> None:
        """Who watches again is told again of what runs."""
        execution = envelope.execution
        if not execution or self._is_asked_for(execution):
            raise breach("unexpected_message", f"{execution[:64]!r} is no execution, or one that was asked for here")
        machine = states.Machine("execution", states.EXECUTION, "going on")
        self._open[execution] = _Execution(machine, SequenceChecker(), watched=True)

    def _is_asked_for(self, execution: str) -> bool:
        known = self._open.get(execution)
        return known is not None and not known.watched

    def _step(self, known: _Execution, envelope: Envelope, breach: Breach) -> None:
        state = known.machine.fire(envelope.type, breach)
        if envelope.type == "ack" and envelope.sequence:  # it tells of the start as well
            state = known.machine.fire("status", breach)
            known.checker.check(envelope.sequence)
        elif self._numbered and envelope.type != "ack":
            if envelope.type == "gap":
                known.checker.last += envelope.body["missing"] - 1
            known.checker.check(envelope.sequence, verdict=state == "done")
        if state == "done":
            del self._open[envelope.execution]


class _Stream:
    __slots__ = ("closed_here", "closed_there", "credit", "machine", "written_here")

    def __init__(self, *, written_here: bool) -> None:
        self.machine = states.Machine("stream", states.STREAM, "new")
        self.written_here = written_here
        self.credit = 0
        self.closed_here = self.closed_there = False


class Streams:
    """The streams of one link and the credit of their writers."""

    def __init__(self, limit: int = DEFAULT_LIMITS.streams) -> None:
        self._limit = limit
        self._open: dict[str, _Stream] = {}

    def __len__(self) -> int:
        return len(self._open)

    def credit(self, stream: str) -> int:
        """How many bytes the writer of a stream may still send; 0 for one that is not open."""
        known = self._open.get(stream)
        return known.credit if known else 0

    def note(self, envelope: Envelope, breach: Breach) -> None:
        """Take note of a stream's message, sent or received; raises `breach` when it is not allowed now."""
        kind, name, here = envelope.type, envelope.body["stream"], breach is LocalProtocolError
        known = self._open.get(name)
        if (known is None) != (kind == "stream_open"):
            raise breach("unexpected_message", f"{kind} for stream {name[:64]!r}, which is open already, or not open")
        if known is None:
            if len(self._open) >= self._limit:
                raise breach("unexpected_message", f"there are streams={self._limit} already")
            known = _Stream(written_here=here)
        elif kind == "stream_data":
            self._spend(known, envelope, breach)
        elif kind == "stream_credit" and known.written_here == here:
            raise breach("unexpected_message", "the writer of a stream cannot give itself credit")
        elif kind == "stream_close":
            self._close(known, breach)
        if known.machine.fire(kind, breach) == "closed":
            del self._open[name]
            return
        self._open[name] = known
        if kind == "stream_credit":
            known.credit += envelope.body["size"]

    def _spend(self, known: _Stream, envelope: Envelope, breach: Breach) -> None:
        here = breach is LocalProtocolError
        if known.written_here != here or (known.closed_here if here else known.closed_there):
            raise breach("unexpected_message", "only the writer of a stream sends data, and not after its own close")
        size = sum(memoryview(buffer).nbytes for buffer in envelope.buffers)
        if size > known.credit:
            raise breach("credit_exceeded", f"{size} bytes of stream data against a credit of {known.credit}")
        known.credit -= size

    def _close(self, known: _Stream, breach: Breach) -> None:
        here = breach is LocalProtocolError
        if known.closed_here if here else known.closed_there:
            raise breach("unexpected_message", "an end closes a stream once")
        if here:
            known.closed_here = True
        else:
            known.closed_there = True
