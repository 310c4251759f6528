"""What goes wrong with the modules of an environment is told as clearly where each worker imports them itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, EnvironmentFailed
from capsule_kernels import system
from capsule_protocol.errors import CapsuleError, PoolError, WorkerLost
from tests.acceptance.behaviour.support import ok
from tests.acceptance.pool.support import value, warm

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def failure(folder: Path, source: str, **environment: Any) -> CapsuleError:
    """What the first session is told of an environment with this module."""
    (folder / "faulty.py").write_text(source)
    faulty = {
        "preload": ["json", "faulty"],
        "path": [str(folder)],
        "start_method": "spawn",
        "min_idle": 0,
        **environment,
    }
    async with AsyncClient(environments={"default": faulty}) as client:
        with pytest.raises(CapsuleError) as caught:
            await client.session()
    return caught.value


async def test_where_workers_are_forks_it_is_refused_and_the_way_out_is_told(restless: dict[str, Any]) -> None:
    environment = restless | {"start_method": "fork"}
    async with AsyncClient(environments={"default": environment}) as client:
        with pytest.raises(EnvironmentFailed, match="restless left threads running") as caught:
            await client.session()
    assert caught.value.code == "environment_failed"
    assert 'start_method = "spawn"' in caught.value.hint


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('\\udc80')", "ValueError"),
        ("class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute", "Mute"),
    ],
)
async def test_a_module_that_cannot_be_imported_is_told_with_the_traceback(
    tmp_path: Path, source: str, told: str
) -> None:
    error = await failure(tmp_path, source)
    assert isinstance(error, EnvironmentFailed)
    assert error.code == "environment_failed"
    assert error.message.startswith("the environment's modules could not be imported: ")
    assert told in error.message
    assert "faulty.py" in error.details["traceback"]


async def test_a_module_that_ends_the_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    breaker = {"failures": 1}
    error = await failure(tmp_path, "import os; os.write(2, b'no licence\\n'); os._exit(3)", breaker=breaker)
    assert isinstance(error, PoolError | WorkerLost)
    assert "exit code 3" in error.message
    assert "no licence" in error.message


async def test_a_module_that_is_never_imported_is_told_when_the_time_is_over(tmp_path: Path) -> None:
    error = await failure(tmp_path, "import threading; threading.Event().wait()", create_timeout=1.0)
    assert error.code == "pool_unavailable"
    assert "create_timeout=1 s" in error.message


async def test_modules_that_fail_open_the_breaker_of_the_pool(tmp_path: Path) -> None:
    environment = {"preload": ["no_such_module"], "start_method": "spawn", "min_idle": 0, "breaker": {"failures": 2}}
    async with AsyncClient(environments={"default": environment}) as client:
        codes = []
        for _ in range(3):
            with pytest.raises(CapsuleError, match="no_such_module") as caught:
                await client.session()
            codes.append(caught.value.code)
    assert codes == ["environment_failed", "environment_failed", "pool_unavailable"]


async def test_an_environment_that_is_mended_needs_no_restart(tmp_path: Path) -> None:
    """No process keeps what was wrong."""
    module = tmp_path / "mended.py"
    module.write_text("1 / 0")
    environment = {"preload": ["mended"], "path": [str(tmp_path)], "start_method": "spawn", "min_idle": 0}
    async with AsyncClient(environments={"default": environment}) as client:
        with pytest.raises(EnvironmentFailed, match="ZeroDivisionError"):
            await client.session()
        module.write_text("value = 'whole'")
        async with client.session() as session:
            assert (await ok(session, "import mended; mended.value")).text == "'whole'"


async def test_a_warm_worker_has_imported_all_before_anybody_asks(restless: dict[str, Any]) -> None:
    async with warm(**restless, min_idle=1) as one:
        asked = system.now_ticks()
        session = await one.open_warm()
        assert session.info().pid is not None
        assert system.started(session.info().pid) <= asked
        assert await value(session, "import restless; restless.ask(int, 7)") == 7
        await one.until(idle=1, in_use=1, starting=0)
        await session.close()
