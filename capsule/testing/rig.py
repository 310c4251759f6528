"""One provider behind the checkpoint that a node has, with real bodies and a real store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import asynccontextmanager, nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any

from capsule.broker.account import Account
from capsule.broker.approvals import Approvals
from capsule.broker.arguments import weigh
from capsule.broker.attempt import Attempt, Outcome
from capsule.broker.audit import NoAudit
from capsule.broker.bodies import Inlet, Outlet
from capsule.broker.checkpoint import Checkpoint
from capsule.broker.policy import load
from capsule.broker.recording import Recorder
from capsule.broker.sdk import Asker, Services, answered
from capsule.node.asking import Answer, Question
from capsule.node.durable.calls import CallBook
from capsule_bridge import Bridge, MemoryStore, NewPromise, promise_id
from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from capsule.broker.audit import Record
    from capsule.broker.sdk import Descriptor, Provider
    from capsule.testing.examples import Example

PATIENCE = 20.0
"""Seconds in which anything has to come to its end."""


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
async def made(
    provider: Provider, scope: dict[str, Any], folder: Path, secrets: dict[str, str], grant: dict[str, Any]
) -> AsyncIterator[Rig]:
    """That of a provider which is started, under a grant of all that it can; ended afterwards."""

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
        await answered(provider.check(policy.rules[0].by_provider[provider.descriptor.name].scope))
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
