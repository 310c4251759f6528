"""Modules that do not survive a fork work where each worker imports them itself, and what goes wrong there is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, EnvironmentFailed
from tests.acceptance.behaviour.support import ok

if TYPE_CHECKING:
    from capsule import AsyncSession

pytestmark = pytest.mark.anyio


async def test_the_thread_of_a_module_lives_in_each_worker(session: AsyncSession) -> None:
    assert (await ok(session, "import restless; restless.ask(41)")).text == "42"


async def test_where_workers_are_forks_it_is_refused_and_the_way_out_is_told(restless: dict[str, Any]) -> None:
    environment = restless | {"start_method": "fork"}
    async with AsyncClient(environments={"default": environment}) as client:
        with pytest.raises(EnvironmentFailed, match="restless left threads running") as caught:
            await client.session()
    assert caught.value.code == "environment_failed"
    assert 'start_method = "spawn"' in caught.value.hint
