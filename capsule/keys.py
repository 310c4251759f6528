"""Keys and tokens as people handle them: one word of letters, digits, `-`, `_`, `.`, whose beginning says what it is.

`ck_SECRET.SERVER` is a client's secret key with the public key of its node, `cs_SERVER` that public key alone, and
`ct_SECRET.SERVER` a token. Each part is 32 bytes in base64 for URLs, without padding.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import zmq
from zmq.utils import z85

from capsule_protocol.errors import ArgumentError

CLIENT, SERVER, TOKEN = "ck_", "cs_", "ct_"
MAX_FILE = 4096
"""Bytes of a file with a key: more is some other file."""
_PART = r"([A-Za-z0-9_-]{43})"
_FORM = re.compile(rf"(?:(ck_|ct_){_PART}(?:\.{_PART})?|(cs_){_PART})")
_ALLOWED = "a key (`ck_…`), a token (`ct_…`), or the path of a file with one"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client shows to its node: a key of its own or a token. `server` is the node's public key; all are bytes.

    Without `server` nothing is encrypted.
    """

    secret: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    server: bytes = b""


def encode(prefix: str, secret: bytes, server: bytes = b"") -> str:
    """The word for a key or a token."""
    return prefix + ".".join(_text(part) for part in (secret, server) if part)


def read(key: str, argument: str = "key") -> Credentials:
    """The credentials in a word, or in the file that it names. Raises ArgumentError, which does not repeat a secret."""
    word = key.strip()
    if not word.startswith((CLIENT, TOKEN)):
        word = _contents(word, argument)
    found = _FORM.fullmatch(word)
    if found is None or found[1] is None:
        raise ArgumentError(argument, "is no key, or not a whole one", allowed=_ALLOWED)
    secret, server = _bytes(found[2]), _bytes(found[3]) if found[3] else b""
    if found[1] == TOKEN:
        return Credentials(token=TOKEN + found[2], server=server)
    return Credentials(secret=secret, server=server)


def read_server(key: str, argument: str = "server_key") -> bytes:
    """The node's public key in its word. Raises ArgumentError."""
    found = _FORM.fullmatch(key.strip())
    if found is None or found[4] is None:
        raise ArgumentError(
            argument, "is no public key of a node", allowed="`cs_…`, as `capsule keys server` prints it"
        )
    return _bytes(found[5])


def fingerprint(credential: bytes | str) -> str:
    """What is kept of a public key or a token. Both have 256 random bits, so a plain hash cannot be turned back."""
    return sha256(credential.encode() if isinstance(credential, str) else credential).hexdigest()


def public_key(secret: bytes) -> bytes:
    """The public key that belongs to a secret one."""
    return z85.decode(zmq.curve_public(z85.encode(secret)))


def new_secret() -> bytes:
    """A new secret key."""
    return z85.decode(zmq.curve_keypair()[1])


def _contents(path: str, argument: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(MAX_FILE).decode("ascii").strip()
    except OSError as error:
        raise ArgumentError(argument, f"{path[:200]!r} cannot be read: {error.strerror}", allowed=_ALLOWED) from error
    except ValueError as error:  # not ASCII, or a NUL in the path
        raise ArgumentError(argument, f"{path[:200]!r} holds no key", allowed=_ALLOWED) from error


def _text(part: bytes) -> str:
    return urlsafe_b64encode(part).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=")
