"""A node is killed while code runs, another one adopts the session, and nobody can tell from the events."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from capsule.events import Finished, InputRequest, Started
from capsule.node.execution import ExecuteRequest
from capsule.node.inheritance import Remembered
from tests.acceptance.linger.support import LONG, normal, undisturbed, written
from tests.acceptance.linger.victim import FAULTS

if TYPE_CHECKING:
    from capsule.events import Event
    from tests.acceptance.linger.support import Place

pytestmark = pytest.mark.anyio

CELL = """
import os, subprocess, sys, time
from comm import create_comm
comm = create_comm("front", comm_id="c1")
for number in range({lines}):
    print("line", number, "é" * (number % 5), end="\\n" if number % 6 else "")
    if number % 7 == 0:
        print("oops", number, file=sys.stderr)
    if number % 10 == 3:
        display({{"text/plain": f"shown {{number}}"}}, raw=True)
    if number % 20 == 7:
        comm.send({{"number": number}})
    if number % 25 == 5:
        os.write(1, b"raw %d \\xc3" % number)
        os.write(1, b"\\xa9\\n")
    if number % 60 == 11:
        subprocess.run(["echo", "child", str(number)])
    if number % 50 == 20:
        print("long", "x" * 100_000)
    time.sleep({pause})
number
"""
RANGES = {"dispatch": (1, 2), "note": (1, 7), "mark": (1, 5), "splice": (5, 12), "readv": (5, 12)}
"""At which call of a step the node dies: of most there are many, but of readings fewer the busier the machine is."""
NEXT = "print('next', number); number + 1"


@pytest.mark.parametrize("seed", range(2))
async def test_a_cell_goes_on_over_one_node_after_another(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    cells = CELL.format(lines=1000, pause=0.004), NEXT
    place.start(*cells, seconds=LONG)
    for _ in range(5):
        told = place.store.told()
        await place.until_told(told + chance.randrange(1, 60))
        place.kill()
        place.start(eager=chance.random() < 0.5, seconds=LONG)  # a busy machine may take long to start the next one
    await place.until_idle()
    place.kill()
    expected = await undisturbed(CELL.format(lines=1000, pause=0), NEXT)
    assert [normal(place.store.events(f"x_{number}")) for number in (0, 1)] == expected
    async with place.adopted() as session:
        assert session.recalled == {}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", FAULTS)
async def test_a_node_may_die_at_any_step(place: Place, step: str, after: bool) -> None:
    chance = random.Random(f"{step} {after}")
    cells = CELL.format(lines=60, pause=0.0005), NEXT
    fault = step, after, chance.randint(*RANGES.get(step, (5, 30)))
    place.start(*cells, fault=fault, eager=step == "mark" or chance.random() < 0.5)
    await place.until_idle()
    place.kill()
    assert not place.store.lines("idle"), "it did not get to the step at which it should die"
    async with place.adopted() as session:
        await place.finish(session)
    expected = await undisturbed(CELL.format(lines=60, pause=0), NEXT)
    assert [normal(place.store.events(f"x_{number}")) for number in (0, 1)] == expected


async def test_nodes_may_die_one_after_another_before_they_have_dealt_with_anything(place: Place) -> None:
    cell = "import time\nfor n in range(40): print(n); display(n); time.sleep(0.03)"
    place.start(cell)
    await place.until_told(6)
    place.kill()
    told = place.store.events()
    for step in (("take", False, 1), ("commit", False, 2), ("commit", False, 2)):  # first it tells of itself
        place.start(fault=step)
        await place.until(lambda: False)
        place.kill()
        assert place.store.events() == told
    async with place.adopted() as session:
        await place.finish(session)
    assert [normal(place.store.events())] == await undisturbed(cell.replace("0.03", "0"))


async def test_a_verdict_that_the_dead_node_had_read_comes_again(place: Place) -> None:
    place.start("print('hello'); 6 * 7", fault=("note", False, 1))
    await place.until(lambda: False)
    place.kill()
    async with place.adopted() as session:
        (verdict,) = await place.finish(session)
    assert (verdict.verdict, verdict.text) == ("ok", "42")
    assert normal(place.store.events()) == [("stdout", "hello\n"), ("ok", "42", 1)]


async def test_a_verdict_that_was_dealt_with_and_is_in_no_store_is_lost_and_has_its_epoch(place: Place) -> None:
    async def nothing(_after: int) -> list[Event]:
        return []

    place.start("print('hello'); 6 * 7", *(str(number) for number in range(100)))
    await place.until_idle()
    place.kill()
    known = Remembered("x_0", ExecuteRequest("print('hello'); 6 * 7"), 2, nothing)  # as an older copy has it
    async with place.adopted([known]) as session, asyncio.timeout(LONG):
        verdict = await session.recalled["x_0"].finished()
        assert (verdict.verdict, verdict.sequence, verdict.epoch) == ("worker_lost", 3, 1)
        assert verdict.error is not None
        assert verdict.error.details["reason"] == "verdict_lost"
        assert (await session.submit(ExecuteRequest("6 * 7")).finished()).text == "42"


async def test_the_session_keeps_its_state_its_epoch_and_its_process(place: Place) -> None:
    place.start("import os; kept = os.getpid(); print('ready')")
    await place.until_idle()
    place.kill()
    box = place.box()
    async with place.adopted() as session, asyncio.timeout(LONG):
        assert (session.id, session.epoch) == (place.store.lines("session")[0]["id"], 1)
        assert session.info().pid == box.worker[0]
        started, finished = [event async for event in session.submit(ExecuteRequest("kept == os.getpid()"))]
        assert isinstance(started, Started)
        assert isinstance(finished, Finished)
        assert finished.text == "True"
        assert started.execution_count == finished.execution_count == 2


async def test_cells_that_the_worker_did_not_have_yet_run_after_those_that_it_had(place: Place) -> None:
    slow = "import time\nprint('begun')\ntime.sleep(0.5)"
    place.start(slow, *(f"print({number}); {number}" for number in range(1, 20)))
    await place.until_written("begun")
    place.kill()
    async with place.adopted() as session:
        verdicts = await place.finish(session)
    assert [verdict.error for verdict in verdicts if verdict.error] == []
    assert [(verdict.verdict, verdict.execution_count) for verdict in verdicts] == [
        ("ok", number) for number in range(1, 21)
    ]
    assert [written(place.store.events(f"x_{number}")) for number in range(1, 20)] == [
        f"{number}\n" for number in range(1, 20)
    ]


async def test_an_execution_that_nobody_remembers_ends_unheard(place: Place) -> None:
    place.start("import time\nprint('begun')\ntime.sleep(0.5)\nkept = 1", "display(2)")
    await place.until_written("begun")
    place.kill()
    async with place.adopted([]) as session, asyncio.timeout(LONG):
        finished = await session.submit(ExecuteRequest("kept")).finished()
        assert (finished.verdict, finished.text, finished.execution_count) == ("ok", "1", 3)


async def test_an_interrupt_reaches_a_cell_that_was_adopted(place: Place) -> None:
    place.start("import time\nprint('begun')\nwhile True: time.sleep(0.01)", "'the next one'")
    await place.until_written("begun")
    place.kill()
    async with place.adopted() as session, asyncio.timeout(LONG):
        assert session.state == "busy"
        assert await session.interrupt()
        first, second = await place.finish(session)
    assert (first.verdict, second.verdict, second.text) == ("interrupted", "ok", "'the next one'")


async def test_a_time_limit_goes_on_while_there_is_no_node(place: Place) -> None:
    # The time that is left is counted from the start of the code, not from the adoption.
    place.start("import time\nprint('begun')\ntime.sleep(60)")
    await place.until_written("begun")
    place.kill()
    (remembered,) = place.store.remembered()
    limited = replace(remembered, request=replace(remembered.request, timeout=0.001))
    async with place.adopted([limited]) as session:
        (verdict,) = await place.finish(session)
    assert verdict.verdict == "timeout"


async def test_a_question_that_waits_is_answered_by_the_new_node(place: Place) -> None:
    place.start("print('hello', input('who? '))")
    await place.until(lambda: any(isinstance(event, InputRequest) for event in place.store.events()))
    place.kill()
    (asked,) = [event for event in place.store.events() if isinstance(event, InputRequest)]
    async with place.adopted() as session:
        execution = session.recalled["x_0"]
        async with asyncio.timeout(LONG):
            while not execution.inputs.waits_for(asked.request):
                await asyncio.sleep(0.01)
        execution.reply_input(asked.request, "world")
        (verdict,) = await place.finish(session)
    assert verdict.verdict == "ok"
    assert normal(place.store.events()) == [("input", "who? "), ("stdout", "hello world\n"), ("ok", "", 1)]


async def test_a_question_that_was_asked_meanwhile_is_told_by_the_new_node(place: Place) -> None:
    place.start("import time\nprint('begun')\ntime.sleep(0.5)\nprint('hello', input('who? '))")
    await place.until_written("begun")
    place.kill()
    async with place.adopted() as session, asyncio.timeout(LONG):
        execution = session.recalled["x_0"]
        while not isinstance(event := await execution.next_event(), InputRequest):
            pass
        execution.reply_input(event.request, "world")
        assert (await execution.finished()).verdict == "ok"


async def test_more_output_than_the_pipes_hold_waits_for_the_next_node(place: Place) -> None:
    place.start("print('begun', flush=True)\nfor n in range(60): print(str(n % 10) * 99_999)\n'end'")
    await place.until_written("begun")
    place.kill()
    async with place.adopted() as session:
        (verdict,) = await place.finish(session)
    assert verdict.text == "'end'"
    assert written(place.store.events()) == "begun\n" + "".join(str(n % 10) * 99_999 + "\n" for n in range(60))


async def test_a_session_that_was_adopted_can_be_restarted(place: Place) -> None:
    place.start("kept = 1; print('ready')")
    await place.until_idle()
    place.kill()
    async with place.adopted() as session, asyncio.timeout(LONG):
        await session.restart()
        assert session.epoch == 2
        assert (await session.submit(ExecuteRequest("'kept' in globals()")).finished()).text == "False"
        assert place.box().epoch == 2


@pytest.mark.parametrize("seed", range(6))
async def test_cells_that_end_just_while_the_node_changes_keep_their_order(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    first = f"import time\nprint('begun')\ntime.sleep({chance.random() * 0.08})"
    cells = [f"print({number}); display({number}); {number}" for number in range(1, 20)]
    place.start(first, *cells, eager=chance.random() < 0.5)
    await place.until_written("begun")
    place.kill()
    async with place.adopted() as session:
        await place.finish(session)
    for number in range(1, 20):
        assert normal(place.store.events(f"x_{number}")) == [
            ("stdout", f"{number}\n"),
            ("display", {"text/plain": str(number)}, None, False),
            ("ok", str(number), number + 1),
        ]
