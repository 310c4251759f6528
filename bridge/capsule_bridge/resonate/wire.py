"""What a Resonate server is told, and what it says: checked, because it is somebody else's program."""

from __future__ import annotations

import base64
import binascii
import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import msgpack
from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsule_bridge.states import PENDING, State

if TYPE_CHECKING:
    from capsule_bridge.records import NewPromise, Promise, Settlement

VERSION = "2026-04-01"
"""The version of Resonate's protocol."""
FOREVER = 2**53 - 1
"""The time-out of what never times out: the last number that every implementation keeps exact."""
BY = "capsule:by"
"""Header of a value: which call gave it. A server answers the second one just as it did the first."""
LOG = "capsule:log"
"""Header of a value: the events with which the log ends. So whoever finds the verdict finds all of it."""
REQUEST = "capsule:request"
"""Tag of a promise: what it was made for. A server answers an id that it knows with what it has, whatever was asked."""
_DIGEST_BYTES = 16


class Payload(BaseModel):
    """A value: text, by convention base64, with headers."""

    headers: dict[str, Any] | None = None
    data: Any = None


class Record(BaseModel):
    """A promise, as the server has it."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: State
    value: Payload | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    settled_at: Annotated[int | None, Field(alias="settledAt")] = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.pending != (self.settled_at is None):
            raise ValueError("settledAt has to be there if there is a verdict, and only then")
        return self

    @property
    def pending(self) -> bool:
        """Whether it has no verdict yet."""
        return self.state == PENDING

    @property
    def by(self) -> str | None:
        """The call that gave the verdict, if it was one of ours."""
        headers = self.value and self.value.headers
        return headers.get(BY) if headers else None


class Head(BaseModel):
    """What an answer says of itself."""

    corr_id: Annotated[str, Field(alias="corrId")]
    status: int


class Answer(BaseModel):
    """The envelope of an answer."""

    kind: str
    head: Head
    data: Any = None


class Verdict(NamedTuple):
    """What there is to be written down of a record with a verdict."""

    id: str
    state: State
    value: bytes
    settled_at: int
    log: tuple[bytes, ...] = ()
    after: int = 0


def verdict_of(record: Record) -> Verdict:
    """The verdict of a record that has one."""
    assert record.settled_at is not None
    headers, data = (record.value.headers or {}, record.value.data) if record.value is not None else ({}, None)
    after, log = _log_of(headers.get(LOG))
    return Verdict(record.id, record.state, _bytes_of(data), record.settled_at, log, after)


def payload(value: bytes, by: str, settlement: Settlement | None = None) -> dict[str, Any]:
    """A value with who gives it, and with the last events of the log."""
    headers = {BY: by}
    if settlement is not None and settlement.log:
        headers[LOG] = _text_of(msgpack.packb([settlement.after, list(settlement.log)]))
    return {"headers": headers, "data": _text_of(value)}


def param_of(promise: NewPromise | Promise) -> dict[str, Any]:
    """What the promise was made with."""
    return {"headers": {}, "data": _text_of(promise.param)}


def tags_of(promise: NewPromise | Promise) -> dict[str, str]:
    """External: to Resonate it is a promise that nobody of its own keeps, so that anybody may listen to it."""
    request = [promise.kind, promise.session, promise.fingerprint, promise.principal, promise.key, promise.parent]
    digest = blake2b(msgpack.packb(request, unicode_errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return {
        "resonate:external": "true",
        "capsule:kind": promise.kind,
        "capsule:session": promise.session,
        REQUEST: digest,
    }


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes_of(data: object) -> bytes:
    """What somebody else gave may be anything, and is passed on as it is."""
    if data is None:
        return b""
    if not isinstance(data, str):
        return json.dumps(data).encode()
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return data.encode("utf-8", "surrogatepass")


def _log_of(header: object) -> tuple[int, tuple[bytes, ...]]:
    """What cannot be understood is no log of ours, and no reason to leave the verdict unheard."""
    if not isinstance(header, str):
        return 0, ()
    try:
        after, events = msgpack.unpackb(base64.b64decode(header, validate=True))
    except (ValueError, TypeError, msgpack.UnpackException):
        return 0, ()
    if not isinstance(after, int) or not isinstance(events, list) or not all(isinstance(e, bytes) for e in events):
        return 0, ()
    return after, tuple(events)
