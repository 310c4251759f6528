"""A service dies at each point of the way of an execution. `make soak` does many times more of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.durable.deaths import ALL_POINTS, deaths

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_nothing_told_is_lost_changed_or_doubled_wherever_a_service_dies(place: Path) -> None:
    tally = await deaths(place, len(ALL_POINTS), seed=1)
    assert tally.wrong == []
    assert tally.survived == 0
