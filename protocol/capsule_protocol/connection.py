"""One end of a link: the stateful face of the protocol, without I/O and without a clock.

Whoever owns the transport hands in what it receives (`receive`), takes typed messages out (`next_event`) and sends the
frames that `send` answers. Both directions go through the same tables, so a message that the peer would refuse is
refused here first, as LocalProtocolError, before anything changed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from capsule_protocol import negotiation, states
from capsule_protocol.codec import decode, encode
from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, Need
from capsule_protocol.limits import DEFAULT_LIMITS, Limits
from capsule_protocol.messages import Message, parse
from capsule_protocol.messages.link import Hello, Welcome
from capsule_protocol.tracking import Breach, Executions, Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer, Envelope, Frames
    from capsule_protocol.negotiation import Agreement

_PEER: dict[tuple[states.Link, states.Role], states.Role] = {
    ("client", "client"): "node",
    ("client", "node"): "client",
    ("worker", "node"): "worker",
    ("worker", "worker"): "node",
}


class Received(NamedTuple):
    """A message of the peer: validated, and the envelope it came in."""

    message: Message
    envelope: Envelope


class Connection:
    """One end of the client link or of the worker link.

    A message that cannot be read (garbage, too large, unknown type) is raised once as RemoteProtocolError and the link
    goes on. A breach of the tables (`failed` is set) ends it: what both ends believe is no longer the same.
    """

    def __init__(
        self,
        link: states.Link,
        role: states.Role,
        *,
        features: frozenset[str] = frozenset(),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if (link, role) not in _PEER:
            raise LocalProtocolError("invalid_argument", f"the {link} link has no role {role!r}")
        self.agreement: Agreement | None = None
        self.failed: RemoteProtocolError | None = None
        self.executions = Executions(link)
        self.streams = Streams(limits.streams)
        self._features = features
        self._limits = limits
        self._role = role
        self._may_send = states.SENDS[link][role]
        self._peer_may_send = states.SENDS[link][_PEER[link, role]]
        self._machine = states.Machine(f"{link} link", states.LINKS[link], "new")
        self._inbox: deque[Sequence[Any]] = deque()

    def __repr__(self) -> str:
        return f"<Connection {self._role} {self._machine.name} {self.state} executions={len(self.executions)}>"

    @property
    def state(self) -> str:
        """The state of the link."""
        return self._machine.state

    @property
    def limits(self) -> Limits:
        """What holds now: this end's own limits, after the greeting the agreed ones."""
        return self.agreement.limits if self.agreement else self._limits

    def hello(self) -> Hello:
        """The greeting that this end would send."""
        return Hello(**negotiation.hello(self._role, self._features, self._limits))

    def welcome(self, epoch: int = 0) -> Welcome:
        """The answer to the `hello` that was received."""
        if self.agreement is None:
            raise LocalProtocolError("unexpected_message", "there is no agreement to welcome the peer to")
        return Welcome(**(negotiation.welcome(self.agreement) | {"epoch": epoch}))

    def receive(self, frames: Sequence[Any]) -> None:
        """Store what the transport brought: the frames of one message."""
        self._inbox.append(frames)

    def next_event(self) -> Received | Literal[Need.DATA]:
        """The peer's next message, or NEED_DATA. Raises RemoteProtocolError and nothing else."""
        if self.failed is not None:
            raise RemoteProtocolError(self.failed.code, f"the link has failed: {self.failed.message}")
        if not self._inbox:
            return NEED_DATA
        envelope = decode(self._inbox.popleft(), self.limits)
        message = parse(envelope)
        try:
            self._note(envelope, RemoteProtocolError)
            if isinstance(message, Welcome):
                self.agreement = negotiation.accept(envelope.body, self._features, self._limits)
        except RemoteProtocolError as error:
            self.failed = error
            raise
        if isinstance(message, Hello):
            # Outside: a peer with which there is no agreement gets an answer, so the link must not fail.
            self.agreement = negotiation.agree(envelope.body, self._features, self._limits)
        return Received(message, envelope)

    def send(
        self,
        message: Message,
        *,
        id: str = "",  # noqa: A002 (the header's own word)
        session: str = "",
        execution: str = "",
        buffers: tuple[Buffer, ...] = (),
        time: float = 0.0,
        background: bool = False,
    ) -> Frames:
        """The frames of a message, numbered where it needs a number; `background` output is not.

        Raises LocalProtocolError when the message is over a limit or not allowed now.
        """
        step = getattr(message, "missing", 1)
        sequence = 0 if background else self.executions.next_number(message.TYPE, execution, step)
        return self.transmit(
            message.envelope(id=id, session=session, execution=execution, sequence=sequence, time=time, buffers=buffers)
        )

    def transmit(self, envelope: Envelope) -> Frames:
        """The frames of a message that is known to be valid, numbered by the caller. Raises as `send` does."""
        frames = encode(envelope, self.limits)
        self._note(envelope, LocalProtocolError)
        return frames

    def _note(self, envelope: Envelope, breach: Breach) -> None:
        """All machines or none: the link's own only moves when the others agreed."""
        kind, here = envelope.type, breach is LocalProtocolError
        if kind not in (self._may_send if here else self._peer_may_send):
            raise breach("unexpected_message", f"{kind} is not for {'this' if here else 'that'} end to send")
        following = self._machine.check(kind, breach)
        if kind in states.STREAMS:
            self.streams.note(envelope, breach)
        else:
            self.executions.note(envelope, breach)
        self._machine.state = following
