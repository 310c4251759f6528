"""What user code does to its own interpreter harms only itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import begin, cell, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["sys.settrace", "sys.setprofile", "threading.settrace"])
async def test_a_trace_function_of_the_user_is_left_alone(session: AsyncSession, where: str) -> None:
    await ok(session, f"import sys, threading\ncalls = []\n{where}(lambda *a: calls.append(1))")
    await still_well(session)
    running = await begin(session, "print('go', flush=True)\nwhile True: pass")
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    await still_well(session)


@pytest.mark.anyio
async def test_a_trace_function_set_in_a_cell_works_in_it(session: AsyncSession) -> None:
    code = """
        import sys
        seen = []
        def trace(frame, event, arg):
            seen.append(frame.f_code.co_name)
        def traced(): return 1
        sys.settrace(trace); traced(); sys.settrace(None)
        'traced' in seen
    """
    assert (await ok(session, code)).text == "True"


@pytest.mark.anyio
async def test_a_trace_function_that_raises_hits_its_own_code_only(client: AsyncClient, session: AsyncSession) -> None:
    await run(session, "import sys\ndef trace(*a): raise RuntimeError('traced')\nsys.settrace(trace)")
    await run(session, "def f(): return 1\nf()")
    await run(session, "import sys; sys.settrace(None)")
    if (await session.info()).state == "dead":
        await session.restart()
    await still_well(session)


@pytest.mark.anyio
async def test_a_replaced_stdout_gets_the_output_and_the_cell_its_verdict(session: AsyncSession) -> None:
    result = await ok(session, "import io, sys\nmine = sys.stdout = io.StringIO()\nprint('mine')\n1 + 1")
    assert (result.stdout, result.text) == ("", "2")
    await ok(session, "sys.stdout = sys.__stdout__")
    assert (await ok(session, "print('back')\nmine.getvalue()")).stdout == "back\n"


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["None", "object()", "open('/dev/full', 'w')"])
async def test_a_broken_stdout_is_the_users_own_error(session: AsyncSession, broken: str) -> None:
    await run(session, f"import sys\nsys.stdout = sys.stderr = {broken}")
    await run(session, "print('lost')")
    await run(session, "1 / 0")
    assert (await ok(session, "6 * 7")).text == "42"
    await ok(session, "sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__")
    await still_well(session)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "handler", ["signal.SIG_IGN", "signal.SIG_DFL", "lambda *a: None", "lambda *a: print('user handler')"]
)
async def test_a_sigint_handler_of_the_user_does_not_disarm_the_interrupt(session: AsyncSession, handler: str) -> None:
    """Whatever stands in for SIGINT, the endless loop ends."""
    await ok(session, f"import signal\n_ = signal.signal(signal.SIGINT, {handler})")
    running = await begin(session, "print('go', flush=True)\nwhile True: pass")
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    await still_well(session)


@pytest.mark.anyio
async def test_an_alarm_that_raises_at_any_moment_ends_its_cell_only(session: AsyncSession) -> None:
    """A timeout in the manner of SIGALRM meets a cell that prints and displays without a pause."""
    code = """
        import signal
        def late(*_): raise TimeoutError("alarm")
        _ = signal.signal(signal.SIGALRM, late)
    """
    await ok(session, code)
    for n in range(1, 21):
        code = f"""
            _ = signal.setitimer(signal.ITIMER_REAL, {n / 5000})
            while True:
                print("x")
                display({{"text/plain": "x"}}, raw=True)
        """
        result = await run(session, code)
        assert result.verdict == "error"
        assert result.error is not None
        assert (result.error.name, result.error.message) == ("TimeoutError", "alarm")
        assert set(result.stdout) <= set("x\n")
    await still_well(session)


@pytest.mark.anyio
async def test_a_blocked_interrupt_signal_is_no_shelter(client: AsyncClient) -> None:
    async with client.session(interrupt_grace=0.5) as session:
        code = "import signal\n_ = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
        running = await begin(session, code + "\nprint('go', flush=True)\nwhile True: pass")
        await session.interrupt()
        assert (await running.result()).verdict == "killed"
        await session.restart()
        await still_well(session)


@pytest.mark.anyio
@pytest.mark.parametrize("closed", ["0", "1", "2", "0, 1, 2"])
async def test_closed_descriptors_cost_their_output_only(session: AsyncSession, closed: str) -> None:
    await run(session, f"import os, sys\nkept = 1\nfor fd in ({closed},): os.close(fd)")
    await run(session, "print('perhaps lost'); print('perhaps lost', file=sys.stderr)")
    await run(session, "os.system('echo perhaps lost')")
    result = await ok(session, "kept + 41")
    assert result.text == "42"
    error = await run(session, "1 / 0")
    assert error.error is not None
    assert error.error.name == "ZeroDivisionError"
    await session.restart()
    await still_well(session)


@pytest.mark.anyio
async def test_files_opened_after_a_close_do_not_become_the_protocols(session: AsyncSession) -> None:
    """A file that gets the number 1 is the user's, and nothing but the user's own text gets into it."""
    code = """
        import os, tempfile
        os.close(1)
        path = tempfile.mktemp()
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.write(fd, b"mine")
        size = os.path.getsize(path)
        os.unlink(path)
        fd, size
    """
    result = await run(session, code)
    assert result.verdict == "ok"
    assert result.text == "(1, 4)"
    assert (await ok(session, "6 * 7")).text == "42"


@pytest.mark.anyio
async def test_who_closes_low_descriptors_closes_none_of_the_workers_link(session: AsyncSession) -> None:
    """As programs do that make a daemon of themselves. Threads still show things, and heartbeats are answered."""
    await ok(session, "import os, threading\nfrom IPython.display import display\nos.closerange(3, 64)")
    code = "thread = threading.Thread(target=display, args=(42,)); thread.start(); thread.join(); 6 * 7"
    result = await ok(session, code)
    assert (result.text, [shown.data["text/plain"] for shown in result.displays]) == ("42", ["42"])


@pytest.mark.anyio
@pytest.mark.parametrize("away", ["/", "/proc/self", "a directory that is gone"])
async def test_changing_the_directory_away_is_the_users_business(session: AsyncSession, away: str) -> None:
    if away.startswith("/"):
        await ok(session, f"import os\nos.chdir({away!r})")
    else:
        await ok(session, "import os, tempfile\nd = tempfile.mkdtemp()\nos.chdir(d)\nos.rmdir(d)")
    await still_well(session)
    error = await run(session, "def f():\n    1 / 0\nf()")
    assert error.error is not None
    assert "1 / 0" in "\n".join(error.error.traceback)
    assert (await session.complete("os.pat", 6)).matches
    await ok(session, "import json, string\n")


HARM = {
    "no builtins": "import builtins\ndel builtins.len, builtins.print",
    "globals cleared": "globals().clear()",
    "no get_ipython": "del get_ipython",
    "In and Out overwritten": "In = Out = _ = None",
    "sys.modules cleared": "import sys\nsys.modules.clear()",
    "sys.path cleared": "import sys\nsys.path.clear()",
    "excepthook replaced": "import sys\nsys.excepthook = sys.displayhook = None",
    "no memory for recursion": "import sys\nsys.setrecursionlimit(60)",
    "the event loop closed": "import asyncio\nasyncio.get_event_loop_policy().get_event_loop().close()",
    "the collector off": "import gc\ngc.disable(); gc.set_debug(0)",
    "alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.001)\nwhile True: pass",
    "environment cleared": "import os\nos.environ.clear()",
    "IPython broken": "import IPython.core.interactiveshell as i\ni.InteractiveShell.run_cell = None",
}


@pytest.mark.anyio
@pytest.mark.parametrize("harm", HARM)
async def test_harm_ends_in_verdicts_and_stays_where_it_is(
    client: AsyncClient, session: AsyncSession, harm: str
) -> None:
    """Each execution after it still has one verdict, a neighbour is untouched, a restart heals."""
    async with client.session(interrupt_grace=0.5) as victim:
        await run(victim, HARM[harm])
        if (await victim.info()).state != "dead":
            await run(victim, "6 * 7", timeout=10)
        await victim.restart()
        await still_well(victim)
    await still_well(session)


@pytest.mark.anyio
async def test_engine_names_survive_being_overwritten(session: AsyncSession) -> None:
    """The namespace is merged, never replaced: history goes on for code that did not touch it."""
    await ok(session, "'first'")
    await run(session, "In = Out = None")
    await run(session, "'third'")
    await still_well(session)


@pytest.mark.anyio
async def test_code_that_breaks_the_capture_gets_an_error_and_never_a_result(client: AsyncClient) -> None:
    """The marks of the end cannot arrive any more, so nobody can say that the output is whole."""
    code = """
        import os
        print("before", flush=True)
        nowhere = os.open("/dev/null", os.O_WRONLY)
        for descriptor in (64, 65):
            os.dup2(nowhere, descriptor)
        print("after")
    """
    async with client.session(drain_timeout=0.5) as session:
        result = await session.run(cell(code))
        assert (result.verdict, result.error and result.error.code) == ("error", "output_drain_timeout")
        assert result.stdout == "before\n"
        assert (await session.info()).state == "dead"
        await session.restart()
        assert (await session.run("1")).text == "1"
