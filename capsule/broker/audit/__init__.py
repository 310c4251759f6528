"""The audit trail: what was allowed and what was not, chained and signed, in files that are only appended to."""

from capsule.broker.audit.memory import Audit, NoAudit
from capsule.broker.audit.record import Entry, Record
from capsule.broker.audit.redacting import redacted, unchecked
from capsule.broker.audit.trail import Trail, open_audit

__all__ = ["Audit", "Entry", "NoAudit", "Record", "Trail", "open_audit", "redacted", "unchecked"]
