"""What workers share with their zygote: modules, and memory. What a worker does by itself, each one does again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule.node.memory import own_bytes
from capsule.node.session import ExecuteRequest
from tests.acceptance.pool.support import run, value, warm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.acceptance.pool.support import Warm

pytestmark = pytest.mark.anyio

MIB = 2**20

NOTING = """
import os, sys
at_fork = set()
def note():
    at_fork.clear()
    at_fork.update(sys.modules)
os.register_at_fork(after_in_child=note)
"""
ORDINARY = {
    "nothing": "None",
    "output": "import sys; print(1); print(2, file=sys.stderr)",
    "a value": "[1, 'a', {2.0: None}]",
    "an error": "1 / 0",
    "a mistake in the syntax": "1 +",
    "await": "import asyncio; await asyncio.sleep(0)",
    "display": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
    "no answer": "input()",
    "a warning": "import warnings; warnings.warn('x')",
    "a thread": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "a program": "!true",
    "a comm": "import comm; comm.create_comm(target_name='x')",
    "info": "%capsule info",
}
"""What code does in most sessions."""


@pytest.fixture(scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Warm]:
    """Of workers that know which modules there were when they were forked."""
    folder: Path = tmp_path_factory.mktemp("modules")
    (folder / "noting.py").write_text(NOTING)
    async with warm(min_idle=1, preload=["noting"], path=[str(folder)]) as one:
        yield one


@pytest.mark.parametrize("code", ORDINARY.values(), ids=ORDINARY)
async def test_a_session_imports_nothing_that_its_zygote_could_have_imported(pool: Warm, code: str) -> None:
    session = await pool.node.open_session()
    await session.submit(ExecuteRequest(code)).finished()
    assert await value(session, "import sys, noting; sorted(set(sys.modules) - noting.at_fork)") == []
    await session.close()


async def test_what_a_session_imports_itself_is_seen(pool: Warm) -> None:
    """Or the test above would say nothing."""
    session = await pool.node.open_session()
    await run(session, "import this")
    assert await value(session, "import sys, noting; sorted(set(sys.modules) - noting.at_fork)") == ["this"]
    await session.close()


async def test_an_idle_worker_has_little_memory_of_its_own() -> None:
    async with warm(min_idle=1, preload=["numpy", "pandas"]) as one:
        session = await one.open_warm()
        assert own_bytes(session.info().pid) <= 5 * MIB
        await session.close()
