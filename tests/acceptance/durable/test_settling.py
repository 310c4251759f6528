"""Whoever may do so sees what waits at a service, and answers it from elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient, Client, SessionError
from capsule_protocol.errors import ArgumentError, CapsuleError
from tests.acceptance.durable.test_questions import asked
from tests.acceptance.operators.support import answer, capsule, runs
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

HEARD = """
try:
    heard = input('Deploy? ')
except Exception as error:
    heard = f'{type(error).__name__}: {error}'
heard
"""


@pytest.fixture
async def served(place: Path) -> AsyncIterator[Served]:
    with Served(place / "node") as node:
        yield node


async def test_a_question_is_listed_and_answered_from_elsewhere_and_only_once(served: Served) -> None:
    async with served.client() as client, served.client() as other:
        session = await client.session()
        execution = session.start(HEARD, {}, allow_input=True)
        request = await asked(execution)
        found = {one.kind: one for one in await other.promises()}
        assert found.keys() == {"execute", "input"}
        question = found["input"]
        assert (question.id, question.prompt, question.state) == (request.promise, "Deploy? ", "pending")
        assert (question.session, question.execution) == (session.id, execution.execution_id)
        first = await other.settle_promise(request.promise, "resolve", "yes")
        again = await other.settle_promise(request.promise, "reject", message="no")
        assert (first.decided, first.promise.state, first.promise.value) == (True, "resolved", "yes")
        assert (again.decided, again.promise) == (False, first.promise)
        assert (await execution.result()).text == "'yes'"
        assert await other.promises() == []
        assert await other.promise(request.promise) == first.promise


@pytest.mark.parametrize(
    ("action", "expected"),
    [("reject", "EOFError: not today"), ("cancel", "InputCanceledError: not today")],
)
async def test_no_answer_is_told_with_its_reason(served: Served, action: str, expected: str) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start(HEARD, {}, allow_input=True)
        request = await asked(execution)
        done = await capsule("promises", action, request.promise, "--message", "not today", "--address", served.address)
        assert done.returncode == 0, done
        assert (await execution.result()).text == repr(expected)


async def test_cancellation_is_an_error_of_its_own(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start("input()", {}, allow_input=True)
        await client.settle_promise((await asked(execution)).promise, "cancel")
        result = await execution.result()
        assert result.error is not None
        assert (result.error.name, result.error.code) == ("InputCanceledError", "input_canceled")


async def test_an_execution_can_be_canceled_and_nothing_else(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.submit("while True: pass")
        await runs(execution)
        (promise,) = await client.promises()
        with pytest.raises(ArgumentError):
            await client.settle_promise(promise.id, "resolve", "42")
        settled = await client.settle_promise(promise.id, "cancel")
        assert settled.decided
        assert (await execution.result()).verdict == "interrupted"
        again = await client.settle_promise(promise.id, "cancel")
        assert (again.decided, again.promise.state) == (False, "rejected_canceled")


async def test_an_answer_that_is_none_is_refused_and_the_question_stays_open(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start(HEARD, {}, allow_input=True)
        request = await asked(execution)
        for wrong in (42, None, "x" * 70_000):
            with pytest.raises(SessionError) as caught:
                await client.settle_promise(request.promise, "resolve", wrong)
            assert caught.value.code == "answer_refused"
        assert (await client.promise(request.promise)).state == "pending"
        await client.settle_promise(request.promise, "resolve", "yes")
        assert (await execution.result()).text == "'yes'"


async def test_the_commands(served: Served) -> None:
    at = ("--address", served.address)
    async with served.client() as client:
        session = await client.session()
        execution = session.start("import getpass\ninput('Deploy? '), len(getpass.getpass())", {}, allow_input=True)
        request = await asked(execution)
        listed = (await answer("promises", "list", *at))["promises"]
        assert [one["prompt"] for one in listed if one["id"] == request.promise] == ["Deploy? "]
        table = (await capsule("promises", "list", *at)).stdout.decode()
        assert table.split()[:4] == ["ID", "KIND", "SESSION", "OWNER"]
        assert request.promise in table
        settled = await answer("promises", "resolve", request.promise, "yes", *at)
        assert (settled["decided"], settled["promise"]["value"]) == (True, "yes")
        assert (await capsule("promises", "resolve", request.promise, "no", *at)).stdout == b"resolved before\n"
        shown = (await capsule("promises", "show", request.promise, *at)).stdout.decode()
        assert "yes" in shown
        password = await asked(execution)
        done = await capsule("promises", "resolve", password.promise, "-", "--json", *at, stdin=b"s3cret\n")
        assert b"s3cret" not in done.stdout
        assert json.loads(done.stdout)["promise"]["password"] is True
        assert (await execution.result()).text == "('yes', 6)"
        unknown = await capsule("promises", "show", "exec:nothing", "--json", *at)
        assert (unknown.returncode, json.loads(unknown.stdout)["error"]["code"]) == (3, "promise_unknown")


async def test_the_synchronous_client_can_do_it_too(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        execution = session.start(HEARD, {}, allow_input=True)
        request = await asked(execution)

        def settle() -> None:
            with Client(served.address) as other:
                assert other.promise(request.promise) in other.promises()
                assert other.settle_promise(request.promise, value="yes").decided

        async with asyncio.timeout(LONG):
            await asyncio.to_thread(settle)
        assert (await execution.result()).text == "'yes'"


async def test_a_node_that_writes_nothing_down_has_no_promises(place: Path) -> None:
    with Served(place / "node", '[store]\ndurability = "none"\n') as served:
        async with served.client() as client:
            with pytest.raises(CapsuleError) as caught:
                await client.promises()
            assert caught.value.code == "unsupported"


async def test_in_library_mode_there_are_none() -> None:
    async with AsyncClient() as client:
        with pytest.raises(ArgumentError):
            await client.settle_promise("exec:x", "cancel")
