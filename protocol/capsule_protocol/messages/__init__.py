"""All message types as pydantic models. They validate at trust boundaries; the schema and the docs come from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.messages import (
    capability,
    checkpoints,
    comms,
    execution,
    introspection,
    link,
    operations,
    promises,
    session,
    streams,
)
from capsule_protocol.messages.base import Failure, Message, Part

if TYPE_CHECKING:
    from capsule_protocol.envelope import Envelope

__all__ = ["MESSAGES", "Failure", "Message", "Part", "parse"]

AREAS = (link, session, execution, introspection, comms, capability, streams, checkpoints, operations, promises)

MESSAGES: dict[str, type[Message]] = {
    cls.TYPE: cls
    for area in AREAS
    for cls in vars(area).values()
    if isinstance(cls, type) and issubclass(cls, Message) and "TYPE" in vars(cls)
}
"""Every message type by the name in its header, in the order of the specification."""


def parse(envelope: Envelope) -> Message:
    """The validated message of an envelope.

    Raises RemoteProtocolError: `unknown_type`, or `invalid_message` that names the wrong fields, but not their values.
    """
    cls = MESSAGES.get(envelope.type)
    if cls is None:
        raise RemoteProtocolError("unknown_type", f"there is no message type {envelope.type[:64]!r}")
    try:
        return cls.model_validate(envelope.body)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[:8]
        fields = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"[:200] for item in wrong]
        raise RemoteProtocolError(
            "invalid_message",
            f"{envelope.type}: {'; '.join(fields)}",
            details={"type": envelope.type, "fields": fields},
        ) from error
