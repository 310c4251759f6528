"""`capsule_ask` at a service: a promise with a typed answer, which anybody may give who may, and nobody wrongly."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from msgpack import unpackb

from capsule import Client, SessionError
from tests.acceptance.durable.test_questions import asked, kept
from tests.acceptance.operators.support import capsule
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from capsule import AsyncClient, AsyncExecution
    from capsule.events import InputRequest

pytestmark = pytest.mark.anyio

DEPLOY = "capsule_ask('Deploy? ', choices=['yes', 'no'])"
PORT = "capsule_ask('Port? ', schema={'type': 'object', 'properties': {'port': {'type': 'integer', 'maximum': 65535}}})"
HEARD = """
try:
    heard = capsule_ask('Deploy? ', choices=['yes', 'no'])
except Exception as error:
    heard = f'{type(error).__name__}: {error}'
heard
"""
ALLOWED = 'the answer is "maybe"; allowed: "yes", "no"'


@pytest.fixture
async def served(place: Path) -> AsyncIterator[Served]:
    with Served(place / "node") as node:
        yield node


async def begin(client: AsyncClient, code: str, **options: Any) -> tuple[AsyncExecution, InputRequest]:
    """An execution of a new session, and its first question."""
    session = await client.session(**options)
    execution = session.start(code, {}, allow_input=True)
    return execution, await asked(execution)


async def refused(client: AsyncClient, promise: str, answer: object) -> SessionError:
    """Why an answer does not count; the question is open afterwards."""
    with pytest.raises(SessionError) as caught:
        await client.settle_promise(promise, "resolve", answer)
    assert caught.value.code == "answer_refused"
    assert (await client.promise(promise)).state == "pending"
    return caught.value


async def text(execution: AsyncExecution) -> str:
    """The value of its last expression."""
    async with asyncio.timeout(LONG):
        result = await execution.result()
    assert result.verdict == "ok", result.error
    return result.text


async def test_the_callback_is_the_first_who_may_answer(served: Served) -> None:
    told: list[InputRequest] = []

    def answer(request: InputRequest) -> str:
        told.append(request)
        return "maybe" if not request.refused else "yes"

    async with served.client() as client:
        session = await client.session()
        result = await session.run(DEPLOY, on_input=answer)
    assert result.text == "'yes'"
    assert [(request.choices, request.refused) for request in told] == [(["yes", "no"], ""), (["yes", "no"], ALLOWED)]
    assert told[0].promise == told[1].promise != ""


async def test_a_coroutine_may_answer_with_any_value(served: Served) -> None:
    async def answer(request: InputRequest) -> dict[str, int]:
        await asyncio.sleep(0)
        assert request.schema is not None
        return {"port": 70_000 if not request.refused else 8080}

    async with served.client() as client:
        session = await client.session()
        assert (await session.run(PORT, on_input=answer)).text == "{'port': 8080}"


async def test_a_callback_that_answers_wrongly_again_and_again_is_told(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        with pytest.raises(SessionError) as caught:
            await session.run("try: " + DEPLOY + "\nexcept EOFError: seen = True", on_input=lambda _: "maybe")
        assert caught.value.message == ALLOWED
        assert (await session.run("seen")).text == "True"


async def test_the_synchronous_callback_too(served: Served) -> None:
    def work() -> str:
        with Client(served.address) as client, client.session() as session:
            result = session.run(DEPLOY, on_input=lambda request: "yes" if request.refused else 1)
            with pytest.raises(SessionError) as caught:
                session.run("try: " + DEPLOY + "\nexcept EOFError: pass", on_input=lambda _: "maybe")
            assert caught.value.message == ALLOWED
            return result.text

    async with asyncio.timeout(LONG):
        assert await asyncio.to_thread(work) == "'yes'"


async def test_it_is_listed_shown_and_answered_from_elsewhere(served: Served) -> None:
    async with served.client() as client, served.client() as other:
        execution, request = await begin(client, PORT)
        (listed,) = [one for one in await other.promises() if one.kind == "input"]
        assert (listed.id, listed.prompt) == (request.promise, "Port? ")
        shown = await other.promise(request.promise)
        assert (shown.choices, shown.schema) == (None, request.schema)
        error = await refused(other, request.promise, {"port": 70_000})
        assert error.details == {"at": "$.port", "allowed": "at most 65535"}
        for wrong in ("8080", None, [1], {"port": "8080"}):
            await refused(other, request.promise, wrong)
        settled = await other.settle_promise(request.promise, "resolve", {"port": 8080})
        assert (settled.decided, settled.promise.value) == (True, {"port": 8080})
        assert await text(execution) == "{'port': 8080}"
        late = await other.settle_promise(request.promise, "resolve", "nonsense")
        assert (late.decided, late.promise.value) == (False, {"port": 8080})
        assert served.stop() == 0
    (promise,) = await kept(served.directory, request.promise)
    assert unpackb(promise.value)["value"] == '{"port":8080}'


async def test_the_commands_show_what_is_allowed_and_refuse_the_rest(served: Served) -> None:
    at = ("--address", served.address)
    async with served.client() as client:
        execution, request = await begin(client, DEPLOY)
        shown = (await capsule("promises", "show", request.promise, *at)).stdout.decode()
        assert '["yes", "no"]' in shown
        wrong = await capsule("promises", "resolve", request.promise, "maybe", "--json", *at)
        error = json.loads(wrong.stdout)["error"]
        assert (wrong.returncode, error["code"], error["message"]) == (3, "answer_refused", ALLOWED)
        assert (await client.promise(request.promise)).state == "pending"
        right = await capsule("promises", "resolve", request.promise, "yes", *at)
        assert (right.returncode, right.stdout) == (0, b"resolved\n")
        assert await text(execution) == "'yes'"
        late = await capsule("promises", "resolve", request.promise, "maybe", *at)
        assert (late.returncode, late.stdout) == (0, b"resolved before\n")
        execution, request = await begin(client, PORT)
        await capsule("promises", "resolve", request.promise, '{"port": 8080}', *at)
        shown = (await capsule("promises", "show", request.promise, *at)).stdout.decode()
        assert '{"port": 8080}' in shown
        assert await text(execution) == "{'port': 8080}"


async def test_another_client_that_attaches_is_told_what_is_allowed_and_refused_the_rest(served: Served) -> None:
    async with served.client() as client:
        session = await client.session(name="work")
        execution = session.start(DEPLOY, {}, allow_input=True, key="k")
        request = await asked(execution)
        await session.detach()
        async with served.client() as other:
            again = await other.attach("work")
            resumed = again.start(DEPLOY, {}, allow_input=True, key="k")
            assert await asked(resumed) == request
            with pytest.raises(SessionError) as caught:
                resumed.reply(request, '"maybe"')
            assert caught.value.message == ALLOWED
            resumed.reply(request, '"yes"')
            assert await text(resumed) == "'yes'"


async def test_the_node_refuses_what_a_client_sends_without_looking(served: Served) -> None:
    def work() -> str:
        with Raw(served.address) as raw:
            raw.greet()
            session = raw.open()
            raw.say("execute", {"code": DEPLOY, "allow_input": True}, session, "x_ask")
            while (message := raw.answer()).type != "input_request":
                assert message.type in {"ack", "status"}
            assert message.body["choices"] == ["yes", "no"]
            request = message.body["request"]
            for number, value in enumerate(('"maybe"', "yes", "[" * 60_000, "NaN")):
                raw.say("input_reply", {"request": request, "value": value}, session, "x_ask", f"m_{number}")
                refusal = raw.answer(f"m_{number}")
                assert (refusal.type, refusal.body["code"]) == ("error", "answer_refused"), value
            raw.say("input_reply", {"request": request, "value": '"yes"'}, session, "x_ask", "m_right")
            while (message := raw.answer()).type != "result":
                pass
            return str(message.body["data"]["text/plain"])

    async with asyncio.timeout(LONG):
        assert await asyncio.to_thread(work) == "'yes'"


@pytest.mark.parametrize(
    ("action", "expected"),
    [("reject", "EOFError: not today"), ("cancel", "InputCanceledError: not today")],
)
async def test_no_answer_is_told_with_its_reason(served: Served, action: Any, expected: str) -> None:
    async with served.client() as client:
        execution, request = await begin(client, HEARD)
        await client.settle_promise(request.promise, action, message="not today")
        assert await text(execution) == repr(expected)


async def test_a_time_that_the_code_gives_is_a_third_error(served: Served) -> None:
    code = DEPLOY.replace("])", "], timeout=0.3)")
    async with served.client() as client:
        execution, request = await begin(client, code, input_timeout=LONG)
        assert request.timeout == 0.3
        result = await execution.result()
        assert result.error is not None
        assert (result.error.name, result.error.code) == ("InputTimeoutError", "input_timeout")
        assert (await client.promise(request.promise)).state == "rejected_timedout"
        with pytest.raises(SessionError):  # a late one is not even looked at
            await client.settle_promise("exec:none:input:1", "resolve", "yes")
        assert not (await client.settle_promise(request.promise, "resolve", "yes")).decided


async def test_without_somebody_who_can_answer_it_is_the_end_at_once(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        result = await session.run(DEPLOY)
        assert result.error is not None
        assert (result.error.name, result.error.code) == ("EOFError", "no_input_client")
        assert await client.promises() == []


async def test_an_interrupt_ends_the_wait_and_cancels_the_promise(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start(f"kept = 1\n{DEPLOY}", {}, allow_input=True)
        request = await asked(execution)
        assert await session.interrupt()
        result = await execution.result()
        assert result.error is not None
        assert (result.verdict, result.error.name) == ("interrupted", "KeyboardInterrupt")
        assert (await client.promise(request.promise)).state == "rejected_canceled"
        assert (await session.run("kept")).text == "1"


async def test_the_clock_of_the_cell_stands_while_it_is_asked(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start(f"{DEPLOY} + capsule_ask()", {}, allow_input=True, timeout=1.5)
        request = await asked(execution)
        await asyncio.sleep(2)  # longer than the code may take
        await refused(client, request.promise, "maybe")
        await client.settle_promise(request.promise, "resolve", "yes")
        await client.settle_promise((await asked(execution)).promise, "resolve", "!")
        assert await text(execution) == "'yes!'"


async def test_after_a_restart_of_the_node_it_is_open_with_all_that_it_allows(place: Path) -> None:
    with Served(place / "node", linger=LONG) as first:
        async with first.client() as client:
            execution, request = await begin(client, f"[{PORT}, {DEPLOY}]")
            first.kill()
            first.process.wait(LONG)
            with Served(first.directory, linger=LONG) as second:
                async with second.client() as other, asyncio.timeout(LONG):
                    (waiting,) = [one for one in await other.promises() if one.kind == "input"]
                    assert waiting.id == request.promise
                    assert (await other.promise(waiting.id)).schema == request.schema
                    await refused(other, waiting.id, {"port": 70_000})
                    assert (await other.settle_promise(waiting.id, value={"port": 80})).decided
                    following = await asked(execution)
                    assert following.choices == ["yes", "no"]
                    await refused(other, following.promise, "maybe")
                    assert (await other.settle_promise(following.promise, value="no")).decided
                    assert await text(execution) == "[{'port': 80}, 'no']"
                assert second.stop() == 0


async def test_a_time_runs_on_while_there_is_no_node(place: Path) -> None:
    with Served(place / "node", linger=LONG) as first:
        async with first.client() as client:
            execution, request = await begin(client, DEPLOY.replace("])", "], timeout=0.5)"))
            first.kill()
            first.process.wait(LONG)
            await asyncio.sleep(1)  # it is over when the next node comes
            with Served(first.directory, linger=LONG) as second:
                async with asyncio.timeout(LONG):
                    result = await execution.result()
                assert result.error is not None
                assert result.error.code == "input_timeout"
                async with second.client() as other:
                    assert (await other.promise(request.promise)).state == "rejected_timedout"
                assert second.stop() == 0


FORGED = """
stdin = capsule_ask._stdin
stdin.ask({{'prompt': '? ', {0}}})
"""


@pytest.mark.parametrize(
    "field",
    [
        "'choices': []",
        "'json_schema': {'pattern': '(a*)*b'}",
        "'json_schema': {'$ref': 'https://example.org'}",
        "'json_schema': {'title': 'x' * 20_000}",
        "'json_schema': {'$defs': {'a': {'$ref': '#/$defs/a'}}}",
        "'timeout': 1e300",
    ],
)
async def test_a_question_that_no_honest_worker_asks_costs_the_worker_its_life(served: Served, field: str) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start(FORGED.format(field), {}, allow_input=True)
        async with asyncio.timeout(LONG):
            result = await execution.result()
        assert result.verdict == "worker_lost"
        assert [one for one in await client.promises() if one.kind == "input"] == []


async def test_an_answer_that_is_hard_to_check_holds_nobody_up(served: Served) -> None:
    code = "capsule_ask(schema={'items': {'anyOf': [*({'const': -n} for n in range(1, 600)), {}]}})"
    async with served.client() as client:
        execution, request = await begin(client, code)
        begun = time.monotonic()
        error = await refused(client, request.promise, list(range(10_000)))
        assert "takes too long to check" in error.message
        assert time.monotonic() - begun < LONG / 4
        await client.settle_promise(request.promise, value=[1, 2])
        assert await text(execution) == "[1, 2]"
