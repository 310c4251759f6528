"""Modules that do not survive a fork, environments with them, and one node for a module of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient
from tests.acceptance.spawned.support import write_restless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECRET = "warm-up code may hold one"


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An environment with a module that leaves a thread running, where workers are no forks."""
    folder: Path = tmp_path_factory.mktemp("modules")
    write_restless(folder)
    return {"preload": ["restless"], "path": [str(folder)], "start_method": "spawn"}


@pytest.fixture(scope="module")
async def client(restless: dict[str, Any]) -> AsyncIterator[AsyncClient]:
    """A client whose sessions are of that environment."""
    async with AsyncClient(environments={"default": restless | {"warmup": f"warmed = {SECRET!r}"}}) as client:
        yield client
