"""A cell with many events, and whether all of them have come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from capsule import Finished, Output
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    import random

    from capsule import AsyncSession, Event
    from tests.acceptance.serve.support import Proxy

CODE = """
for number in range(40):
    print("line", number, "x" * 500, flush=True)
    if number % 10 == 0:
        display(number)
number
"""


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Output))


def check(events: list[Event]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert text_of(events) == "".join(f"line {number} {'x' * 500}\n" for number in range(40))
    assert sum(type(event).__name__ == "Display" for event in events) == 4
    assert isinstance(events[-1], Finished)
    assert (events[-1].verdict, events[-1].text) == ("ok", "39")


async def collect(session: AsyncSession, code: str = CODE) -> list[Event]:
    async with session.stream(code) as events:
        return [event async for event in events]


async def survive_cuts(proxy: Proxy, session: AsyncSession, chance: random.Random, rounds: int, smallest: int) -> None:
    """Cut the connection at any moment, and after any number of bytes from `smallest` on: all events come."""
    check(await collect(session))
    for _ in range(rounds):
        proxy.after = chance.choice([None, chance.randrange(smallest, 30_000)])
        running = asyncio.ensure_future(collect(session))
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        proxy.cut()
        proxy.after = None
        async with asyncio.timeout(LONG):
            check(await running)
    assert proxy.connections > rounds // 2
    assert (await session.run("number")).text == "39"
