"""What a front end asks of an execution, and what the verdict tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError, AsyncSession, Event, Finished, Result
from capsule.events import Started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
LONG = 60.0


async def counts(session: AsyncSession, code: str, *, quiet: bool = False, store: bool = True) -> tuple[int, int]:
    """The number that the start tells, and that of the verdict."""
    told: list[Event] = []
    await session.run(code, quiet=quiet, store_history=store, on_event=told.append)
    started, finished = told[0], told[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    return started.execution_count, finished.execution_count


def page(result: Result) -> str:
    (payload,) = result.payload
    assert (payload["source"], payload["start"]) == ("page", 0)
    return str(payload["data"]["text/plain"])


async def test_the_start_tells_the_number_that_the_verdict_has(session: AsyncSession) -> None:
    assert await counts(session, "1") == (1, 1)
    assert await counts(session, "1 / 0") == (2, 2)
    assert await counts(session, "1", quiet=True) == (3, 3)
    assert await counts(session, "1", store=False) == (3, 3)
    assert await counts(session, "1") == (3, 3)
    await session.restart()
    assert await counts(session, "1") == (1, 1)


async def test_the_start_tells_the_number_of_pipelined_and_cancelled_executions_too(
    session: AsyncSession, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.001)"
    handles = [session.submit(code, stop_on_error=True) for code in (waits, "1 / 0", "2", "3")]
    await handles[-1].accepted(LONG)  # else the error might be there first
    go.touch()
    results = [await handle.result() for handle in handles]
    assert [result.verdict for result in results] == ["ok", "error", "interrupted", "interrupted"]
    assert [result.execution_count for result in results] == [1, 2, 0, 0]
    assert await counts(session, "4") == (3, 3)


async def test_what_prints_before_the_verdict_before_it_has_come_has_its_own_number(session: AsyncSession) -> None:
    codes = [("print(1)\n1", False), ("print(2)", False), ("print(3)", True)] * 2
    for _ in range(20):
        handles = [session.submit(code, quiet=quiet) for code, quiet in codes]
        for handle in handles:
            told = [event async for event in handle.events()]
            assert isinstance(told[0], Started)
            assert isinstance(told[-1], Finished)
            assert told[0].execution_count == told[-1].execution_count


async def test_user_expressions_are_evaluated_behind_the_code(session: AsyncSession) -> None:
    expressions = {"sum": "x + 1", "broken": "1 / 0", "ends": "exit()", "shown": "Shown()", "": "x"}
    code = "x = 41\nclass Shown:\n    def _repr_html_(self): return '<b>x</b>'\n    def __repr__(self): return 'x'"
    result = await session.run(code, user_expressions=expressions)
    assert result.verdict == "ok"
    found = result.user_expressions
    assert found["sum"] == {"status": "ok", "data": {"text/plain": "42"}, "metadata": {}}
    assert found["shown"]["data"] == {"text/plain": "x", "text/html": "<b>x</b>"}
    assert found[""]["data"] == {"text/plain": "41"}
    assert (found["broken"]["status"], found["broken"]["ename"]) == ("error", "ZeroDivisionError")
    assert found["broken"]["evalue"] == "division by zero"
    assert "ZeroDivisionError" in "\n".join(found["broken"]["traceback"])
    assert found["ends"]["ename"] == "SystemExit"


async def test_what_user_expressions_print_comes_before_the_verdict(session: AsyncSession) -> None:
    result = await session.run("print('code')", user_expressions={"a": "print('expression')"})
    assert (result.stdout, result.user_expressions["a"]["status"]) == ("code\nexpression\n", "ok")


async def test_after_an_error_no_expression_is_evaluated(session: AsyncSession) -> None:
    result = await session.run("1 / 0", user_expressions={"a": "print('expression')"})
    assert (result.verdict, result.user_expressions, result.stdout) == ("error", {}, "")


async def test_a_user_expression_can_be_interrupted(session: AsyncSession) -> None:
    def interrupt(event: Event) -> None:
        if "reached" in getattr(event, "text", ""):
            session.own(_interrupt(session))

    forever = "print('reached', flush=True) or [None for _ in iter(int, 1)]"
    result = await session.run("x = 1", user_expressions={"a": forever}, on_event=interrupt)
    assert result.verdict == "interrupted"
    assert (await session.run("x")).text == "1"


async def _interrupt(session: AsyncSession) -> None:
    await session.interrupt()


async def test_a_pager_shows_its_text_in_the_verdict(session: AsyncSession) -> None:
    await session.run("def f(a):\n    '''What f does.'''\n    return a  # the body")
    result = await session.run("f?", payloads=True)
    assert "What f does." in page(result)
    assert (result.stdout, result.text) == ("", "")
    assert "the body" in page(await session.run("f??", payloads=True))
    printed = await session.run("f?")
    assert ("What f does." in printed.stdout, printed.payload) == (True, [])


async def test_a_file_is_shown_in_the_pager(session: AsyncSession, tmp_path: Path) -> None:
    file = tmp_path / "a file.txt"
    file.write_text("its text\n")
    for magic in ("less", "more"):
        assert page(await session.run(f"%{magic} '{file}'", payloads=True)) == "its text\n"
    failed = await session.run("%less", payloads=True)
    assert failed.error is not None
    assert (failed.error.name, failed.payload) == ("UsageError", [])


async def test_the_next_input_is_told_also_after_an_error(session: AsyncSession, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("x = 1\n")
    result = await session.run(f"%load {script}\n1 / 0", payloads=True)
    assert result.verdict == "error"
    (payload,) = result.payload
    assert (payload["source"], payload["replace"]) == ("set_next_input", True)
    assert payload["text"].endswith("x = 1\n")
    assert (await session.run("1", payloads=True)).payload == []


@pytest.mark.parametrize(("code", "kept"), [("exit", False), ("quit()", False), ("exit(keep_kernel=True)", True)])
async def test_an_exit_is_told_and_the_session_lives(session: AsyncSession, code: str, kept: bool) -> None:
    result = await session.run(code, payloads=True)
    assert (result.verdict, result.payload) == ("ok", [{"source": "ask_exit", "keepkernel": kept}])
    ended = await session.run(code)
    assert ended.error is not None
    assert (ended.verdict, ended.error.name, ended.error.details) == ("error", "SystemExit", {"exit_code": 0})
    assert (await session.run("1")).text == "1"


@pytest.mark.parametrize(
    ("expressions", "complaint"),
    [
        ("x", "must be a dict"),
        ({"a": 1}, "which is no text"),
        ({1: "a"}, "which is no text"),
        ({"a": "\ud800"}, "cannot be encoded"),
        ({str(number): "1" for number in range(1001)}, "must be a dict"),
        ({"a": "x" * 2**24}, "bytes"),
    ],
)
async def test_what_are_no_expressions_is_refused(session: AsyncSession, expressions: object, complaint: str) -> None:
    with pytest.raises(ArgumentError, match=complaint) as caught:
        await session.run("1", user_expressions=expressions)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_argument"
    with pytest.raises(ArgumentError):
        await session.run("1", payloads=1)  # type: ignore[arg-type]
    assert (await session.run("1")).execution_count == 1


async def test_what_is_to_be_edited_is_told_to_a_front_end_that_wants_it(session: AsyncSession, tmp_path: Path) -> None:
    path = tmp_path / "tool.py"
    path.write_text("x = 1\n")
    for magic in ("edit", "ed"):
        result = await session.run(f"%{magic} -n 3 {path}", payloads=True)
        assert result.payload == [{"source": "edit_magic", "filename": str(path), "line_number": "3"}]
    await session.run("def f():\n    return 5")
    (told,) = (await session.run("%edit f", payloads=True)).payload
    assert (await session.run(f"open({told['filename']!r}).read()")).text == repr("def f():\n    return 5")
    refused = await session.run(f"%edit {path}")
    assert refused.error is not None
    assert (refused.error.name, "front end" in refused.error.message) == ("UsageError", True)
