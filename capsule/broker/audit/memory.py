"""What a broker needs of an audit trail, and one that is in memory only."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from capsule.broker.audit.record import Record
    from capsule.broker.packs import AuditSettings


class Audit(Protocol):
    """Where records go."""

    def configure(self, settings: AuditSettings) -> None:
        """Go on with other settings: the policy was switched."""

    async def append(self, record: Record) -> None:
        """Write a record down. If that cannot be done, and calls stop then: CapabilityDenied `audit_unavailable`."""

    async def close(self) -> None:
        """Sign the end and let go. Idempotent."""


class NoAudit:
    """In memory only, the newest `kept` records: for a node whose calls nobody has to answer for, and for tests."""

    def __init__(self, kept: int = 1000) -> None:
        self.records: deque[Record] = deque(maxlen=kept)

    def configure(self, settings: AuditSettings) -> None:
        """Nothing depends on them."""

    async def append(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)

    async def close(self) -> None:
        """Nothing to let go."""
