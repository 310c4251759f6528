"""Many crashes of a database under those who write to it. Run by `make soak`; a few are part of `make test`."""

from __future__ import annotations

import time

import pytest

from capsule_bench.database import NoServerError, server
from tests.unit.bridge.restarts import restart_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = 60
PART = 10
"""Rounds on one store; then the next begins."""


async def test_crashes_of_the_database_lose_nothing() -> None:
    seed = time.time_ns() % 2**30
    try:
        with server() as one:
            tallies = [await restart_rounds(one, f"part{n}", PART, seed + n) for n in range(ROUNDS // PART)]
    except NoServerError as error:
        pytest.skip(str(error))
    facts, unknown = sum(each.facts for each in tallies), sum(each.unknown for each in tallies)
    wrong = [what for each in tallies for what in each.wrong]
    print(
        f"\nbridge: {ROUNDS} crashes of PostgreSQL, {facts:,} acknowledged facts, {unknown:,} calls without an answer, "
        f"{len(wrong)} lost, changed or doubled; seed {seed}"
    )
    assert wrong == []
