"""What can be configured: frozen models, checked once, passed whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import DirectoryPath, Field

from capsule.settings.base import MAX_BYTES, MIN_OPEN_FILES, Bytes, Config, Count, CountFrom1, Seconds, option
from capsule.settings.environments import EnvironmentConfig
from capsule.settings.service import BrokerConfig, ServeConfig, StoreConfig

FILE_NAME = "capsule.toml"
PREFIX = "CAPSULE_"
"""Variables that begin so are options of a node."""

Backpressure = Literal["block", "drop_newest", "drop_oldest", "error"]
"""What happens at the bound of an execution's buffer when nobody reads fast enough."""

Priority = Literal["interactive", "batch"]
"""Interactive sessions get their worker before batch sessions, which get every fifth one all the same."""


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
    env: dict[str, str | None] = {}  # noqa: RUF012 (pydantic copies it)
    cwd: str | None = None
    files: Annotated[dict[str, bytes], Field(repr=False)] = {}  # noqa: RUF012 (as above)
    priority: Priority = "interactive"
    argv: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    ipython: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    capabilities: Annotated[tuple[str, ...], Field(max_length=1000)] | None = None
    backpressure: Backpressure = "block"
    buffer_bytes: Annotated[int, Field(ge=65_536, le=MAX_BYTES)] = 8 * 2**20
    interrupt_grace: Seconds = 1.0
    interrupt_kills: bool = True
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
