"""What a cell's last expression is worth, and that both executors agree on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import cell, ok

if TYPE_CHECKING:
    from capsule import AsyncSession

SOURCES = {
    "a value": ("6 * 7", "42"),
    "a name assigned above": ("x = 1\nx", "1"),
    "none": ("None", ""),
    "no expression": ("x = 1", ""),
    "a semicolon hides it": ("x = 1\nx;", ""),
    "a comment follows": ("'a'  # the last\n# word", "'a'"),
    "a compound statement": ("for i in range(3):\n    i", ""),
    "a function defined and called": ("def double(n):\n    return 2 * n\n\ndouble(4)", "8"),
    "a generator expression": ("sum(n for n in range(4))", "6"),
    "a walrus": ("(y := 5)", "5"),
    "many lines": ("(\n1\n+\n2\n)", "3"),
    "a class": ("class A:\n    n = 3\n\nA.n", "3"),
    "a decorator and a lambda": ("f = lambda n: n + 1\nf(f(0))", "2"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", SOURCES)
async def test_both_executors_give_the_same_answer(session: AsyncSession, name: str) -> None:
    """The second cell differs by a top-level await alone, which makes it run on the event loop."""
    source, text = SOURCES[name]
    synchronous = await ok(session, source)
    asynchronous = await ok(session, "import asyncio\nawait asyncio.sleep(0)\n" + source)
    assert synchronous.text == asynchronous.text == text
    assert synchronous.stdout == asynchronous.stdout == ""


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"], ids=["threaded", "async"])
async def test_a_trailing_expression_is_evaluated_exactly_once(session: AsyncSession, before: str) -> None:
    code = """
        calls = []
        def call():
            calls.append(len(calls) + 1)
            print("called")
            return len(calls)
        call()
        call()
    """
    result = await ok(session, before + cell(code))
    assert (result.text, result.stdout) == ("2", "called\ncalled\n")
    assert (await ok(session, "calls")).text == "[1, 2]"


@pytest.mark.anyio
async def test_a_cell_may_define_await_and_end_in_an_expression(session: AsyncSession) -> None:
    code = """
        import asyncio
        async def late(n):
            await asyncio.sleep(0)
            return n
        a = await late(1)
        b = [await late(n) for n in (2, 3)]
        async with asyncio.timeout(60):
            c = await late(4)
        a, b, c
    """
    assert (await ok(session, code)).text == "(1, [2, 3], 4)"
    assert (await ok(session, "a, b, c")).text == "(1, [2, 3], 4)"


@pytest.mark.anyio
async def test_a_trailing_await_is_the_value(session: AsyncSession) -> None:
    assert (await ok(session, "import asyncio\nawait asyncio.sleep(0, 'late')")).text == "'late'"


@pytest.mark.anyio
async def test_both_executors_share_one_namespace(session: AsyncSession) -> None:
    await ok(session, "import asyncio\nhere = globals()\nn = 1")
    await ok(session, "await asyncio.sleep(0)\nn += 1\nsame = globals() is here")
    assert (await ok(session, "n, same, globals() is here")).text == "(2, True, True)"


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"], ids=["threaded", "async"])
async def test_an_error_ends_the_cell_where_it_happens(session: AsyncSession, before: str) -> None:
    result = await session.run(before + "done = 1\n1 / 0\ndone = 2\ndone")
    assert result.verdict == "error"
    assert result.error is not None
    assert (result.error.name, result.error.message) == ("ZeroDivisionError", "division by zero")
    assert result.text == ""
    assert (await ok(session, "done")).text == "1"


@pytest.mark.anyio
async def test_engine_names_count_the_cells_of_both_executors(session: AsyncSession) -> None:
    await ok(session, "'first'")
    await ok(session, "import asyncio\nawait asyncio.sleep(0, 'second')")
    result = await ok(session, "_, __, Out[1], Out[2], In[1], len(In)")
    assert result.text == repr(("second", "first", "first", "second", "'first'", 4))
    assert result.execution_count == 3
