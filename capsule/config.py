"""What can be configured: frozen models, checked once, passed whole."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from capsule_protocol.errors import ArgumentError

FILE_NAME = "capsule.toml"
PREFIX = "CAPSULE_"
"""Variables that begin so are options of a node."""

Backpressure = Literal["block", "drop_newest", "drop_oldest", "error"]
"""What happens at the bound of an execution's buffer when nobody reads fast enough."""

Priority = Literal["interactive", "batch"]
"""Interactive sessions get their worker before batch sessions, which get every fifth one all the same."""

Sandbox = Literal["none", "landlock", "namespaces"]
"""What keeps code from what is not its session's, from the weakest to the strongest."""

ControlGroups = Literal["auto", "required", "off"]
"""Whether the system counts what a session has together: where it can, else the environment is refused, or never."""

StartMethod = Literal["fork", "spawn"]
"""How workers begin: as forks of a process that has imported the environment's modules, or as interpreters that import
them by themselves. The names are those of `multiprocessing`."""

Durability = Literal["power", "process", "none"]
"""What is written down outlives: a cut of the power, the death of the node's process, nothing."""

Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
CountFrom1 = Annotated[int, Field(ge=1, le=1_000_000_000)]

MAX_BYTES = 2**48
"""More memory than a machine has, and less than numbers of the system overflow at."""

MIN_OPEN_FILES = 128
"""A worker has about 25 descriptors of its own, some of them from number 64 on; the rest is for the code."""


Bytes = Annotated[int, Field(ge=2**20, le=MAX_BYTES)]


class Config(BaseModel):
    """The base of all configuration: immutable, and an unknown option is an error that lists the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A checked instance; raises ArgumentError naming the argument and what is allowed."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            from capsule.settings.complaints import complaints  # late: only who errs needs it

            raise complaints(cls, error)[0].as_error() from error


def option(default: Any, description: str, *, reload: bool = False, example: Any = None) -> Any:
    """A field of a configuration, from which all else comes: its variable, what `capsule config` says of it, and, made
    by `python -m capsule.settings.pages docs`, the schema, the example file and the tables of the reference. With None
    as its default it has an example.

    With `reload`, `capsule serve` takes a new value on SIGHUP. It may be said of a field that is read from the
    configuration of node or front whenever it is needed, and never copied.
    """
    examples = None if example is None else [example]
    return Field(default, description=description, examples=examples, json_schema_extra={"x-reload": reload})


def _absolute(value: Path) -> Path:
    if not value.is_absolute() or str(value) in {"/", "/proc", "/sys", "/dev"}:
        raise PydanticCustomError(
            "absolute_path",
            "Input should be a path",
            {"expected": "an absolute path that is not '/' or the system's own"},
        )
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""What is named to the sandbox: relative to nothing, and not everything."""


class BreakerConfig(Config):
    """When the pool of an environment stops making workers: `failures` within `window` seconds open its breaker.

    The bound of the pauses doubles from `pause` up to `longest_pause`.
    """

    failures: CountFrom1 = option(
        5, "So many failures to make a worker, within `window`, open the breaker", reload=True
    )
    window: Seconds = option(30.0, "The time within which failures are counted", reload=True)
    pause: Seconds = option(
        0.5, "The longest pause after the first failure; doubles with each further one in a row", reload=True
    )
    longest_pause: Annotated[Seconds, Field(validate_default=True)] = option(
        30.0, "The longest pause of all; not less than `pause`", reload=True
    )

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

    python: str | None = option(
        None,
        "The interpreter, which must have Capsule installed; without it, the node's own",
        example="/srv/science/bin/python",
    )
    preload: tuple[str, ...] = option(
        (), "Modules that are imported before a session begins: once for all, or by each worker, as `start_method` says"
    )
    start_method: StartMethod = option(
        "fork",
        "How workers begin: `fork`, of a process that has imported `preload`; or `spawn`, each an interpreter "
        "that imports it itself, for modules that [do not survive a fork]"
        "(../how-to/add-an-environment.md#modules-that-do-not-survive-a-fork)",
        example="spawn",
    )
    env: dict[str, str] = option({}, "Environment variables that the interpreter starts with")
    path: tuple[str, ...] = option((), "Goes in front of `sys.path`, for the preload too")
    sandbox: Sandbox = option(
        "none",
        "What keeps the code of a session to its own process and files: `none`, `landlock` or `namespaces`, see "
        "[What the sandbox does and does not do](../explanation/sandbox.md); what this machine cannot give is "
        "refused: `sandbox_unavailable`",
        example="namespaces",
    )
    scratch_bytes: Bytes = option(
        2**30, "In a sandbox: what the files of a session may hold, at the level `landlock` each of them"
    )
    readable: tuple[AbsolutePath, ...] = option(
        (), "In a sandbox: what the code may read beside the interpreter, its packages and the system's libraries"
    )
    uid: Annotated[int, Field(ge=0, le=2**32 - 2)] | None = option(
        None,
        "In a sandbox of a node that runs as root: the user that the code runs as; without it, each session has one of "
        "its own",
        example=65_534,
    )
    cgroups: ControlGroups = option(
        "auto",
        "In a sandbox: whether the system counts what a session has, memory, processes and threads, in control groups: "
        "where they can be had (`auto`), or else it is refused with `sandbox_unavailable` (`required`), or never "
        "(`off`); see [Bound what sessions take](../how-to/sandbox.md#bound-what-sessions-take)",
        example="required",
    )
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = option(
        None,
        "In a sandbox: how much of the processors a session may take, 1.5 is one and a half of them; it needs control "
        "groups, else `sandbox_unavailable`; without it, as much as there is",
        example=1.5,
    )
    warmup: str = option("", "Code that each worker runs before it has a session; if it raises, `environment_failed`")
    min_idle: Count = option(1, "Workers kept ready for later sessions", reload=True)
    max_sessions: CountFrom1 = option(1000, "Workers in all: in use, ready, being made or ended", reload=True)
    max_starting: CountFrom1 = option(4, "Workers made at once", reload=True)
    idle_ttl: Seconds = option(
        60.0, "After this time a worker beyond `min_idle` that nobody wanted is ended", reload=True
    )
    max_age: Seconds | None = option(
        None, "After this time any ready worker is replaced; without it, never", reload=True, example=3600.0
    )
    acquire_timeout: Seconds | None = option(
        None,
        "How long a session waits for a worker, else `pool_timeout`; without it, for ever",
        reload=True,
        example=30.0,
    )
    create_timeout: Seconds = option(
        60.0, "Until a worker is made, imports of the environment and `warmup` included", reload=True
    )
    idle_bytes: Bytes | None = option(
        None, "Own memory of all ready workers together; without it, no bound", reload=True, example=2**30
    )
    worker_bytes: Bytes | None = option(
        None,
        "Own memory that a worker may have when it has just been made, else it counts as a failure; without it, any",
        reload=True,
        example=2**28,
    )
    breaker: BreakerConfig = option(BreakerConfig(), "When no workers are made any more")


def _host_and_port(value: str) -> str:
    if not _HTTP.fullmatch(value) or int(value.rpartition(":")[2]) > 65_535:
        allowed = {"expected": "HOST:PORT, for instance 127.0.0.1:9090 or [::1]:9090"}
        raise PydanticCustomError("http_address", "Input should be the address of a port", allowed)
    return value


_HTTP = re.compile(r"([\w.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}", re.ASCII)


class QuotaConfig(Config):
    """What one principal may use at once; None: no limit.

    `sessions` that are open, `executions` that run, `queued` ones that wait behind them, `bytes_per_second` in both
    directions together, `memory_bytes` of all its workers together.
    """

    sessions: CountFrom1 | None = option(
        None, "Open sessions, else `quota_exceeded`; without it, any number", reload=True, example=20
    )
    executions: CountFrom1 | None = option(None, "Executions that run at once, in all sessions", reload=True, example=8)
    queued: Count | None = option(None, "Executions that wait behind them, in all sessions", reload=True, example=1000)
    bytes_per_second: Annotated[int, Field(ge=1024, le=MAX_BYTES)] | None = option(
        None, "Bytes of messages in both directions together", reload=True, example=10_000_000
    )
    memory_bytes: Bytes | None = option(
        None, "Memory of all its sessions together, as measured when it asks for more", reload=True, example=2**33
    )


class ServeConfig(Config):
    """A node that serves clients of other processes. Times are in seconds.

    `listen`: addresses beside the user's own. Who does not greet within `greeting_timeout` is hung up on, and who is
    silent for `client_timeout` is taken for gone; a client that is
    gone has `reconnect_timeout` to come back, and one that detached `detached_ttl` (None: for ever), until its sessions
    are closed. `drain_timeout` is what running code and transfers get when the service is told to end; `linger` is for
    how long sessions outlive a node that dies. `insecure`: `tcp://` without encryption, on this machine only. Members
    of `group` may come over `ipc://`. `quotas` by principal; `default` is for those that have none of their own. `http`
    is the HOST:PORT of `/metrics`, `/healthz` and
    `/readyz`.
    """

    directory: Path | None = option(
        None,
        "The directory of the socket, which only you may be able to enter; without it, `$XDG_RUNTIME_DIR/capsule`, or "
        "`/tmp/capsule-UID`",
        example="/run/capsule",
    )
    listen: tuple[str, ...] = option((), "Addresses (`ipc://PATH`, `tcp://HOST:PORT`) beside that of the user")
    max_clients: CountFrom1 = option(1000, "Connections at once, else `too_many_clients`", reload=True)
    greeting_timeout: Seconds = option(
        10.0, "A connection that has not said within this time who it is, is ended", reload=True
    )
    client_timeout: Seconds = option(30.0, "A client that is silent for so long is taken for gone", reload=True)
    reconnect_timeout: Seconds = option(60.0, "How long the sessions of a client that is gone wait for it", reload=True)
    detached_ttl: Seconds | None = option(
        86_400.0, "How long a session that was detached waits for somebody; `none`: for ever", reload=True
    )
    http: Annotated[str, AfterValidator(_host_and_port)] | None = option(
        None,
        "`HOST:PORT` where [`/metrics`, `/healthz` and `/readyz`](metrics.md) are served, port 0: any that is free; "
        "without it, nowhere",
        example="127.0.0.1:9090",
    )
    question_timeout: Seconds = option(60.0, "How long a question may wait for the cell that runs", reload=True)
    linger: Annotated[float, Field(ge=0, le=86_400)] = option(
        10.0,
        "When the node dies, how long its sessions go on and wait for the next node of the same store; 0: they end",
    )
    drain_timeout: Seconds = option(
        30.0, "What running code and transfers get when the service is told to end", reload=True
    )
    insecure: bool = option(
        False,  # noqa: FBT003 - a default
        "Addresses `tcp://…` have no encryption and ask for no key; they must be of this machine's loopback",
    )
    group: str | None = option(
        None, "Members of this group may come over `ipc://`, each as a principal of its own", example="science"
    )
    quotas: dict[str, QuotaConfig] = option(
        {}, "By principal, what it may use at once; `default` is for those that have none of their own", reload=True
    )


class StoreUrl(SecretStr):
    """Where a database or a server is. Wherever it is shown, it is so without its password."""

    def _display(self) -> str:
        from capsule_bridge.places import shown  # late: few name one

        return shown(self._secret_value)


class StoreConfig(Config):
    """What a service writes down, and for how long it is kept. Times are in seconds.

    `durability`: what an acknowledged fact outlives: a cut of the power, the death of the node's process, or nothing.
    `url`: the store is there, and not in the file `path`.
    """

    durability: Durability = option(
        "power",
        "What an answer outlives: `power` a cut of the power, `process` the death of the node, `none` nothing",
        example="process",
    )
    path: Path | None = option(
        None,
        "The file of the store; without it, `store.db` in `[serve] directory` if there is one, else in "
        "`$XDG_STATE_HOME/capsule` or `~/.local/state/capsule`",
        example="/var/lib/capsule/store.db",
    )
    url: StoreUrl | None = option(
        None,
        "Where the store is, if it is in no file: `postgresql://USER@HOST/DATABASE`, which "
        "[nodes may share](../how-to/share-a-store.md), or `resonate+http://HOST:PORT`, which is experimental and "
        "keeps a file beside it. It is shown without its password",
        example="resonate+http://localhost:8001",
    )
    token: SecretStr | None = option(
        None, "What lets the node in at a Resonate server; it is never shown", example="the token"
    )
    lease: Annotated[float, Field(ge=1, le=3600)] = option(
        15.0,
        "Of nodes that share a store: how long one may be silent, `[serve] linger` not counted, before another one "
        "takes over what it had",
    )
    results: Seconds = option(86_400.0, "How long verdicts and output are kept", reload=True)
    tombstones: Seconds = option(
        604_800.0, "How long it is remembered afterwards that there were any: `promise_expired`", reload=True
    )

    @field_validator("url")
    @classmethod
    def _goes_together(cls, value: StoreUrl | None, info: ValidationInfo) -> StoreUrl | None:
        """A store is in one place, and does what was asked of it."""
        if value is None:
            return None
        from capsule_bridge.places import kind_of  # late: few name one

        try:
            kind = kind_of(value.get_secret_value())
        except ArgumentError as error:
            allowed = error.details["allowed"]
            text = error.message.removeprefix("url: ").removesuffix(f"; allowed: {allowed}")
            raise _contradiction(text, allowed) from None
        level = info.data.get("durability", "power")
        if level == "none":
            raise _contradiction("is of no use with durability = 'none', which writes nothing down", "no url")
        if kind == "postgres" and level != "power":
            raise _contradiction(f"cannot be had with durability = {level!r}: a database syncs each commit", "'power'")
        if kind == "postgres" and info.data.get("path") is not None:
            raise _contradiction("and `path` name two stores: one in PostgreSQL has no file", "one of them")
        return value

    @field_validator("token")
    @classmethod
    def _is_of_use(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Else it would be accepted and mean nothing."""
        url = info.data.get("url")
        if value is not None and "url" in info.data and not (url and url.get_secret_value().startswith("resonate+")):
            raise _contradiction("is only for a Resonate server", "a url that begins with resonate+")
        return value


def _contradiction(text: str, expected: object) -> PydanticCustomError:
    """What is wrong with an option because of another one, or of a value that may be secret."""
    return PydanticCustomError("contradiction", "{text}", {"text": text, "expected": expected})


Place = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$", max_length=4096)]
"""Where a secret is: a variable of the node's environment, or a file, whose last newline is left out."""


class BrokerConfig(Config):
    """What code may do outside its process: nothing, unless a policy says so."""

    policy: Path | None = option(
        None,
        "The file of the [policy](policy.md); without it, no code can call anything. `capsule serve` reads it again on "
        "SIGHUP",
        example="/etc/capsule/policy.toml",
    )
    audit: Path | None = option(
        None,
        "The directory of the audit trail; without it, the last records are kept in memory only",
        example="/var/lib/capsule/audit",
    )
    providers: tuple[str, ...] = option(
        (), "Modules, or packages, from which providers may come that are not Capsule's own", example=("acme_caps",)
    )
    secrets: dict[str, Place] = option(
        {},
        "By name, where secrets are that calls can be made with (`secret://NAME`): `env:VARIABLE` of the node's own "
        "environment, or `file:/PATH`",
        example={"search": "file:/run/secrets/search"},
    )


class NodeConfig(Config):
    """A node: its environments, where its boxes keep their sockets, and how much it takes on at once."""

    environments: dict[str, EnvironmentConfig] = option(
        {"default": EnvironmentConfig()}, "The environments by name; there is always one with the name `default`"
    )
    directory: DirectoryPath | None = option(
        None,
        "Where the boxes keep their sockets; without it, the directory for temporary files",
        example="/var/tmp",  # noqa: S108
    )
    max_sessions: CountFrom1 = option(1000, "Open sessions, else `too_many_sessions`", reload=True)
    heartbeat_interval: Seconds = option(
        5.0, "Between two heartbeats of a worker; sessions take a new value when they open", reload=True
    )
    max_checkpoint_bytes: Bytes = option(
        2**30,
        "What a session saves, and a checkpoint that it restores, else `checkpoint_too_large`",
        reload=True,
    )
    serve: ServeConfig = option(ServeConfig(), "What only `capsule serve` needs")
    store: StoreConfig = option(StoreConfig(), "What `capsule serve` writes down")
    broker: BrokerConfig = option(BrokerConfig(), "What code may do outside its process")


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
    ipython: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    capabilities: Annotated[tuple[str, ...], Field(max_length=1000)] | None = None
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


def is_variable(name: str) -> bool:
    """Whether a variable of the environment is meant for Capsule."""
    return name.upper().startswith(PREFIX)


def load(path: str | os.PathLike[str] | None = None) -> NodeConfig:
    """The configuration of this file and of the variables `CAPSULE_…`, which come before it.

    Without a path the file is the one that `CAPSULE_CONFIG` names, else `./capsule.toml` if there is one. Its top level
    has the fields of NodeConfig, `[environments.NAME]` those of an EnvironmentConfig. The environment "default" exists
    in any case. Relative paths begin at the file. Raises ArgumentError.
    """
    if path is None and not Path(FILE_NAME).exists() and not any(map(is_variable, os.environ)):
        return NodeConfig()  # nothing to read, and `capsule run` starts sooner
    from capsule.settings.loading import read  # late: it takes longer than all the rest

    return read(path).config
