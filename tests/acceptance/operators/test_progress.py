"""`run(..., progress=True)`, seen on a pipe, on a terminal and in a notebook."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from capsule import ArgumentError, AsyncSession
from capsule.client.progress import TICK
from tests.acceptance.cli.support import HANG, Terminal, capsule, clean_environment

SYNC = """
import sys
from capsule import Client
with Client() as client, client.session() as session:
    result = session.run(CODE, progress=True, MORE)
    print("RESULT", result.verdict, repr(result.stdout))
"""
ASYNC = """
import asyncio, sys
from capsule import AsyncClient
async def main():
    async with AsyncClient() as client, client.session() as session:
        result = await session.run(CODE, progress=True, MORE)
        print("RESULT", result.verdict, repr(result.stdout))
asyncio.run(main())
"""
KINDS = pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])


def script(place: Path, program: str, code: str, more: str = "") -> Path:
    file = place / "program.py"
    file.write_text(program.replace("CODE", repr(code)).replace(", MORE", f", {more}" if more else ""))
    return file


class Python(Terminal):
    """A program on a terminal of its own."""

    program = sys.executable


def answer(terminal: Terminal) -> None:
    """Wait until we are asked, and type: what we type stands behind the question."""
    terminal.until("who? ")
    time.sleep(4 * TICK)  # for a status that should not come, to come
    terminal.type("Ada\r")
    assert terminal.until("Ada") == "Ada"
    terminal.until("hello Ada\n")


def seconds(terminal: Terminal) -> float:
    """The time that the next status tells: one on a busy machine may be told late, and others not at all."""
    return float(terminal.until(" s").split()[-2])


# A pipe


@KINDS
def test_on_a_pipe_it_is_the_output_and_one_line(place: Path, program: str) -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('no end', end='')\ncapsule_progress(1, 2)"
    done = subprocess.run([sys.executable, script(place, program, code)], capture_output=True, check=True, timeout=HANG)
    assert done.stdout.decode() == "out\nno endRESULT ok 'out\\nno end'\n"
    error, told = done.stderr.decode().split("\n", 1)
    assert error == "err"
    assert told.strip().startswith("capsule: ok after ")
    assert all(byte >= 32 or byte == 10 for byte in done.stdout + done.stderr)


@KINDS
def test_how_it_failed_is_told(place: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, script(place, program, "1 / 0")], capture_output=True, check=True, timeout=HANG
    )
    assert done.stdout == b"RESULT error ''\n"
    assert b"capsule: error (ZeroDivisionError: division by zero) after " in done.stderr


def test_callbacks_are_called_all_the_same(place: Path) -> None:
    more = "on_event=lambda e: print(type(e).__name__), on_input=lambda request: 'Ada'"
    done = subprocess.run(
        [sys.executable, script(place, SYNC, "print('hello', input('who? '))", more)],
        capture_output=True,
        check=True,
        timeout=HANG,
    )
    names = [line for line in done.stdout.decode().splitlines() if line.isidentifier()]
    assert names[0] == "Started"
    assert names[-1] == "Finished"
    assert "InputRequest" in names
    assert "hello Ada" in done.stdout.decode()


# A terminal


@KINDS
def test_on_a_terminal_the_time_goes_on_below_the_output(place: Path, program: str) -> None:
    go = place / "go"
    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('last')"
    with Python(script(place, program, code)) as terminal:
        terminal.until("first\n")
        assert seconds(terminal) < seconds(terminal)  # silent code, and the time goes on
        go.touch()
        terminal.until("last\n")
        terminal.until("capsule: ok after ")
        code_, rest = terminal.end()
        assert code_ == 0
        assert "RESULT ok" in rest
    go.unlink()
    # The status is erased before more comes: the line on which "last" stands has nothing else.
    before, _, _ = terminal.raw.partition("last\r\n")
    assert before.endswith("\r\x1b[2K")


def test_on_a_terminal_the_progress_of_the_code_is_a_bar(place: Path) -> None:
    go = place / "go-bar"
    code = f"import os, time\ncapsule_progress(1, 2, 'half')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    with Python(script(place, SYNC, code)) as terminal:
        terminal.until("[##########          ]  50% half")
        go.touch()
        assert terminal.end()[0] == 0
    go.unlink()


def test_a_line_that_has_begun_belongs_to_the_code(place: Path) -> None:
    go = place / "go-line"
    code = (
        f"import os, time\nprint('begun', end='', flush=True)\ntime.sleep(0.7)\nopen({str(go)!r}, 'w')\nprint(' ended')"
    )
    with Python(script(place, SYNC, code)) as terminal:
        terminal.until("begun ended\n")
        assert terminal.end()[0] == 0


def test_on_a_terminal_ctrl_c_interrupts_and_leaves_a_clean_line(place: Path) -> None:
    with Python(script(place, SYNC, "print('runs')\nwhile True: pass")) as terminal:
        terminal.until("runs\n")
        seconds(terminal)
        terminal.type("\x03")
        terminal.until("capsule: ")
        _, rest = terminal.end()
        assert "KeyboardInterrupt" in rest


def test_who_is_asked_types_on_a_line_of_his_own(place: Path) -> None:
    code = "print('hello', input('who? '))"
    with Python(script(place, SYNC, code, "on_input=lambda request: input(request.prompt)")) as terminal:
        answer(terminal)
        assert terminal.end()[0] == 0


def test_a_terminal_that_can_do_nothing_gets_plain_text(place: Path) -> None:
    with Python(script(place, SYNC, "print('out')"), TERM="dumb") as terminal:
        assert terminal.end()[0] == 0
        assert "\x1b" not in terminal.raw
        assert "capsule: ok after" in terminal.raw


# A notebook


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    manager, client = start_new_kernel(kernel_name="python3", env=clean_environment())
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def cell(kernel: Any, code: str) -> list[dict[str, Any]]:
    """What a cell of a notebook says, until it is idle."""
    request = kernel.execute(code)
    said: list[dict[str, Any]] = []
    while True:
        try:
            message = kernel.get_iopub_msg(timeout=HANG)
        except Empty:
            raise AssertionError(f"silent after {said}") from None
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return said
        said.append(message)


def test_in_a_notebook_output_is_the_cells_and_the_time_a_display_that_changes(kernel: Any) -> None:
    cell(kernel, "import capsule; client = capsule.Client(); session = client.session()")
    code = (
        "import time; from IPython.display import HTML, display\n"
        "print('hi'); display(HTML('<b>x</b>')); time.sleep(0.7); 6 * 7"
    )
    said = cell(kernel, f"result = session.run({code!r}, progress=True)\nresult.text")
    kinds = [message["msg_type"] for message in said]
    assert "error" not in kinds, said
    text = "".join(m["content"]["text"] for m in said if m["msg_type"] == "stream" and m["content"]["name"] == "stdout")
    assert text == "hi\n"
    shown = [m["content"] for m in said if m["msg_type"] in {"display_data", "update_display_data"}]
    (rich,) = [one for one in shown if "text/html" in one["data"]]
    assert rich["data"]["text/html"] == "<b>x</b>"
    status = [one for one in shown if "text/html" not in one["data"]]
    assert len({one["transient"]["display_id"] for one in status}) == 1
    texts = [one["data"]["text/plain"] for one in status]
    assert texts[0].startswith("running: ")
    assert len(set(texts)) >= 3  # the time went on
    assert texts[-1].startswith("ok after ")
    (value,) = [m["content"]["data"]["text/plain"] for m in said if m["msg_type"] == "execute_result"]
    assert value == "'42'"


def test_in_a_notebook_a_failure_is_told_where_the_time_was(kernel: Any) -> None:
    said = cell(kernel, "result = session.run('1 / 0', progress=True)")
    (last,) = [m["content"]["data"]["text/plain"] for m in said if m["msg_type"].endswith("display_data")][-1:]
    assert last.startswith("error (ZeroDivisionError: division by zero) after ")
    cell(kernel, "client.close()")


# Arguments


@pytest.mark.anyio
async def test_it_is_a_flag(session: AsyncSession) -> None:
    with pytest.raises(ArgumentError) as caught:
        await session.run("1", progress="yes")  # type: ignore[arg-type]
    assert caught.value.argument == "progress"


# The command


def test_the_command_shows_the_time_below_the_output(place: Path) -> None:
    go = place / "go-command"
    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('last')"
    with Terminal("run", "--progress", "-c", code) as terminal:
        terminal.until("first\n")
        terminal.until(" s")
        terminal.until(" s")
        go.touch()
        terminal.until("last\n")
        terminal.until("capsule: ok after ")
        assert terminal.end()[0] == 0
    go.unlink()
    before, _, _ = terminal.raw.partition("last\r\n")
    assert before.endswith("\r\x1b[2K")


def test_the_command_lets_who_is_asked_type(place: Path) -> None:
    with Terminal("run", "--progress", "-c", "print('hello', input('who? '))") as terminal:
        answer(terminal)
        assert terminal.end()[0] == 0


def test_the_command_on_a_pipe_has_one_line_at_the_end() -> None:
    done = capsule("run", "--progress", "-c", "print('out'); 1 / 0")
    assert done.returncode == 1
    assert done.stdout == b"out\n"
    *_, raised, last = done.stderr.decode().splitlines()
    assert raised == "ZeroDivisionError: division by zero"
    assert last.startswith("capsule: error after ")
    assert b"\x1b" not in done.stderr


def test_the_command_is_for_people_or_for_programs() -> None:
    assert capsule("run", "--progress", "--json", "-c", "1").returncode == 2
