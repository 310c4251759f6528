"""Questions as promises: made before they are told, and answered by what is committed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from msgpack import packb

from capsule.config import SessionOptions
from capsule.events import InputRequest
from capsule.node.asking import CALL, Answer, Question
from capsule.node.durable.inquiries import Inquiries
from capsule.node.durable.told import description
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.lanes import Lanes
from capsule.node.powers import Powers
from capsule.node.tasks import Tasks
from capsule_bridge import Bridge, MemoryStore, NewPromise, Settlement, promise_id
from capsule_protocol.errors import SessionError
from tests.unit.node.hosts import Host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.node.clock import Reading
    from capsule_bridge import Created, Settled

pytestmark = pytest.mark.anyio

LONG = 60.0


class SlowStore(MemoryStore):
    """A store that takes its time, as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.may_create, self.may_settle = asyncio.Event(), asyncio.Event()
        self.asked = asyncio.Event()

    async def create(self, new: NewPromise, *, now: int) -> Created:
        if new.kind == "input":
            self.asked.set()
            await self.may_create.wait()
        return await super().create(new, now=now)

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        self.asked.set()
        await self.may_settle.wait()
        return await super().settle(*settlements, now=now)


class Asking(Host):
    """The session of one execution over such a store; remembers what its worker would hear."""

    def __init__(self) -> None:
        self.store, self.tasks = SlowStore(), Tasks()
        self.bridge = Bridge(self.store)
        self.inquiries = Inquiries(self.bridge, self.tasks)
        request = ExecuteRequest("input()", allow_input=True)
        self.execution = Execution("x_1", self, request, asyncio.get_running_loop())
        self.execution.inputs.consult(self.inquiries.clerk("s_1", "ada"))
        self.heard: asyncio.Queue[tuple[str, Answer]] = asyncio.Queue()

    def send_input(self, request: str, answer: Answer) -> None:
        self.heard.put_nowait((request, answer))

    async def ask(self, **question: Any) -> InputRequest:
        self.execution.ask_input(Question("m_1", "name? ", **question))
        self.store.may_create.set()
        async with asyncio.timeout(LONG):
            event = await self.execution.next_event()
        assert isinstance(event, InputRequest)
        return event


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    made = Asking()
    await made.bridge.accept(NewPromise(promise_id("x_1"), "execute", "s_1", b"", principal="ada"))
    yield made
    await made.tasks.close()


async def test_nobody_is_told_of_a_question_before_its_promise_is_made(asking: Asking) -> None:
    asking.execution.ask_input(Question("m_1", "name? "))
    await asking.store.asked.wait()
    assert asking.execution.take() is None
    asking.store.may_create.set()
    async with asyncio.timeout(LONG):
        event = await asking.execution.next_event()
    assert event == InputRequest("x_1", 1, "m_1", "name? ", password=False, promise=promise_id("x_1", "input", 1))
    promise = await asking.bridge.get(promise_id("x_1", "input", 1))
    assert (promise.kind, promise.parent, promise.principal, promise.pending) == ("input", "exec:x_1", "ada", True)


async def test_code_hears_no_answer_before_it_is_committed(asking: Asking) -> None:
    await asking.ask()
    asking.store.asked.clear()
    asking.execution.reply_input("m_1", "Ada")
    await asking.store.asked.wait()
    assert asking.heard.empty()
    asking.store.may_settle.set()
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer("Ada"))


async def test_time_in_which_only_threads_have_waited_is_the_code_s_own(asking: Asking) -> None:
    """So the next node, which is told how the clock stands, ends code no later than this one would have."""
    noted: list[Reading] = []
    asking.execution.inputs.limit(3600.0, asking.tasks.close, noted.append)
    asking.store.may_create.set()
    stands = []
    for name, waits in (("m_2", False), ("m_1", True)):
        asking.execution.ask_input(Question(name, "name? ", waits=waits))
        async with asyncio.timeout(LONG):
            await asking.execution.next_event()
        stands.append(noted[-1].at < 0)
    assert stands == [False, True]
    asking.store.may_settle.set()
    await asking.inquiries.settle(promise_id("x_1", "input", 2), Answer("Ada"))
    async with asyncio.timeout(LONG):
        await asking.heard.get()
    assert noted[-1].at > 0


async def test_time_in_which_a_call_has_waited_for_people_is_not_the_code_s_own(asking: Asking) -> None:
    """So the next node does not end code because somebody took their time."""
    noted: list[Reading] = []
    asking.execution.inputs.limit(3600.0, asking.tasks.close, noted.append)
    asking.store.may_create.set()
    asking.store.may_settle.set()
    lanes = Lanes()
    lanes.restore(asking.execution, 1)
    question = Question(f"{CALL}exec:x_1:call:1:1", "name? ")
    asking.tasks.start(Powers(lanes, lambda _envelope: None, None).ask_people("x_1", question))
    async with asyncio.timeout(LONG):
        event = await asking.execution.next_event()
    assert isinstance(event, InputRequest)
    assert 3590 < noted[-1].left(asyncio.get_running_loop().time() + 7200, lambda: 0.0) <= 3600
    assert 3490 < noted[-1].left(0.0, lambda: 100.0) <= 3500  # what it computes meanwhile counts all the same


async def test_the_first_answer_counts_whoever_gives_it(asking: Asking) -> None:
    event = await asking.ask()
    asking.store.may_settle.set()
    first = await asking.inquiries.settle(event.promise, Answer("from elsewhere"))
    second = await asking.inquiries.settle(event.promise, Answer("too late"))
    assert (first.decided, second.decided) == (True, False)
    assert second.promise == first.promise
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer("from elsewhere"))
    assert asking.heard.empty()


async def test_a_password_is_heard_and_not_written_down(asking: Asking) -> None:
    event = await asking.ask(password=True)
    asking.store.may_settle.set()
    first = await asking.inquiries.settle(event.promise, Answer("s3cret"))
    await asking.inquiries.settle(event.promise, Answer("another"))
    assert b"s3cret" not in first.promise.value
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer("s3cret"))


@pytest.mark.parametrize("error", ["eof", "canceled"])
async def test_no_answer_has_its_reason(asking: Asking, error: str) -> None:
    event = await asking.ask()
    asking.store.may_settle.set()
    given = Answer(None, "eof", "why") if error == "eof" else Answer(None, "canceled", "why")
    settled = await asking.inquiries.settle(event.promise, given)
    assert settled.promise.state == ("rejected" if error == "eof" else "rejected_canceled")
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", given)


async def test_with_its_execution_a_question_is_canceled(asking: Asking) -> None:
    event = await asking.ask()
    asking.store.may_settle.set()
    await asking.bridge.settle(Settlement(promise_id("x_1"), "resolve"))
    assert (await asking.bridge.get(event.promise)).state == "rejected_canceled"
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer(None, "canceled"))
    assert asking.bridge.info().pending == 0


async def test_an_answer_that_the_question_does_not_allow_leaves_it_open_whoever_gives_it(asking: Asking) -> None:
    event = await asking.ask(choices=["yes", "no"])
    asking.store.may_settle.set()
    refused: asyncio.Queue[SessionError] = asyncio.Queue()
    asking.execution.reply_input("m_1", '"maybe"', None, refused.put_nowait)
    async with asyncio.timeout(LONG):
        error = await refused.get()
    assert (error.code, error.details["allowed"]) == ("answer_refused", '"yes", "no"')
    with pytest.raises(SessionError) as caught:
        await asking.inquiries.settle(event.promise, Answer("yes"))  # that is no JSON
    assert caught.value.code == "answer_refused"
    assert (await asking.bridge.get(event.promise)).pending
    assert asking.heard.empty()
    asking.execution.reply_input("m_1", '"yes"', None, refused.put_nowait)
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer('"yes"'))
    assert refused.empty()


async def test_a_wrong_answer_that_comes_late_is_told_what_counts(asking: Asking) -> None:
    event = await asking.ask(choices=["yes", "no"])
    asking.store.may_settle.set()
    await asking.inquiries.settle(event.promise, Answer('"no"'))
    late = await asking.inquiries.settle(event.promise, Answer('"maybe"'))
    assert (late.decided, late.promise.state) == (False, "resolved")


@pytest.mark.parametrize(
    "given",
    [
        {"value": '"yes"', "more": 1},
        {"value": 5, "error": None, "message": ""},
        {"value": '"maybe"', "error": None, "message": ""},
        {"value": None, "error": ["eof"], "message": ""},
        {"value": None, "error": "eof", "message": 5},
        {"withheld": ["m_1"]},
    ],
)
async def test_what_is_written_down_as_an_answer_and_is_none_ends_the_question_and_is_never_heard(
    asking: Asking, given: dict[str, Any]
) -> None:
    event = await asking.ask(choices=["yes", "no"])
    asking.store.may_settle.set()
    await asking.bridge.settle(Settlement(event.promise, "resolve", packb(given)))
    async with asyncio.timeout(LONG):
        _, answer = await asking.heard.get()
    assert (answer.value, answer.error) == (None, "eof")
    assert "allowed: " in answer.message
    assert isinstance(description(await asking.bridge.get(event.promise), 0)["value"], str)


async def test_the_next_node_knows_which_question_is_which(asking: Asking) -> None:
    asking.store.may_settle.set()
    first = await asking.ask()
    await asking.inquiries.settle(first.promise, Answer("one"))
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer("one"))
        asking.execution.ask_input(Question("m_2", "and? "))
        second = await asking.execution.next_event()
    assert isinstance(second, InputRequest)
    heir = Execution("x_1", asking, ExecuteRequest("input()", allow_input=True), asyncio.get_running_loop())
    heir.inputs.consult(Inquiries(asking.bridge, asking.tasks).clerk("s_1", "ada", inherited=True))
    heir.inputs.expect("m_2")
    await asking.inquiries.settle(second.promise, Answer("two"))
    async with asyncio.timeout(LONG):  # the node of before hears it, too
        assert [await asking.heard.get() for _ in range(2)] == [("m_2", Answer("two"))] * 2


async def test_a_password_that_somebody_else_has_written_down_is_not_shown(asking: Asking) -> None:
    event = await asking.ask(password=True)
    asking.store.may_settle.set()
    await asking.bridge.settle(Settlement(event.promise, "resolve", b"s3cret"))
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer("s3cret"))
    assert description(await asking.bridge.get(event.promise), 0)["value"] is None


async def test_what_is_allowed_is_kept_with_the_question_for_the_next_node(asking: Asking) -> None:
    schema = {"type": "integer"}
    event = await asking.ask(schema=schema)
    asking.store.may_settle.set()
    heir = Execution("x_1", asking, ExecuteRequest("input()", allow_input=True), asyncio.get_running_loop())
    heir.inputs.consult(Inquiries(asking.bridge, asking.tasks).clerk("s_1", "ada", inherited=True))
    heir.inputs.expect("m_1")  # it is not told what the question was
    refused: asyncio.Queue[SessionError] = asyncio.Queue()
    heir.reply_input("m_1", '"three"', None, refused.put_nowait)
    async with asyncio.timeout(LONG):
        assert (await refused.get()).code == "answer_refused"
    heir.reply_input("m_1", "3", None, refused.put_nowait)
    async with asyncio.timeout(LONG):
        assert await asking.heard.get() == ("m_1", Answer("3"))
    assert event.schema == schema


@pytest.mark.parametrize(
    ("limit", "asked", "expected"),
    [(None, None, None), (None, 2.0, 2.0), (3.0, None, 3.0), (3.0, 2.0, 2.0), (1.0, 2.0, 1.0)],
)
async def test_a_question_is_open_for_as_long_as_both_session_and_code_allow(
    asking: Asking, limit: float | None, asked: float | None, expected: float | None
) -> None:
    asking.options = SessionOptions(input_timeout=limit)
    event = await asking.ask(timeout=asked)
    assert event.timeout == expected
    promise = await asking.bridge.get(event.promise)
    left = None if promise.timeout_at is None else (promise.timeout_at - promise.created_at) / 1000
    assert left == (None if expected is None else pytest.approx(expected, abs=0.5))
