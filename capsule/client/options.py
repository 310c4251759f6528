"""Keyword arguments turned into checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from capsule.client.arguments import check_names, check_text
from capsule.client.files import check_files
from capsule.config import NodeConfig, SessionOptions, load
from capsule.runtime import TCP
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from capsule.client.files import Files
    from capsule.config import Backpressure, Priority
    from capsule.settings.environments import EnvironmentConfig
    from capsule.settings.service import BrokerConfig, ServeConfig, StoreConfig


class ClientOptions(TypedDict, total=False):
    """The fields of NodeConfig, as keyword arguments."""

    environments: Mapping[str, EnvironmentConfig | dict[str, Any]]
    directory: str | os.PathLike[str] | None
    max_sessions: int
    heartbeat_interval: float
    max_checkpoint_bytes: int
    serve: ServeConfig | dict[str, Any]
    store: StoreConfig | dict[str, Any]
    broker: BrokerConfig | dict[str, Any]


class WorkerOptions(TypedDict, total=False):
    """The fields of SessionOptions that `session()` does not name itself. Times are in seconds."""

    priority: Priority
    argv: Sequence[str]
    path: Sequence[str]
    ipython: Sequence[str]
    capabilities: Sequence[str] | None
    backpressure: Backpressure
    buffer_bytes: int
    interrupt_grace: float
    interrupt_kills: bool
    start_timeout: float
    input_timeout: float | None
    drain_timeout: float
    out_cache: int
    source_cache: int
    message_bytes: int
    memory_bytes: int | None
    max_processes: int | None
    max_open_files: int | None
    max_queue: int


def build_config(options: Mapping[str, Any], config: str | os.PathLike[str] | NodeConfig | None = None) -> NodeConfig:
    """The configuration of a node from keyword arguments, on top of a file's or a given one; raises ArgumentError."""
    check_names(options, NodeConfig.model_fields)
    if config is None:
        return NodeConfig.build(**options)
    base = config if isinstance(config, NodeConfig) else load(check_text(config, "config"))
    return NodeConfig.build(**{**dict(base), **options})


def build_options(
    environment: str,
    options: Mapping[str, Any],
    *,
    env: Mapping[str, str | None] | None,
    cwd: str | os.PathLike[str] | None,
    name: str | None,
    files: Files | None = None,
    address: str | None = None,
) -> SessionOptions:
    """The options of a session of the node at this address, from keyword arguments; raises ArgumentError."""
    check_names(options, SessionOptions.model_fields)
    given = {**options, "environment": environment, "name": name, "env": check_env(env)}
    if cwd is not None:
        given["cwd"] = check_path(cwd) if address is not None and address.startswith(TCP) else check_directory(cwd)
    elif (
        files is None and address is None
    ):  # elsewhere, and with files, it works in the directory that the worker makes
        given["cwd"] = _own_directory()
    checked = SessionOptions.build(**given)
    if not files:
        return checked
    return checked.model_copy(update={"files": check_files(files, checked.message_bytes // 2)})


def _own_directory() -> str | None:
    """The caller's working directory, as a child process would have it; None if somebody removed it."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None


def check_directory(cwd: str | os.PathLike[str]) -> str:
    """An existing directory, as an absolute path: the worker starts elsewhere."""
    path = Path(check_text(cwd, "cwd")).absolute()
    if not path.is_dir():
        raise ArgumentError("cwd", f"{str(path)!r} is not a directory", allowed="an existing directory")
    return str(path)


def check_path(cwd: str | os.PathLike[str]) -> str:
    """An absolute path of another machine: only that one knows what is there."""
    path = check_text(cwd, "cwd")
    if not path.startswith("/"):
        allowed = "an absolute path, of a directory on the node's machine"
        raise ArgumentError("cwd", f"{path!r} does not begin at the root", allowed=allowed)
    return path


def check_env(env: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Variables that a process can have: the system takes no `=` in a name, and no NUL anywhere."""
    allowed = "a mapping of names without '=' to a str, or None to remove"
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise ArgumentError("env", f"must be a mapping, not {type(env).__name__}", allowed=allowed)
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ArgumentError("env", f"has the name {name!r}", allowed=allowed)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise ArgumentError("env", f"has a bad value for {name!r}", allowed=allowed)
    return dict(env)
