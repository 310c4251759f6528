"""Providers in processes of their own: they do what others do, know nothing of the node, and cannot hold it up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import psutil
import pytest

from capsule import AsyncClient
from capsule_protocol.errors import ArgumentError
from tests.acceptance.broker.events import children_with
from tests.acceptance.broker.test_calls import refused, value

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.node.info import ApprovalSummary
    from tests.acceptance.broker.conftest import Granting

pytestmark = pytest.mark.anyio

FAR = '[[grants]]\nname = "far"\ncapabilities = ["far.*", "odd.*"]\n'


async def test_calls_go_there_and_come_back(
    granting: Granting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_NODE", "hunter2")
    scope = f'scope.far = {{ marks = "{tmp_path}/marks", names = ["you"] }}\n'
    async with granting(FAR + scope) as node, node.client.session() as session:
        assert await value(session, "caps.far.greet('you')") == "'hello you'"
        assert await value(session, "await caps.far.greet('you', loud=True)") == "'HELLO YOU'"
        assert "capability_outside_grant" in await refused(session, "caps.far.greet('me')")
        assert "capability_invalid" in await refused(session, "caps.far.greet(3)")
        assert "capability_invalid" in await refused(session, "caps.far.greet('you', no=1)")
        assert "capability_timeout" in await refused(session, "caps.far.wait()")
        assert "capability_failed" in await refused(session, "caps.far.trouble('told')")
        assert await value(session, "caps.far.mark('one', password='x').lines") == "1"
        assert await value(session, "data = bytes(range(256)) * 40_000\ncaps.far.echo(data) == data") == "True"
        assert await value(session, "len(caps.far.give(9_000_000)), caps.far.count(data).size") == "(9000000, 10240000)"
        pid, known = (await value(session, "caps.odd.where('SECRET_OF_THE_NODE')")).strip("'").split()
        assert int(pid) != os.getpid()
        assert known == "None"
        told = (await session.run("help(caps)")).stdout
        assert "caps.far.greet(name, loud=False)" in told
        assert next(each.arguments for each in node.records if each.capability == "far.mark")["password"] == {
            "secret_bytes": 1
        }
    assert not psutil.pid_exists(int(pid))


async def test_one_that_dies_or_does_not_obey_costs_only_its_call(granting: Granting) -> None:
    async with granting(FAR) as node, node.client.session() as session:
        assert "provider_unavailable" in await refused(session, "caps.odd.die()")
        assert await value(session, "caps.odd.greet('you')") == "'hello you'"
        assert "capability_timeout" in await refused(session, "caps.odd.hold()")
        assert await value(session, "caps.odd.greet('you')") == "'hello you'"


async def test_the_first_grant_counts_within_whose_scope_a_call_is(granting: Granting, tmp_path: Path) -> None:
    text = '[[grants]]\nname = "{0}"\ncapabilities = ["far.greet"]\nscope.names = ["{0}"]\n'
    async with granting(text.format("you") + text.format("me")) as node, node.client.session() as session:
        assert await value(session, "caps.far.greet('me')") == "'hello me'"
        assert "capability_outside_grant" in await refused(session, "caps.far.greet('them')")
        assert [(each.grant, each.outcome) for each in node.records] == [("me", "accepted"), ("", "denied")]


async def test_nobody_is_asked_to_approve_what_is_not_valid_or_outside_of_the_scope(granting: Granting) -> None:
    asked: list[str] = []

    def approve(approval: ApprovalSummary) -> Literal["once"]:
        asked.append(approval.capability)
        return "once"

    text = '[[grants]]\nname = "you"\ncapabilities = ["far.greet"]\nscope.names = ["you"]\napproval = "always"\n'
    async with granting(text, on_approval=approve) as node, node.client.session() as session:
        assert "capability_outside_grant" in await refused(session, "caps.far.greet('me')")
        assert "capability_invalid" in await refused(session, "caps.far.greet(name=['you'], loud=True)")
        assert not asked
        assert node.records[-1].arguments == {"name": {"bytes": 7}, "loud": {"bytes": 4}}
        assert await value(session, "caps.far.greet('you')") == "'hello you'"
        assert asked == ["far.greet"]


async def test_an_approval_may_depend_on_a_number_of_its_requests(granting: Granting, tmp_path: Path) -> None:
    asked: list[str] = []

    def approve(approval: ApprovalSummary) -> Literal["once"]:
        asked.append(approval.capability)
        return "once"

    text = '[[grants]]\nname = "far"\ncapabilities = ["far.mark"]\napproval = { above = { seconds = 0.05 } }\n'
    scope = f'scope.marks = "{tmp_path}/marks"\n'
    async with granting(text + scope, on_approval=approve) as node, node.client.session() as session:
        assert await value(session, "caps.far.mark('one').lines") == "1"
        assert not asked
        assert await value(session, "caps.far.mark('two', seconds=0.1).lines") == "2"
        assert asked == ["far.mark"]


async def test_its_scope_is_looked_at_before_the_policy_is_in_force(granting: Granting) -> None:
    with pytest.raises(ArgumentError) as caught:
        async with granting(FAR + 'scope.far = { marks = "/no/such/folder/marks" }\n') as node, node.client.session():
            pass
    assert "/no/such/folder" in caught.value.message
    assert not children_with("capsule.broker.apart.host")


async def test_none_is_left_where_the_policy_is_refused(granting: Granting) -> None:
    with pytest.raises(ArgumentError):
        async with granting('[[grants]]\nname = "bad"\ncapabilities = ["nobody.*"]\n') as node, node.client.session():
            pass
    assert not children_with("capsule.broker.apart.host")


async def test_one_that_cannot_be_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad-1.dist-info").mkdir()
    (tmp_path / "bad-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1\n")
    (tmp_path / "bad-1.dist-info/entry_points.txt").write_text("[capsule.providers.apart]\nbad = bad:provider\n")
    (tmp_path / "bad.py").write_text("raise ZeroDivisionError('it is broken')\n")
    (tmp_path / "policy.toml").write_text("version = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ArgumentError) as caught:
        async with AsyncClient(broker={"policy": tmp_path / "policy.toml", "providers": ("bad",)}) as client:
            await client.session()
    assert caught.value.code == "provider_refused"
    assert "it is broken" in caught.value.message
