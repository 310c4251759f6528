"""A cell with many events, and whether all of them have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule import Finished, Output

if TYPE_CHECKING:
    from capsule import AsyncSession, Event

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
