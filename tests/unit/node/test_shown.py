"""A verdict says `shown` only if what it relies on was not dropped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule.config import SessionOptions
from capsule.events import Display, Event, Finished
from capsule.node.execution import ExecuteRequest, Execution
from tests.unit.node.hosts import Host

if TYPE_CHECKING:
    from capsule.config import Backpressure

pytestmark = pytest.mark.anyio

BOUND = 64 * 1024
VALUE = Display("x_1", 0, {"text/plain": "v" * 1000}, {}, execution_count=1)
ERROR = Display("x_1", 0, {"application/vnd.jupyter.error": {}}, {})


def execution(mode: Backpressure) -> Execution:
    host = Host()
    host.options = SessionOptions(backpressure=mode, buffer_bytes=BOUND)
    made = Execution("x_1", host, ExecuteRequest(""), asyncio.get_running_loop())
    made.begin()
    return made


def end(made: Execution) -> tuple[bool, bool]:
    """Whether the verdict says that it was shown, and whether it was."""
    made.finish("ok", shown=True)
    told: list[Event] = []
    while (event := made.take()) is not None:
        told.append(event)
    last = told[-1]
    assert isinstance(last, Finished)
    return last.shown, any(isinstance(one, Display) for one in told)


@pytest.mark.parametrize("shows", [VALUE, ERROR])
@pytest.mark.parametrize("mode", ["drop_newest", "error"])
async def test_it_does_not_where_the_display_had_no_room(mode: Backpressure, shows: Display) -> None:
    made = execution(mode)
    made.output(0, b"x" * BOUND)
    made.display(shows)
    assert end(made) == (False, False)


@pytest.mark.parametrize("shows", [VALUE, ERROR])
async def test_it_does_not_where_the_display_had_to_make_room(shows: Display) -> None:
    made = execution("drop_oldest")
    made.display(shows)
    made.output(0, b"x" * BOUND)
    assert end(made) == (False, False)


@pytest.mark.parametrize("shows", [VALUE, ERROR])
async def test_it_does_where_only_what_came_before_the_display_was_dropped(shows: Display) -> None:
    made = execution("drop_oldest")
    made.output(0, b"x" * BOUND)
    made.display(shows)
    assert end(made) == (True, True)


@pytest.mark.parametrize("mode", ["block", "drop_newest", "drop_oldest", "error"])
async def test_it_does_where_nothing_was_dropped(mode: Backpressure) -> None:
    made = execution(mode)
    made.display(VALUE)
    assert end(made) == (True, True)


async def test_it_does_where_the_session_has_shown_an_error_in_its_own_way() -> None:
    made = execution("drop_newest")
    made.output(1, b"an error")
    assert end(made) == (True, False)


@pytest.mark.parametrize("mode", ["drop_newest", "drop_oldest", "error"])
async def test_values_without_end_do_not_grow_beyond_the_bound(mode: Backpressure) -> None:
    made = execution(mode)
    for _ in range(1000):
        made.display(VALUE)
    made.finish("ok", shown=True)
    held = 0
    while isinstance(event := made.take(), Event) and not isinstance(event, Finished):
        held += isinstance(event, Display)
    assert 0 < held * 1000 <= BOUND
