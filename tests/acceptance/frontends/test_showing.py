"""What a front end shows of a session: figures at the end of their cell, and displays that change later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, AsyncSession, Display, Event, Finished, Output
from capsule.comms import CommRequest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

LONG = 60.0
INLINE = "module://matplotlib_inline.backend_inline"


def shown(events: list[Event]) -> list[Any]:
    """Texts, and the kinds of what was displayed, in order."""
    parts: list[Any] = []
    for event in events:
        if isinstance(event, Output):
            parts.append(event.text)
        elif isinstance(event, Display):
            parts.append(sorted(event.data))
    return parts


@pytest.mark.parametrize("magic", ["", "%matplotlib inline\n"])
async def test_figures_are_shown_at_the_end_of_their_cell(session: AsyncSession, magic: str) -> None:
    told: list[Event] = []
    code = f"{magic}import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('behind')"
    result = await session.run(code, on_event=told.append)
    assert (result.verdict, result.stderr) == ("ok", "")
    assert shown(told) == ["behind\n", ["image/png", "text/plain"]]
    again = await session.run("print(plt.get_fignums())")
    assert (again.stdout, again.displays) == ("[]\n", [])


async def test_a_figure_is_shown_although_the_cell_fails(session: AsyncSession) -> None:
    result = await session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\n1 / 0")
    assert (result.verdict, [sorted(one.data) for one in result.displays]) == ("error", [["image/png", "text/plain"]])


async def test_who_takes_payloads_gets_a_value_or_an_error_before_the_figures_and_in_the_verdict(
    session: AsyncSession,
) -> None:
    told: list[Event] = []
    code = "import matplotlib.pyplot as plt\nplt.plot([1])\n{}"
    good = await session.run(code.format("42"), payloads=True, on_event=told.append)
    value, figure = good.displays
    assert (value.data, value.execution_count) == ({"text/plain": "42"}, good.execution_count)
    assert ("image/png" in figure.data, good.text) == (True, "42")
    bad = await session.run(code.format("1 / 0"), payloads=True, on_event=told.append)
    error, figure = bad.displays
    assert error.data["application/vnd.jupyter.error"]["ename"] == "ZeroDivisionError"
    assert bad.error is not None
    assert ("image/png" in figure.data, bad.error.name) == (True, "ZeroDivisionError")
    plain = await session.run(code.format("42"), on_event=told.append)
    assert (["image/png" in one.data for one in plain.displays], plain.text) == ([True], "42")
    assert [event.shown for event in told if isinstance(event, Finished)] == [True, True, False]


async def test_values_before_the_last_one_have_the_number_of_their_cell(session: AsyncSession) -> None:
    await session.run("get_ipython().ast_node_interactivity = 'all'")
    for payloads in (False, True):
        result = await session.run("1\n2\n3", payloads=payloads)
        values = [(one.data["text/plain"], one.execution_count) for one in result.displays]
        assert (values, result.text) == ([("1", result.execution_count), ("2", result.execution_count)], "3")
        failed = await session.run("4\n1 / 0", payloads=payloads)
        assert [one.data["text/plain"] for one in failed.displays] == ["4"]


async def test_what_code_says_of_a_display_that_is_not_to_be_kept_arrives(session: AsyncSession) -> None:
    code = (
        "from IPython.display import publish_display_data as publish\n"
        "publish({'text/plain': 'a'}, transient={'display_id': 'd', 'more': [1, b'x']})\n"
        "publish({'text/plain': 'b'}, transient={'display_id': 5})"
    )
    first, second = (await session.run(code)).displays
    assert (first.display_id, first.transient) == ("d", {"more": [1, "eA=="]})
    assert (second.display_id, second.transient) == ("5", {"display_id": 5})


async def test_a_figure_of_a_comm_handler_is_shown_at_its_end(session: AsyncSession) -> None:
    await session.run(
        "import matplotlib.pyplot as plt\nfrom comm import get_comm_manager\n"
        "def opened(comm, message): comm.on_msg(lambda message: plt.plot([1, 2]))\n"
        "get_comm_manager().register_target('plot', opened)"
    )
    await session.send_comm(CommRequest("open", "c1", target="plot"))
    drawn = await session.send_comm(CommRequest("message", "c1"))
    assert [sorted(one.data) for one in drawn.displays] == [["image/png", "text/plain"]]
    assert drawn.displays[0].execution_id == drawn.execution_id


async def test_the_format_of_figures_can_be_chosen(session: AsyncSession) -> None:
    code = "%config InlineBackend.figure_format = 'svg'\nimport matplotlib.pyplot as plt\nplt.plot([1])\nNone"
    (figure,) = (await session.run(code)).displays
    assert sorted(figure.data) == ["image/svg+xml", "text/plain"]


async def test_a_preloaded_matplotlib_shows_figures_too() -> None:
    environments = {"default": {"preload": ["matplotlib.pyplot"]}}
    async with AsyncClient(environments=environments) as client, client.session() as session:
        result = await session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nNone")
        assert [sorted(one.data) for one in result.displays] == [["image/png", "text/plain"]]


async def test_warmup_code_does_what_a_profile_would(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("from_file = 42")
    lines = (
        "%load_ext autoreload",
        "%config InlineBackend.figure_formats = ['svg']",
        f"%run -i {tmp_path / 'first.py'}",
        "get_ipython().ast_node_interactivity = 'all'",
    )
    async with (
        AsyncClient(environments={"default": {"warmup": "\n".join(lines)}}) as client,
        client.session() as session,
    ):
        found = await session.run("from_file\nget_ipython().extension_manager.loaded")
        assert [display.data["text/plain"] for display in found.displays] == ["42"]
        assert found.text == "{'IPython.extensions.autoreload'}"
        shown = await session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        assert [sorted(one.data) for one in shown.displays] == [["image/svg+xml", "text/plain"]]


async def test_variables_are_added_to_those_of_a_notebook(anywhere: AsyncClient) -> None:
    seen = "import os; [os.environ.get(name) for name in ('MPLBACKEND', 'MINE', 'PAGER')]"
    async with anywhere.session(env={"MINE": "1"}) as session:
        assert (await session.run(seen)).text == repr([INLINE, "1", "cat"])
    async with anywhere.session(env={"MPLBACKEND": "agg"}) as session:
        assert (await session.run(seen)).text == repr(["agg", None, "cat"])
        assert (await session.run("import matplotlib\nmatplotlib.get_backend()")).text == "'agg'"


async def test_a_later_cell_changes_a_display(session: AsyncSession) -> None:
    first = await session.run("from IPython.display import display\nhandle = display('a', display_id=True)\nNone")
    second = await session.run("handle.update('b')")
    (made,), (changed,) = first.displays, second.displays
    assert (made.update, changed.update) == (False, True)
    assert made.display_id == changed.display_id is not None
    assert (changed.data, changed.execution_id) == ({"text/plain": "'b'"}, second.execution_id)


async def test_a_thread_changes_a_display_later(anywhere: AsyncClient) -> None:
    late: asyncio.Queue[Event] = asyncio.Queue()
    async with anywhere.session(on_background=late.put_nowait) as session:
        started = await session.run(
            "import threading\nfrom IPython.display import display\nhandle = display('a', display_id='d1')\n"
            "go = threading.Event()\nthreading.Thread(target=lambda: go.wait() and handle.update('b')).start()"
        )
        await session.run("go.set()")
        changed = await asyncio.wait_for(late.get(), LONG)
    assert changed == Display(started.execution_id, 0, {"text/plain": "'b'"}, {}, "d1", update=True)


async def test_cleared_output_waits_for_what_comes_next(session: AsyncSession) -> None:
    told: list[Event] = []
    code = "from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')"
    result = await session.run(code, on_event=told.append)
    assert [type(event).__name__ for event in told] == ["Started", "Output", "ClearOutput", "Output", "Finished"]
    assert isinstance(told[-1], Finished)
    assert result.stdout == "b\n"


RUNS = """
import sys, threading
def opened(comm, message):
    exec(message["content"]["data"]["code"])
get_ipython().kernel.comm_manager.register_target("runs", opened)
"""


def values(displays: list[Display]) -> list[tuple[str, int]]:
    """What was shown, with its number."""
    return [(one.data["text/plain"], one.execution_count) for one in displays]


@pytest.mark.parametrize("payloads", [False, True])
async def test_what_is_said_on_a_comm_shows_its_values_and_not_that_of_the_last_cell(
    session: AsyncSession, *, payloads: bool
) -> None:
    await session.run(RUNS)
    last = await session.run("1 + 1", payloads=payloads)
    asked = CommRequest("open", "c1", {"code": "get_ipython().run_cell('40 + 2'); sys.displayhook(43)"}, target="runs")
    said = await session.send_comm(asked)
    count = last.execution_count
    assert (last.text, values(said.displays), said.text) == ("2", [("42", count), ("43", count)], "")


@pytest.mark.parametrize("payloads", [False, True])
async def test_a_thread_shows_its_values_when_its_cell_is_over(anywhere: AsyncClient, *, payloads: bool) -> None:
    late: asyncio.Queue[Event] = asyncio.Queue()
    async with anywhere.session(on_background=late.put_nowait) as session:
        code = (
            "import sys, threading\ngo = threading.Event()\n"
            "threading.Thread(target=lambda: go.wait() and sys.displayhook(3)).start(); 77"
        )
        started = await session.run(code, payloads=payloads)
        await session.run("go.set()", payloads=payloads)
        shown = await asyncio.wait_for(late.get(), LONG)
        assert isinstance(shown, Display)
    assert (started.text, shown.execution_id, shown.data) == ("77", started.execution_id, {"text/plain": "3"})


@pytest.mark.parametrize("payloads", [False, True])
@pytest.mark.parametrize("event", ["post_execute", "post_run_cell"])
async def test_the_value_of_a_callback_is_shown_and_not_taken_for_that_of_the_cell(
    session: AsyncSession, event: str, *, payloads: bool
) -> None:
    await session.run(f"import sys\nget_ipython().events.register({event!r}, lambda *_: sys.displayhook(99))")
    result = await session.run("12", payloads=payloads)
    shown = [text for text, _ in values(result.displays)]
    assert (result.text, shown) == ("12", ["12", "99"] if payloads else ["99"])


async def test_the_value_is_shown_though_a_user_expression_is_interrupted(session: AsyncSession) -> None:
    def interrupt(event: Event) -> None:
        if "reached" in getattr(event, "text", ""):
            session.own(_interrupt(session))

    forever = "print('reached', flush=True) or [None for _ in iter(int, 1)]"
    result = await session.run("12", payloads=True, user_expressions={"a": forever}, on_event=interrupt)
    assert (result.verdict, [text for text, _ in values(result.displays)]) == ("interrupted", ["12"])


async def _interrupt(session: AsyncSession) -> None:
    await session.interrupt()
