"""Client processes that are killed at any step of an execution: who comes back sees what an undisturbed one sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.serve.kills import Kills

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.serve.support import Served

ROUNDS = 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [41])
def test_a_client_that_was_killed_at_any_step_finds_all_events_again(served: Served, place: Path, seed: int) -> None:
    with Kills(served, place, seed) as kills:
        kills.run(ROUNDS)
        assert kills.killed >= ROUNDS // 2
