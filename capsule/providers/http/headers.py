"""Headers of requests: which ones code may set, and which of those go along to another server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS = 64
HEADER_BYTES = 2**14

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\x20-\x7e\t]*")

_FRAMING = (
    """connection content-length expect host http2-settings keep-alive te trailer transfer-encoding upgrade via"""
)
# Some servers take the method or the path from these, and not from where it was checked.
_OVERRIDING = """forwarded x-host x-http-host-override x-http-method x-http-method-override x-method-override
x-original-host x-original-url x-real-host x-rewrite-url x-accel-redirect"""
FORBIDDEN = frozenset(f"{_FRAMING} {_OVERRIDING} accept-encoding".split())
FORBIDDEN_PREFIXES = ("proxy-", "x-forwarded-")

_ASKING = """accept accept-language cache-control content-language content-type if-match if-modified-since if-none-match
if-range if-unmodified-since range user-agent"""
CARRIED = frozenset(_ASKING.split())
"""What of the code's headers goes to another origin: nothing that could be a credential."""

BODY_HEADERS = frozenset({"content-type", "content-language", "content-encoding", "content-md5", "digest"})
"""What is left out when a redirect turns a request into one without a body."""


def checked(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with small names and trimmed values. Raises ValueError if one is not the code's to set."""
    if len(headers) > HEADERS or sum(len(name) + len(value) for name, value in headers.items()) > HEADER_BYTES:
        raise ValueError(f"there are more than {HEADERS} headers, or {HEADER_BYTES} bytes of them")
    found: dict[str, str] = {}
    for name, value in headers.items():
        small = name.lower()
        check_name(small)
        if not VALUE.fullmatch(value):
            raise ValueError(f"the header {small} has a value with a line break, a control or a non-ASCII character")
        if small in found:
            raise ValueError(f"the header {small} stands there twice")
        found[small] = value.strip(" \t")
    return found


def check_name(small: str) -> None:
    """Raise ValueError if no request may have this header; its name is in small letters."""
    if not NAME.fullmatch(small):
        raise ValueError(f"{small[:60]!r} is not the name of a header")
    # Gateways to CGI and WSGI take an underscore for a hyphen.
    read = small.replace("_", "-")
    if read in FORBIDDEN or read.startswith(FORBIDDEN_PREFIXES):
        raise ValueError(f"the header {small} is set by the node, or by nobody")
