"""One call on its way through the checkpoint, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from capsule.broker.arguments import NOTHING, Weight

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from capsule.broker.bodies import Inlet, Outlet
    from capsule.broker.grants import Grant
    from capsule.broker.policy import Policy
    from capsule.broker.sdk import Asker, BodyKind, Limits, Operation, Provider, Schema
    from capsule_protocol.errors import CapabilityError

Result = Literal["accepted", "denied", "timeout", "failed"]


class Target(NamedTuple):
    """What is called."""

    provider: Provider
    operation: Operation
    name: str
    """Of the operation, without that of the provider."""


@dataclass(slots=True)
class Attempt:
    """What is known of a call; more with each step.

    `epoch`: which worker of its session makes it, `number`: the worker's own, `wanted`: what its session allows.
    `weight`: that of its arguments; those that are too large are not kept.
    """

    epoch: int
    number: int
    capability: str
    positional: list[Any]
    arguments: dict[str, Any]
    asker: Asker
    inlet: Inlet
    outlet: Outlet
    wanted: tuple[str, ...] | None
    begun: float
    standing: Callable[[], AbstractContextManager[None]]
    """While this lasts, the time of the execution does not count."""
    policy: Policy | None = None
    """What has decided on it, which may be in force no more."""
    weight: Weight = NOTHING
    target: Target | None = None
    request: Schema | None = None
    grant: Grant | None = None
    limits: Limits | None = None
    why: str = ""
    """Which line of the policy counts."""
    approval: str = ""
    """Who has approved it, if that was needed."""
    probe: bool = False
    """What becomes of it decides whether its session gets more calls of this provider."""
    started: bool = False
    """It is written down that it is made, so what becomes of it has to be as well."""
    made: bool = False
    """It may have changed something."""
    ending: bool = False
    """It is decided what became of it, which is still to be recorded."""
    observed: list[str] = field(default_factory=list)
    """Codes of denials that are only observed."""

    @property
    def key(self) -> str:
        """Its name, which stays the same when it is asked again."""
        return f"{self.asker.execution or self.asker.session}:{self.epoch}:{self.number}"


class Outcome(NamedTuple):
    """What became of a call: an answer, or an error. `recorded`: an earlier node had made it."""

    result: Result
    value: dict[str, Any]
    body: Literal["", BodyKind] = ""
    data: tuple[bytes | memoryview, ...] = ()
    error: CapabilityError | None = None
    recorded: bool = False
