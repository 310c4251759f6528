"""What is said between the node and the process of a provider: envelopes of the protocol with types of their own.

The envelope's `sequence` is the number of the question or call. The node trusts nothing that comes out of the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import ValidationError

from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.messages.base import Count, Data, Failure, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer, Frames


class Reply(Part):
    """The answer; buffers are the rest of its body."""

    value: Data


class Refusal(Part):
    """There is none, and why."""

    outcome: Literal["denied", "timeout", "failed"]
    error: Failure


class Piece(Part):
    """Some of the answer's body, in buffers."""


class Want(Part):
    """Room for so many bytes more of the request's body."""

    size: Count


Said: TypeAlias = Reply | Refusal | Piece | Want
SAID: Final[dict[str, type[Said]]] = {"reply": Reply, "error": Refusal, "data": Piece, "want": Want}


class Heard(NamedTuple):
    """A message of the process."""

    number: int
    said: Said
    buffers: tuple[Buffer, ...]


def pack(kind: str, number: int, body: dict[str, Any], buffers: tuple[Buffer, ...] = ()) -> Frames:
    """The frames of a message. Raises LocalProtocolError for what fits into none."""
    return encode(Envelope(kind, body, sequence=number, buffers=buffers))


def hear(frames: Sequence[Buffer]) -> Heard:
    """What the process says. Raises RemoteProtocolError, and nothing else."""
    envelope = decode(frames)
    schema = SAID.get(envelope.type)
    if schema is None:
        raise RemoteProtocolError("unexpected_message", f"{envelope.type[:40]!r} is no message of a provider")
    try:
        return Heard(envelope.sequence, schema.model_validate(envelope.body), envelope.buffers)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        what = f"{envelope.type}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RemoteProtocolError("invalid_message", what[:200]) from None
