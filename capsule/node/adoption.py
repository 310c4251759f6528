"""Boxes that outlive their node: the records by which they are found, and how another node takes one over."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capsule.node.box import Box
from capsule.node.journal import VERSION, Journal
from capsule.node.leases import hold
from capsule.node.resources import begun
from capsule.node.scratch import Scratch
from capsule.runtime import check_box, check_directory
from capsule_protocol import adoption
from capsule_protocol.errors import NodeError, WorkerLost
from capsule_protocol.messages.link import Ready
from capsule_protocol.passing import receive

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("capsule.node")

RECORD_BYTES = 16 * 1024
"""No record is larger."""
PATIENCE = 5.0
"""Seconds that a box may take to answer: it does nothing else."""
_MESSAGE_BYTES = 64 * 1024
_CREDENTIALS = struct.Struct("3i")
_DESCRIPTORS = 7
"""And one more, of the scratch, where that has no path."""

Pid = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Lingering:
    """How long boxes outlive their node, in seconds, and the directory where their records are."""

    seconds: float
    directory: Path


class Adoptable(BaseModel):
    """The record of a box: whose it is and where it can be found. It holds no secret, for user code may read it.

    `box` and `worker` are process ids, each with the time of its start in clock ticks since the system booted.
    `submitters`: principals beside the owner who have had code run in the worker.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    version: Literal[1] = 1
    session: Annotated[str, Field(min_length=1, max_length=200)]
    epoch: Annotated[int, Field(ge=1)]
    directory: Annotated[str, Field(min_length=1, max_length=4096)]
    box: tuple[Pid, int]
    worker: tuple[Pid, int]
    submitters: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()

    def save(self, path: Path) -> None:
        """Write the record, readable for this user only, in the place of what was there. Raises OSError."""
        text = self.model_dump_json()
        if len(text.encode()) > RECORD_BYTES:  # nobody would read it
            raise OSError(errno.EFBIG, f"it would have more than {RECORD_BYTES} bytes")
        new = path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(path)


@dataclass(slots=True)
class Estate:
    """What a node gets of a box that it adopts. The descriptors are read ends of stdout and stderr, and the page."""

    box: Box
    token: bytes
    message_bytes: int
    ready: Ready
    descriptors: Sequence[int]
    journal: Journal


def record_path(directory: Path, box: Path) -> Path:
    """Where the record of the box with this directory is."""
    return directory / f"{box.name}.json"


def adoptable(directory: Path) -> list[Adoptable]:
    """The boxes that nodes have left, by their records, which those of dead ones lose.

    What is no record of this user is passed by, and logged. Raises NodeError `address_refused` for a directory that
    others can write to.
    """
    if not os.path.lexists(directory):
        return []
    check_directory(directory)
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            record = _read(path)
            check_box(Path(record.directory))  # in a sandbox its worker, of another user, may enter it
        except (OSError, ValueError, NodeError) as error:
            logger.warning("%s is passed by: %s", path, error)
            if _is_gone(path):
                _forget(path)
            continue
        if begun(record.box[0]) == record.box[1]:
            found.append(record)
        else:
            _forget(path)
    return found


async def take_over(box: Adoptable, secret: bytes) -> Estate:
    """Become the owner of a box. Exactly one of those who try does; WorkerLost `adoption_refused` says why not."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(PATIENCE):
            return await _take_over(connection, box, secret)
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise _refused(box, "it does not answer") from None
        if isinstance(error, OSError | NodeError):
            raise _refused(box, str(error)) from error
        raise


async def _take_over(connection: socket.socket, box: Adoptable, secret: bytes) -> Estate:
    loop = asyncio.get_running_loop()
    check_box(Path(box.directory))
    await loop.sock_connect(connection, f"{box.directory}/{adoption.SOCKET}")
    pid, user = _peer(connection)
    if user != os.geteuid() or pid != box.box[0]:
        raise _refused(box, f"process {pid} of user {user} answers in its place")
    mine = adoption.nonce()
    connection.send(msgpack.packb({"nonce": mine}))
    message, _ = await _receive(connection, box)
    theirs = message.get("nonce")
    if not isinstance(theirs, bytes) or not adoption.proves(message.get("proof"), secret, adoption.BOX, mine, theirs):
        raise _refused(box, "it does not know this session's secret")
    connection.send(msgpack.packb({"proof": adoption.proof(secret, adoption.NODE, mine, theirs)}))
    message, given = await _receive(connection, box)
    hold(connection)
    return _estate(box, connection, message["heritage"], given)


def _estate(box: Adoptable, lease: socket.socket, told: dict[str, Any], given: list[int]) -> Estate:
    scratch = Scratch(box.directory)
    if len(given) == _DESCRIPTORS + 1:
        scratch = Scratch(box.directory, given.pop(0))
    if told["version"] != VERSION or len(given) != _DESCRIPTORS:
        scratch.close()
        for descriptor in given:
            os.close(descriptor)
        other = told["version"] != VERSION
        why = (
            "a version that this one does not know has left it"
            if other
            else "there are too few descriptors for it here"
        )
        raise _refused(box, why)
    stdout, stderr, *relay, memory, page, pidfd = given
    journal = Journal(memory, (relay[0], relay[1]))
    journal.release_memory()
    owned = Box.adopted(box.box[0], lease, box.directory, (box.worker[0], pidfd))
    owned.scratch, owned.sandbox = scratch, told.get("sandbox", "none")
    return Estate(owned, told["token"], told["message_bytes"], Ready(**told["ready"]), (stdout, stderr, page), journal)


async def _receive(connection: socket.socket, box: Adoptable) -> tuple[dict[str, Any], list[int]]:
    await _readable(connection)
    received = receive(connection, _MESSAGE_BYTES, _DESCRIPTORS + 2)
    if not received.data:
        raise _refused(box, "another node has it, or the secret is another session's")
    return msgpack.unpackb(received.data), received.descriptors


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _read(path: Path) -> Adoptable:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError("it is no file that this user alone can read and write")
        text = file.read(RECORD_BYTES + 1)
    if len(text) > RECORD_BYTES:
        raise ValueError(f"it has more than {RECORD_BYTES} bytes")
    try:
        return Adoptable.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"it is no record of a box: {error.errors(include_input=False)[0]['msg']}") from error


def _peer(connection: socket.socket) -> tuple[int, int]:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(credentials)
    return pid, user


def _is_gone(path: Path) -> bool:
    """Whether it is a record whose box has left no directory."""
    try:
        return not os.path.lexists(_read(path).directory)
    except (OSError, ValueError):
        return False


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _refused(box: Adoptable, why: str) -> WorkerLost:
    return WorkerLost("adoption_refused", f"the box of session {box.session!r} cannot be adopted: {why}")
