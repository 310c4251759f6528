"""The bridge over a store: waiting, canceling, counting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from capsule_bridge import Bridge, Promise, Retention, SessionPromises, Settlement, SqliteStore
from capsule_bridge.bridge import wall_clock
from capsule_bridge.interceptors import BUDGET
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import SessionError, StoreError
from tests.unit.bridge.support import KINDS, new, open_kind

pytestmark = pytest.mark.anyio


class Clock:
    """Milliseconds, as the test says."""

    now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
async def bridge(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Bridge]:
    made = Bridge(open_kind(request.param, tmp_path), clock)
    yield made
    await made.close()


async def test_who_waits_is_woken_by_the_verdict(bridge: Bridge) -> None:
    await bridge.accept(new("exec:a"))
    waiting = asyncio.ensure_future(bridge.wait("exec:a"))
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    await bridge.settle(Settlement("exec:a", "resolve", b"yes"))
    assert (await waiting).value == b"yes"
    assert (await bridge.wait("exec:a")).value == b"yes"


async def test_who_waits_for_a_child_is_woken_by_the_verdict_of_its_parent(bridge: Bridge) -> None:
    await bridge.accept(new("exec:a"))
    await bridge.accept(new("exec:a:input:1", parent="exec:a"))
    waiting = asyncio.ensure_future(bridge.wait("exec:a:input:1"))
    await asyncio.wait([waiting], timeout=0.05)
    await bridge.settle(Settlement("exec:a", "resolve"))
    assert (await waiting).state == "rejected_canceled"
    assert bridge.info().pending == 0


async def test_who_waits_hears_of_the_time_out_that_nobody_writes_down(bridge: Bridge, clock: Clock) -> None:
    await bridge.accept(new("exec:a", timeout_at=clock.now + 20))
    waiting = asyncio.ensure_future(bridge.wait("exec:a"))
    clock.now += 20
    assert (await waiting).state == "rejected_timedout"


async def test_canceling_all_of_a_session_is_done_once(bridge: Bridge) -> None:
    for name in ("exec:a", "exec:b"):
        await bridge.accept(new(name))
    await bridge.accept(new("exec:c", session="other"))
    assert await bridge.cancel_all("s") == 2
    assert await bridge.cancel_all("s") == 0
    assert (await bridge.get("exec:a")).state == "rejected_canceled"
    assert (await bridge.get("exec:c")).pending


async def test_it_counts_what_it_does(bridge: Bridge, clock: Clock) -> None:
    await bridge.accept(new("exec:a", key="k", epoch=1, log=(b"1",)))
    await bridge.accept(new("exec:b", timeout_at=clock.now + 50))
    await bridge.accept(new("exec:x", key="k"))
    with pytest.raises(SessionError, match="used before"):
        await bridge.accept(new("exec:y", key="k", fingerprint=b"other"))
    clock.now += 10
    info = bridge.info()
    assert (info.pending, info.high_water, info.oldest) == (2, 2, 0.01)
    assert (info.accepted, info.dedup_hits, info.conflicts) == (2, 1, 1)
    await bridge.settle(Settlement("exec:a", "reject", log=(b"2",), after=1))
    await bridge.settle(Settlement("exec:a", "resolve"))
    clock.now += 40
    await bridge.expire(Retention())
    info = bridge.info()
    assert info.verdicts == {"rejected": 1, "rejected_timedout": 1}
    assert (info.pending, info.high_water, info.oldest) == (0, 2, 0.0)
    assert 0 < info.commit_p50 <= info.commit_p99 or "Memory" in type(bridge.store).__name__


async def test_a_verdict_that_is_said_to_have_failed_and_has_not_is_counted_when_it_is_given_again(
    tmp_path: Path, clock: Clock
) -> None:
    failures = iter([OSError(5, "Input/output error")])
    settling = False

    def fault(at: FaultPoint) -> None:
        if settling and at == "committed" and (error := next(failures, None)):
            raise error

    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process", fault=fault), clock)
    await bridge.accept(new("exec:a"))
    settling = True
    with pytest.raises(StoreError):
        await bridge.settle(Settlement("exec:a", "resolve"))
    assert bridge.info().pending == 1
    await bridge.settle(Settlement("exec:a", "resolve"))
    await bridge.settle(Settlement("exec:a", "resolve"))
    assert (bridge.info().pending, bridge.info().verdicts) == (0, {"resolved": 1})
    await bridge.close()


async def test_every_verdict_is_counted_and_told_once_whoever_or_whatever_gives_it(
    tmp_path: Path, clock: Clock
) -> None:
    seen: list[tuple[str, str]] = []

    def look(step: str, promise: Promise) -> None:
        if step == "settled":
            seen.append((promise.id, promise.state))

    bridge = Bridge(open_kind("memory", tmp_path), clock, interceptors=[look])
    for name in ("exec:waited", "exec:due"):
        await bridge.accept(new(name, timeout_at=clock.now + 100))
        await bridge.accept(new(f"{name}:input:1", parent=name))
    await bridge.accept(new("exec:done"))
    await bridge.accept(new("exec:done:input:1", parent="exec:done"))
    waiting = [asyncio.ensure_future(bridge.wait(f"exec:{name}:input:1")) for name in ("done", "due")]
    await asyncio.wait(waiting, timeout=0.01)
    await bridge.settle(Settlement("exec:done", "resolve"))
    clock.now += 100
    await bridge.wait("exec:waited")
    await bridge.expire(Retention())
    await asyncio.gather(*waiting)
    await bridge.expire(Retention())
    assert sorted(seen) == [
        ("exec:done", "resolved"),
        ("exec:done:input:1", "rejected_canceled"),
        ("exec:due", "rejected_timedout"),
        ("exec:due:input:1", "rejected_canceled"),
        ("exec:waited", "rejected_timedout"),
        ("exec:waited:input:1", "rejected_canceled"),
    ]
    info = bridge.info()
    assert info.verdicts == {"resolved": 1, "rejected_timedout": 2, "rejected_canceled": 3}
    assert (info.pending, info.quarantined) == (0, ())


async def test_what_belongs_to_a_session_is_counted_for_it_until_its_end(bridge: Bridge, clock: Clock) -> None:
    for name in ("s", "other"):
        await bridge.accept(new(f"session:{name}", kind="session", session=name))
    await bridge.accept(new("exec:a", key="k"))
    await bridge.accept(new("exec:x", key="k"))
    with pytest.raises(SessionError, match="used before"):
        await bridge.accept(new("exec:y", key="k", fingerprint=b"other"))
    await bridge.accept(new("exec:a:input:1", kind="input", parent="exec:a"))
    await bridge.accept(new("exec:b", session="other"))
    clock.now += 2_000
    times = bridge.info().commit_p50, bridge.info().commit_p99
    assert 0 < times[0] <= times[1]
    assert bridge.info_of("s") == SessionPromises(2, 2, 2.0, 2, {}, 1, 1, *times)
    await bridge.settle(Settlement("exec:a", "resolve"))
    ended = {"resolved": 1, "rejected_canceled": 1}
    times = bridge.info().commit_p50, bridge.info().commit_p99
    assert bridge.info_of("s") == SessionPromises(0, 2, 0.0, 2, ended, 1, 1, *times)
    assert bridge.info_of("other") == SessionPromises(1, 1, 2.0, 1, {}, 0, 0, *times)
    await bridge.settle(Settlement("session:s", "resolve"))
    await bridge.accept(new("exec:late"))
    assert bridge.info_of("s") is None


async def test_a_wall_clock_that_jumps_moves_no_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(open_kind("memory", tmp_path))
    began, wall = bridge.now(), time.time_ns
    assert abs(began - wall_clock()) < 60_000
    for hours in (2, -2):
        monkeypatch.setattr(time, "time_ns", lambda shift=hours * 3_600: wall() + shift * 10**9)
        assert abs(wall_clock() - began) > 3_600_000
        await bridge.accept(new(f"exec:{hours}", timeout_at=bridge.now() + 60_000))
        assert (await bridge.get(f"exec:{hours}")).pending
        await bridge.accept(new(f"exec:{hours}:soon", timeout_at=bridge.now() + 20))
        async with asyncio.timeout(60):
            assert (await bridge.wait(f"exec:{hours}:soon")).state == "rejected_timedout"
    assert began <= bridge.now() < began + 3_600_000
    await bridge.close()


async def test_a_long_log_is_read_to_its_end(bridge: Bridge) -> None:
    await bridge.accept(new("exec:a"))
    await bridge.append("exec:a", [b"%d" % n for n in range(2_500)], 0, None)
    assert [event.sequence async for event in bridge.events("exec:a", 3)] == list(range(4, 2_501))


async def test_who_looks_on_is_told_of_what_was_committed(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []
    bridge = Bridge(
        open_kind("memory", tmp_path),
        interceptors=[lambda step, promise: seen.append((step, promise.id, promise.state))],
    )
    await bridge.accept(new("exec:a", key="k"))
    await bridge.accept(new("exec:b", key="k"))
    await bridge.settle(Settlement("exec:a", "reject"))
    await bridge.settle(Settlement("exec:a", "resolve"))
    assert seen == [
        ("accepted", "exec:a", "pending"),
        ("attached", "exec:a", "pending"),
        ("settled", "exec:a", "rejected"),
    ]
    assert bridge.info().quarantined == ()


async def test_who_looks_on_too_long_or_fails_is_named_and_called_no_more(tmp_path: Path) -> None:
    calls = {"slow": 0, "broken": 0, "good": 0}

    def slow(_step: str, _promise: object) -> None:
        calls["slow"] += 1
        until = time.perf_counter() + 2 * BUDGET
        while time.perf_counter() < until:
            pass

    def broken(_step: str, _promise: object) -> None:
        calls["broken"] += 1
        raise ValueError("no")

    def good(_step: str, _promise: object) -> None:
        calls["good"] += 1

    bridge = Bridge(open_kind("memory", tmp_path), interceptors=[slow, broken, good])
    for number in range(3):
        await bridge.accept(new(f"exec:{number}"))
    assert calls == {"slow": 1, "broken": 1, "good": 3}
    names = bridge.info().quarantined
    assert [name.rpartition(".")[2] for name in names] == ["slow", "broken"]
    assert [each.calls for each in bridge.interceptors.quarantined] == [1, 1]
    assert "and may take 10" in bridge.interceptors.quarantined[0].reason
    assert "ValueError: no" in bridge.interceptors.quarantined[1].reason


# Two nodes, one store


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Bridge, Bridge]]:
    one, other = (Bridge(open_kind("postgres", tmp_path)) for _ in range(2))
    yield one, other
    await one.close()
    await other.close()


async def test_who_waits_at_one_node_hears_the_verdict_that_another_gives(pair: tuple[Bridge, Bridge]) -> None:
    one, other = pair
    await one.accept(new("exec:a"))
    await one.accept(new("exec:a:input:1", parent="exec:a"))
    waiting = [asyncio.ensure_future(one.wait(id_)) for id_ in ("exec:a", "exec:a:input:1")]
    await asyncio.wait(waiting, timeout=0.05)
    await other.settle(Settlement("exec:a:input:1", "resolve", b"yes"))
    assert (await asyncio.wait_for(waiting[1], 60)).value == b"yes"
    await other.settle(Settlement("exec:a", "reject", b"no"))
    assert (await asyncio.wait_for(waiting[0], 60)).value == b"no"
    assert one.info().pending == 0


async def test_a_log_that_grows_at_one_node_is_heard_at_the_other(pair: tuple[Bridge, Bridge]) -> None:
    one, other = pair
    assert (await one.accept(new("exec:a", key="k", epoch=1))).fresh
    assert not (await other.accept(new("exec:a", key="k", epoch=1))).fresh
    told: list[bytes] = []

    async def listen() -> None:
        while True:
            log, ended = await other.part("exec:a", len(told), wait=60)
            told.extend(event.data for event in log.events)
            if ended:
                return

    listening = asyncio.ensure_future(listen())
    for number in range(20):
        await one.append("exec:a", [b"%d" % number], number, None)
    await one.settle(Settlement("exec:a", "resolve", log=(b"end",), after=20))
    await asyncio.wait_for(listening, 60)
    assert told == [*(b"%d" % number for number in range(20)), b"end"]


async def test_of_two_that_begin_the_same_one_is_first_and_keeps_it(pair: tuple[Bridge, Bridge]) -> None:
    await pair[0].accept(new("exec:a"))
    begun = await asyncio.gather(*(bridge.begin("exec:a", 1) for bridge in pair * 3))
    (first,) = [promise for promise, first in begun if first]
    assert {promise.fence for promise, _ in begun} == {first.fence}
    await pair[1].append("exec:a", [b"x"], 0, first.fence)


@pytest.mark.parametrize("done", [True, False])
async def test_a_start_that_is_said_to_have_failed_is_the_first_when_it_is_asked_for_again(
    tmp_path: Path, clock: Clock, done: bool
) -> None:
    failures: list[OSError] = []

    def fault(at: FaultPoint) -> None:
        if failures and at == ("committed" if done else "before_commit"):
            raise failures.pop()

    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process", fault=fault), clock)
    await bridge.accept(new("exec:a"))
    failures.append(OSError(5, "Input/output error"))
    with pytest.raises(StoreError):
        await bridge.begin("exec:a", 1)
    assert await bridge.begin("exec:a", 1) == (await bridge.get("exec:a"), True)
    assert not (await bridge.begin("exec:a", 1)).first
    await bridge.close()
