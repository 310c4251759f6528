"""`capsule attach --watch`: it shows what another client's session tells, changes nothing, and ends with it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncSession, Client, InputRequest
from capsule.cli.show import as_json
from tests.acceptance.cli.support import Running, Terminal
from tests.acceptance.operators.support import capsule
from tests.acceptance.serve.support import LONG, Served
from tests.acceptance.serve.whole import collect

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncClient

pytestmark = pytest.mark.anyio

GATE = "import os, time\nprint('runs', flush=True)\nwhile not os.path.exists({go!r}): time.sleep(0.001)\n"
"""A watcher that comes while this runs gets all of it: so the test knows that it is there."""


async def drive(session: AsyncSession, go: Path, watching: Running, code: str) -> tuple[list[Any], bytes]:
    """Run the code behind a gate that opens when the watcher has shown that it looks on; and what it has shown."""
    running = asyncio.ensure_future(collect(session, GATE.format(go=str(go)) + code))
    seen = await asyncio.to_thread(watching.until, b"runs")
    go.touch()
    try:
        async with asyncio.timeout(LONG):
            return await running, seen
    finally:
        go.unlink()


async def test_it_shows_what_the_code_shows_and_ends_with_the_session(
    served: Served, remote: AsyncClient, place: Path
) -> None:
    session = await remote.session(name="shown")
    with Running("attach", "shown", "--watch", "--address", served.address) as watching:
        code = "import sys\nprint('wrong', file=sys.stderr)\nprint('no line end', end='')\n6 * 7"
        events, seen = await drive(session, place / "go", watching, code)
        assert events[-1].text == "42"
        assert (await session.run("1 / 0")).verdict == "error"
        assert session.state == "ready"  # it is still the driver's
        await session.close()
        status, out, err = await asyncio.to_thread(watching.end)
    assert (status, seen + out) == (0, b"runs\nno line end\n42\n")
    first, *_, last = err.decode().splitlines()
    assert (first, last) == ("wrong", "capsule: the session has ended")
    assert b"ZeroDivisionError" in err


async def test_json_has_every_event_that_the_driver_saw_on_a_line_of_its_own(
    served: Served, remote: AsyncClient, place: Path
) -> None:
    session = await remote.session(name="lines")
    with Running("attach", "lines", "--watch", "--json", "--address", served.address) as watching:
        events, seen = await drive(session, place / "go", watching, "print('é')\n1 / 0")
        events += await collect(session, "'again'")
        await session.close()
        status, out, err = await asyncio.to_thread(watching.end)
    assert (status, err) == (0, b"")
    told = [json.loads(line) for line in (seen + out).splitlines()]
    assert told == [json.loads(json.dumps(as_json(event), default=vars_of)) for event in events]
    assert [one["verdict"] for one in told if one["event"] == "finished"] == ["error", "ok"]


def vars_of(value: Any) -> dict[str, Any]:
    """A dataclass with slots as a dictionary."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


async def test_ctrl_c_leaves_the_session_to_its_driver(served: Served, remote: AsyncClient, place: Path) -> None:
    async with remote.session(name="left alone") as session:
        with Running("attach", "left alone", "--watch", "--address", served.address) as watching:
            go = place / "go"
            running = asyncio.ensure_future(session.run(GATE.format(go=str(go)) + "6 * 7"))
            await asyncio.to_thread(watching.until, b"runs")
            watching.interrupt()
            assert await asyncio.to_thread(watching.end) == (0, b"", b"")
        go.touch()
        assert (await running).text == "42"  # it was not interrupted
        go.unlink()


async def test_a_question_is_shown_and_answered_by_the_driver_only(served: Served, remote: AsyncClient) -> None:
    shown = asyncio.Event()

    async def answer(_request: InputRequest) -> str:
        await shown.wait()
        return "secret"

    session = await remote.session(name="asked")
    with Running("attach", "asked", "--watch", "--address", served.address) as watching:
        running = asyncio.ensure_future(session.run("len(input('word? '))", on_input=answer))
        await asyncio.to_thread(watching.until, b"word? \n")
        shown.set()
        assert (await running).text == "6"
        await session.close()
        assert (await asyncio.to_thread(watching.end))[:2] == (0, b"6\n")


async def test_a_reader_that_is_slow_is_told_what_it_missed(served: Served, remote: AsyncClient, place: Path) -> None:
    session = await remote.session(name="much")
    with Running("attach", "much", "--watch", "--address", served.address) as watching:
        await drive(session, place / "go", watching, "for n in range(1000): print('x' * 30_000, flush=True)")
        await session.run("'the last'")  # its reader has taken nothing all the while
        closing = asyncio.ensure_future(session.close())
        status, out, err = await asyncio.to_thread(watching.end)
        await closing
    assert status == 0
    assert len(out) < 1000 * 30_000
    assert b"events are missing here" in err


def test_on_a_terminal_it_says_what_it_does(served: Served) -> None:
    with Client(served.address) as client, client.session(name="seen") as session:
        with Terminal("attach", "seen", "--watch", "--address", served.address) as terminal:
            terminal.until("watching seen; Ctrl-C ends it")
            assert session.run("print('for both')").stdout == "for both\n"
            terminal.until("for both")
            terminal.type("\x03")
            assert terminal.end()[0] == 0
        assert session.run("1").text == "1"


async def test_the_end_of_the_node_is_told(place: Path) -> None:
    with Served(place / "ends") as served:
        async with served.client() as client, client.session(name="brief"):
            with Terminal("attach", "brief", "--watch", "--address", served.address) as terminal:
                await asyncio.to_thread(terminal.until, "watching brief")
                await asyncio.to_thread(served.stop)
                status, told = await asyncio.to_thread(terminal.end)
    assert "has ended" in told or "has been closed" in told
    assert status in {0, 3}  # whether it heard of the session first


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_a_session_that_is_not_there_cannot_be_watched(served: Served, flags: tuple[str, ...]) -> None:
    done = await capsule("attach", "nobody", "--watch", "--address", served.address, *flags)
    assert done.returncode == 3
    assert b"session_unknown" in (done.stdout if flags else done.stderr)
