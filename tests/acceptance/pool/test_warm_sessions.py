"""Sessions out of a warm pool: what they are given, what they must not inherit, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, AsyncSession, EnvironmentFailed
from capsule.config import SessionOptions
from capsule.node.session import ExecuteRequest
from capsule_protocol.errors import ArgumentError, PoolError, WorkerLost
from tests.acceptance.pool.support import LONG, Warm, run, value, warm
from tests.unit.kernels.forked import CHILDREN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Warm]:
    async with warm(min_idle=2) as one:
        yield one


@pytest.fixture
async def full(pool: Warm) -> Warm:
    """The same pool, full again."""
    await pool.until(idle=2, closing=0, starting=0)
    return pool


# What a session is given


async def test_what_a_session_asks_for_is_applied_to_a_warm_worker(full: Warm, tmp_path: Path) -> None:
    session = await full.open_warm(
        env={"COLOUR": "red", "HOME": None},
        cwd=str(tmp_path),
        argv=("prog", "1"),
        path=("/spam",),
        files={"a/b": b"1"},
        name="mine",
    )
    code = """
        import os, sys
        os.environ["COLOUR"], "HOME" in os.environ, os.getcwd(), sys.argv, sys.path[0], open("a/b").read()
    """
    assert await value(session, code) == ("red", False, str(tmp_path), ["prog", "1"], "/spam", "1")
    assert session.info().name == "mine"
    await session.close()


async def test_a_bound_on_memory_holds_for_a_warm_worker(full: Warm) -> None:
    session = await full.open_warm(memory_bytes=256 * 2**20)
    code = "import time\nkeep = bytearray(b'x') * 400 * 2**20\ntime.sleep(1000)"
    running = session.submit(ExecuteRequest(code))
    async with asyncio.timeout(LONG):
        finished = await running.finished()
    assert finished.verdict == "oom"
    await session.close()


async def test_a_session_with_another_message_size_has_a_worker_of_its_own(full: Warm) -> None:
    acquires = full.info.stats.counts["acquires"]
    session = await full.node.open_session(SessionOptions(message_bytes=2**20))
    assert await run(session, "6 * 7") == "42"
    assert full.info.stats.counts["acquires"] == acquires
    await session.close()


async def test_options_that_the_worker_refuses_cost_the_worker_and_nothing_else(full: Warm) -> None:
    with pytest.raises(ArgumentError, match="nowhere"):
        await full.node.open_session(SessionOptions(cwd="/nowhere"))
    await full.until(in_use=0, closing=0, idle=2)


# What it must not inherit


async def test_no_session_finds_anything_of_another(full: Warm) -> None:
    """Variables, modules and what was done to them, environment, directory, arguments, history, signals, mask."""
    leave = """
        import builtins, json, os, signal, sys, types
        secret = builtins.secret = json.secret = 1
        sys.modules["spam"] = types.ModuleType("spam")
        os.environ["SECRET"] = "1"
        os.chdir("/usr")
        os.umask(0o77)
        sys.path.append("/secret")
        sys.argv.append("secret")
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    """
    look = """
        import builtins, json, os, signal, sys
        found = [n for n in ("secret",) if n in globals() or hasattr(builtins, n) or hasattr(json, n)]
        os.umask(mask := os.umask(0))
        [found, "spam" in sys.modules, "SECRET" in os.environ, os.getcwd() == "/usr", "/secret" in sys.path, sys.argv,
         mask == 0o77, signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, len(In)]
    """
    for _ in range(4):
        session = await full.node.open_session()
        assert await value(session, look) == [[], False, False, False, False, [""], False, True, 2]
        await run(session, leave)
        await session.close()


async def test_no_session_finds_the_files_of_another(full: Warm) -> None:
    """Neither what it was given nor what the code wrote there, in its own directory or where the other's was."""
    look = "import os; os.path.exists({there!r}), sorted(os.listdir('.')), os.getcwd()"
    there = "/nowhere"
    for number in range(3):
        session = await full.node.open_session(SessionOptions(files={f"given{number}": b"1"}))
        assert (await value(session, look.format(there=there)))[:2] == (False, [f"given{number}"])
        there = await value(session, f"open('written{number}', 'w').close(); os.getcwd()")
        await session.close()


async def test_no_session_finds_variables_of_the_environment_that_another_was_given(full: Warm) -> None:
    given = await full.node.open_session(SessionOptions(env={"SECRET": "s3cret"}))
    other = await full.node.open_session()
    assert await value(given, "import os; os.environ['SECRET'], os.popen('echo $SECRET').read()") == (
        "s3cret",
        "s3cret\n",
    )
    assert await value(other, "import os; 'SECRET' in os.environ") is False
    assert await value(other, "b's3cret' in open('/proc/self/environ', 'rb').read()") is False
    await given.close()
    await other.close()


DRAWS = """
    import random, uuid, tempfile, secrets, os, numpy
    [
        random.random(), random.Random().random(), float(numpy.random.random()),
        float(numpy.random.default_rng().random()), str(uuid.uuid4()), secrets.token_hex(), os.urandom(8),
        tempfile.mktemp(), next(tempfile._get_candidate_names()),
    ]
"""


async def test_warm_workers_share_no_random_state() -> None:
    """Nor temporary names: also when the zygote has drawn from all of them before it forked."""
    async with warm(min_idle=3, preload=("numpy", "random", "tempfile", "has_drawn"), path=(CHILDREN,)) as one:
        sessions = [await one.node.open_session() for _ in range(3)]
        seen = [await value(session, DRAWS) for session in sessions]
        assert all(len(set(drawn)) == 3 for drawn in zip(*seen, strict=True)), seen


async def test_a_session_after_another_draws_anew(full: Warm) -> None:
    """Seeding is a session's own affair."""
    drawn = []
    for _ in range(2):
        session = await full.node.open_session()
        drawn.append(await value(session, "import random, numpy; random.random(), float(numpy.random.random())"))
        await run(session, "random.seed(1); numpy.random.seed(1)")
        await session.close()
    assert not set(drawn[0]) & set(drawn[1])


async def test_warm_workers_hold_no_descriptor_of_another(full: Warm) -> None:
    code = """
        import os
        sorted(os.readlink(f"/proc/self/fd/{n}") for n in range(3, 200) if os.path.lexists(f"/proc/self/fd/{n}"))
    """
    first, second = await full.open_warm(), await full.open_warm()
    one, two = await value(first, code), await value(second, code)
    pipes = {name for name in one if name.startswith(("pipe", "socket"))}
    assert not pipes & set(two)
    await first.close()
    await second.close()


# Warm-up code


async def test_warm_up_code_has_run_before_the_session(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import json\nprint('warming')\ndisplay(1)\nwarmed = [json.dumps(1)]\nlast = 5"
    async with warm(warmup=code) as one:
        seen: list[Any] = []
        session = await one.open_warm()
        session.on_background = seen.append
        assert await value(session, "warmed.append(2); warmed, last") == (["1", 2], 5)
        assert await value(session, "list(In)") == ["", "warmed.append(2); warmed, last", "list(In)"]
        other = await one.node.open_session()
        assert await run(other, "warmed") == "['1']"
        assert seen == []
    assert "warming" not in "".join(capfd.readouterr())


async def test_warm_up_code_that_raises_is_told_with_its_traceback() -> None:
    async with AsyncClient(environments={"default": {"warmup": "x = 1\nraise LookupError('not today')"}}) as client:
        with pytest.raises(EnvironmentFailed, match="LookupError: not today") as caught:
            await client.session()
        assert "raise LookupError" in caught.value.details["traceback"]


async def test_warm_up_code_that_ends_the_worker_is_told_with_what_it_said() -> None:
    warmup = "import os; os.write(2, b'no licence'); os._exit(3)"
    environment = {"warmup": warmup, "breaker": {"failures": 1, "pause": 3600.0, "longest_pause": 3600.0}}
    async with AsyncClient(environments={"default": environment}) as client:
        with pytest.raises(PoolError, match="exit code 3: no licence") as caught:
            await client.session()
        assert caught.value.details["traceback"] == "no licence"


async def test_warm_up_code_that_never_ends_is_a_failure() -> None:
    async with AsyncClient(environments={"default": {"warmup": "while True: pass", "create_timeout": 3.0}}) as client:
        with pytest.raises(PoolError, match="create_timeout=3 s"):
            await client.session()


# When it goes wrong


async def test_a_warm_worker_that_died_is_not_handed_out(full: Warm) -> None:
    """Two have died, and the node has had no time to notice."""
    for entry in full.node._pools._pools["default"]._roster._idle.values():
        died = os.pidfd_open(entry.member.pid)
        os.kill(entry.member.pid, signal.SIGKILL)
        assert select.select([died], [], [], LONG)[0]
        os.close(died)
    session = await full.node.open_session()
    assert await run(session, "6 * 7") == "42"
    await session.close()


async def test_an_environment_that_cannot_start_recovers_once_it_is_repaired(tmp_path: Path) -> None:
    module = tmp_path / "fragile.py"
    module.write_text("raise LookupError('not today')")
    one = Warm(preload=("fragile",), path=(str(tmp_path),))
    async with one.node:
        errors = []
        for _ in range(8):
            with pytest.raises((EnvironmentFailed, PoolError)) as caught:
                await one.node.open_session()
            errors.append(caught.value)
        assert [error.code for error in errors[:5]] == ["environment_failed"] * 5
        assert all("not today" in str(error) for error in errors)
        assert all("fragile.py" in error.details["traceback"] for error in errors)
        module.write_text("value = 5")
        await one.until(idle=1)
        session = await one.node.open_session()
        assert await run(session, "import fragile; fragile.value") == "5"


async def test_a_traceback_shows_the_source_of_a_preloaded_module(tmp_path: Path) -> None:
    module = tmp_path / "early.py"
    module.write_text("def fail():\n    raise LookupError('late')  # this very line\n")
    async with warm(preload=("early",), path=(str(tmp_path),)) as one:
        session = await one.open_warm()
        finished = await session.submit(ExecuteRequest("import early\nearly.fail()")).finished()
        assert finished.error is not None
        text = "\n".join(finished.error.traceback)
        assert "# this very line" in text
        assert "early.fail()" in text
        assert "capsule_kernels" not in text
        await session.close()


async def test_a_first_error_need_not_find_out_where_all_modules_are(full: Warm) -> None:
    session = await full.open_warm()
    assert await value(session, "import inspect; len(inspect.modulesbyfile)") > 100
    await session.close()


async def test_a_missing_interpreter_opens_the_breaker() -> None:
    environment = {"python": "/nowhere/python", "min_idle": 0}
    async with AsyncClient(environments={"default": environment}) as client:
        codes = []
        for _ in range(7):
            with pytest.raises((EnvironmentFailed, PoolError), match="/nowhere/python") as caught:
                await client.session()
            codes.append(caught.value.code)
        assert codes[:5] == ["environment_failed"] * 5
        assert "pool_unavailable" in codes or (await client.info()).pools["default"].breaker.state != "closed"


async def test_a_breaker_opens_and_pauses_as_its_environment_says() -> None:
    breaker = {"failures": 2, "pause": 3600.0, "longest_pause": 7200.0}
    environment = {"python": "/nowhere/python", "min_idle": 0, "breaker": breaker}
    async with AsyncClient(environments={"default": environment}) as client:
        for _ in range(2):
            assert (await client.info()).pools["default"].breaker.state == "closed"
            with pytest.raises(EnvironmentFailed):
                await client.session()
        info = (await client.info()).pools["default"].breaker
        assert info.state == "open"
        assert info.next_attempt <= 7200


async def test_warm_workers_outlive_their_zygote(full: Warm) -> None:
    zygote = await full.node._environments.zygote("default")
    os.kill(zygote.pid, signal.SIGKILL)
    async with asyncio.timeout(LONG):
        await zygote.died.wait()
    session = await full.open_warm()
    assert await run(session, "6 * 7") == "42"
    await session.close()
    await full.until(idle=2)


async def test_a_node_that_closes_fails_those_who_wait() -> None:
    one = Warm(max_sessions=1, min_idle=0)
    async with one.node:
        await one.node.open_session()
        waiting = [asyncio.ensure_future(one.node.open_session()) for _ in range(5)]
        await one.until(waiting=5)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)


async def test_a_session_waits_for_room_and_batch_waits_longer() -> None:
    async with warm(max_sessions=1, min_idle=0) as one:
        first = await one.node.open_session()
        order: list[str] = []

        async def take(priority: str) -> None:
            session = await one.node.open_session(SessionOptions.build(priority=priority))
            order.append(priority)
            await session.close()

        batch = asyncio.ensure_future(take("batch"))
        await one.until(waiting=1)
        interactive = asyncio.ensure_future(take("interactive"))
        await one.until(waiting=2)
        await first.close()
        await asyncio.gather(batch, interactive)
        assert order == ["interactive", "batch"]


async def test_waiting_for_room_has_a_limit() -> None:
    one = Warm(max_sessions=1, min_idle=0, acquire_timeout=5.0)
    async with one.node:
        await one.node.prepare()
        await one.node.open_session()
        with pytest.raises(PoolError) as caught:
            await one.node.open_session()
        assert caught.value.code == "pool_timeout"


# Restart, close, tell


async def test_a_restart_takes_a_warm_worker_and_keeps_the_session(full: Warm) -> None:
    session = await full.open_warm(name="kept")
    await run(session, "x = 1")
    await full.until(idle=2)
    before, hits = session.info(), full.info.stats.counts["hits"]
    await session.restart()
    after = session.info()
    assert full.info.stats.counts["hits"] == hits + 1
    assert (after.id, after.name, after.epoch) == (before.id, "kept", before.epoch + 1)
    assert after.pid != before.pid
    assert await run(session, "'x' in globals()") == "False"
    await session.close()


async def test_a_lost_worker_frees_its_place_at_once() -> None:
    async with warm(max_sessions=1, min_idle=0) as one:
        dead = await one.node.open_session()
        await dead.submit(ExecuteRequest("import os; os._exit(3)")).finished()
        other = await one.node.open_session()
        assert await run(other, "1") == "1"
        with pytest.raises((PoolError, WorkerLost, TimeoutError)):
            async with asyncio.timeout(0.1):
                await dead.restart()


async def test_deaths_are_counted_and_closed_sessions_are_not_among_them() -> None:
    async with warm(min_idle=0) as one:
        session = await one.node.open_session()
        await session.close()
        assert one.info.stats.deaths == {}
        session = await one.node.open_session()
        await session.submit(ExecuteRequest("import os; os._exit(3)")).finished()
        assert one.info.stats.deaths == {"exit code 3": 1}
        await session.close()
        info = await one.until(closing=0, in_use=0)
        assert info.stats.counts["created"] == info.stats.counts["gone"]


async def test_a_client_tells_of_its_pools() -> None:
    sizes = {"min_idle": 0, "max_sessions": 7}
    async with AsyncClient(environments={"default": sizes, "other": {"min_idle": 2}}) as client:
        before = (await client.info()).pools
        assert {name: (one.state, one.min_idle) for name, one in before.items()} == {
            "default": ("unused", 0),
            "other": ("unused", 2),
        }
        async with client.session() as session:
            assert isinstance(session, AsyncSession)
            info = await client.info()
            after = info.pools["default"]
            assert (before["default"].name, before["default"].max_sessions) == (after.name, after.max_sessions)
            assert before["default"].stats.counts.keys() == after.stats.counts.keys()
            assert (after.state, info.pools["other"]) == ("open", before["other"])
            assert (info.sessions, info.pools["default"].in_use) == (1, 1)
            assert info.pools["default"].breaker.state == "closed"
