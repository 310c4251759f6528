"""URLs and hosts have one reading, or none."""

# ruff: noqa: RUF001 (characters that look like others are what is tested)

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule.providers.http.exchange import _request
from capsule.providers.http.hops import Hop, Sent
from capsule.providers.http.hosts import host_matches, literal, normal_host, normal_pattern
from capsule.providers.http.urls import Place, below, join, normal_path, parse
from capsule_protocol.errors import CapabilityFailed


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("https://example.org", "https://example.org/"),
        ("HTTPS://EXAMPLE.org:443/a?b#c", "https://example.org/a?b"),
        ("http://example.org:80/", "http://example.org/"),
        ("http://example.org:8080/", "http://example.org:8080/"),
        ("https://example.org./", "https://example.org/"),
        ("https://bücher.example/ä?ö=ü", "https://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC"),
        ("https://ｅxample。org/", "https://example.org/"),
        ("https://[2001:DB8:0::1]:8443/", "https://[2001:db8::1]:8443/"),
        ("https://example.org/a/./b/../c", "https://example.org/a/c"),
        ("https://example.org/../../etc", "https://example.org/etc"),
        ("https://example.org/%61%2fb%7e", "https://example.org/a%2Fb~"),
        ("https://example.org/a%2e%2e/b", "https://example.org/a../b"),
        ("https://example.org/v1/%2e%2E/admin", "https://example.org/admin"),
        ("https://example.org/a;b=1,2/{x}|", "https://example.org/a;b=1,2/%7Bx%7D%7C"),
        ("https://example.org/?a[]=1&b='\"", "https://example.org/?a%5B%5D=1&b='%22"),
        ("https://example.org?", "https://example.org/?"),
    ],
)
def test_a_url_has_one_spelling_which_httpx_reads_as_it_is(text: str, read: str) -> None:
    place = parse(text)
    assert str(place) == read
    assert str(parse(read)) == read
    url = httpx.URL(read)
    assert (url.scheme, url.raw_host.decode(), url.raw_path.decode()) == (place.scheme, place.host, place.target)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("example.org", "does not begin"),
        ("//example.org/", "does not begin"),
        ("https:/example.org", "does not begin"),
        ("https:example.org", "does not begin"),
        ("ftp://example.org/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1:6379/_x", "scheme"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://:443/", "no host"),
        ("https://me@example.org/", "user or a password"),
        ("https://me:it@example.org/", "user or a password"),
        ("https://example.org@evil.org/", "user or a password"),
        ("https://example.org:443@evil.org/", "user or a password"),
        ("https://example.org\\@evil.org/", "backslash"),
        ("https://example.org\\.evil.org/", "backslash"),
        ("https:\\\\example.org/", "backslash"),
        ("https://example.org/\\..\\x", "backslash"),
        (" https://example.org/", "space"),
        ("https://example.org/a b", "space"),
        ("https://example.org/\r\nHost: evil.org", "space or a control"),
        ("https://example.org/\x00", "space or a control"),
        ("https://example.org/\x7f", "space or a control"),
        ("https://example.org/\u2028", "space or a control"),
        ("https://example.org/\u202e", "space or a control"),
        ("https://example.org/\ud800", "space or a control"),
        ("https://exa\tmple.org/", "space or a control"),
        ("https://example.org:/", "port"),
        ("https://example.org:0/", "port"),
        ("https://example.org:65536/", "port"),
        ("https://example.org:99999999/", "port"),
        ("https://example.org:+443/", "port"),
        ("https://example.org:４４３/", "port"),
        ("https://example.org:443:80/", "port"),
        ("https://%65xample.org/", "percent-encoded"),
        ("https://example.org%00.evil.org/", "percent-encoded"),
        ("https://example..org/", "not a name"),
        ("https://.example.org/", "not a name"),
        ("https://example.org../", "not a name"),
        ("https://-example.org/", "not a name"),
        ("https://exa mple.org/", "space"),
        ("https://exa!mple.org/", "not a name"),
        ("https://xn--a.example.org/", "IDNA"),
        ("https://exam⁄ple.org/", "IDNA"),
        ("https://example.org／evil/", "IDNA"),
        ("https://[::1/", "no host"),
        ("https://::1/", "no host"),
        ("https://[fe80::1%25eth0]/", "without a zone"),
        ("https://[fe80::1%eth0]/", "without a zone"),
        ("https://[::g]/", "IPv6 address"),
        ("https://[127.0.0.1]/", "IPv6 address"),
        ("https://[v1.x]/", "IPv6 address"),
        ("https://[::1]evil.org/", "no host"),
        ("https://example.org/%zz", "%25"),
        ("https://example.org/?%", "%25"),
        ("https://example.org/a%2f..%2fb", "dot segments"),
        ("https://example.org/a%5c..%5cb", "dot segments"),
        ("https://example.org/v1/%252e%252e/admin", "dot segments"),
        ("https://example.org/v1/..;/admin", "dot segments"),
        ("https://example.org/v1/..%00/admin", "dot segments"),
        ("https://example.org/v1/..%20/admin", "dot segments"),
        ("https://example.org/%25252525252561", "too many times"),
        ("https://example.org/" + "a" * 8192, "longer"),
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


@pytest.mark.parametrize(
    "host",
    """127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 0177.0.0.1 017700000001 127.0.0.01 00127.0.0.1 127.0.0.0x1
    1.2.3.4.5 256.0.0.1 example.1 1 0 0x 127.0.0.1.. １２７.1 127。1 ①②⑦.1""".split(),  # noqa: SIM905
)
def test_an_address_in_another_form_than_four_decimal_numbers_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"four decimal numbers|not a name|IDNA"):
        normal_host(host)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("１２７。0.0.1", "127.0.0.1"),
        ("[::FFFF:7f00:1]", "::ffff:127.0.0.1"),
    ],
)
def test_an_address_is_known_for_one(text: str, host: str) -> None:
    assert literal(normal_host(text)) == literal(host)
    assert literal(host) is not None


@pytest.mark.parametrize("host", ["example.org", "1.example.org", "a1", "0xg", "my_service", "xn--bcher-kva.example"])
def test_a_name_is_no_address(host: str) -> None:
    assert normal_host(host) == host
    assert literal(host) is None


@given(st.text())
def test_any_text_is_read_into_its_one_spelling_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            place = parse(url)
        except ValueError:
            continue
        assert parse(str(place)) == place
        assert httpx.URL(str(place)).raw_path.decode() == place.target
        assert httpx.URL(str(place)).raw_host.decode() == place.host


@given(st.lists(st.sampled_from(["..", ".", "%2e", "%2E.", "%2f", "/", "\\", "%5c", "a", "v1", ";", "%252e", "%00"])))
def test_no_path_leads_out_of_its_prefix(parts: list[str]) -> None:
    try:
        path = normal_path("/v1/" + "".join(parts))
    except ValueError:
        return
    segments: list[str] = []
    for segment in path.replace("%2F", "/").replace("%5C", "/").split("/"):
        assert segment.partition(";")[0] not in (".", "..")
        segments.append(segment)
    assert httpx.URL(f"https://example.org{path}").raw_path.decode() == path


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("next", "https://example.org/a/next"),
        ("../next?x=1", "https://example.org/next?x=1"),
        ("/b", "https://example.org/b"),
        ("?y", "https://example.org/a/b?y"),
        ("//other.org/c", "https://other.org/c"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
    ],
)
def test_a_redirect_leads_where_it_says(location: str, place: str) -> None:
    assert str(join(parse("https://example.org/a/b"), location)) == place


@pytest.mark.parametrize(
    "location",
    ["javascript:x", "file:///etc/passwd", "//a@b/", "/\\evil.org", "\thttps://evil.org", "/a\nb", "https://[::1"],
)
def test_a_redirect_to_no_place_is_refused(location: str) -> None:
    with pytest.raises(ValueError):
        join(parse("https://example.org/a/b"), location)


@pytest.mark.parametrize(
    ("prefix", "path", "is_below"),
    [
        ("/", "/", True),
        ("/", "/x", True),
        ("/v1", "/v1", True),
        ("/v1", "/v1/x", True),
        ("/v1", "/v10", False),
        ("/v1", "/V1/x", False),
        ("/v1/", "/v1", False),
        ("/v1/", "/v1/x", True),
        ("/v1", "/%76%31/x", True),
        ("/v1", "/v1%2fx", False),
        ("/v1", "/v1/../v2", False),
        ("/v1", "//v1/x", False),
    ],
)
def test_a_prefix_ends_at_a_slash(prefix: str, path: str, is_below: bool) -> None:
    assert below(prefix, normal_path(path)) is is_below


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("example.org", "example.org", True),
        ("EXAMPLE.org.", "example.org", True),
        ("example.org", "www.example.org", False),
        ("example.org", "notexample.org", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "www.example.org.evil.org", False),
        ("*.*.example.org", "a.b.example.org", True),
        ("**.example.org", "a.b.example.org", True),
        ("**.example.org", "example.org", False),
        ("**.example.org", "evilexample.org", False),
        ("**", "a.b.c", True),
        ("**", "localhost", True),
        ("**", "127.0.0.1", False),
        ("**", "::1", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("::1", "::1", True),
        ("[0::1]", "::1", True),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_a_pattern_names_hosts(pattern: str, host: str, matches: bool) -> None:
    assert host_matches(normal_pattern(pattern), host) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "*.",
        "a*.example.org",
        "www.*.org",
        "***",
        "*.1",
        "*.0.0.1",
        "**.**.org",
        "example.org:443",
        "https://x",
        "example.org/",
        "a@b",
        "::1/128",
        "[::1]:80",
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        normal_pattern(pattern)


@pytest.mark.parametrize(
    "place",
    [
        Place("https", "example.org", 443, "/a b"),
        Place("https", "example.org", 443, "/é"),
        Place("https", "Example.org", 443, "/"),
        Place("https", "example.org", 443, "/", "a=b#c"),
    ],
)
def test_what_httpx_reads_otherwise_than_we_is_not_sent(place: Place) -> None:
    """No URL that `parse` lets through is one of these, as far as anybody knows; that is what the look is for."""
    with pytest.raises(CapabilityFailed, match="more than one way"):
        _request(Hop("GET", place, {}), Sent(place, []), None)
