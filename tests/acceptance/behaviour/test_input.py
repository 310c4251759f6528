"""`input()` asks the client, or ends at once where nobody answers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import HANG, cell, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession
    from capsule.events import InputRequest


@pytest.mark.anyio
@pytest.mark.parametrize("ask", ["input('name? ')", "import getpass; getpass.getpass('secret? ')"])
async def test_without_a_client_that_answers_it_is_eof_at_once(session: AsyncSession, ask: str) -> None:
    begun = time.monotonic()
    result = await run(session, ask)
    assert result.verdict == "error"
    assert result.error is not None
    assert result.error.name == "EOFError"
    assert time.monotonic() - begun < 10
    await still_well(session)


@pytest.mark.anyio
async def test_code_can_catch_the_eof(session: AsyncSession) -> None:
    result = await ok(session, "try: input()\nexcept EOFError: answer = 'nobody'\nanswer")
    assert result.text == "'nobody'"


@pytest.mark.anyio
async def test_reading_stdin_itself_is_at_its_end(session: AsyncSession) -> None:
    """Neither a read of descriptor 0 nor a child that reads may wait for ever."""
    result = await ok(
        session, "import os, subprocess\nos.read(0, 10), subprocess.run(['cat'], capture_output=True).stdout"
    )
    assert result.text == "(b'', b'')"


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"], ids=["threaded", "async"])
async def test_the_answer_arrives(session: AsyncSession, before: str) -> None:
    asked: list[InputRequest] = []

    def answer(request: InputRequest) -> str:
        asked.append(request)
        return f"answer {len(asked)}"

    code = before + "a = input('first? ')\nprint('between')\nb = input('second? ')\na, b"
    result = await ok(session, code, on_input=answer)
    assert result.text == "('answer 1', 'answer 2')"
    assert [(request.prompt, request.password) for request in asked] == [("first? ", False), ("second? ", False)]
    assert "between\n" in result.stdout


@pytest.mark.anyio
async def test_an_asynchronous_answer_arrives(session: AsyncSession) -> None:
    async def answer(request: InputRequest) -> str:
        await asyncio.sleep(0)
        return "späte Antwort 😀"

    assert (await ok(session, "input()", on_input=answer)).text == "'späte Antwort 😀'"


@pytest.mark.anyio
async def test_a_password_is_asked_for_as_such_and_shown_nowhere(session: AsyncSession) -> None:
    asked: list[InputRequest] = []

    def answer(request: InputRequest) -> str:
        asked.append(request)
        return "s3cret"

    result = await ok(session, "import getpass\nlen(getpass.getpass('pw: '))", on_input=answer)
    assert result.text == "6"
    assert [(request.prompt, request.password) for request in asked] == [("pw: ", True)]
    assert "s3cret" not in result.stdout + result.stderr


@pytest.mark.anyio
async def test_what_was_printed_before_a_question_arrives_before_it(session: AsyncSession) -> None:
    order: list[str] = []
    result = await ok(
        session,
        "print('before')\nimport os; os.write(1, b'raw\\n'); x = input()",
        on_event=lambda event: order.append(getattr(event, "text", "") or type(event).__name__),
        on_input=lambda _: "x",
    )
    assert result.verdict == "ok"
    assert "".join(order[: order.index("InputRequest")]).endswith("before\nraw\n")


@pytest.mark.anyio
async def test_a_question_in_a_thread_is_answered(session: AsyncSession) -> None:
    code = """
        import threading
        got = []
        t = threading.Thread(target=lambda: got.append(input("in a thread? ")))
        t.start(); t.join()
        got
    """
    assert (await ok(session, code, on_input=lambda _: "yes")).text == "['yes']"


@pytest.mark.anyio
async def test_a_question_that_is_open_at_the_end_of_the_cell_is_eof(session: AsyncSession) -> None:
    """Its thread does not wait for ever."""
    asked = asyncio.Event()

    async def never(request: InputRequest) -> str:
        asked.set()
        return str(await asyncio.get_running_loop().create_future())

    code = """
        import asyncio, threading
        got = []
        def ask():
            try: got.append(input("in a thread? "))
            except EOFError as error: got.append(type(error).__name__)
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        await asyncio.Event().wait()
    """
    running = asyncio.ensure_future(run(session, code, on_input=never))
    async with asyncio.timeout(HANG):
        await asked.wait()
    assert await session.interrupt()
    assert (await running).verdict == "interrupted"
    assert (await ok(session, f"thread.join({HANG})\ngot")).text == "['EOFError']"


@pytest.mark.anyio
async def test_a_timeout_of_the_answer_is_its_own_error(client: AsyncClient) -> None:
    async def never(request: InputRequest) -> str:
        return str(await asyncio.get_running_loop().create_future())

    async with client.session(input_timeout=0.2) as session:
        result = await run(session, "kept = 1\ninput()", on_input=never)
        assert result.verdict == "error"
        assert result.error is not None
        assert "input_timeout" in (result.error.code, getattr(result.error, "message", "")) or (
            result.error.name == "TimeoutError"
        )
        assert result.error.name != "EOFError"
        assert (await ok(session, "kept")).text == "1"


@pytest.mark.anyio
async def test_an_answer_that_raises_is_eof_to_the_code_and_reaches_the_caller(session: AsyncSession) -> None:
    def broken(request: InputRequest) -> str:
        raise LookupError("no answer here")

    code = "try: input()\nexcept EOFError: seen = True"
    with pytest.raises(LookupError, match="no answer here"):
        await run(session, code, on_input=broken)
    assert (await ok(session, "seen")).text == "True"


@pytest.mark.anyio
async def test_pdb_asks_the_client(session: AsyncSession) -> None:
    answers = iter(["p n + 1", "c"])
    code = """
        def f(n):
            breakpoint()
            return n
        f(41)
    """
    result = await ok(session, cell(code), on_input=lambda _: next(answers))
    assert "42" in result.stdout
    assert result.text == "41"


@pytest.mark.anyio
async def test_the_time_that_somebody_takes_to_answer_does_not_count_for_the_code(session: AsyncSession) -> None:
    async def slowly(request: InputRequest) -> str:
        await asyncio.sleep(2)  # longer than the code may take
        return "at last"

    result = await ok(session, "input() + ', ' + input()", on_input=slowly, timeout=1.5)
    assert result.text == "'at last, at last'"


@pytest.mark.anyio
async def test_after_the_answer_the_time_of_the_code_goes_on(session: AsyncSession) -> None:
    result = await run(session, "input()\nwhile True: pass", on_input=lambda _: "x", timeout=1.5)
    assert result.verdict == "timeout"


IN_A_THREAD = """
import threading
asked = threading.Event()
def ask():
    asked.set()
    input("in a thread? ")
threading.Thread(target=ask, daemon=True).start()
"""


@pytest.mark.anyio
async def test_while_only_a_thread_waits_the_time_of_the_code_goes_on(session: AsyncSession) -> None:
    """It stood still for ever, and so the code never ended."""

    async def never(request: InputRequest) -> str:
        return str(await asyncio.get_running_loop().create_future())

    async with asyncio.timeout(HANG):
        result = await run(session, f"{IN_A_THREAD}\nwhile True: pass", on_input=never, timeout=1.5)
    assert result.verdict == "timeout"


@pytest.mark.anyio
async def test_while_a_thread_waits_too_the_time_of_the_answer_does_not_count(session: AsyncSession) -> None:
    async def slowly(request: InputRequest) -> str:
        if request.prompt:
            return str(await asyncio.get_running_loop().create_future())
        await asyncio.sleep(2)  # longer than the code may take
        return "at last"

    assert (await ok(session, f"{IN_A_THREAD}\ninput()", on_input=slowly, timeout=1.5)).text == "'at last'"
