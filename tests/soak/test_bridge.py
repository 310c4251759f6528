"""Many hundred kills of a process that writes to a store, and power cuts. Run by `make soak`; `make test` has a few."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from capsule_bridge.sqlite import writer
from tests.unit.bridge.kills import kill_rounds
from tests.unit.bridge.power import power_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = 1_000
CUTS = 400
PART = 100
"""Rounds on one store; then the next begins, lest the time go into looking at old facts."""


async def test_a_thousand_kills_lose_nothing(tmp_path: Path) -> None:
    seed = time.time_ns() % 2**30
    tallies = [await kill_rounds(tmp_path / f"{n}.db", PART, seed + n) for n in range(ROUNDS // PART)]
    wrong = [each for tally in tallies for each in tally.wrong]
    facts = sum(tally.facts for tally in tallies)
    print(f"\nbridge: {ROUNDS} kills, {facts:,} acknowledged facts, {len(wrong)} lost, changed or doubled; seed {seed}")
    assert wrong == []


async def test_four_hundred_power_cuts_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 40_000)
    seed = time.time_ns() % 2**30
    tally = await power_rounds(tmp_path, CUTS, seed)
    print(f"\nbridge: {tally}; seed {seed}")
    assert tally.wrong == []
    assert tally.spoiled == 0
