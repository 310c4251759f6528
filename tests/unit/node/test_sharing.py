"""A node's part in a shared store: when it judges others, and what it does when it was judged itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from capsule.config import SessionOptions
from capsule.events import Event
from capsule.node.durable import Ledger
from capsule.node.durable.household import Household
from capsule.node.durable.sharing import PREFIX, Share, claim, entry, owner_of
from capsule.node.execution import ExecuteRequest
from capsule.node.front.front import Front
from capsule.node.front.hosted import Hosted
from capsule.node.front.log import EventLog
from capsule.node.home import Identity
from capsule.node.node import Node
from capsule.node.tasks import Tasks
from capsule.settings.service import ServeConfig
from capsule_bench.database import NoServerError, server
from capsule_bridge import Bridge, MemoryStore, NewPromise, Promise, Retention, promise_id, session_promise
from capsule_bridge.postgres import PostgresStore
from capsule_protocol.errors import SessionError, StoreError

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
LONG = 1000.0
"""Seconds of a lease that lasts for longer than a test."""
REQUEST = ExecuteRequest("1 + 1")


@pytest.fixture(scope="module")
def url(no_process_left: None) -> Iterator[str]:
    try:
        with server() as one:
            yield one.url()
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
async def store(url: str, request: pytest.FixtureRequest) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url, schema=f"t{abs(hash(request.node.name))}")
    yield made
    await made.close()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await made.close()


class Family:
    """A house that tells what it was asked for."""

    def __init__(self, *failures: Exception) -> None:
        self.did: list[str] = []
        self.failures = list(failures)

    async def others(self) -> set[str]:
        return {"forgotten"}

    async def inherit(self, node: str) -> None:
        if self.failures:
            raise self.failures.pop()
        self.did.append(f"inherit {node}")

    async def let_go(self) -> None:
        self.did.append("let go")


class Clumsy(Family):
    """One that cannot let go, the first time."""

    async def let_go(self) -> None:
        if self.failures:
            raise self.failures.pop()
        await super().let_go()


async def turn(share: Share, house: Family) -> None:
    """One turn, and what it has begun."""
    await share._turn(house)
    if share._heir is not None:
        await share._heir


async def test_others_are_judged_after_a_whole_lease_without_a_break_and_each_once(
    store: PostgresStore, tasks: Tasks
) -> None:
    assert await store.acquire(f"{PREFIX}dead", "dead", seconds=0)
    assert await store.acquire(f"{PREFIX}living", "living", seconds=LONG)
    share, house = Share(store, "me", LONG, 0.0, tasks), Family()
    await share.join()
    await turn(share, house)
    assert house.did == []
    for _ in range(2):
        assert share._since is not None
        share._since -= LONG
        await turn(share, house)
    # The lease of "forgotten" is over for so long that there is none: the first look is at all owners.
    assert house.did == ["inherit dead", "inherit forgotten"]
    assert await store.lapsed(PREFIX) == []
    assert await store.acquire(f"{PREFIX}living", "me", seconds=1) is None


async def test_a_break_makes_it_wait_again(store: PostgresStore, tasks: Tasks) -> None:
    share, house = Share(store, "me", 0.3, LONG, tasks), Family()
    await share.join()
    tasks.start(share.keep(house))
    await store.close()
    async with asyncio.timeout(PATIENCE):
        while share._since is not None:
            await asyncio.sleep(0.01)


async def test_an_inheritance_that_failed_is_left_for_the_next_look(store: PostgresStore, tasks: Tasks) -> None:
    assert await store.acquire(f"{PREFIX}dead", "dead", seconds=0)
    share, house = Share(store, "me", 0.0, 0.0, tasks), Family(RuntimeError("a mistake"))
    await share.join()
    await turn(share, house)
    assert house.did == []
    await turn(share, house)
    assert house.did == ["inherit dead", "inherit forgotten"]


async def test_a_node_that_was_taken_for_dead_lets_go_and_begins_again_when_its_heir_is_done(
    store: PostgresStore, tasks: Tasks
) -> None:
    share, house = Share(store, "me", 0.0, 0.0, tasks), Family()
    await share.join()
    heir = await store.acquire(f"{PREFIX}me", "heir", seconds=LONG)
    assert heir is not None
    turning = tasks.start(share._turn(house))
    async with asyncio.timeout(PATIENCE):
        while house.did != ["let go"]:
            await asyncio.sleep(0.01)
        assert not turning.done()
        await store.release(heir)
        await turning
    assert house.did == ["let go", "inherit me"]


@pytest.mark.parametrize(("house", "did"), [(Family, ["let go", "inherit me"]), (Clumsy, ["inherit me"])])
async def test_what_fails_when_a_node_was_taken_for_dead_does_not_keep_it_from_beginning_again(
    store: PostgresStore, tasks: Tasks, house: type[Family], did: list[str]
) -> None:
    share, one = Share(store, "me", LONG, 0.0, tasks), house(RuntimeError("a mistake"))
    await share.join()
    await store.release(share._held["me"])  # as if another one had had it
    with pytest.raises(RuntimeError):
        await share._turn(one)
    for _ in range(2):
        await share._turn(one)
        assert share.lives
    assert one.did == did


async def test_who_was_taken_for_dead_while_it_inherits_gives_that_up_without_a_fault(
    store: PostgresStore, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    began = asyncio.Event()

    class Slow(Family):
        async def inherit(self, node: str) -> None:
            if node == "dead":
                began.set()
                await asyncio.Event().wait()
            await super().inherit(node)

    assert await store.acquire(f"{PREFIX}dead", "dead", seconds=0)
    share, house = Share(store, "me", 0.0, LONG, tasks), Slow()
    await share.join()
    await share._turn(house)
    async with asyncio.timeout(PATIENCE):
        await began.wait()
        await store.release(share._held["me"])  # as if another one had had it
        await share._turn(house)
        heir = share._heir
        assert heir is not None
        await asyncio.wait([heir])
    assert heir.cancelled()
    assert house.did == ["let go", "inherit me"]
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_lease_lasts_since_it_was_renewed_last_by_the_nodes_own_clock(
    store: PostgresStore, tasks: Tasks
) -> None:
    share, house = Share(store, "me", LONG, LONG, tasks), Family()
    assert not share.lives
    await share.join()
    assert share.lives
    share._until -= 2 * LONG
    assert not share.lives
    await turn(share, house)
    assert share.lives
    await store.release(share._held["me"])
    assert await store.acquire(f"{PREFIX}me", "heir", seconds=LONG)
    turning = tasks.start(share._turn(house))
    async with asyncio.timeout(PATIENCE):
        while house.did != ["let go"]:
            await asyncio.sleep(0.01)
    assert not share.lives
    turning.cancel()


async def test_of_two_that_claim_a_session_one_gets_it_and_the_epoch_is_no_ones_else(store: PostgresStore) -> None:
    bridge = Bridge(store)
    new = NewPromise(session_promise("s"), "session", "s", b"", epoch=1, log=(entry("dead"),))
    promise = (await bridge.accept(new)).promise
    assert await owner_of(bridge, "s") == ("dead", 1)
    claims = await asyncio.gather(*(claim(bridge, promise, name, 2) for name in ("one", "other")))
    (fence,) = [each for each in claims if each is not None]
    owner, epoch = await owner_of(bridge, "s")
    assert (owner, epoch) == (("one", "other")[claims.index(fence)], 2)
    assert await claim(bridge, promise, owner, 2)  # said again, because the answer was lost
    assert not await claim(bridge, promise, "late", 2)
    assert (await bridge.get(promise.id)).epoch == 2


async def test_a_claim_counts_only_when_the_session_is_taken() -> None:
    """Who has written down an epoch and died, or was slow, before it took the session has lost it to the next heir."""
    bridge = Bridge(MemoryStore())
    new = NewPromise(session_promise("s"), "session", "s", b"", epoch=1, log=(entry("dead"),))
    promise = (await bridge.accept(new)).promise
    await bridge.append(promise.id, (entry("slow"),), 1, promise.fence)
    fence = await claim(bridge, promise, "fast", 3)
    assert fence is not None
    assert await claim(bridge, promise, "slow", 2) is None
    found = await bridge.get(promise.id)
    assert (found.fence, found.epoch) == (fence, 3)
    assert fence != promise.fence


def opened_session() -> Any:
    """What a ledger asks of a session that is ready, and has nothing to do."""
    return SimpleNamespace(
        id="s",
        epoch=1,
        name="work",
        options=SessionOptions(name="work"),
        secret=b"",
        state="ready",
        under_way=0,
        has_room=lambda _request, _ahead: True,
        count_of=lambda _request: 1,
    )


async def ask(ledger: Ledger, session: Any, execution: str, ahead: Collection[ExecuteRequest] = ()) -> Promise:
    """What the ledger has written down of it."""
    return (await ledger.accept(session, "me", REQUEST, execution, key=execution, ahead=ahead)).promise


async def taken_over(heir: Ledger) -> None:
    """The heir has the session, in its next epoch."""
    fence = await claim(heir.bridge, await heir.bridge.get(session_promise("s")), heir.name, 2)
    assert fence is not None
    heir.own("s", fence)


class Distant(MemoryStore):
    """A store that may be out of reach."""

    away = False

    def _check_open(self) -> None:
        if self.away:
            raise StoreError("store_unavailable", "the store is out of reach")
        super()._check_open()


class Busy(MemoryStore):
    """A store in which something happens behind the first look at what is pending."""

    behind: Callable[[], Awaitable[object]] | None = None

    async def pending(self, **which: Any) -> list[Promise]:
        found = await super().pending(**which)
        if self.behind is not None:
            act, self.behind = self.behind, None
            await act()
        return found


@asynccontextmanager
async def served(bridge: Bridge, name: str) -> AsyncIterator[tuple[Ledger, Household]]:
    """What a node of this name has in a shared store."""
    async with Node() as node:
        front = Front(node, ServeConfig(), bridge, name)
        assert front.ledger is not None
        try:
            yield front.ledger, Household(front.ledger, front.registry, node, ServeConfig)
        finally:
            await front.close()


async def test_a_node_that_has_lost_a_session_neither_accepts_nor_begins_anything_in_it(
    store: PostgresStore, tasks: Tasks
) -> None:
    """Though it does not know that yet: it was silent, and has not come to renew its lease."""
    bridge = Bridge(store)
    silent, heir = (Ledger(bridge, tasks, name) for name in ("silent", "heir"))
    session = opened_session()
    await silent.opened(session, "me")
    before = await ask(silent, session, "before")
    session.state = "starting"
    waits = await ask(silent, session, "waits")
    session.state = "ready"
    assert (before.started_at is None, waits.started_at is None) == (False, True)
    fence = await claim(bridge, await bridge.get(session_promise("s")), "heir", 2)
    assert fence is not None
    heir.own("s", fence)
    for act in (
        lambda: ask(silent, session, "late"),
        lambda: silent.begin(waits.id, "s", 1),
        lambda: silent.begun_before(waits.id, "s", 1),
        lambda: silent.cancel(waits, "it may not"),
    ):
        with pytest.raises(SessionError) as caught:
            await act()
        assert (caught.value.code, caught.value.details) == ("session_elsewhere", {"node": "heir"})
    with pytest.raises(SessionError) as caught:
        await bridge.get(promise_id("late"))
    assert caught.value.code == "promise_unknown"
    assert await bridge.get(waits.id) == waits
    assert await ask(silent, session, "before") == before  # whoever asks again hears what was written down
    session.epoch = 2
    assert (await heir.begin(waits.id, "s", 2)).first
    assert (await ask(heir, session, "late")).epoch == 2


async def test_what_is_asked_while_a_session_gets_its_next_epoch_is_accepted(
    store: PostgresStore, tasks: Tasks
) -> None:
    ledger, session = Ledger(Bridge(store), tasks, "me"), opened_session()
    await ledger.opened(session, "me")
    asked = [ask(ledger, session, f"x_{number}") for number in range(20)]
    restarted = tasks.start(ledger.restarting(session))
    promises = await asyncio.gather(*asked)
    await restarted
    assert {promise.pending for promise in promises} == {True}
    ledger.claims.lose("s")  # as if the answer to the restart had been lost
    assert (await ask(ledger, session, "again")).pending


async def test_a_node_that_may_have_been_taken_for_dead_accepts_nothing(store: PostgresStore, tasks: Tasks) -> None:
    ledger, session = Ledger(Bridge(store), tasks, "me"), opened_session()
    await ledger.opened(session, "me")
    ledger.claims.lives = lambda: False
    another = opened_session()
    another.id = "another"
    for act in (lambda: ask(ledger, session, "x"), lambda: ledger.opened(another, "me")):
        with pytest.raises(StoreError) as caught:
            await act()
        assert (caught.value.code, caught.value.details) == ("store_unavailable", {"outcome": "not_done"})
    with pytest.raises(SessionError, match="promise_unknown"):
        await ledger.bridge.get(session_promise("another"))
    ledger.claims.lives = lambda: True
    assert (await ask(ledger, session, "x")).pending


async def test_a_session_is_not_ended_by_a_node_that_has_lost_it(store: PostgresStore, tasks: Tasks) -> None:
    bridge = Bridge(store)
    dead, heir = (Ledger(bridge, tasks, name) for name in ("dead", "heir"))
    session = opened_session()
    await dead.opened(session, "me")
    fence = await claim(bridge, await bridge.get(session_promise("s")), "heir", 2)
    assert fence is not None
    heir.own("s", fence)
    await dead.closed(session)
    assert (await bridge.get(session_promise("s"))).pending
    with pytest.raises(SessionError) as caught:
        await dead.restarting(session)
    assert caught.value.code == "session_elsewhere"
    await heir.closed(session)
    assert (await bridge.get(session_promise("s"))).state == "resolved"


async def test_a_node_that_lets_go_keeps_no_fence_of_what_it_had(tasks: Tasks) -> None:
    bridge, session = Bridge(MemoryStore()), opened_session()
    async with served(bridge, "silent") as (silent, household):
        await silent.opened(session, "me")
        await taken_over(Ledger(bridge, tasks, "heir"))
        await household.let_go()
        assert silent.claims.lose("s") is None


async def test_a_node_that_begins_again_owns_nothing_that_its_heir_has(tasks: Tasks) -> None:
    bridge, session = Bridge(MemoryStore()), opened_session()
    async with served(bridge, "silent") as (silent, household):
        await silent.opened(session, "me")
        session.state = "starting"
        waits = await ask(silent, session, "waits")
        await taken_over(Ledger(bridge, tasks, "heir"))
        await household.inherit("silent")
        for act in (
            lambda: ask(silent, session, "late"),
            lambda: silent.begin(waits.id, "s", 1),
            lambda: silent.cancel(waits, "it may not"),
        ):
            with pytest.raises(SessionError) as caught:
                await act()
            assert caught.value.code == "session_elsewhere"
        await silent.closed(session)
    assert await bridge.get(waits.id) == waits
    assert (await bridge.get(session_promise("s"))).pending


async def test_a_restart_that_failed_does_not_make_a_session_one_that_anybody_rules_on(tasks: Tasks) -> None:
    store, session = Distant(), opened_session()
    bridge = Bridge(store)
    silent = Ledger(bridge, tasks, "silent")
    await silent.opened(session, "me")
    session.state = "starting"
    waits = await ask(silent, session, "waits")
    store.away = True
    with pytest.raises(StoreError):
        await silent.restarting(session)
    store.away = False
    await taken_over(Ledger(bridge, tasks, "heir"))
    for _ in range(2):
        with pytest.raises(SessionError) as caught:
            await silent.cancel(waits, "it may not")
        assert caught.value.code == "session_elsewhere"
        with pytest.raises(SessionError) as caught:
            await silent.restarting(session)
        assert caught.value.code == "session_elsewhere"
    await silent.closed(session)
    assert await bridge.get(waits.id) == waits
    assert (await bridge.get(session_promise("s"))).pending


@pytest.mark.parametrize("forgotten", [False, True])
async def test_what_a_closed_session_has_left_an_heir_can_rule_on(tasks: Tasks, *, forgotten: bool) -> None:
    bridge, session = Bridge(MemoryStore()), opened_session()
    dead, heir = (Ledger(bridge, tasks, name) for name in ("dead", "heir"))
    await dead.opened(session, "me")
    session.state = "starting"
    waits = [await ask(dead, session, f"x{number}") for number in range(2)]
    await dead.closed(session)
    if forgotten:
        await bridge.expire(Retention(0, 0))
    for ledger, promise in zip((dead, heir), waits, strict=True):
        await ledger.cancel(promise, "the session had been closed")
        assert (await bridge.get(promise.id)).state == "rejected_canceled"


async def test_what_is_accepted_between_an_heirs_look_and_its_claim_is_seen_to(tasks: Tasks) -> None:
    store, session = Busy(), opened_session()
    bridge = Bridge(store)
    silent = Ledger(bridge, tasks, "silent")
    await silent.opened(session, "me")

    async def ask_late() -> None:
        assert (await ask(silent, session, "sent")).started_at is not None
        session.state = "starting"
        assert (await ask(silent, session, "waits")).started_at is None

    store.behind = ask_late
    async with served(bridge, "heir") as (_, household):
        await household.inherit("silent")
        async with asyncio.timeout(PATIENCE):
            sent, waits = [await bridge.wait(promise_id(execution)) for execution in ("sent", "waits")]
    assert (sent.state, waits.state) == ("rejected", "resolved")


class Deaf:
    """A reader with a mistake: it cannot hear of the end."""

    client = "c"

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """Nothing runs."""

    def on_background(self, session: str, event: Event) -> None:
        """Nothing runs."""

    def on_state(self, session: str, state: str, reason: str) -> None:
        """It is of no interest."""

    def on_closed(self, hosted: Hosted, error: SessionError) -> None:
        raise RuntimeError(hosted.session.id) from error


async def test_a_session_that_cannot_be_let_go_of_keeps_no_other_one(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge(MemoryStore())
    async with Node() as node:
        front = Front(node, ServeConfig(), bridge, "me")
        for session in ("s_1", "s_2"):
            front.registry.find_again(node.find_again(SessionOptions(), Identity(session, 1)), "me").attach(Deaf())
        assert front.ledger is not None
        await Household(front.ledger, front.registry, node, ServeConfig).let_go()
        assert not front.registry.ids
        assert not node.sessions
        await front.close()
    assert sorted(str(record.exc_info[1]) for record in caplog.records if record.exc_info) == ["s_1", "s_2"]
