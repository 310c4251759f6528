"""What a grant says to `http`: where requests may go, within which bounds, and with which secrets."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from capsule.broker.references import REFERENCE
from capsule.broker.sdk import ScopeSchema
from capsule.providers.http.addresses import refused, stands_for_v4, too_wide
from capsule.providers.http.fields import read_by
from capsule.providers.http.headers import check_name
from capsule.providers.http.hosts import host_matches, literal, normal_pattern
from capsule.providers.http.schemas import METHODS, normal_method
from capsule.providers.http.urls import PORTS, Place, below, normal_path
from capsule_protocol.errors import CapabilityDenied

_REFERENCE = re.compile(rf"([\x20-\x7e]*?){REFERENCE}")
_TOLD = 5
HOSTS = "example.org, *.example.org, **.example.org, **, or an address"
SECRETS = "'secret://name', with text before it if need be, by the name of a header or a parameter"


class Reference(NamedTuple):
    """A secret where it is used: what stands before it, and its name."""

    before: str
    name: str


def _prefix(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("a path begins with /")
    if normal_path(text) != text:
        raise ValueError(f"a path is written as it is compared: {normal_path(text)!r}")
    return text


def reference(text: str) -> Reference:
    """Read `secret://name`, perhaps with text before it. Raises ValueError."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise ValueError("a secret is named as 'secret://name', or as 'Bearer secret://name'")
    return Reference(found[1], found[2])


def _secret_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        check_name(name.lower())
        reference(value)
    return {name.lower(): value for name, value in headers.items()}


def _secret_query(query: dict[str, str]) -> dict[str, str]:
    for value in query.values():
        reference(value)
    return query


def _network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if too_wide(network):
        raise ValueError(f"{network} is too wide: name the networks that are meant")
    if stands_for_v4(network):
        raise ValueError(f"{network} stands for addresses of IPv4: name their network")
    return network


class Secrets(ScopeSchema):
    """What the node adds to a request; code sees neither name nor value."""

    headers: Annotated[dict[str, str], read_by(_secret_headers, SECRETS)] = Field(default_factory=dict)
    query: Annotated[dict[str, str], read_by(_secret_query, SECRETS)] = Field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.headers or self.query)


class Target(ScopeSchema):
    """Where requests may go. `port` is the scheme's own if it is not given; `path` is a prefix.

    `ranges`: code may ask for parts of answers also where secrets are added, and so of what they echo.
    """

    host: Annotated[str, read_by(normal_pattern, HOSTS)]
    scheme: Literal["https", "http"] = "https"
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    methods: Annotated[tuple[Annotated[str, read_by(normal_method, METHODS)], ...], Field(min_length=1)] = (
        "GET",
        "HEAD",
    )
    path: Annotated[str, read_by(_prefix, "/path/, say")] = "/"
    secrets: Secrets = Secrets()
    ranges: bool = False

    def allows(self, verb: str, place: Place) -> bool:
        """Whether a request is one of those that are meant."""
        return (
            self.scheme == place.scheme
            and (self.port or PORTS[self.scheme]) == place.port
            and verb in self.methods
            and host_matches(self.host, place.host)
            and below(self.path, place.path)
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'/'.join(self.methods)} {self.scheme}://{host}{f':{self.port}' if self.port else ''}{self.path}"


class Scope(ScopeSchema):
    """The `scope` of a grant of `http`. Times are in seconds; those that are not given are those of the call."""

    allow: Annotated[tuple[Target, ...], Field(min_length=1)]
    private: tuple[
        Annotated[IPv4Network | IPv6Network, read_by(_network, "the networks that are meant, such as 10.1.0.0/16")], ...
    ] = ()
    redirects: Annotated[int, Field(ge=0, le=20)] = 5
    connect_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    read_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    total_time: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    header_bytes: Annotated[int, Field(ge=1024, le=2**16)] = 2**15
    request_bytes: Annotated[int | None, Field(ge=0)] = None
    response_bytes: Annotated[int | None, Field(ge=0)] = None
    ca_file: Path | None = None


def target_of(verb: str, place: Place, scope: Scope) -> Target:
    """The first target that allows a request. Raises CapabilityDenied."""
    for target in scope.allow:
        if target.allows(verb, place):
            check_literal(place, scope)
            return target
    allowed = ", ".join(str(target) for target in scope.allow[:_TOLD]) + (", …" if scope.allow[_TOLD:] else "")
    message = f"{verb} {place.plain} is not allowed; allowed: {allowed}"
    raise CapabilityDenied("capability_outside_grant", message)


def check_literal(place: Place, scope: Scope) -> None:
    """Raise CapabilityDenied if the host is written as an address that may not be reached."""
    address = literal(place.host)
    kind = None if address is None else refused(address, scope.private)
    if kind is not None:
        raise address_denied(place.host, kind)


def address_denied(host: str, kind: str) -> CapabilityDenied:
    """The error of a host that may not be reached. It names no address: that is not the code's to know."""
    return CapabilityDenied("address_denied", f"{host} has an address that may not be reached: {kind}")
