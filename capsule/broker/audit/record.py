"""One record of the audit trail, and the line of its file. Each line has the hash of the one before it."""

from __future__ import annotations

import json
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HASH_BYTES = 32
GENESIS = "0" * (2 * HASH_BYTES)
"""What the first record has for the hash of the one before."""
MAX_LINE = 2**16
"""Bytes of a line. A longer record loses its arguments and details, and says how large they were."""
MAX_TEXT = 500
"""Characters of a text that others have chosen."""
KINDS = ("call", "policy", "provider", "approval", "budget", "audit")
OUTCOMES = (
    *("accepted", "denied", "timeout", "failed", "begun"),  # of calls
    *("in_force", "loaded"),  # of policies and providers
    *("approved", "refused"),  # of approvals, which may be `denied` too; refused: by somebody who may not approve
    *("calm", "warned", "throttled", "isolated", "probing"),  # of budgets
    *("opened", "resumed", "cut", "damaged"),  # of the trail itself
)
_BEGIN, _END = b'{"sequence":', b'"}'
_TAIL = b',"previous":"'


class Record(NamedTuple):
    """What is recorded. All but `kind` may be left out; `time` (seconds since 1970) is then now.

    `kind`: one of KINDS; `audit` is for what the trail says of itself. `outcome`: one of OUTCOMES.
    `principal`, `session`, `execution`: who. `capability`, `arguments` (as `redacted` makes them): what. `grant`,
    `line`, `policy` (its digest): by which grant. `outcome`, `code`, `why`: what became of it. `duration` in seconds.
    """

    kind: str
    outcome: str = ""
    code: str = ""
    principal: str = ""
    session: str = ""
    session_name: str = ""
    environment: str = ""
    execution: str = ""
    capability: str = ""
    key: str = ""
    arguments: Mapping[str, Any] | None = None
    grant: str = ""
    line: int = 0
    policy: str = ""
    why: str = ""
    duration: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    details: Mapping[str, Any] | None = None
    time: float = 0.0


class Entry(NamedTuple):
    """A record in its place in the trail."""

    sequence: int
    record: Record
    previous: str

    def as_dict(self) -> dict[str, Any]:
        """What stands in its line."""
        found = {name: value for name, value in zip(_FIELDS, self.record, strict=False) if value}
        return {"sequence": self.sequence, "time": self.record.time, **found, "previous": self.previous}


def digest(line: bytes) -> str:
    """The hash of a line, without its end."""
    return blake2b(line, digest_size=HASH_BYTES).hexdigest()


def encode(record: Record, sequence: int, previous: str) -> bytes:
    """The line of a record, without its end. What has no value is left out."""
    line = _encode(record, sequence, previous)
    if len(line) <= MAX_LINE:
        return line
    sizes = {"arguments": len(_json(record.arguments or {})), "details": len(_json(record.details or {}))}
    return _encode(record._replace(arguments=None, details={"left_out": sizes}), sequence, previous)


def decode(line: bytes) -> Entry:
    """What a line says. Raises ValueError if it is none."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("a line is no object")  # noqa: TRY004 - it is about what it holds
    sequence, previous = found.pop("sequence", None), found.pop("previous", None)
    if not isinstance(sequence, int) or not isinstance(previous, str) or not isinstance(found.get("kind"), str):
        raise ValueError("a line has no number, no hash or no kind")  # noqa: TRY004
    return Entry(sequence, Record(**{name: value for name, value in found.items() if name in Record._fields}), previous)


def links(line: bytes) -> tuple[int, str] | None:
    """The number of a line and the hash that it has of the one before; None if it is no line of ours."""
    number = line[len(_BEGIN) : len(_BEGIN) + 20].partition(b",")[0]
    before = line[-len(_END) - 2 * HASH_BYTES : -len(_END)]
    begins = line.startswith(_BEGIN) and number.isdigit()
    ends = line.endswith(_END) and line[: -len(_END) - 2 * HASH_BYTES].endswith(_TAIL)
    return (int(number), before.decode("ascii", "replace")) if begins and ends else None


def _encode(record: Record, sequence: int, previous: str) -> bytes:
    found: dict[str, Any] = {"sequence": sequence, "time": round(record.time or time.time(), 6)}
    for name, value in zip(_FIELDS, record, strict=False):
        if value:
            found[name] = value[:MAX_TEXT] if isinstance(value, str) else value
    found["previous"] = previous
    return _json(found)


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode("ascii")


_FIELDS = Record._fields[:-1]
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=repr)
