"""Sessions belong to principals; roles say what each may do, and quotas how much."""

from __future__ import annotations

import asyncio
import grp
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError, AsyncClient, CapsuleError, InputRequest, Output, SessionError
from capsule.client.remote import RemoteNode
from tests.acceptance.auth.support import LONG, Guarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def keys(node: Guarded) -> dict[str, str]:
    made = {role: node.new(f"{role}-1", "--role", role) for role in ("viewer", "user", "operator", "admin")}
    made["other"] = node.new("other")
    made["watcher"] = node.new("watcher", "--role", "viewer", "--principal", "user-1")
    return made


async def code_of(call: object) -> CapsuleError:
    with pytest.raises(CapsuleError) as caught:
        await call  # type: ignore[misc]
    return caught.value


@asynccontextmanager
async def detached(client: AsyncClient, name: str) -> AsyncIterator[AsyncSession]:
    """A session that nobody reads, by name."""
    session = await client.session(name=name)
    await session.run("x = 42")
    await session.detach()
    yield session
    await (await client.attach(name)).close()


# Whose a session is


async def test_another_principal_cannot_tell_whether_a_session_exists(node: Guarded, keys: dict[str, str]) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["other"]) as other,
        detached(owner, "private") as session,
    ):
        for name in (session.id, "private"):
            there = await code_of(other.attach(name))
            not_there = await code_of(other.attach("nothing"))
            assert there.code == not_there.code == "session_unknown"
            assert there.as_dict() == {**not_there.as_dict(), "message": f"there is no session {name!r}"}
            assert (await code_of(other.interrupt(name))).code == "session_unknown"
            assert (await code_of(other.kill(name))).code == "session_unknown"
        assert (await other.info()).sessions == 0
        assert (await owner.info()).sessions == 1
        assert await other.sessions() == []
        mine = await other.session(name="private")  # names are each one's own
        assert (await mine.run("'x' in globals()")).text == "False"
        await mine.close()
    refused = [line for line in node.refusals() if "code=session_unknown" in line]
    assert len(refused) >= 8  # those that exist and those that do not, alike
    assert all("principal=other" in line for line in refused)


REQUESTS: list[tuple[str, dict[str, object]]] = [
    ("upload", {"stream": "t", "name": "data"}),
    ("download", {"stream": "t", "name": "data"}),
    ("files", {}),
    ("info", {}),
    ("close", {}),
    ("detach", {}),
    ("restart", {}),
    ("interrupt", {}),
    ("cancel", {"execution": "x_1"}),
    ("complete", {"code": "x", "cursor": 1}),
    ("namespace_summary", {}),
]


@pytest.mark.parametrize(("kind", "body"), REQUESTS)
async def test_a_request_for_the_session_of_another_is_refused_like_one_for_none(
    node: Guarded, keys: dict[str, str], kind: str, body: dict[str, object]
) -> None:
    async with node.client(keys["user"]) as owner, node.client(keys["other"]) as other:
        session = await owner.session()
        await other.info()
        assert isinstance(other._node, RemoteNode)
        refused = [
            await code_of(other._node._link.request(kind, body, name, timeout=LONG)) for name in (session.id, "s_none")
        ]
        assert refused[0].as_dict() == {**refused[1].as_dict(), "message": f"there is no session {session.id!r}"}
        assert refused[0].code == "session_unknown"
        assert (await session.run("1 + 1")).text == "2"
        await session.close()


async def test_the_keys_of_one_principal_share_its_sessions(node: Guarded) -> None:
    first, second = (node.new(f"shared-{number}", "--principal", "both") for number in (1, 2))
    async with node.client(first) as one, node.client(second) as two, detached(one, "common"):
        session = await two.attach("common")
        assert (await session.run("x")).text == "42"
        await session.detach()


async def test_a_session_survives_the_revocation_of_the_key_that_made_it(node: Guarded) -> None:
    first, second = (node.new(f"moved-{number}", "--principal", "mover") for number in (1, 2))
    async with node.client(first) as client:
        session = await client.session(name="kept")
        await session.run("x = 1")
        await session.detach()
    node.keys("revoke", "moved-1")
    async with node.client(second) as client:
        session = await client.attach("kept")
        assert (await session.run("x")).text == "1"
        await session.close()


# Roles


async def test_a_viewer_may_look_and_not_touch(node: Guarded, keys: dict[str, str]) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["watcher"]) as viewer,
        detached(owner, "looked-at") as session,
    ):
        assert (await viewer.info()).sessions == 1
        assert [one.id for one in await viewer.sessions()] == [session.id]
        assert (await code_of(viewer.attach("looked-at"))).code == "permission_denied"
        watched = await viewer.attach("looked-at", watch=True)
        assert (await watched.info()).id == session.id
        await watched.detach()
        assert isinstance(viewer._node, RemoteNode)
        for kind, body in REQUESTS:
            if kind not in {"info", "detach"}:
                request = viewer._node._link.request(kind, body, session.id, timeout=LONG)
                assert (await code_of(request)).code == "permission_denied"
        for call in (viewer.session(), viewer.kill("looked-at"), viewer.interrupt("looked-at"), viewer.drain()):
            error = await code_of(call)
            assert error.code == "permission_denied"
            assert "viewer" in error.message
    assert any("principal=user-1 action=open code=permission_denied" in line for line in node.refusals())


async def test_a_viewer_may_watch_and_not_take_over(node: Guarded, keys: dict[str, str]) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["watcher"]) as viewer,
        node.client(keys["viewer"]) as stranger,
        owner.session(name="watched") as session,
    ):
        watched = await viewer.attach("watched", watch=True)
        events = watched.watch()
        await session.run("print('seen')")
        async for event in events:
            if isinstance(event, Output):
                assert event.text == "seen\n"
                break
        assert (await code_of(viewer.attach("watched"))).code == "permission_denied"
        assert (await code_of(viewer.attach("watched", share=True))).code == "permission_denied"
        assert (await code_of(stranger.attach("watched", watch=True))).code == "session_unknown"
        await watched.close()
        assert (await session.run("1")).text == "1"


async def test_a_user_may_not_do_what_is_for_operators(node: Guarded, keys: dict[str, str]) -> None:
    async with node.client(keys["user"]) as client:
        assert (await code_of(client.drain())).code == "permission_denied"
        assert (await client.info()).pools == {}


@pytest.mark.parametrize("role", ["operator", "admin"])
async def test_an_operator_sees_the_sessions_of_all(node: Guarded, keys: dict[str, str], role: str) -> None:
    async with node.client(keys["user"]) as owner, node.client(keys[role]) as operator:
        async with detached(owner, "someones") as session:
            assert "default" in (await operator.info()).pools
            assert session.id in {one.id for one in await operator.sessions()}
            taken = await operator.attach(session.id)
            assert (await taken.run("x")).text == "42"
            await taken.detach()
        running = await owner.session(name="victim")
        await operator.kill("victim")
        with pytest.raises(SessionError):
            await running.run("1")


async def test_an_operator_shares_the_session_of_another_and_a_stranger_does_not(
    node: Guarded, keys: dict[str, str]
) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["operator"]) as operator,
        node.client(keys["other"]) as stranger,
        owner.session() as session,
        await operator.attach(session.id, share=True) as shared,
    ):
        await session.run("x = 1")
        assert (await shared.run("x + 1")).text == "2"
        assert (await code_of(stranger.attach(session.id, share=True))).code == "session_unknown"
        assert (await session.run("x")).text == "1"


async def test_an_operator_finds_the_sessions_of_others_by_their_names(node: Guarded, keys: dict[str, str]) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["other"]) as other,
        node.client(keys["operator"]) as operator,
        detached(owner, "theirs") as session,
    ):
        watched = await operator.attach("theirs", watch=True)
        assert (await watched.info()).id == session.id
        await watched.close()
        taken = await operator.attach("theirs")
        assert (await taken.run("x")).text == "42"
        await taken.detach()
        async with detached(other, "theirs") as second:
            for call in (operator.attach("theirs"), operator.interrupt("theirs"), operator.kill("theirs")):
                error = await code_of(call)
                assert error.code == "invalid_argument"
                assert session.id in str(error)
                assert second.id in str(error)
            mine = await operator.session(name="theirs")  # one's own comes first
            assert await operator.interrupt("theirs") is False
            await operator.kill("theirs")
            with pytest.raises(SessionError):
                await mine.run("1")
        named = await other.session(name=session.id)  # who takes an id for a name is not taken for that session
        taken = await operator.attach(session.id)
        assert (await taken.run("x")).text == "42"
        await taken.detach()
        await named.close()


async def test_the_user_of_the_node_is_its_admin(node: Guarded, keys: dict[str, str]) -> None:
    async with (
        AsyncClient(node.ipc) as local,
        node.client(keys["user"]) as owner,
        detached(owner, "local-too") as session,
    ):
        assert session.id in {one.id for one in await local.sessions()}


# The directory


async def test_a_directory_is_looked_for_on_the_nodes_machine(
    node: Guarded, keys: dict[str, str], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    async with node.client(keys["user"]) as client:
        opener = client.session(cwd=there)  # this machine has no such directory
        there.mkdir()
        session = await opener.open()
        assert (await session.run("import os; os.getcwd()")).text == repr(str(there))
        await session.close()
        error = await code_of(client.session(cwd="/no/such/directory").open())
        assert (error.code, "/no/such/directory" in error.message) == ("invalid_argument", True)
        with pytest.raises(ArgumentError, match="root"):
            client.session(cwd="there")


# Quotas


@asynccontextmanager
async def limited(folder: Path, quota: str) -> AsyncIterator[tuple[Guarded, AsyncClient]]:
    with Guarded(folder, f"[serve.quotas.ada]\n{quota}\n") as node:
        async with node.client(node.new("ada")) as client:
            yield node, client


def check(error: CapsuleError, limit: str, used: int, allowed: int) -> None:
    assert error.code == "quota_exceeded"
    assert error.details["limit"] == limit
    assert error.details["allowed"] == allowed
    assert error.details["used"] >= used
    assert limit in error.message


async def test_a_quota_of_sessions(folder: Path) -> None:
    async with limited(folder, "sessions = 2") as (node, client):
        opened = await asyncio.gather(*(client.session().open() for _ in range(4)), return_exceptions=True)
        refused = [one for one in opened if isinstance(one, CapsuleError)]
        assert len(refused) == 2  # those that are being opened count
        for error in refused:
            check(error, "sessions", 2, 2)
        async with node.client(node.new("bob")) as other:  # the quota is ada's
            for _ in range(3):
                await other.session()
        await next(one for one in opened if not isinstance(one, BaseException)).close()
        await client.session()
        assert any("principal=ada action=open code=quota_exceeded" in line for line in node.refusals())


async def test_a_quota_of_executions_and_one_of_those_that_wait(folder: Path) -> None:
    async with limited(folder, "executions = 1\nqueued = 1") as (_, client):
        first, second = await client.session(), await client.session()
        release = asyncio.Event()

        async def answer(_request: InputRequest) -> str:
            await release.wait()
            return ""

        running = first.submit("input()", on_input=answer)
        waiting = first.submit("1")
        check(await code_of(first.run("2")), "queued", 1, 1)
        check(await code_of(second.run("3")), "executions", 1, 1)
        await first.interrupt()
        await asyncio.gather(running.result(), waiting.result())
        assert (await second.run("3")).text == "3"


async def test_a_quota_of_bytes(folder: Path) -> None:
    async with limited(folder, "bytes_per_second = 100_000") as (_, client):
        session = await client.session()
        assert (await session.run("print('x' * 2_000_000)")).verdict == "ok"  # what was let in is not cut off
        error = await code_of(session.run("1"))
        check(error, "bytes_per_second", 1_000_000, 100_000)
        assert error.retryable
        assert error.details["retry_after"] > 1
        assert (await session.info()).state == "ready"  # only what carries much is refused
        await session.close()


async def test_what_is_uploaded_counts_and_is_not_cut_off(folder: Path) -> None:
    async with limited(folder, "bytes_per_second = 100_000") as (_, client):
        session = await client.session()
        assert (await session.upload(bytes(2_000_000), "data")).size == 2_000_000
        check(await code_of(session.run("1")), "bytes_per_second", 1_000_000, 100_000)
        check(await code_of(session.upload(b"x", "more")), "bytes_per_second", 1_000_000, 100_000)
        await session.close()


async def test_an_upload_that_was_let_in_may_begin_when_the_quota_is_used_up(folder: Path) -> None:
    """The message that begins it has no answer: refused, its client waited for credit until it gave up."""
    async with limited(folder, "bytes_per_second = 100_000") as (_, client), asyncio.timeout(LONG / 2):
        session = await client.session()
        upload = await session._inner.files.upload("data")
        assert (await session.run("print('x' * 2_000_000)")).verdict == "ok"
        assert (await code_of(session.run("1"))).code == "quota_exceeded"
        await upload.begin(0)
        await upload.write([b"abc"])
        assert (await upload.finish(sha256(b"abc").hexdigest())).size == 3
        await session.close()


async def test_quotas_are_reloaded(folder: Path) -> None:
    async with limited(folder, "sessions = 1") as (node, client):
        session = await client.session()
        check(await code_of(client.session().open()), "sessions", 1, 1)
        node.write("[serve.quotas.ada]\nsessions = 2\nbytes_per_second = 100_000\n")
        node.process.send_signal(signal.SIGHUP)
        assert "serve.quotas" in await asyncio.to_thread(node.next_line, "reloaded: ")
        await client.session()
        check(await code_of(client.session().open()), "sessions", 2, 2)
        assert (await session.run("print('x' * 2_000_000)")).verdict == "ok"
        check(await code_of(session.run("1")), "bytes_per_second", 1_000_000, 100_000)


async def test_a_quota_of_memory(folder: Path) -> None:
    async with limited(folder, f"memory_bytes = {300 * 2**20}") as (_, client):
        session = await client.session()
        assert (await session.run("x = bytearray(400 * 2**20)")).verdict == "ok"
        async with asyncio.timeout(LONG):  # it is measured once a second
            while not isinstance(error := await outcome(session), CapsuleError):
                await asyncio.sleep(0.1)
        check(error, "memory_bytes", 400 * 2**20, 300 * 2**20)
        check(await code_of(client.session().open()), "memory_bytes", 400 * 2**20, 300 * 2**20)


async def outcome(session: AsyncSession) -> object:
    try:
        return await session.run("1")
    except CapsuleError as error:
        return error


# Other users of the machine

STRANGER = """
import grp, os, socket, sys
from capsule_protocol.connection import Connection
from capsule_protocol import framing
path, gid, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection = Connection("client", "client")
hello = b"".join(framing.pack(connection.send(connection.hello())))
os.setgroups([]); os.setgid(gid); os.setuid(uid)
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
try:
    s.connect(path)
    s.sendall(hello)
    print("in" if s.recv(100) else "out")
except OSError:
    print("out")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("gid", "told"), [(1, "in"), (2, "out")])
def test_members_of_the_group_come_in_and_nobody_else(folder: Path, gid: int, told: str) -> None:
    with tempfile.TemporaryDirectory(prefix="a-", dir="/tmp") as shared:  # that of the run is closed to others
        Path(shared).chmod(0o755)
        assert knock(folder, Path(shared, "node.sock"), gid) == f"{told}\n"


def knock(folder: Path, socket: Path, gid: int) -> str:
    config = f'group = "{grp.getgrgid(1).gr_name}"\n'
    with Guarded(folder, config, ["--listen", f"ipc://{socket}", "--listen", "tcp://127.0.0.1:0"]):
        command = [sys.executable, "-c", STRANGER, str(socket), str(gid), "65534"]
        return subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True).stdout


# Promises


async def test_promises_of_others_exist_only_for_operators_and_viewers_settle_none(
    node: Guarded, keys: dict[str, str]
) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["other"]) as other,
        node.client(keys["watcher"]) as watcher,
        node.client(keys["operator"]) as operator,
    ):
        session = await owner.session()
        execution = session.start("input('name? ')", {}, allow_input=True)
        while not isinstance(request := await execution.next_event(), InputRequest):
            assert request is not None
        id_ = request.promise
        assert await other.promises() == []
        for call in (other.promise(id_), other.settle_promise(id_, "resolve", "mine")):
            assert (await code_of(call)).code == "promise_unknown"
        assert id_ in [one.id for one in await watcher.promises()]
        assert (await code_of(watcher.settle_promise(id_, "resolve", "x"))).code == "permission_denied"
        assert id_ in [one.id for one in await operator.promises()]
        assert (await operator.settle_promise(id_, "resolve", "Ada")).decided
        assert (await execution.result()).text == "'Ada'"
        await session.close()


async def test_what_an_execution_told_exists_only_for_its_principal_and_operators(
    node: Guarded, keys: dict[str, str]
) -> None:
    async with (
        node.client(keys["user"]) as owner,
        node.client(keys["other"]) as other,
        node.client(keys["operator"]) as operator,
    ):
        session = await owner.session()
        id_ = (await session.run("print('mine'); 42")).execution_id
        for call in (other.execution(id_).result(), other.execution(id_).cancel()):
            assert (await code_of(call)).code == "execution_unknown"
        assert (await operator.execution(id_).result()).stdout == "mine\n"
        await session.close()
