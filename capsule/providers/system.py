"""The provider `system`: the time, named variables of the node, and what a session is and uses. It changes nothing."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from pydantic import Field

from capsule.broker.sdk import Descriptor, Empty, Health, Limits, Operation, Schema, ScopeSchema, secret
from capsule.node.memory import cpu_seconds, own_bytes
from capsule_protocol.errors import ArgumentError, CapabilityDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.broker.sdk import Call, Services

_MOST_PROCESSES = 1024
"""Of a tree that are counted: one that has more is about to be ended by its limits anyway."""
_AT_ONCE = 2
"""Threads that read /proc."""


class SystemScope(ScopeSchema):
    """What a grant says to `system`: the variables of the node that may be read."""

    variables: tuple[str, ...] = ()


class TimeResponse(Schema):
    """`time` in seconds since 1970, `monotonic` in seconds since any moment, `iso` in UTC."""

    time: float
    monotonic: float
    iso: str


class EnvRequest(Schema):
    """The variables that are wanted; none: all that are granted."""

    names: list[str] = Field(default_factory=list)


class EnvResponse(Schema):
    """The variables that the node has; one that it does not have is left out."""

    variables: dict[str, str] = secret()


class UsageResponse(Schema):
    """Of the session's worker and all that it has started. Memory is what each process holds for itself alone."""

    processes: int
    threads: int
    open_files: int
    memory_bytes: int
    cpu_seconds: float


class SessionResponse(Schema):
    """Who asks: the session, its name, whose it is, its environment, the execution, the process of its worker."""

    session: str
    name: str
    principal: str
    environment: str
    execution: str
    pid: int


_LIMITS = Limits(timeout=5.0)
_OPERATIONS = {
    "time": Operation("The time of the node", Empty, TimeResponse, effects=False, limits=_LIMITS),
    "env": Operation(
        "Variables of the node that the grant names", EnvRequest, EnvResponse, effects=False, limits=_LIMITS
    ),
    "usage": Operation(
        "Processes, memory and processor time of the session", Empty, UsageResponse, effects=False, limits=_LIMITS
    ),
    "session": Operation("Which session this is", Empty, SessionResponse, effects=False, limits=_LIMITS),
}


class SystemProvider:
    """Answers from what the node knows."""

    descriptor = Descriptor("system", "1.0", _OPERATIONS, SystemScope)

    def __init__(self) -> None:
        self._threads: anyio.CapacityLimiter | None = None

    async def start(self, services: Services) -> None:
        """There is nothing to make ready."""

    async def health(self) -> Health:
        """It can always act."""
        return Health(ok=True)

    async def stop(self) -> None:
        """There is nothing to let go of."""

    def check(self, scope: SystemScope) -> None:
        """Raises ArgumentError for what is no name of a variable."""
        for name in scope.variables:
            if not name or "=" in name or "\0" in name:
                raise ArgumentError(
                    "variables", f"{name!r} is no name of a variable", allowed="text without '=' and NUL"
                )

    def admit(self, operation: str, request: Any, scope: SystemScope) -> None:
        """Whether the variables are among those of the grant."""
        if operation == "env":
            for name in request.names:
                if name not in scope.variables:
                    allowed = ", ".join(scope.variables) or "none"
                    message = f"the grant has no variable {name[:200]!r}; allowed: {allowed}"
                    raise CapabilityDenied("capability_outside_grant", message)

    async def call(self, call: Call) -> Schema:
        """Answer it."""
        match call.operation:
            case "time":
                return _now()
            case "env":
                names = call.request.names or call.scope.variables
                return EnvResponse(variables={name: os.environ[name] for name in names if name in os.environ})
            case "usage":
                return await self._usage(call.asker.pid)
        asker = call.asker
        return SessionResponse(
            session=asker.session,
            name=asker.session_name,
            principal=asker.principal,
            environment=asker.environment,
            execution=asker.execution,
            pid=asker.pid,
        )

    async def _usage(self, pid: int) -> UsageResponse:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_AT_ONCE)
        return await anyio.to_thread.run_sync(_used_by_tree, pid, limiter=self._threads, abandon_on_cancel=True)


def _now() -> TimeResponse:
    now = time.time()
    return TimeResponse(time=now, monotonic=time.monotonic(), iso=datetime.fromtimestamp(now, UTC).isoformat())


def _used_by_tree(pid: int) -> UsageResponse:
    pids = list(_tree(pid)) if pid else []
    return UsageResponse(
        processes=len(pids),
        threads=sum(_entries(f"/proc/{each}/task") for each in pids),
        open_files=sum(_entries(f"/proc/{each}/fd") for each in pids),
        memory_bytes=sum(map(own_bytes, pids)),
        cpu_seconds=sum(map(cpu_seconds, pids)),
    )


def _tree(pid: int) -> Iterator[int]:
    """The process and those below it, up to _MOST_PROCESSES; none if it is gone."""
    found = [pid] if Path(f"/proc/{pid}").exists() else []
    for each in found:  # grows while it is walked
        yield each
        with suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
        del found[_MOST_PROCESSES:]


def _entries(path: str) -> int:
    try:
        return len(os.listdir(path))  # noqa: PTH208 (only their number is wanted)
    except OSError:
        return 0


def provider() -> SystemProvider:
    """The provider, for the registry."""
    return SystemProvider()
