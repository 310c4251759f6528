"""One client drives a session, others share it: what each runs is its own, in one line, with the same variables."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, AsyncClient, SessionError
from capsule.events import Output, Started
from capsule.node.front.hosted import MAX_LEFT
from capsule.node.front.watch import MAX_WATCHERS
from capsule.node.lineup import WINDOW
from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.framing import pack
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.support import LONG, Served, through_proxy
from tests.acceptance.serve.whole import check, collect, survive_cuts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from capsule import AsyncSession, Event, Result

pytestmark = pytest.mark.anyio

ENDLESS = "print('runs')\nwhile True: pass"
FLOOD = "for n in range(500): print('x' * 30_000, flush=True)\nn"
FLOODED = 500 * 30_001
"""Bytes: more than may wait, in all places together, for a client that reads nothing."""
AT_ONCE = 250
"""Executions that a session takes at once."""
SHARE = """
import sys, capsule
session = capsule.Client(sys.argv[1]).attach("shared", share=True)
running = session.submit(sys.argv[2])
running.accepted()
print("accepted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def driver(remote: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with remote.session(name="shared") as session:
        yield session


@pytest.fixture
async def sharer(served: Served, driver: AsyncSession) -> AsyncIterator[AsyncSession]:
    async with served.client() as client, await client.attach(driver.name, share=True) as session:
        yield session


async def code_of(attempt: Awaitable[object]) -> str:
    with pytest.raises(SessionError) as caught:
        await attempt
    return caught.value.code


async def begin(session: AsyncSession, code: str, **options: Any) -> tuple[asyncio.Task[Result], str]:
    """Code that has told something by now, and the id of its execution."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_event(event: Event) -> None:
        if not isinstance(event, Started) and not told.done():
            told.set_result(event.execution_id)

    task = asyncio.ensure_future(session.run(code, on_event=on_event, **options))
    async with asyncio.timeout(LONG):
        return task, await told


async def text_of(session: AsyncSession, code: str) -> str:
    """What the value of some code looks like."""
    async with asyncio.timeout(LONG):
        result = await session.run(code)
    assert result.ok, result
    return result.text


async def test_both_run_code_in_turn_with_the_same_variables(driver: AsyncSession, sharer: AsyncSession) -> None:
    await driver.run("x = [1]")
    assert await text_of(sharer, "x.append(2)\nx") == "[1, 2]"
    assert await text_of(driver, "x.append(3)\nx") == "[1, 2, 3]"
    for _ in range(3):
        check(await collect(sharer))
        check(await collect(driver))
    assert (await sharer.complete("x.app")).matches == ["append"]
    assert (await sharer.inspect("x")).found
    assert "x" in await sharer.namespace()
    assert (await sharer.info()).id == sharer.id == driver.id


async def test_what_both_ask_for_at_once_runs_in_one_order_and_to_each_is_told_its_own(
    driver: AsyncSession, sharer: AsyncSession
) -> None:
    await driver.run("seen = []")
    both = {"driver": driver, "sharer": sharer}
    asked = [
        (name, number, who.submit(f"print('{name}', {number})\nseen.append(('{name}', {number}))\nlen(seen)"))
        for number in range(20)
        for name, who in both.items()
    ]
    async with asyncio.timeout(LONG):
        results = [(name, number, await execution.result()) for name, number, execution in asked]
    assert [one.stdout for _, _, one in results] == [f"{name} {number}\n" for name, number, _ in results]
    assert sorted(int(one.text) for _, _, one in results) == list(range(1, 41))
    for name in both:
        assert await text_of(driver, f"[n for who, n in seen if who == '{name}']") == str(list(range(20)))


async def test_what_concerns_the_code_of_others_is_refused(driver: AsyncSession, sharer: AsyncSession) -> None:
    running, execution = await begin(driver, ENDLESS)
    attempts = (sharer.interrupt(), sharer.restart(), sharer.cancel_all(), sharer.files(), sharer.debug({}))
    for attempt in (*attempts, sharer.cancel(execution)):
        assert await code_of(attempt) == "session_shared"
    assert await code_of(anext(aiter(sharer.watch()))) == "unsupported"
    assert await driver.interrupt()
    assert (await running).verdict == "interrupted"


async def test_a_sharer_cancels_its_own(driver: AsyncSession, sharer: AsyncSession) -> None:
    running, execution = await begin(sharer, ENDLESS)
    queued, waits = driver.submit("'waited'"), sharer.submit(ENDLESS)
    await waits.accepted()
    assert await waits.cancel()
    assert await sharer.cancel(execution)
    async with asyncio.timeout(LONG):
        assert (await running).verdict == (await waits.result()).verdict == "interrupted"
        assert (await queued.result()).text == "'waited'"


async def test_whoever_drives_ends_what_a_sharer_runs(driver: AsyncSession, sharer: AsyncSession) -> None:
    running, _ = await begin(sharer, ENDLESS)
    waits = sharer.submit(ENDLESS)
    await waits.accepted()
    assert await driver.cancel_all() == 2
    async with asyncio.timeout(LONG):
        assert (await running).verdict == (await waits.result()).verdict == "interrupted"
    running, execution = await begin(sharer, ENDLESS)
    assert await driver.cancel(execution)
    assert (await running).verdict == "interrupted"


async def test_a_question_goes_to_who_runs_the_code(driver: AsyncSession, sharer: AsyncSession) -> None:
    for who in (sharer, driver):
        result = await who.run("input('how many? ')", on_input=lambda request: f"{request.prompt}3")
        assert result.text == "'how many? 3'"


async def test_what_comes_after_its_verdict_goes_to_who_has_run_it(served: Served, remote: AsyncClient) -> None:
    late: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def told(who: str) -> Any:
        return lambda event: late.put_nowait((who, event.text)) if isinstance(event, Output) else None

    run = "lambda: (go.wait(), print('{}', end=''))"
    code = f"import threading\ngo = threading.Event()\nthreading.Thread(target={run}).start()"
    async with (
        remote.session(on_background=told("driver")) as driver,
        served.client() as client,
        await client.attach(driver.id, share=True, on_background=told("sharer")) as sharer,
        asyncio.timeout(LONG),
    ):
        for who, session in (("sharer", sharer), ("driver", driver)):
            await session.run(code.format(who))
            await driver.run("go.set()")
            assert await late.get() == (who, who)


async def test_who_reads_slowly_holds_up_his_own_code_only(driver: AsyncSession, sharer: AsyncSession) -> None:
    slow = sharer.submit(FLOOD)
    await slow.accepted()
    after = driver.submit("'after'")
    async with asyncio.timeout(LONG):
        assert len((await slow.result()).stdout) == FLOODED
        assert (await after.result()).text == "'after'"
    running, _ = await begin(driver, FLOOD)
    other = sharer.submit("1")
    assert len((await running).stdout) == FLOODED
    assert (await other.result()).text == "1"


@pytest.mark.parametrize("code", [FLOOD, "import time\ntime.sleep(0.2)"], ids=["flood", "quiet"])
async def test_a_sharer_that_is_killed_takes_nothing_with_it(served: Served, driver: AsyncSession, code: str) -> None:
    before = (await driver.info()).pid
    with subprocess.Popen(
        [sys.executable, "-c", SHARE, served.address, f"{code}\nx = 'whole'"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"accepted\n"
        process.kill()
    assert await text_of(driver, "x") == "'whole'"
    assert (await driver.info()).pid == before


async def test_a_sharer_that_leaves_leaves_its_code_to_itself(served: Served, driver: AsyncSession) -> None:
    async with served.client() as client:
        async with await client.attach("shared", share=True) as sharer:
            slow = sharer.submit(FLOOD)
            await slow.accepted()
        assert await code_of(slow.result()) == "session_closed"
        assert await text_of(driver, "n") == "499"
        async with await client.attach("shared", share=True) as again:
            assert await text_of(again, "n + 1") == "500"


def test_what_sharers_leave_unread_does_not_stay_for_ever(served: Served, request: pytest.FixtureRequest) -> None:
    with Raw(served.address) as raw, Raw(served.address) as other:
        raw.greet("c_driver")
        session = raw.open()
        other.greet("c_sharer")
        names = [f"e_{number}" for number in range(MAX_LEFT + 1)]
        for start in range(0, len(names), AT_ONCE):
            share(other, session)
            for name in names[start : start + AT_ONCE]:
                other.say("execute", {"code": "1"}, session, name)
            for _ in names[start : start + AT_ONCE]:
                until(other, "result", "error")
            other.say("detach", {}, session, id_="m_detach")
            assert other.answer("m_detach").type == "status"
        share(other, session)
        told = []
        for name in (names[0], names[1]):
            other.say("resume", {"after": 0}, session, name)
            told.append(until(other, "result", "error").body.get("code"))
        assert told == (["execution_unknown", None] if "forgetful" in request.node.name else [None, None])
        raw.say("close", {}, session, id_="m_close")
        assert raw.answer("m_close").type == "status"


def test_what_its_client_asks_for_before_it_detaches_waits_for_nobody(served: Served) -> None:
    with Raw(served.address) as raw, Raw(served.address) as other:
        raw.greet("c_driver")
        session = raw.open()
        other.greet("c_sharer")
        share(other, session)
        asked = Envelope("execute", {"code": FLOOD}, "", session, "e_flood")
        left = Envelope("detach", {}, "m_detach", session)
        raw.write(b"".join(part for one in (asked, left) for part in pack(encode(one))))  # while it is being accepted
        assert raw.answer("m_detach").type == "status"
        other.say("execute", {"code": "n"}, session, "e_behind")
        assert until(other, "result", "error").body.get("data") == {"text/plain": "499"}
        raw.say("attach", {"name": session}, id_="m_attach")
        assert raw.answer("m_attach").type == "ready"
        raw.say("close", {}, session, id_="m_close")
        assert raw.answer("m_close").type == "status"


@pytest.mark.parametrize("way", ["share", "watch"])
def test_a_name_is_no_way_around_how_a_client_has_the_session(served: Served, way: str) -> None:
    with Raw(served.address) as raw, Raw(served.address) as other:
        raw.greet("c_driver")
        session = raw.open(name="named")
        other.greet("c_other")
        other.say("attach", {"name": "named", way: True}, id_="m_attach")
        assert other.answer("m_attach").type == "ready"
        for name in ("named", session):
            other.say("save", {"file": "all"}, name, id_="m_save")
            assert other.answer("m_save").body["code"] == ("session_shared" if way == "share" else "session_watched")
        raw.say("close", {}, session, id_="m_close")
        assert raw.answer("m_close").type == "status"


def share(raw: Raw, session: str) -> None:
    raw.say("attach", {"name": session, "share": True}, id_="m_share")
    assert raw.answer("m_share").type == "ready"


def until(raw: Raw, *types: str) -> Envelope:
    """The next message of one of these types."""
    while (message := raw.hear()) is not None:
        if message.type in types:
            return message
    raise AssertionError("the node has hung up")


async def test_a_sharer_comes_back_after_a_lost_connection(
    served: Served, driver: AsyncSession, tmp_path: Path
) -> None:
    async with through_proxy(served, tmp_path) as (proxy, client):
        sharer = await client.attach("shared", share=True)
        running, _ = await begin(sharer, "print(input('go on? '))", on_input=lambda _: _later(proxy))
        async with asyncio.timeout(LONG):
            assert (await running).stdout == "yes\n"
        assert proxy.connections == 2
        assert await text_of(driver, "1") == "1"
        assert await code_of(sharer.interrupt()) == "session_shared"


async def _later(proxy: Any) -> str:
    proxy.cut()
    return "yes"


async def test_a_sharer_misses_nothing_at_cuts(served: Served, driver: AsyncSession, tmp_path: Path) -> None:
    async with through_proxy(served, tmp_path) as (proxy, client):
        await survive_cuts(proxy, await client.attach("shared", share=True), random.Random(1), 20, 2000)
    check(await collect(driver))


async def test_the_driver_detaches_and_comes_back(served: Served, remote: AsyncClient) -> None:
    driver = await remote.session(name="left")
    async with served.client() as client, await client.attach("left", share=True) as sharer:
        await driver.run("x = 1")
        slow = sharer.submit(FLOOD)
        await slow.accepted()
        await driver.detach()
        async with asyncio.timeout(LONG):
            assert len((await slow.result()).stdout) == FLOODED
        assert await text_of(sharer, "x") == "1"
        async with await remote.attach("left") as again:
            assert await text_of(again, "x") == "1"
            assert await text_of(sharer, "x + 1") == "2"


async def test_who_takes_the_session_over_takes_no_sharer_away(
    served: Served, driver: AsyncSession, sharer: AsyncSession
) -> None:
    running, execution = await begin(sharer, "input()", on_input=lambda _: _answer())
    async with served.client() as client:
        taken = await client.attach("shared")
        assert await code_of(driver.run("1")) == "session_taken"
        assert await taken.cancel(execution)
        assert (await running).verdict == "interrupted"
        assert await text_of(sharer, "2") == "2"
        await taken.close()
        assert await code_of(sharer.run("1")) == "session_closed"


async def _answer() -> str:
    await asyncio.Event().wait()
    return ""


@pytest.mark.parametrize("way", ["session_closed", "session_killed"])
async def test_the_end_of_the_session_is_told_behind_the_verdicts(
    served: Served, remote: AsyncClient, way: str
) -> None:
    driver = await remote.session(name="brief")
    async with served.client() as client, asyncio.timeout(LONG):
        sharer = await client.attach("brief", share=True)
        running, _ = await begin(sharer, ENDLESS)
        await (driver.close() if way == "session_closed" else remote.kill("brief"))
        assert (await running).verdict == "killed"
        assert await code_of(sharer.run("1")) == way
        await sharer.close()


async def test_a_restart_is_seen_by_who_shares(driver: AsyncSession, sharer: AsyncSession) -> None:
    running, _ = await begin(sharer, "x = 1\n" + ENDLESS)
    waits = sharer.submit("x")
    await waits.accepted()
    await driver.restart()
    async with asyncio.timeout(LONG):
        assert (await running).verdict == "killed"
        assert not (await waits.result()).ok
        assert await text_of(sharer, "'x' in dir()") == "False"
    assert sharer.epoch == driver.epoch == 2


async def test_the_same_key_is_the_same_execution_and_each_gets_all_of_it(
    driver: AsyncSession, sharer: AsyncSession
) -> None:
    await driver.run("times = 0")
    code = f"times += 1\n{FLOOD}\ntimes"
    both = [who.submit(code, key="once") for who in (driver, sharer)]
    async with asyncio.timeout(LONG):
        results = await asyncio.gather(*(one.result() for one in both))
    assert [(one.text, len(one.stdout)) for one in results] == [("1", FLOODED)] * 2


async def test_a_client_has_a_session_in_one_way(served: Served, driver: AsyncSession, remote: AsyncClient) -> None:
    async with served.client() as client:
        with pytest.raises(ArgumentError):
            await client.attach("shared", share=True, watch=True)
        with pytest.raises(ArgumentError):
            await remote.attach("shared", share=True)
        sharer = await client.attach("shared", share=True)
        with pytest.raises(ArgumentError):
            await client.attach("shared", watch=True)
        taken = await client.attach("shared")
        assert await code_of(sharer.run("1")) == "session_taken"
        assert await code_of(driver.run("1")) == "session_taken"
        assert await text_of(taken, "1") == "1"
        await taken.close()


def test_who_does_not_say_which_client_it_is_shares_nothing(served: Served) -> None:
    with Raw(served.address) as raw:
        raw.greet("")
        session = raw.open()
        with Raw(served.address) as other:
            other.greet("")
            other.say("attach", {"name": session, "share": True}, id_="m_share")
            assert other.answer("m_share").body["code"] == "invalid_argument"
        raw.say("close", {}, session, id_="m_close")
        assert raw.answer("m_close").type == "status"


async def test_both_go_on_when_the_service_was_killed(place: Path) -> None:
    with Served(place / "killed", linger=LONG) as first:
        async with first.client() as one, first.client() as other, asyncio.timeout(LONG):
            driver = await one.session(name="both")
            sharer = await other.attach("both", share=True)
            await driver.run("import time\nx = []")
            code = "print('runs')\nfor n in range(100): print('x' * 1000); time.sleep(0.01)\nx.append({!r})"
            running, _ = await begin(sharer, code.format("sharer"))
            waits = driver.submit(code.format("driver"))
            await waits.accepted()
            first.kill()
            first.process.wait()
            with Served(first.directory, linger=LONG) as second:
                for result in (await running, await waits.result()):
                    assert (result.verdict, len(result.stdout)) == ("ok", 5 + 100 * 1001)
                assert await text_of(sharer, "x") == await text_of(driver, "x") == "['sharer', 'driver']"
                assert await code_of(sharer.restart()) == "session_shared"
                await driver.close()
                assert second.stop() == 0


def test_what_waits_at_a_node_that_is_killed_does_not_wait_for_its_client(place: Path) -> None:
    with Served(place / "waits") as first:
        with Raw(first.address) as raw:
            raw.greet("c_driver")
            session = raw.open(name="woken")
            for name in (f"e_{number}" for number in range(WINDOW)):
                raw.say("execute", {"code": "input()", "allow_input": True}, session, name)
            raw.say("execute", {"code": FLOOD}, session, "e_flood")  # more than is sent to the worker, and lost with it
            while until(raw, "ack").execution != "e_flood":
                pass
            first.kill()
            first.process.wait()
        with Served(first.directory) as second, Raw(second.address) as other:
            other.greet("c_sharer")
            share(other, session)
            other.say("execute", {"code": "n"}, session, "e_behind")
            assert until(other, "result", "error").body.get("data") == {"text/plain": "499"}
            assert second.stop() == 0


async def test_there_is_a_limit(served: Served, driver: AsyncSession) -> None:
    clients = [served.client() for _ in range(MAX_WATCHERS)]
    for number, client in enumerate(clients):
        await client.attach("shared", share=number % 2 > 0, watch=number % 2 == 0)
    async with served.client() as client:
        for share in (True, False):
            assert await code_of(client.attach("shared", share=share, watch=not share)) == "too_many_watchers"
        await asyncio.gather(*(client.close() for client in clients))
        async with await client.attach("shared", share=True) as sharer:
            assert await text_of(sharer, "1") == "1"
    assert await text_of(driver, "2") == "2"


@pytest.mark.parametrize("way", ["share", "watch"])
async def test_a_place_that_was_taken_meanwhile_costs_its_client_no_other_session(
    served: Served, driver: AsyncSession, tmp_path: Path, way: str
) -> None:
    async with through_proxy(served, tmp_path) as (proxy, client):
        own = await client.session()
        guest = await client.attach("shared", share=way == "share", watch=way == "watch")
        proxy.shut = True
        proxy.cut()
        clients = [served.client() for _ in range(MAX_WATCHERS)]
        async with asyncio.timeout(LONG):
            for one in clients:
                await _attach(one)
            proxy.shut = False
            assert await text_of(own, "1") == "1"
        assert await code_of(guest.info()) == "too_many_watchers"
        await asyncio.gather(*(one.close() for one in clients))


async def _attach(client: AsyncClient) -> None:
    """As soon as there is a place: the node may not have heard yet that a connection was cut."""
    while True:
        with suppress(SessionError):
            await client.attach("shared", watch=True)
            return
