"""URLs, read strictly into one spelling: what is checked is what is sent."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, unquote_plus, urljoin

from capsule.providers.http.hosts import normal_host

if TYPE_CHECKING:
    from collections.abc import Iterable

URL_LENGTH = 8192
PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT = "%!$&'()*+,;=:@/"
_DECODINGS = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes. All parts are in their one spelling; the query is None if the URL has none."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None = None

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials belong to."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """Path and query."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def plain(self) -> str:
        """The URL without its query, for messages."""
        return f"{self.scheme}://{self.authority}{self.path}"[:500]

    def with_parameters(self, pairs: Iterable[tuple[str, str]]) -> Place:
        """The same place with more in its query."""
        added = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
        return replace(self, query="&".join(filter(None, (self.query, added)))) if added else self

    def parameters(self) -> set[str]:
        """The names in the query, as a server reads them."""
        parts = re.split("[&;]", self.query or "")
        return {unquote_plus(part.partition("=")[0]) for part in parts if part}


def parse(text: str) -> Place:
    """Where a URL leads. Raises ValueError, which says what is wrong, if it has more than one reading."""
    if len(text) > URL_LENGTH:
        raise ValueError(f"the URL is longer than {URL_LENGTH} characters")
    _check_characters(text)
    parts = _URL.fullmatch(text)
    if parts is None:
        raise ValueError("the URL does not begin with https:// or http://")
    scheme = parts[1].lower()
    if scheme not in PORTS:
        raise ValueError("the scheme of the URL is not https or http")
    host, port = _authority(parts[2], PORTS[scheme])
    query = None if parts[4] is None else _spelled(parts[4], _KEPT + "?")
    return Place(scheme, host, port, normal_path(parts[3]), query)


def join(base: Place, location: str) -> Place:
    """Where a redirect leads. Raises ValueError as `parse`."""
    # Before it is joined: urljoin takes some of what is refused silently out.
    _check_characters(location)
    return parse(urljoin(str(base), location))


def normal_path(text: str) -> str:
    """A path in its one spelling. Raises ValueError if another reader could leave it by dot segments."""
    path = _without_dots(_spelled(text or "/", _KEPT))
    decoded = path
    for _ in range(_DECODINGS):
        before, decoded = decoded, unquote(decoded, errors="replace")
        if decoded == before:
            break
    else:
        raise ValueError("the path is percent-encoded too many times over")
    # Servers differ in what they decode, when, and whether `..;x` or `..\` is a way up.
    segments = (re.split("[;\0]", segment)[0].strip() for segment in re.split(r"[/\\]", decoded))
    if any(segment in (".", "..") for segment in segments):
        raise ValueError("the path has encoded dot segments")
    return path


def below(prefix: str, path: str) -> bool:
    """Whether a path is the prefix, or below it: `/v1` has `/v1/x`, and not `/v10`."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _check_characters(text: str) -> None:
    if "\\" in text:
        raise ValueError("the URL has a backslash")
    for character in text:
        if not "!" <= character <= "~" and (character <= "\x7f" or unicodedata.category(character)[0] in "CZ"):
            raise ValueError("the URL has a space or a control character; encode it as %20, say")


def _authority(text: str, default: int) -> tuple[str, int]:
    if "@" in text:
        raise ValueError("the URL has a user or a password; send the header Authorization instead")
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        raise ValueError("the URL has no host, or a port that is not a number")
    port = int(parts[2]) if parts[2] else default
    if not 1 <= port <= 65535:
        raise ValueError("the port is not between 1 and 65535")
    return normal_host(parts[1]), port


def _spelled(text: str, kept: str) -> str:
    """Unreserved characters plain, all others encoded that have to be."""
    if "%" in _ESCAPE.sub("", text):
        raise ValueError("the URL has a % that encodes nothing; encode it as %25")

    def spell(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(spell, quote(text, safe=kept))


def _without_dots(path: str) -> str:
    """As RFC 3986 takes dot segments out, section 5.2.4."""
    done: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            del done[-1:]
        if segment not in (".", ".."):
            done.append(segment)
        elif last:
            done.append("")
    return "/" + "/".join(done)
