"""How a service ends: asked once, asked twice, or killed. And how its clients see it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from click.testing import CliRunner

from capsule import ArgumentError, AsyncClient, Finished, NodeError, SessionError
from capsule.cli.entry import cli
from capsule.client.remote import link as remote_link
from capsule_protocol.connection import Connection
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import DEFAULT_LIMITS
from tests.acceptance.serve.support import CAPSULE, LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio


async def refused(session: AsyncSession) -> str | None:
    """The code with which an execution is refused; None if it was taken."""
    late = session.submit("1")
    await late.cancel()
    try:
        await late.result()
    except SessionError as error:
        return error.code
    return None


@pytest.fixture
def mortal(place: Path) -> Iterator[Served]:
    with Served(place / "mortal", "[serve]\ndrain_timeout = 60.0\n") as running:
        yield running


async def test_asked_once_it_lets_what_runs_come_to_its_end_and_takes_nothing_new(mortal: Served, place: Path) -> None:
    go = place / "go"
    long = f"import os, time\nprint('runs', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n6 * 7"
    async with mortal.client() as client, client.session() as session:
        running = session.submit(long)
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        mortal.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LONG):
            while (code := await refused(session)) is None:
                pass  # it has not heard the signal yet
        assert code == "node_closed"
        with pytest.raises(SessionError, match="about to end"):
            await client.session()
        go.touch()
        assert (await running.result()).text == "42"
        assert await asyncio.to_thread(mortal.process.wait, LONG) == 0
        go.unlink()


@pytest.mark.parametrize("lines", [30, 100], ids=["all of it was sent", "some of it waits in the node"])
async def test_what_its_client_has_not_read_yet_is_not_lost(mortal: Served, lines: int) -> None:
    async with mortal.client() as client, client.session() as session:
        code = f"for number in range({lines}): print('x' * 30_000, flush=True)\nnumber"
        async with session.stream(code) as stream, asyncio.timeout(LONG):
            told = [await anext(stream)]
            mortal.process.send_signal(signal.SIGTERM)
            with suppress(SessionError):  # it has ended already
                while await refused(session) is None:
                    pass
            told += [event async for event in stream]
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
        assert sum(len(getattr(event, "text", "")) for event in told[:-1]) == lines * 30_001
        assert isinstance(told[-1], Finished)
        assert (told[-1].verdict, told[-1].text) == ("ok", str(lines - 1))
        assert await asyncio.to_thread(mortal.process.wait, LONG) == 0


async def test_a_session_that_is_closed_unread_holds_nothing_up(mortal: Served) -> None:
    async with mortal.client() as client, client.session() as other:
        session = await client.session()
        stream = session.stream("for number in range(100): print('x' * 30_000, flush=True)")
        await anext(stream)
        mortal.process.send_signal(signal.SIGTERM)
        while await refused(other) is None:
            pass
        await session.close()
        assert await asyncio.to_thread(mortal.process.wait, LONG / 2) == 0


async def test_a_client_that_reads_nothing_any_more_is_waited_for_no_longer_than_drain_timeout(place: Path) -> None:
    with Served(place / "brief", "[serve]\ndrain_timeout = 0.5\n") as served:
        async with served.client() as client, client.session() as session:
            await anext(session.stream("while True: print('x' * 30_000, flush=True)"))
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(LONG) == 0  # the loop of this client stands still
            with pytest.raises(SessionError):
                await session.run("1")


async def test_asked_twice_it_ends_at_once(mortal: Served) -> None:
    children = []
    async with mortal.client() as client:
        session = await client.session()
        running = session.submit("while True: pass")
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        children = psutil.Process(mortal.process.pid).children(recursive=True)
        mortal.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LONG):
            while True:  # it has heard the first one when it takes nothing new
                try:
                    await (await client.session()).close()
                except SessionError:
                    break
        mortal.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(mortal.process.wait, LONG) == 0
    assert psutil.wait_procs(children, timeout=LONG)[1] == []


async def test_killed_it_leaves_no_process_and_its_clients_are_told(
    mortal: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_link, "RECONNECT_TIMEOUT", 0.3)
    async with mortal.client() as client:
        session = await client.session()
        running = session.submit("import time; time.sleep(1000)")
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        children = psutil.Process(mortal.process.pid).children(recursive=True)
        assert children
        mortal.kill()
        async with asyncio.timeout(LONG):
            with pytest.raises(NodeError) as caught:
                await running.result()
        assert caught.value.code == "connection_lost"
    assert psutil.wait_procs(children, timeout=LONG)[1] == []


async def test_a_session_that_nobody_wrote_down_does_not_survive_its_node_but_the_client_does(
    forgetful: Served,
) -> None:
    async with forgetful.client() as client:
        session = await client.session()
        forgetful.kill()
        forgetful.process.wait()
        with Served(forgetful.directory) as second:
            with pytest.raises(SessionError) as caught:
                await session.run("1")
            assert caught.value.code == "session_unknown"
            async with client.session() as fresh:
                assert (await fresh.run("1")).text == "1"
            assert second.process.poll() is None


def test_wait_ready_waits_for_the_node(place: Path) -> None:
    command = [str(CAPSULE), "wait-ready", "--address", f"ipc://{place}/late/node.sock"]
    waiting = subprocess.Popen([*command, "--timeout", "60"])
    with Served(place / "late"):
        assert waiting.wait(LONG) == 0
    gone = subprocess.run([*command, "--timeout", "0.3"], capture_output=True, check=False)
    assert gone.returncode == 124
    assert b"no node answered" in gone.stderr


async def test_wait_ready_waits_for_the_next_node_when_one_goes_that_has_greeted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_link, "RECONNECT_TIMEOUT", 0.01)
    directory = place / "next"
    directory.mkdir(mode=0o700)
    command = ["wait-ready", "--address", f"ipc://{directory}/node.sock", "--timeout", "60"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "node.sock"))
        listening.listen()
        waiting = asyncio.ensure_future(asyncio.to_thread(CliRunner().invoke, cli, command))
        await asyncio.to_thread(greet_and_go, listening)
        (directory / "node.sock").unlink()
    with Served(directory):
        done = await waiting
    assert (done.exception, done.output) == (None, "")


def greet_and_go(listening: socket.socket) -> None:
    """A node that ends when it has greeted a client and heard its question."""
    listening.settimeout(LONG)
    line, incoming = Connection("client", "node"), FrameBuffer()
    with listening.accept()[0] as connected:
        connected.settimeout(LONG)
        for kind in ("hello", "info"):
            while (frames := incoming.next_message()) is NEED_DATA:
                incoming.feed(connected.recv(2**16))
            line.receive(frames)
            line.next_event()
            if kind == "hello":
                connected.sendall(b"".join(pack(line.send(line.welcome(epoch=1)), DEFAULT_LIMITS)))


def test_the_service_manager_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(place / "notify"))
        told.settimeout(LONG)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
        with Served(place / "told") as served:
            assert told.recv(100) == b"READY=1"
            assert served.stop() == 0
            assert told.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(("mode", "why"), [(0o755, "open to others"), (0o777, "open to others")])
def test_a_directory_that_others_can_enter_is_refused(place: Path, mode: int, why: str) -> None:
    directory = place / f"open-{mode:o}"
    directory.mkdir()
    directory.chmod(mode)
    done = subprocess.run([str(CAPSULE), "serve", "--directory", str(directory)], capture_output=True, check=False)
    assert done.returncode == 3
    assert why in done.stderr.decode()
    assert "chmod 700" in done.stderr.decode()


def test_a_link_in_place_of_the_directory_is_refused(place: Path) -> None:
    link = place / "link"
    link.symlink_to(place)
    done = subprocess.run([str(CAPSULE), "serve", "--directory", str(link)], capture_output=True, check=False)
    assert done.returncode == 3
    assert "is not a directory, or a link" in done.stderr.decode()


@pytest.mark.parametrize(
    ("trap", "told", "hint"),
    [
        ("open", "can be written by others (mode 777)", "chmod go-w"),
        ("shared", "can be written by others (mode 1777)", "chmod go-w"),
        ("group", "can be written by others (mode 770)", "chmod go-w"),
        ("link", "is not a directory, or a link", "Remove it."),
        ("foreign", "belongs to user 65534", "a directory of your own"),
        ("missing", "cannot be looked at: No such file", ""),
    ],
)
def test_a_further_socket_is_not_put_where_others_could_put_their_own(
    place: Path, trap: str, told: str, hint: str
) -> None:
    directory = place / f"further-{trap}"
    directory.mkdir()
    match trap:
        case "link":
            directory.rename(place / "real")
            directory.symlink_to(place / "real")
        case "missing":
            directory.rmdir()
        case "foreign":
            if os.getuid() != 0:
                pytest.skip("only root can give a directory away")
            os.chown(directory, 65534, 65534)
        case _:
            directory.chmod({"open": 0o777, "shared": 0o1777, "group": 0o770}[trap])
    listen = ["--directory", str(place / "own"), "--listen", f"ipc://{directory}/second.sock"]
    done = subprocess.run([str(CAPSULE), "serve", *listen], capture_output=True, check=False, timeout=LONG)
    assert done.returncode == 3
    assert told in done.stderr.decode()
    assert hint in done.stderr.decode()
    assert not (directory / "second.sock").exists()


async def test_a_further_socket_may_be_where_others_come_in(place: Path) -> None:
    directory = place / "further"
    directory.mkdir(mode=0o755)
    address = f"ipc://{directory}/second.sock"
    with Served(place / "two", "", "--listen", address):
        async with AsyncClient(address) as client:
            assert (await client.info()).clients == 1


@pytest.mark.parametrize("trap", ["open", "link", "foreign"])
async def test_a_client_does_not_connect_where_somebody_else_could_listen(
    place: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    if trap == "foreign" and os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    runtime = place / trap
    directory = runtime / "capsule"
    directory.mkdir(mode=0o700, parents=True)
    if trap == "open":
        directory.chmod(0o777)
    elif trap == "link":
        directory.rename(runtime / "real")
        directory.symlink_to(runtime / "real")
    else:
        os.chown(directory, 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "node.sock"))
        listening.listen()
        listening.settimeout(0)
        async with AsyncClient("auto") as client:
            with pytest.raises(NodeError) as caught:
                await client.info()
        assert caught.value.code == "address_refused"
        assert caught.value.hint
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_an_address_is_checked() -> None:
    for bad in ("tcp://somewhere", "tcp://:1", "tcp://a:0x", "ipc://", "", "nowhere"):
        with pytest.raises(ArgumentError) as caught:
            AsyncClient(bad)
        assert caught.value.argument == "address"
