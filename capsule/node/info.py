"""What sessions and nodes tell about themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from capsule_protocol.answers import Terms

if TYPE_CHECKING:
    from capsule_bridge import BridgeInfo, SessionPromises
    from capsule_pool import PoolInfo


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session at one moment. `memory` is its worker's, in bytes; `last_heartbeat` is seconds since the epoch.

    `cpu` is the processor time that the worker has used, in seconds; `sandbox` the level that its code is held to.
    `promises`: what of the session is written down, at a node elsewhere that does so.
    """

    id: str
    name: str
    environment: str
    state: str
    pid: int
    epoch: int
    executions: int
    queue: int
    memory: int
    last_heartbeat: float
    responsive: bool
    protocol: str
    cpu: float = 0.0
    sandbox: str = "none"
    promises: SessionPromises | None = None


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session of a node elsewhere, as operators see it. `age` in seconds, `memory` of its worker in bytes."""

    id: str
    name: str
    owner: str
    environment: str
    state: str
    pid: int
    age: float
    memory: int
    executions: int
    waiting: int
    attached: bool


@dataclass(frozen=True, slots=True)
class PromiseSummary:
    """What code waits for (`kind` input), or who asked for it (execute). Times are seconds since the epoch.

    `state`: pending, resolved, rejected, rejected_canceled or rejected_timedout. An input has a `prompt`, and when it
    is settled a `value`, which is not told of a `password`, or a `message` that says why there is none. What it allows,
    `choices` or a `schema`, and its value are told of one promise, and not in a list. `age`, and what is `left` until
    it times out, are seconds by the node's clock.
    """

    id: str
    kind: str
    state: str
    session: str
    execution: str
    owner: str
    created: float
    timeout: float | None = None
    settled: float | None = None
    prompt: str = ""
    password: bool = False
    value: Any = None
    message: str = ""
    choices: list[Any] | None = None
    schema: dict[str, Any] | None = None
    age: float = field(default=0.0, compare=False)
    left: float | None = field(default=None, compare=False)

    @property
    def terms(self) -> Terms:
        """What is allowed as its answer."""
        return Terms(self.choices, self.schema)


@dataclass(frozen=True, slots=True)
class ApprovalSummary:
    """A call that waits for an approval, or waited: who asks for what, under which line of the policy, and why.

    `arguments` are told without secrets; of one that is longer than 4096 bytes: how it `begins` and `ends`, how many
    characters are `left_out`, and how many `bytes` it has. Times are seconds since the epoch. `state` is that of
    a promise: `pending`, `resolved` if it was approved, `rejected`, `rejected_timedout`, `rejected_canceled`. `by`,
    `reason`: who has said so, and why. `submitters`: who beside the owner has had code run in the session. `age`, and
    what is `left` until it expires, are seconds by the node's clock.
    """

    id: str
    state: str
    session: str
    session_name: str
    execution: str
    owner: str
    capability: str
    arguments: dict[str, Any]
    why: str
    grant: str
    line: int
    created: float
    timeout: float | None = None
    by: str = ""
    reason: str = ""
    submitters: list[str] = field(default_factory=list)
    age: float = field(default=0.0, compare=False)
    left: float | None = field(default=None, compare=False)


class SettledPromise(NamedTuple):
    """The promise with its verdict; `decided`: it is the one that was asked for, and not one from before."""

    promise: PromiseSummary
    decided: bool


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node at one moment: how many sessions it has, and its pools by environment.

    Of a service: how many connections there are, how often one of them broke the protocol since it started, and what it
    has written down, if it does.
    """

    sessions: int
    pools: dict[str, PoolInfo]
    clients: int = 0
    offences: int = 0
    bridge: BridgeInfo | None = None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of a session: its name below the session's directory, bytes, seconds since the epoch."""

    name: str
    size: int
    modified: float
