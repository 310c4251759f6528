"""The debugger of a front end: breakpoints in cells, and what can be asked while code stands at one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, AsyncClient, AsyncSession, CapsuleError
from capsule.events import DebugEvent, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

LONG = 60.0
CODE = """
def double(number):
    result = 2 * number
    return result

print('in the cell')
answer = double(21)
answer"""
AWAITING = """
import asyncio
await asyncio.sleep(0)
async def later():
    await asyncio.sleep(0)
    here = 1
await later()"""


class Front:
    """A front end that debugs one session."""

    def __init__(self) -> None:
        self.session: AsyncSession
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._number = 0

    def hear(self, event: Event) -> None:
        if isinstance(event, DebugEvent):
            assert (event.execution_id, event.sequence) == ("", 0)
            self._events.put_nowait(event.event)

    async def respond(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        request = {"type": "request", "seq": self._number, "command": command, "arguments": arguments}
        response = await self.session.debug(request, timeout=LONG)
        assert (response["type"], response["request_seq"], response["command"]) == ("response", self._number, command)
        return response

    async def ask(self, command: str, **arguments: Any) -> Any:
        """The body of a response that has to be a success."""
        response = await self.respond(command, **arguments)
        assert response["success"], response
        return response.get("body")

    async def start(self) -> None:
        await self.ask(
            "initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True, columnsStartAt1=True
        )
        await self.ask("attach")

    async def break_at(self, code: str, *lines: int) -> str:
        path: str = (await self.ask("dumpCell", code=code))["sourcePath"]
        breakpoints = [{"line": line} for line in lines]
        found = await self.ask("setBreakpoints", source={"path": path}, breakpoints=breakpoints)
        assert [one["verified"] for one in found["breakpoints"]] == [True for _ in lines]
        return path

    async def stopped(self, reason: str = "breakpoint") -> int:
        """The thread that stands now."""
        async with asyncio.timeout(LONG):
            while (event := await self._events.get())["event"] != "stopped":
                pass
        assert event["body"]["reason"] == reason
        thread: int = event["body"]["threadId"]
        return thread

    async def stack(self, thread: int) -> list[dict[str, Any]]:
        frames: list[dict[str, Any]] = (await self.ask("stackTrace", threadId=thread))["stackFrames"]
        return frames


@asynccontextmanager
async def debugged(client: AsyncClient) -> AsyncIterator[Front]:
    front = Front()
    async with client.session(on_background=front.hear) as session:
        front.session = session
        yield front


def places(frames: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(frame["name"], frame["line"]) for frame in frames]


async def test_code_stops_at_breakpoints_and_can_be_looked_at(anywhere: AsyncClient) -> None:
    async with debugged(anywhere) as front:
        await front.start()
        path = await front.break_at(CODE, 3)
        info = await front.ask("debugInfo")
        assert (info["isStarted"], info["breakpoints"]) == (True, [{"source": path, "breakpoints": [{"line": 3}]}])
        assert path.startswith(info["tmpFilePrefix"])
        running = front.session.submit(CODE)
        thread = await front.stopped()
        frames = await front.stack(thread)
        assert places(frames) == [("double", 3), ("<module>", 7)]
        assert {frame["source"]["path"] for frame in frames} == {path}
        assert (await front.ask("debugInfo"))["stoppedThreads"] == [thread]
        frame = frames[0]["id"]
        scopes = (await front.ask("scopes", frameId=frame))["scopes"]
        variables = await front.ask("variables", variablesReference=scopes[0]["variablesReference"])
        assert [(one["name"], one["value"]) for one in variables["variables"]] == [("number", "21")]
        assert (await front.ask("evaluate", expression="number + 1", frameId=frame))["result"] == "22"
        rich = await front.ask("richInspectVariables", variableName="number", frameId=frame)
        assert rich["data"] == {"text/plain": "21"}
        await front.ask("copyToGlobals", srcVariableName="number", dstVariableName="copied", srcFrameId=frame)
        await front.ask("next", threadId=thread)
        assert places(await front.stack(await front.stopped("step"))) == [("double", 4), ("<module>", 7)]
        await front.ask("continue", threadId=thread)
        result = await running.result()
        assert (result.verdict, result.text, result.stdout, result.stderr) == ("ok", "42", "in the cell\n", "")
        assert (await front.ask("debugInfo"))["stoppedThreads"] == []
        assert (await front.session.run("copied")).text == "21"


@pytest.mark.parametrize(("code", "line"), [(CODE, 3), (AWAITING, 6)], ids=["synchronous", "awaiting"])
async def test_code_that_stands_can_be_interrupted_and_stops_again(anywhere: AsyncClient, code: str, line: int) -> None:
    async with debugged(anywhere) as front:
        await front.start()
        await front.break_at(code, line)
        for _ in range(2):
            running = front.session.submit(code)
            await front.stopped()
            assert await front.session.interrupt()
            result = await running.result()
            assert result.error is not None
            assert (result.verdict, result.error.code) == ("interrupted", "execution_interrupted")
        running = front.session.submit(code)
        await front.ask("continue", threadId=await front.stopped())
        assert (await running.result()).verdict == "ok"


async def test_a_debugger_can_leave_and_come_back(anywhere: AsyncClient) -> None:
    async with debugged(anywhere) as front:
        await front.start()
        await front.break_at(CODE, 3)
        await front.ask("disconnect", restart=False, terminateDebuggee=False)
        assert (await front.session.run(CODE)).text == "42"
        assert (await front.ask("debugInfo"))["isStarted"] is False
        await front.start()
        await front.break_at(CODE, 3)
        running = front.session.submit(CODE)
        await front.ask("continue", threadId=await front.stopped())
        assert (await running.result()).text == "42"
        await front.session.restart()
        assert (await front.ask("debugInfo"))["isStarted"] is False


async def test_variables_are_shown_without_a_breakpoint_and_while_code_runs(anywhere: AsyncClient) -> None:
    async with debugged(anywhere) as front:
        await front.session.run("import threading\ngo = threading.Event()\nsome = {'key': [1, 2]}")
        running = front.session.submit("go.wait()")
        assert (await front.ask("debugInfo"))["isStarted"] is False
        found = (await front.ask("inspectVariables"))["variables"]
        shown = {one["name"]: one for one in found}
        assert shown.keys() == {"special variables", "function variables", "threading", "go", "some"} - {
            name for name in ("special variables", "function variables") if name not in shown
        }
        inner = await front.ask("variables", variablesReference=shown["some"]["variablesReference"])
        assert [one["value"] for one in inner["variables"] if one["name"] == "'key'"] == ["[1, 2]"]
        rich = await front.ask("richInspectVariables", variableName="some")
        assert rich["data"] == {"text/plain": "{'key': [1, 2]}"}
        assert running.state == "running"
        await front.session.interrupt()
        assert (await running.result()).verdict == "interrupted"


async def test_what_cannot_be_answered_is_refused(anywhere: AsyncClient) -> None:
    async with debugged(anywhere) as front:
        refused = await front.respond("stackTrace", threadId=1)
        assert (refused["success"], "initialize" in refused["message"]) == (False, True)
        missing = await front.respond("variables")
        assert (missing["success"], "variablesReference" in missing["message"]) == (False, True)
        for request in ({}, {"command": "debugInfo"}, {"seq": "1", "command": "debugInfo"}, {"seq": 1, "command": 1}):
            with pytest.raises(CapsuleError) as caught:
                await front.session.debug(request, timeout=LONG)
            assert caught.value.code == "invalid_argument"
        with pytest.raises(ArgumentError):
            await front.session.debug("debugInfo")  # type: ignore[arg-type]
        await front.ask("debugInfo")


async def test_an_environment_without_a_debugger_says_so(anywhere: AsyncClient) -> None:
    async with debugged(anywhere) as front:
        await front.session.run("import sys; sys.modules['debugpy'] = None")
        with pytest.raises(CapsuleError) as caught:
            await front.respond("debugInfo")
        assert caught.value.code == "unsupported"
        assert (await front.session.run("1")).text == "1"
