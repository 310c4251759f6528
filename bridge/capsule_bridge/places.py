"""Where a store is, as one writes it down: the file of SQLite, or the URL of a database or of a Resonate server."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from capsule_protocol.errors import ArgumentError

Kind = Literal["postgres", "resonate"]

POSTGRES = ("postgresql://", "postgres://")
RESONATE = "resonate+"
_SERVERS = ("resonate+http://", "resonate+https://")
ALLOWED = "postgresql://USER@HOST/DATABASE, or resonate+http://HOST:PORT"

_PASSWORD = re.compile(r"(://[^/?#:@]*:).*(?=@)", re.DOTALL)
_PARAMETER = re.compile(r"([?&](?:ssl)?password=)[^&#]*", re.IGNORECASE)


def kind_of(url: str) -> Kind:
    """What is meant by a URL. Raises ArgumentError if that is nothing, or has in it what belongs elsewhere."""
    if url.startswith(POSTGRES):
        return "postgres"
    if not url.startswith(_SERVERS):
        raise ArgumentError("url", f"is {shown(url)!r:.200}", allowed=ALLOWED)
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise ArgumentError("url", f"names no server: {shown(url)!r:.200}", allowed=ALLOWED)
    if "@" in parts.netloc or parts.query or parts.fragment:
        text = "has more in it than where the server is; a token is an option of its own"
        raise ArgumentError("url", text, allowed=ALLOWED)
    return "resonate"


def shown(url: str) -> str:
    """The URL without its passwords. Of one that is not understood rather too much is hidden than too little."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1***", url))
