"""A service that is killed in the midst of a cell, and the next one: its clients see a connection that comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.events import Finished, InputRequest, Output
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.events import Event

pytestmark = pytest.mark.anyio

CELL = """
import time
print("begun", flush=True)
for number in range(200):
    print("line", number)
    if number % 20 == 0:
        display(number)
    time.sleep(0.01)
number
"""
LINES = "begun\n" + "".join(f"line {number}\n" for number in range(200))


@pytest.fixture
def home() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="d-"))
    yield folder
    shutil.rmtree(folder)


def lingering(home: Path) -> Served:
    return Served(home / "node", linger=LONG)


def killed(served: Served) -> None:
    """End it as a crash would."""
    served.kill()
    served.process.wait(LONG)


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Output))


async def test_a_long_cell_goes_on_over_two_restarts(home: Path) -> None:
    with lingering(home) as first:
        async with first.client() as client, asyncio.timeout(LONG):
            session = await client.session(name="work")
            await session.run("kept = 41")
            events: list[Event] = []
            async with session.stream(CELL) as stream:
                async for event in stream:
                    events.append(event)
                    if text(events) == "begun\n":
                        break
                killed(first)
                with lingering(home) as second:
                    async for event in stream:
                        events.append(event)
                        if "line 50\n" in text(events):
                            break
                    killed(second)
                    with lingering(home):
                        events += [event async for event in stream]
                        assert session.epoch == 1
                        assert (await session.run("kept + 1")).text == "42"
                        await session.close()
    assert text(events) == LINES
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[-1], Finished)
    assert (events[-1].verdict, events[-1].text) == ("ok", "199")


async def test_all_that_was_accepted_runs_once_and_in_order(home: Path) -> None:
    done = home / "done"
    with lingering(home) as first:
        async with first.client() as client, asyncio.timeout(LONG):
            session = await client.session()
            mark = home / "mark"
            running = session.submit(f"open({str(mark)!r}, 'x').close(); import time; time.sleep(1); 'first'")
            code = f"with open({str(done)!r}, 'a') as file: file.write('{{}} ')\n{{}}"
            queued = [session.submit(code.format(n, n), key=f"k{n}") for n in range(20)]
            while not mark.exists():
                await asyncio.sleep(0.005)
            while (await session.info()).queue + 8 < len(queued) + 1:
                await asyncio.sleep(0.005)
            killed(first)
            with lingering(home):
                results = await asyncio.gather(running.result(), *(each.result() for each in queued))
                await session.close()
    assert [result.text for result in results] == ["'first'", *map(str, range(20))]
    assert done.read_text().split() == [str(n) for n in range(20)]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_what_was_cancelled_for_a_node_that_died_costs_no_state(home: Path, before: bool) -> None:
    """The worker says so before the next node has come, or after."""
    with lingering(home) as first:
        async with first.client() as client, asyncio.timeout(LONG):
            session = await client.session()
            gate = home / "gate"
            os.mkfifo(gate)
            running = session.submit(f"open({str(gate)!r}).read()")
            waiting = [session.submit(str(n)) for n in range(3)]
            for each in waiting:
                await each.accepted()
            while (await session.info()).queue:  # the worker has it all then
                await asyncio.sleep(0.005)
            pid = (await session.info()).pid
            os.kill(pid, signal.SIGSTOP)
            assert await session.cancel(waiting[1].execution_id)
            killed(first)
            if before:
                os.kill(pid, signal.SIGCONT)
            with lingering(home):
                if not before:
                    os.kill(pid, signal.SIGCONT)
                assert (await waiting[1].result()).verdict == "interrupted"
                gate.write_text("read")
                results = [await each.result() for each in (running, waiting[0], waiting[2])]
                assert (await session.info()).pid == pid
                await session.close()
    assert [result.text for result in results] == ["'read'", "0", "2"]


async def test_a_question_is_answered_after_the_restart(home: Path) -> None:
    with lingering(home) as first:
        async with first.client() as client, asyncio.timeout(LONG):
            session = await client.session()
            asked, answer = asyncio.Event(), asyncio.Event()

            async def on_input(request: InputRequest) -> str:
                asked.set()
                await answer.wait()
                return f"an answer to {request.prompt}"

            running = asyncio.ensure_future(session.run("input('who? ')", on_input=on_input))
            await asked.wait()
            killed(first)
            with lingering(home):
                assert (await client.info()).sessions
                answer.set()
                assert (await running).text == "'an answer to who? '"
                await session.close()


async def test_a_session_that_was_detached_goes_on(home: Path) -> None:
    with lingering(home) as first:
        async with first.client() as client, asyncio.timeout(LONG):
            session = await client.session(name="work")
            await session.run("import os; kept = os.getpid()")
            await session.detach()
        killed(first)
        with lingering(home) as second:
            async with second.client() as client, asyncio.timeout(LONG):
                session = await client.attach("work")
                assert (session.epoch, (await session.run("kept == os.getpid()")).text) == (1, "True")
                await session.close()
            assert second.stop() == 0
            assert "1 of them alive" in second.log.read_text()
            assert not (second.directory / "boxes").exists()
