"""`capsule store check` of a database: whether what is in its tables fits together. Nothing is repaired.

That its pages are whole, and its indexes, is the database's own matter (`amcheck`, checksums).
"""

from __future__ import annotations

from capsule_bridge.findings import Check, StoreFinding, finding, some
from capsule_bridge.postgres.tools.opening import PATIENCE, sql, viewing

_RESCUE = "Take out with `capsule store export` what can be read, and restore the database."
_QUERIES: dict[str, Check] = {
    "logs": Check("gaps", "logs with gaps", _RESCUE),
    "events": Check("lost_events", "logs without a promise", _RESCUE),
    "children": Check("left_children", "promises that wait for nobody", "A node that starts again settles them."),
    "parents": Check(
        "lost_parents", "promises whose parent is gone", "Their own verdicts and logs are whole.", "warning"
    ),
}


async def check(url: str, *, schema: str = "capsule") -> list[StoreFinding]:
    """One finding for each thing that can be wrong. Raises StoreError: `store_refused`, `store_unavailable`."""
    findings = []
    async with viewing(url, schema) as (connection, _):
        for code, one in _QUERIES.items():
            wrong = [str(row[0]) for row in await connection.fetch(sql(one.query), timeout=PATIENCE)]
            text = f"{len(wrong)} {one.wrong}: {some(wrong)}" if wrong else ""
            findings.append(finding(code, one.severity, text, one.hint))
    return findings
