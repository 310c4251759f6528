"""The clock of the machine is set, an hour forward and back, under a real node: time limits, sessions and connections
do not notice, and keys end when the clock says so.

The system's clock cannot be set for a test, so a library stands between the node and the system. It changes what the
node is told of the date and nothing else, and does so while the node runs.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient, NodeError
from capsule.client.remote import link
from tests.acceptance.auth.support import LONG, Guarded
from tests.acceptance.serve.support import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule import AsyncSession

LIBRARY = next(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"), None)
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian and Ubuntu: package faketime)"),
]
HOUR = 3600


class Clock:
    """What the node takes for the date: so many seconds beside the right one."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        self.set(0)

    def set(self, shift: int) -> None:
        """Whoever reads it meanwhile reads the one or the other."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{shift:+}\n", encoding="utf-8")
        new.rename(self._file)

    def variables(self) -> dict[str, str]:
        """What a process needs, to be told the date by this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def clock(folder: Path) -> Clock:
    return Clock(folder)


@contextmanager
def clocked(folder: Path, clock: Clock, config: str = "") -> Iterator[Guarded]:
    """A node with this clock; `capsule keys` has the right one."""
    variables = {**clock.variables(), "CAPSULE_HEARTBEAT_INTERVAL": "0.1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        running = Guarded(folder, config)
    for name in variables:
        del running.environment[name]
    with running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


async def heard(client: AsyncClient, shift: int) -> None:
    """The node has taken the new date from its clock: that of a session which it opens now."""
    async with asyncio.timeout(LONG), client.session() as fresh:
        assert abs((await fresh.info()).last_heartbeat - time.time() - shift) < HOUR / 2


async def connects(client: AsyncClient) -> bool:
    """Whether the node lets it in now."""
    async with client:
        try:
            await client.info()
        except NodeError as error:
            return error.code != "access_denied"
    return True


async def ended(watcher: AsyncSession) -> None:
    """Wait until the session that is watched is over."""
    async with asyncio.timeout(LONG):
        async for _ in watcher.watch():
            pass


@pytest.mark.parametrize("jumps", [(HOUR, 0), (-HOUR, 0), (HOUR, -HOUR, HOUR)], ids=["forward", "back", "to and fro"])
async def test_sessions_time_limits_and_connections_do_not_notice(
    folder: Path, clock: Clock, jumps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "HEARTBEAT", 3.0)
    with clocked(folder, clock, "detached_ttl = 600.0\nclient_timeout = 10.0\n") as node:
        token = node.new("someone", "--token", "--role", "operator")
        async with (
            node.client(token) as client,
            client.session() as session,
            TcpProxy(folder, node.tcp) as proxy,
            AsyncClient(proxy.address, key=token) as idle,
        ):
            await (await idle.session(name="left")).detach()
            kept = await idle.session()
            assert (await kept.run("x = 6 * 7")).verdict == "ok"
            before = await client.info()
            for shift in jumps:
                running = session.submit("import time; time.sleep(0.5); 'slept'", timeout=LONG)
                endless = session.submit("while True: pass", timeout=1.0)
                clock.set(shift)
                await heard(client, shift)
                assert (await running.result()).text == "'slept'"
                assert (await endless.result()).verdict == "timeout"
                assert (await session.run("6 * 7")).text == "42"
            after = await client.info()
            assert (after.clients, after.sessions, after.offences) == (before.clients, before.sessions, 0)
            assert (await kept.run("x")).text == "42"
            await (await idle.attach("left")).close()
            assert proxy.connections == 1


async def test_a_clock_that_goes_back_prolongs_no_session(folder: Path, clock: Clock) -> None:
    with clocked(folder, clock, "detached_ttl = 1.0\n") as node:
        token = node.new("someone", "--token", "--role", "operator")
        async with node.client(token) as client, client.session() as session:
            await (await client.session(name="left")).detach()
            watcher = await client.attach("left", watch=True)
            clock.set(-HOUR)
            await heard(client, -HOUR)
            await ended(watcher)
            assert "left" not in {one.name for one in await client.sessions()}
            assert (await session.run("6 * 7")).text == "42"


async def test_keys_end_when_the_clock_says_so_and_whoever_is_connected_goes_on_for_a_while(
    folder: Path, clock: Clock
) -> None:
    with clocked(folder, clock) as node:
        brief = node.new("brief", "--token", "--expires", "30m")
        key = node.new("key", "--expires", "30m")
        lasting = node.new("lasting", "--expires", "3h")
        async with node.client(brief) as client, client.session() as session:
            for shift, valid in ((0, True), (HOUR, False), (0, True), (-HOUR, True)):
                clock.set(shift)
                await heard(client, shift)
                for word, expected in ((brief, valid), (key, valid), (lasting, True)):
                    assert await connects(node.client(word)) == expected, (shift, word[:10])
                assert (await session.run("6 * 7")).text == "42"
