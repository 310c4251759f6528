"""The tests that a provider's own suite inherits: see `capsule.testing`."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgpack import packb, unpackb

from capsule.broker.registry import check
from capsule.broker.shapes import Shape
from capsule.testing.examples import Example, hidden, misfits, nasty
from capsule.testing.rig import PATIENCE, Rig, made
from capsule_protocol.errors import CapabilityDenied, CapabilityError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from capsule.broker.sdk import Provider

STEPS = 25
"""Turns of the event loop after each of which a call is cancelled once, unless it has ended before."""


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
                for arguments in misfits(rig.descriptor.operations[name], example):
                    outcome = await rig.call(name, Example(arguments))
                    assert outcome.error is not None
                    assert outcome.error.code == "capability_invalid", f"{name}({arguments}): {outcome.error}"

        self._run(work)

    def test_whatever_text_it_gets_it_answers_or_refuses(self) -> None:
        """It raises nothing else, and is well afterwards."""

        async def work(rig: Rig) -> None:
            for name in self._ending():
                for arguments in nasty(self.examples[name]):
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
                secrets = [text for text in hidden(self.examples[name].arguments, shape) if len(text) >= 4]
                self.prepare(rig.folder)
                await rig.call(name, self.examples[name])
                for record in rig.records:
                    assert not any(text in repr(record.arguments) for text in secrets), f"{name} shows a secret"

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
        async with made(provider, self.scope(folder / "data"), folder, dict(self.secrets), grant) as rig:
            await work(rig)
        del provider, rig
        await _settled(before)


def _held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208  # no paths are needed


async def _settled(before: tuple[int, int]) -> None:
    """What a provider held is let go of, if not at once. Idle threads of a pool are the loop's, and end with it."""
    deadline = time.monotonic() + PATIENCE
    while (held := _held()[0]) > before[0] and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert held <= before[0], f"the provider left descriptors open: {held}, and there were {before[0]}"
