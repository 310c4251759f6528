"""What every message has: a type, strict validation, and a way into an envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler

from capsule_protocol.envelope import Envelope
from capsule_protocol.failing import stop_early

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

    from capsule_protocol.envelope import Buffer
    from capsule_protocol.errors import CapsuleError

Count = Annotated[int, Field(ge=0)]
"""A natural number."""
MAX_SUBSHELL = 200
"""Characters of the name of a subshell."""
MAX_SUBSHELLS = 64
"""That may be open in one session."""
Data = dict[str, Any]
"""A map with text keys: a MIME bundle, its metadata, arguments."""


class Part(BaseModel):
    """A map inside a body. Types are strict (no text for a number); fields of later versions are ignored."""

    # Values stay out of errors: they may be secret or huge.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A peer chooses how much of a body is wrong, so what is wrong costs no more than what is right."""
        checked: CoreSchema = stop_early(handler(source))
        return checked


class Message(Part):
    """The body of one message type; `TYPE` is the type in its header."""

    TYPE: ClassVar[str]

    def envelope(
        self,
        *,
        id: str = "",  # noqa: A002 (the header's own word)
        session: str = "",
        execution: str = "",
        sequence: int = 0,
        time: float = 0.0,
        buffers: tuple[Buffer, ...] = (),
        epoch: int = 0,
    ) -> Envelope:
        """The message, addressed, ready for the codec; nothing is validated a second time."""
        return Envelope(self.TYPE, self.model_dump(), id, session, execution, sequence, time, buffers, epoch)


class Failure(Part):
    """An error inside a reply: what `CapsuleError.as_dict` gives."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    details: Data = {}

    @classmethod
    def of(cls, error: CapsuleError) -> Failure:
        """The form of an error that travels."""
        return cls(**error.as_dict())
