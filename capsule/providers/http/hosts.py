"""Names of hosts: one spelling for each, and the patterns of grants that they are compared with.

Two programs that read a name differently are how a check is passed and another host reached. So a name has one form,
which is compared, resolved, sent and checked against the certificate; what has several readings is refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import idna

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_V6 = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")
_NAME_BYTES = 253


def normal_host(text: str) -> str:
    """The one spelling of a host as it stands in a URL: an address (a v6 one without brackets), or a name in ASCII.

    Raises ValueError for what is neither: an address in octal, hexadecimal or short form, a zone, a wrong name.
    """
    if text.startswith("["):
        return _v6(text)
    if "%" in text:
        raise ValueError("the host must not be percent-encoded")
    name = _ascii(text)
    name = name.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _v4(name)
    if len(name) > _NAME_BYTES or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host is not a name")
    return name


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a normal host is, or None for a name."""
    if ":" in host:
        return IPv6Address(host)
    return IPv4Address(host) if host[-1].isdigit() and _NUMBER.fullmatch(host.rsplit(".", 1)[-1]) else None


def normal_pattern(text: str) -> str:
    """A host of a grant: as `normal_host`, or with `*` (one label) or `**` (one or more) as its first labels.

    Raises ValueError.
    """
    stars = re.match(r"(?:\*\*(?:\.|$)|(?:\*\.)+(?!$))", text)
    if stars is None:
        return normal_host(f"[{text}]" if _V6.fullmatch(text) else _alone(text))
    rest = text[stars.end() :]
    if not rest:
        return stars[0].removesuffix(".")
    name = normal_host(rest)
    if literal(name) is not None:
        raise ValueError("a wildcard stands before a name, not before an address")
    return stars[0] + name


def host_matches(pattern: str, host: str) -> bool:
    """Whether a pattern names a host; both are normal. A wildcard never names an address."""
    if not pattern.startswith("*"):
        return pattern == host
    if literal(host) is not None:
        return False
    if pattern == "**":
        return True
    if pattern.startswith("**."):
        return host.endswith(pattern[2:]) and len(host) > len(pattern) - 2
    wanted, labels = pattern.split("."), host.split(".")
    return len(wanted) == len(labels) and all(w in ("*", label) for w, label in zip(wanted, labels, strict=True))


def _alone(text: str) -> str:
    if text.startswith("[") or not set(text) & set("/:@"):
        return text
    raise ValueError("a host stands alone, without a scheme, a port or a path")


def _ascii(text: str) -> str:
    name = text.lower()
    try:
        if not name.isascii():
            return idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower()
        if any(label.startswith("xn--") for label in name.split(".")):
            idna.decode(name, strict=True)
    except (UnicodeError, IndexError) as error:
        raise ValueError("the host is not a name as IDNA has it") from error
    return name


def _v4(name: str) -> str:
    # "127.1", "0x7f.0.0.1", "017700000001" are addresses to some programs; leading zeros are octal to half of them.
    try:
        return str(IPv4Address(name))
    except ValueError as error:
        raise ValueError("an IPv4 address is four decimal numbers without leading zeros") from error


def _v6(text: str) -> str:
    inner = text.removeprefix("[").removesuffix("]")
    if len(inner) != len(text) - 2 or not re.fullmatch(r"[0-9A-Fa-f:.]+", inner):
        raise ValueError("an IPv6 address stands in brackets, without a zone")
    try:
        return str(IPv6Address(inner))
    except ValueError as error:
        raise ValueError("the IPv6 address cannot be read") from error
