"""Both executors: the same answer for the same source, context variables, tasks, cancellation."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from capsule_protocol.page import INTERRUPT_SIGNAL, TARGET
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session

SOURCES = [
    "x = 1\nx",
    "def f(n):\n    return n * 2\nf(21)",
    "total = 0\nfor i in range(5):\n    total += i\ntotal",
    "class A:\n    y = 3\nA.y",
    "[k for k in range(3)]",
    "import math\nmath.floor(2.5)",
    "try:\n    1/0\nexcept ZeroDivisionError as error:\n    found = str(error)\nfound",
    "with open('/dev/null') as file:\n    n = len(file.read())\nn",
    "z = (w := 4) + 1\nz, w",
    "globals()['via'] = 9\nvia",
    "__name__",
    "del x\n'x' in globals()",
    "5;",
    "undefined_name",
    "raise LookupError('mine')",
    "import sys\nsys.exit(4)",
    "assert 1 == 2, 'no'",
]
AWAIT = "import asyncio\nawait asyncio.sleep(0)\n"


@alone
def test_both_give_the_same_answer_for_the_same_source() -> None:
    session = Session()
    for source in SOURCES:
        answers = []
        for prefix in ("import asyncio\n", AWAIT):
            session.value("x = 0")
            body = session.run(prefix + source)
            kept = ("verdict", "name", "message", "code", "data", "metadata", "details")
            answers.append({name: body.get(name) for name in kept})
        assert answers[0] == answers[1], source


@alone
def test_prints_come_in_order_from_both() -> None:
    session = Session()
    for prefix in ("", AWAIT):
        session.value(prefix + "print(1)\nprint(2)\nimport os\n_ = os.write(1, b'3\\n')\nprint(4)")
        assert session.text(0) == b"1\n2\n3\n4\n"


@alone
def test_a_context_variable_set_in_a_cell_is_set_in_the_next() -> None:
    session = Session()
    session.value("import contextvars, decimal\nv = contextvars.ContextVar('v', default='unset')")
    session.value("v.set('sync')")
    assert session.value(AWAIT + "v.get()") == "'sync'"
    session.value(AWAIT + "v.set('async')")
    assert session.value("v.get()") == "'async'"
    session.value(AWAIT + "decimal.getcontext().prec = 5")
    assert session.value("decimal.getcontext().prec") == "5"


@alone
def test_a_task_does_not_change_the_context_of_the_cell() -> None:
    session = Session()
    session.value("import contextvars\nv = contextvars.ContextVar('v', default='unset')")
    session.value(AWAIT + "async def work(): v.set('task')\nawait asyncio.create_task(work())")
    assert session.value("v.get()") == "'unset'"


@alone
def test_tasks_go_on_from_cell_to_cell() -> None:
    session = Session()
    session.value(
        "import asyncio\nsteps = []\nasync def work():\n    for n in range(3):\n        steps.append(n)\n"
        "        await asyncio.sleep(0)\ntask = asyncio.create_task(work())"
    )
    assert session.value("steps") == "[]"
    assert session.value("await task\nsteps") == "[0, 1, 2]"


@alone
def test_the_current_task_of_an_awaiting_cell_is_its_own() -> None:
    session = Session()
    assert session.value(AWAIT + "asyncio.current_task().get_name()") == "'cell'"
    assert session.value("import asyncio\nasyncio.current_task() is None") == "True"


@alone
def test_time_outs_and_task_groups_work_in_a_cell() -> None:
    session = Session()
    body = session.error("import asyncio\nasync with asyncio.timeout(0):\n    await asyncio.sleep(3600)")
    assert body["name"] == "TimeoutError"
    code = "async with asyncio.TaskGroup() as group:\n    a = group.create_task(asyncio.sleep(0, 5))\na.result()"
    assert session.value(code) == "5"


@alone
def test_a_cell_that_cancels_itself_is_an_error_and_no_interrupt() -> None:
    session = Session()
    body = session.error("import asyncio\nasyncio.current_task()\nraise asyncio.CancelledError\nawait asyncio.sleep(0)")
    assert (body["verdict"], body["name"]) == ("error", "CancelledError")
    body = session.error("asyncio.current_task().cancel()\nawait asyncio.sleep(3600)")
    assert (body["verdict"], body["name"]) == ("error", "CancelledError")


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
@alone
def test_an_exit_of_another_task_ends_only_that_task(kind: str) -> None:
    session = Session()
    code = (
        f"import asyncio\nasync def leave(): raise {kind}\ntask = asyncio.create_task(leave())\n"
        "for _ in range(3): await asyncio.sleep(0)\ntask.done()"
    )
    assert session.value(code) == "True"
    session.value("task.exception()")


def interrupted_when(session: Session, name: str, code: str) -> dict[str, Any]:
    """Run a cell and interrupt it as soon as it has set the name to true; again, as the node does, if that was lost.

    A signal in the moment before a system call does not end it: no program can do anything about that.
    """
    session.value(f"{name} = False")
    done = threading.Event()

    def act() -> None:
        while not session.python.user_ns[name]:
            os.sched_yield()
        session.page.set(TARGET, session.serial)
        while not (done.is_set() or session.interrupts.asked):
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT_SIGNAL)
            done.wait(0.5)

    session.interrupts.install()
    thread = threading.Thread(target=act)
    thread.start()
    body = session.run(code)
    done.set()
    thread.join()
    return body


CELLS = {
    "a busy loop": "go = True\nwhile True: pass",
    "a lock": "import threading\nlock = threading.Lock()\nlock.acquire()\ngo = True\nlock.acquire()",
    "a sleep": "import time\ngo = True\ntime.sleep(3600)",
    "an awaited sleep": "import asyncio\ngo = True\nawait asyncio.sleep(3600)",
    "an awaited future": "import asyncio\ngo = True\nawait asyncio.get_running_loop().create_future()",
    "a busy loop behind an await": "import asyncio\nawait asyncio.sleep(0)\ngo = True\nwhile True: pass",
    "a loop of awaits": "import asyncio\ngo = True\nwhile True: await asyncio.sleep(0)",
    "a nested run": (
        "import asyncio\nasync def f():\n    global go\n    go = True\n    await asyncio.sleep(3600)\nasyncio.run(f())"
    ),
    "a group of tasks": (
        "import asyncio\nasync with asyncio.TaskGroup() as group:\n"
        "    group.create_task(asyncio.sleep(3600))\n    go = True"
    ),
    "prints": "go = True\nwhile True: print('x', end='')",
}


@pytest.mark.parametrize("name", sorted(CELLS))
@alone
def test_an_interrupt_ends_the_cell_and_keeps_the_namespace(name: str) -> None:
    session = Session()
    stop = threading.Event()
    reader = threading.Thread(target=drain, args=(session, stop))
    reader.start()
    body = interrupted_when(session, "go", f"kept = {name!r}\n{CELLS[name]}")
    stop.set()
    reader.join()
    text = "\n".join(body["traceback"])
    assert (body["verdict"], body["code"]) == ("interrupted", "execution_interrupted"), text
    assert body["name"] == "KeyboardInterrupt"
    assert "capsule_kernels" not in text, text
    assert session.value("kept") == repr(name)
    assert session.value("import asyncio\nawait asyncio.sleep(0, 3)") == "3"


@pytest.mark.parametrize("code", ["await asyncio.sleep(3600)", "await wait()"])
@alone
def test_an_interrupt_shows_where_the_users_code_waited_and_not_how_asyncio_waits(code: str) -> None:
    session = Session()
    session.value("import asyncio\nasync def wait():\n    await asyncio.sleep(3600)")
    body = interrupted_when(session, "go", f"go = True\n{code}")
    shown = [line.strip() for line in body["traceback"]]
    assert "await asyncio.sleep(3600)" in shown
    assert code in shown
    assert not [line for line in shown if "tasks.py" in line and "in sleep" in line], shown


def drain(session: Session, stop: threading.Event) -> None:
    while not stop.wait(0.001):
        session.raw(0)
        session.raw(1)


@alone
def test_a_cell_may_catch_its_interrupt() -> None:
    session = Session()
    body = interrupted_when(
        session, "go", "try:\n    go = True\n    while True: pass\nexcept KeyboardInterrupt:\n    r = 5\nr"
    )
    assert (body["verdict"], body["data"]) == ("ok", {"text/plain": "5"})


@alone
def test_finally_blocks_run_and_may_await() -> None:
    session = Session()
    code = (
        "import asyncio\ntry:\n    go = True\n    await asyncio.sleep(3600)\n"
        "finally:\n    await asyncio.sleep(0)\n    cleaned = True"
    )
    assert interrupted_when(session, "go", code)["verdict"] == "interrupted"
    assert session.value("cleaned") == "True"


USES: dict[str, Callable[[Session], dict[str, Any]]] = {
    "sync": lambda session: session.run("never = 1"),
    "async": lambda session: session.run("import asyncio\nnever = 1\nawait asyncio.sleep(0)"),
}


@pytest.mark.parametrize("use", sorted(USES))
@alone
def test_a_cell_that_was_interrupted_before_its_start_runs_nothing(use: str) -> None:
    session = Session()
    session.page.set(TARGET, 1)
    assert USES[use](session)["verdict"] == "interrupted"
    assert session.value("'never' in globals()") == "False"
