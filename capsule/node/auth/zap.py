"""The authenticator: ZeroMQ asks it about each client of a CURVE socket (ZAP, https://rfc.zeromq.org/spec/27/)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import zmq

from capsule.keys import fingerprint
from capsule.sockets import Drain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

logger = logging.getLogger("capsule.auth")

ADDRESS: Final = "inproc://zeromq.zap.01"
DOMAIN: Final = b"capsule"
_VERSION = b"1.0"
_FRAMES = 7
"""Version, request, domain, address, identity, mechanism and the client's public key."""


class Authenticator:
    """Answers on the context of the listeners, in the node's own loop: it has no thread."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], loop: asyncio.AbstractEventLoop, accepts: Callable[[str], bool]
    ) -> None:
        self._accepts = accepts
        socket = context.socket(zmq.ROUTER)
        socket.bind(ADDRESS)
        self._drain = Drain(socket, loop, self._take)
        self._drain.start()

    def close(self) -> None:
        """Answer no more."""
        self._drain.close()

    def _take(self, frames: list[Any]) -> bool:
        """One question: a route, an empty frame, and what ZAP says."""
        border = frames.index(b"")
        route, question = frames[: border + 1], frames[border + 1 :]
        request = question[1] if len(question) > 1 else b""
        mark = self._judge(question)
        verdict = [b"200", b"OK", mark.encode()] if mark else [b"400", b"the key is not known", b""]
        self._drain.send([*route, _VERSION, request, *verdict, b""])
        return True

    def _judge(self, question: list[Any]) -> str:
        """The fingerprint of the key, if it may come in."""
        if len(question) != _FRAMES or question[0] != _VERSION or question[5] != b"CURVE":
            logger.warning("refused: a connection that shows no key; action=connect code=access_denied")
            return ""
        mark = fingerprint(question[6])
        if not self._accepts(mark):
            where = question[3].decode("ascii", "replace")
            logger.warning(
                "refused: principal=unknown key=%s from=%s action=connect code=access_denied", mark[:12], where
            )
            return ""
        return mark
