"""Where the node of a user listens: a directory that nobody else can look into, and the addresses in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_protocol.errors import ArgumentError, NodeError

if TYPE_CHECKING:
    from capsule.config import NodeConfig

SOCKET = "node.sock"
STORE = "store.db"
NODE = "node.name"
BOXES = "boxes"
"""Beside the socket: the directory of the records of boxes that outlive their node."""
UNIX, TCP = "ipc://", "tcp://"
SCHEMES = (UNIX, TCP)
"""How an address may begin."""
MAX_ADDRESS = 512
"""Characters; longer than any path of a socket, or name of a host."""


def runtime_directory() -> Path:
    """`$XDG_RUNTIME_DIR/capsule`, or `/tmp/capsule-UID` where the system gives users no such place; not made here."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and Path(given).is_absolute() and Path(given).is_dir():
        return Path(given, "capsule")
    return Path(f"/tmp/capsule-{os.getuid()}")  # noqa: S108 - `check_directory` trusts it only if it is ours alone


def state_directory() -> Path:
    """`$XDG_STATE_HOME/capsule`, or `~/.local/state/capsule`; not made here."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given and Path(given).is_absolute() else Path.home() / ".local/state"
    return base / "capsule"


def store_path(config: NodeConfig) -> Path:
    """The file of the store: as configured, else beside the socket of a node that has a directory of its own."""
    return config.store.path or (config.serve.directory or state_directory()) / STORE


def node_name(directory: Path) -> str:
    """The name of the node of this directory among those that share a store; made with the first one.

    Call it while the directory is locked. One that was copied to another machine is another node's.
    """
    path, host = directory / NODE, socket.gethostname()[:64]
    with contextlib.suppress(OSError, UnicodeError):
        name = path.read_text("utf-8")
        if re.fullmatch(re.escape(host) + r"-[0-9a-f]{16}", name):
            return name
    name = f"{host}-{secrets.token_hex(8)}"
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.write_text(name, "utf-8")
    new.replace(path)
    return name


def user_address() -> str:
    """Where this user's node listens."""
    return f"ipc://{runtime_directory() / SOCKET}"


def node_address(config: NodeConfig) -> str:
    """Where the node of this configuration listens for its own user.

    Raises NodeError `address_refused` if its directory is there, and not this user's alone.
    """
    directory = config.serve.directory
    if directory is None:
        return user_address()
    if os.path.lexists(directory):
        check_directory(directory)
    return f"{UNIX}{directory / SOCKET}"


def make_directory(directory: Path) -> None:
    """Make the directory if it is not there, and check it. Raises NodeError."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise NodeError("address_refused", f"{directory} cannot be made: {error.strerror}") from error
    check_directory(directory)


def check_directory(directory: Path) -> None:
    """Refuse a directory in which somebody else could put a socket of his own. Raises NodeError `address_refused`."""
    found = _owned(directory, "Set XDG_RUNTIME_DIR.")
    if found.st_mode & 0o077:
        _refuse(directory, f"is open to others (mode {found.st_mode & 0o777:o})", f"Run: chmod 700 {directory}")


def check_box(directory: Path) -> None:
    """Refuse a directory that is open to others than a group that may enter it: in a sandbox, the worker's user.

    Raises NodeError `address_refused`.
    """
    found = _owned(directory)
    if found.st_mode & 0o067:
        _refuse(directory, f"is open to others (mode {found.st_mode & 0o777:o})", f"Run: chmod 700 {directory}")


def check_place(directory: Path) -> None:
    """Refuse a directory for a socket that others may be let in to, if one of them could put his own in its place.

    Raises NodeError `address_refused`.
    """
    found = _owned(directory)
    if found.st_mode & 0o022:
        hint = f"Run: chmod go-w {directory}, or choose a directory in which only you may write."
        _refuse(directory, f"can be written by others (mode {stat.S_IMODE(found.st_mode):o})", hint)


def check_socket(path: Path) -> None:
    """Refuse this user's own address where it may be somebody else's who listens. Raises NodeError `address_refused`.

    Who has chosen another address has also chosen whom to trust with its directory.
    """
    if path.parent == runtime_directory() and os.path.lexists(path.parent):
        check_directory(path.parent)


def lock(directory: Path) -> int:
    """A descriptor that keeps other nodes out of the directory while it is open. Raises NodeError `address_in_use`."""
    descriptor = os.open(directory / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise NodeError("address_in_use", f"another node of this user listens in {directory}") from None
    return descriptor


def check_address(address: str) -> str:
    """The address itself, or that of this user's node for `auto`. Raises ArgumentError."""
    allowed = "None (a node in this process), 'auto' (this user's node), ipc://PATH, or tcp://HOST:PORT"
    if not isinstance(address, str):
        raise ArgumentError("address", f"must be a str, not {type(address).__name__}", allowed=allowed)
    if address == "auto":
        return user_address()
    if not address.startswith(SCHEMES) or "\0" in address or not 7 < len(address) <= MAX_ADDRESS or _no_place(address):
        raise ArgumentError("address", f"is {address[:200]!r}", allowed=allowed)
    return address


def _no_place(address: str) -> bool:
    """Whether it is a TCP address without a host, or without a port that somebody can listen at."""
    if not address.startswith(TCP):
        return False
    host, _, port = address.removeprefix(TCP).rpartition(":")
    return not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16)


def _owned(directory: Path, hint: str = "Choose a directory of your own.") -> os.stat_result:
    """What the system says of a directory of this user's, which is no link. Raises NodeError.

    `hint` is for one that is another user's.
    """
    try:
        found = directory.lstat()
    except OSError as error:
        raise NodeError("address_refused", f"{directory} cannot be looked at: {error.strerror}") from error
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        _refuse(directory, "is not a directory, or a link to one", "Remove it.")
    if found.st_uid != os.getuid():
        _refuse(directory, f"belongs to user {found.st_uid}, not to {os.getuid()}", hint)
    return found


def _refuse(directory: Path, why: str, hint: str) -> None:
    raise NodeError("address_refused", f"{directory} {why}", hint=hint)
