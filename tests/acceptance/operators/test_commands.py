"""What operators can do to the sessions of a running node, by its commands and by the clients' methods."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from capsule import AsyncClient, Client
from capsule_protocol.errors import ArgumentError, SessionError
from tests.acceptance.cli.support import Running, Terminal
from tests.acceptance.operators.support import answer, capsule, runs
from tests.acceptance.serve.support import LONG, Served

pytestmark = pytest.mark.anyio

FOR_EVER = "print('runs', flush=True)\nwhile True: pass"


# sessions


async def test_sessions_tells_of_every_session_what_an_operator_wants_to_know(
    served: Served, remote: AsyncClient
) -> None:
    async with remote.session(name="one") as session, served.client() as other:
        await (await other.session(name="left")).detach()
        running = session.submit(FOR_EVER)
        queued = [session.submit("1") for _ in range(3)]
        await runs(running)
        rows = {row["name"]: row for row in (await answer("sessions", "--address", served.address))["sessions"]}
        one, left = rows["one"], rows["left"]
        assert one["id"] == session.id
        assert one["pid"] == (await session.info()).pid
        assert (one["environment"], one["state"], one["attached"]) == ("default", "busy", True)
        assert (one["executions"], one["waiting"]) == (4, 3)
        assert one["memory"] > 2**20
        assert one["age"] > 0
        assert (left["state"], left["attached"], left["executions"]) == ("ready", False, 0)
        await other.kill("left")
        await session.interrupt()
        assert [(await one.result()).verdict for one in queued] == ["ok"] * 3


async def test_without_an_address_it_is_the_node_of_the_configuration(
    served: Served, remote: AsyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "of-the-node.toml"
    file.write_text(f'[serve]\ndirectory = "{served.directory}"\n')
    async with remote.session(name="configured"):
        rows = (await answer("sessions", "--config", file))["sessions"]
        assert "configured" in {row["name"] for row in rows}
        assert (await answer("interrupt", "configured", "--config", file)) == {
            "name": "configured",
            "interrupted": False,
        }
        ready = await capsule("wait-ready", "--timeout", "60", CAPSULE_SERVE__DIRECTORY=str(served.directory))
        assert ready.returncode == 0
        elsewhere = await capsule("sessions", "--config", file, "--address", "ipc:///tmp/nobody/node.sock")
        assert (elsewhere.returncode, b"/tmp/nobody" in elsewhere.stderr) == (3, True)


async def test_a_configuration_that_cannot_be_read_or_trusted_is_told_with_the_way_around(tmp_path: Path) -> None:
    file, place = tmp_path / "capsule.toml", tmp_path / "open"
    place.mkdir(mode=0o755)
    for content, why in (("serve = 1", b"serve"), (f'[serve]\ndirectory = "{place}"', b"is open to others")):
        file.write_text(content)
        done = await capsule("sessions", "--config", file)
        assert done.returncode == 2
        assert why in done.stderr
        assert b"--address" in done.stderr


async def test_sessions_is_a_table_of_plain_text_on_a_pipe(served: Served, remote: AsyncClient) -> None:
    async with remote.session(name="tabled"):
        done = await capsule("sessions", "--address", served.address)
        assert done.returncode == 0
        heading, *rows = done.stdout.decode().splitlines()
        assert heading.split()[:5] == ["NAME", "ID", "OWNER", "ENVIRONMENT", "STATE"]
        assert [row.split()[2:5] for row in rows if row.startswith("tabled ")] == [
            [f"uid:{os.getuid()}", "default", "ready"]
        ]
        assert all(byte >= 32 or byte == 10 for byte in done.stdout)


async def test_a_name_cannot_act_on_the_terminal_of_the_operator(served: Served, remote: AsyncClient) -> None:
    async with remote.session(name="\x1b[2Jx\n[bold]y"):
        done = await capsule("sessions", "--address", served.address)
        assert all(byte >= 32 or byte == 10 for byte in done.stdout)
        assert rb"\x1b[2Jx\n[bold]y" in done.stdout
        with Terminal("sessions", "--address", served.address) as terminal:
            terminal.end()
            assert "\x1b[2J" not in terminal.raw


async def test_watch_shows_what_changes_until_ctrl_c(served: Served) -> None:
    def watch() -> None:
        with (
            Client(served.address) as client,
            Running("sessions", "--watch", "--interval", "0.1", "--address", served.address) as watching,
        ):
            watching.until(b"NAME")
            with client.session(name="came"):
                watching.until(b"came ")
            watching.interrupt()
            code, out, err = watching.end()
            assert (code, err) == (0, b"")
            assert b"\x1b" not in out

    await asyncio.to_thread(watch)


async def test_watch_on_a_terminal_replaces_what_it_showed(served: Served) -> None:
    def watch() -> None:
        with (
            Client(served.address) as client,
            Terminal("sessions", "--watch", "--interval", "0.1", "--address", served.address) as terminal,
        ):
            terminal.until("NAME")
            with client.session(name="came"):
                terminal.until("came")
            terminal.type("\x03")
            assert terminal.end()[0] == 0
            assert "\x1b[1A" in terminal.raw or "\x1b[2K" in terminal.raw

    await asyncio.to_thread(watch)


async def test_watch_ends_with_the_node(place: Path) -> None:
    with (
        Served(place / "short") as served,
        Running("sessions", "--watch", "--json", "--address", served.address) as watching,
    ):
        assert json.loads(await asyncio.to_thread(watching.stdout.readline)) == {"sessions": []}
        served.stop()
        code, out, _ = await asyncio.to_thread(watching.end)
        assert code == 3
        # Whether it asked just then, or found nobody the next time.
        assert json.loads(out.splitlines()[-1])["error"]["code"] in {"node_closed", "node_unreachable"}


# interrupt


@pytest.mark.parametrize("by", ["name", "id"])
async def test_interrupt_stops_what_another_client_runs(served: Served, remote: AsyncClient, by: str) -> None:
    async with remote.session(name="long") as session:
        running = session.submit(FOR_EVER)
        await runs(running)
        said = await answer("interrupt", session.name if by == "name" else session.id, "--address", served.address)
        assert said["interrupted"] is True
        assert (await running.result()).verdict == "interrupted"
        said = await answer("interrupt", "long", "--address", served.address)
        assert said["interrupted"] is False
        assert (await session.run("6 * 7")).text == "42"


# kill


async def test_kill_ends_a_session_and_its_client_is_told(served: Served, remote: AsyncClient) -> None:
    session = await remote.session(name="doomed")
    pid = (await session.info()).pid
    running = session.submit("print('before'); " + FOR_EVER)
    waiting = session.submit("1")
    await runs(running)
    assert (await answer("kill", "doomed", "--address", served.address))["killed"] is True
    result = await running.result()
    assert (result.verdict, result.stdout) == ("killed", "before\nruns\n")
    assert (await waiting.result()).verdict != "ok"
    with pytest.raises(SessionError) as caught:
        await session.run("1")
    assert caught.value.code == "session_killed"
    assert session.state == "closed"
    assert not psutil.pid_exists(pid)
    assert "doomed" not in {one.name for one in await remote.sessions()}
    async with remote.session(name="doomed") as again:  # the name is free
        assert (await again.run("1")).text == "1"


async def test_kill_waits_for_no_client_that_does_not_read(served: Served, remote: AsyncClient) -> None:
    """Its execution has filled the window, so the verdict cannot be handed over."""
    async with AsyncClient(served.address) as reader:
        session = await reader.session(name="unread")
        stream = session.stream("while True: print('x' * 1000)")
        assert (await anext(stream)).sequence == 1
        async with asyncio.timeout(LONG):
            while (await remote.sessions())[-1].state != "busy":
                await asyncio.sleep(0.001)
        await remote.kill("unread")
        with pytest.raises(SessionError) as caught:
            await session.run("1")
        assert caught.value.code == "session_killed"
        await reader.close()
    async with remote.session() as session:
        assert (await session.run("1")).text == "1"


async def test_killed_by_two_at_once_it_is_dead_once(served: Served, remote: AsyncClient) -> None:
    session = await remote.session(name="twice")
    async with served.client() as other:
        outcomes = await asyncio.gather(
            remote.kill("twice"), other.kill(session.id), session.close(), return_exceptions=True
        )
        assert {getattr(one, "code", None) for one in outcomes} <= {None, "session_unknown", "session_killed"}
        assert all(one.name != "twice" for one in await other.sessions())


# attach


async def test_attach_is_a_console_on_a_session_that_stays(served: Served, remote: AsyncClient) -> None:
    session = await remote.session(name="shared")
    await session.run("x = 20")
    done = await capsule("attach", "shared", "--address", served.address, stdin=b"print('x is', x)\nx += 1\nx * 2\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"x is 20\n42\n"
    with pytest.raises(SessionError) as caught:
        await session.run("x")
    assert caught.value.code == "session_taken"
    async with await remote.attach("shared") as mine:
        assert (await mine.run("x")).text == "21"


async def test_attach_says_in_json_what_its_cells_do(served: Served, remote: AsyncClient) -> None:
    await (await remote.session(name="parsed")).detach()
    done = await capsule("attach", "parsed", "--json", "--address", served.address, stdin=b"1 / 0\n6 * 7\n")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["verdict"] for one in events if one["event"] == "finished"] == ["error", "ok"]
    assert events[-1]["text"] == "42"
    await remote.kill("parsed")


async def test_attach_on_a_terminal_leaves_the_session_running(served: Served) -> None:
    def use() -> None:
        with Client(served.address) as client:
            client.session(name="seen").detach()
            with Terminal("attach", "seen", "--address", served.address) as terminal:
                terminal.until(">>>")
                terminal.type("y = 6 * 7; print('se' + 't')\r")
                terminal.until("set\n>>>")  # a prompt alone may be the old one, drawn again
                terminal.type("\x04")
                assert terminal.end()[0] == 0
            with client.attach("seen") as session:
                assert session.run("y").text == "42"

    await asyncio.to_thread(use)


async def test_what_is_taken_from_an_attached_console_is_told(served: Served) -> None:
    def take() -> None:
        with Client(served.address) as client:
            client.session(name="wanted").detach()
            with Running("attach", "wanted", "--address", served.address) as console:
                console.type(b"print('here')\n")
                console.until(b"here")
                with client.attach("wanted"):
                    console.type(b"print('there')\n")
                    code, _, err = console.end()
                    assert code == 3
                    assert b"(session_taken)" in err

    await asyncio.to_thread(take)


# pool


async def test_pool_has_a_row_for_each_environment(served: Served, remote: AsyncClient) -> None:
    async with remote.session():
        info = await answer("pool", "--address", served.address)
        assert info["pools"]["default"]["in_use"] >= 1
        assert info["pools"]["default"]["breaker"]["state"] == "closed"
        done = await capsule("pool", "--address", served.address)
        heading, row = done.stdout.decode().splitlines()
        assert heading.split()[0] == "ENVIRONMENT"
        assert row.split()[:2] == ["default", "open"]
        assert row.rstrip().endswith("closed")


async def test_pool_shows_an_environment_that_nobody_has_used(place: Path) -> None:
    config = "[environments.default]\nmin_idle = 0\n[environments.spare]\nmin_idle = 3\n"
    with Served(place / "fresh", config) as served:
        pools = (await answer("pool", "--address", served.address))["pools"]
        assert {name: (one["state"], one["idle"], one["min_idle"]) for name, one in pools.items()} == {
            "default": ("open", 0, 0),  # the service has made it ready
            "spare": ("unused", 0, 3),
        }
        done = await capsule("pool", "--address", served.address)
        assert [row.split()[:2] for row in done.stdout.decode().splitlines()[1:]] == [
            ["default", "open"],
            ["spare", "unused"],
        ]
        async with served.client() as client, client.session("spare"):
            pools = (await client.info()).pools
            assert (pools["default"].state, pools["spare"].state) == ("open", "open")


# drain


async def test_drain_lets_what_runs_end_takes_nothing_new_and_returns_when_the_node_has_ended(place: Path) -> None:
    go = place / "go"
    long = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n6 * 7"
    with Served(place / "drained", "[serve]\ndrain_timeout = 60.0\n") as served:
        async with served.client() as client, client.session(name="last") as session:
            running = session.submit(long)
            await runs(running)
            with Running("drain", "--address", served.address) as draining:
                async with asyncio.timeout(LONG):
                    while True:
                        try:
                            await (await client.session()).close()
                        except SessionError:
                            break
                with pytest.raises(SessionError, match="about to end"):
                    await client.session()
                assert draining.process.poll() is None
                waiting = asyncio.ensure_future(client.drain(wait=True))
                for _ in range(2):  # it still answers operators, and these answers come behind one to whoever waits
                    assert [one.name for one in await client.sessions()] == ["last"]
                assert not waiting.done()
                go.touch()
                assert (await running.result()).text == "42"
                await waiting
                assert await asyncio.to_thread(draining.end) == (0, b"the node has ended\n", b"")
                assert await asyncio.to_thread(served.process.wait, LONG) == 0
        assert served.log.read_text() == ""
    go.unlink()


async def test_drain_without_waiting_returns_at_once(place: Path) -> None:
    with Served(place / "begun", "[serve]\ndrain_timeout = 600.0\n") as served:
        async with served.client() as client, client.session() as session:
            running = session.submit(FOR_EVER)
            await runs(running)
            said = await answer("drain", "--no-wait", "--address", served.address)
            assert said == {"draining": True, "ended": False}
            assert (await answer("drain", "--no-wait", "--address", served.address))["draining"]  # again: the same
            assert served.process.poll() is None
            await client.interrupt(session.id)  # so that nothing runs any more
            assert (await running.result()).verdict == "interrupted"
            assert await asyncio.to_thread(served.process.wait, LONG) == 0


async def test_in_a_drain_by_command_only_a_second_signal_ends_the_node_at_once(place: Path) -> None:
    """Whoever sends the first, a service manager say, may not know of the command."""
    go = place / "go"
    long = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n6 * 7"
    with Served(place / "signalled", "[serve]\ndrain_timeout = 600.0\n") as served:
        async with served.client() as client, client.session(name="last") as session:
            running, last = session.submit(long), session.submit(FOR_EVER)
            await runs(running)
            await client.drain()
            await client.drain()
            served.process.send_signal(signal.SIGTERM)
            for _ in range(3):  # it has heard the signal when it answers
                assert [one.name for one in await client.sessions()] == ["last"]
            go.touch()
            assert (await running.result()).text == "42"
            await runs(last)
            served.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(served.process.wait, LONG) == 0
    go.unlink()


# all of them


@pytest.mark.parametrize("command", ["sessions", "interrupt", "kill", "attach", "pool", "drain"])
async def test_without_a_node_it_is_said_how_to_start_one(place: Path, command: str) -> None:
    address = f"ipc://{place}/nobody.sock"
    name = ["any"] if command in {"interrupt", "kill", "attach"} else []
    done = await capsule(command, *name, "--address", address)
    assert done.returncode == 3
    assert b"node_unreachable" in done.stderr or b"no node can be reached" in done.stderr
    assert b"capsule serve" in done.stderr


@pytest.mark.parametrize("command", ["interrupt", "kill", "attach"])
async def test_a_session_that_is_not_there_is_unknown(served: Served, command: str) -> None:
    done = await capsule(command, "nobody", "--json", "--address", served.address)
    assert done.returncode == 3
    said = json.loads(done.stdout)
    assert said["error"]["code"] == "session_unknown"


async def test_a_wrong_address_is_wrong_usage(place: Path) -> None:
    assert (await capsule("sessions", "--address", "nowhere")).returncode == 2


# the clients


def test_the_synchronous_client_has_the_same_power(served: Served) -> None:
    with Client(served.address) as client, Client(served.address) as other:
        session = client.session(name="held")
        running = session.submit(FOR_EVER)
        while running.state != "running":
            time.sleep(0.001)
        (row,) = [one for one in other.sessions() if one.name == "held"]
        assert row.id == session.id
        assert other.interrupt("held") is True
        assert running.result().verdict == "interrupted"
        other.kill("held")
        with pytest.raises(SessionError) as caught:
            session.run("1")
        assert caught.value.code == "session_killed"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.sessions(),
        lambda client: client.interrupt("x"),
        lambda client: client.kill("x"),
        lambda client: client.drain(),
    ],
    ids=["sessions", "interrupt", "kill", "drain"],
)
async def test_a_node_in_this_process_has_no_operators(call: Callable[[AsyncClient], Any]) -> None:
    async with AsyncClient() as client:
        with pytest.raises(ArgumentError) as caught:
            await call(client)
        assert caught.value.code == "unsupported"


@pytest.mark.parametrize("name", ["", "x" * 201, 5])
async def test_a_name_is_checked_before_it_is_sent(served: Served, name: Any) -> None:
    async with served.client() as client:
        for call in (client.interrupt, client.kill):
            with pytest.raises(ArgumentError) as caught:
                await call(name)
            assert caught.value.argument == "name"
