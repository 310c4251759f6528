"""The power is cut while a store is written to. `make soak` does many times more of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from capsule_bridge.sqlite import writer
from tests.unit.bridge.power import power_rounds

pytestmark = pytest.mark.anyio

CUTS = 40


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is copied into the database often enough for a cut to come there."""
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 200_000)


async def test_nothing_acknowledged_is_lost_changed_or_doubled_by_a_power_cut(tmp_path: Path) -> None:
    tally = await power_rounds(tmp_path, CUTS, seed=1)
    assert tally.wrong == []
    assert tally.spoiled == 0
    assert tally.facts > 10 * CUTS, "if hardly anything was acknowledged the cuts say nothing"


async def test_a_level_that_does_not_sync_loses_but_spoils_nothing(tmp_path: Path) -> None:
    """If the cuts took nothing from this one, they would prove nothing of the other."""
    tally = await power_rounds(tmp_path, CUTS // 2, seed=2, level="process")
    assert tally.harmful > CUTS // 8
    assert tally.spoiled == 0


@pytest.mark.parametrize("name", ["*-new", "*.values", "*.values/*.tmp"])
async def test_what_the_store_syncs_by_itself_is_needed(tmp_path: Path, name: str) -> None:
    """What is lost if the disk lies of one: where the store's directory is, where large values are, what they hold."""
    tally = await power_rounds(tmp_path, CUTS // 2, seed=3, lies=lambda path: path.match(name))
    assert tally.harmful > 0
    assert tally.spoiled == 0
