"""Durable promises: who asked for what, what became of it, and the log of its events, in stores that lose nothing."""

from __future__ import annotations

from capsule_bridge.bridge import Bridge
from capsule_bridge.durability import Durability, open_store
from capsule_bridge.identity import call_promise, execution_promise, fingerprint, promise_id, session_promise
from capsule_bridge.interceptors import Interceptor, Quarantined
from capsule_bridge.memory import MemoryStore
from capsule_bridge.records import (
    Claim,
    Created,
    Expired,
    Fence,
    Lease,
    Log,
    LoggedEvent,
    NewPromise,
    Promise,
    Retention,
    Settled,
    Settlement,
    Started,
)
from capsule_bridge.sqlite import SqliteStore
from capsule_bridge.states import PROMISE, Action, State
from capsule_bridge.stats import BridgeInfo, SessionPromises
from capsule_bridge.store import Leases, PromiseStore, Salvaging, Watched

__all__ = [
    "PROMISE",
    "Action",
    "Bridge",
    "BridgeInfo",
    "Claim",
    "Created",
    "Durability",
    "Expired",
    "Fence",
    "Interceptor",
    "Lease",
    "Leases",
    "Log",
    "LoggedEvent",
    "MemoryStore",
    "NewPromise",
    "Promise",
    "PromiseStore",
    "Quarantined",
    "Retention",
    "Salvaging",
    "SessionPromises",
    "Settled",
    "Settlement",
    "SqliteStore",
    "Started",
    "State",
    "Watched",
    "call_promise",
    "execution_promise",
    "fingerprint",
    "open_store",
    "promise_id",
    "session_promise",
]
