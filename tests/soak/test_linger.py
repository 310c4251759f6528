"""Nodes that are killed at steps which a seed decides, many times: `make soak`. One line tells how it went."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.linger.support import Place, normal, undisturbed
from tests.acceptance.linger.test_restart import CELL, NEXT, RANGES
from tests.acceptance.linger.victim import FAULTS

if TYPE_CHECKING:
    from capsule.events import Event

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = 200
LINES = 60


async def test_nodes_die_at_any_step_over_and_over(tmp_path: Path) -> None:
    expected = await undisturbed(CELL.format(lines=LINES, pause=0), NEXT)
    died = 0
    for seed in range(ROUNDS):
        chance = random.Random(seed)
        (tmp_path / str(seed)).mkdir()
        place = Place(tmp_path / str(seed))
        cells = CELL.format(lines=LINES, pause=chance.choice((0, 0.0005, 0.005))), NEXT
        place.start(*cells, eager=True, fault=_fault(chance, 5))  # there has to be a session
        for _ in range(chance.randrange(3)):
            await place.until_idle()
            died += not place.store.lines("idle")
            place.kill()
            place.start(eager=chance.random() < 0.5, fault=_fault(chance))
        await place.until_idle()
        died += not place.store.lines("idle")
        place.kill()
        async with place.adopted() as session:
            await place.finish(session)
        told: list[list[Event]] = [place.store.events(f"x_{number}") for number in (0, 1)]
        assert [normal(events) for events in told] == expected, f"seed {seed}"
    print(f"linger: {ROUNDS} rounds, {died} nodes died at a step, 0 events lost, doubled or out of place")


def _fault(chance: random.Random, first: int = 1) -> tuple[str, bool, int]:
    step = chance.choice(list(FAULTS))
    return step, chance.random() < 0.5, chance.randint(*RANGES.get(step, (first, 30)))
