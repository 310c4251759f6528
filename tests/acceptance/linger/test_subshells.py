"""Subshells of a service that is killed, and of the next one: they go on, and what was accepted for them runs once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from capsule.events import InputRequest
from capsule.node.execution import ExecuteRequest
from capsule_protocol.errors import CapsuleError
from tests.acceptance.linger.shells import (
    WAITS,
    code_of,
    names,
    opened,
    queued,
    run,
    succession,
    until,
    verdict,
    written,
)
from tests.acceptance.linger.test_service import home

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.events import Event

__all__ = ["home"]
pytestmark = pytest.mark.anyio
STEPS = "import time\nfor step in range(150):\n    print(step)\n    time.sleep(0.01)\nstep"


async def test_what_runs_in_each_shell_goes_on_and_keeps_its_order_and_its_numbers(home: Path) -> None:
    async with succession(home) as nodes:
        inner = nodes.inner
        used, idle = await opened(inner), await opened(inner)
        assert (await run(inner, "seen = []", subshell=used)).execution_count == 1
        main, aside = inner.submit(ExecuteRequest(WAITS)), inner.submit(ExecuteRequest(STEPS, subshell=used))
        of_main, of_aside = await until(main, "waits\n"), await until(aside, "20\n")
        behind = [inner.submit(ExecuteRequest(f"seen.append({n}); seen", subshell=used)) for n in range(10)]
        await queued(nodes, 10)
        nodes.restart()
        assert await names(inner) == [used, idle]
        assert (await run(inner, "6 * 7", subshell=idle)).text == "42"
        await until(aside, "60\n", of_aside)
        nodes.restart()
        last = await verdict(aside, of_aside)
        assert written(of_aside) == "".join(f"{step}\n" for step in range(150))
        assert (last.verdict, last.text, last.execution_count) == ("ok", "149", 2)
        assert [(await verdict(each)).execution_count for each in behind] == list(range(3, 13))
        assert (await run(inner, "seen == list(range(10))", subshell=idle)).text == "True"
        assert (await run(inner, "go.set()", subshell=idle)).execution_count == 3
        await verdict(main, of_main)
        assert written(of_main) == "waits\nwent on\n"
        assert nodes.session.epoch == 1
        await inner.ask("subshell", {"action": "close", "subshell": used})
        assert await names(inner) == [idle]


async def test_an_interrupt_reaches_what_another_node_had_begun(home: Path) -> None:
    async with succession(home) as nodes:
        inner = nodes.inner
        name = await opened(inner)
        spins = inner.submit(ExecuteRequest("print('on', flush=True)\nwhile True: pass", subshell=name))
        told = await until(spins, "on\n")
        nodes.restart()
        assert await inner.cancel(spins.id)
        last = await verdict(spins, told)
        assert last.verdict == "interrupted"
        assert (await run(inner, "'still there'", subshell=name)).text == "'still there'"


async def test_the_time_of_what_another_node_had_begun_does_not_begin_anew(home: Path) -> None:
    limit, before = 10.0, 8.0
    code = (
        "import time\nbegun = time.monotonic()\nprint(begun, flush=True)\n"
        f"time.sleep({before})\nprint('on', flush=True)\ntime.sleep(100)"
    )
    async with succession(home) as nodes:
        inner = nodes.inner
        runs = inner.submit(ExecuteRequest(code, subshell=await opened(inner), timeout=limit))
        told = await until(runs, "on\n")
        begun = float(written(told).split()[0])
        nodes.restart()
        ready = time.monotonic()
        last = await verdict(runs, told)
        took, late = time.monotonic() - begun, before - 1.0
        assert last.verdict == "timeout"
        assert took < max(limit, ready - begun) + late


async def test_a_question_of_a_subshell_is_answered_after_the_restart(home: Path) -> None:
    async with succession(home) as nodes:
        inner = nodes.inner
        name = await opened(inner)
        asks = inner.submit(ExecuteRequest("print(input('who? '))", subshell=name, allow_input=True))
        told: list[Event] = []
        while not (told and isinstance(told[-1], InputRequest)):
            told.append(await asks.next_event())
        nodes.restart()
        assert (await nodes.client.info()).sessions
        asks.reply_input(told[-1].request, "me")
        await verdict(asks, told)
        assert written(told) == "me\n"


async def test_questions_that_the_dead_node_had_asked_are_answered_to_nobody(home: Path) -> None:
    """They wait in the subshell behind what runs there; an answer that came to the next node would be a breach."""
    async with succession(home) as nodes:
        inner = nodes.inner
        name, other = await opened(inner), await opened(inner)
        runs = inner.submit(ExecuteRequest(WAITS, subshell=name))
        told = await until(runs, "waits\n")
        asked = asyncio.ensure_future(inner.ask("complete", {"code": "thr", "cursor": 3, "subshell": name}))
        await asyncio.sleep(0)
        await inner.ask("complete", {"code": "thr", "cursor": 3, "subshell": other})  # that one was sent before
        nodes.restart()
        assert (await run(inner, "go.set()")).verdict == "ok"
        await verdict(runs, told)
        assert "threading" in (await asked)["matches"]  # the client has asked again
        assert (await run(inner, "'still there'", subshell=name)).text == "'still there'"
        assert nodes.session.epoch == 1


async def test_one_that_is_closed_is_unknown_to_the_next_node_too(home: Path) -> None:
    async with succession(home) as nodes:
        inner = nodes.inner
        gone, kept = await opened(inner), await opened(inner)
        await inner.ask("subshell", {"action": "close", "subshell": gone})
        nodes.restart()
        for name in (gone, "b_nobody"):
            assert await code_of(inner, name) == "subshell_unknown"
            with pytest.raises(CapsuleError) as caught:
                await inner.ask("subshell", {"action": "close", "subshell": name})
            assert caught.value.code == "subshell_unknown"
        assert await names(inner) == [kept]


async def test_without_their_worker_they_are_gone_and_what_was_accepted_is_told_so(home: Path) -> None:
    async with succession(home, name="work") as nodes:
        inner = nodes.inner
        name = await opened(inner)
        runs = inner.submit(ExecuteRequest("print('on', flush=True)\nwhile True: pass", subshell=name))
        waits = inner.submit(ExecuteRequest("1", subshell=name))
        told = await until(runs, "on\n")
        info = await nodes.session.info()
        nodes.kill()
        os.kill(info.pid, signal.SIGKILL)
        nodes.start()
        last = await verdict(runs, told)
        assert last.verdict in {"crashed", "worker_lost"}  # if its box had time to tell how it ended
        ended = await verdict(waits)
        assert ended.error is not None
        assert ended.error.code in {"subshell_unknown", "worker_lost"}
