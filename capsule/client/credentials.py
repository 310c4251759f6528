"""What a client shows to the node at its address: from its arguments, or from `CAPSULE_KEY`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from capsule import keys
from capsule.client.arguments import check_text
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from capsule.keys import Credentials

VARIABLE = "CAPSULE_KEY"
"""The key, the token, or the path of a file with one, for clients of `tcp://` addresses that were given none."""


def check_credentials(address: str, key: str | os.PathLike[str] | None, server_key: str | None) -> Credentials | None:
    """What to show at this address; None: nothing, and no encryption. Raises ArgumentError."""
    if not address.startswith("tcp://"):
        return _for_this_machine(key, server_key)
    argument = "key"
    if key is None:
        key, argument = os.environ.get(VARIABLE) or None, VARIABLE
    if key is None:
        if server_key is not None:
            raise ArgumentError("key", "is missing", allowed="with `server_key`, a key or a token")
        return None
    shown = keys.read(check_text(key, argument), argument)
    if server_key is not None:
        shown = replace(shown, server=keys.read_server(check_text(server_key, "server_key")))
    if not shown.server:
        message = "is missing, and the key does not hold it"
        raise ArgumentError("server_key", message, allowed="the public key of the node, `cs_…`")
    return shown


def _for_this_machine(key: str | os.PathLike[str] | None, server_key: str | None) -> Credentials | None:
    """Over a Unix socket the system says who the client is; a token may say that it is somebody else."""
    if server_key is not None:
        raise ArgumentError("server_key", "belongs to a tcp:// address", allowed="None")
    if key is None:
        return None
    shown = keys.read(check_text(key, "key"))
    if not shown.token:
        raise ArgumentError("key", "belongs to a tcp:// address", allowed="a token, or None")
    return shown
