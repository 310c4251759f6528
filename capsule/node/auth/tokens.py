"""New keys and tokens: the secret goes to whoever asked for it, once; the store keeps its fingerprint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from capsule.keys import CLIENT, TOKEN, encode, fingerprint, new_secret, public_key
from capsule.node.auth.keystore import KeyRecord
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from capsule.node.auth.keystore import KeyStore

_ALLOWED = {
    "name": "1 to 64 letters, digits and . _ @ -, not first a sign",
    "principal": "1 to 64 letters, digits and . _ @ -, not first a sign",
}


def issue(store: KeyStore, now: float, **given: Any) -> tuple[KeyRecord, str]:
    """A new key or token (`kind`) for `name`, `principal` and `role`, until `expires`: its record, and its word.

    Raises ArgumentError.
    """
    server = store.server_public()
    if given["kind"] == "token":
        word = encode(TOKEN, os.urandom(32), server)
        mark = fingerprint(word.partition(".")[0])
    else:
        secret = new_secret()
        word, mark = encode(CLIENT, secret, server), fingerprint(public_key(secret))
    try:
        record = KeyRecord(fingerprint=mark, created=now, **given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        argument = str(first["loc"][0])
        message = f"is {str(first['input'])[:80]!r}"
        raise ArgumentError(argument, message, allowed=_ALLOWED.get(argument, first["msg"])) from error
    store.add(record)
    return record, word
