"""What can be configured: frozen models, checked once, passed whole."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    DirectoryPath,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE_NAME = "capsule.toml"

Backpressure = Literal["block", "drop_newest", "drop_oldest", "error"]
"""What happens at the bound of an execution's buffer when nobody reads fast enough."""

Priority = Literal["interactive", "batch"]
"""Interactive sessions get their worker before batch sessions, which get every fifth one all the same."""

Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
CountFrom1 = Annotated[int, Field(ge=1, le=1_000_000_000)]

MAX_BYTES = 2**48
"""More memory than a machine has, and less than numbers of the system overflow at."""

MIN_OPEN_FILES = 128
"""A worker has about 25 descriptors of its own, some of them from number 64 on; the rest is for the code."""


class Config(BaseModel):
    """The base of all configuration: immutable, and an unknown option is an error that lists the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A checked instance; raises ArgumentError naming the argument and what is allowed."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _argument_error(cls, error) from error


class BreakerConfig(Config):
    """When the pool of an environment stops making workers: `failures` within `window` seconds open its breaker.

    The bound of the pauses doubles from `pause` up to `longest_pause`.
    """

    failures: CountFrom1 = 5
    window: Seconds = 30.0
    pause: Seconds = 0.5
    longest_pause: Annotated[Seconds, Field(validate_default=True)] = 30.0

    @field_validator("longest_pause")
    @classmethod
    def _not_shorter_than_pause(cls, value: float, info: ValidationInfo) -> float:
        """Else `pause` would be accepted and mean nothing."""
        pause = info.data.get("pause", 0.0)
        if value < pause:
            raise PydanticKnownError("greater_than_equal", {"ge": pause})
        return value


class EnvironmentConfig(Config):
    """What the sessions of one environment share: the interpreter, what it imports before the first session, its pool.

    `warmup` is code that each worker runs before it has a session.
    """

    python: str | None = None
    preload: tuple[str, ...] = ()
    env: dict[str, str] = {}
    path: tuple[str, ...] = ()
    warmup: str = ""
    min_idle: Count = 1
    max_sessions: CountFrom1 = 1000
    max_starting: CountFrom1 = 4
    idle_ttl: Seconds = 60.0
    max_age: Seconds | None = None
    acquire_timeout: Seconds | None = None
    create_timeout: Seconds = 60.0
    idle_bytes: Annotated[int, Field(ge=2**20, le=MAX_BYTES)] | None = None
    worker_bytes: Annotated[int, Field(ge=2**20, le=MAX_BYTES)] | None = None
    breaker: BreakerConfig = BreakerConfig()


def _host_and_port(value: str) -> str:
    if not _HTTP.fullmatch(value) or int(value.rpartition(":")[2]) > 65_535:
        allowed = {"expected": "HOST:PORT, for instance 127.0.0.1:9090 or [::1]:9090"}
        raise PydanticCustomError("http_address", "Input should be the address of a port", allowed)
    return value


_HTTP = re.compile(r"([\w.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}", re.ASCII)


class ServeConfig(Config):
    """A node that serves clients of other processes. Times are in seconds.

    `listen`: addresses beside the user's own. Who is silent for `client_timeout` is taken for gone; a client that is
    gone has `reconnect_timeout` to come back, and one that detached `detached_ttl` (None: for ever), until its sessions
    are closed. `http` is the HOST:PORT of `/metrics`, `/healthz` and `/readyz`.
    `drain_timeout` is what running code gets when the service is told to end.
    """

    listen: tuple[str, ...] = ()
    max_clients: CountFrom1 = 1000
    client_timeout: Seconds = 30.0
    reconnect_timeout: Seconds = 60.0
    detached_ttl: Seconds | None = 86_400.0
    question_timeout: Seconds = 60.0
    http: Annotated[str, AfterValidator(_host_and_port)] | None = None
    drain_timeout: Seconds = 30.0


class NodeConfig(Config):
    """A node: its environments, where its boxes keep their sockets, and how much it takes on at once."""

    environments: dict[str, EnvironmentConfig] = {"default": EnvironmentConfig()}
    directory: DirectoryPath | None = None
    max_sessions: CountFrom1 = 1000
    heartbeat_interval: Seconds = 5.0
    serve: ServeConfig = ServeConfig()


class SessionOptions(Config):
    """One session: what is applied to its worker, and how the node treats its executions."""

    environment: str = "default"
    name: Annotated[str, Field(max_length=200)] | None = None
    env: dict[str, str | None] = {}
    cwd: str | None = None
    files: Annotated[dict[str, bytes], Field(repr=False)] = {}
    priority: Priority = "interactive"
    argv: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    backpressure: Backpressure = "block"
    buffer_bytes: Annotated[int, Field(ge=65_536, le=MAX_BYTES)] = 8 * 2**20
    interrupt_grace: Seconds = 1.0
    start_timeout: Seconds = 30.0
    input_timeout: Seconds | None = None
    drain_timeout: Seconds = 10.0
    out_cache: Count = 1000
    source_cache: Count = 1000
    message_bytes: Annotated[int, Field(ge=65_536, le=2**30)] = 64 * 2**20
    memory_bytes: Annotated[int, Field(ge=64 * 2**20, le=MAX_BYTES)] | None = None
    max_processes: CountFrom1 | None = None
    max_open_files: Annotated[int, Field(ge=MIN_OPEN_FILES, le=1_000_000_000)] | None = None
    max_queue: CountFrom1 = 100_000


def load(path: str | os.PathLike[str] | None = None) -> NodeConfig:
    """The configuration of this file; without a path, of `./capsule.toml` if there is one, else the defaults.

    Its top level has the fields of NodeConfig, `[environments.NAME]` those of an EnvironmentConfig. The environment
    "default" exists in any case. Relative paths begin at the file. Raises ArgumentError.
    """
    file = Path(FILE_NAME if path is None else path).absolute()
    if path is None and not file.exists():
        return NodeConfig()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError("config", f"{file} cannot be read: {error.strerror}", allowed="a TOML file") from error
    except ValueError as error:  # what tomllib and the decoder raise
        raise ArgumentError("config", f"{file} is not TOML: {error}", allowed="a TOML file") from error
    try:
        return NodeConfig.build(**_complete(data, file.parent))
    except ArgumentError as error:
        raise ArgumentError("config", f"{file}: {error.message}", code=error.code) from error


def _complete(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The data with the default environment, and with absolute paths; what is of a wrong type stays as it is."""
    environments = data.get("environments", {})
    if isinstance(environments, dict):
        data["environments"] = {"default": {}} | {
            name: _absolute(fields, folder) if isinstance(fields, dict) else fields
            for name, fields in environments.items()
        }
    if isinstance(data.get("directory"), str):
        data["directory"] = folder / data["directory"]
    return data


def _absolute(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    python, path = fields.get("python"), fields.get("path")
    if isinstance(python, str) and os.sep in python and not python.startswith("~"):
        fields["python"] = str(folder / python)
    if isinstance(path, list):
        fields["path"] = [str(folder / part) if isinstance(part, str) else part for part in path]
    return fields


def _argument_error(model: type[BaseModel], error: ValidationError) -> ArgumentError:
    """The first complaint, in the words of the one who passed the argument."""
    first = error.errors(include_url=False)[0]
    argument = ".".join(str(part) for part in first["loc"]) or model.__name__
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(_model_at(model, first).model_fields))
        return ArgumentError(argument, "there is no such option", code="unknown_option", allowed=allowed)
    given = _short(first["input"])
    if (kind := _kind(first)) is not None:
        return ArgumentError(argument, f"is {given}", allowed=kind)
    return ArgumentError(argument, f"{first['msg']}, not {given}", allowed=_allowed(first))


def _model_at(model: type[BaseModel], detail: ErrorDetails) -> type[BaseModel]:
    """The model in which an unknown option stands; its own name is the last part of the path."""
    path = detail["loc"]
    if path[0] == "environments" and len(path) > 2:
        model, path = EnvironmentConfig, path[2:]
    return BreakerConfig if path[0] == "breaker" and len(path) > 1 else model


def _kind(detail: ErrorDetails) -> str | None:
    """What is allowed, where the type's own name would not say it to the one who passed the argument."""
    if detail["type"] == "model_type":
        model = next(m for m in (EnvironmentConfig, BreakerConfig) if m.__name__ == detail["ctx"]["class_name"])
        article = "an" if model is EnvironmentConfig else "a"
        return f"{article} {model.__name__}, or a dict with its options: {', '.join(model.model_fields)}"
    return _KINDS.get(detail["type"])


def _allowed(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if "expected" in context:
        return str(context["expected"])
    bounds = [f"{word} {context[key]}" for key, word in _BOUNDS.items() if key in context]
    return ", ".join(bounds) or detail["type"].removesuffix("_type").removesuffix("_parsing").replace("_", " ")


_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most", "max_length": "a length of at most"}
_KINDS = {
    "tuple_type": "a list of str",
    "dict_type": "a dict",
    "path_not_directory": "an existing directory",
    "path_type": "the path of an existing directory",
}


def _short(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print those that are much longer
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
