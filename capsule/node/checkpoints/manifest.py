"""What a checkpoint tells of itself: where it comes from, what it holds and lacks, and what is needed to load it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capsule_protocol.errors import SessionError
from capsule_protocol.limits import CHECKPOINT_NAMES
from capsule_protocol.messages.checkpoints import LeftOut, SavedName


class Manifest(BaseModel):
    """The last part of a checkpoint, in JSON. Fields of later versions are ignored; a later `version` is refused.

    `owner` is the principal whose session it was, `size` and `sha256` are those of the values, `has_code` says whether
    there is bytecode among them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    version: Literal[1] = 1
    created: float
    owner: str
    session: str
    environment: str
    python: str
    implementation: str
    capsule: str
    size: Annotated[int, Field(ge=0)]
    sha256: str
    has_code: bool
    names: Annotated[list[SavedName], Field(max_length=CHECKPOINT_NAMES)]
    left_out: Annotated[list[LeftOut], Field(max_length=CHECKPOINT_NAMES)]
    packages: Annotated[dict[str, str], Field(max_length=CHECKPOINT_NAMES)]

    def check_interpreter(self, python: str, implementation: str, *, allow_other: bool) -> None:
        """Raise SessionError `checkpoint_mismatch` if it cannot be loaded by this interpreter.

        Bytecode is never given to another one: what it does there, nobody knows.
        """
        if (self.implementation, _minor(self.python)) == (implementation, _minor(python)):
            return
        what = f"the checkpoint was made by {self.implementation} {self.python}, the session runs {implementation} "
        details = {"python": self.python, "implementation": self.implementation}
        if self.has_code:
            message = f"{what}{python}, and there are functions or classes of the session in it"
            raise SessionError("checkpoint_mismatch", message, details=details)
        if not allow_other:
            hint = "Pass `allow_other_interpreter=True`, or open a session in an environment with that interpreter."
            raise SessionError("checkpoint_mismatch", f"{what}{python}", hint=hint, details=details)


def read_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes, whose signature was checked. Raises SessionError `checkpoint_refused`."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"the checkpoint is of a kind that this version does not know: {where} {first['msg']}"
        raise SessionError("checkpoint_refused", message, details={"reason": "unknown_version"}) from error


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
