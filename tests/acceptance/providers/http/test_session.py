"""What the code of a session has of `http`, through the node and its policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capsule import AsyncClient, AsyncSession
from tests.acceptance.providers.http.support import Reply, Seen, Server, serve

pytestmark = pytest.mark.anyio

SECRET = "tok-5ecr3t"


def policy(server: Server) -> str:
    place = f'scheme = "http", host = "127.0.0.1", port = {server.port}'
    return f"""
version = 1
name = "test"
sandbox = "none"

[[grants]]
name = "web"
capabilities = ["http.*"]
scope.private = ["127.0.0.1/32"]
scope.allow = [
    {{ {place}, path = "/key", secrets.headers.Authorization = "Bearer secret://api" }},
    {{ {place}, path = "/open", methods = ["GET", "POST"] }},
]
"""


def echo(seen: Seen) -> Reply:
    told = {"method": seen.method, "target": seen.target, "headers": seen.headers, "body": seen.body.decode()}
    return Reply(404 if "missing" in seen.target else 200, {"X-Kind": "echo"}, json.dumps(told).encode())


async def ran(session: AsyncSession, code: str) -> str:
    result = await session.run(code)
    assert result.verdict == "ok", result.error
    return str(result.text)


async def test_code_asks_gets_answers_and_errors_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "api").write_text(SECRET)
    async with serve(echo) as server:
        (tmp_path / "policy.toml").write_text(policy(server))
        broker: dict[str, Any] = {"policy": tmp_path / "policy.toml", "secrets": {"api": f"file:{tmp_path / 'api'}"}}
        async with AsyncClient(broker=broker) as client, client.session() as session:
            await session.run(f"base = {server.url()!r}")
            get = "answer = caps.http.fetch(base + 'open', params={'a': ['1', '2']}, headers={'X-Mine': 'yes'})"
            assert await ran(session, f"{get}\nanswer.status, answer.headers['x-kind'], answer.json()['target']") == (
                "(200, 'echo', '/open?a=1&a=2')"
            )
            post = "await caps.http.fetch(base + 'open/x', 'POST', data=b'some bytes')"
            assert await ran(session, f"({post}).json()['body']") == "'some bytes'"
            parts = "b''.join(caps.http.stream.stream(base + 'open/y'))"
            assert await ran(session, f"import json\njson.loads({parts})['target']") == "'/open/y'"
            assert await ran(session, "caps.http.fetch(base + 'open/missing').status") == "404"

            masked = "caps.http.fetch(base + 'key').json()['headers']['authorization']"
            assert await ran(session, masked) == repr("Bearer " + "*" * len(SECRET))
            assert server.seen[-1].headers["authorization"] == f"Bearer {SECRET}"

            for call, kind, code in (
                ("fetch(base + 'other')", "PermissionError", "capability_outside_grant"),
                ("fetch(base + 'open/../other')", "PermissionError", "capability_outside_grant"),
                (
                    "fetch(base + 'key', headers={'Authorization': 'mine'})",
                    "PermissionError",
                    "capability_outside_grant",
                ),
                ("fetch('http://169.254.169.254/')", "PermissionError", "capability_outside_grant"),
                ("fetch(base + 'open', headers={'Host': 'x'})", "ValueError", "capability_invalid"),
                ("fetch('http://me@127.0.0.1/')", "ValueError", "capability_invalid"),
                ("stream(base + 'open/missing')", "caps.CapabilityError", "http_failed"),
            ):
                caught = (
                    f"try:\n    caps.http.{call}\nexcept {kind} as error:\n    told = error.code, str(error)\ntold[0]"
                )
                assert await ran(session, caught) == repr(code), call
            seen = len(server.seen)
    assert seen == 6  # what was refused never came here
