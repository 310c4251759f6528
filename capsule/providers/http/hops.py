"""What is sent at each step of a chain of redirects: decided anew from the scope, without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from capsule.providers.http.decoding import ACCEPTED
from capsule.providers.http.headers import BODY_HEADERS, CARRIED
from capsule.providers.http.masks import Mask
from capsule.providers.http.scope import reference, target_of
from capsule.providers.http.urls import join
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.providers.http.schemas import Fetch
    from capsule.providers.http.scope import Scope, Target
    from capsule.providers.http.urls import Place

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PARTIAL = frozenset({"range", "request-range"})
"""Headers that ask for a part of a body, the second one as some servers still read it."""
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_AS_GET = frozenset({301, 302, 303})
_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
AGENT = "capsule"


@dataclass(frozen=True, slots=True)
class Hop:
    """One request of a chain. `place` and `headers` are the code's; no secret is in them.

    `trusted`: all requests so far went to one origin, so that secrets may be added. `known`: values of the secrets that
    were sent so far. `hidden`: names of parameters that carried one. `effects`: a request before this one may have
    changed something.
    """

    method: str
    place: Place
    headers: dict[str, str]
    trusted: bool = True
    known: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    mask: Mask = field(default_factory=lambda: Mask(()))
    effects: bool = False

    @property
    def harmless(self) -> bool:
        """Whether it changes nothing, so that it may be sent again though nobody knows what became of it."""
        return self.method in _HARMLESS


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it is sent, secrets included."""

    place: Place
    headers: list[tuple[str, str]]


def first(request: Fetch) -> Hop:
    """What was asked for. Raises CapabilityDenied."""
    return Hop(request.method, request.place(), dict(request.headers))


def allowed(hop: Hop, scope: Scope) -> Target:
    """The target of a request. Raises CapabilityDenied, also if the code sets itself what the grant adds."""
    target = target_of(hop.method, hop.place, scope)
    given = {_hyphened(name) for name in target.secrets.headers}
    taken = sorted(name for name in hop.headers if _hyphened(name) in given)
    taken += sorted(hop.place.parameters() & target.secrets.query.keys())
    if taken:
        raise CapabilityDenied("capability_outside_grant", f"{taken[0]!r} is set by the grant, not by the code")
    if hop.trusted and target.secrets and not target.ranges and not PARTIAL.isdisjoint(hop.headers):
        message = "a part of an answer is not asked for with a secret, of which it could show a part"
        raise CapabilityDenied("capability_outside_grant", f"{message}: the grant does not say `ranges = true`")
    return target


def prepared(hop: Hop, target: Target, secret: Callable[[str], str]) -> tuple[Hop, Sent]:
    """The request with its secrets, and the hop that knows them. Raises CapabilityFailed."""
    headers = {"accept": "*/*", "user-agent": AGENT, **hop.headers}
    # A part of a packed body cannot be unpacked.
    # And how far a body can be packed tells whether what the code wrote into it is like a secret in it.
    plain = not PARTIAL.isdisjoint(headers) or (hop.trusted and target.secrets)
    headers |= {"accept-encoding": "identity" if plain else ACCEPTED, "connection": "close"}
    if not hop.trusted:
        return hop, Sent(hop.place, list(headers.items()))
    values: set[str] = set()

    def filled(text: str) -> str:
        before, name = reference(text)
        value = secret(name)
        if not _SENDABLE.fullmatch(value):
            raise CapabilityFailed(
                "secret_unknown", "a secret of the grant is empty, or has characters that cannot be sent"
            )
        values.add(value)
        return before + value

    headers |= {name: filled(text) for name, text in target.secrets.headers.items()}
    place = hop.place.with_parameters((name, filled(text)) for name, text in target.secrets.query.items())
    known = hop.known | values
    hidden = hop.hidden | target.secrets.query.keys()
    return replace(hop, known=known, hidden=hidden, mask=Mask(known)), Sent(place, list(headers.items()))


def following(hop: Hop, status: int, location: str) -> Hop:
    """Where a redirect leads. Raises CapabilityDenied and CapabilityFailed."""
    try:
        place = join(hop.place, location)
    except ValueError as error:
        raise CapabilityFailed("http_failed", f"the server redirects to no place: {error}") from error
    place = _without(place, hop.hidden)
    if hop.place.scheme == "https" and place.scheme == "http":
        raise CapabilityDenied("capability_outside_grant", f"a redirect from https to {place.plain} is not followed")
    method, headers = hop.method, hop.headers
    if status in _AS_GET and method not in ("GET", "HEAD") and (status == 303 or method == "POST"):
        method, headers = "GET", {name: value for name, value in headers.items() if name not in BODY_HEADERS}
    effects = hop.effects or not hop.harmless
    if place.origin == hop.place.origin:
        return replace(hop, method=method, place=place, headers=headers, effects=effects)
    if hop.mask.text(str(place)) != str(place):
        raise CapabilityDenied("capability_outside_grant", "a redirect would carry a secret to another server")
    headers = {name: value for name, value in headers.items() if name in CARRIED}
    return replace(hop, method=method, place=place, headers=headers, trusted=False, effects=effects)


def _hyphened(name: str) -> str:
    """As gateways to CGI and WSGI read the name of a header."""
    return name.replace("_", "-")


def _without(place: Place, names: frozenset[str]) -> Place:
    if not names or place.query is None:
        return place
    parts = [part for part in place.query.split("&") if unquote_plus(part.partition("=")[0]) not in names]
    return replace(place, query="&".join(parts) or None)
