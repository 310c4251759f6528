"""Many crashes of a database under those who write to it, and many meetings of nodes that share it: `make soak`."""

from __future__ import annotations

import time

import pytest

from capsule_bench.database import NoServerError, server
from tests.unit.bridge import caller
from tests.unit.bridge.linear import explained
from tests.unit.bridge.restarts import restart_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = 60
PART = 10
"""Rounds on one store; then the next begins."""
MEETINGS = 20


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


async def test_some_order_explains_all_that_nodes_heard() -> None:
    seed, calls = time.time_ns() % 2**30, 0
    try:
        with server() as one:
            for number in range(MEETINGS):
                histories = caller.histories(one.url(), f"meeting{number}", [f"x{seed + number}", f"y{seed + number}"])
                assert all(explained(history) for history in histories.values()), f"seed {seed + number}"
                calls += sum(map(len, histories.values()))
    except NoServerError as error:
        pytest.skip(str(error))
    print(f"\nbridge: {calls:,} calls of two nodes on one PostgreSQL, all explained by some order; seed {seed}")
