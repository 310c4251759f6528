"""Who may not approve a call is refused, which is in the audit trail: who, what, and why."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, SessionError
from tests.acceptance.auth.support import Guarded
from tests.acceptance.broker.conftest import HEAD, PACKAGE
from tests.acceptance.broker.events import found
from tests.acceptance.operators.support import capsule
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

GREET = '[[grants]]\nname = "greet"\ncapabilities = ["acme.greet"]\napproval = "always"\n'
OWN = f"uid:{os.getuid()}"


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="b-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def node(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """A service where each call needs an approval, with keys."""
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
    (place / "policy.toml").write_text(HEAD + GREET, encoding="utf-8")
    with guarded(place) as node:
        yield node


def guarded(place: Path) -> Guarded:
    """The one of this place, or the next."""
    text = f'policy = "{place}/policy.toml"\naudit = "{place}/audit"\nproviders = ["acme_caps"]\n'
    return Guarded(place, f"[broker]\n{text}")


async def queried(place: Path, *wanted: str) -> list[dict[str, Any]]:
    """What `capsule audit query` finds."""
    done = await capsule("audit", "query", place / "audit", *wanted, "--json")
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


async def refused(client: AsyncClient, approval: str, **how: Any) -> str:
    """Why this client may not approve it."""
    with pytest.raises(SessionError) as caught:
        await client.approvals.approve(approval, **how)
    assert caught.value.code == "permission_denied"
    return caught.value.message


@asynccontextmanager
async def calling(place: Path, agent: AsyncClient, session: AsyncSession) -> AsyncIterator[Any]:
    """The approval that a call of this session waits for, which is denied afterwards."""
    running = asyncio.ensure_future(session.run("caps.acme.greet('me')", timeout=LONG))
    (asked,) = await found(place / "node", agent.approvals.list)
    yield asked
    assert await agent.approvals.deny(asked.id)
    await running


async def test_who_answers_their_own_request_is_in_the_trail_as_refused(node: Guarded, place: Path) -> None:
    async with AsyncClient(node.ipc) as client, client.session(name="agent") as session:
        running = asyncio.ensure_future(session.run("caps.acme.greet('you')"))
        (asked,) = await found(place / "node", client.approvals.list)
        first = await refused(client, asked.id, reason="it is mine")
        second = await refused(client, asked.id, break_glass=True)
        assert await client.approvals.deny(asked.id)
        assert (await running).error is not None
    one, two = await queried(place, "--kind", "approval", "--outcome", "refused")
    assert (one["principal"], one["session_name"], one["session"]) == (OWN, "agent", session.id)
    assert (one["key"], one["capability"], one["arguments"]["name"]) == (asked.id, "acme.greet", "you")
    assert (one["grant"], one["line"], one["code"], one["why"]) == ("greet", asked.line, "permission_denied", first)
    assert one["details"] == {"owner": OWN, "reason": "it is mine"}
    assert (two["why"], two["details"]) == (second, {"owner": OWN, "break_glass": True})
    assert len(await queried(place, "--principal", OWN, "--capability", "acme.*", "--code", "permission_denied")) == 2
    assert (await capsule("audit", "verify", place / "audit")).returncode == 0


async def test_so_is_who_has_no_role_to_approve(node: Guarded, place: Path) -> None:
    user, operator = node.new("agent"), node.new("boss", "--role", "operator")
    async with node.client(user) as client, node.client(operator) as other, client.session() as session:
        running = asyncio.ensure_future(session.run("caps.acme.greet('you')", timeout=LONG))
        (asked,) = await found(place / "node", client.approvals.list)
        why = [await refused(client, asked.id), await refused(client, asked.id, break_glass=True, reason="mine")]
        assert not running.done()
        assert await other.approvals.approve(asked.id, reason="looked at it")
        assert (await running).text == "'hello you'"
    first, second = await queried(place, "--kind", "approval", "--outcome", "refused")
    assert [first["why"], second["why"]] == why
    assert [first["principal"], first["capability"], first["details"]] == ["agent", "acme.greet", {"owner": "agent"}]
    assert second["details"] == {"owner": "agent", "break_glass": True, "reason": "mine"}
    (approved,) = await queried(place, "--kind", "approval", "--outcome", "approved")
    assert (approved["principal"], approved["capability"], approved["grant"]) == ("boss", "acme.greet", "greet")


async def test_so_is_who_has_code_run_in_the_session_of_somebody_else(node: Guarded, place: Path) -> None:
    user, operator = node.new("agent"), node.new("bob", "--role", "operator")
    other = node.new("carol", "--role", "operator")
    async with node.client(user) as agent, node.client(operator) as bob, node.client(other) as carol:
        await (await agent.session(name="idle")).detach()
        session = await bob.attach("idle")
        running = asyncio.ensure_future(session.run("caps.acme.greet('bob')", timeout=LONG))
        (asked,) = await found(place / "node", bob.approvals.list)
        assert (asked.owner, asked.submitters) == ("agent", ["bob"])
        why = await refused(bob, asked.id)
        assert await carol.approvals.approve(asked.id)
        assert (await running).text == "'hello bob'"
        await session.close()
    (one,) = await queried(place, "--kind", "approval", "--outcome", "refused")
    assert (one["principal"], one["why"], one["details"]) == ("bob", why, {"owner": "agent", "submitters": ["bob"]})
    calls = await queried(place, "--kind", "call", "--capability", "acme.greet")
    assert [each["details"]["submitters"] for each in calls] == [["bob"]] * len(calls)
    assert calls


async def test_so_is_who_has_only_had_a_name_completed_there(node: Guarded, place: Path) -> None:
    """To complete a name runs what the session says of it, and code that it leaves behind asks later."""
    user, operator = node.new("agent"), node.new("bob", "--role", "operator")
    async with node.client(user) as agent, node.client(operator) as bob:
        await (await agent.session(name="idle")).detach()
        session = await bob.attach("idle")
        await session.complete("pri", 3)
        await session.detach()
        running = asyncio.ensure_future((await agent.attach("idle")).run("caps.acme.greet('me')", timeout=LONG))
        (asked,) = await found(place / "node", bob.approvals.list)
        assert asked.submitters == ["bob"]
        await refused(bob, asked.id)
        assert await bob.approvals.deny(asked.id)
        await running


@pytest.mark.parametrize("how", ["run", "complete"])
async def test_so_is_who_did_before_the_node_was_replaced_but_not_before_the_worker_was(
    place: Path, node: Guarded, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A worker that outlives its node has in it what anybody has left there."""
    monkeypatch.setenv("CAPSULE_SERVE__LINGER", str(LONG))
    node.close()  # whose sessions do not outlive it
    operators = "bob", "carol"
    with guarded(place) as first:
        keys = {name: first.new(name, "--role", "operator") for name in ("agent", *operators)}
        async with first.client(keys["agent"]) as agent, first.client(keys["bob"]) as bob:
            await (await agent.session(name="idle")).detach()
            session = await bob.attach("idle")
            await (session.run("1") if how == "run" else session.complete("pri", 3))
            await session.detach()
        first.process.kill()
        first.process.wait(LONG)
    with guarded(place) as second:
        async with second.client(keys["agent"]) as agent, second.client(keys["bob"]) as bob:
            async with calling(place, agent, await agent.attach("idle")) as asked:
                assert asked.submitters == ["bob"]
                await refused(bob, asked.id)
            async with second.client(keys["carol"]) as carol:
                session = await carol.attach("idle")
                await session.run("2")
                await session.detach()
        second.process.kill()
        second.process.wait(LONG)
    with guarded(place) as third:
        async with third.client(keys["agent"]) as agent:
            session = await agent.attach("idle")
            async with calling(place, agent, session) as asked:
                assert (session.epoch, asked.submitters) == (1, ["bob", "carol"])
            await session.restart()
            async with calling(place, agent, session) as asked:
                assert asked.submitters == []
            await session.close()
