"""The file of a checkpoint: values, manifest, and a signature without which nobody looks at either.

    magic     16 bytes
    values    as the worker wrote them
    manifest  JSON
    key       8 bytes that tell which key has signed
    signature HMAC-SHA256 of magic and manifest, which has the hash of the values
    length    of the manifest, 4 bytes, big-endian

Whoever may write a pickle that a session loads may run code in that session. So what is loaded is what this node wrote.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import TYPE_CHECKING, Any, Final

from capsule.node.checkpoints.manifest import Manifest, read_manifest
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC: Final = b"Capsule state 1\n"
MAX_MANIFEST: Final = 64 * 2**20
"""Bytes of a manifest. An honest one has a few hundred for each name."""
CHUNK: Final = 2**20
_END: Final = struct.Struct(">8s32sI")


def seal(key: bytes, fields: dict[str, Any], source: int, target: int) -> Manifest:
    """Write a whole checkpoint: the values are what `source` holds, `fields` all else of the manifest.

    Raises SessionError if that is not as large as it is said to be, and OSError.
    """
    _write(target, MAGIC)
    found, size = hashlib.sha256(), 0
    while data := os.read(source, CHUNK):
        found.update(data)
        size += len(data)
        if size > fields["size"]:
            break
        _write(target, data)
    if size != fields["size"]:
        raise SessionError("checkpoint_failed", "the session has changed what it had saved")
    manifest = Manifest(**fields, sha256=found.hexdigest())
    data = manifest.model_dump_json().encode()
    if len(data) > MAX_MANIFEST:
        raise SessionError("checkpoint_too_large", f"what is told of the names has more than {MAX_MANIFEST} bytes")
    _write(target, data)
    _write(target, _END.pack(key_id(key), _signature(key, data), len(data)))
    os.fsync(target)
    return manifest


def unseal(key: bytes, source: int) -> Manifest:
    """The manifest of a checkpoint that this key has signed, and in which nothing was changed.

    Raises SessionError `checkpoint_refused`.
    """
    size = os.fstat(source).st_size
    if os.pread(source, len(MAGIC), 0) != MAGIC:
        raise refused("not_a_checkpoint", "the file is no checkpoint of a session")
    start = size - _END.size
    if start < len(MAGIC):
        raise _changed()
    signed_by, signature, length = _END.unpack(_read(source, start, _END.size))
    if length > min(MAX_MANIFEST, start - len(MAGIC)):
        raise _changed()
    if signed_by != key_id(key) and _has_manifest(source, start, length):
        raise refused("other_key", "the checkpoint was made by another node, or this one has a new key since")
    data = _read(source, start - length, length)
    if not hmac.compare_digest(signature, _signature(key, data)):
        raise _changed()
    manifest = read_manifest(data)
    if len(MAGIC) + manifest.size + length != start or _hash(source, manifest.size) != manifest.sha256:
        raise _changed()
    return manifest


def key_id(key: bytes) -> bytes:
    """What tells of a key which one it is, and nothing else."""
    return hashlib.sha256(b"capsule checkpoint key " + key).digest()[:8]


def refused(reason: str, message: str) -> SessionError:
    """The error for a file that must not be loaded."""
    return SessionError("checkpoint_refused", message, details={"reason": reason})


def _has_manifest(source: int, start: int, length: int) -> bool:
    """Whether it looks whole, so that it is another's rather than a damaged one."""
    return length >= 2 and _read(source, start - length, 1) == b"{" and _read(source, start - 1, 1) == b"}"


def _changed() -> SessionError:
    return refused("changed", "the checkpoint was changed after it was made, or is not whole")


def _signature(key: bytes, manifest: bytes) -> bytes:
    return hmac.digest(key, MAGIC + manifest, "sha256")


def _hash(source: int, size: int) -> str:
    found = hashlib.sha256()
    for chunk in _chunks(source, len(MAGIC), size):
        found.update(chunk)
    return found.hexdigest()


def _chunks(source: int, start: int, size: int) -> Iterable[bytes]:
    end = start + size
    while start < end and (data := os.pread(source, min(CHUNK, end - start), start)):
        start += len(data)
        yield data


def _read(source: int, start: int, size: int) -> bytes:
    return b"".join(_chunks(source, start, size))


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
