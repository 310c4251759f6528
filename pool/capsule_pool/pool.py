"""The pool: takes what happens to `assign`, and does what that decides. Nothing here polls, and nothing here decides.

Whatever happens (a member is wanted, made, released, dead; a waiter leaves; a time has come) ends in `_step`, which
does not wait for anything. What waits (making and closing members) are tasks of the pool's owner.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Generic, Self

from capsule_pool import refusals
from capsule_pool.assign import State, assign
from capsule_pool.breaker import Breaker
from capsule_pool.config import PoolConfig
from capsule_pool.info import PoolInfo, line
from capsule_pool.members import SHORTAGES, M
from capsule_pool.owner import Owner
from capsule_pool.refill import Refill
from capsule_pool.roster import Entry, Roster
from capsule_pool.states import Census
from capsule_pool.stats import EventKind, OnEvent, PoolEvent, Stats
from capsule_pool.waiting import Waiter, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_pool.config import Priority
    from capsule_pool.members import Factory
    from capsule_pool.states import MemberEvent, MemberState
    from capsule_protocol.errors import PoolError

logger = logging.getLogger("capsule.pool")


class Pool(Generic[M]):
    """Members made ahead of their use; an asynchronous context manager that closes all of them when it is left."""

    def __init__(
        self,
        factory: Factory[M],
        config: PoolConfig | None = None,
        name: str = "default",
        *,
        on_event: OnEvent | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.config = config or PoolConfig()
        self._factory = factory
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._owner = Owner(self._loop)
        self._waiting: Waiting[M] = Waiting(self._loop)
        self._roster: Roster[M] = Roster()
        self._breaker = Breaker(self.config.breaker, jitter)
        self._breaker_state = self._breaker.state
        self._stats = Stats()
        self._creations: set[asyncio.Task[None]] = set()
        self._census = Census()
        self._closed = False
        self._streak = 0
        self._refill = Refill()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return line(self.info())

    # --- for its users ---

    def configure(self, config: PoolConfig) -> None:
        """Go on with other sizes, times and budgets. Members in use stay, also beyond a smaller `max_sessions`.

        What an idle member holds is known only if there was an `idle_bytes` when it was made.
        """
        self.config = config
        self._breaker.config = config.breaker
        self._step()

    def warm(self) -> None:
        """Make the first members now. Without it that happens after the first acquire."""
        self._step()

    async def acquire(self, *, priority: Priority = "interactive", timeout: float | None = None) -> M:
        """A member for the caller alone, who releases it. A caller that is cancelled leaves nothing behind.

        Raises PoolError: `pool_closed`; `pool_exhausted` if `max_waiting` callers wait; `pool_timeout`;
        `pool_unavailable` while members cannot be made. Raises what the factory raised if it is not `retryable`,
        or is one of SHORTAGES.
        """
        self._check_room()
        began = self._now()
        self._refill.acquired(began)
        waiter = self._waiting.add(priority, began)
        self._step()
        hit = waiter.answer.done()
        limit = self.config.acquire_timeout if timeout is None else timeout
        try:
            member = waiter.answer.result() if hit else await self._answer(waiter, limit)
            self._check_open()
        except BaseException:
            self._leave(waiter)
            raise
        now = self._now()
        self._refill.acquired(now)
        self._emit("acquired", "hit" if hit else "miss", now - began)
        return member

    def release(self, member: M) -> None:
        """The member is closed; nobody gets it again. Raises ValueError if it is not in use."""
        if self._closed:
            return  # so is everything
        if not self._roster.remove_used(member):
            raise ValueError(f"{member!r} is not in use")
        self._emit("released")
        self._end(member, "in_use", "released")
        self._step()

    def info(self) -> PoolInfo:
        """The pool as it is now."""
        return PoolInfo(
            name=self.name,
            state="closed" if self._closed else "open",
            idle=self._roster.idle,
            starting=len(self._creations),
            in_use=self._roster.in_use,
            closing=self._census.sizes["closing"],
            waiting=len(self._waiting),
            min_idle=self.config.min_idle,
            max_sessions=self.config.max_sessions,
            memory=self._roster.idle_bytes,
            breaker=self._breaker.info(self._now()),
            stats=self._stats.info(),
        )

    async def close(self) -> None:
        """Refuse, fail the waiters at once, close every member and wait for it. Idempotent.

        If the caller is cancelled the rest goes on.
        """
        if not self._closed:
            self._closed = True
            for waiter in self._waiting.take_all():
                waiter.answer.set_exception(refusals.closed(self.name))
            if self._timer is not None:
                self._timer.cancel()
            for creation in self._creations:
                creation.cancel()
            idle, in_use = self._roster.remove_all()
            for member in idle:
                self._end(member, "idle", "pool_closed")
            for member in in_use:
                self._end(member, "in_use", "pool_closed")
        await self._owner.wait()

    # --- the waiters ---

    def _check_open(self) -> None:
        if self._closed:
            raise refusals.closed(self.name)

    def _check_room(self) -> None:
        self._check_open()
        if len(self._waiting) >= self.config.max_waiting:
            raise refusals.crowded(self.name, self.config.max_waiting)

    async def _answer(self, waiter: Waiter[M], limit: float | None) -> M:
        self._emit("waiting")
        try:
            async with asyncio.timeout(limit) as scope:
                return await waiter.answer
        except TimeoutError as error:
            if not scope.expired():
                raise
            assert limit is not None
            raise refusals.late(self.name, limit, len(self._waiting)) from error

    def _leave(self, waiter: Waiter[M]) -> None:
        """Its acquire has failed; a member that came at the last moment is for the next one."""
        member = self._waiting.leave(waiter)
        if member is not None and self._roster.return_unused(member, self._now()):
            self._census.move("in_use", "left")
        if member is not None or waiter.answer.cancelled():
            self._emit("left")
        self._step()

    def _refuse(self, number: int, now: float) -> None:
        breaker = self._breaker.info(now)
        error = refusals.unavailable(self.name, breaker, self._breaker.error)
        self._waiting.take(number).answer.set_exception(error)
        self._emit("refused", breaker.cause)

    # --- the members ---

    def _start(self, now: float) -> None:
        probe = self._breaker.attempt(now)
        self._tell_breaker()
        self._emit("attempt")
        self._census.begin()
        task = self._owner.start(self._create(probe=probe))
        self._creations.add(task)
        task.add_done_callback(self._on_creation_over)

    async def _create(self, *, probe: bool) -> None:
        began = self._now()
        error: Exception | None
        try:
            member = await self._make()
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is told to a waiter or logged
            error = failure
            self._census.move("starting", "failed")
        else:
            self._emit("created", seconds=self._now() - began)
            error = self._reject_too_large(member)
        self._creations.discard(_this_task())
        if error is None:
            self._made(member)
        else:
            self._failed(error, began, probe=probe)

    def _on_creation_over(self, creation: asyncio.Task[None]) -> None:
        """One that was cancelled may not even have begun, and has done nothing of this itself."""
        self._creations.discard(creation)
        if creation.cancelled():
            self._census.move("starting", "abandoned")

    async def _make(self) -> M:
        limit = self.config.create_timeout
        try:
            async with asyncio.timeout(limit) as scope:
                return await self._factory.create()
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise refusals.slow(limit) from error

    def _reject_too_large(self, member: M) -> PoolError | None:
        """End a member that is over its budget, and say so."""
        allowed = self.config.member_bytes
        if allowed is None or (held := member.memory()) <= allowed:
            return None
        self._emit("evicted", "memory")
        self._end(member, "starting", "rejected")
        return refusals.too_large(held, allowed)

    def _made(self, member: M) -> None:
        if self._closed:  # while it was on its way here
            self._end(member, "starting", "rejected")
            return
        now = self._now()
        self._breaker.succeeded()
        self._tell_breaker()
        # To measure takes longer than to make: only where it decides something.
        held = 0 if self.config.idle_bytes is None else member.memory()
        entry = self._roster.add(member, now, held)
        self._census.move("starting", "made")
        member.died.add_done_callback(lambda died: self._on_died(entry, died))
        self._step()

    def _failed(self, error: Exception, began: float, *, probe: bool) -> None:
        now = self._now()
        short = getattr(error, "code", "") in SHORTAGES
        self._breaker.failed(now, error, probe=probe, counts=not short)
        self._emit("failed", f"{type(error).__name__}: {error}", now - began)
        self._tell_breaker()
        waiter = self._waiting.oldest()
        if waiter is None:
            logger.warning("pool %s: no session could be made for later: %s", self.name, error)
        elif short or not getattr(error, "retryable", False):
            self._waiting.take(waiter.number).answer.set_exception(error)
        self._step()

    def _on_died(self, entry: Entry[M], died: asyncio.Future[str]) -> None:
        """One in use is its user's until he releases it; an idle one is replaced."""
        member = self._roster.remove_idle(entry.number)
        if member is None and not self._roster.is_used(entry):
            return  # closed by the pool
        self._emit("died", died.result())
        if member is None:
            self._census.move("in_use", "died")
        else:
            self._end(member, "idle", "died")
            self._step()

    def _evict(self, number: int, cause: str) -> None:
        member = self._roster.remove_idle(number)
        assert member is not None
        self._emit("evicted", cause)
        self._end(member, "idle", "evicted")

    def _end(self, member: M, state: MemberState, event: MemberEvent) -> None:
        self._census.move(state, event)
        self._owner.start(self._close_member(member))

    async def _close_member(self, member: M) -> None:
        try:
            await member.close()
        finally:
            self._census.move("closing", "ended")
            self._emit("gone")
            self._step()

    # --- what happens next ---

    def _step(self) -> None:
        """Decide and act. Never waits."""
        if self._closed:
            return
        now = self._now()
        plan = assign(self._state(now))
        self._streak = plan.streak
        for waiter, number in plan.assigned:
            self._waiting.take(waiter).answer.set_result(self._roster.use(number))
            self._census.move("idle", "assigned")
        for number, cause in plan.to_close:
            self._evict(number, cause)
        for waiter in plan.to_refuse:
            self._refuse(waiter, now)
        for _ in range(plan.to_start):
            self._start(now)
        self._set_timer(now, plan.again)

    def _state(self, now: float) -> State:
        return State(
            config=self.config,
            now=now,
            interactive=self._waiting.numbers("interactive"),
            batch=self._waiting.numbers("batch"),
            idle=self._roster.view(),
            starting=len(self._creations),
            others=self._roster.in_use + self._census.sizes["closing"],
            streak=self._streak,
            may_start=self._breaker.may_start(now),
            may_refill=self._breaker.may_refill(now) and now >= self._refill.at(self.config.refill_delay),
            probe=self._breaker.state == "open",
            size=self._roster.size,
        )

    def _set_timer(self, now: float, again: float | None) -> None:
        """Come back when the next idle member is too old, or when one may be made for later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lacking = self._roster.idle + len(self._creations) < self.config.min_idle
        self._refill.note(now, lacking=lacking)
        times = [] if again is None else [again]
        if lacking:
            times += [self._refill.at(self.config.refill_delay), self._breaker.next_attempt]
        later = [time for time in times if time > now]
        if later:
            self._timer = self._loop.call_at(min(later), self._step)

    def _now(self) -> float:
        return self._loop.time()

    def _tell_breaker(self) -> None:
        if self._breaker.state != self._breaker_state:
            self._breaker_state = self._breaker.state
            self._emit("breaker", self._breaker_state)

    def _emit(self, kind: EventKind, cause: str = "", seconds: float = 0.0) -> None:
        event = PoolEvent(self.name, kind, cause, seconds)
        self._stats.count(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event of pool %s failed", self.name)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
