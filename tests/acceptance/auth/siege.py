"""A siege over the network: clients with a key and strangers do whatever Hypothesis can think of, beside one who must
not notice."""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from capsule import Client, SessionError
from capsule.keys import read
from tests.acceptance.auth.zmtp import GREETING, MORE, RawTcp, connected
from tests.acceptance.serve.siege import GROWTH, MOST_HALF_OPEN, NEIGHBOUR, Move, frames_of, is_offence, wait_until
from tests.acceptance.serve.support import UNOBEYED

if TYPE_CHECKING:
    import socket

    from tests.acceptance.auth.support import Guarded

CONFIG = """
client_timeout = 20.0
reconnect_timeout = 0.5
detached_ttl = 5.0
max_clients = 200
[serve.quotas.hostile]
sessions = 3
"""
KINDS: Final = ("message", "message", "message", "cut", "flip", "again", "attach", "deep", "buffers", "frames")
LAST: Final = ("nothing", "noise", "halved", "parts", "flipped", "replayed", "huge")
"""What a connection with a key ends with, on the wire."""
BREAKING: Final = frozenset({"flipped", "replayed", "huge"})
"""Of these, what ZeroMQ notices at once: it hangs up."""
_PATIENT = 192
_MOVE = struct.Struct(">BBHB")
LARGEST_PIECE = 300
"""Bytes of a stranger's noise, at most."""


class Program(bytes):
    """One connection: its first two bytes say how it begins and ends, the others what it says meanwhile."""

    @property
    def last(self) -> str:
        return LAST[self[1] % len(LAST)]

    @property
    def is_patient(self) -> bool:
        """Whether it says nothing that could end it before the last."""
        return self[1] >= _PATIENT

    def moves(self, client: int) -> list[Move]:
        """In order, without what comes last; as this client, for a node drops an earlier connection of the same one."""
        hello, attach = Move("hello", client), Move("attach")
        if self.is_patient:
            return [hello]
        body = self[2 : 2 + (len(self) - 2) // _MOVE.size * _MOVE.size]
        middle = [
            Move(KINDS[kind % len(KINDS)], example % len(UNOBEYED), at, byte, body[: at % 64])
            for kind, example, at, byte in _MOVE.iter_unpack(body)
        ]
        return [*[[hello, attach], [hello], [hello], []][self[0] % 4], *middle]


AT_ONCE = 48
PROGRAM = st.binary(min_size=2 + 4 * _MOVE.size, max_size=2 + 16 * _MOVE.size).map(Program)
STRANGER = st.tuples(st.integers(0, 3 * len(GREETING)), st.binary(max_size=LARGEST_PIECE))
"""How much of a greeting a stranger sends, and what comes then."""


class NetworkSiege:
    """Of a node with CONFIG. `end` says whether all is as it was."""

    def __init__(self, node: Guarded) -> None:
        self.sent: Counter[str] = Counter()
        self._node = node
        self._process = psutil.Process(node.process.pid)
        key = node.new("hostile")
        self._key = read(key)
        self._hostile = Client(node.tcp, key=key)
        self._operator = Client(node.ipc)
        self._client = Client(node.tcp, key=node.new("neighbour"))
        self._session = self._client.session()
        self._busy = self._client.session()
        self._go = node.folder / "go"
        self._events = iter(self._busy.stream(NEIGHBOUR.format(go=str(self._go))))
        self._half_open: list[socket.socket] = []
        self._offences = 0
        self._count = 0
        self._bait()
        self.attack([Program(bytes([0, 0]) + bytes([0, number % len(UNOBEYED), 0, 0, 0])) for number in range(8)], [])
        self._settle()
        self._before = self._process.num_fds(), self._process.memory_info().rss, self._operator.info().offences
        self._offences = 0

    def attack(self, programs: list[Program], strangers: list[tuple[int, bytes]]) -> None:
        """All of them at once; then the neighbour goes on."""
        for size, noise in strangers:
            self._intrude(GREETING[:size] + noise)
        with ExitStack() as stack:
            raws = [stack.enter_context(RawTcp(self._node.tcp, self._key)) for _ in programs]
            ends = [
                self._speak(raw, program.moves(number))
                for number, (raw, program) in enumerate(zip(raws, programs, strict=True))
            ]
            living = [self._heard_out(raw) for raw in raws]
            for raw, program, end, lives in zip(raws, programs, ends, living, strict=True):
                if lives:
                    self._break(raw, program.last, end)
        self._count += 1
        assert self._session.run("count = globals().get('count', 0) + 1; count").text == str(self._count)
        self._bait()

    def _speak(self, raw: RawTcp, moves: list[Move]) -> bytes:
        """What was said last, as it travelled."""
        data, frames = b"", frames_of(Move("hello"), self._prey)
        for move in moves:
            if move.kind != "again":
                frames = frames_of(move, self._prey)
            data = raw.sealed_message(frames)
            self.sent[move.kind] += 1
            if not raw.write(data):
                break
        raw.say("info", {}, id_="m_end")
        return data

    def _heard_out(self, raw: RawTcp) -> bool:
        """Hear all answers; whether the connection is still there."""
        while (message := raw.hear()) is not None:
            self._offences += is_offence(message)
            if message.body.get("reply_to") == "m_end":
                return message.type == "info_reply"
        return False

    def _break(self, raw: RawTcp, last: str, said: bytes) -> None:
        self.sent[last] += 1
        sealed = raw.sealed(b"x" * LARGEST_PIECE)
        match last:
            case "noise":
                raw.write(bytes(range(self._count % 256)))
            case "halved":
                raw.write(sealed[: self._count % len(sealed)])
            case "parts":
                raw.write(b"".join(raw.sealed(b"x", MORE) for _ in range(self._count % 30)))
            case "flipped":
                raw.write(sealed[:-1] + bytes([sealed[-1] ^ 1]))
            case "replayed":
                raw.write(said)
            case "huge":
                raw.write(struct.pack(">BQ", 2, 2**27 << self._count % 37))
        if last in BREAKING:
            assert raw.hung_up()
            self._offences += 1

    def _intrude(self, data: bytes) -> None:
        self.sent["stranger"] += 1
        stranger = connected(self._node.tcp)
        with suppress(OSError):
            stranger.sendall(data)
        if len(data) % 2:
            stranger.close()
        else:
            self._half_open.append(stranger)
        if len(self._half_open) > MOST_HALF_OPEN:
            self._half_open.pop(0).close()

    def end(self) -> None:
        """All is as it was: descriptors, memory, sessions. Each offence counts, and the neighbour has all events."""
        for stranger in self._half_open:
            stranger.close()
        self._go.touch()
        text = "".join(getattr(event, "text", "") for event in self._events)
        assert text == "".join(f"{number}\n" for number in range(text.count("\n")))
        self._busy.close()
        self._busy = self._client.session()
        self._settle()
        descriptors, memory, offences = self._before
        wait_until(lambda: self._process.num_fds() <= descriptors)
        assert self._process.is_running()
        assert self._operator.info().offences - offences >= self._offences > 0
        assert "Traceback" not in self._node.log.read_text(encoding="utf-8")
        assert self._process.memory_info().rss - memory < GROWTH

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._go.touch()
        for stranger in self._half_open:
            stranger.close()
        for client in (self._client, self._hostile, self._operator):
            client.close()

    def _bait(self) -> None:
        """The session `mine`, which the examples name, and which one of them may have closed."""
        wait_until(self._has_bait)

    def _has_bait(self) -> bool:
        """False while all sessions that they may have are others, which nobody comes back for."""
        try:
            session = self._hostile.attach("mine")
        except SessionError:
            try:
                session = self._hostile.session(name="mine")
            except SessionError as error:
                if error.code not in {"quota_exceeded", "name_taken"}:
                    raise
                return False
        session.detach()
        self._prey = session.id
        return True

    def _settle(self) -> None:
        """Only these clients are left, and the neighbour's two sessions."""
        self._hostile.attach("mine").close()
        wait_until(self._is_settled)
        self._bait()
        wait_until(lambda: self._operator.info().pools["default"].idle == 1)

    def _is_settled(self) -> bool:
        info = self._operator.info()
        return (info.clients, info.sessions, info.pools["default"].in_use) == (3, 2, 2)


def lay(siege: NetworkSiege, attacks: int) -> None:
    """So many attacks, each of 48 connections with a key and some 400 messages, and of 10 to 40 strangers."""

    @settings(
        max_examples=attacks,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(PROGRAM, min_size=AT_ONCE, max_size=AT_ONCE), st.lists(STRANGER, min_size=10, max_size=40))
    def attack(programs: list[Program], strangers: list[tuple[int, bytes]]) -> None:
        siege.attack(programs, strangers)

    attack()
