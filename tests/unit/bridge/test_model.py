"""Random sequences of calls: a store does what the model says, also when it is closed and opened in between."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from capsule_bridge import Fence, PromiseStore, Retention, Settlement
from capsule_bridge.states import Action
from capsule_protocol.errors import CapsuleError
from tests.unit.bridge.model import Model, Refusal
from tests.unit.bridge.support import new, open_kind

T = TypeVar("T")

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
KEYS = st.sampled_from([None, "k", "l"])
FINGERPRINTS = st.sampled_from([b"one", b"one", b"other"])
WAITS = st.sampled_from([None, None, -1, 3, 8])
ACTIONS: st.SearchStrategy[Action] = st.sampled_from(["resolve", "reject", "cancel"])
FENCES = st.one_of(st.none(), st.builds(Fence, st.integers(0, 2), st.integers(0, 3)))
EVENTS = st.lists(st.sampled_from([b"x", b"y"]), max_size=3)
RETENTION = Retention(results=10, tombstones=15)


class Comparison(RuleBasedStateMachine):
    """Asks store and model the same things."""

    kind = "memory"
    retention = RETENTION

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-"))
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.store: PromiseStore = self.open()
        self.now = 0

    def open(self) -> PromiseStore:
        """The store, with what is there."""
        return open_kind(self.kind, self.folder)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    def same(self, call: Awaitable[T], expected: Callable[[], object], seen: Callable[[T], object]) -> None:
        """Store and model give the same answer, or refuse with the same code."""
        told: object
        try:
            told = expected()
        except Refusal as refusal:
            told = str(refusal)
        try:
            answer: object = seen(self.loop.run_until_complete(_awaited(call)))
        except CapsuleError as error:
            answer = error.code
        assert answer == told

    @initialize(key=KEYS, waits=st.tuples(WAITS, WAITS, WAITS))
    def there_is_a_family(self, key: str | None, waits: tuple[int | None, int | None, int | None]) -> None:
        """Without it most calls would be about promises that nobody has made."""
        for name, parent, wait in zip("abc", (None, "a", "b"), waits, strict=True):
            self.create(name, key if name == "a" else None, b"one", parent, wait, None, [])

    @rule(step=st.integers(1, 6))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(
        name=NAMES,
        key=KEYS,
        fingerprint=FINGERPRINTS,
        parent=st.one_of(st.none(), st.none(), NAMES),
        wait=WAITS,
        epoch=st.sampled_from([None, 1, 2]),
        log=EVENTS,
    )
    def create(
        self,
        name: str,
        key: str | None,
        fingerprint: bytes,
        parent: str | None,
        wait: int | None,
        epoch: int | None,
        log: list[bytes],
    ) -> None:
        fields = {"key": key, "fingerprint": fingerprint, "parent": parent, "epoch": epoch, "log": tuple(log)}
        at = None if wait is None else self.now + wait
        self.same(
            self.store.create(new(name, timeout_at=at, **fields), now=self.now),
            lambda: self.model.create(name, key, fingerprint, parent, at, self.now, epoch=epoch, log=log),
            lambda answer: (answer.promise.id, answer.fresh),
        )

    @rule(name=NAMES, epoch=st.integers(1, 2))
    def start(self, name: str, epoch: int) -> None:
        self.same(
            self.store.start(name, epoch=epoch, now=self.now),
            lambda: self.model.start(name, epoch, self.now),
            lambda answer: answer.first,
        )

    @rule(name=NAMES, action=ACTIONS, value=st.binary(max_size=3), fence=FENCES, log=EVENTS, after=st.integers(0, 4))
    def settle(
        self, name: str, action: Action, value: bytes, fence: Fence | None, log: list[bytes], after: int
    ) -> None:
        self.same(
            self.store.settle(Settlement(name, action, value, fence, tuple(log), after), now=self.now),
            lambda: self.model.settle(name, action, value, fence, self.now, log, after),
            lambda answers: answers[0].decided,
        )

    @rule(name=NAMES, action=ACTIONS, log=EVENTS)
    def settle_at_the_end(self, name: str, action: Action, log: list[bytes]) -> None:
        known = self.model.promises.get(name)
        self.settle(name, action, b"end", None, log, len(known.log) if known else 0)

    @rule(name=NAMES, events=EVENTS, after=st.integers(0, 4), fence=FENCES)
    def append(self, name: str, events: list[bytes], after: int, fence: Fence | None) -> None:
        self.same(
            self.store.append(name, events, after=after, fence=fence),
            lambda: self.model.append(name, events, after, fence),
            lambda last: last,
        )

    @rule(name=NAMES, events=EVENTS)
    def append_at_the_end(self, name: str, events: list[bytes]) -> None:
        known = self.model.promises.get(name)
        self.append(name, events, len(known.log) if known else 0, None)

    @rule(name=NAMES, upto=st.integers(0, 4))
    def trim(self, name: str, upto: int) -> None:
        self.same(self.store.trim(name, upto), lambda: self.model.trim(name, upto), lambda nothing: nothing)

    @rule(name=NAMES)
    def get(self, name: str) -> None:
        def expected() -> object:
            known = self.model.look(name, self.now)
            owner = (known.starts[-1], len(known.starts)) if known.starts else (0, 0)
            return known.state, known.value, known.settled_at, owner

        self.same(
            self.store.get(name, now=self.now),
            expected,
            lambda promise: (promise.state, promise.value, promise.settled_at, promise.fence),
        )

    @rule(name=NAMES, step=st.integers(1, 9))
    def get_later(self, name: str, step: int) -> None:
        self.now += step
        self.get(name)

    @rule(name=NAMES, after=st.integers(0, 4))
    def read(self, name: str, after: int) -> None:
        def expected() -> object:
            known = self.model.find(name)
            numbered = list(enumerate(known.log, start=1))
            return known.trimmed + 1, len(known.log), tuple(numbered[max(after, known.trimmed) :])

        self.same(self.store.read(name, after=after), expected, lambda log: (log.first, log.last, log.events))

    @rule()
    def expire(self) -> None:
        self.same(
            self.store.expire(now=self.now, retention=self.retention),
            lambda: self.model.expire(self.now, self.retention.results, self.retention.tombstones),
            lambda _: None,
        )

    @precondition(lambda self: self.kind != "memory")
    @rule()
    def open_again(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.store = self.open()

    @invariant()
    def the_same_are_pending(self) -> None:
        found = self.loop.run_until_complete(_awaited(self.store.pending(now=self.now)))
        assert [promise.id for promise in found] == self.model.pending(self.now)


class FileComparison(Comparison):
    """The same for the store in a file."""

    kind = "sqlite-process"


class DatabaseComparison(Comparison):
    """The same for the store in a database."""

    kind = "postgres"


async def _awaited(call: Awaitable[T]) -> T:
    return await call


TestMemory = Comparison.TestCase
TestMemory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSqlite = FileComparison.TestCase
TestSqlite.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPostgres = DatabaseComparison.TestCase
TestPostgres.settings = settings(
    max_examples=10, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
