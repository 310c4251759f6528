"""Whatever is killed or used, a pool goes on and in the end is as it was. Longer: `make chaos`, `make soak`."""

from __future__ import annotations

import pytest

from tests.acceptance.pool.census import cycle, grown, settled
from tests.acceptance.pool.chaos import Chaos, plan
from tests.acceptance.pool.support import warm

pytestmark = pytest.mark.anyio

ROUNDS = 100


@pytest.mark.parametrize("seed", [20])
async def test_whatever_is_killed_in_every_state_each_execution_ends_and_the_counts_add_up(seed: int) -> None:
    async with warm(min_idle=3) as one:
        chaos = Chaos(one, plan(seed, ROUNDS), seed)
        await chaos.run(seconds=100)
        await chaos.check()


async def test_many_sessions_leave_node_and_zygote_as_they_were() -> None:
    async with warm(min_idle=2) as one:
        await cycle(one, 8)
        before = await settled(one)
        await cycle(one, 100)
        assert await grown(one, before) == {}
