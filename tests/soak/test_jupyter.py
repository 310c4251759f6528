"""Restarts and output of kernels, hundreds of times."""

from __future__ import annotations

import pytest

from tests.acceptance.jupyter import rounds, support

RESTARTS = 200
ROUNDS = 300


@pytest.mark.timeout(1800)
def test_200_restarts_under_an_open_connection_lose_no_request() -> None:
    with support.home(), support.kernel(support.PROVISIONER) as (manager, client):
        rounds.restart(manager, client, RESTARTS)


@pytest.mark.timeout(1800)
def test_nothing_comes_behind_idle_300_times_on_a_busy_machine() -> None:
    with support.home(), support.kernel(support.PROVISIONER) as (_, client):
        rounds.write(client, ROUNDS)
