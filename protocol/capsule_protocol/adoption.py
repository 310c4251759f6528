"""How a box and a node that wants to adopt it find out that each knows the session's secret, without telling it.

Each sends a nonce and then a proof over both nonces. The box proves first: what sits in its directory may be an
impostor, which the code of the session has put there.
"""

from __future__ import annotations

import hmac
import secrets

NONCE_SIZE = 32
SECRET_SIZE = 32
SOCKET = "box.sock"
"""The name of the socket in the box's directory at which it waits for another node."""
BOX = b"box"
NODE = b"node"


def nonce() -> bytes:
    """A fresh one."""
    return secrets.token_bytes(NONCE_SIZE)


def proof(secret: bytes, speaker: bytes, of_node: bytes, of_box: bytes) -> bytes:
    """What only who knows the secret can say, for these two nonces; `speaker` is BOX or NODE."""
    return hmac.digest(secret, speaker + b"\0" + of_node + of_box, "sha256")


def proves(given: object, secret: bytes, speaker: bytes, of_node: bytes, of_box: bytes) -> bool:
    """Whether that is the proof."""
    return isinstance(given, bytes) and hmac.compare_digest(given, proof(secret, speaker, of_node, of_box))
