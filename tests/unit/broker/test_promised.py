"""What is promised of calls, each where leaving a step out would show."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from capsule.broker.approvals import GLASS, GLASS_SECONDS, GLASSES, Decision, prompt
from capsule.broker.showing import BEGINNING, END
from capsule.config import NodeConfig
from capsule_bridge import Settlement
from capsule_protocol.errors import SessionError
from capsule_protocol.messages.streams import StreamClose
from tests.acceptance.broker.conftest import HEAD
from tests.unit.broker.test_session_calls import ALL, ASKED, Worker, approved, broker_with, durable, package

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.broker.broker import Broker

pytestmark = pytest.mark.anyio

__all__ = ["package"]

EPOCHS = count(1)


async def waiting(broker: Broker) -> dict[str, Any]:
    """The approval that is waited for."""
    async with asyncio.timeout(20):
        while not (found := await broker.approvals.pending()):
            await asyncio.sleep(0)
    (one,) = found
    return one


async def test_a_call_that_was_made_answers_again_with_what_was_recorded(tmp_path: Path) -> None:
    text = ALL + f'scope = {{ marks = "{tmp_path}/marks" }}\n'
    async with broker_with(tmp_path, text, await durable()) as broker:
        for _ in range(2):  # the second one knows as little of the first as a new node would
            worker = Worker(broker)
            worker.call(1, "acme.mark", positional=["one"])
            assert (await worker.reply(1))["value"] == {"lines": 1}
        other = Worker(broker)
        other.call(1, "acme.mark", positional=["two"])
        assert await other.code(1) == "idempotency_conflict"
        assert [(record.outcome, record.details) for record in worker.records] == [
            ("begun", None),
            ("accepted", None),
            ("accepted", {"recorded": True}),
            ("failed", None),
        ]
    assert (tmp_path / "marks").read_text() == "one\n"


async def test_what_was_recorded_is_told_though_the_call_may_not_be_so_large_any_more(tmp_path: Path) -> None:
    """Or the code would take it for not made."""
    text, bridge = ALL + f'scope = {{ marks = "{tmp_path}/marks" }}\n', await durable()
    for limits in ("", "limits = { request_bytes = 1 }\n"):
        async with broker_with(tmp_path, text + limits, bridge) as broker:
            worker = Worker(broker)
            worker.call(1, "acme.mark", positional=["one"])
            assert (await worker.reply(1))["value"] == {"lines": 1}
    assert (tmp_path / "marks").read_text() == "one\n"


async def test_a_policy_that_is_tried_out_denies_what_no_grant_reaches(tmp_path: Path) -> None:
    text = 'mode = "observe"\n[[grants]]\nname = "some"\ncapabilities = ["acme.greet"]\nscope = { names = ["you"] }\n'
    async with broker_with(tmp_path, text) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.count", b"data")
        worker.call(2, "acme.greet", positional=["me"])
        assert [await worker.code(1), await worker.code(2)] == ["capability_denied", "capability_outside_grant"]
        assert [record.outcome for record in worker.records] == ["denied", "denied"]


async def test_nobody_approves_their_own_and_the_glass_breaks_for_a_reason_once_and_not_often(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ASKED) as broker:
        worker = Worker(broker)
        for number in range(1, GLASSES + 2):
            worker.call(number, "acme.greet", positional=["you"])
            id_ = (await waiting(broker))["id"]
            for refused in (
                Decision(approve=True, by="alice", reason="mine"),
                Decision(approve=True, by="alice", break_glass=True, reason=" "),
                Decision(approve=True, by="alice", break_glass=True, reason="all of it", for_session=True),
                *[Decision(approve=True, by="alice", break_glass=True, reason="again")] * (number > GLASSES),
            ):
                with pytest.raises(SessionError) as caught:
                    await broker.decide(id_, refused)
                assert caught.value.code == "permission_denied"
            breaks = number <= GLASSES
            by = Decision(approve=True, by="alice" if breaks else "bob", break_glass=breaks, reason="a fire")
            await broker.decide(id_, by)
            assert await worker.code(number) == ""
        words = [each for each in broker.checkpoint.recorder.audit.records if each.kind == "approval"]  # type: ignore[attr-defined]  # in memory
        told = ["mine", " ", "all of it", "a fire"] * GLASSES + ["mine", " ", "all of it", "again"]
        reasons = [(each.details or {}).get("reason", each.why) for each in words]
        assert reasons == [*told, "a fire"]
        assert [each.outcome for each in words] == [
            *(["refused"] * 3 + ["approved"]) * GLASSES,
            *["refused"] * 4,
            "approved",
        ]


async def test_an_approval_for_the_session_is_for_its_grant_and_session_only(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL + 'approval = "first"\n') as broker:
        worker, other = Worker(broker), Worker(broker, "s-2")
        worker.call(1, "acme.greet", positional=["one"])
        await approved(worker)  # once, which says nothing of the next call
        assert await worker.code(1) == ""
        worker.call(2, "acme.greet", positional=["two"])
        await broker.decide((await waiting(broker))["id"], Decision(approve=True, by="bob", for_session=True))
        assert await worker.code(2) == ""
        worker.call(3, "acme.greet", positional=["three"])
        assert await worker.code(3) == ""
        other.call(1, "acme.greet", positional=["one"])
        await broker.decide((await waiting(broker))["id"], Decision(approve=False, by="bob"))
        assert await other.code(1) == "approval_denied"


async def switched(broker: Broker, place: Path, text: str) -> None:
    """Another policy is in force from now on."""
    (place / "policy.toml").write_text(HEAD + text)
    await broker.reload(NodeConfig(broker=broker.config))


async def test_an_approval_for_the_session_ends_with_the_scope_that_was_approved(tmp_path: Path) -> None:
    """A grant of the same name that reaches further is another one."""
    text = ALL + 'approval = "first"\n'
    async with broker_with(tmp_path, text + 'scope = { names = ["one"] }\n') as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["one"])
        await broker.decide((await waiting(broker))["id"], Decision(approve=True, by="bob", for_session=True))
        assert await worker.code(1) == ""
        await switched(broker, tmp_path, "# nothing else\n" + text + 'scope = { names = ["one"] }\n')
        worker.call(2, "acme.greet", positional=["one"])
        assert await worker.code(2) == ""
        await switched(broker, tmp_path, text + 'scope = { names = ["*"] }\n')
        worker.call(3, "acme.greet", positional=["one"])
        await broker.decide((await waiting(broker))["id"], Decision(approve=False, by="bob"))
        assert await worker.code(3) == "approval_denied"


async def test_a_call_that_waits_for_its_turn_needs_its_grant_when_that_comes(tmp_path: Path) -> None:
    """And the trail has of each call which policy has decided on it."""
    text = ALL + "limits = { concurrent = 1 }\n"
    async with broker_with(tmp_path, text) as broker:
        worker, acme = Worker(broker), broker.checkpoint.providers["acme"]
        first = broker.policy.digest
        for number in (1, 2, 3):
            worker.call(number, "acme.count", b"12", more=number == 1)
        await acme.reached(1)  # type: ignore[attr-defined]
        await switched(broker, tmp_path, "# the same\n" + text)
        worker.say(StreamClose(stream="call:1"))
        await acme.reached(0)  # type: ignore[attr-defined]
        assert [await worker.code(1), await worker.code(2), await worker.code(3)] == ["", "", ""]
        same = broker.policy.digest
        for number in (4, 5):
            worker.call(number, "acme.count", b"12", more=number == 4)
        await acme.reached(1)  # type: ignore[attr-defined]
        await switched(broker, tmp_path, "")
        worker.say(StreamClose(stream="call:4"))
        assert [await worker.code(4), await worker.code(5)] == ["", "capability_denied"]
        assert [(each.outcome, each.policy, each.grant) for each in worker.records] == [
            ("accepted", first, "all"),
            ("accepted", same, "all"),
            ("accepted", same, "all"),
            ("accepted", same, "all"),
            ("denied", broker.policy.digest, ""),
        ]


async def test_an_approval_for_the_session_is_for_the_capabilities_that_its_grant_had(tmp_path: Path) -> None:
    some = '[[grants]]\nname = "some"\ncapabilities = [{}]\napproval = "first"\n'
    async with broker_with(tmp_path, some.format('"acme.greet"')) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["one"])
        await broker.decide((await waiting(broker))["id"], Decision(approve=True, by="bob", for_session=True))
        assert await worker.code(1) == ""
        await switched(broker, tmp_path, some.format('"acme.greet", "acme.join"'))
        worker.call(2, "acme.greet", positional=["two"])
        assert await worker.code(2) == ""
        worker.call(3, "acme.join", positional=[["a"]])
        await broker.decide((await waiting(broker))["id"], Decision(approve=False, by="bob"))
        assert await worker.code(3) == "approval_denied"


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ("", "capability_denied"),
        (ASKED + 'scope = { names = ["you"] }\n', "capability_outside_grant"),
        (ASKED + 'scope = { names = ["*", "me"] }\n', "capability_denied"),
        ("# nothing else\n" + ASKED, ""),
    ],
)
async def test_a_call_that_waits_for_an_approval_needs_its_grant_also_afterwards(
    tmp_path: Path, after: str, code: str
) -> None:
    async with broker_with(tmp_path, ASKED) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["me"])
        id_ = (await waiting(broker))["id"]
        await switched(broker, tmp_path, after)
        await broker.decide(id_, Decision(approve=True, by="bob"))
        assert await worker.code(1) == code


async def test_an_approval_that_nobody_gives_expires(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ASKED + "approval_timeout = 0.05\n") as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["one"])
        assert (await worker.reply(1))["outcome"] == "timeout"
        assert await worker.code(1) == "approval_expired"


async def test_who_had_code_run_in_the_worker_may_not_approve_its_calls_at_the_next_node_either(tmp_path: Path) -> None:
    bridge = await durable()
    async with broker_with(tmp_path, ASKED, bridge) as broker, broker_with(tmp_path, ASKED, bridge) as other:
        worker = Worker(broker)
        worker.calls.submitted("bob")
        worker.calls.submitted("")
        worker.calls.submitted("alice")
        worker.call(1, "acme.greet", positional=["you"])
        asked = await waiting(broker)
        assert (asked["owner"], asked["submitters"]) == ("alice", ["bob"])
        for by in ("alice", "bob"):
            with pytest.raises(SessionError, match=f"{by} asks for this"):
                await other.decide(asked["id"], Decision(approve=True, by=by))
        await other.decide(asked["id"], Decision(approve=True, by="carol"))
        assert await worker.code(1) == ""
        worker.calls.begin(1, "", 2)  # a new worker, which has nothing of them
        worker.call(2, "acme.greet", positional=["you"])
        assert (await waiting(broker))["submitters"] == []
        await approved(worker)
        assert await worker.code(2) == ""


async def test_who_is_to_approve_a_call_sees_what_it_is(tmp_path: Path) -> None:
    """And not the hash of it, as the trail has it: code would choose what is seen."""
    async with broker_with(tmp_path, ASKED) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["rm -rf /srv #" + "A" * 1000])
        asked = await waiting(broker)
        assert asked["arguments"] == {"name": "rm -rf /srv #" + "A" * 1000}
        assert (await broker.approvals.find(asked["id"])).param.count(b"A" * 1000) == 1
        await approved(worker)
        words = ["rm"] * 70 + ["-rf"] * 2000 + ["/"]
        worker.call(2, "acme.join", arguments={"words": words})
        asked = await waiting(broker)
        told = asked["arguments"]["words"]
        assert told["begins"].startswith('["rm", "rm", ')
        assert told["ends"].endswith(', "-rf", "/"]')
        assert told["left_out"] == told["bytes"] - BEGINNING - END > 0
        assert prompt(await broker.approvals.find(asked["id"])).endswith("characters more)")
        await approved(worker)
        assert [await worker.code(1), await worker.code(2)] == ["", ""]
        records = broker.checkpoint.recorder.audit.records  # type: ignore[attr-defined]  # in memory
        assert [each.arguments["name"]["bytes"] for each in records if each.capability == "acme.greet"] == [1013] * 2


async def test_secrets_are_not_shown_however_long_the_rest_is(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ASKED + f'scope = {{ marks = "{tmp_path}/marks" }}\n') as broker:
        worker = Worker(broker)
        worker.call(1, "acme.mark", arguments={"text": "x" * 9999, "password": "hunter2"})
        asked = await waiting(broker)
        assert asked["arguments"]["password"] == {"secret_bytes": 7}
        assert asked["arguments"]["text"] == {
            "begins": "x" * BEGINNING,
            "ends": "x" * END,
            "left_out": 9999 - BEGINNING - END,
            "bytes": 9999,
        }
        await approved(worker)
        assert await worker.code(1) == ""


async def test_a_glass_that_was_broken_counts_at_the_next_node_too(tmp_path: Path) -> None:
    bridge = await durable()
    for _ in range(GLASSES):
        async with broker_with(tmp_path, ASKED, bridge) as broker:
            await broken(broker)
    async with broker_with(tmp_path, ASKED, bridge) as broker:
        with pytest.raises(SessionError, match="has broken the glass"):
            await broken(broker)
        for glass in [each async for each in bridge.pending() if each.kind == GLASS]:
            assert glass.timeout_at is not None
            assert 0 < glass.timeout_at - bridge.now() <= GLASS_SECONDS * 1000
            await bridge.settle(Settlement(glass.id, "cancel"))  # as its time-out would
        await broken(broker)


async def broken(broker: Broker) -> None:
    """Somebody approves what is their own, of a session that there was not before."""
    worker = Worker(broker)
    worker.calls.begin(1, "", next(EPOCHS))
    worker.call(1, "acme.greet", positional=["you"])
    asked = await waiting(broker)
    try:
        await broker.decide(asked["id"], Decision(approve=True, by="alice", break_glass=True, reason="a fire"))
    finally:
        await broker.decide(asked["id"], Decision(approve=False, by="bob"))
        await worker.reply(1)


BUDGET = "[budget]\nfaults = 2\nwarn = 50\nthrottle = 50\npause = {pause}\nlongest_pause = 600\ndelay = {delay}\n"


async def test_a_call_from_before_does_not_decide_for_the_one_that_is_tried(tmp_path: Path) -> None:
    text = ALL + BUDGET.format(pause=0.1, delay=0.0)
    async with broker_with(tmp_path, text) as broker:
        worker, acme = Worker(broker), broker.checkpoint.providers["acme"]
        worker.call(1, "acme.count", b"12", more=True)
        await acme.reached(1)  # type: ignore[attr-defined]
        for number in (2, 3):
            worker.call(number, "acme.trouble", positional=["raise"])
            assert await worker.code(number) == "capability_failed"
        assert budgets(broker)[-1] == "isolated"
        tried = await let_through(worker, 4)
        worker.say(StreamClose(stream="call:1"))
        assert await worker.code(1) == ""
        assert budgets(broker)[-1] == "probing"
        worker.say(StreamClose(stream=f"call:{tried}"))
        assert await worker.code(tried) == ""
        assert budgets(broker)[-1] == "calm"


async def let_through(worker: Worker, number: int) -> int:
    """Call until a second call runs; its number."""
    acme = worker.broker.checkpoint.providers["acme"]
    while True:
        worker.call(number, "acme.count", b"12", more=True)
        runs = asyncio.ensure_future(acme.reached(2))  # type: ignore[attr-defined]
        refused = asyncio.ensure_future(worker.reply(number))
        done, _ = await asyncio.wait([runs, refused], return_when=asyncio.FIRST_COMPLETED)
        for waiting_ in (runs, refused):
            waiting_.cancel()
        if runs in done:
            return number
        number += 1


async def test_a_policy_that_is_tried_out_slows_nobody_down(tmp_path: Path) -> None:
    text = 'mode = "observe"\n' + ALL + BUDGET.format(pause=600.0, delay=60.0)
    async with broker_with(tmp_path, text) as broker:
        worker = Worker(broker)
        for number in range(1, 5):
            worker.call(number, "acme.trouble", positional=["raise"])
            assert await worker.code(number) == "capability_failed"
        assert budgets(broker)[-1] == "isolated"
        assert [each.details for each in worker.records][-1] == {"observed": ["capability_isolated"]}


def budgets(broker: Broker) -> list[str]:
    """What has become of the faults of its sessions."""
    records = broker.checkpoint.recorder.audit.records  # type: ignore[attr-defined]  # in memory
    return [each.outcome for each in records if each.kind == "budget"]
