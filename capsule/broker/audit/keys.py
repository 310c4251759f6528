"""The key with which a node signs how far its audit trail goes, and the public one by which anybody can tell."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from capsule_protocol.errors import ArgumentError, NodeError

if TYPE_CHECKING:
    from pathlib import Path

    from nacl.signing import SigningKey

KEY_FILE, PUBLIC_FILE = "signing.key", "signing.pub"
HINT = "Restore it from a backup; with another key, nothing that was signed before can be verified by it."


def signing_key(file: Path) -> SigningKey:
    """The key in this file, made if there is none. Raises NodeError `address_refused` if it is not ours alone."""
    from nacl.signing import SigningKey

    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
        except FileExistsError:
            descriptor = os.open(file, os.O_RDONLY | flags)
        else:
            _write(descriptor, SigningKey.generate().encode().hex())
            descriptor = os.open(file, os.O_RDONLY | flags)
        with os.fdopen(descriptor, "rb") as opened:
            found = os.fstat(descriptor)
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise NodeError("address_refused", f"{file} can be read by others", hint=f"Run: chmod 600 {file}")
            seed = bytes.fromhex(opened.read(1024).decode("ascii"))
        return SigningKey(seed)
    except OSError as error:
        raise NodeError("address_refused", f"{file} cannot be used: {error.strerror}") from error
    except ValueError as error:  # nacl's own errors are ValueErrors too
        raise NodeError("address_refused", f"{file} holds no key for an audit trail", hint=HINT) from error


def public_key(word: str) -> bytes:
    """The public key that somebody wrote as text. Raises ArgumentError."""
    try:
        key = bytes.fromhex(word.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ArgumentError("key", "is no public key of an audit trail", allowed="64 hexadecimal digits")
    return key


def _write(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
