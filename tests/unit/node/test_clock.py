"""The clock of a time-out: what counts while code waits for people, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.clock import Clock

pytestmark = pytest.mark.anyio


class Work:
    """Code that computes `step` seconds between two looks at it."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.looks = 0
        self.looked = asyncio.Event()

    def used(self) -> float:
        self.looks += 1
        if self.looks > 3:
            self.looked.set()
        return self.looks * self.step


async def test_code_that_waits_uses_nothing_up_and_goes_on_with_what_is_left() -> None:
    expired = asyncio.Event()
    work = Work(0.0)
    clock = Clock(asyncio.get_running_loop(), 0.01, expired.set)
    clock.attend(work.used)
    await work.looked.wait()
    assert not expired.is_set()
    clock.go_on()
    await expired.wait()


async def test_code_that_computes_meanwhile_comes_to_its_end() -> None:
    expired = asyncio.Event()
    work = Work(20.0)
    clock = Clock(asyncio.get_running_loop(), 0.1, expired.set)
    clock.attend(work.used)
    await expired.wait()
    clock.go_on()  # once
    assert work.looks == 2


async def test_what_it_has_computed_counts_when_it_waits_no_more() -> None:
    expired = asyncio.Event()
    work = Work(3600.0)
    clock = Clock(asyncio.get_running_loop(), 7200.0, expired.set)
    clock.attend(work.used)
    clock.attend(work.used)
    clock.pause()
    clock.go_on()
    await expired.wait()


async def test_a_process_that_has_ended_gives_no_time_back() -> None:
    expired = asyncio.Event()
    seconds = iter([5.0, 0.0])
    clock = Clock(asyncio.get_running_loop(), 0.01, expired.set)
    clock.attend(lambda: next(seconds))
    clock.go_on()
    await expired.wait()
