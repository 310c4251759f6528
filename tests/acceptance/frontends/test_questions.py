"""What a front end asks about code and its history: completions with their kinds, inputs of this session and others."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, AsyncClient, AsyncSession, CapsuleError
from capsule.client.answers import HistoryEntry

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

DEFINED = """
import os
class A:
    field = 1
    def method(self, a, b=2): pass
    @property
    def asked(self): raise SystemError('a property was asked')
    def __getattr__(self, name): raise SystemError('an attribute was asked')
a = A()
def function(x, /, y=1): pass
naïve = '😀'
"""
CELLS = ("a = 1", "b = 2", "%time pass", "a = 1", "a")


async def completed(session: AsyncSession, code: str) -> dict[str, tuple[str, str]]:
    """Type and signature of each completion at the end of the code."""
    found = await session.complete(code)
    entries: list[dict[str, Any]] = found.metadata["_jupyter_types_experimental"]
    assert [entry["text"] for entry in entries] == found.matches
    assert {(entry["start"], entry["end"]) for entry in entries} <= {(found.start, found.end)}
    return {entry["text"]: (entry["type"], entry["signature"]) for entry in entries}


def brief(entries: list[HistoryEntry]) -> list[tuple[int, int, str]]:
    return [(entry.session, entry.line, entry.source) for entry in entries]


async def run_all(session: AsyncSession, *cells: str) -> None:
    for cell in cells:
        assert (await session.run(cell)).ok


async def test_completions_tell_what_they_are_and_ask_no_object(session: AsyncSession) -> None:
    await run_all(session, DEFINED)
    members = await completed(session, "x = a.")
    assert members["method"] == ("function", "(a, b=2)")
    assert members["asked"] == ("property", "")
    assert members["field"] == ("instance", "")
    names = await completed(session, "f")
    assert names["function"] == ("function", "(x, /, y=1)")
    assert names["finally"] == ("keyword", "")
    assert names["float"][0] == "class"
    assert (await completed(session, "o"))["os"] == ("module", "")
    assert (await completed(session, "os.pa"))["path"] == ("module", "")
    assert (await completed(session, "%timei"))["%timeit"] == ("magic", "")
    assert (await completed(session, "function("))["y="] == ("param", "")


async def test_offsets_of_completions_count_characters(session: AsyncSession) -> None:
    await run_all(session, DEFINED)
    found = await session.complete("'😀'; naïve.upp")
    assert (found.matches, found.start, found.end) == (["upper"], 11, 14)


async def test_no_completion_has_the_range_of_the_cursor(session: AsyncSession) -> None:
    found = await session.complete("nothing_like_it")
    assert (found.matches, found.start, found.end) == ([], 15, 15)
    assert found.metadata["_jupyter_types_experimental"] == []


async def test_jedi_can_be_switched_on(anywhere: AsyncClient) -> None:
    async with anywhere.session(ipython=["--Completer.use_jedi=True"]) as session:
        assert (await session.run("get_ipython().Completer.use_jedi")).text == "True"
        assert "os" in await completed(session, "import o")  # jedi tells the types as far as it gets in a short time


async def test_history_has_the_number_of_its_session(session: AsyncSession) -> None:
    await run_all(session, *CELLS)
    assert brief(await session.history()) == [(1, line, cell) for line, cell in enumerate(CELLS, 1)]
    assert brief(await session.history(2)) == [(1, 4, "a = 1"), (1, 5, "a")]
    assert brief(await session.history(lines=(2, 4))) == [(1, 2, "b = 2"), (1, 3, "%time pass")]
    assert brief(await session.history(lines=(4, None))) == [(1, 4, "a = 1"), (1, 5, "a")]
    assert brief(await session.history(lines=(-1, None))) == [(1, 5, "a")]
    assert brief(await session.history(lines=(5, None), session=1)) == [(1, 5, "a")]
    assert await session.history(lines=(1, None), session=-1) == []
    assert await session.history(lines=(1, None), session=7) == []
    assert brief(await session.history(pattern="a*", unique=True)) == [(1, 4, "a = 1"), (1, 5, "a")]
    assert await session.history(lines=(5, 6), output=True) == [HistoryEntry(1, 5, "a", "1")]
    assert await session.history(1, output=True) == [HistoryEntry(1, 5, "a", "1")]


async def test_quiet_and_unstored_cells_are_in_no_history(session: AsyncSession) -> None:
    await session.run("1", quiet=True)
    await session.run("2", store_history=False)
    await session.run("3")
    assert brief(await session.history()) == [(1, 1, "3")]


async def test_a_history_file_has_the_inputs_of_earlier_sessions(anywhere: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    options = [f"--HistoryManager.hist_file={file}", "--HistoryManager.db_log_output=True"]
    async with anywhere.session(ipython=options) as first:
        await run_all(first, *CELLS)
        assert brief(await first.history(1)) == [(1, 5, "a")]
    with sqlite3.connect(file) as database:
        assert [row[0] for row in database.execute("SELECT source FROM history ORDER BY line")] == [
            "a = 1",
            "b = 2",
            "get_ipython().run_line_magic('time', 'pass')",
            "a = 1",
            "a",
        ]
    database.close()
    async with anywhere.session(ipython=options) as second:
        await run_all(second, "c = 3")
        assert brief(await second.history(2)) == [(1, 5, "a"), (2, 1, "c = 3")]
        assert brief(await second.history(lines=(1, None))) == [(2, 1, "c = 3")]
        assert brief(await second.history(lines=(1, 3), session=-1)) == [(1, 1, "a = 1"), (1, 2, "b = 2")]
        assert brief(await second.history(lines=(5, None), session=1)) == [(1, 5, "a")]
        assert brief(await second.history(pattern="?")) == [(1, 5, "a")]
        assert (await second.history(lines=(5, None), session=1, output=True))[0].output == "1"


async def test_no_history_is_written_unless_it_is_asked_for(anywhere: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    async with anywhere.session(ipython=["--HistoryManager.hist_file=:memory:"]) as session:
        await run_all(session, "a = 1")
        assert brief(await session.history()) == [(1, 1, "a = 1")]
        assert (await session.run("get_ipython().history_manager.hist_file")).text == "':memory:'"
    assert not file.exists()


async def test_a_locked_history_file_does_not_stop_the_session(anywhere: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    options = [f"--HistoryManager.hist_file={file}"]
    async with anywhere.session(ipython=options), anywhere.session(ipython=options) as session:
        database = sqlite3.connect(file, isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        try:
            await run_all(session, "a = 1")
            assert (await session.run("a")).text == "1"
            for question in ({}, {"pattern": "*"}, {"lines": (1, None), "session": -1}):
                with pytest.raises(CapsuleError, match="locked"):
                    await session.history(**question)
            with pytest.raises(ArgumentError, match="locked"):
                await anywhere.session(ipython=options)
        finally:
            database.execute("ROLLBACK")
            database.close()
        await run_all(session, "b = 2")
        assert (2, 3, "b = 2") in brief(await session.history())
        assert [path.name for path in tmp_path.iterdir()] == ["history.sqlite"]


async def test_ipython_is_configured_by_arguments(anywhere: AsyncClient) -> None:
    arguments = ["--InteractiveShell.ast_node_interactivity=all", "--ZMQInteractiveShell.autoawait=True"]
    async with anywhere.session(ipython=arguments) as session:
        result = await session.run("1\n2")
        assert (result.text, [display.data["text/plain"] for display in result.displays]) == ("2", ["1"])
        await session.restart()
        assert len((await session.run("1\n2")).displays) == 1
    async with anywhere.session() as session:
        assert (await session.run("1\n2")).displays == []


async def test_the_backend_of_figures_is_configured_too(anywhere: AsyncClient) -> None:
    async with anywhere.session(ipython=["--InlineBackend.figure_formats={'svg'}"]) as session:
        result = await session.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()")
        assert [sorted(display.data) for display in result.displays] == [["image/svg+xml", "text/plain"]]


async def test_the_formatters_of_ipython_can_be_configured(anywhere: AsyncClient) -> None:
    async with anywhere.session(ipython=["--PlainTextFormatter.float_precision=%.2f"]) as session:
        assert (await session.run("3.14159")).text == "3.14"


@pytest.mark.parametrize(
    "argument",
    [
        "--InlineBackend.nothing=1",
        "Completer.use_jedi=True",
        "--Completer.use_jedi",
        "--Nothing.at_all=1",
        "--Completer.nothing=1",
        "--InteractiveShell.ast_node_interactivity=some",
        "--InteractiveShell.colors=nothing",
        "--InteractiveShell.loop_runner=nowhere",
        "--HistoryManager.hist_file=/nowhere/history.sqlite",
    ],
)
async def test_what_ipython_does_not_have_is_refused(anywhere: AsyncClient, argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        await anywhere.session(ipython=[argument])
    assert caught.value.code == "invalid_argument"


async def test_the_processor_time_of_a_session_is_told_also_while_code_runs(session: AsyncSession) -> None:
    before = (await session.info()).cpu
    busy = (
        "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint('used', flush=True)"
    )
    events = session.stream(f"{busy}\ntime.sleep(1000)")
    while "used" not in getattr(await anext(events), "text", ""):
        pass
    after = await session.info()
    assert (after.state, round(after.cpu - before, 1) >= 0.2) == ("busy", True)
    await events.aclose()
