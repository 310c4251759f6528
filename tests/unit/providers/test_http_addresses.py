"""Which addresses may be reached."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule.providers.http.addresses import refused, too_wide
from capsule.providers.http.names import is_here

PUBLIC = """1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808"""

REFUSED = {
    "unspecified": "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0 64:ff9b::",
    "loopback": "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1",
    "private": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fdff::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1",
    "link-local": "169.254.0.1 169.254.255.255 fe80::1 fe80::1%eth0 2606:4700::1%eth0 febf::1 ::ffff:169.254.1.1",
    "metadata": """169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254
        fd00:c1::a9fe:a9fe fe80::a9fe:a9fe 169.254.0.23
        ::ffff:169.254.169.254 ::169.254.169.254 64:ff9b::a9fe:a9fe 2001:4860::200:5efe:a9fe:a9fe""",
    "carrier-grade NAT": "100.64.0.1 100.127.255.255 ::ffff:100.64.0.1",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
    "benchmarking": "198.18.0.1 198.19.255.255 2001:2::1",
    "tunnel": "192.88.99.1 2002:7f00:1::1 2002:808:808::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ::ffff:224.0.0.1",
    "reserved": """192.0.0.1 240.0.0.1 255.255.255.255 100::1 100:0:0:1::1 5f00::1 64:ff9b:1::1 2001:10::1 2001:20::1
        4000::1 8000::1 1::1 fe00::1""",
}
CASES = [(kind, address) for kind, addresses in REFUSED.items() for address in addresses.split()]


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_may_be_reached(address: str) -> None:
    assert refused(ip_address(address)) is None


@pytest.mark.parametrize(("kind", "address"), CASES)
def test_a_special_address_is_refused(kind: str, address: str) -> None:
    assert refused(ip_address(address)) == kind


@given(st.ip_addresses(v=4))
def test_a_v6_address_is_judged_as_the_v4_address_that_it_stands_for(address: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert refused(ip_address(int(ip_address(prefix)) | int(address))) == refused(address)


@given(st.ip_addresses())
def test_what_the_interpreter_takes_for_not_global_is_refused(address: object) -> None:
    known = ip_address(str(address))
    if not known.is_global and known not in ip_network("64:ff9b::/96") and getattr(known, "ipv4_mapped", None) is None:
        assert refused(known) is not None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("10.1.2.3", "10.1.0.0/16"),
        ("::ffff:10.1.2.3", "10.1.0.0/16"),
        ("64:ff9b::a01:203", "10.1.0.0/16"),
        ("::1", "::1/128"),
        ("fd12::1", "fd12::/16"),
        ("169.254.7.7", "169.254.7.0/24"),
        ("169.254.169.254", "169.254.169.254/32"),
    ],
)
def test_a_network_that_a_grant_names_is_open(address: str, network: str) -> None:
    assert refused(ip_address(address), [ip_network(network)]) is None
    assert refused(ip_address(address), [ip_network("192.168.7.0/24")]) is not None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("169.254.169.254", "169.254.0.0/16"),
        ("fd00:ec2::254", "fd00::/8"),
        ("100.100.100.200", "100.64.0.0/10"),
        ("0.0.0.0", "0.0.0.0/8"),
        ("::", "::/96"),
        ("224.0.0.1", "224.0.0.0/4"),
        ("255.255.255.255", "255.0.0.0/8"),
        ("::ffff:127.0.0.1", "::ffff:0:0/96"),
    ],
)
def test_no_wide_network_opens_these(address: str, network: str) -> None:
    assert refused(ip_address(address), [ip_network(network)]) is not None


@pytest.mark.parametrize(
    ("network", "wide"),
    [("0.0.0.0/0", True), ("10.0.0.0/7", True), ("10.0.0.0/8", False), ("::/0", True), ("fc00::/7", False)],
)
def test_a_network_may_be_too_wide_to_be_meant(network: str, wide: bool) -> None:
    assert too_wide(ip_network(network, strict=False)) is wide


def test_the_machine_knows_its_own_addresses() -> None:
    families = {"AF_INET", "AF_INET6"}
    every = [entry for entries in psutil.net_if_addrs().values() for entry in entries if entry.family.name in families]
    own = [entry.address for entry in every if "%" not in entry.address]
    assert "127.0.0.1" in own
    assert [address for address in own if not is_here(ip_address(address))] == []
    assert not is_here(ip_address("192.0.2.1"))
    assert not is_here(ip_address("2001:db8::1"))
