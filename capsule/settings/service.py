"""What can be configured of a service: whom it serves, what it writes down, and what code may do outside."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from capsule.settings.base import MAX_BYTES, Bytes, Config, Count, CountFrom1, Seconds, contradiction, option
from capsule_protocol.errors import ArgumentError

Durability = Literal["power", "process", "none"]
"""What is written down outlives: a cut of the power, the death of the node's process, nothing."""


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
            raise contradiction(text, allowed) from None
        level = info.data.get("durability", "power")
        if level == "none":
            raise contradiction("is of no use with durability = 'none', which writes nothing down", "no url")
        if kind == "postgres" and level != "power":
            raise contradiction(f"cannot be had with durability = {level!r}: a database syncs each commit", "'power'")
        if kind == "postgres" and info.data.get("path") is not None:
            raise contradiction("and `path` name two stores: one in PostgreSQL has no file", "one of them")
        return value

    @field_validator("token")
    @classmethod
    def _is_of_use(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Else it would be accepted and mean nothing."""
        url = info.data.get("url")
        if value is not None and "url" in info.data and not (url and url.get_secret_value().startswith("resonate+")):
            raise contradiction("is only for a Resonate server", "a url that begins with resonate+")
        return value


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
