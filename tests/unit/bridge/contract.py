"""What every promise store has to hold. The test module of a store derives from the class and has a fixture `store`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from capsule_bridge import (
    Claim,
    Fence,
    Log,
    LoggedEvent,
    PromiseStore,
    Retention,
    Settlement,
)
from capsule_bridge.states import PROMISE, Action
from capsule_bridge.store import READ_BYTES
from capsule_protocol.errors import CapsuleError
from tests.unit.bridge.support import LARGE, new

VERDICTS: dict[Action, str] = {"resolve": "resolved", "reject": "rejected", "cancel": "rejected_canceled"}


@contextmanager
def refused(code: str) -> Iterator[None]:
    """The block is refused with this code."""
    with pytest.raises(CapsuleError) as caught:
        yield
    assert caught.value.code == code


@pytest.mark.anyio
class StoreContract:
    """The tests; times are small numbers, because a store knows no clock."""

    # Making

    async def test_a_new_promise_is_pending_and_holds_what_was_asked(self, store: PromiseStore) -> None:
        asked = new("a", principal="p", key="k", param=b"\x00\xff", timeout_at=50)
        promise, fresh = await store.create(asked, now=10)
        assert fresh
        assert await store.get("a", now=11) == promise
        for field in ("id", "kind", "session", "fingerprint", "param", "principal", "key", "parent", "timeout_at"):
            assert getattr(promise, field) == getattr(asked, field)
        assert (promise.state, promise.created_at, promise.fence) == ("pending", 10, (0, 0))
        assert promise.started_at is promise.settled_at is None

    async def test_a_promise_may_be_made_started_and_with_the_first_events_of_its_log(
        self, store: PromiseStore
    ) -> None:
        promise, _ = await store.create(new("a", key="k", epoch=3, log=(b"1", LARGE)), now=10)
        assert (promise.fence, promise.started_at) == ((3, 1), 10)
        assert not (await store.start("a", epoch=3, now=11)).first
        assert (await store.read("a", after=0)).events == (LoggedEvent(1, b"1"), LoggedEvent(2, LARGE))
        # Whoever asks again changes nothing.
        await store.create(new("b", key="k", epoch=4, log=(b"other",)), now=12)
        assert (await store.get("a", now=13)).fence == (3, 2)
        assert (await store.read("a", after=0)).last == 2

    async def test_the_same_request_finds_its_promise(self, store: PromiseStore) -> None:
        first, _ = await store.create(new("a", key="k"), now=1)
        assert await store.create(new("a", key="k"), now=2) == (first, False)
        # Whoever repeats a request may have given it another id meanwhile: the key leads.
        assert await store.create(new("b", key="k"), now=3) == (first, False)
        with refused("promise_unknown"):
            await store.get("b", now=4)

    async def test_the_same_request_finds_its_verdict(self, store: PromiseStore) -> None:
        await store.create(new("a", key="k"), now=1)
        ((promise, _),) = await store.settle(Settlement("a", "reject", b"no"), now=2)
        assert await store.create(new("x", key="k"), now=3) == (promise, False)

    async def test_another_request_with_the_same_key_is_a_conflict(self, store: PromiseStore) -> None:
        first, _ = await store.create(new("a", key="k"), now=1)
        for other in (new("b", key="k", fingerprint=b"other"), new("a", key="k", kind="input")):
            with refused("idempotency_conflict"):
                await store.create(other, now=2)
        assert await store.get("a", now=3) == first

    async def test_an_id_leads_only_to_its_own_request(self, store: PromiseStore) -> None:
        await store.create(new("a", key="k"), now=1)
        for fields in ({"key": None}, {"key": "l"}, {"session": "t", "key": "k"}, {"principal": "q", "key": "k"}):
            with refused("idempotency_conflict"):
                await store.create(new("a", **fields), now=2)

    async def test_keys_are_apart_for_each_session_and_principal(self, store: PromiseStore) -> None:
        for number, fields in enumerate([{}, {"session": "t"}, {"principal": "q"}]):
            assert (await store.create(new(f"a{number}", key="k", **fields), now=1)).fresh

    async def test_of_many_equal_requests_at_once_one_makes_the_promise(self, store: PromiseStore) -> None:
        answers = await asyncio.gather(*(store.create(new(f"a{n}", key="k"), now=1) for n in range(40)))
        assert sum(fresh for _, fresh in answers) == 1
        assert len({promise for promise, _ in answers}) == 1

    # Starting

    async def test_only_the_first_start_is_told_so(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        promise, first = await store.start("a", epoch=1, now=2)
        assert (first, promise.started_at, promise.fence) == (True, 2, Fence(1, 1))
        again, first = await store.start("a", epoch=1, now=3)
        assert (first, again.started_at, again.fence) == (False, 2, Fence(1, 2))
        assert await store.get("a", now=4) == again

    async def test_what_is_not_to_be_started_again_stays_whose_it_is(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        assert (await store.start("a", epoch=1, now=2, again=False)).first
        for epoch in (1, 2):
            promise, first = await store.start("a", epoch=epoch, now=3, again=False)
            assert (first, promise.started_at, promise.fence) == (False, 2, Fence(1, 1))
        assert await store.append("a", [b"x"], after=0, fence=Fence(1, 1)) == 1
        assert (await store.start("a", epoch=2, now=4)).promise.fence == Fence(2, 2)
        with refused("promise_fenced"):
            await store.start("a", epoch=1, now=5, again=False)

    async def test_an_older_epoch_cannot_take_a_promise_back(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        await store.start("a", epoch=2, now=2)
        with refused("promise_fenced"):
            await store.start("a", epoch=1, now=3)

    async def test_what_is_done_under_a_claim_that_does_not_hold_any_more_is_refused(self, store: PromiseStore) -> None:
        session = (await store.create(new("session:s", epoch=1), now=1)).promise
        old = Claim(session.id, session.fence)
        made = (await store.create(new("a", key="k", epoch=1, log=(b"1",), claim=old), now=2)).promise
        assert (made.fence, (await store.read("a", after=0)).last) == ((1, 1), 1)
        await store.create(new("waits", param=LARGE, claim=old), now=2)
        young = Claim(session.id, (await store.start(session.id, epoch=2, now=3)).promise.fence)
        for request in (new("b", epoch=1, claim=old), new("b", key="l", claim=old), new("b", parent="a", claim=old)):
            with refused("promise_fenced"):
                await store.create(request, now=4)
        with refused("promise_fenced"):
            await store.start("waits", epoch=1, now=4, again=False, claim=old)
        with refused("promise_unknown"):
            await store.get("b", now=5)
        await store.create(new("d"), now=5)
        for late in (Settlement("waits", "cancel", claim=old), Settlement("d", "cancel")):
            with refused("promise_fenced"):
                await store.settle(late, Settlement("waits", "cancel", claim=old), now=5)
        with refused("promise_fenced"):
            await store.settle(Settlement("waits", "cancel", claim=old), now=5)
        assert (await store.get("d", now=5)).pending
        assert (await store.get("waits", now=5)).started_at is None
        # Whoever asks again hears what was made when the claim held.
        assert await store.create(new("c", key="k", claim=old), now=5) == (made, False)
        assert (await store.create(new("b", key="l", claim=young), now=6)).fresh
        assert (await store.start("waits", epoch=2, now=6, again=False, claim=young)).first
        ((promise, decided),) = await store.settle(Settlement("waits", "resolve", b"mine", claim=young), now=7)
        assert (promise.value, decided) == (b"mine", True)
        # There is a verdict to hear, whatever is claimed.
        assert await store.settle(Settlement("waits", "cancel", claim=old), now=8) == [(promise, False)]

    async def test_a_claim_to_what_is_not_there_is_refused(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        claim = Claim("session:s", Fence(1, 1))
        with refused("promise_unknown"):
            await store.create(new("b", claim=claim), now=2)
        with refused("promise_unknown"):
            await store.start("a", epoch=1, now=2, claim=claim)
        assert (await store.get("a", now=3)).started_at is None

    async def test_what_is_settled_is_not_started(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        ((promise, _),) = await store.settle(Settlement("a", "cancel"), now=2)
        assert await store.start("a", epoch=9, now=3) == (promise, False)

    async def test_what_has_timed_out_is_not_started(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=5), now=1)
        promise, first = await store.start("a", epoch=1, now=5)
        assert (promise.state, first, promise.started_at) == ("rejected_timedout", False, None)

    # Settling

    @pytest.mark.parametrize("action", VERDICTS)
    async def test_the_first_verdict_stands(self, store: PromiseStore, action: Action) -> None:
        await store.create(new("a"), now=1)
        ((promise, decided),) = await store.settle(Settlement("a", action, b"first"), now=2)
        assert (promise.state, promise.value, promise.settled_at, decided) == (VERDICTS[action], b"first", 2, True)
        for other in VERDICTS:
            assert await store.settle(Settlement("a", other, b"second"), now=3) == [(promise, False)]
        assert await store.get("a", now=4) == promise

    async def test_of_many_verdicts_at_once_one_decides(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        calls = (store.settle(Settlement("a", "resolve", b"%d" % n), now=2) for n in range(40))
        answers = [answer for (answer,) in await asyncio.gather(*calls)]
        assert sum(decided for _, decided in answers) == 1
        assert {promise for promise, _ in answers} == {await store.get("a", now=3)}

    async def test_an_owner_of_before_cannot_settle(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        old = (await store.start("a", epoch=1, now=2)).promise.fence
        current = (await store.start("a", epoch=1, now=3)).promise.fence
        newest = (await store.start("a", epoch=2, now=4)).promise.fence
        for fence in (old, current, Fence(newest.epoch, current.version), Fence(old.epoch, newest.version)):
            with refused("promise_fenced"):
                await store.settle(Settlement("a", "resolve", b"late", fence), now=5)
        assert (await store.get("a", now=6)).pending
        ((promise, decided),) = await store.settle(Settlement("a", "resolve", b"mine", newest), now=7)
        assert (promise.value, decided) == (b"mine", True)
        # Afterwards the fence does not matter: there is a verdict to hear.
        assert await store.settle(Settlement("a", "reject", b"late", old), now=8) == [(promise, False)]

    async def test_several_are_settled_all_or_none(self, store: PromiseStore) -> None:
        for name in ("a", "b"):
            await store.create(new(name), now=1)
        for wrong, code in ((Settlement("c", "cancel"), "promise_unknown"), (_fenced("b"), "promise_fenced")):
            with refused(code):
                await store.settle(Settlement("a", "cancel"), wrong, now=2)
            assert (await store.get("a", now=2)).pending
        answers = await store.settle(*(Settlement(name, "cancel") for name in ("a", "b", "a")), now=3)
        assert [decided for _, decided in answers] == [True, True, False]

    async def test_nothing_at_all_is_settled_too(self, store: PromiseStore) -> None:
        assert await store.settle(now=1) == []

    # Time-outs

    async def test_a_time_out_happens_when_it_is_due(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=10), now=1)
        assert (await store.get("a", now=9)).pending
        promise = await store.get("a", now=10)
        assert (promise.state, promise.settled_at, promise.value) == ("rejected_timedout", 10, b"")

    async def test_a_time_out_that_was_told_stands_whatever_the_clock_says_next(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=10), now=1)
        promise = await store.get("a", now=20)
        assert await store.settle(Settlement("a", "resolve", b"x"), now=5) == [(promise, False)]

    async def test_who_settles_after_the_time_out_hears_of_it(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=10), now=1)
        ((promise, decided),) = await store.settle(Settlement("a", "resolve", b"late"), now=10)
        assert (promise.state, promise.settled_at, promise.value, decided) == ("rejected_timedout", 10, b"", False)
        assert await store.get("a", now=11) == promise

    async def test_the_same_request_after_the_time_out_hears_of_it(self, store: PromiseStore) -> None:
        await store.create(new("a", key="k", timeout_at=10), now=1)
        promise, fresh = await store.create(new("b", key="k", timeout_at=99), now=12)
        assert (promise.state, promise.id, fresh) == ("rejected_timedout", "a", False)

    async def test_a_promise_may_be_born_too_late(self, store: PromiseStore) -> None:
        promise, fresh = await store.create(new("a", timeout_at=10), now=30)
        assert (promise.state, promise.created_at, promise.settled_at, fresh) == ("rejected_timedout", 10, 10, True)
        assert await store.get("a", now=31) == promise

    async def test_expire_writes_down_what_is_due(self, store: PromiseStore) -> None:
        for name, at in (("a", 10), ("b", 20), ("c", None)):
            await store.create(new(name, timeout_at=at), now=1)
        assert (await store.expire(now=15, retention=Retention())).timed_out == ("a",)
        assert (await store.expire(now=15, retention=Retention())).timed_out == ()
        assert [promise.id for promise in await store.pending(now=15)] == ["b", "c"]

    # Children

    async def test_pending_children_are_canceled_with_their_parent(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        for name in ("a.1", "a.2", "a.3"):
            await store.create(new(name, parent="a", timeout_at=9 if name == "a.3" else None), now=1)
        await store.create(new("a.1.1", parent="a.1"), now=1)
        await store.settle(Settlement("a.2", "resolve", b"kept"), now=2)
        await store.settle(Settlement("a", "resolve"), now=10)
        states = {name: (await store.get(name, now=11)).state for name in ("a.1", "a.1.1", "a.2", "a.3")}
        canceled = "rejected_canceled"
        assert states == {"a.1": canceled, "a.1.1": canceled, "a.2": "resolved", "a.3": "rejected_timedout"}
        assert (await store.get("a.1", now=12)).settled_at == 10

    async def test_children_are_canceled_when_their_parent_times_out(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=10), now=1)
        await store.create(new("a.1", parent="a"), now=1)
        await store.get("a", now=30)
        child = await store.get("a.1", now=31)
        assert (child.state, child.settled_at) == ("rejected_canceled", 10)

    async def test_a_long_line_of_descendants_ends_with_its_first(self, store: PromiseStore) -> None:
        await store.create(new("a0"), now=1)
        line = [new(f"a{n}", parent=f"a{n - 1}") for n in range(1, 1500)]
        for each in line:
            await store.create(each, now=1)
        await store.settle(Settlement("a0", "resolve"), now=2)
        assert (await store.get("a1499", now=3)).state == "rejected_canceled"
        assert await store.pending(now=3) == []

    async def test_a_settled_promise_gets_no_children(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=10), now=1)
        with refused("promise_settled"):
            await store.create(new("a.1", parent="a"), now=10)
        with refused("promise_unknown"):
            await store.create(new("b.1", parent="b"), now=1)

    # Logs

    async def test_events_are_numbered_from_one_and_read_from_anywhere(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        assert await store.append("a", [b"one", b"two"], after=0) == 2
        assert await store.append("a", [b"three"], after=2) == 3
        log = await store.read("a", after=0)
        assert (log.first, log.last) == (1, 3)
        assert log.events == (LoggedEvent(1, b"one"), LoggedEvent(2, b"two"), LoggedEvent(3, b"three"))
        assert (await store.read("a", after=1, limit=1)).events == (LoggedEvent(2, b"two"),)
        assert await store.read("a", after=1, limit=0) == Log(1, 3, ())  # how far it goes, and nothing of it
        assert (await store.read("a", after=3)).events == ()

    async def test_an_empty_log_can_be_read(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        log = await store.read("a", after=0)
        assert (log.first, log.last, log.events) == (1, 0, ())

    async def test_appending_again_changes_nothing(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        for _ in range(2):
            assert await store.append("a", [b"one", b"two"], after=0) == 2
        assert await store.append("a", [b"two", b"three"], after=1) == 3
        assert [data for _, data in (await store.read("a", after=0)).events] == [b"one", b"two", b"three"]
        await store.settle(Settlement("a", "resolve"), now=2)
        assert await store.append("a", [b"one"], after=0) == 3

    @pytest.mark.parametrize("after", [1, 3, 4])
    async def test_a_log_has_no_gap_and_no_other_event(self, store: PromiseStore, after: int) -> None:
        await store.create(new("a"), now=1)
        await store.append("a", [b"one", b"two"], after=0)
        with refused("sequence_gap"):
            await store.append("a", [b"other"], after=after)
        assert (await store.read("a", after=0)).last == 2

    async def test_nothing_follows_the_verdict(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        await store.append("a", [b"one"], after=0)
        await store.settle(Settlement("a", "resolve"), now=2)
        with refused("promise_settled"):
            await store.append("a", [b"two"], after=1)
        assert (await store.read("a", after=0)).last == 1

    async def test_the_last_events_go_with_the_verdict(self, store: PromiseStore) -> None:
        for id_ in ("a", "b"):
            await store.create(new(id_, log=(b"1",)), now=1)
        last = Settlement("a", "resolve", log=(b"2", b"3"), after=1)
        for gap in (Settlement("b", "resolve", log=(b"2",), after=4), Settlement("b", "resolve", log=(b"2",), after=0)):
            with refused("sequence_gap"):
                await store.settle(last, gap, now=2)
        assert (await store.get("a", now=3)).pending
        assert [decided for _, decided in await store.settle(last, now=4)] == [True]
        assert [event.data for event in (await store.read("a", after=0)).events] == [b"1", b"2", b"3"]
        # The verdict that does not count brings nothing with it.
        assert [
            decided for _, decided in await store.settle(Settlement("a", "reject", log=(b"4",), after=3), now=5)
        ] == [False]
        assert (await store.read("a", after=0)).last == 3
        await store.start("b", epoch=2, now=6)
        with refused("promise_fenced"):
            await store.settle(Settlement("b", "resolve", fence=Fence(1, 1), log=(b"2",), after=1), now=7)
        assert (await store.read("b", after=0)).last == 1

    async def test_a_verdict_without_events_asks_nothing_of_the_log(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        assert [decided for _, decided in await store.settle(Settlement("a", "resolve", after=9), now=2)] == [True]

    async def test_an_owner_of_before_cannot_append(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        old = (await store.start("a", epoch=1, now=2)).promise.fence
        current = (await store.start("a", epoch=2, now=3)).promise.fence
        with refused("promise_fenced"):
            await store.append("a", [b"late"], after=0, fence=old)
        assert await store.append("a", [b"mine"], after=0, fence=current) == 1

    async def test_what_was_trimmed_shows_as_a_gap(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        await store.append("a", [b"%d" % n for n in range(1, 6)], after=0)
        await store.trim("a", 3)
        await store.trim("a", 2)
        log = await store.read("a", after=1)
        assert (log.first, log.last) == (4, 5)
        assert [number for number, _ in log.events] == [4, 5]
        await store.trim("a", 99)
        log = await store.read("a", after=0)
        assert (log.first, log.last, log.events) == (6, 5, ())
        assert await store.append("a", [b"4", b"5", b"6"], after=3) == 6
        assert (await store.read("a", after=0)).events == (LoggedEvent(6, b"6"),)

    async def test_a_large_log_is_read_in_parts(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        events = [b"%d" % n * (READ_BYTES // 4) for n in range(10)]
        await store.append("a", events, after=0)
        first = await store.read("a", after=0)
        assert (len(first.events), first.last) == (4, 10)
        rest = await store.read("a", after=4), await store.read("a", after=8)
        assert [each.data for log in (first, *rest) for each in log.events] == events

    async def test_logs_are_apart(self, store: PromiseStore) -> None:
        for name in ("a", "b"):
            await store.create(new(name), now=1)
            await store.append(name, [name.encode()], after=0)
        assert (await store.read("b", after=0)).events == (LoggedEvent(1, b"b"),)

    # Recovery

    async def test_pending_promises_are_found_in_order_and_in_pages(self, store: PromiseStore) -> None:
        for n in (3, 1, 2, 5, 4):
            await store.create(new(f"a{n}", session="t" if n == 2 else "s"), now=1)
        await store.settle(Settlement("a1", "resolve"), now=2)
        found = await store.pending(now=3)
        assert [promise.id for promise in found] == ["a3", "a2", "a5", "a4"]
        assert found[0] == await store.get("a3", now=3)
        assert [promise.id for promise in await store.pending(now=3, limit=2)] == ["a3", "a2"]
        assert [promise.id for promise in await store.pending(now=3, after="a2")] == ["a5", "a4"]
        assert [promise.id for promise in await store.pending(now=3, session="t")] == ["a2"]

    async def test_what_is_due_is_not_pending(self, store: PromiseStore) -> None:
        await store.create(new("a", timeout_at=10), now=1)
        assert await store.pending(now=10) == []

    # Forgetting

    async def test_results_are_kept_for_their_time_and_then_remembered_as_gone(self, store: PromiseStore) -> None:
        retention = Retention(results=100, tombstones=1000)
        await store.create(new("a", key="k"), now=1)
        await store.create(new("waits", key="l"), now=1)
        await store.append("a", [b"one"], after=0)
        await store.settle(Settlement("a", "resolve", b"x"), now=10)
        assert (await store.expire(now=109, retention=retention)).forgotten == ()
        assert (await store.get("a", now=109)).value == b"x"
        assert (await store.expire(now=110, retention=retention)).forgotten == ("a",)
        for code, call in (
            ("promise_expired", store.get("a", now=111)),
            ("promise_expired", store.read("a", after=0)),
            ("promise_expired", store.settle(Settlement("a", "resolve"), now=111)),
            ("promise_expired", store.create(new("a"), now=111)),
            ("promise_expired", store.create(new("b", key="k"), now=111)),
        ):
            with refused(code):
                await call
        await store.expire(now=1110, retention=retention)
        with refused("promise_unknown"):
            await store.get("a", now=1111)
        assert (await store.create(new("a", key="k"), now=1112)).fresh
        assert (await store.read("a", after=0)).last == 0
        assert (await store.get("waits", now=9999)).pending

    async def test_expire_keeps_to_its_bound_and_says_so(self, store: PromiseStore) -> None:
        for n in range(5):
            await store.create(new(f"a{n}", timeout_at=10), now=1)
        parts = [await store.expire(now=20, retention=Retention(), limit=2) for _ in range(3)]
        assert [len(part.timed_out) for part in parts] == [2, 2, 1]
        assert [part.more for part in parts] == [True, True, False]

    # All of it

    async def test_unknown_ids_are_refused(self, store: PromiseStore) -> None:
        for call in (
            store.get("no", now=1),
            store.start("no", epoch=1, now=1),
            store.settle(Settlement("no", "resolve"), now=1),
            store.append("no", [b"x"], after=0),
            store.trim("no", 1),
            store.read("no", after=0),
            store.pending(now=1, after="no"),
        ):
            with refused("promise_unknown"):
                await call

    async def test_large_values_come_back_as_they_were(self, store: PromiseStore) -> None:
        await store.create(new("a", param=LARGE), now=1)
        await store.append("a", [b"small", LARGE + b"1", LARGE + b"2"], after=0)
        await store.append("a", [LARGE + b"2"], after=2)
        await store.settle(Settlement("a", "resolve", LARGE + b"3"), now=2)
        promise = await store.get("a", now=3)
        assert (promise.param, promise.value) == (LARGE, LARGE + b"3")
        assert [data for _, data in (await store.read("a", after=1)).events] == [LARGE + b"1", LARGE + b"2"]

    async def test_a_canceled_call_is_done_once_or_not_at_all(self, store: PromiseStore) -> None:
        await store.create(new("log"), now=1)
        for n in range(30):
            calls = [
                asyncio.ensure_future(store.create(new(f"a{n}", key=f"k{n}"), now=1)),
                asyncio.ensure_future(store.append("log", [b"%d" % n], after=n)),
            ]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            # Asked again, it is there exactly once, whatever became of the first call.
            assert (await store.create(new(f"b{n}", key=f"k{n}"), now=2)).promise.id in {f"a{n}", f"b{n}"}
            assert await store.append("log", [b"%d" % n], after=n) == n + 1
        assert [data for _, data in (await store.read("log", after=0)).events] == [b"%d" % n for n in range(30)]

    async def test_a_closed_store_says_so_and_can_be_closed_again(self, store: PromiseStore) -> None:
        await store.create(new("a"), now=1)
        await store.close()
        await store.close()
        for call in (store.get("a", now=1), store.create(new("b"), now=1), store.pending(now=1)):
            with refused("store_closed"):
                await call


def test_the_table_lets_every_settled_state_stay() -> None:
    actions = set(PROMISE["pending"])
    assert actions == {*VERDICTS, "time_out"}
    for state, row in PROMISE.items():
        assert set(row) == actions
        assert state == "pending" or set(row.values()) == {state}
    assert set(PROMISE["pending"].values()) == set(PROMISE) - {"pending"}


def _fenced(id: str) -> Settlement:
    return Settlement(id, "cancel", fence=Fence(7, 7))
