"""The contract of providers: what each of them has to hold, as tests that a provider's own suite inherits.

A provider's test is a class of a few lines; pytest runs what it inherits:

    from capsule.testing import Example, ProviderContract

    class TestAcme(ProviderContract):
        examples = {"greet": Example({"name": "you"}), "give": Example({"size": 10})}

        def provider(self):
            return acme_caps.provider()

All calls go through the checkpoint that a node has, with real bodies and a real store. What a provider cannot hold it
says by an attribute of the class, and why stands beside it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgpack import packb, unpackb

from capsule.broker.account import Account
from capsule.broker.approvals import Approvals
from capsule.broker.arguments import weigh
from capsule.broker.attempt import Attempt, Outcome
from capsule.broker.audit import NoAudit
from capsule.broker.bodies import Inlet, Outlet
from capsule.broker.checkpoint import Checkpoint
from capsule.broker.policy import load
from capsule.broker.recording import Recorder
from capsule.broker.registry import check
from capsule.broker.sdk import Asker, Services
from capsule.broker.shapes import Shape
from capsule.node.asking import Answer, Question
from capsule.node.durable.calls import CallBook
from capsule_bridge import Bridge, MemoryStore, NewPromise, promise_id
from capsule_protocol.errors import CapabilityDenied, CapabilityError, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from capsule.broker.audit import Record
    from capsule.broker.sdk import Descriptor, Operation, Provider

PATIENCE = 20.0
"""Seconds in which anything has to come to its end."""
STEPS = 25
"""Turns of the event loop after each of which a call is cancelled once, unless it has ended before."""
NASTY = ("", "\0", "..", "/", "a" * 5000, "\u202e", "ﬀ", "%2e%2e", "\r\n", "'; --", "-rf", "https://[::1", "\x7f")
"""Texts that take the place of each text of an example."""


@dataclass(frozen=True, slots=True)
class Example:
    """A call that has to be accepted: its fields, and its body."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


class ProviderContract:
    """Inherit from it, in a class whose name begins with Test."""

    examples: ClassVar[Mapping[str, Example]]
    """By operation. Those of operations with effects are made many times, in a scope that is fresh for each test."""
    secrets: ClassVar[Mapping[str, str]] = {}
    """What the provider finds configured, by name."""
    endless: ClassVar[frozenset[str]] = frozenset()
    """Operations whose example does not end by itself: they are only cancelled."""
    not_alone: ClassVar[frozenset[str]] = frozenset()
    """Operations that cannot be made twice at once, because of what they change."""
    outside: ClassVar[Mapping[str, Example]] = {}
    """By operation, calls that are not within the scope."""

    def provider(self) -> Provider:
        """A new one."""
        raise NotImplementedError

    def scope(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002  # for those that need one
        """What a grant says to it, as in TOML; it may use a new folder."""
        return {}

    def prepare(self, folder: Path) -> None:
        """Make in the folder what the examples need. Called before each of them."""

    # --- what is held ---

    def test_it_can_be_loaded(self) -> None:
        """Descriptor, methods and schemas are as the interface has them, and each operation has an example."""
        provider = self.provider()
        check(provider, type(provider).__module__)
        assert set(self.examples) == set(provider.descriptor.operations)
        for operation in provider.descriptor.operations.values():
            assert operation.summary.strip()
            assert operation.request.model_json_schema()
            assert operation.response.model_json_schema()
        asyncio.run(provider.stop())

    def test_examples_are_accepted(self) -> None:
        """Each of them, more than once."""

        async def work(rig: Rig) -> None:
            for name in self._ending():
                for _ in range(2):
                    self.prepare(rig.folder)
                    outcome = await rig.call(name, self.examples[name])
                    assert outcome.error is None, f"{name}: {outcome.error}"

        self._run(work)

    def test_arguments_that_fit_no_schema_are_refused(self) -> None:
        """Fields of another type, missing ones, unknown ones: none of them reaches the provider."""

        async def work(rig: Rig) -> None:
            for name, example in self.examples.items():
                for arguments in _misfits(rig.descriptor.operations[name], example):
                    outcome = await rig.call(name, Example(arguments))
                    assert outcome.error is not None
                    assert outcome.error.code == "capability_invalid", f"{name}({arguments}): {outcome.error}"

        self._run(work)

    def test_whatever_text_it_gets_it_answers_or_refuses(self) -> None:
        """It raises nothing else, and is well afterwards."""

        async def work(rig: Rig) -> None:
            for name in self._ending():
                for arguments in _nasty(self.examples[name]):
                    self.prepare(rig.folder)
                    outcome = await rig.call(name, Example(arguments, self.examples[name].body))
                    mistake = outcome.error is not None and "made a mistake" in outcome.error.message
                    assert not mistake, f"{name}({arguments!r:.200}): {outcome.error}"
            assert (await rig.provider.health()).ok

        self._run(work)

    def test_what_is_outside_of_the_scope_is_denied_before_anybody_is_asked(self) -> None:
        """Who approves calls is not asked for what no grant allows."""

        async def work(rig: Rig) -> None:
            for name, example in self.outside.items():
                self.prepare(rig.folder)
                outcome = await rig.call(name, example)
                assert isinstance(outcome.error, CapabilityDenied), f"{name}: {outcome.error}"
                assert [record.outcome for record in rig.records if record.capability.endswith(f".{name}")] == [
                    "denied"
                ]

        self._run(work, approval="always", approval_timeout=1)

    def test_secrets_are_not_recorded(self) -> None:
        """No text of an example, of four characters or more, that is in a field of `secret()`, however deep."""

        async def work(rig: Rig) -> None:
            for name in self._ending():
                shape = Shape.of(rig.descriptor.operations[name].request.model_json_schema())
                hidden = [text for text in _hidden(self.examples[name].arguments, shape) if len(text) >= 4]
                self.prepare(rig.folder)
                await rig.call(name, self.examples[name])
                for record in rig.records:
                    assert not any(text in repr(record.arguments) for text in hidden), f"{name} shows a secret"

        self._run(work)

    def test_a_call_that_is_cancelled_leaves_nothing(self) -> None:
        """At whichever await."""

        async def work(rig: Rig) -> None:
            for name, example in self.examples.items():
                for steps in range(STEPS):
                    self.prepare(rig.folder)
                    if await rig.cancel_after(steps, name, example) and steps:
                        break
                assert await rig.is_quiet(), f"{name} left a task"
            assert (await rig.provider.health()).ok

        self._run(work)

    def test_a_call_that_takes_too_long_is_over_in_time(self) -> None:
        """Those that do not end by themselves."""

        async def work(rig: Rig) -> None:
            for name in self.endless:
                self.prepare(rig.folder)
                outcome = await rig.call(name, self.examples[name])
                assert outcome.error is not None
                assert outcome.error.code == "capability_timeout", f"{name}: {outcome.error}"

        self._run(work, limits={"timeout": 0.2})

    def test_a_body_that_is_too_large_is_refused(self) -> None:
        """In both directions; the provider stops, and is well afterwards."""

        async def work(rig: Rig) -> None:
            for name, operation in rig.descriptor.operations.items():
                example = self.examples[name]
                if name in self.endless or not (operation.takes_body or operation.gives_body):
                    continue
                self.prepare(rig.folder)
                body = bytes(100_000) if operation.takes_body else example.body
                outcome = await rig.call(name, Example(example.arguments, body))
                allowed = {None, "capability_too_large"}
                if operation.takes_body:
                    assert outcome.error is not None, f"{name} took more than it may"
                assert (outcome.error and outcome.error.code) in allowed, f"{name}: {outcome.error}"
            assert (await rig.provider.health()).ok

        self._run(work, limits={"request_bytes": 1000, "response_bytes": 1000})

    def test_a_call_that_comes_again_is_not_made_again(self) -> None:
        """Its recorded answer is given, by the node; and what is called twice comes to an end twice."""

        async def work(rig: Rig) -> None:
            for name in self._ending():
                if not rig.descriptor.operations[name].effects:
                    continue
                self.prepare(rig.folder)
                first = await rig.call(name, self.examples[name], number=1)
                body = rig.body
                again = await rig.call(name, self.examples[name], number=1)
                assert again.recorded, name
                assert unpackb(packb([again.value, rig.body])) == unpackb(packb([first.value, body])), name
                another = await rig.call(name, self.examples[name])
                assert another.error is None or isinstance(another.error, CapabilityError)
                await rig.forget()

        self._run(work)

    def test_many_calls_at_once_and_the_end_under_load(self) -> None:
        """All are answered; and when some are under way and the node closes, nothing is left."""

        async def work(rig: Rig) -> None:
            names = [name for name in self._ending() if name not in self.not_alone]
            self.prepare(rig.folder)
            outcomes = await asyncio.gather(*(rig.call(name, self.examples[name]) for name in names for _ in range(8)))
            assert all(each.error is None or isinstance(each.error, CapabilityError) for each in outcomes)
            self.prepare(rig.folder)
            running = [asyncio.ensure_future(rig.call(name, self.examples[name])) for name in names for _ in range(4)]
            await asyncio.sleep(0)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await rig.provider.stop()
            await rig.provider.stop()

        self._run(work, limits={"concurrent": 4})

    # --- inside ---

    def _ending(self) -> list[str]:
        return [name for name in self.examples if name not in self.endless]

    def _run(self, work: Callable[[Rig], Coroutine[Any, Any, None]], **limits: Any) -> None:
        """In a folder and an event loop of its own; afterwards there are as many descriptors and threads as before."""
        with tempfile.TemporaryDirectory(prefix="contract-") as folder:
            asyncio.run(asyncio.wait_for(self._work(work, Path(folder), **limits), PATIENCE * 5))

    async def _work(self, work: Callable[[Rig], Coroutine[Any, Any, None]], folder: Path, **grant: Any) -> None:
        (folder / "data").mkdir()
        self.prepare(folder / "data")
        before = _held()
        provider = self.provider()
        async with _rig(provider, self.scope(folder / "data"), folder, dict(self.secrets), grant) as rig:
            await work(rig)
        del provider, rig
        await _settled(before)


class Rig:
    """One provider behind a checkpoint."""

    def __init__(
        self, provider: Provider, checkpoint: Checkpoint, bridge: Bridge, folder: Path, records: Collection[Record]
    ) -> None:
        self.provider = provider
        self.descriptor: Descriptor = provider.descriptor
        self.folder = folder
        self.body = b""
        """That of the last answer."""
        self.records = records
        """What is in the audit trail."""
        self._checkpoint = checkpoint
        self._bridge = bridge
        self._book = CallBook(bridge)
        self._account = Account()
        self._numbers = count(1000)
        self._execution = "x_contract"
        self._mine = asyncio.all_tasks()

    async def call(self, operation: str, example: Example, *, number: int = 0) -> Outcome:
        """Through the checkpoint, as a session's call."""
        received: list[bytes] = []
        loop = asyncio.get_running_loop()

        def take(pieces: tuple[Any, ...]) -> None:
            received.extend(map(bytes, pieces))
            loop.call_soon(outlet.credit, sum(map(len, pieces)))

        outlet = Outlet(2**20, take)
        attempt = Attempt(
            epoch=1,
            number=number or next(self._numbers),
            capability=f"{self.descriptor.name}.{operation}",
            positional=[],
            arguments=dict(example.arguments),
            asker=Asker("s_contract", "contract", "contract", "default", self._execution, os.getpid()),
            inlet=Inlet([example.body], more=False, give_credit=lambda _size: None),
            outlet=outlet,
            wanted=None,
            begun=time.time(),
            standing=nullcontext,
            weight=weigh(operation, [], dict(example.arguments)),
        )
        async with asyncio.timeout(PATIENCE):
            outcome = await self._checkpoint.settle(attempt, self._account, self._book)
        self.body = b"".join([*received, *map(bytes, outcome.data)])
        return outcome

    async def cancel_after(self, steps: int, operation: str, example: Example) -> bool:
        """Whether it had ended by then."""
        task = asyncio.ensure_future(self.call(operation, example))
        for _ in range(steps):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done(), f"{operation} goes on although it was cancelled"
        return ended

    async def is_quiet(self) -> bool:
        """Whether no task is left beside the test's own, as soon as what the provider still had to do is done."""
        deadline = time.monotonic() + PATIENCE
        while (left := bool(asyncio.all_tasks() - self._mine)) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return not left

    async def begin(self) -> None:
        """There is an execution, whose calls are written down."""
        await self._bridge.accept(NewPromise(promise_id(self._execution), "execute", "s_contract", b""))

    async def forget(self) -> None:
        """From now on another execution calls."""
        self._execution = f"x_contract_{next(self._numbers)}"
        await self.begin()


@asynccontextmanager
async def _rig(
    provider: Provider, scope: dict[str, Any], folder: Path, secrets: dict[str, str], grant: dict[str, Any]
) -> AsyncIterator[Rig]:
    def secret(name: str) -> str:
        if name not in secrets:
            raise CapabilityFailed("secret_unknown", f"there is no secret {name!r}")
        return secrets[name]

    async def ask(_session: str, _execution: str, question: Question) -> Answer:
        choices = question.choices
        return Answer("an answer" if choices is None else f'"{choices[0]}"')

    file = folder / "policy.toml"
    file.write_text(_policy(provider.descriptor.name, scope, grant), encoding="utf-8")
    policy = load(file, {provider.descriptor.name: provider.descriptor})
    bridge, audit = Bridge(MemoryStore()), NoAudit()
    checkpoint = Checkpoint(
        {provider.descriptor.name: provider}, policy, Recorder(audit), Approvals(bridge, durable=False)
    )
    await provider.start(Services(secret, ask))
    try:
        provider.check(policy.rules[0].by_provider[provider.descriptor.name].scope)
        rig = Rig(provider, checkpoint, bridge, folder / "data", audit.records)
        await rig.begin()
        yield rig
    finally:
        await provider.stop()
        await bridge.close()


def _policy(name: str, scope: dict[str, Any], grant: dict[str, Any]) -> str:
    lines = ["version = 1", 'pack = "perf"', "[budget]", "faults = 100000", "[[grants]]", 'name = "contract"']
    lines += [f'capabilities = ["{name}.*"]', f"scope = {_toml(scope)}"]
    lines += [f"{key} = {_toml(value)}" for key, value in grant.items()]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """A value as TOML has it, in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(str(key))} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _misfits(operation: Operation, example: Example) -> list[dict[str, Any]]:
    """Arguments that are almost those of the example."""
    good = dict(example.arguments)
    found: list[dict[str, Any]] = [{**good, "no_such_field": 1}]
    for name, described in operation.request.model_fields.items():
        if described.is_required():
            found.append({key: value for key, value in good.items() if key != name})
        found.append({**good, name: {"no": {"such": ["thing"]}}})
    return [each for each in found if each != good]


def _nasty(example: Example) -> list[dict[str, Any]]:
    return [
        {**example.arguments, name: text}
        for name, value in example.arguments.items()
        if isinstance(value, str)
        for text in NASTY
    ]


def _hidden(value: Any, shape: Shape) -> Iterator[str]:
    """The texts in a value that are secret."""
    if isinstance(value, str):
        yield from [value] if shape.secret else []
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _hidden(each, shape if shape.secret else shape.field(name))
    elif isinstance(value, list | tuple):
        for at, each in enumerate(value):
            yield from _hidden(each, shape if shape.secret else shape.item(at))


def _held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208  # no paths are needed


async def _settled(before: tuple[int, int]) -> None:
    """What a provider held is let go of, if not at once. Idle threads of a pool are the loop's, and end with it."""
    deadline = time.monotonic() + PATIENCE
    while _held()[0] > before[0] and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert _held()[0] <= before[0], f"the provider left descriptors open: {_held()[0]}, and there were {before[0]}"
