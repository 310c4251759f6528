"""Saving and restoring among all else that happens to a session: order, cancellation, other clients, ends."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, AsyncClient, Client, ExecutionError, SessionError
from capsule.node.checkpoints import SaveRequest
from tests.acceptance.auth.support import Guarded
from tests.acceptance.operators.support import capsule
from tests.acceptance.save.support import checkpoint, does
from tests.acceptance.serve.support import LONG, Proxy, Served
from tests.acceptance.serve.test_end import refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule import AsyncSession
    from capsule.client.remote.streams import RemoteDownload
    from capsule.node.transfers import Download

pytestmark = pytest.mark.anyio

SLOW = (
    "import time\n"
    "class Slow:\n"
    "    def __reduce__(self):\n"
    "        open('begun', 'w').close()\n"
    "        time.sleep(600)\n"
    "slow = Slow(); x = 1"
)


async def kept(session: AsyncSession) -> list[str]:
    """The files of checkpoints that are in the box's directory."""
    code = (
        "import os; d = os.path.dirname(os.environ['SESSION_FILES']) + '/checkpoints'\n"
        "sorted(os.listdir(d)) if os.path.isdir(d) else []"
    )
    listed: list[str] = json.loads((await does(session, code)).replace("'", '"'))
    return listed


async def parts(download: Download | RemoteDownload) -> AsyncIterator[bytes]:
    """What comes of a file, to its end."""
    try:
        while data := await download.read():
            yield bytes(data)
    finally:
        download.close()


async def begun(session: AsyncSession) -> None:
    """Wait until the worker is in the midst of what is slow."""
    while not await session.files():
        await asyncio.sleep(0.01)


async def test_it_waits_for_its_turn(session: AsyncSession) -> None:
    """Behind what was submitted before, before what comes later; also when more is queued than the worker has."""
    before = [session.submit(f"x = {number}") for number in range(20)]
    report = await session.save(names=["x"])
    assert [(await execution.result()).verdict for execution in before] == ["ok"] * 20
    await does(session, "x = 'later'")
    await session.restore(report.data or b"")
    assert await does(session, "x") == "19"


async def test_nothing_is_left_at_the_node(session: AsyncSession) -> None:
    data = await checkpoint(session, "x = 1")
    assert await kept(session) == []
    await session.restore(data)
    assert await kept(session) == []
    with pytest.raises(SessionError):
        await session.restore(data[:-1])
    assert await kept(session) == []
    await does(session, "class C:\n    def __reduce__(self): raise ValueError\nc = C()")
    await session.save()
    assert await kept(session) == []
    assert await session.files() == []


async def test_who_leaves_interrupts_it_and_leaves_nothing(session: AsyncSession) -> None:
    await does(session, SLOW)
    saving = asyncio.ensure_future(session.save())
    await begun(session)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    async with asyncio.timeout(20):
        assert await does(session, "x") == "1"
        while await kept(session):  # it is removed in the background
            await asyncio.sleep(0.01)


async def test_who_leaves_before_its_turn_takes_it_out_of_the_queue(session: AsyncSession) -> None:
    await does(session, SLOW)
    running = session.submit("time.sleep(600)")
    saving = asyncio.ensure_future(session.save())
    while (await session.info()).executions < 3:
        await asyncio.sleep(0.01)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    assert await does(session, "x") == "1"


async def test_closing_and_restarting_end_it(client: AsyncClient, tmp_path: Path) -> None:
    async with client.session(files={}) as session:
        await does(session, SLOW)
        saving = asyncio.ensure_future(session.save(tmp_path / "state"))
        await begun(session)
        await session.restart()
        with pytest.raises(ExecutionError) as killed:
            await saving
        assert killed.value.code == "execution_killed"
        await does(session, SLOW)
        saving = asyncio.ensure_future(session.save(tmp_path / "state"))
        await begun(session)
    with pytest.raises((ExecutionError, SessionError)) as closed:
        await saving
    assert closed.value.code in {"execution_killed", "session_closed"}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SessionError) as over:
        await session.save()
    assert over.value.code == "session_closed"


async def test_many_at_once_each_get_their_turn(session: AsyncSession, other: AsyncSession) -> None:
    await does(session, "x = list(range(1000))")
    reports = await asyncio.gather(*(session.save() for _ in range(6)))
    for report in reports:
        await other.restore(report.data or b"")
    assert await does(other, "len(x)") == "1000"


async def test_a_checkpoint_survives_its_node(place: Path, tmp_path: Path) -> None:
    """The key is in a file that nobody else can read."""
    (place / "twice").mkdir()
    path = tmp_path / "state"
    with Guarded(place / "twice") as first, Client(first.ipc) as client, client.session() as session:
        session.run("def f(): return 'kept'")
        session.save(path)
        assert (first.state / "checkpoint.key").stat().st_mode & 0o777 == 0o600
    with Guarded(place / "twice") as second, Client(second.ipc) as client, client.session() as session:
        assert session.restore(path).restored == ["f"]
        assert session.run("f()").text == "'kept'"
        (second.state / "checkpoint.key").write_text("short\n")
        with pytest.raises(Exception, match="holds no key for checkpoints"):
            session.save()
    with Guarded(place / "twice") as third, Client(third.ipc) as client, client.session() as session:
        (third.state / "checkpoint.key").unlink()
        with pytest.raises(SessionError, match="made by another node"):
            session.restore(path)


@pytest.mark.parametrize("stays", [True, False], ids=["its client is slow", "its client has left"])
async def test_a_node_that_ends_waits_for_whoever_is_about_to_fetch_a_checkpoint(place: Path, stays: bool) -> None:
    with Served(place / "ending", f"[serve]\ndrain_timeout = {2 * LONG}\n") as served:
        async with served.client() as other, other.session() as witness:
            async with served.client() as client:
                session = await client.session()
                await does(session, "x = 6 * 7")
                checkpoints = session._inner.checkpoints
                report = await checkpoints.save(SaveRequest("f_1", ""))
                served.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(LONG):
                    while (await refused(witness)) is None:
                        pass  # it has not heard the signal yet
                if stays:
                    download = await checkpoints.files.download("f_1")
                    data = b"".join([part async for part in parts(download)])
                    assert len(data) > report.size
                    await checkpoints.discard("f_1")
            assert await asyncio.to_thread(served.process.wait, LONG) == 0


async def test_a_node_that_ends_lets_a_save_come_to_its_end(place: Path, tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    code = (
        "import os\n"
        "class Gate:\n"
        "    def __reduce__(self):\n"
        f"        open({str(mark)!r}, 'w').close()\n"
        f"        while not os.path.exists({str(go)!r}): pass\n"
        "        return int, ('42',)\n"
        "gate = Gate()"
    )
    with Served(place / "saving", f"[serve]\ndrain_timeout = {2 * LONG}\n") as served:
        async with served.client() as client, client.session() as session:
            await does(session, code)
            saving = asyncio.ensure_future(session.save(tmp_path / "saved"))
            async with asyncio.timeout(LONG):
                while not mark.exists():
                    await asyncio.sleep(0.005)
                served.process.send_signal(signal.SIGTERM)
                while (await refused(session)) is None:
                    pass  # it has not heard the signal yet
                with pytest.raises(SessionError, match="about to end"):
                    await session.save()
                go.touch()
                report = await saving
            assert [name.name for name in report.saved] == ["os", "Gate", "gate"]
            assert (tmp_path / "saved").stat().st_size == report.size
            assert await asyncio.to_thread(served.process.wait, LONG) == 0


async def test_only_who_has_a_session_saves_it(node: Guarded, key: str) -> None:
    async with AsyncClient(node.ipc) as ours, ours.session(name="mine") as session:
        await does(session, "x = 1")
        async with AsyncClient(node.ipc) as second:
            watching = await second.attach("mine", watch=True)
            for attempt in (watching.save(), watching.restore(b"")):
                with pytest.raises(SessionError) as watched:
                    await attempt
                assert watched.value.code == "session_watched"
        async with AsyncClient(node.tcp, key=key) as theirs:
            for refused in (
                theirs.save("mine", "/dev/null/x"),
                theirs.restore("mine", b"x"),
                theirs.save(session.id, "x"),
            ):
                with pytest.raises((SessionError, ArgumentError)) as unknown:
                    await refused
                assert unknown.value.code in {"session_unknown", "invalid_argument"}
        async with AsyncClient(node.ipc) as third:
            await third.attach("mine")
            with pytest.raises(SessionError) as taken:
                await session.save()
            assert taken.value.code == "session_taken"


async def test_operators_save_and_restore_without_a_word_to_who_has_it(node: Guarded, tmp_path: Path) -> None:
    path = tmp_path / "state"
    async with AsyncClient(node.ipc) as client, client.session(name="work") as session:
        await does(session, "x = 1; f = open('/etc/hostname')")
        saved = await capsule("save", "work", path, "--address", node.ipc)
        assert saved.returncode == 0, saved
        assert saved.stdout.decode().splitlines()[0].startswith("saved 1 name, ")
        assert "an open file cannot be saved" in saved.stdout.decode()
        assert await does(session, "x = 2; x") == "2"
        restored = await capsule("restore", session.id, path, "--address", node.ipc, "--json")
        assert restored.returncode == 0, restored
        answer: Any = json.loads(restored.stdout)
        assert (answer["restored"], answer["replaced"]) == (["x"], ["x"])
        assert await does(session, "x") == "1"
        path.write_bytes(b"nonsense")
        some, refused, unknown = await asyncio.gather(
            capsule("save", "work", path, "--only", "nope", "--address", node.ipc),
            capsule("restore", "work", path, "--address", node.ipc, "--json"),
            capsule("save", "nobody", tmp_path / "other", "--address", node.ipc),
        )
        assert (some.returncode, b"'nope', which the session does not know" in some.stderr) == (2, True)
        assert refused.returncode == 3
        assert json.loads(refused.stdout)["error"]["code"] == "checkpoint_refused"
        assert (unknown.returncode, b"session_unknown" in unknown.stderr) == (3, True)
        assert path.read_bytes() == b"nonsense"
        assert list(tmp_path.iterdir()) == [path]


async def test_in_library_mode_a_client_has_no_sessions_of_others() -> None:
    async with AsyncClient() as client:
        with pytest.raises(ArgumentError, match="belong to the client that opened them"):
            await client.save("x", "y")


async def test_a_lost_connection_is_gone_on_with(node: Guarded, place: Path) -> None:
    """While the file is on its way: the same bytes, and the session was saved once."""
    async with Proxy(place, node.ipc) as proxy, AsyncClient(proxy.address) as client, client.session() as session:
        await does(
            session,
            "import os\nx = os.urandom(8_000_000); times = []\n"
            "class C:\n    def __reduce__(self): times.append(1); return int, ()\n"
            "c = C()",
        )
        assert await does(session, "len(times)") == "0"
        proxy.after = 3_000_000
        proxy.cut()
        while proxy.connections < 2:
            await asyncio.sleep(0.01)
        saving = asyncio.ensure_future(session.save(names=["x", "c"]))
        while proxy.connections < 4 and not saving.done():
            await asyncio.sleep(0.01)
        proxy.after = None
        proxy.cut()
        report = await saving
        assert proxy.connections > 3
        assert await does(session, "len(times)") == "1"
        await does(session, "y = x; del x")
        await session.restore(report.data or b"", names=["x"])
        assert await does(session, "x == y") == "True"
