"""Subshells as any client may ask for them: in this process, and of a service that writes all down or nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from capsule.comms import CommRequest
from capsule.events import Display, Event, Finished, InputRequest, Output, Started, Status
from capsule.node.execution import ExecuteRequest
from capsule_protocol.errors import CapsuleError
from tests.acceptance.serve.support import Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule import AsyncClient, AsyncSession
    from capsule.client.inner import AnyExecution, AnySession

pytestmark = pytest.mark.anyio
LONG = 60.0
RUNS = """
def opened(comm, message):
    exec(message["content"]["data"]["code"])
get_ipython().kernel.comm_manager.register_target("runs", opened)
"""


@pytest.fixture
def inner(session: AsyncSession) -> AnySession:
    return session._inner


@pytest.fixture
async def subshell(inner: AnySession) -> AsyncIterator[str]:
    name = (await inner.ask("subshell", {"action": "open"}))["subshell"]
    yield name
    await inner.ask("subshell", {"action": "close", "subshell": name})


async def rest(execution: AnyExecution) -> list[Event]:
    """All events that are left."""
    told: list[Event] = []
    with anyio.fail_after(LONG):
        while not told or not isinstance(told[-1], Finished):
            told.append(await execution.next_event())
    return told


async def verdict(execution: AnyExecution) -> Finished:
    last = (await rest(execution))[-1]
    assert isinstance(last, Finished)
    return last


async def run(inner: AnySession, code: str, **options: Any) -> Finished:
    return await verdict(inner.submit(ExecuteRequest(code, **options)))


async def test_code_runs_beside_the_main_shell_in_the_same_namespace(inner: AnySession, subshell: str) -> None:
    main = inner.submit(
        ExecuteRequest("import threading\ngo = threading.Event()\nprint('on')\ngo.wait()\nprint('off')")
    )
    while not isinstance(await main.next_event(), Output):
        pass
    told = await rest(inner.submit(ExecuteRequest("print('aside'); mine = 6 * 7; mine", subshell=subshell)))
    assert [type(event) for event in told if not isinstance(event, Output)] == [Started, Finished]
    assert "".join(event.text for event in told if isinstance(event, Output)) == "aside\n"
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert isinstance(told[0], Started)
    assert isinstance(told[-1], Finished)
    assert (told[0].execution_count, told[-1].execution_count, told[-1].text) == (1, 1, "42")
    found = await inner.ask("complete", {"code": "min", "cursor": 3, "subshell": subshell})
    assert "mine" in found["matches"]
    assert (await run(inner, "go.set()", subshell=subshell)).verdict == "ok"
    assert (await verdict(main)).verdict == "ok"
    assert (await run(inner, "mine")).text == "42"


async def test_one_that_is_asked_for_again_by_its_name_is_the_one_that_is_open(inner: AnySession) -> None:
    for _ in range(2):
        told = await inner.ask("subshell", {"action": "open", "subshell": "mine"})
        assert (told["subshell"], told["subshells"]) == ("mine", ["mine"])
        await run(inner, "1", subshell="mine")
    assert (await run(inner, "2", subshell="mine")).execution_count == 3
    await inner.ask("subshell", {"action": "close", "subshell": "mine"})


async def test_values_of_cells_within_a_cell_belong_to_the_shell_that_runs_it(inner: AnySession, subshell: str) -> None:
    await run(inner, "import threading\ngo, on = threading.Event(), threading.Event()")
    main = inner.submit(ExecuteRequest("on.set()\n_ = go.wait()"))
    nested = "_ = on.wait()\nfound = get_ipython().run_cell('3')"
    assert (await run(inner, nested, subshell=subshell)).text == "3"
    assert (await run(inner, "(found.result, go.set())[0]", subshell=subshell)).text == "3"
    assert not (await verdict(main)).data
    assert (await run(inner, "found = get_ipython().run_cell('4')")).text == "4"


async def test_how_a_cell_ended_in_a_subshell_is_nothing_that_the_main_shell_knows(
    inner: AnySession, subshell: str
) -> None:
    await run(inner, "'main'")
    assert (await run(inner, "1 / 0", subshell=subshell)).verdict == "error"
    asked = "shell = get_ipython()\nshell.last_execution_succeeded, shell.last_execution_result.result"
    assert (await run(inner, asked)).text == "(True, 'main')"


async def test_a_subshell_shows_its_values_while_the_main_shell_captures(inner: AnySession, subshell: str) -> None:
    await run(inner, "import threading\nfrom IPython.utils.capture import capture_output")
    await run(inner, "go, on = threading.Event(), threading.Event()")
    main = inner.submit(ExecuteRequest("with capture_output() as kept:\n    on.set()\n    _ = go.wait()"))
    assert (await run(inner, "_ = on.wait()\n5", subshell=subshell)).text == "5"
    await run(inner, "go.set()", subshell=subshell)
    await verdict(main)
    assert (await run(inner, "kept.outputs")).text == "[]"


async def test_a_time_limit_ends_what_runs_in_a_subshell_alone(inner: AnySession, subshell: str) -> None:
    await run(inner, "kept = 1")
    last = await run(inner, "while True: pass", subshell=subshell, timeout=0.2)
    assert (last.verdict, last.error and last.error.code) == ("timeout", "execution_timeout")
    assert (await run(inner, "kept")).text == "1"


async def test_the_time_in_which_a_subshell_waits_for_an_answer_does_not_count(
    inner: AnySession, subshell: str
) -> None:
    code = "print(input())\nwhile True: pass"
    asks = inner.submit(ExecuteRequest(code, subshell=subshell, allow_input=True, timeout=1.0))
    while not isinstance(asked := await asks.next_event(), InputRequest):
        pass
    await run(inner, "import time; time.sleep(1.5)")
    asks.reply_input(asked.request, "in time")
    told = await rest(asks)
    assert "".join(event.text for event in told if isinstance(event, Output)) == "in time\n"
    assert isinstance(told[-1], Finished)
    assert told[-1].verdict == "timeout"


async def test_what_waits_in_c_outlives_its_interrupt_and_ends_when_it_returns(anywhere: AsyncClient) -> None:
    """In the main shell the worker would be killed for it."""
    async with anywhere.session(interrupt_grace=3.0) as session:
        inner = session._inner
        subshell = (await inner.ask("subshell", {"action": "open"}))["subshell"]
        await run(inner, "import threading\nlock = threading.Lock()\n_ = lock.acquire()")
        waiting = inner.submit(ExecuteRequest("print('waits')\nlock.acquire()\nwhile True: pass", subshell=subshell))
        while not isinstance(await waiting.next_event(), Output):
            pass
        assert await inner.cancel(waiting.id)
        states = []
        with anyio.fail_after(LONG):
            while "interrupting_again" not in states:
                states.append(getattr(await waiting.next_event(), "state", ""))
        assert (await run(inner, "lock.release()")).verdict == "ok"
        assert (await verdict(waiting)).verdict == "interrupted"


@pytest.fixture
async def patient(anywhere: AsyncClient) -> AsyncIterator[AnySession]:
    """A session whose interrupts have more time for their first step than a busy machine can use up."""
    async with anywhere.session(interrupt_grace=LONG) as session:
        yield session._inner


async def test_what_cannot_be_interrupted_is_given_up_with_an_error_and_harms_nothing(
    anywhere: AsyncClient, tmp_path: Path
) -> None:
    async with anywhere.session(interrupt_grace=0.2) as session:
        inner = session._inner
        stuck, other = [(await inner.ask("subshell", {"action": "open"}))["subshell"] for _ in range(2)]
        await run(inner, "import threading\nlock = threading.Lock()\n_ = lock.acquire()\nkept = 1")
        code = f"print('waits')\ntry: lock.acquire()\nfinally: open({str(tmp_path / 'ended')!r}, 'x').close()"
        waiting = inner.submit(ExecuteRequest(code, subshell=stuck, stop_on_error=True, batch="b"))
        same = inner.submit(ExecuteRequest("'never'", subshell=stuck, stop_on_error=True, batch="b"))
        while not isinstance(await waiting.next_event(), Output):
            pass
        assert await inner.cancel(waiting.id)
        told = await rest(waiting)
        last = told[-1]
        assert isinstance(last, Finished)
        assert [event.state for event in told if isinstance(event, Status)] == ["interrupting", "interrupting_again"]
        assert (last.verdict, last.error and last.error.code) == ("error", "interrupt_ignored")
        assert last.error is not None
        assert "restart" in last.error.hint
        stopped = await verdict(same)
        assert stopped.error is not None
        assert stopped.error.code == "execution_cancelled"
        assert not await inner.cancel(waiting.id)  # it has its verdict
        behind = inner.submit(ExecuteRequest("'behind'", subshell=stuck))
        assert (await run(inner, "kept", subshell=other)).text == "1"
        assert not (tmp_path / "ended").exists()
        assert (await run(inner, "lock.release(); kept")).text == "1"
        ended = await verdict(behind)
        assert (ended.text, ended.execution_count) == ("'behind'", 2)
        assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    "wait",
    [
        "from time import sleep; print('waits'); sleep(100)",
        "import threading; print('waits'); threading.Event().wait()",
        "import threading; print('waits'); c = threading.Condition()\nwith c: c.wait(100)",
        "import queue; print('waits'); queue.Queue().get()",
        "from concurrent.futures import Future; print('waits'); Future().result()",
        "print('waits')\n!sleep 100",
        "print('waits')\n!sleep 100; echo never",  # whatever the shell: it has a child
        "import subprocess; print('waits'); subprocess.run(['sleep', '100'])",
        "import subprocess; print('waits'); subprocess.run('echo a; exec sleep 100', shell=True, capture_output=True)",
    ],
    ids=["sleep", "event", "condition", "queue", "future", "command", "child", "run", "output"],
)
async def test_what_waits_in_a_subshell_is_interrupted(patient: AnySession, wait: str) -> None:
    subshell = (await patient.ask("subshell", {"action": "open"}))["subshell"]
    waiting = patient.submit(ExecuteRequest(wait, subshell=subshell))
    while not isinstance(await waiting.next_event(), Output):
        pass
    await run(patient, "import time; time.sleep(0.2)")  # the code has come to its wait, as a rule
    assert await patient.cancel(waiting.id)
    told = await rest(waiting)
    assert isinstance(told[-1], Finished)
    assert told[-1].verdict == "interrupted"
    assert [event.state for event in told if isinstance(event, Status)] == ["interrupting"]
    assert (await run(patient, "6 * 7", subshell=subshell)).text == "42"


@pytest.mark.parametrize("name", ["b_nobody", ""])
async def test_one_that_is_not_there_cannot_be_closed(inner: AnySession, name: str) -> None:
    with pytest.raises(CapsuleError) as caught:
        await inner.ask("subshell", {"action": "close", "subshell": name})
    assert caught.value.code == "subshell_unknown"


async def test_code_and_questions_for_one_that_is_not_there_are_refused(inner: AnySession) -> None:
    with pytest.raises(CapsuleError) as caught:
        await inner.ask("complete", {"code": "a", "cursor": 1, "subshell": "b_nobody"})
    assert caught.value.code == "subshell_unknown"
    with pytest.raises(CapsuleError) as caught:
        raise _error_of(await run(inner, "1", subshell="b_nobody"))
    assert caught.value.code == "subshell_unknown"


async def test_a_restart_ends_them_all(inner: AnySession) -> None:
    name = (await inner.ask("subshell", {"action": "open"}))["subshell"]
    running = inner.submit(ExecuteRequest("while True: pass", subshell=name))
    assert isinstance(await running.next_event(), Started)
    await inner.restart()
    assert (await verdict(running)).verdict == "killed"
    assert (await inner.ask("subshell", {"action": "list"}))["subshells"] == []


async def test_a_session_that_outlives_its_node_has_them_too() -> None:
    folder = Path(tempfile.mkdtemp(prefix="s-"))
    try:
        with Served(folder / "node", linger=5.0) as served:
            async with served.client() as client, client.session() as session:
                inner = session._inner
                name = (await inner.ask("subshell", {"action": "open"}))["subshell"]
                assert (await run(inner, "1", subshell=name)).text == "1"
                assert (await inner.ask("subshell", {"action": "list"}))["subshells"] == [name]
            assert served.stop() == 0
    finally:
        shutil.rmtree(folder)


def _error_of(finished: Finished) -> CapsuleError:
    """A service tells as the verdict what a node in this process raises."""
    assert finished.error is not None
    return CapsuleError(finished.error.code, finished.error.message)


async def test_a_comm_shows_its_values_and_not_that_of_the_last_cell(inner: AnySession, subshell: str) -> None:
    await run(inner, RUNS)
    assert (await run(inner, "1 + 1", subshell=subshell, payloads=True)).data == {"text/plain": "2"}
    asked = CommRequest("open", "c1", {"code": "get_ipython().run_cell('40 + 2')"}, "runs")
    told = await rest(inner.submit(ExecuteRequest("", comm=asked, subshell=subshell, payloads=True)))
    assert [event.data for event in told if isinstance(event, Display)] == [{"text/plain": "42"}]
