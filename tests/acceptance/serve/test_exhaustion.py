"""No descriptor left, no room on the disk, a clock that jumps: what cannot be done is refused, the rest goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import AsyncClient, AsyncSession, CapsuleError, Client
from capsule.config import SessionOptions
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.siege import wait_until
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from capsule import Session

FEW = 90
"""Descriptors of a node: enough for a handful of sessions."""
STRICT = (
    "[environments.default]\nmin_idle = 0\n"
    "[environments.default.breaker]\nfailures = 1\npause = 3600.0\nlongest_pause = 3600.0\n"
)
"""One failure that counts, and there are no sessions for an hour."""
CONFIG = "[environments.default]\nmin_idle = 0\n[environments.default.breaker]\nlongest_pause = 0.5\n"
NOT_NOW = {"worker_start_failed", "pool_unavailable"}
SHORT = {"descriptors_exhausted"}
HOUR = 3600
CLOCK = """
import os, time
real = time.time
def shifted():
    try:
        return real() + os.stat({file!r}).st_size - {hour}
    except FileNotFoundError:
        return real()
time.time = shifted
"""


def opened(client: Client, expected: set[str]) -> Session | None:
    """A session, or None if there can be none now."""
    try:
        return client.session()
    except CapsuleError as error:
        if error.code in expected:
            return None
        raise


def has_jumped(session: Session, jump: float) -> bool:
    """Whether the node tells the time in this way."""
    return abs(session.info().last_heartbeat - time.time() - jump) < HOUR / 2


def check_recovered(client: Client, expected: set[str]) -> None:
    """There are sessions again, after at most the pause of the breaker."""

    def is_served() -> bool:
        session = opened(client, expected)
        if session is None:
            return False
        with session:
            return session.run("6 * 7").text == "42"

    wait_until(is_served)


def test_without_descriptors_new_sessions_and_clients_have_to_wait_and_the_others_go_on(place: Path) -> None:
    under = ["sh", "-c", f'ulimit -n {FEW} && exec "$@"', "sh"]
    with (
        Served(place / "few", STRICT, under=under) as served,
        Client(served.address) as client,
        client.session() as session,
    ):
        node = psutil.Process(served.process.pid)
        assert session.run("x = 1").verdict == "ok"
        with ExitStack() as stack:
            for _ in range(FEW):
                another = opened(client, SHORT)
                if another is None:
                    break
                stack.enter_context(another)
            else:
                pytest.fail("the descriptors did not end")
            assert session.run("x").text == "1"
        check_recovered(client, SHORT)
        before = node.num_fds()
        with ExitStack() as stack:
            for _ in range(FEW):
                stack.enter_context(Raw(served.address))
            wait_until(lambda: "no client can be taken" in served.log.read_text())
            assert session.run("x").text == "1"
        with Client(served.address) as late:
            check_recovered(late, SHORT)
        wait_until(lambda: node.num_fds() <= before)
        assert "Traceback" not in served.log.read_text()


def test_a_burst_beyond_the_descriptors_leaves_the_environment_in_order(place: Path) -> None:
    under = ["sh", "-c", f'ulimit -n {FEW} && exec "$@"', "sh"]

    async def burst(client: AsyncClient) -> list[AsyncSession]:
        opening = [client.open(SessionOptions()) for _ in range(2 * FEW)]
        ended = await asyncio.gather(*opening, return_exceptions=True)
        sessions = [one for one in ended if isinstance(one, AsyncSession)]
        assert {getattr(one, "code", one) for one in ended if one not in sessions} == SHORT
        return sessions

    async def main(served: Served) -> None:
        async with served.client() as client:
            for _ in range(2):
                sessions = await burst(client)
                assert len(sessions) > 1
                breaker = (await client.info()).pools["default"].breaker
                assert (breaker.state, breaker.failures) == ("closed", 0)
                assert [(await one.run("6 * 7")).text for one in sessions] == ["42"] * len(sessions)
                await asyncio.gather(*(one.close() for one in sessions))

    with Served(place / "burst", STRICT, under=under) as served:
        asyncio.run(main(served))
        with Client(served.address) as client:
            check_recovered(client, SHORT)
        assert served.stop() == 0
        assert "Traceback" not in served.log.read_text()


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0,
    reason="the system lets nobody mount a disk of his own",
)
@pytest.mark.parametrize(("size", "inodes"), [("1M", 10_000), ("100M", 40)])
def test_without_room_on_the_disk_new_sessions_have_to_wait_and_the_others_go_on(
    place: Path, size: str, inodes: int
) -> None:
    disk = place / "disk"
    disk.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={size},nr_inodes={inodes} none {disk} && exec "$@"'
    config = f'directory = "{disk}"\n{CONFIG}'
    with (
        Served(place / f"full-{inodes}", config, under=["unshare", "-Urm", "sh", "-c", mount, "sh"]) as served,
        Client(served.address) as client,
        client.session(cwd=str(disk)) as session,
    ):
        filled = session.run(
            "import os\nos.mkdir('fill')\nnumber = 0\nwhile True:\n"
            "    open(f'fill/{number}', 'xb').write(bytes(4096)); number += 1"
        )
        assert filled.error is not None
        assert (filled.error.name, "No space left" in filled.error.message) == ("OSError", True)
        with pytest.raises(CapsuleError) as caught:
            client.session(files={f"{number}/file": bytes(100_000) for number in range(20)})
        assert caught.value.code in NOT_NOW, caught.value
        assert session.run("number > 0").text == "True"
        assert session.run("import shutil; shutil.rmtree('fill')").verdict == "ok"
        check_recovered(client, NOT_NOW)
        assert session.run("number > 0").text == "True"
        assert "Traceback" not in served.log.read_text()


def test_a_clock_that_jumps_by_an_hour_ends_nothing_and_prolongs_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = place / "shift"  # as large as the clock is to be ahead, and an hour
    (place / "sitecustomize.py").write_text(CLOCK.format(file=str(shift), hour=HOUR))
    monkeypatch.setenv("PYTHONPATH", str(place))
    with (
        Served(
            place / "clock", "heartbeat_interval = 0.2\n[serve]\ndetached_ttl = 1.0\nclient_timeout = 20.0\n"
        ) as served,
        Client(served.address) as client,
        client.session() as session,
    ):
        for jump in (HOUR, -HOUR):
            running = session.submit("import time; time.sleep(0.2); 'slept'", timeout=LONG)
            shift.touch()
            os.truncate(shift, HOUR + jump)
            wait_until(partial(has_jumped, session, jump))
            assert running.result().text == "'slept'"
            assert session.run("while True: pass", timeout=0.2).verdict == "timeout"
            client.session(name="left").detach()
            wait_until(lambda: client.info().sessions == 1)
            assert session.run("6 * 7").text == "42"
