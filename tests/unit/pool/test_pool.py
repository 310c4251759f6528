from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from capsule_pool import BreakerConfig, Pool, PoolConfig
from capsule_pool.testing import ProcessFactory
from capsule_protocol.errors import CapsuleError, EnvironmentFailed, PoolError, SessionError, WorkerLost
from tests.unit.kernels.forked import open_descriptors, opened_since
from tests.unit.pool.bench import bench
from tests.unit.pool.watching import give_way

if TYPE_CHECKING:
    from capsule_pool import PoolEvent

pytestmark = pytest.mark.anyio

FOR_EVER = 3600.0
BROKEN = EnvironmentFailed("environment_failed", "no module named spam", details={"traceback": "Traceback …"})
SHORT = SessionError("descriptors_exhausted", "no descriptor is left")
FLAKY = WorkerLost("worker_start_failed", "the zygote has ended")


async def failure_of(task: asyncio.Task[Any]) -> CapsuleError:
    with pytest.raises(CapsuleError) as caught:
        await task
    return caught.value


# Acquire and release


async def test_a_warm_member_is_handed_out_without_waiting() -> None:
    async with bench(min_idle=2) as one:
        await one.warm(2)
        coroutine = one.pool.acquire()
        with pytest.raises(StopIteration) as handed:
            coroutine.send(None)
        assert handed.value.value in one.factory.made
        assert one.events.kinds("acquired") == [("acquired", "hit")]


async def test_a_pool_that_nobody_warmed_makes_what_is_asked_for() -> None:
    async with bench() as one:
        member = await one.pool.acquire()
        assert not member.died.done()
        assert one.events.kinds("acquired") == [("acquired", "miss")]


async def test_a_released_member_is_closed_and_never_handed_out_again() -> None:
    async with bench(min_idle=1, max_sessions=2) as one:
        pids = set()
        for _ in range(20):
            member = await one.pool.acquire()
            pids.add(id(member))
            one.pool.release(member)
        await one.events.until(one.pool, lambda info: info.closing == 0)
        assert len({id(member) for member in one.factory.made} & pids) == 20
        assert one.pool.info().stats.counts["released"] == 20


async def test_a_member_is_released_once() -> None:
    async with bench() as one:
        member = await one.pool.acquire()
        one.pool.release(member)
        with pytest.raises(ValueError, match="not in use"):
            one.pool.release(member)


async def test_the_pool_refills_after_an_acquire() -> None:
    async with bench(min_idle=3) as one:
        await one.warm(3)
        await one.pool.acquire()
        await one.events.until(one.pool, lambda info: info.idle == 3)
        assert one.factory.attempts == 4


async def test_members_for_waiters_are_made_before_members_for_later() -> None:
    async with bench(min_idle=2, max_starting=2) as one:
        one.factory.gate.clear()
        waiting = one.acquiring(4)
        await give_way()
        assert one.factory.most_at_once == 2
        one.factory.gate.set()
        await asyncio.gather(*waiting)
        await one.events.until(one.pool, lambda info: info.idle == 2)
        assert (one.factory.attempts, one.factory.most_at_once) == (6, 2)


async def test_a_burst_is_not_slowed_by_members_for_later() -> None:
    async with bench(min_idle=5, refill_delay=FOR_EVER) as one:
        await one.warm(5)
        await asyncio.gather(*one.acquiring(3))
        assert one.factory.attempts == 5
        await asyncio.gather(*one.acquiring(4))
        assert one.factory.attempts == 7


async def test_waiters_beyond_the_bound_wait_until_a_member_is_gone() -> None:
    async with bench(max_sessions=2) as one:
        first, second = await asyncio.gather(*one.acquiring(2))
        (third,) = one.acquiring(1)
        await give_way()
        assert one.pool.info().waiting == 1
        one.pool.release(first)
        await third
        assert first.died.done()
        assert not second.died.done()


async def test_waiters_are_served_in_order_and_interactive_ones_first() -> None:
    async with bench(max_sessions=1) as one:
        held = await one.pool.acquire()
        order: list[str] = []

        async def take(name: str, **options: Any) -> None:
            member = await one.pool.acquire(**options)
            order.append(name)
            one.pool.release(member)

        tasks = [asyncio.ensure_future(take(name, priority="batch")) for name in ("b1", "b2")]
        tasks += [asyncio.ensure_future(take(f"i{number}")) for number in range(6)]
        await give_way()
        one.pool.release(held)
        await asyncio.gather(*tasks)
        assert order == ["i0", "i1", "i2", "i3", "b1", "i4", "i5", "b2"]


async def test_an_acquire_that_waits_too_long_says_so_and_leaves_nothing() -> None:
    async with bench(max_sessions=1) as one:
        await one.pool.acquire()
        with pytest.raises(PoolError, match=r"no session within 0\.01 s") as caught:
            await one.pool.acquire(timeout=0.01)
        assert (caught.value.code, caught.value.retryable) == ("pool_timeout", True)
        assert one.pool.info().waiting == 0


async def test_the_time_limit_of_the_pool_holds_where_the_caller_gives_none() -> None:
    async with bench(max_sessions=1, acquire_timeout=0.01) as one:
        await one.pool.acquire()
        assert (await failure_of(one.acquiring(1)[0])).code == "pool_timeout"


async def test_there_is_a_bound_to_those_who_wait() -> None:
    async with bench(max_sessions=1, max_waiting=1) as one:
        await one.pool.acquire()
        (waiting,) = one.acquiring(1)
        await give_way()
        with pytest.raises(PoolError, match="max_waiting=1") as caught:
            await one.pool.acquire()
        assert caught.value.code == "pool_exhausted"
        waiting.cancel()


# Another configuration


async def test_a_larger_pool_grows_at_once() -> None:
    async with bench(min_idle=1) as one:
        await one.warm(1)
        one.pool.configure(replace(one.pool.config, min_idle=3))
        await one.events.until(one.pool, lambda info: info.idle == 3)
        assert one.pool.info().min_idle == 3


async def test_a_smaller_pool_lets_go_of_what_nobody_wants_and_takes_nothing_from_its_users() -> None:
    async with bench(min_idle=2, max_sessions=4, idle_ttl=0.01) as one:
        await one.warm(2)
        used = [await one.pool.acquire(), await one.pool.acquire()]
        await one.events.until(one.pool, lambda info: info.idle == 2)
        one.pool.configure(replace(one.pool.config, min_idle=0, max_sessions=1))
        await one.events.until(one.pool, lambda info: info.idle == 0 and info.closing == 0)
        assert not any(member.died.done() for member in used)
        (waiting,) = one.acquiring(1)
        one.pool.release(used[0])
        await one.events.until(one.pool, lambda info: info.closing == 0)
        assert not waiting.done(), "one is still in use, and no more are allowed"
        one.pool.release(used[1])
        assert not (await waiting).died.done()


async def test_another_breaker_counts_from_the_next_failure_on() -> None:
    async with bench() as one:
        one.pool.configure(replace(one.pool.config, breaker=BreakerConfig(1, longest_pause=FOR_EVER, pause=FOR_EVER)))
        one.factory.failure = FLAKY
        error = await failure_of(one.acquiring(1)[0])
        assert (error.code, one.factory.attempts) == ("pool_unavailable", 1)


# Cancellation


async def test_a_waiter_that_leaves_in_the_queue_is_forgotten() -> None:
    async with bench(max_sessions=1) as one:
        held = await one.pool.acquire()
        first, second = one.acquiring(2)
        await give_way()
        first.cancel()
        one.pool.release(held)
        assert not (await second).died.done()
        assert first.cancelled()


async def test_a_member_for_a_waiter_that_left_is_kept_for_the_next() -> None:
    async with bench() as one:
        one.factory.gate.clear()
        (waiting,) = one.acquiring(1)
        await give_way()
        waiting.cancel()
        one.factory.gate.set()
        await one.events.until(one.pool, lambda info: info.idle == 1)
        assert await one.pool.acquire() is one.factory.made[0]


async def test_a_member_that_was_given_to_a_waiter_as_it_left_goes_to_the_next_in_line() -> None:
    async with bench(max_sessions=1) as one:
        one.factory.gate.clear()
        first, second = one.acquiring(2)
        await give_way()
        one.factory.gate.set()
        await one.events.until(one.pool, lambda info: info.in_use == 1 or first.done())
        # The member stands in the waiter's hands or is on its way to them: whichever it is, it must not be lost.
        first.cancel()
        if not await asyncio.wait_for(asyncio.shield(_cancelled(first)), FOR_EVER):
            one.pool.release(first.result())
        assert not (await second).died.done()


async def _cancelled(task: asyncio.Task[Any]) -> bool:
    await asyncio.wait([task])
    return task.cancelled()


async def test_a_member_assigned_in_the_same_moment_as_the_cancellation_is_idle_again() -> None:
    async with bench() as one:
        one.factory.gate.clear()
        (waiting,) = one.acquiring(1)
        await give_way()

        def leave(event: PoolEvent) -> None:
            """It is given the member in this turn of the loop and would see it in the next, after its cancellation."""
            if event.kind == "created":
                asyncio.get_running_loop().call_soon(waiting.cancel)

        one.pool._on_event = leave
        one.factory.gate.set()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert (one.pool.info().idle, one.pool.info().in_use) == (1, 0)
        assert await one.pool.acquire() is one.factory.made[0]


async def test_a_member_assigned_in_the_same_moment_as_the_time_limit_passes_is_idle_again() -> None:
    async with bench() as one:
        with pytest.raises(PoolError, match="no session within 0 s"):  # it was made in the turn before
            await one.pool.acquire(timeout=0)
        assert (one.pool.info().idle, one.pool.info().in_use) == (1, 0)
        assert await one.pool.acquire() is one.factory.made[0]


async def test_no_error_of_a_waiter_that_left_is_ever_reported_as_unseen() -> None:
    problems: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    try:
        async with bench() as one:
            one.factory.gate.clear()
            waiting = one.acquiring(3)
            await give_way()
            closing = asyncio.ensure_future(one.pool.close())
            await asyncio.sleep(0)  # the waiters have their error and have not seen it
            for task in waiting:
                task.cancel()
            await closing
            await asyncio.wait(waiting)
            del waiting, task
        gc.collect()
        assert problems == []
    finally:
        loop.set_exception_handler(None)


# Death


async def test_an_idle_member_that_dies_is_replaced() -> None:
    async with bench(min_idle=1) as one:
        await one.warm(1)
        dead = one.factory.made[0]
        dead.kill()
        await one.events.until(one.pool, lambda info: len(one.factory.made) == 2 and info.idle == 1)
        assert one.pool.info().stats.deaths == {"exit -9": 1}
        assert await one.pool.acquire() is not dead


async def test_a_member_that_dies_in_use_stays_its_users_until_released() -> None:
    async with bench() as one:
        member = await one.pool.acquire()
        member.kill()
        await one.events.until(one.pool, lambda info: bool(info.stats.deaths))
        assert one.pool.info().in_use == 1
        one.pool.release(member)
        await one.events.until(one.pool, lambda info: info.closing == 0)


async def test_a_member_that_the_pool_closes_is_no_death() -> None:
    async with bench() as one:
        one.pool.release(await one.pool.acquire())
        await one.events.until(one.pool, lambda info: info.stats.counts["gone"] == 1)
        assert one.pool.info().stats.deaths == {}


# Eviction


async def test_surplus_members_expire_by_themselves() -> None:
    async with bench(idle_ttl=0.01) as one:
        one.factory.gate.clear()
        (waiting,) = one.acquiring(1)
        await give_way()
        waiting.cancel()
        one.factory.gate.set()
        await one.events.until(one.pool, lambda info: info.stats.counts["gone"] == 1)
        assert one.pool.info().stats.evictions == {"idle": 1}


async def test_a_member_past_its_age_is_replaced() -> None:
    async with bench(min_idle=1, max_age=0.05) as one:
        await one.warm(1)
        await one.events.until(one.pool, lambda info: info.stats.evictions.get("age", 0) >= 1)
        await one.events.until(one.pool, lambda info: info.stats.counts["created"] >= 2)


async def test_a_member_over_its_budget_is_a_failed_creation() -> None:
    async with bench(member_bytes=100) as one:
        one.factory.held = 101
        error = await failure_of(one.acquiring(1)[0])
        assert "member_bytes=100" in error.message or "member_bytes=100" in str(error.details)
        assert one.pool.info().in_use == 0


async def test_no_more_is_made_for_later_than_idle_members_may_hold() -> None:
    async with bench(min_idle=5, idle_bytes=250, max_starting=1) as one:
        one.factory.held = 100
        await one.warm(2)
        assert (one.factory.attempts, one.pool.info().memory) == (2, 200)


# Failure


async def test_an_error_that_repeating_does_not_mend_is_told_to_the_waiter_at_once() -> None:
    async with bench() as one:
        one.factory.failure = BROKEN
        assert await failure_of(one.acquiring(1)[0]) is BROKEN
        assert one.factory.attempts == 1


async def test_an_error_that_repeating_may_mend_is_not_told_before_the_breaker_opens() -> None:
    async with bench(max_starting=1, breaker=BreakerConfig(failures=3, pause=FOR_EVER, longest_pause=FOR_EVER)) as one:
        one.factory.failure = FLAKY
        error = await failure_of(one.acquiring(1)[0])
        assert (error.code, one.factory.attempts) == ("pool_unavailable", 3)
        assert error.__cause__ is FLAKY
        assert error.details["next_attempt"] == pytest.approx(FOR_EVER, rel=0.1)
        assert "the zygote has ended" in error.message


async def test_a_crowd_at_a_broken_environment_makes_a_bounded_number_of_attempts() -> None:
    async with bench(
        min_idle=4, max_starting=4, breaker=BreakerConfig(failures=5, pause=FOR_EVER, longest_pause=FOR_EVER)
    ) as one:
        one.factory.failure = BROKEN
        errors = [await failure_of(task) for task in one.acquiring(50)]
        assert {error.code for error in errors} == {"environment_failed", "pool_unavailable"}
        assert one.factory.attempts <= 5 + 4
        refused = next(error for error in errors if error.code == "pool_unavailable")
        assert refused.details["traceback"] == "Traceback …"
        assert one.pool.info().breaker.state == "open"
        assert "breaker open: EnvironmentFailed" in repr(one.pool)


async def test_want_of_descriptors_is_told_at_once_and_is_no_fault_of_the_environment() -> None:
    async with bench(max_starting=2, breaker=BreakerConfig(failures=3, pause=FOR_EVER, longest_pause=FOR_EVER)) as one:
        one.factory.failure = SHORT
        errors = [await failure_of(task) for task in one.acquiring(20)]
        assert {error.code for error in errors} == {"descriptors_exhausted"}
        assert one.factory.attempts == 20
        info = one.pool.info()
        assert (info.breaker.state, info.breaker.failures) == ("closed", 0)
        one.factory.failure = None
        assert not (await one.pool.acquire()).died.done()


async def test_want_of_descriptors_puts_off_what_is_made_for_later() -> None:
    async with bench(min_idle=1, breaker=BreakerConfig(pause=0.02, longest_pause=0.02)) as one:
        one.factory.failure = SHORT
        one.pool.warm()
        await one.events.until(one.pool, lambda info: info.stats.counts["failures"] == 2)
        assert one.pool.info().breaker.next_attempt > 0
        one.factory.failure = None
        await one.events.until(one.pool, lambda info: info.idle == 1)
        assert one.events.kinds("breaker") == []


async def test_an_open_breaker_still_hands_out_what_is_there() -> None:
    async with bench(
        min_idle=2, breaker=BreakerConfig(failures=1, pause=FOR_EVER, longest_pause=FOR_EVER), max_sessions=3
    ) as one:
        await one.warm(2)
        one.factory.failure = BROKEN
        await one.pool.acquire()
        await one.events.until(one.pool, lambda info: info.breaker.state == "open")
        assert not (await one.pool.acquire()).died.done()
        assert (await failure_of(one.acquiring(1)[0])).code == "pool_unavailable"


async def test_a_repaired_environment_recovers_by_itself() -> None:
    async with bench(min_idle=1, breaker=BreakerConfig(failures=2, pause=0.01, longest_pause=0.02)) as one:
        one.factory.failure = BROKEN
        one.pool.warm()
        await one.events.until(one.pool, lambda info: info.breaker.state == "open")
        one.factory.failure = None
        await one.events.until(one.pool, lambda info: info.idle == 1)
        assert one.pool.info().breaker.state == "closed"
        states = [cause for _, cause in one.events.kinds("breaker")]
        assert states[:2] == ["open", "half_open"]
        assert states[-1] == "closed"


async def test_without_warm_members_to_keep_the_next_acquire_is_the_probe() -> None:
    async with bench(jitter=0.0, breaker=BreakerConfig(failures=1)) as one:
        one.factory.failure = BROKEN
        await failure_of(one.acquiring(1)[0])
        assert one.pool.info().breaker.state == "open"
        one.factory.failure = None
        await one.pool.acquire()
        assert one.pool.info().breaker.state == "closed"


async def test_a_creation_that_never_ends_is_a_failure() -> None:
    async with bench(create_timeout=0.02) as one:
        one.factory.gate.clear()
        error = await failure_of(one.acquiring(1)[0])
        assert "create_timeout=0.02 s" in str(error) + str(error.__cause__)
        assert one.pool.info().stats.counts["failures"] >= 1


async def test_a_failure_for_later_is_logged_and_retried_in_its_own_time(caplog: pytest.LogCaptureFixture) -> None:
    async with bench(min_idle=1, breaker=BreakerConfig(pause=FOR_EVER, longest_pause=FOR_EVER)) as one:
        one.factory.failure = BROKEN
        one.pool.warm()
        await one.events.until(one.pool, lambda info: info.stats.counts["failures"] == 1)
        await give_way()
        assert one.factory.attempts == 1
        assert "no module named spam" in caplog.text


# Close


async def test_closing_fails_fifty_waiters_at_once() -> None:
    async with bench(max_sessions=1) as one:
        await one.pool.acquire()
        waiting = one.acquiring(50)
        await give_way()
        closing = asyncio.ensure_future(one.pool.close())
        await give_way()
        assert all(task.done() for task in waiting)
        assert [(await failure_of(task)).code for task in waiting] == ["pool_closed"] * 50
        await closing


async def test_a_closed_pool_refuses_and_can_be_closed_again() -> None:
    async with bench(min_idle=1) as one:
        await one.warm(1)
        await one.pool.close()
        await one.pool.close()
        with pytest.raises(PoolError, match="has been closed") as caught:
            await one.pool.acquire()
        assert caught.value.code == "pool_closed"


async def test_closing_ends_members_in_every_state() -> None:
    async with bench(min_idle=2) as one:
        used = await one.pool.acquire()
        await one.events.until(one.pool, lambda info: info.idle == 2)
        one.pool.release(await one.pool.acquire())
        one.factory.gate.clear()
        one.acquiring(3)
        await give_way()
        await one.pool.close()
        assert used.died.done()
        one.pool.release(used)  # its user may not know yet
        assert repr(one.pool).startswith("<Pool test closed: 0/2 idle, 0/1000 in use")


async def test_closing_goes_on_when_its_caller_is_cancelled() -> None:
    async with bench(min_idle=1) as one:
        await one.warm(1)
        closing = asyncio.ensure_future(one.pool.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await one.factory.made[0].died


async def test_a_member_that_arrives_while_the_pool_closes_is_closed_too() -> None:
    async with bench() as one:
        one.factory.gate.clear()
        (waiting,) = one.acquiring(1)
        await give_way()
        one.factory.gate.set()
        await one.pool.close()
        assert (await failure_of(waiting)).code == "pool_closed"


# Many


async def test_many_cycles_leave_nothing_and_the_counts_add_up() -> None:
    before = open_descriptors()
    async with bench(min_idle=4, max_sessions=16, max_starting=8) as one:

        async def use(number: int) -> None:
            try:
                member = await one.pool.acquire(
                    priority="batch" if number % 3 else "interactive", timeout=0.001 if number % 7 == 0 else None
                )
            except PoolError:
                return
            if number % 5 == 0:
                member.kill()
            if number % 2:
                await asyncio.sleep(0)
            one.pool.release(member)

        tasks = [asyncio.ensure_future(use(number)) for number in range(200)]
        for task in tasks[::11]:
            task.cancel()
        await asyncio.wait(tasks)
        counts = (await one.events.until(one.pool, lambda info: info.closing == 0)).stats.counts
        assert counts["acquires"] == counts["released"] == counts["hits"] + counts["misses"]
        assert one.factory.most_at_once <= 8
    assert not opened_since(before)


async def test_a_hook_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("hook")

    async with Pool(ProcessFactory(), PoolConfig(min_idle=0), on_event=fail) as pool:
        pool.release(await pool.acquire())
    assert "on_event of pool default failed" in caplog.text


async def test_the_pool_reads_like_a_line_of_a_dashboard() -> None:
    async with bench(min_idle=1, max_sessions=10) as one:
        await one.warm(1)
        await one.pool.acquire()
        await one.events.until(one.pool, lambda info: info.idle == 1)
        assert repr(one.pool) == "<Pool test open: 1/1 idle, 1/10 in use, 0 starting, 0 waiting, hits 100%>"
        assert one.pool.info().stats.efficiency == 0.5
