"""A box looks as often as it must, and tells which bound the processes below it are over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capsule_kernels import descriptors, memory, system
from capsule_kernels.bounds import Bounds
from capsule_kernels.box import _Box
from capsule_kernels.sandbox.groups import Group
from capsule_kernels.sandbox.levels import Sandbox
from tests.unit.kernels.alone import alone

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = """
import os, signal
child = os.fork()
if child == 0: os.fork()
os.write(1, b"x")
signal.pause()
"""


@pytest.fixture
def keeper() -> Iterator[int]:
    """A process with a child and a grandchild, in a process group of their own."""
    process = subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    seen = b""
    while len(seen) < 3:
        seen += os.read(process.stdout.fileno(), 3)
    yield process.pid
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    ("bounds", "idle", "busy"),
    [
        (Bounds(), None, None),
        (Bounds(memory_bytes=1), 100, 100),
        (Bounds(max_processes=1), 100, 20),
        (Bounds(memory_bytes=1, max_processes=1), 100, 20),
    ],
)
def test_nobody_looks_without_a_bound_and_processes_are_looked_at_often_while_code_runs(
    bounds: Bounds, idle: int | None, busy: int | None
) -> None:
    assert (bounds.interval(busy=False), bounds.interval(busy=True)) == (idle, busy)


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        (Bounds(), ""),
        (Bounds(max_processes=2), ""),
        (Bounds(max_processes=1), "processes"),
        (Bounds(memory_bytes=2**40), ""),
        (Bounds(memory_bytes=1), "memory"),
        (Bounds(memory_bytes=1, max_processes=2), "memory"),
        (Bounds(memory_bytes=1, max_processes=1), "processes"),
    ],
)
def test_the_bound_that_is_exceeded_is_told(keeper: int, bounds: Bounds, told: str) -> None:
    assert bounds.exceeded(keeper) == told


def test_a_walk_gives_parents_first_and_passes_by_whom_it_knows(keeper: int) -> None:
    child, grandchild = system.walk(keeper)
    assert system.children(child) == [grandchild]
    assert list(system.walk(keeper, {grandchild})) == [child]
    assert list(system.walk(keeper, {child})) == []


def test_who_asks_for_memory_may_give_up_between_two_processes(keeper: int) -> None:
    """One that forks again and again lets wait whoever asks, and there are more of them meanwhile."""
    tree = [keeper, *system.descendants(keeper)]
    assert memory.exceeds(tree, 1)
    assert not memory.exceeds(tree, 1, lambda: True)


@pytest.mark.usefixtures("keeper")
def test_processes_that_multiply_while_their_memory_is_asked_for_are_found_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They make each answer slow, so the box may not wait for all of them. Here each answer takes one more process."""
    asked: list[int] = []
    news: list[subprocess.Popen[bytes]] = []

    def slow(pid: int) -> int:
        asked.append(pid)
        news.append(subprocess.Popen(["sleep", "1000"]))
        return 0

    others = len(system.descendants(os.getpid()))
    monkeypatch.setattr(memory, "_proportional", slow)
    try:
        assert Bounds(memory_bytes=1, max_processes=others).exceeded(os.getpid()) == "processes"
        assert len(asked) == 1
    finally:
        for new in news:
            new.kill()
            new.wait()


@alone
def test_a_box_that_is_told_to_expect_something_looks_often_until_nothing_came() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page = os.memfd_create("page")
    box = _Box(theirs, page, os.getpid(), {"dir": "", "sandbox": Sandbox({}), "group": Group()})
    descriptors.send(ours, {"op": "limit", "memory_bytes": None, "max_processes": 5})
    box._wait(None)
    assert box._until_next_look() == 100
    descriptors.send(ours, {"op": "expect"})
    box._wait(None)
    assert box._until_next_look() == 20
    box._wait(0)
    assert box._until_next_look() == 100
