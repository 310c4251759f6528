"""Output of no execution keeps its place among the events of executions, and what waits for its turn is bounded."""

from __future__ import annotations

import asyncio

import pytest

from capsule.events import Event, Finished, Gap, Output
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.front.aside import Aside
from capsule.node.front.log import WINDOW, EventLog
from tests.unit.node.hosts import Host

pytestmark = pytest.mark.anyio


class Watched:
    """A session's executions, and what is told of them to one who looks on."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.aside = Aside(self.told.append)
        self.under_way: dict[EventLog, None] = {}

    def execute(self, name: str, *, runs: bool = True) -> EventLog:
        execution = Execution(name, Host(), ExecuteRequest(""), asyncio.get_running_loop())
        log = EventLog(execution, self._on_event, keep=False)
        self.under_way[log] = None
        if runs:
            execution.begin()
        return log

    def late(self, text: str) -> None:
        self.aside.add(Output("x_0", 0, "stdout", text), self.under_way)

    def texts(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Output | Finished)]

    def _on_event(self, log: EventLog, event: Event) -> None:
        self.told.append(event)
        if isinstance(event, Finished):
            del self.under_way[log]
        self.aside.go_on()


async def test_it_stands_between_what_came_before_and_after_it_in_one_turn_of_the_loop() -> None:
    watched = Watched()
    log = watched.execute("x_1")
    log.execution.output(0, b"before")
    watched.late("late")
    log.execution.output(0, b"after")
    watched.late("last")
    assert watched.told == []
    log.pump()
    assert watched.texts() == ["before", "late", "after", "last"]


async def test_it_is_told_at_once_where_nothing_is_before_it() -> None:
    watched = Watched()
    log = watched.execute("x_1")
    watched.execute("x_2", runs=False)
    log.pump()
    watched.late("late")
    assert watched.texts() == ["late"]


async def test_it_waits_for_all_that_came_before_it_of_any_execution() -> None:
    watched = Watched()
    one = watched.execute("x_1")
    one.execution.output(0, b"one")
    one.execution.finish("ok", text="end of one")
    two = watched.execute("x_2")
    two.execution.output(0, b"two")
    watched.late("late")
    two.execution.output(0, b"more")
    two.pump()
    assert watched.texts() == ["two", "more"]
    one.pump()
    assert watched.texts() == ["two", "more", "one", "end of one", "late"]


async def test_what_came_before_it_may_be_dropped() -> None:
    watched = Watched()
    log = watched.execute("x_1")
    log.execution.output(0, b"before")
    watched.late("late")
    log.execution.hurry()
    log.execution.finish("killed", text="the end")
    log.pump()
    assert watched.texts() == ["before", "late", "the end"]


async def test_what_waits_is_bounded_and_what_is_left_out_is_told() -> None:
    watched = Watched()
    log = watched.execute("x_1")
    log.execution.output(0, b"before")
    size = 2**16
    fit = WINDOW // (size + 128) + 1
    for _ in range(fit + 5):
        watched.late(size * "x")
    log.pump()
    assert [len(text) for text in watched.texts()] == [6, *(fit * [size])]
    assert watched.told[-1] == Gap("", 0, 5)
    watched.late("again")
    assert watched.texts()[-1] == "again"
