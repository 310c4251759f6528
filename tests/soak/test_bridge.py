"""Many hundred kills of a process that writes to a store. Run by `make soak`; a few of them are part of `make test`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.unit.bridge.kills import kill_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = 1_000
PART = 100
"""Rounds on one store; then the next begins, lest the time go into looking at old facts."""


async def test_a_thousand_kills_lose_nothing(tmp_path: Path) -> None:
    seed = time.time_ns() % 2**30
    tallies = [await kill_rounds(tmp_path / f"{n}.db", PART, seed + n) for n in range(ROUNDS // PART)]
    wrong = [each for tally in tallies for each in tally.wrong]
    facts = sum(tally.facts for tally in tallies)
    print(f"\nbridge: {ROUNDS} kills, {facts:,} acknowledged facts, {len(wrong)} lost, changed or doubled; seed {seed}")
    assert wrong == []
