"""The worker's two sockets: what goes over which, limits, answers of the I/O thread, and held text that it flushes."""

from __future__ import annotations

import os
import queue
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from capsule_kernels.channel import PRIVATE, Channel
from capsule_kernels.link import failure, unknown_type
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import LocalProtocolError
from capsule_protocol.limits import Limits
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import PATIENCE, Linked


@alone
def test_both_sockets_are_bound_before_anything_runs() -> None:
    rig = Linked()
    assert sorted(path.name for path in Path(rig.directory).iterdir()) == ["control.sock", "shell.sock"]


@alone
def test_messages_of_the_shell_socket_in_their_order() -> None:
    rig = Linked()
    assert rig.link.receive(wait=False) is None
    for number in range(100):
        rig.send(rig.shell, "execute", {"code": ""}, sequence=number)
    for number in range(100):
        envelope = rig.link.receive(wait=True)
        assert envelope is not None
        assert envelope.sequence == number
    for number in range(100):
        rig.link.send(Envelope("result", {"n": number}))
    assert [rig.message(rig.shell).body["n"] for _ in range(100)] == list(range(100))


@alone
def test_a_message_over_the_limit_is_refused_and_the_link_goes_on() -> None:
    rig = Linked(message_bytes=10_000)
    for send in (rig.link.send, rig.link.check):
        with pytest.raises(LocalProtocolError) as caught:
            send(Envelope("result", {"text": "x" * 20_000}))
        assert caught.value.code == "message_too_large"
    rig.link.send(Envelope("result", {"text": "y"}))
    assert rig.message(rig.shell).body == {"text": "y"}
    assert Limits().message_bytes > 10_000


@alone
def test_a_thread_that_sends_too_much_gets_the_error_itself() -> None:
    rig = Linked(message_bytes=10_000)
    rig.link.start({})
    caught: list[BaseException] = []

    def work() -> None:
        try:
            rig.link.send(Envelope("display", {"text": "x" * 20_000}))
        except LocalProtocolError as error:
            caught.append(error)
        rig.link.send(Envelope("display", {"text": "y"}))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert rig.message(rig.control).body == {"text": "y"}


@alone
def test_a_thread_that_sends_more_than_the_node_reads_waits() -> None:
    rig = Linked()
    rig.link.start({})
    many = 300  # more than the system's buffers hold

    def work() -> None:
        for number in range(many):
            rig.link.send(Envelope("progress", {"n": number, "text": "x" * 10_000}))

    def waits() -> bool:
        room, _, _ = select.select([rig.link._room], [], [], 0)
        return not room

    thread = threading.Thread(target=work)
    thread.start()
    while not waits():
        assert thread.is_alive(), "nobody has read, and all is sent"
        os.sched_yield()
    assert [rig.message(rig.control).body["n"] for _ in range(many)] == list(range(many))
    thread.join()


@alone
def test_control_is_served_while_the_main_thread_is_busy() -> None:
    rig = Linked()
    taken: list[Envelope] = []
    names: list[str] = []

    def handle(envelope: Envelope) -> None:
        taken.append(envelope)
        names.append(threading.current_thread().name)
        rig.link.answer(envelope, Envelope("heartbeat", {"number": envelope.body["number"]}))

    rig.link.start({"heartbeat": handle})
    for number in range(3):
        rig.send(rig.control, "heartbeat", {"number": number}, session="s_1")
    answers = [rig.message(rig.control) for _ in range(3)]
    assert [answer.body["number"] for answer in answers] == [0, 1, 2]
    assert {answer.session for answer in answers} == {"s_1"}
    assert set(names) == {"capsule-io"}


@alone
def test_an_unknown_message_is_answered_as_unsupported() -> None:
    rig = Linked()
    rig.link.start({})
    rig.send(rig.control, "from_the_future", {}, id="m_5", session="s_1")
    answer = rig.message(rig.control)
    assert (answer.type, answer.session) == ("error", "s_1")
    assert (answer.body["code"], answer.body["reply_to"], answer.body["verdict"]) == ("unsupported", "m_5", "")
    assert "from_the_future" in answer.body["message"]
    assert unknown_type(Envelope("x", {}, id="m_1")).body["reply_to"] == "m_1"
    assert failure(Envelope("x", {}, execution="x_1"), "code", "words", hint="do").execution == "x_1"


@alone
def test_signals_are_the_main_threads() -> None:
    rig = Linked()
    rig.link.start({"heartbeat": lambda _envelope: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))})
    masks: list[set[int]] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    rig.send(rig.control, "heartbeat", {})
    while not masks:
        os.sched_yield()
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGRTMIN + 5} <= masks[0]
    assert signal.SIGINT not in before


@alone
def test_held_text_is_flushed_though_the_main_thread_prints_no_more() -> None:
    rig = Linked()
    rig.link.start({})
    write = rig.outlet.writer(0)
    found = b""
    for number in range(50):
        write(f"{number},")
    wanted = "".join(f"{number}," for number in range(50)).encode()
    while found != wanted:  # no flush, no end of a cell: the I/O thread does it
        found += rig.text(0)
        assert wanted.startswith(found)


@alone
def test_what_was_said_before_the_end_arrives() -> None:
    rig = Linked()
    rig.send(rig.shell, "execute", {"code": ""})  # which nobody reads any more
    rig.link.send(Envelope("result", {"last": True}))
    rig.link.close()
    assert rig.message(rig.shell).body == {"last": True}


@alone
def test_a_large_message_comes_whole_in_both_directions() -> None:
    rig = Linked()
    text = "x" * 5_000_000  # many times what the socket holds
    said: list[Envelope | None] = []
    reader = threading.Thread(target=lambda: said.append(rig.message(rig.shell)))
    reader.start()
    rig.link.send(Envelope("result", {"text": text}, buffers=(b"y" * 3_000_000, b"", b"z")))
    reader.join()
    assert said[0] is not None
    assert said[0].body == {"text": text}
    assert [bytes(buffer) for buffer in said[0].buffers] == [b"y" * 3_000_000, b"", b"z"]
    writer = threading.Thread(target=rig.send, args=(rig.shell, "execute", {"code": text}))
    writer.start()
    taken = rig.link.receive(wait=True)
    writer.join()
    assert taken is not None
    assert taken.body == {"code": text}


@alone
def test_a_node_that_has_gone_is_an_error_and_not_an_endless_wait() -> None:
    rig = Linked()
    rig.send(rig.shell, "execute", {"code": ""}, sequence=1)
    rig.shell.close()
    envelope = rig.link.receive(wait=True)
    assert envelope is not None
    with pytest.raises(EOFError, match="the node has gone"):
        rig.link.receive(wait=True)


@alone
def test_the_sockets_are_out_of_the_way_of_user_code_and_not_inherited() -> None:
    rig = Linked()
    for descriptor in (rig.link.shell_descriptor, rig.link._control.fileno()):
        assert descriptor >= PRIVATE
        assert not os.get_inheritable(descriptor)


@alone
def test_a_time_limit_that_a_preload_sets_for_sockets_is_not_the_links() -> None:
    directory = tempfile.mkdtemp(prefix="rig-")
    socket.setdefaulttimeout(0.001)
    channel = Channel(f"{directory}/shell.sock", Limits())
    accepting = threading.Thread(target=channel.accept)
    accepting.start()
    accepting.join(0.05)
    assert accepting.is_alive(), "it waits for the node only so long"
    node = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    node.connect(f"{directory}/shell.sock")
    accepting.join()
    assert channel.receive() is None
    node.close()
    shutil.rmtree(directory)


@contextmanager
def between_lines(functions: tuple[str, ...], say: Callable[[], None]) -> Iterator[list[str]]:
    """Say something between any two lines of these functions, as user code may that the garbage collector runs."""
    said: list[str] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        line = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        if not line.startswith(functions):
            return None
        if event == "line" and said.count(line) < 5:
            said.append(line)
            say()
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield said
    finally:
        sys.settrace(None)
        threading.settrace(None)


@alone
def test_what_is_said_in_the_midst_of_a_message_follows_it() -> None:
    """The garbage collector closes widgets, for instance, and may run where a signal has cut a large message."""
    rig = Linked()
    kinds: list[str] = []

    def read() -> None:
        while not kinds or kinds[-1] != "ready":
            kinds.append(rig.message(rig.shell).type)

    reader = threading.Thread(target=read)  # which is not traced
    reader.start()
    with between_lines(("Channel._write",), lambda: rig.link.send(Envelope("comm_close", {}))) as said:
        for _ in range(3):
            rig.link.send(Envelope("result", {}, buffers=(b"x",) * 1024))  # more parts than one system call takes
    rig.link.send(Envelope("ready", {}))
    reader.join()
    assert said
    assert sorted(kinds) == ["comm_close"] * len(said) + ["ready"] + ["result"] * 3


@alone
def test_a_thread_may_say_something_in_the_midst_of_saying_something() -> None:
    rig = Linked()
    rig.link.start({})

    def work() -> None:
        for _ in range(5):
            rig.link.send(Envelope("progress", {}))

    with between_lines(("Link.send", "Queue."), lambda: rig.link.send(Envelope("comm_close", {}))) as said:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(PATIENCE / 1000)
        assert not thread.is_alive()
    kinds = [rig.message(rig.control).type for _ in range(5 + len(said))]
    assert said
    assert sorted(kinds) == ["comm_close"] * len(said) + ["progress"] * 5


class Answering:
    """A link whose node asks things that a thread answers, when it is told to."""

    def __init__(self, *, lasting: bool = True) -> None:
        self.rig = Linked(lasting=lasting)
        self._asked: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        self.rig.link.start({"debug": self._asked.put, "adopt": self._greet})

    def ask(self, name: str) -> None:
        """Something that has been taken when this returns, and has no answer yet."""
        self.rig.send(self.rig.control, "debug", {}, id=name)
        assert self._asked.get(timeout=PATIENCE / 1000).id == name

    def adopt(self) -> None:
        """Another node takes the place of the one that is there."""
        self.rig.succeed()
        self.rig.send(self.rig.control, "adopt", {"after": 0}, id="m_adopt")
        assert self.heard() == "m_adopt"

    def say(self, name: str = "") -> None:
        """A thread answers the question of this name; without one it says something of itself."""
        body = {"reply_to": name} if name else {}
        thread = threading.Thread(target=self.rig.link.send, args=(Envelope("debug_reply", body),))
        thread.start()
        thread.join()

    def heard(self) -> str:
        """What it is that the node hears next is the answer to."""
        answered: str = self.rig.message(self.rig.control).body.get("reply_to", "")
        return answered

    def _greet(self, envelope: Envelope) -> None:
        self.rig.link.greet(envelope, Envelope("adopted", {"reply_to": envelope.id}), 0)


@alone
@pytest.mark.parametrize("lasting", [False, True])
def test_answers_of_other_threads_reach_the_node_that_has_asked(lasting: bool) -> None:
    node = Answering(lasting=lasting)
    for name in ("m_1", "m_2"):
        node.ask(name)
    for name in ("m_2", "", "m_1"):
        node.say(name)
        assert node.heard() == name


@alone
def test_a_node_gets_no_answer_to_what_a_dead_one_has_asked() -> None:
    node = Answering()
    node.ask("m_1")
    node.adopt()
    node.ask("m_2")
    for name in ("m_1", "m_2", ""):
        node.say(name)
    assert [node.heard(), node.heard()] == ["m_2", ""]


@alone
def test_what_nobody_could_hear_any_more_is_not_kept_for_the_next_node() -> None:
    node = Answering()
    node.ask("m_1")
    node.rig.succeed()
    node.ask("m_0")  # the next one is there, and has not greeted
    node.say("m_1")
    node.rig.send(node.rig.control, "adopt", {"after": 0}, id="m_adopt")
    node.ask("m_2")
    node.say("m_2")
    assert [node.heard(), node.heard()] == ["m_adopt", "m_2"]
