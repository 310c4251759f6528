"""SIGHUP: what can be reloaded is, what cannot is told, and a wrong file changes nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import socket
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

from capsule import EnvironmentFailed, NodeError, SessionError
from tests.acceptance.serve.support import CAPSULE, LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

BEFORE = "max_sessions = 2\n[environments.default]\nmin_idle = 1\n"


@pytest.fixture
def mortal(place: Path) -> Iterator[Served]:
    with Served(place / "reload", BEFORE) as running:
        yield running
        assert running.stop() == 0


def write(served: Served, text: str) -> None:
    served.directory.with_suffix(".toml").write_text(text, encoding="utf-8")


async def reload(served: Served, last: str) -> list[str]:
    """What it prints after SIGHUP, up to a line that begins so."""
    assert served.process.stdout is not None
    served.process.send_signal(signal.SIGHUP)
    told: list[str] = []
    async with asyncio.timeout(LONG):
        while not told or not told[-1].startswith(last):
            told.append((await asyncio.to_thread(served.process.stdout.readline)).decode().rstrip("\n"))
            assert told[-1], "it has ended"
    return told


async def refusal(served: Served, last: str) -> str:
    """What its stderr says, as soon as it says this."""
    served.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(LONG):
        while last not in served.log.read_text():
            await asyncio.sleep(0.01)
    return served.log.read_text()


async def test_limits_and_environments_are_taken_and_sessions_do_not_notice(mortal: Served) -> None:
    async with mortal.client() as client, client.session() as session:
        await session.run("kept = 41")
        running = session.submit("import time\nwhile True: time.sleep(0.01)")
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        with pytest.raises(EnvironmentFailed):
            await client.session("fresh")
        write(
            mortal, "max_sessions = 3\n[environments.default]\nmin_idle = 1\n[environments.fresh]\nwarmup = 'new = 1'\n"
        )
        assert await reload(mortal, "reloaded: max_sessions") == [
            "reloaded: environments.fresh is new",
            "reloaded: max_sessions = 3 (was 2)",
        ]
        async with client.session("fresh") as fresh, client.session() as third:
            assert (await fresh.run("new + 1")).text == "2"
            assert (await third.run("1")).text == "1"
            with pytest.raises(SessionError, match="max_sessions=3"):
                await client.session()
        assert running.state == "running"
        await session.interrupt()
        await running.result()
        assert (await session.run("kept + 1")).text == "42"


async def test_a_pool_takes_its_new_size(mortal: Served) -> None:
    async with mortal.client() as client, client.session():
        write(mortal, "max_sessions = 2\n[environments.default]\nmin_idle = 3\n")
        assert await reload(mortal, "reloaded") == ["reloaded: environments.default.min_idle = 3 (was 1)"]
        async with asyncio.timeout(LONG):
            while (pool := (await client.info()).pools["default"]).idle < 3:
                await asyncio.sleep(0.01)
        assert pool.min_idle == 3


async def test_the_limit_of_clients_is_taken(mortal: Served) -> None:
    async with mortal.client() as client:
        await client.info()
        write(mortal, BEFORE + "[serve]\nmax_clients = 1\n")
        await reload(mortal, "reloaded: serve.max_clients = 1")
        async with mortal.client() as second:
            with pytest.raises(NodeError) as caught:
                await second.info()
        assert caught.value.code == "too_many_clients"
        await client.info()


async def test_what_needs_a_restart_is_told_each_time_and_not_taken(mortal: Served, place: Path) -> None:
    write(mortal, BEFORE + f"preload = ['no_such_module']\n[serve]\nlisten = ['ipc://{place}/second.sock']\n")
    for _ in range(2):
        assert await reload(mortal, "needs a restart: serve.listen") == [
            "needs a restart: environments.default.preload = ['no_such_module'] (was [])",
            f"needs a restart: serve.listen = ['ipc://{place}/second.sock'] (was [])",
        ]
    assert not (place / "second.sock").exists()
    async with mortal.client() as client, client.session() as session:
        assert (await session.run("1")).text == "1"


async def test_it_tells_what_became_of_the_policy(place: Path) -> None:
    policy = place / "policy.toml"
    policy.write_text('version = 1\nname = "one"\nsandbox = "none"\n')
    with Served(place / "policed", f'[broker]\npolicy = "{policy}"\n') as served:
        policy.write_text('version = 1\nname = "two"\nsandbox = "none"\n')
        (told,) = await reload(served, "reloaded")
        assert told.startswith("reloaded: policy = ")
        assert await reload(served, "reloaded") == ["reloaded: nothing has changed"]
        policy.write_text("version = 2\n")
        assert "version: Input should be 1" in await refusal(served, "the policy stays as it was")
        policy.write_text('version = 1\nname = "three"\nsandbox = "none"\n')
        (told,) = await reload(served, "reloaded")  # of the one that was refused nothing was said here
        assert told.startswith("reloaded: policy = ")
        assert served.stop() == 0


async def test_a_wrong_file_changes_nothing_and_all_that_is_wrong_is_told(mortal: Served) -> None:
    write(mortal, "max_sessions = 1\nmax_sesions = 2\n[serve]\nmax_clients = 0\n")
    file = mortal.directory.with_suffix(".toml")
    said = await refusal(mortal, "the configuration that was in force stays so")
    assert f"not reloaded: {file}:2: max_sesions: there is no such option; did you mean 'max_sessions'?" in said
    assert f"not reloaded: {file}:4: serve.max_clients" in said
    async with mortal.client() as client, client.session(), client.session():
        with pytest.raises(SessionError, match="max_sessions=2"):
            await client.session()
    file.unlink()
    assert "cannot be read" in await refusal(mortal, "cannot be read")
    write(mortal, BEFORE)
    assert await reload(mortal, "reloaded") == ["reloaded: nothing has changed"]


def test_asked_while_it_starts_it_reloads_as_soon_as_it_is_ready(place: Path) -> None:
    folder = place / "slow"
    folder.mkdir()
    (folder / "slowly.py").write_text(
        f"import time\nfrom pathlib import Path\nPath({str(folder / 'began')!r}).touch()\n"
        f"while not Path({str(folder / 'go')!r}).exists(): time.sleep(0.01)\n"
    )
    text = "[environments.default]\npreload = ['slowly']\npath = ['.']\n"
    (folder / "capsule.toml").write_text(text)
    process = subprocess.Popen(
        [str(CAPSULE), "serve", "--directory", str(folder / "run")], cwd=folder, stdout=subprocess.PIPE
    )
    try:
        while not (folder / "began").exists():
            assert process.poll() is None
            time.sleep(0.01)
        (folder / "capsule.toml").write_text("max_sessions = 7\n" + text)
        process.send_signal(signal.SIGHUP)
        (folder / "go").touch()
        assert process.stdout is not None
        said = [process.stdout.readline().split(b" ")[0] for _ in range(3)]
        assert said == [b"listening", b"connect", b"reloaded:"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


async def test_it_goes_on_when_nobody_reads_what_it_prints(place: Path) -> None:
    with Served(place / "unread", BEFORE) as served:
        assert served.process.stdout is not None
        served.process.stdout.close()
        write(served, "max_sessions = 1\n")
        assert "could not be told" in await refusal(served, "could not be told")
        async with served.client() as client, client.session():
            with pytest.raises(SessionError, match="max_sessions=1"):
                await client.session()


async def test_a_flag_comes_before_the_file_after_a_reload_too(place: Path) -> None:
    served = Served(place / "flagged", BEFORE, "--max-sessions", "1")
    with served:
        write(served, "max_sessions = 5\n")
        assert await reload(served, "reloaded") == ["reloaded: nothing has changed"]
        assert served.stop() == 0


async def test_the_new_drain_timeout_counts_at_the_end(mortal: Served) -> None:
    async with mortal.client() as client:
        session = await client.session()
        running = session.submit("import time\nwhile True: time.sleep(0.01)")
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        write(mortal, BEFORE + "[serve]\ndrain_timeout = 0.05\n")
        await reload(mortal, "reloaded: serve.drain_timeout")
        mortal.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):  # less than the default of drain_timeout
            assert (await running.result()).verdict == "interrupted"
        assert await asyncio.to_thread(mortal.process.wait, LONG) == 0


def test_the_service_manager_is_told_of_a_reload(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(place / "notify-reload"))
        told.settimeout(LONG)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify-reload"))
        with Served(place / "managed") as served:
            assert told.recv(100) == b"READY=1"
            for text in ("max_sessions = 3", "max_sessions = 0"):
                write(served, text)
                served.process.send_signal(signal.SIGHUP)
                state, time = told.recv(100).split(b"\n")
                assert state == b"RELOADING=1"
                assert time.startswith(b"MONOTONIC_USEC=")
                assert told.recv(100) == b"READY=1"
            assert served.stop() == 0


def test_it_ends_when_its_terminal_is_closed(place: Path) -> None:
    controller, terminal = pty.openpty()

    def own() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [str(CAPSULE), "serve", "--directory", str(place / "terminal")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=own,
        cwd=place,
    )
    os.close(terminal)
    try:
        said = b""
        while b"connect with" not in said:
            said += os.read(controller, 1000)
        os.close(controller)
        assert process.wait(LONG) == 0
    finally:
        process.kill()
        process.wait()


def test_under_nohup_it_stays(place: Path) -> None:
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {CAPSULE} serve --directory {place}/nohup"],
        stdout=subprocess.PIPE,
        cwd=place,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening")
        assert process.stdout.readline().startswith(b"connect")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b""
        assert process.wait(LONG) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
