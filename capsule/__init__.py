"""Capsule runs Python for other programs: in worker processes that keep their state, one verdict for each execution."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsule.client.aio import AsyncClient as AsyncClient
    from capsule.client.execution import AsyncEvents as AsyncEvents
    from capsule.client.execution import AsyncExecution as AsyncExecution
    from capsule.client.results import Result as Result
    from capsule.client.session import AsyncSession as AsyncSession
    from capsule.client.sync import Client as Client
    from capsule.client.sync_execution import Events as Events
    from capsule.client.sync_execution import Execution as Execution
    from capsule.client.sync_session import Session as Session
    from capsule.config import NodeConfig as NodeConfig
    from capsule.config import SessionOptions as SessionOptions
    from capsule.events import Display as Display
    from capsule.events import Event as Event
    from capsule.events import Finished as Finished
    from capsule.events import InputRequest as InputRequest
    from capsule.events import Output as Output
    from capsule.settings.environments import EnvironmentConfig as EnvironmentConfig
    from capsule_protocol.errors import ArgumentError as ArgumentError
    from capsule_protocol.errors import CapsuleError as CapsuleError
    from capsule_protocol.errors import EnvironmentFailed as EnvironmentFailed
    from capsule_protocol.errors import ExecutionError as ExecutionError
    from capsule_protocol.errors import NodeError as NodeError
    from capsule_protocol.errors import PoolError as PoolError
    from capsule_protocol.errors import SessionError as SessionError
    from capsule_protocol.errors import WorkerLost as WorkerLost

_HOME = {
    "AsyncClient": "capsule.client.aio",
    "AsyncEvents": "capsule.client.execution",
    "AsyncExecution": "capsule.client.execution",
    "AsyncSession": "capsule.client.session",
    "Client": "capsule.client.sync",
    "Events": "capsule.client.sync_execution",
    "Execution": "capsule.client.sync_execution",
    "Session": "capsule.client.sync",
    "Result": "capsule.client.results",
    "EnvironmentConfig": "capsule.config",
    "NodeConfig": "capsule.config",
    "SessionOptions": "capsule.config",
    "Display": "capsule.events",
    "Event": "capsule.events",
    "Finished": "capsule.events",
    "InputRequest": "capsule.events",
    "Output": "capsule.events",
    "ArgumentError": "capsule_protocol.errors",
    "CapsuleError": "capsule_protocol.errors",
    "EnvironmentFailed": "capsule_protocol.errors",
    "ExecutionError": "capsule_protocol.errors",
    "NodeError": "capsule_protocol.errors",
    "PoolError": "capsule_protocol.errors",
    "SessionError": "capsule_protocol.errors",
    "WorkerLost": "capsule_protocol.errors",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - one table of names, and where each is loaded from when it is first used


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOME[name].startswith("capsule.client"):
        import_module("capsule.platforms").check_client()
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
