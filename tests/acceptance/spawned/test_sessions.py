"""A session whose worker is an interpreter of its own keeps all that sessions promise."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from capsule.events import Output
from tests.acceptance.behaviour.support import HANG, begin, ok, run, still_well
from tests.acceptance.spawned.conftest import SECRET
from tests.unit.kernels.forked import open_descriptors

if TYPE_CHECKING:
    from capsule import AsyncSession
    from capsule.events import Event, InputRequest

pytestmark = pytest.mark.anyio

MIB = 2**20
IN_C = "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')"


async def test_the_thread_of_a_module_lives_in_each_worker(session: AsyncSession) -> None:
    assert (await ok(session, "import restless, os; restless.ask(os.getpid)")).text == str((await session.info()).pid)


async def test_output_and_values_come_in_order_and_nothing_of_the_imports_does(session: AsyncSession) -> None:
    result = await ok(session, "import os\nprint('a'); os.write(1, b'b\\n'); os.system('echo c'); print('d')\n6 * 7")
    assert (result.stdout, result.stderr, result.text) == ("a\nb\nc\nd\n", "", "42")
    assert result.execution_count == 1


async def test_what_the_thread_of_a_module_writes_is_heard(session: AsyncSession) -> None:
    result = await ok(session, "import restless; restless.ask(print, 'from there')")
    assert result.stdout == "from there\n"


async def test_input_is_asked_for(session: AsyncSession) -> None:
    async def answer(request: InputRequest) -> str:
        return request.prompt.upper()

    result = await run(session, "input('name? ')", on_input=answer)
    assert result.text == "'NAME? '"


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(1000)", IN_C])
async def test_an_interrupt_ends_a_cell_and_no_more(session: AsyncSession, code: str) -> None:
    """Although a module has taken SIGINT, and a thread of its own could be given the signal."""
    running = await begin(session, f"kept = 5; print('go', flush=True)\n{code}")
    assert await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    assert (await ok(session, "import restless; restless.ask(int, 7) + kept")).text == "12"


async def test_a_sigint_of_somebody_else_means_the_cell_and_not_the_process(session: AsyncSession) -> None:
    result = await run(session, "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(1000)")
    assert result.verdict == "interrupted"
    await still_well(session)


async def test_a_time_out_ends_a_cell(session: AsyncSession) -> None:
    assert (await run(session, "import time; time.sleep(1000)", timeout=0.5)).verdict == "timeout"
    await still_well(session)


HOARDS = "import time\nkept = bytearray(b'x') * 400 * 2**20\ntime.sleep(1000)"
"""It is looked at what a worker uses, and code that has ended by then has its own verdict."""


async def test_too_much_memory_and_too_many_processes_end_the_session(client: AsyncClient) -> None:
    async with client.session(memory_bytes=256 * MIB) as session:
        assert (await run(session, HOARDS)).verdict == "oom"
    async with client.session(max_processes=8) as session:
        result = await run(
            session, "import os, time\nfor _ in range(30): os.fork() or time.sleep(1000)\ntime.sleep(1000)"
        )
        assert result.error is not None
        assert result.error.code == "process_limit_exceeded"


async def test_a_session_is_saved_restored_and_restarted(client: AsyncClient, tmp_path: Path) -> None:
    async with client.session() as session:
        await ok(session, "kept = [1]\ndef more(): return kept + [2]")
        await session.save(tmp_path / "saved")
        before = (await session.info()).pid
        await session.restart()
        assert (await session.info()).pid != before
        await session.restore(tmp_path / "saved")
        assert (await ok(session, "import restless; more() + [restless.ask(int, 3)]")).text == "[1, 2, 3]"


async def test_a_process_that_ends_itself_is_told(session: AsyncSession) -> None:
    assert (await run(session, "import os; os._exit(3)")).verdict == "crashed"


async def test_what_was_told_to_the_interpreter_cannot_be_read_from_outside(session: AsyncSession) -> None:
    """Of any process the command line can be read, and by its user its variables; none of it is a secret."""
    assert (await ok(session, "warmed")).text == repr(SECRET)
    process = Path("/proc", str((await session.info()).pid))
    assert SECRET.encode() not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert (process / "comm").read_text() == "capsule-worker\n"


async def test_a_worker_has_nothing_open_that_a_forked_one_has_not(session: AsyncSession) -> None:
    async with AsyncClient(environments={"default": {"min_idle": 0}}) as other, other.session() as forked:
        kinds = []
        for one in (session, forked):
            opened = open_descriptors((await one.info()).pid or 0)
            kinds.append({re.sub(r"[0-9]+", "N", what) for what in opened.values()})
    assert kinds[0] <= kinds[1]


async def test_its_children_inherit_nothing_but_the_three(session: AsyncSession) -> None:
    code = "import os; os.system('ls /proc/self/fd')"
    assert (await ok(session, code)).stdout.split() == ["0", "1", "2", "3"]


async def test_processes_of_multiprocessing_begin_in_each_way(session: AsyncSession) -> None:
    code = """
        import multiprocessing
        codes = []
        for method in ("spawn", "forkserver"):
            process = multiprocessing.get_context(method).Process(target=abs, args=(1,))
            process.start(); process.join(); codes.append(process.exitcode)
        codes
    """
    assert (await ok(session, code)).text == "[0, 0]"


async def test_threads_of_modules_are_not_waited_for_at_the_end_of_a_script(session: AsyncSession) -> None:
    assert (await ok(session, "from capsule_kernels.leaving import leave; leave()")).verdict == "ok"


async def test_nor_are_those_of_their_executors(tmp_path: Path) -> None:
    """What is still in hand there may never be done; what the script has given to its own is."""
    (tmp_path / "busy.py").write_text("""
import concurrent.futures, threading
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(threading.Event().wait)
""")
    environment = {"preload": ["busy"], "path": [str(tmp_path)], "start_method": "spawn", "min_idle": 0}
    code = """
        import concurrent.futures
        from capsule_kernels.leaving import leave
        own = concurrent.futures.ThreadPoolExecutor(1)
        own.submit(print, "done")
        leave()
    """
    async with AsyncClient(environments={"default": environment}) as client, client.session() as session:
        assert (await ok(session, code, timeout=HANG / 2)).stdout == "done\n"


async def test_no_dump_of_tracebacks_comes_that_a_module_has_asked_for(tmp_path: Path) -> None:
    """As where workers are forks. What would write it is a thread that Python does not know."""
    (tmp_path / "doubtful.py").write_text("import faulthandler; faulthandler.dump_traceback_later(1e6)")
    environment = {"preload": ["doubtful"], "path": [str(tmp_path)], "start_method": "spawn", "min_idle": 0}
    code = "import os, threading; len(os.listdir('/proc/self/task')) - threading.active_count()"
    async with AsyncClient(environments={"default": environment}) as client, client.session() as session:
        assert (await ok(session, code)).text == "0"


async def test_the_loop_is_the_sessions_whatever_a_module_has_chosen(session: AsyncSession) -> None:
    code = "import asyncio, warnings; warnings.simplefilter('error'); asyncio.get_event_loop().run_until_complete({})"
    assert (await ok(session, code.format("asyncio.sleep(0, 5)"))).text == "5"
    assert (
        await ok(session, "type(asyncio.get_event_loop_policy().get_event_loop()).__name__")
    ).text == "'SessionLoop'"


async def test_tasks_go_on_between_cells(client: AsyncClient) -> None:
    seen = asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Output) and "ticked" in event.text:
            seen.set()

    async with client.session(on_background=watch) as session:
        code = """
            import asyncio
            async def later():
                await asyncio.sleep(0.01); print("ticked")
            task = asyncio.create_task(later())
        """
        await ok(session, code)
        async with asyncio.timeout(HANG):
            await seen.wait()
