"""Comms both ways: what the code says is told in its place, and what a front end says is an execution of its own."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, AsyncClient, AsyncSession, Event, Finished, Output
from capsule.comms import CommRequest
from capsule.events import CommMessage, Started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

LONG = 60.0
ECHO = """
from comm import get_comm_manager
import asyncio, threading, time
comms = {}
def opened(comm, message):
    comms[comm.comm_id] = comm
    comm.on_msg(lambda message: heard(comm, message["content"]["data"], message["buffers"]))
    comm.on_close(lambda message: print("closed with", message["content"]["data"]))
    print("opened with", message["content"]["data"], message["metadata"])
def heard(comm, data, buffers):
    print("heard", data, [bytes(buffer) for buffer in buffers])
    if "code" in data:
        exec(data["code"], globals() | {"comm": comm})
    comm.send({"echo": data.get("n")}, buffers=buffers)
get_comm_manager().register_target("echo", opened)
"""


async def opened(session: AsyncSession, comm: str = "c1") -> None:
    """A session whose code answers on a comm."""
    assert (await session.run(ECHO)).ok
    assert (await session.send_comm(CommRequest("open", comm, {"n": 0}, target="echo"))).ok


def nested(depth: int) -> Any:
    """Lists in lists."""
    return [nested(depth - 1)] if depth else []


def run(code: str) -> CommRequest:
    """Have the code that hears it run something."""
    return CommRequest("message", "c1", {"code": code})


class Background:
    """What belongs to no stream any more."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self.events.put_nowait(event)

    async def next(self) -> Any:
        return await asyncio.wait_for(self.events.get(), LONG)


async def test_what_the_code_says_keeps_its_place_among_the_output(session: AsyncSession) -> None:
    told: list[Event] = []
    code = (
        "from comm import create_comm\nprint('before')\ncomm = create_comm(target_name='widget', data={'a': 1})\n"
        "print('between')\ncomm.send({'b': [2]}, metadata={'c': 3}, buffers=[b'raw', memoryview(b'view')])\n"
        "print('behind')\ncomm.close({'d': 4})\ncomm.comm_id"
    )
    result = await session.run(code, on_event=told.append)
    comm = result.text.strip("'")
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    parts = [event.text if isinstance(event, Output) else event for event in told[1:-1]]
    at: Any = {"execution_id": result.execution_id, "comm": comm}
    assert parts == [
        "before\n",
        CommMessage(sequence=3, action="open", data={"a": 1}, metadata={}, target="widget", **at),
        "between\n",
        CommMessage(sequence=5, action="message", data={"b": [2]}, metadata={"c": 3}, buffers=(b"raw", b"view"), **at),
        "behind\n",
        CommMessage(sequence=7, action="close", data={"d": 4}, metadata={}, **at),
    ]
    assert result.comms == [event for event in told if isinstance(event, CommMessage)]


async def test_what_a_front_end_says_is_an_execution_of_its_own(session: AsyncSession) -> None:
    assert (await session.run(ECHO)).execution_count == 1
    told: list[Event] = []
    result = await session.send_comm(
        CommRequest("open", "c1", {"n": 0}, target="echo", metadata={"m": 1}), on_event=told.append
    )
    assert (result.verdict, result.stdout, result.comms) == ("ok", "opened with {'n': 0} {'m': 1}\n", [])
    assert {event.execution_id for event in told} == {result.execution_id}
    assert told[0] == Started(result.execution_id, 1, 0)
    assert (type(told[-1]), result.execution_count) == (Finished, 0)
    said = await session.send_comm(CommRequest("message", "c1", {"n": 1}, buffers=(b"x", b"")))
    assert said.stdout == "heard {'n': 1} [b'x', b'']\n"
    (echo,) = said.comms
    assert (echo.action, echo.comm, echo.data, echo.buffers) == ("message", "c1", {"echo": 1}, (b"x", b""))
    assert echo.execution_id == said.execution_id
    closed = await session.send_comm(CommRequest("close", "c1", {"n": 2}))
    assert (closed.stdout, closed.comms) == ("closed with {'n': 2}\n", [])
    assert (await session.run("1")).execution_count == 2


async def test_the_comms_that_are_open_are_told_with_their_targets(session: AsyncSession) -> None:
    await opened(session)
    other = (await session.run("from comm import create_comm\nc = create_comm(target_name='t')\nc.comm_id")).text[1:-1]
    assert await session.comms() == {"c1": "echo", other: "t"}
    assert await session.comms("echo") == {"c1": "echo"}
    assert await session.comms("nothing") == {}
    await session.send_comm(CommRequest("close", "c1"))
    assert await session.comms() == {other: "t"}


async def test_what_is_said_waits_for_its_turn_and_the_error_of_code_does_not_cancel_it(
    session: AsyncSession, tmp_path: Path
) -> None:
    await opened(session)
    go = tmp_path / "go"
    os.mkfifo(go)
    failing = session.submit(f"open({str(go)!r}).read()\nraise LookupError", stop_on_error=True)
    said = asyncio.ensure_future(session.send_comm(CommRequest("message", "c1", {"n": 1})))
    await asyncio.sleep(0)
    behind = session.submit("2")
    await behind.accepted(LONG)  # else the error might be there first
    await asyncio.to_thread(go.write_text, "")
    assert (await failing.result()).verdict == "error"
    assert (await said).comms[0].data == {"echo": 1}
    assert (await behind.result()).verdict == "interrupted"


async def test_what_a_thread_says_later_is_told_with_the_execution_that_caused_it(anywhere: AsyncClient) -> None:
    background = Background()
    async with anywhere.session(on_background=background) as session:
        await opened(session)
        await session.run("go = threading.Event()")
        by_comm = await session.send_comm(
            run(
                "def later():\n    go.wait(); print('late'); comm.send({'late': True}, buffers=[b'raw'])\n"
                "threading.Thread(target=later).start()"
            )
        )
        assert by_comm.ok, by_comm.error
        await session.run("go.set()")
        text, comms = "", list[Any]()
        while not (comms and text == "late\n"):
            event = await background.next()
            assert (event.execution_id, event.sequence) == (by_comm.execution_id, 0)
            if isinstance(event, CommMessage):
                comms.append(event)
            else:
                text += event.text
        assert [(event.data, event.buffers) for event in comms] == [({"late": True}, (b"raw",))]


async def test_tasks_go_on_behind_a_handler(anywhere: AsyncClient) -> None:
    background = Background()
    async with anywhere.session(on_background=background) as session:
        await opened(session)
        await session.run("go = asyncio.Event()")
        code = "async def later():\n    await go.wait()\n    comm.send({'task': 1})\n"
        said = await session.send_comm(run(f"{code}comms['task'] = asyncio.create_task(later())"))
        assert said.ok, said.error
        await session.run("go.set()")  # what it says at once might still be before the verdict
        event = await background.next()
        assert (event.data, event.execution_id) == ({"task": 1}, said.execution_id)


async def test_an_error_of_a_handler_is_its_verdict(session: AsyncSession) -> None:
    await opened(session)
    result = await session.send_comm(run("1 / 0"))
    assert result.error is not None
    assert (result.verdict, result.error.name, result.comms) == ("error", "ZeroDivisionError", [])
    assert "heard" in "\n".join(result.error.traceback)
    assert (await session.send_comm(CommRequest("message", "c1", {"n": 2}))).comms[0].data == {"echo": 2}


@pytest.mark.parametrize("action", ["message", "close"])
async def test_a_comm_that_is_not_there_is_an_error(session: AsyncSession, action: Any) -> None:
    result = await session.send_comm(CommRequest(action, "nothing"))
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("comm_unknown", "the session has no comm 'nothing'")
    assert (result.stdout, result.stderr) == ("", "")


async def test_a_target_that_is_not_there_closes_the_comm(session: AsyncSession) -> None:
    result = await session.send_comm(CommRequest("open", "c1", target="nothing"))
    assert result.error is not None
    assert result.error.code == "comm_unknown"
    assert [(said.action, said.comm) for said in result.comms] == [("close", "c1")]
    assert await session.comms() == {}


async def test_a_target_that_fails_closes_the_comm(session: AsyncSession) -> None:
    await session.run("from comm import get_comm_manager\nget_comm_manager().register_target('t', lambda c, m: 1 / 0)")
    result = await session.send_comm(CommRequest("open", "c1", target="t"))
    assert result.error is not None
    assert (result.error.name, [said.action for said in result.comms]) == ("ZeroDivisionError", ["close"])
    assert await session.comms() == {}


@pytest.mark.parametrize("endless", ["while True: pass", "time.sleep(1000)"])
async def test_a_handler_can_be_interrupted(session: AsyncSession, endless: str) -> None:
    await opened(session)
    reached = asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Output) and "reached" in event.text:
            reached.set()

    said = asyncio.ensure_future(session.send_comm(run(f"print('reached', flush=True)\n{endless}"), on_event=watch))
    await reached.wait()
    assert await session.interrupt()
    result = await said
    assert result.error is not None
    assert (result.verdict, result.error.code) == ("interrupted", "execution_interrupted")
    assert (await session.send_comm(CommRequest("message", "c1", {"n": 2}))).ok


async def test_a_handler_that_takes_too_long_is_ended(session: AsyncSession) -> None:
    await opened(session)
    result = await session.send_comm(run("while True: pass"), timeout=0.2)
    assert (result.verdict, (await session.run("1")).text) == ("timeout", "1")


async def test_a_handler_may_ask(session: AsyncSession) -> None:
    await opened(session)
    answered = await session.send_comm(run("print('got', input('name? '))"), on_input=lambda request: request.prompt)
    assert "got name? \n" in answered.stdout
    refused = await session.send_comm(run("input()"))
    assert refused.error is not None
    assert refused.error.code == "no_input_client"


async def test_a_widget_moves_and_calls_back(session: AsyncSession) -> None:
    shown = await session.run(
        "import ipywidgets\nslider = ipywidgets.IntSlider()\n"
        "slider.observe(lambda change: print('moved to', change.new), 'value')\nslider"
    )
    assert shown.stderr == ""
    view = shown.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    (opening,) = [said for said in shown.comms if said.comm == view]
    assert (opening.action, opening.target) == ("open", "jupyter.widget")
    assert opening.data["state"]["value"] == 0
    update = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
    moved = await session.send_comm(CommRequest("message", view, update))
    assert (moved.verdict, moved.stdout) == ("ok", "moved to 7\n")
    assert (await session.run("slider.value")).text == "7"
    set_by_code = await session.run("slider.value = 9")
    assert [said.data["state"] for said in set_by_code.comms] == [{"value": 9}]
    assert set_by_code.stdout == "moved to 9\n"


async def test_the_state_of_all_widgets_can_be_asked_for(session: AsyncSession) -> None:
    await session.run("import ipywidgets\nslider = ipywidgets.IntSlider(value=5)")
    version = {"version": "1.0.0"}
    opening = await session.send_comm(CommRequest("open", "control", {}, "jupyter.widget.control", version))
    assert opening.ok, opening.error
    asked = await session.send_comm(CommRequest("message", "control", {"method": "request_states"}))
    (answer,) = asked.comms
    assert answer.data["method"] == "update_states"
    assert 5 in [state["state"].get("value") for state in answer.data["states"].values()]


async def test_an_output_widget_names_the_execution_whose_output_it_takes(session: AsyncSession) -> None:
    await session.run("import ipywidgets\nout = ipywidgets.Output()")
    told: list[Event] = []
    result = await session.run("print('a')\nwith out: print('b')\nprint('c')", on_event=told.append)
    parts = [
        event.text if isinstance(event, Output) else event.data["state"]["msg_id"]
        for event in told
        if isinstance(event, Output | CommMessage)
    ]
    assert parts == ["a\n", result.execution_id, "b\n", "", "c\n"]


async def test_widgets_of_a_preloaded_environment_work() -> None:
    async with (
        AsyncClient(environments={"default": {"preload": ["ipywidgets"]}}) as client,
        client.session() as session,
    ):
        control = await session.send_comm(
            CommRequest("open", "control", target="jupyter.widget.control", metadata={"version": "1.0.0"})
        )
        assert control.ok, control.error
        shown = await session.run("import ipywidgets\nslider = ipywidgets.IntSlider()\nslider.model_id")
        update = {"method": "update", "state": {"value": 3}, "buffer_paths": []}
        assert (await session.send_comm(CommRequest("message", shown.text[1:-1], update))).ok
        assert (await session.run("slider.value")).text == "3"


@pytest.mark.parametrize(
    "request_",
    [
        "c1",
        CommRequest("shout", "c1"),  # type: ignore[arg-type]
        CommRequest("message", ""),
        CommRequest("message", "c" * 1001),
        CommRequest("message", "c1", target=1),  # type: ignore[arg-type]
        CommRequest("message", "c1", []),  # type: ignore[arg-type]
        CommRequest("message", "c1", {"a": {1, 2}}),
        CommRequest("message", "c1", {"a": 2**70}),
        CommRequest("message", "c1", {"a": nested(64)}),
        CommRequest("message", "c1", {"a": [0] * 2**19}),
        CommRequest("message", "c1", buffers=(b"",) * 1025),
        CommRequest("message", "c1", buffers=["x"]),  # type: ignore[arg-type]
        CommRequest("message", "c1", buffers=(bytes(64 * 2**20),)),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_no_comm_message_is_refused(session: AsyncSession, request_: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        await session.send_comm(request_)
    assert caught.value.code == "invalid_argument"
    assert (await session.run("1")).text == "1"


async def test_what_was_said_on_comms_is_written_down(durable: AsyncClient) -> None:
    async with durable.session() as session:
        await opened(session)
        said = await session.send_comm(CommRequest("message", "c1", {"n": 1}, buffers=(b"x",)))
    kept = await durable.execution(said.execution_id).result(LONG)
    assert (kept.comms, kept.stdout) == (said.comms, said.stdout)
    assert [event.data for event in kept.comms] == [{"echo": 1}]
