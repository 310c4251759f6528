"""Test scripts of the standard library, their own source run as cells, find nothing wrong with a session."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

SCRIPTS = [
    "test_asyncgen",
    "test_base64",
    "test_bisect",
    "test_collections",
    "test_coroutines",
    "test_csv",
    "test_difflib",
    "test_enum",
    "test_fractions",
    "test_functools",
    "test_generators",
    "test_graphlib",
    "test_heapq",
    "test_shlex",
    "test_string",
    "test_struct",
    "test_textwrap",
]

LIMIT = 90.0

SKIPPED = {
    # A script that is run as `__main__` instead of being imported as `test_enum` fails this one in any interpreter.
    "test_enum": {"test_global_enum_str"},
}


def script(name: str) -> Path:
    """Where the script is."""
    try:
        spec = importlib.util.find_spec(f"test.{name}")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        pytest.skip(f"this interpreter comes without test.{name}")
    return Path(spec.origin)


def source_of(name: str) -> str:
    """The script without its last statement, the call of `unittest.main`."""
    source = script(name).read_text()
    last = ast.parse(source).body[-1]
    assert isinstance(last, ast.If), f"{name} does not end in a call of unittest.main"
    return "".join(source.splitlines(keepends=True)[: last.lineno - 1])


FILE = '__file__ = __import__("sys")._getframe().f_code.co_filename\n'
"""A cell has no `__file__`, and some scripts look at their own."""

RUN = """
import sys, unittest
loader = unittest.TestLoader()
suite = loader.loadTestsFromModule(sys.modules["__main__"])
outcome = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(suite)
failed = [(test, trace) for test, trace in outcome.failures + outcome.errors if test._testMethodName not in SKIPPED]
problems = [str(test) + trace for test, trace in failed]
print(*problems, sep="\\n")
outcome.testsRun, len(problems)
"""


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_script_of_the_standard_library_passes_as_cells(session: AsyncSession, name: str) -> None:
    async with asyncio.timeout(LIMIT):
        await session.run(f"import os; os.chdir({str(script(name).parent)!r})")  # some read files beside them
        defined = await session.run(FILE + source_of(name))
        assert defined.verdict == "ok", defined.error
        result = await session.run(RUN.replace("SKIPPED", repr(SKIPPED.get(name, set()))))
    assert result.verdict == "ok", result.error
    count, problems = (int(number) for number in result.text.strip("()").split(","))
    assert problems == 0, result.stdout
    assert count >= 5
