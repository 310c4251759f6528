"""What a client of `capsule serve` can do is what it can do in library mode."""

from __future__ import annotations

import ast
import asyncio
import subprocess
from typing import TYPE_CHECKING

import pytest

from capsule import (
    ArgumentError,
    AsyncClient,
    CapsuleError,
    Client,
    Finished,
    InputRequest,
    NodeError,
    Output,
    SessionError,
)
from tests.acceptance.serve.siege import wait_until
from tests.acceptance.serve.support import CAPSULE, LONG, Served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def test_it_says_where_it_listens_and_how_to_connect(served: Served) -> None:
    assert served.said == [f"listening at {served.address}\n", f'connect with  capsule.Client("{served.address}")\n']


async def test_code_runs_and_state_stays(remote: AsyncClient) -> None:
    async with remote.session() as session:
        await session.run("x = 20")
        result = await session.run("import sys\nprint('out'); print('err', file=sys.stderr); x * 2 + 2")
        assert (result.verdict, result.text, result.stdout, result.stderr) == ("ok", "42", "out\n", "err\n")
        failed = await session.run("1 / 0")
        assert failed.error is not None
        assert (failed.verdict, failed.error.name) == ("error", "ZeroDivisionError")
        assert "1 / 0" in "\n".join(failed.error.traceback)


async def test_events_are_numbered_and_end_in_the_verdict(remote: AsyncClient) -> None:
    async with remote.session() as session, session.stream("print('a'); 1") as events:
        told = [event async for event in events]
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert isinstance(told[-1], Finished)
    assert "".join(event.text for event in told if isinstance(event, Output)) == "a\n"


async def test_rich_values_and_displays_arrive_whole(remote: AsyncClient) -> None:
    code = (
        "from IPython.display import display\n"
        "class Picture:\n"
        "    def _repr_png_(self): return bytes(range(256)) * 100\n"
        "display(Picture()); Picture()"
    )
    async with remote.session() as session:
        result = await session.run(code)
    assert result.verdict == "ok"
    (display,) = result.displays
    assert display.data["image/png"] == result.data["image/png"]


async def test_much_output_and_large_results_arrive_whole(remote: AsyncClient) -> None:
    async with remote.session() as session:
        result = await session.run("for n in range(100_000): print(n)\n'x' * 5_000_000")
    assert result.stdout == "".join(f"{n}\n" for n in range(100_000))
    assert len(result.text) == 5_000_002


async def test_input_is_asked_for_and_answered(remote: AsyncClient) -> None:
    asked: list[InputRequest] = []

    def answer(request: InputRequest) -> str:
        asked.append(request)
        return "Ada"

    async with remote.session() as session:
        result = await session.run("input('who? ')", on_input=answer)
        assert result.text == "'Ada'"
        refused = await session.run("input()")
        assert refused.error is not None
        assert refused.error.code == "no_input_client"
    assert [request.prompt for request in asked] == ["who? "]


async def test_interrupt_cancel_timeout_and_restart(remote: AsyncClient) -> None:
    async with remote.session() as session:
        await session.run("kept = 1")
        async with session.stream("print('runs')\nwhile True: pass") as events:
            async for event in events:
                if isinstance(event, Output):
                    assert await session.interrupt()
        assert (await session.run("kept")).text == "1"
        assert (await session.run("while True: pass", timeout=0.2)).verdict == "timeout"
        running = session.submit("print('runs')\nwhile True: pass")
        queued = session.submit("1")
        assert await queued.cancel()
        assert (await queued.result()).verdict == "interrupted"
        assert await running.cancel()
        assert (await running.result()).verdict == "interrupted"
        before = await session.info()
        await session.restart()
        after = await session.info()
        assert (after.epoch, after.id) == (before.epoch + 1, before.id)
        assert after.pid != before.pid


async def test_a_worker_that_dies_is_told_and_the_session_can_be_restarted(remote: AsyncClient) -> None:
    async with remote.session() as session:
        result = await session.run("import os; print('last', flush=True); os._exit(7)")
        assert (result.verdict, result.stdout) == ("crashed", "last\n")
        assert session.state == "dead"
        with pytest.raises(SessionError, match="lost its worker"):
            await session.run("1")
        await session.restart()
        assert (await session.run("1")).text == "1"


async def test_questions_are_answered(remote: AsyncClient) -> None:
    async with remote.session() as session:
        await session.run("alpha = 1")
        assert "alpha" in (await session.complete("alph")).matches
        assert (await session.is_complete("for x in y:")).status == "incomplete"
        assert [variable.name for variable in (await session.namespace()).entries] == ["alpha"]


async def test_a_session_is_given_its_files_variables_and_directory(remote: AsyncClient, tmp_path: Path) -> None:
    code = "import os; open('in.csv').read(), os.environ['COLOUR'], os.getcwd()"
    async with remote.session(files={"in.csv": "1,2\n"}, env={"COLOUR": "red"}) as session:
        content, colour, directory = ast.literal_eval((await session.run(code)).text)
        assert (content, colour) == ("1,2\n", "red")
        assert directory != str(tmp_path)
    async with remote.session(cwd=tmp_path, max_open_files=200, priority="batch") as session:
        result = await session.run("import os, resource; os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]")
        assert ast.literal_eval(result.text) == (str(tmp_path), 200)  # a long path is shown in a line of its own


async def test_a_batch_stops_at_its_first_error(remote: AsyncClient) -> None:
    async with remote.session() as session:
        results = await session.run_all(["1", "1/0", "2"])
    assert [result.verdict for result in results] == ["ok", "error", "interrupted"]


async def test_many_executions_at_once_run_in_order(remote: AsyncClient) -> None:
    async with remote.session() as session:
        await session.run("seen = []")
        executions = [session.submit(f"seen.append({n})") for n in range(300)]
        assert {(await execution.result()).verdict for execution in executions} == {"ok"}
        assert (await session.run("seen == list(range(300))")).text == "True"


async def test_background_output_is_told(remote: AsyncClient) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    code = (
        "import threading\ngo = threading.Event()\nthreading.Thread(target=lambda: (go.wait(), print('late'))).start()"
    )
    async with await remote.session(on_background=lambda event: said.put_nowait(getattr(event, "text", ""))) as session:
        await session.run(code)
        await session.run("go.set()")
        async with asyncio.timeout(LONG):
            assert "late" in await said.get()


async def test_what_is_wrong_is_told_and_nothing_is_left(remote: AsyncClient) -> None:
    sessions = (await remote.info()).sessions
    with pytest.raises(ArgumentError, match="did you mean"):
        remote.session(env={}, prioriti="batch")  # type: ignore[call-arg]  # what is refused
    for environment, code in (("nothing", "environment_unknown"),):
        with pytest.raises(Exception, match="nothing") as caught:
            await remote.session(environment)
        assert getattr(caught.value, "code", "") == code
    assert (await remote.info()).sessions == sessions


async def test_a_key_runs_code_once_and_gives_the_same_events_again(remote: AsyncClient) -> None:
    async with remote.session() as session:
        code = "print('once'); counted = globals().get('counted', 0) + 1; counted"
        results = [await session.run(code, key="k") for _ in range(3)]
        both = [session.submit(code, key="k"), session.submit(code, key="k")]
        results += [await execution.result() for execution in both]
        assert {(result.text, result.stdout, result.execution_id) for result in results} == {
            ("1", "once\n", results[0].execution_id)
        }
        assert (await session.run("counted")).text == "1"
        with pytest.raises(SessionError, match="the idempotency key 'k' was used before with another") as caught:
            await session.run("another", key="k")
        assert caught.value.code == "idempotency_conflict"


async def test_a_session_that_was_left_goes_on_and_is_found_again(served: Served) -> None:
    async with served.client() as first:
        session = await first.session(name="kept")
        await session.run("x = 5")
        execution = session.submit("print('long'); __import__('time').sleep(0.2); x + 1", key="work")
        async with asyncio.timeout(LONG):
            while execution.state != "running":
                await asyncio.sleep(0.001)
        await session.detach()
        with pytest.raises(SessionError, match="closed"):
            await session.run("1")
    async with served.client() as second:
        again = await second.attach("kept")
        result = await again.run("print('long'); __import__('time').sleep(0.2); x + 1", key="work")
        assert (result.text, result.stdout) == ("6", "long\n")
        await again.close()
        with pytest.raises(SessionError) as caught:
            await second.attach("kept")
        assert caught.value.code == "session_unknown"


async def test_a_name_is_given_once(remote: AsyncClient) -> None:
    async with remote.session(name="one"):
        with pytest.raises(SessionError) as caught:
            await remote.session(name="one")
        assert caught.value.code == "name_taken"
    async with remote.session(name="one"):
        pass


async def test_a_session_that_another_client_takes_over_is_told_so(served: Served) -> None:
    async with served.client() as first, served.client() as second:
        session = await first.session(name="wanted")
        running = session.submit("print('runs')\nwhile True: pass")
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        taken = await second.attach("wanted")
        with pytest.raises(SessionError) as caught:
            await running.result()
        assert caught.value.code == "session_taken"
        assert await taken.interrupt()
        assert (await taken.run("6 * 7")).text == "42"
        await taken.close()


def test_the_synchronous_client_is_the_same(served: Served) -> None:
    with Client(served.address) as client, client.session(name="sync") as session:
        assert session.run("6 * 7").text == "42"
        assert client.info().sessions >= 1
        session.detach()
        with client.attach("sync") as again:
            assert again.run("1").text == "1"


def test_the_pool_is_warm_before_the_first_session(place: Path) -> None:
    with Served(place / "warm", "[environments.default]\nmin_idle = 3\n") as served, Client(served.address) as client:
        wait_until(lambda: client.info().pools["default"].idle == 3)
        with client.session() as session:
            assert session.run("6 * 7").text == "42"
        assert client.info().pools["default"].stats.hit_rate == 1


def test_warm_up_code_that_fails_keeps_no_service_from_starting(place: Path) -> None:
    config = "[environments.default]\nwarmup = '1 / 0'\n[environments.other]\nmin_idle = 0\n"
    with Served(place / "broken", config) as served, Client(served.address) as client:
        ready = subprocess.run([CAPSULE, "wait-ready", "--address", served.address], check=False, timeout=LONG)
        assert ready.returncode == 0
        wait_until(lambda: "ZeroDivisionError" in client.info().pools["default"].breaker.cause)
        with client.session("other") as session:
            assert session.run("6 * 7").text == "42"
        with pytest.raises(CapsuleError, match="ZeroDivisionError"):
            client.session()


async def test_an_address_without_a_node_is_told(place: Path) -> None:
    with pytest.raises(NodeError, match="capsule serve") as caught:
        async with AsyncClient(f"ipc://{place}/nothing.sock") as client:
            await client.session()
    assert caught.value.code == "node_unreachable"


def test_only_one_node_listens_in_a_directory(served: Served) -> None:
    second = subprocess.run(
        [str(CAPSULE), "serve", "--directory", str(served.directory)], capture_output=True, check=False, timeout=LONG
    )
    assert second.returncode == 3
    assert b"another node" in second.stderr
    with Client(served.address) as client, client.session() as session:
        assert session.run("1").text == "1"
