"""A process that writes is killed at every place of its writer. `make soak` does many times more of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.bridge.kills import POINTS, kill_rounds

pytestmark = pytest.mark.anyio

ROUNDS = 3 * len(POINTS)


async def test_nothing_acknowledged_is_lost_changed_or_doubled_by_a_kill(tmp_path: Path) -> None:
    tally = await kill_rounds(tmp_path / "store.db", ROUNDS, seed=1)
    assert tally.wrong == []
    # If hardly anything was acknowledged, or nobody was killed, the rounds say nothing.
    assert tally.facts > 20 * ROUNDS
    assert tally.survived <= ROUNDS // 5, tally
