"""Which addresses may be connected to: those of the public Internet, and those that a grant names.

The table is IANA's registries of special addresses, of both versions. It stands here, and is not taken from the
interpreter, whose own changes from one patch release to the next.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part) for part in text.split())


METADATA = _networks(
    "169.254.169.254/32 169.254.169.253/32 169.254.170.2/32 169.254.170.23/32 169.254.0.23/32 100.100.100.200/32 "
    "168.63.129.16/32 192.0.0.192/32 fd00:ec2::254/128 fd00:ec2::23/128 fd20:ce::254/128 fd00:42::42/128 "
    "fd00:c1::a9fe:a9fe/128 fe80::a9fe:a9fe/128"
)
"""Where machines in clouds ask for their credentials; some stand in public ranges."""

NEVER: tuple[tuple[str, tuple[Network, ...]], ...] = (
    ("unspecified", _networks("0.0.0.0/8 ::/128")),
    ("multicast", _networks("224.0.0.0/4 ff00::/8")),
    ("reserved", _networks("255.255.255.255/32")),
)
"""No grant opens these: no server has such an address."""

SPECIAL: tuple[tuple[str, tuple[Network, ...]], ...] = (
    ("loopback", _networks("127.0.0.0/8 ::1/128")),
    ("private", _networks("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10")),
    ("link-local", _networks("169.254.0.0/16 fe80::/10")),
    ("carrier-grade NAT", _networks("100.64.0.0/10")),
    ("documentation", _networks("192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20")),
    ("benchmarking", _networks("198.18.0.0/15 2001:2::/48")),
    ("tunnel", _networks("192.88.99.0/24 2001::/32 2002::/16")),
    ("reserved", _networks("192.0.0.0/24 240.0.0.0/4 2001::/23 5f00::/16 100::/64 100:0:0:1::/64 64:ff9b:1::/48")),
)
"""Only a grant that names the network opens these."""

_GLOBAL_V6 = IPv6Network("2000::/3")
# A v6 address that stands for the v4 address in its last 32 bits; the first and the last of them are translated to
# v4 by the kernel and by NAT64.
_MAPPED = IPv6Network("::ffff:0:0/96")
_EMBEDDING = (_MAPPED, IPv6Network("::ffff:0:0:0/96"), IPv6Network("::/96"), IPv6Network("64:ff9b::/96"))
_ISATAP = (0x00005EFE, 0x02005EFE)
_WIDEST = {4: 8, 6: 7}


def refused(address: Address, opened: Iterable[Network] = ()) -> str | None:
    """The kind of an address that may not be connected to, or None if it may. `opened`: networks that a grant names.

    A v6 address that stands for a v4 one is judged as that.
    """
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "link-local"
        inner = _embedded(address)
        if inner is not None:
            return refused(inner, opened)
    opened = tuple(network for network in opened if network.version == address.version and address in network)
    never = _kind(address, NEVER)
    if never is not None:
        return never
    if _within(address, METADATA):
        return None if any(network.num_addresses == 1 for network in opened) else "metadata"
    if opened:
        return None
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return _kind(address, SPECIAL) or "reserved"
    return _kind(address, SPECIAL)


def too_wide(network: Network) -> bool:
    """Whether a network is so wide that opening it would rather be a slip than meant."""
    return network.prefixlen < _WIDEST[network.version]


def stands_for_v4(network: Network) -> bool:
    """Whether a v6 network has v4 addresses in it, which are judged as these, so that opening it would open nothing."""
    translated = (network.version == 6 and network.overlaps(each) for each in _EMBEDDING[:2] + _EMBEDDING[3:])
    return any(translated)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    number = int(address)
    if number > 1 and any(address in network for network in _EMBEDDING):
        return IPv4Address(number & 0xFFFFFFFF)
    # ISATAP has the v4 address behind this mark, whatever the network.
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def _kind(address: Address, table: tuple[tuple[str, tuple[Network, ...]], ...]) -> str | None:
    return next((kind for kind, networks in table if _within(address, networks)), None)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(network.version == address.version and address in network for network in networks)
