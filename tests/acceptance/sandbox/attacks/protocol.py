"""Attacks on the node by what a worker may say: code finds the worker's descriptors, and writes there itself.

The node takes it that any worker may be hostile, sandboxed or not. What it cannot believe costs the worker its life;
the neighbour goes on, and the node neither grows nor waits.
"""

from __future__ import annotations

import array
import asyncio
import gc
import os
import pickle
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from capsule_protocol.errors import SessionError
from tests.acceptance.sandbox.attacks.attack import Collection
from tests.acceptance.sandbox.attacks.siege import Attacker
from tests.acceptance.sandbox.attacks.toolbox import Prey

MIB = 2**20
GROWTH = 256 * MIB
"""The node takes so much at most for a message of 64 MiB that it is going to refuse."""
DESCRIPTORS = 32
TOO_LONG = 30.0
UNTRUSTED = "the node trusts no worker, sandboxed or not"

collection = Collection()


def attack(**known: Any) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """All of them have the same conditions."""
    return collection(**{"timeout": 90.0, **known}, control="held", why=UNTRUSTED, dies=True, beside=is_disturbed)


async def is_disturbed(attacker: Attacker) -> str | None:
    """Whether the neighbour waits, or the node grows: while the attack runs, and once more when it is over."""
    neighbour = attacker.siege.neighbours[attacker.level]
    node = psutil.Process(attacker.siege.node.process.pid)
    loop, files = asyncio.get_running_loop(), node.num_fds()
    over = False
    while not over:
        over = attacker.result is not None
        begun = loop.time()
        result = await neighbour.run("6 * 7", timeout=60.0)
        if result.text != "42" or loop.time() - begun > TOO_LONG:
            return f"the neighbour answered {result.verdict} after {loop.time() - begun:.1f} s"
        if attacker.siege.node_memory() - attacker.before["node"] > GROWTH:
            return f"the node has grown to {attacker.siege.node_memory() // MIB} MiB"
        if node.num_fds() > files + DESCRIPTORS:
            return f"the node has {node.num_fds()} descriptors, and had {files}"
        await asyncio.sleep(0.05)
    return None


async def was_believed(attacker: Attacker) -> str | None:
    """Whether the worker lives after it has said what none can say."""
    result = attacker.result
    if result is None or result.verdict in {"worker_lost", "killed", "crashed"}:
        return None
    return f"the code went on, and ended with {result.verdict}"


class Forger:
    """The sockets of the worker, found among its descriptors, and what the node takes for messages."""

    def __init__(self) -> None:
        self.links = [found for name in ("shell.sock", "control.sock") for found in connections(name)]
        assert len(self.links) == 2, "the worker's sockets are not found"
        publisher = next(found for found in gc.get_objects() if type(found).__name__ == "Publisher")
        self.execution = publisher._names[publisher.serial]
        self.outlet = next(found for found in gc.get_objects() if type(found).__name__ == "Outlet")

    def write(self, data: bytes) -> None:
        """Bytes on each of its links."""
        for link in self.links:
            try:
                link.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                continue

    def frames(self, *frames: bytes) -> None:
        """A message of these frames, whatever is in them."""
        table = len(frames).to_bytes(4, "big") + b"".join(len(frame).to_bytes(8, "big") for frame in frames)
        size = len(table) + sum(map(len, frames))
        self.write(size.to_bytes(8, "big") + table + b"".join(frames))

    def header(self, kind: str, execution: str = "", session: str = "") -> bytes:
        """That of a message which the node might believe."""
        from capsule_protocol import codec
        from capsule_protocol.envelope import Envelope

        return bytes(codec.encode(Envelope(kind, {}, execution=execution, session=session))[0])

    def body(self, data: bytes, kind: str = "display") -> None:
        """This as the body of a message for the cell that runs."""
        self.frames(self.header(kind, self.execution), data)

    def say(self, kind: str, body: dict[str, Any], execution: str | None = None, session: str = "") -> None:
        """A whole and well-formed message, on the link that carries executions."""
        from capsule_protocol import codec, framing
        from capsule_protocol.envelope import Envelope

        name = self.execution if execution is None else execution
        frames = codec.encode(Envelope(kind, body, execution=name, session=session))
        self.links[0].sendall(b"".join(framing.pack(frames)))

    def result(self, **more: Any) -> dict[str, Any]:
        """The body of a verdict."""
        common = {"verdict": "ok", "text": "forged", "data": {}, "metadata": {}, "execution_count": 1}
        return {**common, "duration": 0.0, "fence": 0, **more}


def wait() -> None:
    """For the end: the node kills who is not to be believed."""
    time.sleep(60)


@attack(after=was_believed)
def say_garbage(prey: Prey) -> None:
    Forger().frames(b"\xff\x00garbage", b"\xc1\xc1")
    wait()


@attack(after=was_believed)
def say_that_much_will_come(prey: Prey) -> None:
    """A size of 2^63 bytes, and as many frames as a number can tell."""
    Forger().write((2**63).to_bytes(8, "big") + (2**32 - 1).to_bytes(4, "big"))
    wait()


@attack(after=was_believed)
def say_more_than_fits(prey: Prey) -> None:
    forger = Forger()
    for _ in range(3):
        forger.body(bytes(65 * MIB))
    wait()


@attack(after=was_believed)
def say_it_in_too_many_pieces(prey: Prey) -> None:
    forger = Forger()
    forger.frames(forger.header("display", forger.execution), b"\x80", *[b""] * 100_000)
    wait()


@attack(after=was_believed)
def have_a_header_without_end(prey: Prey) -> None:
    Forger().frames(b"\xdd\x03\x00\x00\x00" + b"\x90" * (48 * MIB), b"\x80")
    wait()


@attack(after=was_believed)
def nest_without_end(prey: Prey) -> None:
    forger = Forger()
    for begin in (b"\x81\xa1a", b"\x91", b"\xdc\x00\x01"):
        forger.body(b"\x81\xa4data" + begin * 1_000_000 + b"\xc0")
    wait()


@attack(after=was_believed)
def lie_about_lengths(prey: Prey) -> None:
    """Arrays, maps, texts, bytes and extensions of four thousand million items, and none of them there."""
    forger = Forger()
    for begin in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        forger.body(b"\x81\xa4data" + begin + b"\xff" * 4)
    wait()


@attack(after=was_believed)
def send_many_small_things(prey: Prey) -> None:
    """A byte can become an object of sixty: 60 MiB would be gigabytes."""
    forger = Forger()
    for item in (b"\x90", b"\x80", b"\xa0", b"\xc2", b"\xcb" + bytes(8)):
        count = 60 * MIB // len(item)
        forger.body(b"\x81\xa4data\xdd" + count.to_bytes(4, "big") + item * count)
    wait()


@attack(after=was_believed)
def send_many_small_things_in_levels(prey: Prey) -> None:
    """No array is long, and all together are."""
    forger = Forger()
    level = b"\xc0"
    for _ in range(23):
        level = b"\x92" + level + level
    forger.body(b"\x81\xa4data" + level)
    wait()


@attack(after=was_believed)
def have_keys_collide(prey: Prey) -> None:
    """All multiples of 2^61 - 1 have the same hash: a map of them takes hours to fill."""
    keys = b"".join(b"\xcf" + ((2**61 - 1) * number % 2**64).to_bytes(8, "big") + b"\xc0" for number in range(200_000))
    forger = Forger()
    forger.body(b"\x81\xa4data\xdf" + (200_000).to_bytes(4, "big") + keys)
    wait()


@attack(after=was_believed)
def use_extension_types(prey: Prey) -> None:
    """Times, and types of applications, in a body of which nothing else is wrong."""
    Forger().body(b"\x81\xa4data\x81\xa1t\xd7\xff" + bytes(8))
    wait()


def connections(path: str) -> list[socket.socket]:
    """The worker's end of what is connected to this path, found by its number."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                there = socket.socket(fileno=os.dup(int(name)))
                there.getpeername()
                if str(there.getsockname()).endswith(path):
                    there.settimeout(60)
                    found.append(there)
    return found


class Trap:
    """Whoever loads its pickle leaves a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


async def was_loaded(attacker: Attacker) -> str | None:
    """Whether somebody outside the sandbox has loaded it."""
    trace = f"{attacker.before['told']['outside']}/loaded"
    return "it was loaded" if os.path.exists(trace) else None


@attack(after=was_loaded)
def send_pickles(prey: Prey) -> None:
    forger = Forger()
    data = pickle.dumps(Trap(f"{prey.outside}/loaded"))
    bundle = {"data": {"application/x-pickle": data, "text/plain": "x"}, "metadata": {}, "fence": 0}
    forger.say("display", {**bundle, "display_id": None, "update": False})
    time.sleep(0.5)
    forger.frames(forger.header("display", forger.execution), data, data)
    wait()


@attack(after=was_believed)
def speak_for_the_neighbour(prey: Prey) -> None:
    """Its session, and the execution that it has just had."""
    forger = Forger()
    forger.say("result", forger.result(), prey.neighbour["execution"], prey.neighbour["session"])
    wait()


@attack(after=was_believed)
def end_what_never_began(prey: Prey) -> None:
    forger = Forger()
    forger.say("result", forger.result(), "x_AAAAAAAAAAAAAAAA")
    wait()


async def has_one_verdict(attacker: Attacker) -> str | None:
    """A forged verdict counts for the forger's own cell; whatever follows it must not be believed."""
    try:
        again = await attacker.session.run("1", timeout=20.0)
    except SessionError:
        return None
    return f"another cell ended with {again.verdict}" if again.verdict == "ok" else None


@attack(after=has_one_verdict)
def end_twice(prey: Prey) -> None:
    """The same bytes again: a replay."""
    forger = Forger()
    for _ in range(3):
        forger.say("result", forger.result())
    wait()


@attack(after=was_believed)
def greet_again(prey: Prey) -> None:
    """As a worker of another process, whose signals the neighbour would get."""
    forger = Forger()
    ready = {"pid": prey.neighbour["worker"], "python": "3", "implementation": "x", "worker": "x"}
    forger.say("ready", ready, "")
    wait()


@attack(after=was_believed)
def say_what_only_clients_say(prey: Prey) -> None:
    forger = Forger()
    forger.say("execute", {"code": "1"}, prey.neighbour["execution"], prey.neighbour["session"])
    wait()


@attack(after=was_believed)
def rule_as_an_operator(prey: Prey) -> None:
    forger = Forger()
    for kind in ("kill", "drain", "session_close", "interrupt", "open", "hello"):
        forger.say(kind, {"session": prey.neighbour["session"], "name": prey.neighbour["session"]}, "")
    wait()


@attack()
def answer_what_nobody_asked(prey: Prey) -> None:
    """Replies with made-up numbers, and heartbeats of the future: at worst the worker is ended."""
    forger = Forger()
    for number in range(200):
        forger.say("complete_reply", {"reply_to": f"m_{number:016}", "matches": [], "start": 0, "end": 0}, "")
        forger.say("heartbeat", {"reply_to": f"m_{number:016}", "time": 2.0**62}, "")


@attack(after=was_believed)
def claim_output_of_later_cells(prey: Prey) -> None:
    from capsule_protocol import marks

    os.write(1, marks.pack(Forger().outlet._token, 10**9, 0, 0))
    wait()


@attack(after=was_believed)
def pass_a_fence_twice(prey: Prey) -> None:
    from capsule_protocol import marks

    token = Forger().outlet._token
    for descriptor in (1, 2):
        for _ in range(2):
            os.write(descriptor, marks.pack(token, 1, 1, 1))
    wait()


@attack()
def scribble_on_the_shared_page(prey: Prey) -> None:
    """The node reads numbers there while they change."""
    page = Forger().outlet._page
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for slot in range(0, 88, 8):
            page.set(slot, int.from_bytes(os.urandom(8), "little"))
        os.write(1, b"x" * 1000)


@attack()
def fill_the_pipes_with_marks(prey: Prey) -> None:
    """Random bytes behind the token that begins a mark."""
    token = Forger().outlet._token
    for number in range(20_000):
        os.write(1 + number % 2, token + os.urandom(24))


@attack(timeout=3.0)
def say_half_and_wait(prey: Prey) -> None:
    """The node waits for the rest without waiting for it."""
    forger = Forger()
    forger.write((1000).to_bytes(8, "big") + b"\0\0")
    time.sleep(1)


@attack(timeout=3.0)
def hand_over_descriptors(prey: Prey) -> None:
    """Each message has as many with it as a message can have: they must not stay with the node."""
    forger = Forger()
    own = [os.open("/dev/null", os.O_RDONLY) for _ in range(250)]
    told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", own))]
    for link in forger.links:
        for _ in range(20):
            link.sendmsg([(1000).to_bytes(8, "big")], told)


@attack()
def ask_without_end(prey: Prey) -> None:
    """More questions than any client answers."""
    forger = Forger()
    for number in range(20_000):
        asked = {"request": f"r{number}", "prompt": "?" * 100, "password": False}
        forger.say("input_request", {**asked, "choices": None, "json_schema": None, "timeout": None})


@attack()
def show_without_end(prey: Prey) -> None:
    """Large displays, faster than anybody reads them."""
    forger = Forger()
    bundle = {"data": {"text/plain": "x" * MIB}, "metadata": {}, "display_id": None, "update": False, "fence": 0}

    for _ in range(100):
        forger.say("display", bundle)


@attack()
def speak_as_the_box(prey: Prey) -> str | None:
    """The lease, on which the box tells of the worker's end, must not be among the worker's descriptors."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as there:
                if there.type == socket.SOCK_SEQPACKET:
                    there.send(b"\x81\xa4gone\xc3")
                    return f"descriptor {name} is a lease"
        except OSError:
            continue
    return None


@attack()
def leave_by_a_link_in_its_box(prey: Prey) -> None:
    """What is in the box's directory the node opens; here other things lie under these names."""
    box = os.path.dirname(os.getcwd())
    theirs = os.path.dirname(prey.neighbour["scratch"])
    for name in ("shell.sock", "control.sock", "box.sock", "checkpoints", "cells"):
        with suppress(OSError):
            os.rename(f"{box}/{name}", f"{box}/{name}.was")
        with suppress(OSError):
            os.symlink(f"{theirs}/{name}", f"{box}/{name}")
