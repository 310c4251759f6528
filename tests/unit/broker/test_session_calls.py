"""What a worker that obeys nothing can say of its calls, and that none of it gets it further or costs others."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from msgpack import packb

from capsule.broker.approvals import Decision
from capsule.broker.arguments import MAX_BYTES
from capsule.broker.broker import Broker
from capsule.broker.calls import GRANTED, MAX_HELD, REMEMBERED
from capsule.broker.sdk import Asker
from capsule.config import NodeConfig
from capsule.node.durable.calls import CallBook
from capsule_bridge import Bridge, MemoryStore, NewPromise
from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.messages.capability import CapabilityCancel, CapabilityRequest
from capsule_protocol.messages.streams import StreamClose, StreamCredit, StreamData
from tests.acceptance.broker.conftest import HEAD, PACKAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from capsule_bridge import Settled, Settlement
    from capsule_protocol.messages.base import Message

pytestmark = pytest.mark.anyio

ALL = '[[grants]]\nname = "all"\ncapabilities = ["acme.*"]\n'
ASKED = ALL + 'approval = "always"\n'


class Worker:
    """One that says what it likes to the calls of its session, and what it was told."""

    def __init__(self, broker: Broker, session: str = "s-1") -> None:
        self.broker = broker
        self.calls = broker.open(Asker(session, "", "alice", "default", ""), None)
        self.told: list[Envelope] = []
        self._heard = asyncio.Event()

    def send_call(self, envelope: Envelope) -> None:
        encode(envelope, DEFAULT_LIMITS)
        self.told.append(envelope)
        self._heard.set()

    def standing(self, execution: str) -> AbstractContextManager[None]:  # noqa: ARG002 (the interface)
        return nullcontext()

    def say(self, message: Message, *buffers: bytes, execution: str = "e-1") -> None:
        self.calls.hear(message, Envelope(message.TYPE, {}, execution=execution, buffers=buffers), self)

    def call(self, number: int, capability: str, *buffers: bytes, execution: str = "e-1", **fields: Any) -> None:
        self.say(CapabilityRequest(request=number, capability=capability, **fields), *buffers, execution=execution)

    async def reply(self, number: int) -> dict[str, Any]:
        """The first reply to this call."""
        async with asyncio.timeout(20):
            while True:
                for envelope in self.told:
                    if envelope.type == "capability_reply" and envelope.body["request"] == number:
                        return envelope.body
                self._heard.clear()
                await self._heard.wait()

    async def code(self, number: int) -> str:
        error = (await self.reply(number))["error"]
        return "" if error is None else str(error["code"])

    @property
    def records(self) -> list[Any]:
        records = self.broker.checkpoint.recorder.audit.records  # type: ignore[attr-defined]
        return [record for record in records if record.kind == "call"]


@asynccontextmanager
async def broker_with(place: Path, text: str, bridge: Bridge | None = None) -> AsyncIterator[Broker]:
    policy = place / "policy.toml"
    policy.write_text(HEAD + text)
    config = NodeConfig(broker={"policy": policy, "providers": ("acme_caps",)})
    broker = Broker(config, bridge, None if bridge is None else CallBook(bridge))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))


class Slow(MemoryStore):
    """A store that takes its time to settle, as one on a disk does."""

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().settle(*settlements, now=now)


async def durable() -> Bridge:
    """A bridge that has two sessions, and an execution of the first."""
    bridge = Bridge(Slow())
    for id_, kind, session in (
        ("session:s-1", "session", "s-1"),
        ("session:s-2", "session", "s-2"),
        ("exec:e-1", "exec", "s-1"),
    ):
        await bridge.accept(NewPromise(id=id_, kind=kind, session=session, fingerprint=b"", principal="alice"))
    return bridge


async def approved(worker: Worker) -> list[str]:
    """Approve what waits, once something does; the ids."""
    async with asyncio.timeout(20):
        while not (found := await worker.broker.approvals.pending()):
            await asyncio.sleep(0)
    for each in found:
        await worker.broker.decide(each["id"], Decision(approve=True, by="bob"))
    return [each["id"] for each in found]


async def test_an_approval_is_for_one_call_and_not_for_the_next_one_with_its_number(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ASKED) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["friend"])
        await approved(worker)
        assert (await worker.reply(1))["value"] == {"value": "hello friend"}
        worker.told.clear()
        await worker.calls.end()
        worker.calls.begin(2, "", epoch=2)  # a new worker counts from 1 again
        worker.call(1, "acme.greet", positional=["enemy"])
        await approved(worker)
        assert (await worker.reply(1))["value"] == {"value": "hello enemy"}
        await worker.calls.end()


@pytest.mark.parametrize("execution", ["e-1", ""])
async def test_a_later_worker_has_no_use_for_what_an_earlier_one_was_allowed(tmp_path: Path, execution: str) -> None:
    """Though it names the same execution, number and arguments: it is asked for again, and made again."""
    text = ASKED + f'scope = {{ marks = "{tmp_path}/marks" }}\n'
    async with broker_with(tmp_path, text, await durable()) as broker:
        worker = Worker(broker)
        ids = set()
        for epoch in (1, 2):
            worker.calls.begin(epoch, "", epoch)
            worker.call(1, "acme.mark", positional=["same"], execution=execution)
            ids.update(await approved(worker))
            assert (await worker.reply(1))["value"] == {"lines": epoch}
            worker.told.clear()
            await worker.calls.end()
        assert len(ids) == 2
        keys = [record.key for record in worker.records if record.outcome == "accepted"]
        assert len(set(keys)) == 2
    assert (tmp_path / "marks").read_text() == "same\nsame\n"


async def test_a_call_of_an_adopted_worker_is_the_same_to_the_next_node(tmp_path: Path) -> None:
    """Its epoch goes on, so what was approved and done is not asked for or done again."""
    text = ASKED + f'scope = {{ marks = "{tmp_path}/marks" }}\n'
    bridge = await durable()
    for node in (1, 2):
        async with broker_with(tmp_path, text, bridge) as broker:
            worker = Worker(broker)
            worker.calls.begin(1, "", 3)
            worker.call(1, "acme.mark", positional=["same"])
            if node == 1:
                await approved(worker)
            assert (await worker.reply(1))["value"] == {"lines": 1}
    assert (tmp_path / "marks").read_text() == "same\n"


async def test_a_number_is_never_good_for_a_second_call(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        for number in range(1, REMEMBERED + 100):
            worker.call(number, "acme.greet", positional=["one"])
            await worker.reply(number)
            worker.told.clear()
        worker.call(1, "acme.greet", positional=["again"])
        assert await worker.code(1) == "capability_invalid"
        assert len(worker.calls._over) == REMEMBERED


async def test_calls_of_two_sessions_that_name_no_execution_are_two_calls(tmp_path: Path) -> None:
    text = ALL + f'scope = {{ marks = "{tmp_path}/marks" }}\n'
    async with broker_with(tmp_path, text, await durable()) as broker:
        for session in ("s-1", "s-2"):
            worker = Worker(broker, session)
            worker.call(1, "acme.mark", positional=["same"], execution="")
            await worker.reply(1)
    assert (tmp_path / "marks").read_text() == "same\nsame\n"


async def test_a_call_that_is_cancelled_again_and_again_is_recorded(tmp_path: Path) -> None:
    text = ALL + f'scope = {{ marks = "{tmp_path}/marks" }}\n'
    async with broker_with(tmp_path, text, await durable()) as broker:
        worker = Worker(broker)
        for number in range(1, 61):
            worker.call(number, "acme.mark", positional=["x"], arguments={"seconds": 0.0 if number % 2 else 5.0})
            for turn in range(90):
                await asyncio.sleep(0)
                if turn >= number // 2:
                    worker.say(CapabilityCancel(request=number))
            await worker.reply(number)
        begun = [record.key for record in worker.records if record.outcome == "begun"]
        ended = {record.key for record in worker.records if record.outcome != "begun"}
        assert len(begun) > 10
        assert len(ended) == 60
        assert not worker.calls._open


async def test_the_calls_of_a_session_hold_only_so_much(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ASKED) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.count", bytes(MAX_HELD - 1000))
        worker.call(2, "acme.count", bytes(1001))
        assert await worker.code(2) == "capability_busy"
        worker.call(3, "acme.greet", positional=["x" * 2000])
        assert await worker.code(3) == "capability_busy"
        worker.say(CapabilityCancel(request=1))
        assert await worker.code(1) == "capability_canceled"
        worker.call(4, "acme.count", bytes(1001))
        await approved(worker)
        assert (await worker.reply(4))["value"]["size"] == 1001


async def test_bytes_in_crumbs_take_no_more_room_than_bytes(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.count", more=True)
        while not any(envelope.type == "stream_credit" for envelope in worker.told):
            await asyncio.sleep(0)
        inlet = worker.calls._open[1].attempt.inlet
        for _ in range(200):
            worker.say(StreamData(stream="call:1"), *[b""] * 1024)
        for _ in range(200):
            worker.say(StreamData(stream="call:1"), *[b"a"] * 10)
        assert len(inlet._pieces) == 1
        worker.say(StreamClose(stream="call:1"))
        assert (await worker.reply(1))["value"] == {"size": 2000, "total": 2000 * ord("a")}


async def test_a_body_whose_writer_says_that_it_is_not_whole_is_none(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.count", b"half", more=True)
        error = {"code": "capability_failed", "message": "the disk broke"}
        worker.say(StreamClose.model_validate({"stream": "call:1", "error": error}))
        assert await worker.code(1) == "capability_failed"


async def test_a_body_for_what_takes_none_is_refused(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", b"body", positional=["you"])
        worker.call(2, "acme.greet", positional=["you"], more=True)
        assert [await worker.code(1), await worker.code(2)] == ["capability_invalid"] * 2


async def test_a_stream_with_an_impossible_name_is_against_the_protocol(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        for stream in ("call:" + "9" * 5000, "call:-1", "call:", "call:1e3", "other:1"):
            with pytest.raises(RemoteProtocolError):
                worker.say(StreamCredit(stream=stream, size=1))


async def test_a_refusal_does_not_repeat_all_that_was_said(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["you"], arguments={"x" * 1_000_000: 1})
        reply = await worker.reply(1)
        assert reply["error"]["code"] == "capability_invalid"
        assert len(str(reply)) < 2000


async def test_arguments_without_end_are_not_looked_at(tmp_path: Path) -> None:
    """To write down each of a quarter of a million that are wrong took the node's loop a second."""
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.join", positional=[[""] * 60_000])
        assert len((await worker.reply(1))["value"]["value"]) == 59_999
        worker.call(2, "acme.join", positional=[[0] * 60_000])
        assert await worker.code(2) == "capability_invalid"
        begun = time.thread_time()
        worker.call(3, "acme.join", positional=[[0] * 500_000])
        assert await worker.code(3) == "capability_too_large"
        assert time.thread_time() - begun < 0.3
        assert [record.code for record in worker.records] == ["", "capability_invalid", "capability_too_large"]


async def test_a_large_argument_is_looked_at_by_nobody(tmp_path: Path) -> None:
    """It is no body: to hash and to validate one text of sixty million took the node's loop seconds."""
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        text = "y" * (DEFAULT_LIMITS.message_bytes - 1000)
        begun = time.thread_time()
        calls: list[tuple[str, dict[str, Any]]] = [
            ("acme.greet", {"positional": [text]}),
            ("acme.greet", {"arguments": {"name": [{"deep": text}]}}),
            ("acme.greet", {"arguments": {text: 1}}),
            ("acme.nosuch", {"positional": [text]}),
            ("nosuch.y", {"positional": [text]}),
            ("acme.greet", {"positional": ["€" * 400_000]}),
        ]
        for number, (capability, given) in enumerate(calls, 1):
            worker.call(number, capability, **given)
            assert not worker.calls._held
        codes = [await worker.code(number) for number in range(1, 7)]
        assert codes == [*["capability_too_large"] * 3, *["capability_unknown"] * 2, "capability_too_large"]
        assert time.thread_time() - begun < 0.2
        assert [record.arguments for record in worker.records[:1]] == [{"…": {"bytes": len(text)}}]
        assert all(len(str(record)) < 1000 for record in worker.records)
        reply = await worker.reply(1)
        assert reply["error"]["message"] == (
            "the arguments of acme.greet have more than 1048576 bytes; only a body may be larger"
        )


async def test_arguments_of_just_so_many_bytes_are_looked_at(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        text = "y" * (MAX_BYTES - len(packb(([""], {}))) - 4)  # the length of the text takes five bytes instead of one
        worker.call(1, "acme.greet", positional=[text])
        worker.call(2, "acme.greet", positional=[text + "y"])
        assert [await worker.code(1), await worker.code(2)] == ["", "capability_too_large"]


@pytest.mark.parametrize(
    ("limits", "capability", "given"),
    [
        ("request_bytes = 100", "acme.greet", {"positional": ["x" * 100]}),
        ("request_bytes = 100", "acme.count", {"body": bytes(101)}),
        ("response_bytes = 100", "acme.greet", {"positional": ["x" * 100]}),
        ("response_bytes = 100", "acme.give", {"positional": [101]}),
        ("total_bytes = 150", "acme.greet", {"positional": ["x" * 100]}),
    ],
)
async def test_bytes_count_in_fields_as_in_bodies(
    tmp_path: Path, limits: str, capability: str, given: dict[str, Any]
) -> None:
    async with broker_with(tmp_path, ALL + f"limits = {{ {limits} }}\n") as broker:
        worker = Worker(broker)
        body = [given["body"]] if "body" in given else []
        worker.call(1, capability, *body, positional=given.get("positional", []), window=1000)
        reply = await worker.reply(1)
        assert reply["error"]["details"]["limit"] == limits.partition(" ")[0]
        assert reply["error"]["code"] == "capability_too_large"


async def test_what_is_over_the_total_of_its_grant_is_not_made(tmp_path: Path) -> None:
    text = ALL + f'scope = {{ marks = "{tmp_path}/marks" }}\nlimits = {{ total_bytes = 40 }}\n'
    async with broker_with(tmp_path, text) as broker:
        worker = Worker(broker)
        codes = []
        for number in range(1, 6):
            worker.call(number, "acme.mark", positional=["m"])
            codes.append(await worker.code(number))
        made = (tmp_path / "marks").read_text().count("m")
        assert codes[made:] == ["capability_too_large"] * (5 - made)
        assert 0 < made < 5


async def test_credit_without_end_and_calls_without_end_are_bounded(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL + "limits = { timeout = 60.0 }\n") as broker:
        worker = Worker(broker)
        for number in range(1, 300):
            worker.call(number, "acme.wait")
        worker.say(StreamCredit(stream="call:1", size=2**64 - 1))
        assert await worker.code(257) == "capability_busy"
        assert len(worker.calls._open) == 256
        await worker.calls.end()
        assert not worker.calls._open
        assert [record.code for record in worker.records].count("capability_canceled") == 256


async def test_what_is_refused_without_a_look_is_recorded_and_that_without_filling_the_trail(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL + "limits = { timeout = 60.0 }\n") as broker:
        worker = Worker(broker)
        for number in range(1, 257):
            worker.call(number, "acme.wait")
        worker.call(257, "acme.greet", positional=["you"])
        assert await worker.code(257) == "capability_busy"
        while not worker.records:  # the first of them is recorded at once
            await asyncio.sleep(0)
        for number in range(258, 1258):
            worker.call(number, "acme.greet", positional=["you"])
        await worker.calls.end()
        refused = [record for record in worker.records if record.code == "capability_busy"]
        assert [record.details["count"] for record in refused] == [1, 1000]
        assert {(record.outcome, record.principal, record.session) for record in refused} == {
            ("denied", "alice", "s-1")
        }
        assert "256 calls under way" in refused[0].why
        for number in range(2000, 2257):  # another worker of the session
            worker.call(number, "acme.wait")
        await worker.calls.end()
        assert sum(record.code == "capability_busy" for record in worker.records) == 3


async def test_who_asks_again_and_again_what_is_granted_costs_the_node_little(tmp_path: Path) -> None:
    """The schemas are made once: 10 ms of the node's only loop for each question would stop all of its sessions."""
    async with broker_with(tmp_path, ALL) as broker:
        worker = Worker(broker)
        for number in (1, 2):
            worker.call(number, GRANTED)
        first, second = [envelope.body["value"]["operations"] for envelope in worker.told]
        operations = broker.checkpoint.providers["acme"].descriptor.operations
        assert [each["name"] for each in first] == [f"acme.{each}" for each in operations]
        assert all(one["request"] is other["request"] for one, other in zip(first, second, strict=True))
