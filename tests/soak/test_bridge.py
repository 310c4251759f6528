"""Many hundred kills and power cuts of stores and services. Run by `make soak`; `make test` has a few of them."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from capsule_bridge.sqlite import writer
from tests.acceptance.durable.deaths import deaths
from tests.unit.bridge.kills import kill_rounds
from tests.unit.bridge.power import power_rounds
from tests.unit.bridge.simulation.run import play
from tests.unit.bridge.tally import Tally

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

KILLS = 1_000
CUTS = 400
DEATHS = 100
SEEDS = 20_000
PART = 100
"""Kills on one store; then the next begins, lest the time go into looking at old facts."""


async def kills(folder: Path, seed: int) -> Tally:
    """A process that writes is killed, anywhere in its writer."""
    parts = [await kill_rounds(folder / f"{n}.db", PART, seed + n) for n in range(KILLS // PART)]
    return sum(parts, Tally())


async def cuts(folder: Path, seed: int) -> Tally:
    """The power is cut before any write or sync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CHECKPOINT_BYTES", 200_000)
        return await power_rounds(folder, CUTS, seed)


async def services(_: Path, seed: int) -> Tally:
    """A service is killed on the way of an execution."""
    place = Path(tempfile.mkdtemp(prefix="d-"))  # a socket's path may have no more than 107 bytes
    try:
        return await deaths(place, DEATHS, seed)
    finally:
        shutil.rmtree(place)


async def test_kills_and_power_cuts_lose_double_and_change_nothing(tmp_path: Path) -> None:
    seed, kinds = time.time_ns() % 2**30, dict[str, Tally]()
    for kind in (kills, cuts, services):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        kinds[kind.__name__] = await kind(folder, seed)
    tally = sum(kinds.values(), Tally())
    rounds = ", ".join(f"{each.rounds:,} {name}" for name, each in kinds.items())
    print(f"\nbridge: {tally} ({rounds}; seed {seed})")
    assert tally.wrong == []
    assert tally.spoiled == 0


def test_no_seed_of_the_simulation_goes_wrong() -> None:
    first = time.time_ns() % 2**30
    for seed in range(first, first + SEEDS):
        play(seed)
    print(f"\nbridge: {SEEDS:,} simulated runs from seed {first}")
