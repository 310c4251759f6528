"""`/metrics`, `/healthz` and `/readyz` of a real service, asked by clients that behave and by some that do not."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from capsule import NodeConfig
from capsule.doctor.configuration import http_address
from capsule.node.front.http import CONNECTIONS, HEAD_BYTES
from capsule_protocol.errors import ArgumentError, CapsuleError
from tests.acceptance.operators.support import answer, runs
from tests.acceptance.serve.support import CAPSULE, LONG, Served

pytestmark = pytest.mark.anyio

CONFIG = """
[serve]
http = "127.0.0.1:0"
drain_timeout = 600.0

[environments.broken]
preload = ["there_is_no_such_module"]
breaker = { failures = 1, pause = 86400.0, longest_pause = 86400.0 }
"""
PAGE = (Path(__file__).parents[3] / "docs/reference/metrics.md").read_text("utf-8")

Samples = dict[tuple[str, ...], float]


class Watched(Served):
    """A service that is watched; `url` is where."""

    def __init__(self, directory: Path, config: str = CONFIG) -> None:
        super().__init__(directory, config)
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode()
        assert said.startswith("metrics at http://127.0.0.1:"), said
        self.url = said.split()[-1].removesuffix("/metrics")
        self.port = int(self.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def watched(place: Path) -> Iterator[Watched]:
    with Watched(place / "watched") as running:
        yield running
        assert running.log.read_text() == ""


async def get(url: str) -> tuple[int, str]:
    """Status and body."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=LONG) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def scrape(watched: Watched) -> Samples:
    """Each sample by its name and the values of its labels."""
    status, text = await get(f"{watched.url}/metrics")
    assert status == 200
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def raw(watched: Watched, data: bytes) -> bytes:
    """What the port answers to some bytes."""
    with socket.create_connection(("127.0.0.1", watched.port), timeout=LONG) as client:
        with contextlib.suppress(OSError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        answered = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65_536):
                answered += piece
        return answered


# metrics


async def test_metrics_count_what_clients_do(watched: Watched) -> None:
    before = await scrape(watched)
    async with watched.client() as client, client.session() as session:
        assert (await session.run("1")).ok
        assert not (await session.run("1 / 0")).ok
        running = session.submit("while True: pass")
        queued = session.submit("1")
        await runs(running)
        during = await scrape(watched)
        assert during["capsule_sessions", "default", "busy"] == 1
        assert (during["capsule_executions_running",], during["capsule_executions_waiting",]) == (1, 1)
        assert during["capsule_clients",] == before["capsule_clients",] + 1
        assert during["capsule_pool_in_use", "default"] == 1
        assert during["capsule_bridge_pending",] >= 2
        assert during["capsule_bridge_accepted_total",] > before["capsule_bridge_accepted_total",]
        assert during["capsule_bridge_commit_p99_seconds",] >= during["capsule_bridge_commit_p50_seconds",] > 0
        assert during["capsule_sent_bytes_total",] > before["capsule_sent_bytes_total",]
        assert during["capsule_received_bytes_total",] > before["capsule_received_bytes_total",]
        await session.interrupt()
        await queued.result()
    after = await scrape(watched)
    for verdict, more in (("ok", 2), ("error", 1), ("interrupted", 1)):
        name = ("capsule_executions_total", verdict)
        assert after[name] == before.get(name, 0) + more, verdict
    name = ("capsule_sessions_opened_total", "default")
    assert after[name] == before.get(name, 0) + 1
    assert after["capsule_executions_running",] == 0


async def test_metrics_count_the_outcomes_of_calls(place: Path) -> None:
    policy = place / "policy.toml"
    policy.write_text('version = 1\nsandbox = "none"\n[[grants]]\nname = "time"\ncapabilities = ["system.time"]\n')
    with Watched(place / "counted", f'{CONFIG}\n[broker]\npolicy = "{policy}"\n') as counted:
        async with counted.client() as client, client.session() as session:
            calls = "caps.system.time, caps.system.time, caps.system.usage, caps.made.up"
            code = f"for call in ({calls}):\n    try: call()\n    except PermissionError: pass"
            assert (await session.run(code)).ok
            samples = await scrape(counted)
            found = {name[1:]: value for name, value in samples.items() if name[0] == "capsule_capability_calls_total"}
            assert found == {("system.time", "accepted"): 2, ("system.usage", "denied"): 1, ("unknown", "denied"): 1}


async def test_metrics_tell_of_detached_sessions_and_of_offences(watched: Watched) -> None:
    before = await scrape(watched)
    async with watched.client() as client:
        session = await client.session()
        await session.detach()
        reader, writer = await asyncio.open_unix_connection(watched.address.removeprefix("ipc://"))
        writer.write(random.Random(1).randbytes(4096))
        writer.write_eof()
        await reader.read()
        writer.close()
        after = await scrape(watched)
        assert after["capsule_sessions_detached",] == before["capsule_sessions_detached",] + 1
        assert after["capsule_offences_total",] > before["capsule_offences_total",]
        await client.kill(session.id)
    watched.log.write_text("")  # the offence was logged


async def test_every_metric_is_explained_and_no_other(watched: Watched) -> None:
    async with watched.client() as client, client.session() as session:
        await session.run("1")
        _, text = await get(f"{watched.url}/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    own = {name: one for name, one in families.items() if re.match(r"capsule_\w+(?<!_created)$", name)}
    told = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
    assert {name + ("_total" if one.type == "counter" else ""): one.type for name, one in own.items()} == told
    for family in own.values():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        row = next(line for line in PAGE.splitlines() if re.match(rf"\| `{family.name}(_total)?` ", line))
        assert all(f"`{label}`" in row for label in labels), row
    assert "process_resident_memory_bytes" in families


# health, readiness


async def test_healthy_and_ready(watched: Watched) -> None:
    assert await get(f"{watched.url}/healthz") == (200, "ok\n")
    assert await get(f"{watched.url}/readyz") == (200, "ready\n")
    assert (await get(f"{watched.url}/"))[0] == 404
    assert (await get(f"{watched.url}/metrics/../etc/passwd"))[0] == 404


async def test_not_ready_while_it_drains_but_healthy(place: Path) -> None:
    with Watched(place / "draining") as watched:
        async with watched.client() as client, client.session() as session:
            running = session.submit("while True: pass")
            await runs(running)
            await answer("drain", "--no-wait", "--address", watched.address)
            assert await get(f"{watched.url}/readyz") == (503, "draining\n")
            assert (await get(f"{watched.url}/healthz"))[0] == 200
            assert (await scrape(watched))["capsule_draining",] == 1
            await session.interrupt()
            assert await asyncio.to_thread(watched.process.wait, LONG) == 0


async def test_not_ready_while_a_breaker_is_open(place: Path) -> None:
    with Watched(place / "breaker") as watched:
        async with watched.client() as client:
            with pytest.raises(CapsuleError):
                await client.session("broken")
            async with asyncio.timeout(LONG):
                while (await get(f"{watched.url}/readyz"))[0] == 200:
                    pass
            assert await get(f"{watched.url}/readyz") == (503, "the breaker of environment broken is open\n")
            assert (await scrape(watched))["capsule_pool_breaker_state", "broken"] == 2


async def test_not_ready_while_the_store_is_away(place: Path) -> None:
    with Watched(place / "away") as watched:
        store, aside = (watched.directory / name for name in ("store.db", "aside.db"))
        async with watched.client() as client:
            store.rename(aside)
            with pytest.raises(CapsuleError) as caught:
                await client.session()
            assert caught.value.code == "store_unavailable"
            assert await get(f"{watched.url}/readyz") == (503, "the store cannot commit\n")
            assert (await get(f"{watched.url}/healthz"))[0] == 200
            aside.rename(store)
            async with asyncio.timeout(LONG):  # nobody asks for anything
                while (await get(f"{watched.url}/readyz"))[0] != 200:
                    pass


async def test_it_is_asked_while_the_node_starts(place: Path) -> None:
    """The environment's import waits for us, so the node is not ready for as long."""
    go, modules = place / "go-on", place / "modules"
    modules.mkdir()
    (modules / "slow_import.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = place / "slow.toml"
    file.write_text(
        f'[serve]\nhttp = "127.0.0.1:{port}"\n[environments.default]\npreload = ["slow_import"]\npath = ["{modules}"]\n'
    )
    command = [str(CAPSULE), "serve", "--directory", str(place / "slow"), "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            async with asyncio.timeout(LONG):
                while True:
                    try:
                        status, text = await get(f"http://127.0.0.1:{port}/readyz")
                        break
                    except OSError:
                        await asyncio.sleep(0.01)  # nobody tells of a port
            assert (status, text) == (503, "starting\n")
            go.touch()
            assert process.stdout is not None
            assert (await asyncio.to_thread(process.stdout.readline)).startswith(b"listening")
            async with asyncio.timeout(LONG):
                while (await get(f"http://127.0.0.1:{port}/readyz"))[0] != 200:
                    pass
        finally:
            process.terminate()


# what is no HTTP


async def test_garbage_costs_nothing(watched: Watched) -> None:
    chance = random.Random(7)
    process = psutil.Process(watched.process.pid)
    await get(f"{watched.url}/healthz")
    before = process.num_fds()
    heads = [
        b"",
        b"GET",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\r\n" * 99,
    ]
    for round_ in range(200):
        data = heads[round_ % len(heads)] + chance.randbytes(chance.randrange(2000))
        answered = await asyncio.to_thread(raw, watched, data)
        assert answered == b"" or answered.startswith(b"HTTP/1.1 4"), (data, answered)
    assert await get(f"{watched.url}/healthz") == (200, "ok\n")
    async with asyncio.timeout(LONG):
        while process.num_fds() > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2 * HEAD_BYTES + b"\r\n\r\n", b"431"),
        (b"G" * 4 * HEAD_BYTES, b"431"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),  # without a host
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
    ],
)
async def test_each_request_gets_one_answer(watched: Watched, data: bytes, status: bytes) -> None:
    answered = await asyncio.to_thread(raw, watched, data)
    assert answered.split()[1] == status
    assert answered.count(b"HTTP/1.1 ") == 1
    if data.startswith(b"HEAD"):
        assert answered.endswith(b"\r\n\r\n")


async def test_who_says_nothing_keeps_neither_sessions_nor_scrapes_waiting(watched: Watched) -> None:
    silent = [socket.create_connection(("127.0.0.1", watched.port)) for _ in range(CONNECTIONS // 2)]
    try:
        for one in silent:
            one.sendall(b"GET /metrics HT")
        assert (await get(f"{watched.url}/healthz"))[0] == 200
        async with watched.client() as client, client.session() as session:
            assert (await session.run("6 * 7")).text == "42"
    finally:
        for one in silent:
            one.close()


async def test_more_connections_than_may_be_are_closed_and_the_next_are_served(watched: Watched) -> None:
    many = [socket.create_connection(("127.0.0.1", watched.port), timeout=LONG) for _ in range(CONNECTIONS + 1)]
    try:
        try:
            said = await asyncio.to_thread(many[-1].recv, 1)
        except ConnectionResetError:
            said = b""
        assert said == b""  # it would time out if nobody hung up
    finally:
        for one in many:
            one.close()
    async with asyncio.timeout(LONG):
        while True:
            try:
                status, _ = await get(f"{watched.url}/healthz")
            except OSError:
                continue  # those before have not gone yet
            assert status == 200
            return


# the address


@pytest.mark.parametrize(
    "value", ["9090", "127.0.0.1", "127.0.0.1:65536", "::1:80", "http://127.0.0.1:80", "", "a b:1", ":80"]
)
def test_an_address_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ArgumentError, match="HOST:PORT") as caught:
        NodeConfig.build(serve={"http": value})
    assert caught.value.argument == "serve.http"


async def test_a_port_that_is_taken_ends_the_service_with_a_word(watched: Watched, place: Path) -> None:
    file = place / "taken.toml"
    file.write_text(f'[serve]\nhttp = "127.0.0.1:{watched.port}"\n')
    command = [str(CAPSULE), "serve", "--directory", str(place / "taken"), "--config", str(file)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=LONG)
    assert done.returncode == 3
    assert b"(address_in_use)" in done.stderr


@pytest.mark.parametrize(
    ("address", "severity"),
    [(None, "ok"), ("127.0.0.1:1", "ok"), ("[::1]:1", "ok"), ("localhost:1", "ok"), ("0.0.0.0:1", "warning")],
)
def test_the_doctor_warns_of_a_port_that_others_reach(address: str | None, severity: str) -> None:
    assert http_address(address).severity == severity
