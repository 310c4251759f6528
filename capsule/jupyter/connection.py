"""Where a kernel listens, and the key that its messages are signed with: what a connection file says."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from capsule_protocol.errors import ArgumentError

Port: TypeAlias = Annotated[int, Field(ge=0, le=65_535)]

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}|localhost|::1")
MAX_PATH = 90
"""Characters that a place for `ipc` sockets may have: the system allows 107, and a number follows."""


class Connection(BaseModel):
    """The five addresses; a port 0 is chosen when it is bound, and a key that is empty is made here.

    With the transport `ipc`, `ip` is the path of which each socket's own is made.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    transport: Literal["tcp", "ipc"] = "tcp"
    ip: str = "127.0.0.1"
    shell_port: Port = 0
    iopub_port: Port = 0
    stdin_port: Port = 0
    control_port: Port = 0
    hb_port: Port = 0
    key: str = Field(default_factory=lambda: secrets.token_hex(32), max_length=1000)
    signature_scheme: Literal["hmac-sha256"] = "hmac-sha256"

    @field_validator("ip")
    @classmethod
    def _of_this_machine(cls, value: str, info: ValidationInfo) -> str:
        """A kernel runs what it is sent: nobody elsewhere may reach it without a tunnel."""
        if info.data.get("transport") == "ipc":
            if not 0 < len(value) <= MAX_PATH or "\0" in value:
                raise ValueError(f"must be a path of 1 to {MAX_PATH} characters")
        elif not _LOOPBACK.fullmatch(value):
            raise ValueError("must be an address of this machine's loopback, such as 127.0.0.1")
        return value

    @field_validator("key")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty: without a key anybody could have code run")
        return value

    def address(self, channel: str) -> str:
        """Where one of the channels is, for ZeroMQ to bind."""
        port = getattr(self, f"{channel}_port")
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{port}"
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"tcp://{host}:{port or '*'}"


def check_connection(given: dict[str, Any]) -> Connection:
    """What a connection file says, checked. Raises ArgumentError."""
    try:
        return Connection.model_validate(given)
    except ValidationError as error:
        where, what = first_mistake(error)
        raise ArgumentError(where or "connection", what, allowed="what a Jupyter connection file says") from None


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """Where the first one is, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
