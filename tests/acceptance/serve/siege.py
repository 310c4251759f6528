"""Connections that do whatever Hypothesis can think of, beside clients who must not notice."""

from __future__ import annotations

import struct
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from capsule import Client, SessionError
from capsule_protocol.codec import encode
from capsule_protocol.framing import pack
from tests.acceptance.serve.raw import ANYTHING, Raw, hello
from tests.acceptance.serve.support import LONG, UNOBEYED

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_protocol.envelope import Envelope
    from tests.acceptance.serve.support import Served

CONFIG = "max_sessions = 20\n[serve]\nclient_timeout = 20.0\nreconnect_timeout = 0.5\nmax_clients = 200\n"
GROWTH = 32 * 2**20
"""Bytes by which the node may be larger in the end; allocators keep something."""
MOST_HALF_OPEN = 50
OFFENCES = frozenset(
    {
        "invalid_message",
        "message_too_large",
        "unexpected_message",
        "sequence_gap",
        "credit_exceeded",
        "version_mismatch",
        "unsupported",
    }
)
NEIGHBOUR = """
import os, time
number = 0
while not os.path.exists({go!r}):
    print(number, flush=True)
    number += 1
    time.sleep(0.001)
"""


class Move(NamedTuple):
    """One thing that is done on a connection: `kind`, and what to do it with."""

    kind: str
    example: int = 0
    at: int = 0
    byte: int = 0
    data: bytes = b""


def _moves(*kinds: str, data: int = 0) -> st.SearchStrategy[Move]:
    return st.tuples(
        st.sampled_from(kinds),
        st.integers(0, len(UNOBEYED) - 1),
        st.integers(0, 2**16),
        st.integers(0, 255),
        st.binary(max_size=data),
    ).map(lambda fields: Move(*fields))


# A connection that sends no frames any more would swallow what follows: that comes last.
CONNECTION = st.builds(
    lambda greeting, middle, last: [*greeting, *middle, *last],
    st.sampled_from([[Move("hello"), Move("attach")], [Move("hello")], []]),
    st.lists(_moves("message", "message", "cut", "flip", "again", "attach", "deep", "buffers"), min_size=1, max_size=8),
    st.one_of(st.just([]), st.lists(_moves("bytes", "frame", "frames", "oversized", data=64), min_size=1, max_size=2)),
)


class Siege:
    """Of a service with CONFIG. `attack` makes one connection; `end` says whether all is as it was."""

    def __init__(self, served: Served, place: Path) -> None:
        self.sent: Counter[str] = Counter()
        self._served = served
        self._node = psutil.Process(served.process.pid)
        self._go = place / "go"
        self._client = Client(served.address)
        self._session = self._client.session()
        self._busy = self._client.session()
        self._events = iter(self._busy.stream(NEIGHBOUR.format(go=str(self._go))))
        self._half_open: list[Raw] = []
        self._answered = 0
        self._count = 0
        self._prey = self._bait()
        self.attack([[Move("hello"), Move("attach"), Move("message", number)] for number in range(len(UNOBEYED))])
        self._half_open.pop().close()
        self._settle()
        self._before = self._node.num_fds(), self._node.memory_info().rss, self._client.info().offences
        self._answered = 0

    def attack(self, connections: list[list[Move]]) -> None:
        """Say all that, hear what the node has to say, and see that the neighbour goes on."""
        for moves in connections:
            self._connect(moves)
        self._half_open.append(Raw(self._served.address))
        greeting = b"".join(pack(encode(hello()), ANYTHING))
        self._half_open[-1].write(greeting[: self._count % len(greeting)])
        if len(self._half_open) > MOST_HALF_OPEN:
            self._half_open.pop(0).close()
        self._count += 1
        assert self._session.run("count = globals().get('count', 0) + 1; count").text == str(self._count)
        self._prey = self._bait()

    def _connect(self, moves: list[Move]) -> None:
        with Raw(self._served.address) as raw:
            last = b""
            for move in moves:
                last = last if move.kind == "again" else self._bytes(move)
                self.sent[move.kind] += 1
                if not raw.write(last):
                    break
            raw.stop_talking()
            while (message := raw.hear()) is not None:
                self._answered += is_offence(message)

    def end(self) -> None:
        """All is as it was: descriptors, memory, sessions. Each offence counts, and the neighbour has all events."""
        for raw in self._half_open:
            raw.close()
        self._go.touch()
        text = "".join(getattr(event, "text", "") for event in self._events)
        assert text == "".join(f"{number}\n" for number in range(text.count("\n")))
        self._busy.close()
        self._busy = self._client.session()
        self._settle()
        descriptors, memory, offences = self._before
        assert self._node.is_running()
        assert self._client.info().offences - offences == self._answered
        assert self._answered > 0
        wait_until(lambda: self._node.num_fds() <= descriptors)
        log = self._served.log.read_text()
        assert "Traceback" not in log, log[log.index("Traceback") :][:4000]
        assert self._node.memory_info().rss - memory < GROWTH

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._go.touch()
        for raw in self._half_open:
            raw.close()
        self._client.close()

    def _bait(self) -> str:
        """The id of the session `mine`, which the examples name, and which one of them may have closed."""
        with Client(self._served.address) as client:
            try:
                session = client.attach("mine")
            except SessionError:
                session = client.session(name="mine")
            session.detach()
            return session.id

    def _settle(self) -> None:
        """Only these clients are left, and their two sessions; the pool is at rest."""
        with Client(self._served.address) as client:
            client.attach(self._bait()).close()
        wait_until(self._is_settled)

    def _is_settled(self) -> bool:
        info = self._client.info()
        pool = info.pools["default"]
        counts = info.clients, info.sessions, pool.in_use, pool.starting, pool.closing
        return counts == (1, 2, 2, 0, 0) and pool.idle == pool.min_idle

    def _bytes(self, move: Move) -> bytes:
        if move.kind == "oversized":
            return struct.pack(">QI", 2**27 << move.at % 37, 2)
        if move.kind == "bytes":
            return move.data
        return b"".join(pack(frames_of(move, self._prey), ANYTHING))


def frames_of(move: Move, prey: str) -> list[Any]:
    """The message that a move stands for; `prey` is the id of a session that examples are about."""
    match move.kind:
        case "hello":
            return list(encode(hello(f"c_{move.example}")))
        case "attach":
            return list(encode(hello()._replace(type="attach", body={"name": "mine"}, id="m_1")))
        case "frame" | "frames":
            return [move.data] * (1 if move.kind == "frame" else 3)
        case "deep":
            body: Any = []
            for _ in range(60):
                body = [body]
            return list(encode(hello()._replace(body={"versions": body})))
        case "buffers":
            return [*encode(hello()), *[b""] * 1025]
    return _damaged(move, prey)


def _damaged(move: Move, prey: str) -> list[Any]:
    """A message of the examples, whole or not."""
    _, envelope = UNOBEYED[move.example]
    if envelope.session:
        envelope = envelope._replace(session=prey)
    frames = [bytes(frame) for frame in encode(envelope)]
    if move.kind != "message":
        at = move.at % len(frames)
        frame = bytearray(frames[at] or b"x")
        place = move.at % len(frame)
        frame[place] = move.byte
        frames[at] = bytes(frame[:place] if move.kind == "cut" else frame)
    return frames


def is_offence(message: Envelope) -> bool:
    """Whether the node says so."""
    refusal = message.type == "error" and not message.execution and not message.body["reply_to"]
    return refusal and message.body["code"] in OFFENCES


def lay(siege: Siege, attacks: int) -> None:
    """So many attacks, each of 3 to 12 connections, and about 50 messages."""

    @settings(
        max_examples=attacks,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(CONNECTION, min_size=3, max_size=12))
    def attack(connections: list[list[Move]]) -> None:
        siege.attack(connections)

    attack()


def wait_until(is_true: Callable[[], bool]) -> None:
    """The node does it by its own clock, and tells nobody."""
    until = time.monotonic() + LONG
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.02)
