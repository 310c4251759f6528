"""Capabilities at a service: who may approve, what survives the node, and what a new policy changes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, SessionError
from tests.acceptance.broker.conftest import HEAD, PACKAGE
from tests.acceptance.broker.events import found, written
from tests.acceptance.operators.support import answer, capsule
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

ALWAYS = '[[grants]]\nname = "marks"\ncapabilities = ["acme.mark"]\nscope = {{ marks = "{marks}" }}\n'
ASKED = ALWAYS + 'approval = "always"\n'
FREE = '[[grants]]\nname = "free"\ncapabilities = ["acme.greet"]\n'


class Site:
    """A service with a policy, a provider of a package, and an audit trail."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.marks = place / "marks"
        self.policy = place / "policy.toml"
        self.audit = place / "audit"

    def write(self, policy: str) -> None:
        """What the policy says."""
        self.policy.write_text(HEAD + policy.format(marks=self.marks) + FREE, encoding="utf-8")

    def served(self, monkeypatch: pytest.MonkeyPatch) -> Served:
        """The service, whose sessions outlive it."""
        monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
        text = f'[broker]\npolicy = "{self.policy}"\naudit = "{self.audit}"\nproviders = ["acme_caps"]\n'
        return Served(self.place / "node", text, linger=LONG)

    def records(self) -> list[dict[str, Any]]:
        """What the audit trail has of calls and approvals."""
        lines = [line for file in sorted(self.audit.glob("audit-*.jsonl")) for line in file.read_text().splitlines()]
        return [record for record in map(json.loads, lines) if record["kind"] in {"call", "approval", "policy"}]


@pytest.fixture
def site() -> Iterator[Site]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="b-"))
    yield Site(folder)
    shutil.rmtree(folder)


async def waiting(site: Site, client: AsyncClient) -> Any:
    """The one approval that is waited for, once the node has written it down."""
    (one,) = await found(site.place / "node", client.approvals.list)
    return one


async def marked(session: AsyncSession, text: str = "one") -> Any:
    """A call within a time limit; what the first use of `caps` imports would count for it, and is there before."""
    await session.run("caps.granted()")
    return await session.run(f"caps.acme.mark({text!r}, password='hunter2').lines", timeout=0.5)


async def test_who_approves_what_is_their_own_breaks_the_glass(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(ASKED)
    with site.served(monkeypatch) as node:
        async with AsyncClient(node.address) as client, client.session(name="agent") as session:
            running = asyncio.ensure_future(marked(session))
            asked = await waiting(site, client)
            assert (asked.capability, asked.grant, asked.session_name) == ("acme.mark", "marks", "agent")
            assert asked.arguments == {"text": "one", "password": {"secret_bytes": 7}}
            with pytest.raises(SessionError) as caught:
                await client.approvals.approve(asked.id)
            assert caught.value.code == "permission_denied"
            with pytest.raises(SessionError):
                await client.approvals.approve(asked.id, break_glass=True)
            await asyncio.sleep(0)
            assert not running.done()
            assert await client.approvals.approve(asked.id, break_glass=True, reason="nobody else is awake")
            assert not await client.approvals.deny(asked.id)
            assert (await running).text == "1"  # although it waited for longer than its own time-out
    words = [each for each in site.records() if each["kind"] == "approval"]
    assert [each["outcome"] for each in words] == ["refused", "refused", "approved", "denied"]
    approval, late = words[2:]
    assert (approval["outcome"], approval["why"]) == ("approved", "nobody else is awake")
    assert approval["details"] == {"break_glass": True}
    assert late["details"] == {"too_late": True}
    *_, ended = [each for each in site.records() if each["kind"] == "call"]
    assert ended["details"] == {"approved_by": f"uid:{os.getuid()}"}


async def test_a_denial_is_told_with_its_reason(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(ASKED)
    with site.served(monkeypatch) as node:
        async with AsyncClient(node.address) as client, client.session() as session:
            running = asyncio.ensure_future(marked(session))
            asked = await waiting(site, client)
            shown = await answer("approvals", "list", "--address", node.address)
            assert [each["id"] for each in shown["approvals"]] == [asked.id]
            told = await capsule("approvals", "deny", asked.id, "--reason", "not today", "--address", node.address)
            assert told.stdout == b"denied\n", told
            result = await running
            assert result.error is not None
            assert "not today" in result.error.message
            assert not site.marks.exists()


async def test_an_approval_survives_the_node(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(ASKED)
    with site.served(monkeypatch) as node:
        client = AsyncClient(node.address)
        session = await client.session(name="agent")
        execution = session.submit("caps.acme.mark('one').lines", key="k")
        asked = await waiting(site, client)
        node.kill()
    with site.served(monkeypatch) as node:
        assert (await waiting(site, client)).id == asked.id
        assert await client.approvals.approve(asked.id, break_glass=True, reason="after the restart")
        assert (await execution.result()).text == "1"
        await client.close()
    assert site.marks.read_text() == "one\n"


async def test_time_for_which_calls_waited_does_not_count_after_a_restart_either(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the call which waits when the node dies, nor that of one before it."""
    site.write(ASKED)
    code = "caps.acme.mark('one'); caps.acme.mark('two').lines"
    with site.served(monkeypatch) as node:
        client = AsyncClient(node.address)
        session = await client.session(name="agent")
        execution = session.submit(code, timeout=4.0)
        first = await waiting(site, client)
        await asyncio.sleep(2.5)
        assert await client.approvals.approve(first.id, break_glass=True, reason="nobody else is awake")
        (second,) = await found(site.place / "node", partial(others, client, first.id))
        await asyncio.sleep(2.5)
        node.kill()
    with site.served(monkeypatch) as node:
        assert (await waiting(site, client)).id == second.id
        assert await client.approvals.approve(second.id, break_glass=True, reason="after the restart")
        assert (await execution.result()).text == "2"
        await client.close()


async def others(client: AsyncClient, known: str) -> list[Any]:
    """The approvals that are waited for beside this one."""
    return [each for each in await client.approvals.list() if each.id != known]


async def test_a_new_worker_cannot_use_the_approval_of_the_one_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It obeys nothing, and says again what its session's earlier worker said when it was allowed."""
    say = (
        "from capsule_protocol.envelope import Envelope\n"
        'fields = {"positional": [], "arguments": {"text": "one"}, "more": False, "window": 0}\n'
        'call = {"request": 1, "capability": "acme.mark", **fields}\n'
        'caps.calls._link.send(Envelope("capability_request", call, session=caps.calls._publisher.session))\n'
    )
    site.write(ASKED)
    with site.served(monkeypatch) as node:
        async with AsyncClient(node.address) as client, client.session(name="agent") as session:
            assert (await session.run(say)).ok
            first = await waiting(site, client)
            assert await client.approvals.approve(first.id, break_glass=True, reason="once")
            await written(site.marks, "one\n")
            await session.restart()
            assert (await session.run(say)).ok
            second = await waiting(site, client)
            assert second.id != first.id
            assert await client.approvals.deny(second.id)
    assert site.marks.read_text() == "one\n"


async def test_a_call_whose_node_dies_is_not_made_twice(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(ALWAYS)
    with site.served(monkeypatch) as node:
        client = AsyncClient(node.address)
        session = await client.session(name="agent")
        code = "try: caps.acme.mark('one', seconds=3.0)\nexcept caps.CapabilityError as error: print(error.code)"
        execution = session.submit(code, key="k")
        await written(site.marks, "one\n")
        node.kill()
    with site.served(monkeypatch):
        assert (await execution.result()).stdout == "capability_uncertain\n"
        await client.close()
    assert site.marks.read_text() == "one\n"


async def test_a_policy_is_read_again_unless_it_is_bad(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(ALWAYS)
    with site.served(monkeypatch) as node:
        async with AsyncClient(node.address) as client, client.session() as session:
            assert (await session.run("caps.acme.greet('x')")).text == "'hello x'"
            site.policy.write_text("version = 7\n")
            node.process.send_signal(signal.SIGHUP)
            await written(node.log, "the policy stays as it was")
            assert "acme.mark" in (await session.run("[each['name'] for each in caps.granted()]")).text
            site.write("")
            node.process.send_signal(signal.SIGHUP)

            async def taken_away() -> bool:
                return "acme.mark" not in (await session.run("[each['name'] for each in caps.granted()]")).text

            await found(site.audit, taken_away)
            result = await marked(session)
            assert result.error is not None
            assert "capability_denied" in result.error.message
    assert [each["outcome"] for each in site.records() if each["kind"] == "policy"] == ["in_force"] * 2
    assert (await capsule("audit", "verify", site.audit)).returncode == 0
