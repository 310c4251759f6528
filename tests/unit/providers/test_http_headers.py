"""Which headers code may set."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from capsule.providers.http.headers import CARRIED, checked
from capsule.providers.http.schemas import Fetch

OURS = """Host Content-Length Transfer-Encoding Connection Keep-Alive Proxy-Authorization Proxy-Connection TE Trailer
    Upgrade Expect Via Accept-Encoding HTTP2-Settings Forwarded X-Forwarded-For X-Forwarded-Host X-HTTP-Method-Override
    X-Original-URL X-Rewrite-URL"""


@pytest.mark.parametrize("spell", [str, str.lower, str.upper, lambda name: name.replace("-", "_")])
@pytest.mark.parametrize("name", OURS.split())
def test_headers_that_are_not_the_codes_are_refused(name: str, spell: object) -> None:
    with pytest.raises(ValueError, match="set by the node"):
        checked({spell(name): "x"})  # type: ignore[operator]


@pytest.mark.parametrize(
    "name", ["", " Host", "Host ", "Host:", "A\r\nHost", "A\nB", "A\x00", "A B", "Ä", "a(b)", "a/b"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name of a header|set by the node"):
        checked({name: "x"})


@pytest.mark.parametrize(
    "value",
    ["a\r\nHost: evil", "a\nb", "a\rb", "a\x00b", "a\x0bb", "a\x7f", "\x1b[0m", "ä", "a\u2028b", "a\r\n b", "\n"],
)
def test_a_value_that_could_begin_another_line_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="has a value with"):
        checked({"X-Mine": value})


def test_names_are_small_and_values_trimmed() -> None:
    assert checked({"X-Mine": " a\tb ", "Authorization": ""}) == {"x-mine": "a\tb", "authorization": ""}


@pytest.mark.parametrize("headers", [{"a": "1", "A": "2"}, {f"a{n}": "" for n in range(65)}, {"a": "x" * 2**14}])
def test_doubles_and_too_many_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"twice|more than"):
        checked(headers)


def test_nothing_that_could_be_a_credential_goes_to_another_server() -> None:
    for name in ("authorization", "cookie", "x-api-key", "x-auth-token", "private-token", "referer", "origin"):
        assert name not in CARRIED
    checked(dict.fromkeys(CARRIED, "x"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": 1},
        {"url": "https://a@example.org/"},
        {"url": "https://example.org/", "method": "CONNECT"},
        {"url": "https://example.org/", "method": "trace"},
        {"url": "https://example.org/", "method": "GET / HTTP/1.1\r\nX:"},
        {"url": "https://example.org/", "method": ""},
        {"url": "https://example.org/", "headers": {"Host": "evil.org"}},
        {"url": "https://example.org/", "headers": [["a", "b"]]},
        {"url": "https://example.org/", "headers": {"a": b"b"}},
        {"url": "https://example.org/", "params": {"a": 1}},
        {"url": "https://example.org/", "params": {"a": ["x"] * 257}},
        {"url": "https://example.org/", "params": {"a": "x" * 8193}},
        {"url": "https://example.org/", "params": {"a": "ä" * 4000}},
        {"url": "https://example.org/", "params": {"a": "\ud800"}},
        {"url": "https://example.org/", "timeout": 0},
        {"url": "https://example.org/", "timeout": float("nan")},
        {"url": "https://example.org/", "timeout": float("inf")},
        {"url": "https://example.org/", "timeout": "1"},
        {"url": "https://example.org/", "proxy": "http://127.0.0.1"},
        {"url": "https://example.org/", "verify": False},
    ],
)
def test_a_malformed_request_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fetch.model_validate(fields)
